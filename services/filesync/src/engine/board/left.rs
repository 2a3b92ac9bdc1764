//! What is known of files that should have left their paths, or lie at another path than they should.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{FileId, FilePath, Reason};
use tokio::time::Instant;

use super::{Board, State};
use crate::domain::{
    exception::{Missing, Obstacle},
    held::Wanted,
};

/// Paths that the condition names, so that its text stays short.
const NAMED: usize = 3;

impl Board {
    /// The exception at a path.
    pub fn exception(&self, path: &FilePath) -> Option<Missing> {
        self.state().exceptions.get(path).map(|exception| exception.missing.clone())
    }

    /// Those of the files that are missing somewhere, and where.
    pub fn missing_files(&self, files: &BTreeSet<FileId>) -> BTreeMap<FileId, Wanted> {
        let state = self.state();
        let missing = state.exceptions.values().map(|exception| &exception.missing);
        let missing = missing.filter(|m| !m.is_left && files.contains(&m.wanted.file_id));
        missing.map(|m| (m.wanted.file_id, m.wanted.clone())).collect()
    }

    /// Where the bytes of a file are held that should be at another path by now.
    pub fn stale_path(&self, wanted: &Wanted) -> Option<FilePath> {
        let state = self.state();
        let is_stale = |path: &&FilePath| {
            **path != wanted.path
                && state
                    .held
                    .get(*path)
                    .is_some_and(|held| held.file_id == wanted.file_id && held.revision < wanted.revision)
        };
        state.by_digest.get(&wanted.digest)?.iter().find(is_stale).cloned()
    }
}

impl State {
    /// What was deleted and is still on the disk, in one sentence: no row of a registered file can show it.
    pub(super) fn left_behind(&self) -> Option<(Obstacle, Instant)> {
        let left = || self.exceptions.values().filter(|exception| exception.missing.is_left);
        let since = left().map(|exception| exception.since).min()?;
        let why =
            |missing: &Missing| missing.obstacle.as_ref().map_or("", |why| why.message.as_str()).to_owned();
        let named: Vec<String> = left().take(NAMED).map(|exception| why(&exception.missing)).collect();
        let (count, named) = (left().count(), named.join("; "));
        let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
        let message = format!("{count} deleted or moved file(s) are still on the disk: {named}{more}");
        Some((Obstacle { reason: Reason::DiskRefused, message }, since))
    }
}
