//! What follows from the time guard: a server that it fences originates nothing, and drops nothing because of its age.
//! Whatever makes no change of its own goes on: copies from peers, serving, rounds, and bytes of uploads that were begun.

use std::time::Duration;

use lockstep_registry::{Commit, Committed, Registry as _, RegistryError};
use tokio::time::{Instant, sleep_until};

use super::Engine;
use crate::{
    domain::{
        error::FileError,
        guard::{Fence, Standing},
    },
    ports::{Guard as _, Ports},
};

/// How long a call waits for the first judgement of the clock.
const STARTING_MAX: Duration = Duration::from_secs(10);
/// What is left to a caller to be told why, out of its deadline.
const TELL: Duration = Duration::from_millis(500);

impl<P: Ports> Engine<P> {
    /// Whether this server may originate changes now. While its clock is not judged yet, that is waited for, not longer than
    /// a caller with this deadline does.
    pub(super) async fn may_originate(&self, deadline: Option<Instant>) -> Result<(), FileError> {
        self.may_change()?;
        let guard = &self.inner.ports.guard;
        let begun = Instant::now();
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(begun));
        let until = begun + STARTING_MAX.min(left.saturating_sub(TELL));
        let fenced = |fence: Fence| {
            let server = self.server().clone();
            Err(FileError::Fenced { server, fence: Box::new(fence) })
        };
        loop {
            let changed = guard.changed();
            match guard.standing() {
                Standing::Open => return self.may_change(),
                Standing::Fenced(fence) => return fenced(fence),
                Standing::Starting if Instant::now() >= until => {
                    return fenced(Fence::unjudged(self.server(), begun.elapsed()));
                }
                Standing::Starting => tokio::select! {
                    biased;
                    () = self.inner.drain.started() => return self.may_change(),
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Commits a change that was prepared. That may have taken long, and the fence may have gone up meanwhile.
    pub(super) async fn originate(
        &self,
        commit: Commit,
    ) -> Result<Result<Committed, RegistryError>, FileError> {
        match self.inner.ports.guard.standing() {
            Standing::Open | Standing::Starting => Ok(self.registry().commit(commit).await),
            Standing::Fenced(fence) => {
                Err(FileError::Fenced { server: self.server().clone(), fence: Box::new(fence) })
            }
        }
    }

    /// Whether something may go because it is old: not while the clock is in doubt (R65), although no age is measured by it.
    pub(super) fn may_expire(&self) -> bool {
        self.inner.ports.guard.standing() == Standing::Open
    }

    /// Shows the fence as a condition of the server, until the process drains. What the guard says, the guard logs; what follows
    /// from its silence is logged here, once when it begins and once when it ends.
    pub(super) async fn run_fence(self) {
        let mut is_logged = false;
        loop {
            let changed = self.inner.ports.guard.changed();
            let standing = self.inner.ports.guard.standing();
            let fence = match &standing {
                Standing::Fenced(fence) => Some(fence),
                Standing::Open | Standing::Starting => None,
            };
            // A guard that starts anew says nothing new yet: what was said before it stays.
            if standing != Standing::Starting {
                self.inner.board.show_fence(fence, Instant::now());
                let own = fence.filter(|fence| !fence.is_said);
                match own {
                    Some(fence) if !is_logged => {
                        tracing::warn!(reason = %fence.reason, why = %fence, "fenced: nothing is originated here");
                    }
                    None if is_logged => tracing::info!("the time guard is heard again"),
                    _ => {}
                }
                is_logged = own.is_some();
            }
            changed.await;
        }
    }
}
