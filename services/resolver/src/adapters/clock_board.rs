//! Clocks from what the timeguards said last.

use lockstep_clocks::ClockBoard;
use lockstep_model::ServerId;
use lockstep_replicas::domain::cause::Cause;

use crate::ports::Clocks;

impl Clocks for ClockBoard {
    fn fence(&self, server: &ServerId) -> Option<Cause> {
        Self::fence(self, server)
    }
}
