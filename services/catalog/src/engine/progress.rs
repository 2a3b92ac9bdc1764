//! How far a download is, for its note.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lockstep_model::firmware::{FirmwareFailure, FirmwareFile};

use crate::domain::{
    Moment,
    error::Refusal,
    note::{DownloadNote, PARTIAL_MAX, Partial, VALIDATOR_BYTES_MAX},
    pace::Pace,
};

/// Shared by the files that are downloaded at the same time and by whoever writes the note.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    note: DownloadNote,
    pace: Pace,
}

impl Progress {
    /// Of `instance`, going on where the last note was left.
    pub(super) fn new(instance: &str, last: Option<&DownloadNote>) -> Self {
        let partial = last.map(|note| note.partial.clone()).unwrap_or_default();
        let note = DownloadNote { instance: instance.to_owned(), partial, ..DownloadNote::default() };
        Self { state: Mutex::new(State { note, pace: Pace::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes of a file are safe; `None` if the server has none of it.
    pub(super) fn reached(&self, place: usize, size_bytes: u64, bytes: Option<u64>) {
        let note = &mut self.state().note;
        if bytes == Some(size_bytes) {
            note.partial.remove(&place);
            note.done.insert(place);
            return;
        }
        note.done.remove(&place);
        let bytes = bytes.unwrap_or(0);
        if let Some(partial) = note.partial.get_mut(&place) {
            partial.bytes = bytes;
        } else if bytes > 0 && note.partial.len() < PARTIAL_MAX {
            note.partial.insert(place, Partial { bytes, validator: String::new() });
        }
    }

    /// What the vendor calls the version that the bytes are of.
    pub(super) fn validated(&self, place: usize, validator: &str) {
        let note = &mut self.state().note;
        let validator = if validator.len() > VALIDATOR_BYTES_MAX { "" } else { validator };
        if note.partial.contains_key(&place) || note.partial.len() < PARTIAL_MAX {
            note.partial.entry(place).or_default().validator = validator.to_owned();
        }
    }

    pub(super) fn validator(&self, place: usize) -> String {
        self.state().note.partial.get(&place).map_or_else(String::new, |partial| partial.validator.clone())
    }

    pub(super) fn is_done(&self, place: usize) -> bool {
        self.state().note.done.contains(&place)
    }

    pub(super) fn bytes_of(&self, place: usize, file: &FirmwareFile) -> u64 {
        self.state().note.bytes_of(place, file)
    }

    pub(super) fn bytes(&self, files: &[FirmwareFile]) -> u64 {
        self.state().note.bytes(files)
    }

    /// Something is in the way that is tried again, or no longer is.
    pub(super) fn troubled(&self, refusal: Option<&Refusal>) {
        self.state().note.failure = refusal.map(failure);
    }

    /// The note as it should be written now.
    pub(super) fn beat(&self, now: Moment, files: &[FirmwareFile]) -> DownloadNote {
        let state = &mut *self.state();
        state.pace.mark(now, state.note.bytes(files));
        state.note.bytes_per_second = state.pace.bytes_per_second();
        state.note.beat += 1;
        state.note.clone()
    }
}

pub(super) fn failure(refusal: &Refusal) -> FirmwareFailure {
    FirmwareFailure { reason: refusal.reason, message: refusal.message.clone() }
}
