//! Watches the timeguard of one server, for as long as the server takes part.

use std::time::Duration;

use futures::StreamExt as _;
use lockstep_model::{Reason, clock::Entropy};
use lockstep_replicas::{
    Address,
    domain::{backoff::Backoff, cause::Cause},
};

use crate::{
    engine::board::ClockBoard,
    ports::{ClockReports, Reports},
};

/// Back-off between two tries to reach a timeguard.
const RECONNECT_LEAST: Duration = Duration::from_millis(100);
const RECONNECT_MOST: Duration = Duration::from_secs(3);
/// A timeguard that says nothing for this long hangs: it speaks every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long it may take to accept a watch.
const OPEN_MAX: Duration = Duration::from_secs(5);

pub(super) struct Watch<P, E> {
    pub(super) reports: P,
    pub(super) board: ClockBoard,
    pub(super) guard: Address,
    pub(super) entropy: E,
}

impl<P: ClockReports, E: Entropy> Watch<P, E> {
    pub(super) async fn run(self) {
        let id = &self.guard.id;
        let mut backoff = Backoff::new(RECONNECT_LEAST, RECONNECT_MOST);
        let mut lost_because: Option<Cause> = None;
        loop {
            let (cause, was_heard) =
                match tokio::time::timeout(OPEN_MAX, self.reports.watch(&self.guard)).await {
                    Ok(Ok(reports)) => self.consume(reports).await,
                    Ok(Err(cause)) => (cause, false),
                    Err(_) => (silent(OPEN_MAX), false),
                };
            if was_heard {
                backoff.reset();
                lost_because = None;
            }
            // A timeguard that says goodbye, or was not there yet, is no trouble. Its last words stay for a while.
            let (reason, text) = (&cause.reason, &cause.message);
            if was_heard && !cause.is(Reason::Draining) {
                tracing::warn!(server_id = %id, reason, cause = text, "timeguard lost");
            } else if lost_because.as_ref().is_none_or(|known| known.reason != cause.reason) {
                tracing::info!(server_id = %id, reason, cause = text, "timeguard is not heard");
            }
            lost_because = Some(cause);
            tokio::time::sleep(backoff.wait(&self.entropy)).await;
        }
    }

    /// Takes what comes until nothing more does; says why, and whether anything came.
    async fn consume(&self, mut reports: Reports) -> (Cause, bool) {
        let mut was_heard = false;
        loop {
            match tokio::time::timeout(SILENCE_MAX, reports.next()).await {
                Ok(Some(Ok(report))) => {
                    if !was_heard {
                        tracing::info!(server_id = %self.guard.id, "timeguard is heard");
                    }
                    was_heard = true;
                    self.board.hear(&self.guard.id, report);
                }
                Ok(Some(Err(cause))) => return (cause, was_heard),
                Ok(None) => {
                    let text = "the timeguard ended its report";
                    return (Cause::new(Reason::PeerUnreachable, text), was_heard);
                }
                Err(_) => return (silent(SILENCE_MAX), was_heard),
            }
        }
    }
}

fn silent(time: Duration) -> Cause {
    Cause::new(Reason::PeerUnreachable, format!("the timeguard said nothing for {} s", time.as_secs()))
}
