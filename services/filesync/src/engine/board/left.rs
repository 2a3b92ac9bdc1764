//! What is known of files that should have left their paths, or lie at another path than they should.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{FileId, FilePath, Position, Reason};
use tokio::time::Instant;

use super::{Board, State};
use crate::domain::{
    exception::{Missing, Obstacle},
    held::Wanted,
};

/// Paths that the condition names, so that its text stays short.
const NAMED: usize = 3;

impl Board {
    /// A server whose store is not there yet tells its conditions all the same: from the beginning of the history.
    pub fn begin_at(&self, start: Position) {
        self.change(|state| state.start = Some(start));
    }

    /// The exception at a path.
    pub fn exception(&self, path: &FilePath) -> Option<Missing> {
        self.state().exceptions.get(path).map(|exception| exception.missing.clone())
    }

    /// Whether a copy is held at exactly this revision and an exception all the same, because the disk refuses a look at it.
    pub fn is_doubted(&self, wanted: &Wanted) -> bool {
        let state = self.state();
        let known = state.exceptions.get(&wanted.path).map(|exception| &exception.missing);
        let is_same = known.is_some_and(|known| {
            !known.is_left && !known.is_kept && known.wanted.revision == wanted.revision
        });
        is_same && state.held.get(&wanted.path).is_some_and(|held| held.revision == wanted.revision)
    }

    /// Those of the files that are missing somewhere, and where.
    pub fn missing_files(&self, files: &BTreeSet<FileId>) -> BTreeMap<FileId, Wanted> {
        let state = self.state();
        let missing = state.exceptions.values().map(|exception| &exception.missing);
        let missing = missing.filter(|m| !m.is_left && !m.is_kept && files.contains(&m.wanted.file_id));
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

#[cfg(test)]
mod tests {
    use lockstep_model::{Digest, Md5, Revision, clock::SystemEntropy, record::Placement};

    use super::*;
    use crate::ports::Loaded;

    fn wanted(path: &str, size_bytes: u64) -> Wanted {
        Wanted {
            path: path.parse().expect("valid"),
            file_id: FileId::random(&SystemEntropy),
            revision: Revision(2),
            digest: Digest::of(path.as_bytes()),
            md5: Md5::from_bytes([0; 16]),
            size_bytes,
            registered_time: jiff::Timestamp::UNIX_EPOCH,
            origin: "s1".parse().expect("valid"),
            placement: Placement::All,
            traceparent: String::new(),
        }
    }

    /// R26, R27: what should be gone comes first, then small files, then large ones; and what should be gone is told as one
    /// condition that names the first few.
    #[tokio::test]
    async fn what_should_be_gone_comes_first_and_small_before_large() {
        let why =
            |path: &str| Obstacle { reason: Reason::DiskRefused, message: format!("{path} is immutable") };
        let left = |path: &str| Missing::left(wanted(path, 1 << 40), why(path), None);
        let missing = vec![
            Missing::new(wanted("a/large", 10 << 30)),
            Missing::new(wanted("b/small", 4_096)),
            left("z/left"),
            Missing::new(wanted("c/empty", 0)),
        ];
        let board = Board::new(&Loaded { missing, ..Loaded::default() });
        let due: Vec<String> =
            board.due(Instant::now()).into_iter().map(|missing| missing.wanted.path.to_string()).collect();
        assert_eq!(due, ["z/left", "c/empty", "b/small", "a/large"]);
        let more = ["y/1", "y/2", "y/3"].map(|path| crate::ports::Write::Miss(left(path)));
        board.apply(more.into());
        let told = board.report(None).conditions;
        assert_eq!(told.len(), 1);
        let message = &told[0].0.message;
        assert!(
            message.starts_with("4 deleted or moved file(s)") && message.ends_with("; and 1 more"),
            "{message}"
        );
        assert!(message.contains("y/1 is immutable") && !message.contains("z/left"), "{message}");
    }
}
