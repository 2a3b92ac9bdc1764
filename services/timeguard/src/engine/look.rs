//! Looking at the own clock: when it was set, and each second in any case.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Engine;
use crate::{
    domain::{step::Found, words},
    metrics,
    ports::{Ports, Signals, Witnesses as _},
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Where the kernel does not tell that the clock was set.
const EVERY_UNTOLD: Duration = Duration::from_millis(100);
/// What is known is written down this often: how far back a start looks.
const WRITE_EVERY: Duration = Duration::from_secs(5);

impl<P: Ports> Engine<P> {
    pub(super) async fn look(self, mut signals: P::Signals) {
        let every = if signals.is_told() { EVERY } else { EVERY_UNTOLD };
        let mut written: Option<Instant> = None;
        loop {
            let is_certified = self.inner.ports.witnesses.is_certified();
            let mut found = None;
            self.update(|guard, now| {
                guard.certify(is_certified);
                let looked = guard.look(now);
                found = looked.found;
                looked.change
            });
            match found {
                Some(Found::Step(step)) => {
                    metrics::stepped(true);
                    tracing::warn!(by = %words::seconds(step.by_ns), "the clock was set");
                }
                Some(Found::Small(by_ns)) => {
                    metrics::stepped(false);
                    tracing::debug!(by = %words::seconds(by_ns), "the clock was set by little");
                }
                None => {}
            }
            let is_step = matches!(found, Some(Found::Step(_)));
            if is_step || written.is_none_or(|at| at.elapsed() >= WRITE_EVERY) {
                if let Err(error) = self.write().await {
                    tracing::warn!(%error, "what is known of the clock could not be written down");
                }
                written = Some(Instant::now());
            }
            if self.read(|guard, _| guard.has_to_restart()) {
                self.inner.health.require_restart("the clock of this server was set");
            }
            tokio::select! {
                biased;
                () = signals.clock_set() => {}
                () = sleep(every) => {}
            }
        }
    }
}
