//! Files that wait for room on a full disk: one condition of the server, and no try that is known to fail.

use std::time::Duration;

use lockstep_model::Reason;
use tokio::time::Instant;

use super::{Board, Exception};
use crate::domain::{exception::Stage, held::Wanted};

impl Exception {
    /// Whether the last try failed for want of room.
    fn waits_for_room(&self) -> bool {
        self.stage == Stage::Failed
            && self.missing.obstacle.as_ref().is_some_and(|obstacle| obstacle.reason == Reason::DiskFull)
    }
}

impl Board {
    /// Whether something of this kind concerns the whole server now.
    pub fn has_condition(&self, reason: Reason) -> bool {
        self.state().conditions.contains_key(&reason)
    }

    /// Whether a copy failed for want of room and was not tried with success since.
    pub fn waits_for_room(&self) -> bool {
        self.state().exceptions.values().any(Exception::waits_for_room)
    }

    /// Of copies that are due, smallest first, those that `free_bytes` has room for, and those that nobody knows yet not to
    /// fit. The others wait `pause`, without a try that would fail for each of them.
    pub fn fitting(&self, due: Vec<Wanted>, free_bytes: u64, now: Instant, pause: Duration) -> Vec<Wanted> {
        let (mut state, mut needed_bytes) = (self.state(), 0_u64);
        let mut fit = Vec::with_capacity(due.len());
        for wanted in due {
            needed_bytes = needed_bytes.saturating_add(wanted.size_bytes);
            match state.exceptions.get_mut(&wanted.path).filter(|known| known.waits_for_room()) {
                Some(known) if needed_bytes > free_bytes => known.due = now + pause,
                _ => fit.push(wanted),
            }
        }
        fit
    }
}
