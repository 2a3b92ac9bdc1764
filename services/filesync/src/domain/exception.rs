//! A file that is not held, or not gone, although the position has passed the revision that says so.

use std::time::Duration;

use lockstep_model::{Fault, Metadata, Reason};
use serde::{Deserialize, Serialize};

use crate::domain::held::Wanted;

/// The first wait after a failure; it doubles up to the cycle.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The most exceptions a server has; beyond that its position waits.
pub const EXCEPTIONS_MAX: usize = 10_000;

/// How far a missing copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waits for its turn.
    Pending,
    /// Bytes are on their way.
    Copying,
    /// The last try failed.
    Failed,
    /// Somebody changed the bytes: nothing is tried until somebody decides (R30, R31).
    Drifted,
    /// It is not missing: it is held, and meant for another server only (R12, R36).
    Kept,
}

impl Stage {
    /// Whether a try may begin.
    pub fn waits(self) -> bool {
        matches!(self, Self::Pending | Self::Failed)
    }
}

/// Why the last try failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Obstacle {
    /// The stable reason.
    pub reason: Reason,
    /// For a person.
    pub message: String,
}

impl Obstacle {
    /// From any fault.
    pub fn of(fault: &dyn Fault) -> Self {
        Self { reason: fault.reason(), message: fault.to_string() }
    }
}

impl Fault for Obstacle {
    fn reason(&self) -> Reason {
        self.reason
    }

    fn metadata(&self) -> Metadata {
        Vec::new()
    }
}

/// What is kept of an exception across a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What should be held.
    pub wanted: Wanted,
    /// Why it is not, if a try failed.
    pub obstacle: Option<Obstacle>,
    /// Tries that failed in a row.
    pub failures: u32,
    /// Why what lies at the path is not what is wanted, where that is known; it is set aside with this reason.
    #[serde(default)]
    pub displaces: Option<Reason>,
    /// The other way round: the file was deleted or moved away, and the disk does not let go of it. Then `wanted` is what
    /// it was, at the revision that ended it.
    #[serde(default)]
    pub is_left: bool,
    /// Nothing is missing: the copy is held although the file is meant for another server only.
    #[serde(default)]
    pub is_kept: bool,
}

impl Missing {
    /// Not tried yet.
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, obstacle: None, failures: 0, displaces: None, is_left: false, is_kept: false }
    }

    /// A copy that is held although the file is meant for another server only.
    pub fn kept(wanted: Wanted) -> Self {
        Self { is_kept: true, ..Self::new(wanted) }
    }

    /// The first try was refused already.
    pub fn refused(wanted: Wanted, obstacle: Obstacle) -> Self {
        Self { obstacle: Some(obstacle), failures: 1, ..Self::new(wanted) }
    }

    /// A file that should be gone from its path, and is not; `displaces` says why what lies there is not ours to unlink,
    /// where that is so.
    pub fn left(ended: Wanted, obstacle: Obstacle, displaces: Option<Reason>) -> Self {
        Self { displaces, is_left: true, ..Self::refused(ended, obstacle) }
    }

    /// A copy that was held and is not any more, for a reason that is known.
    pub fn given_up(wanted: Wanted, obstacle: Obstacle) -> Self {
        let bytes = [Reason::Drifted, Reason::StoredContentCorrupt];
        let displaces = Some(obstacle.reason).filter(|reason| bytes.contains(reason));
        Self { displaces, ..Self::refused(wanted, obstacle) }
    }

    /// Whether somebody changed the bytes, and nobody has decided yet.
    pub fn is_drifted(&self) -> bool {
        self.obstacle.as_ref().is_some_and(|obstacle| obstacle.reason == Reason::Drifted)
    }

    /// How far it is before anything was tried.
    pub fn stage(&self) -> Stage {
        match &self.obstacle {
            _ if self.is_kept => Stage::Kept,
            _ if self.is_drifted() => Stage::Drifted,
            Some(_) => Stage::Failed,
            None => Stage::Pending,
        }
    }
}

/// How long to wait after this many failures in a row (at least 1), never longer than the cycle.
pub fn retry_delay(failures: u32, cycle: Duration) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(cycle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R21: retries back off, and never beyond the cycle.
    #[test]
    fn retries_back_off_up_to_the_cycle() {
        let cycle = Duration::from_secs(300);
        let delays: Vec<u64> = (1..=11).map(|failures| retry_delay(failures, cycle).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(retry_delay(u32::MAX, cycle), cycle);
    }
}
