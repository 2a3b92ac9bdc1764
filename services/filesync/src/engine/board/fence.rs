//! The fence of the time guard, as a condition of the server. It bars nothing by itself: whoever originates asks the guard.

use lockstep_model::Reason;
use tokio::time::Instant;

use super::Board;
use crate::domain::{exception::Obstacle, guard::Fence};

/// What a fence may be shown as.
const FENCES: [Reason; 2] = [Reason::ClockFenced, Reason::RestartRequired];

impl Board {
    /// Shows this fence and no other.
    pub fn show_fence(&self, fence: Option<&Fence>, now: Instant) {
        let shown = {
            let state = self.state();
            FENCES.iter().find_map(|reason| state.conditions.get(reason)).cloned()
        };
        let new = fence.map(|fence| Obstacle { reason: fence.reason, message: fence.message.clone() });
        if shown.map(|(obstacle, _)| obstacle) != new {
            let since = fence.and_then(|fence| now.checked_sub(fence.age)).unwrap_or(now);
            self.change(|state| {
                FENCES.iter().for_each(|reason| drop(state.conditions.remove(reason)));
                state.conditions.extend(new.map(|obstacle| (obstacle.reason, (obstacle, since))));
            });
        }
    }
}
