//! Asks one server to catch up whenever it lags: at once when something new is known (R20), and again, with back-off,
//! while it lags. With one server nobody is asked (R13). The server's own cycle does the work where nobody asks (R21, R24).
//!
//! ```text
//!            reports, and behind the target
//!  idle ─────────────────────────────────────▶ asking ──answered, caught up──▶ idle
//!   ▲                                            │
//!   │          failed, or no headway             ▼
//!   └──────── back-off over, or news ──────── waiting
//! ```
//!
//! One call at a time for each server: what becomes known during a call is asked for in the next. Each server has its
//! own deadline and its own task, so that a slow one delays no other (R23).

use std::time::Duration;

use lockstep_chassis::{deadline, trace};
use lockstep_model::{Fault as _, Reason, Revision, ServerId, clock::Entropy};
use lockstep_replicas::{Beside, Link, Target};
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::{
    domain::{backoff::Backoff, cause::Cause},
    engine::Board,
    ports::{Address, Answered, Replicas},
};

/// How long a server has to make a round durable.
const RECONCILE_MAX: Duration = Duration::from_secs(10);
/// Back-off while a server fails or makes no headway. Its own cycle is the last resort, so this need not be fast.
const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Fans out to every server.
pub(crate) struct FanOuts<P, E> {
    pub(crate) replicas: P,
    pub(crate) board: Board,
    pub(crate) entropy: E,
}

impl<P: Replicas, E: Entropy> Beside for FanOuts<P, E> {
    fn serve(
        &self,
        address: Address,
        link: watch::Sender<Link>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (replicas, board, entropy) = (self.replicas.clone(), self.board.clone(), self.entropy.clone());
        FanOut { replicas, board, address, link, entropy }.run()
    }
}

/// Asks one server.
pub(crate) struct FanOut<P, E> {
    pub(crate) replicas: P,
    pub(crate) board: Board,
    pub(crate) address: Address,
    pub(crate) link: watch::Sender<Link>,
    pub(crate) entropy: E,
}

impl<P: Replicas, E: Entropy> FanOut<P, E> {
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(RETRY_LEAST, RETRY_MOST);
        let mut failed_because: Option<String> = None;
        loop {
            let target = self.due().await;
            let asked_at = self.position();
            match self.ask(&target).await {
                Ok(()) if self.position() >= target.revision => {
                    backoff.reset();
                    failed_because = None;
                    continue;
                }
                // It answers but cannot move on, for example because it has as many exceptions as it may have.
                Ok(()) => failed_because = None,
                Err(cause) => {
                    // One that went away is told by whoever watches it.
                    let gone = cause.is(Reason::Draining) || cause.is(Reason::PeerUnreachable);
                    if !gone && failed_because.as_ref() != Some(&cause.reason) {
                        let (server_id, reason) = (&self.address.id, &cause.reason);
                        tracing::warn!(%server_id, reason, cause = cause.message, "a server does not catch up");
                    }
                    failed_because = Some(cause.reason);
                }
            }
            if self.position() > asked_at {
                backoff.reset();
            }
            self.rest(backoff.wait(&self.entropy), failed_because.is_none().then_some(target.revision)).await;
        }
    }

    fn position(&self) -> Revision {
        self.link.borrow().position.map_or(Revision::ZERO, |position| position.revision)
    }

    /// Waits until the server reports, and lags, and there is another server.
    async fn due(&self) -> Target {
        let (mut target, mut link, mut members) =
            (self.board.target(), self.link.subscribe(), self.board.members());
        loop {
            let wanted = target.borrow_and_update().clone();
            let alone = members.borrow_and_update().addresses.len() < 2;
            let up = link.borrow_and_update().up;
            if up && !alone && self.position() < wanted.revision {
                return wanted;
            }
            // The senders live as long as this task.
            tokio::select! {
                biased;
                _ = target.changed() => {}
                _ = link.changed() => {}
                _ = members.changed() => {}
            }
        }
    }

    async fn ask(&self, target: &Target) -> Result<(), Cause> {
        fail::fail_point!("gateway.fanout.before");
        let span = tracing::info_span!(
            "fan_out",
            server_id = %self.address.id,
            revision = target.revision.0,
            reason = tracing::field::Empty,
        );
        trace::follow(&span, &target.traceparent);
        let holders: Vec<ServerId> =
            target.holder.iter().filter(|id| **id != self.address.id).cloned().collect();
        let work = deadline::within(RECONCILE_MAX, self.replicas.reconcile(&self.address, holders));
        let answer = work.instrument(span.clone()).await;
        let answer = answer.unwrap_or_else(|late| Err(Cause::new(late.reason(), late.to_string())));
        fail::fail_point!("gateway.fanout.after");
        match answer {
            Ok(Answered { position, .. }) => {
                // Its own report says the same soon; until then nobody needs to ask again.
                self.link.send_if_modified(|link| {
                    let moved = link.position.is_none_or(|known| known.revision < position.revision);
                    if moved {
                        link.position = Some(position);
                    }
                    moved
                });
                Ok(())
            }
            Err(cause) => {
                span.record("reason", cause.reason.as_str());
                Err(cause)
            }
        }
    }

    /// Waits for the back-off. A server that answered is asked at once when there is something newer; one that failed is
    /// asked early only when it starts to report anew.
    async fn rest(&self, wait: Duration, answered_for: Option<Revision>) {
        let (mut target, mut link) = (self.board.target(), self.link.subscribe());
        let news = async {
            match answered_for {
                Some(revision) => drop(target.wait_for(|target| target.revision > revision).await),
                None => std::future::pending().await,
            }
        };
        let back = async {
            drop(link.wait_for(|link| !link.up).await);
            drop(link.wait_for(|link| link.up).await);
        };
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            () = news => {}
            () = back => {}
        }
    }
}
