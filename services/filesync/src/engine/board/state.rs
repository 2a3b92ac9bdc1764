//! What each write does to what is known.

use lockstep_model::FilePath;
use tokio::time::Instant;

use super::{CHANGES_KEPT, Exception, State};
use crate::{
    domain::{
        exception::{Missing, Stage},
        held::Held,
    },
    ports::Write,
};

impl State {
    pub(super) fn apply(&mut self, write: Write) {
        match write {
            Write::Position(position) => {
                self.position = Some(position);
                self.ahead.retain(|_, (revision, _)| *revision > position.revision);
            }
            Write::Hold(path, held) => self.hold(path, held),
            Write::Release(path) => self.release(&path),
            Write::Miss(missing) => self.miss(missing),
            Write::Clear(path) => self.clear(path),
            _ => {}
        }
    }

    pub(super) fn hold(&mut self, path: FilePath, held: Held) {
        self.release(&path);
        self.by_digest.entry(held.digest).or_default().insert(path.clone());
        self.held.insert(path, held);
    }

    pub(super) fn release(&mut self, path: &FilePath) {
        let Some(held) = self.held.remove(path) else { return };
        if let Some(paths) = self.by_digest.get_mut(&held.digest) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_digest.remove(&held.digest);
            }
        }
    }

    pub(super) fn miss(&mut self, missing: Missing) {
        let now = Instant::now();
        let path = missing.wanted.path.clone();
        let known =
            self.exceptions.get(&path).filter(|e| e.missing.wanted.revision == missing.wanted.revision);
        let exception = match known {
            // A try that is under way, or its outcome: the board knows more than what is remembered.
            Some(known) if !is_settled(missing.stage()) && !is_settled(known.stage) => {
                Exception { missing, ..known.clone() }
            }
            _ => Exception { stage: missing.stage(), missing, since: now, tried: None, due: now },
        };
        self.missing_count += usize::from(!exception.missing.is_kept);
        let before = self.exceptions.insert(path.clone(), exception);
        self.missing_count -= before.map_or(0, |before| usize::from(!before.missing.is_kept));
        self.changed(path);
    }

    fn clear(&mut self, path: FilePath) {
        let Some(before) = self.exceptions.remove(&path) else { return };
        self.missing_count -= usize::from(!before.missing.is_kept);
        self.changed(path);
    }

    pub(super) fn changed(&mut self, path: FilePath) {
        self.sequence += 1;
        self.changes.push_back((self.sequence, path));
        if self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
        }
    }
}

/// Whether nothing is tried in this stage.
fn is_settled(stage: Stage) -> bool {
    matches!(stage, Stage::Drifted | Stage::Kept)
}
