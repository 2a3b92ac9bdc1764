//! Looking at the own clock: when it was set, and each second in any case. Beside it, writing down what is known, which a slow
//! disk may take long for.

use std::time::Duration;

use tokio::time::{sleep, timeout};

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
        loop {
            self.look_once();
            tokio::select! {
                biased;
                () = signals.clock_set() => {}
                () = sleep(every) => {}
            }
        }
    }

    fn look_once(&self) {
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
                self.inner.stepped.notify_one();
            }
            Some(Found::Small(by_ns)) => {
                metrics::stepped(false);
                tracing::debug!(by = %words::seconds(by_ns), "the clock was set by little");
            }
            None => {}
        }
    }

    /// Writes down what is known, at once after a step; then the process may be started again.
    pub(super) async fn keep_notes(self) {
        let mut is_unwritten = false;
        loop {
            let failed = self.write().await.err();
            match &failed {
                Some(error) if !is_unwritten => {
                    tracing::warn!(%error, "what is known of the clock cannot be written down, a restart would not know it");
                }
                None if is_unwritten => tracing::info!("what is known of the clock is written down again"),
                _ => {}
            }
            is_unwritten = failed.is_some();
            if self.read(|guard, _| guard.has_to_restart()) {
                self.inner.health.require_restart("the clock of this server was set");
            }
            // That nobody set the clock meanwhile is the usual case.
            let _ = timeout(WRITE_EVERY, self.inner.stepped.notified()).await;
        }
    }
}
