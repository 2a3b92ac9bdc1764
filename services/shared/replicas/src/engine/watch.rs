//! Watches the replicas of one server, for as long as it takes part.

use std::time::Duration;

use futures::StreamExt as _;
use lockstep_chassis::watch::HEARTBEAT;
use lockstep_model::{Reason, clock::Entropy};
use tokio::sync::watch;

use crate::{
    domain::{
        Moment,
        backoff::Backoff,
        cause::Cause,
        live::Live,
        report::{Assembler, Part},
    },
    engine::{
        board::{Board, Target},
        roster::Link,
    },
    ports::{Address, Parts, Reports},
};

/// Back-off between two tries to reach a server.
const RECONNECT_LEAST: Duration = Duration::from_millis(100);
const RECONNECT_MOST: Duration = Duration::from_secs(3);
/// A server that says nothing for this long, while its connection is alive, hangs: three heartbeats. A server that
/// vanishes is noticed by the keep-alive of its connection, within 10 s.
const SILENCE_MAX: Duration = HEARTBEAT.saturating_mul(3);
/// How long a server may take to accept a watch.
const OPEN_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Watch<V, P, E> {
    pub(crate) reports: P,
    pub(crate) board: Board<V>,
    pub(crate) address: Address,
    pub(crate) link: watch::Sender<Link>,
    pub(crate) entropy: E,
}

impl<V: Live, P: Reports, E: Entropy> Watch<V, P, E> {
    pub(crate) async fn run(self) {
        let id = &self.address.id;
        let mut backoff = Backoff::new(RECONNECT_LEAST, RECONNECT_MOST);
        let mut lost_because: Option<Cause> = None;
        loop {
            let opened = self.board.now();
            let cause = match tokio::time::timeout(OPEN_MAX, self.reports.watch(&self.address)).await {
                Ok(Ok(parts)) => self.consume(parts, opened, &mut backoff, &mut lost_because).await,
                Ok(Err(cause)) => cause,
                Err(_) => silent(OPEN_MAX),
            };
            let was_up = self.link.send_replace(Link::default()).up;
            self.board.update(|view| view.lose(id, cause.clone()));
            let (reason, text) = (&cause.reason, &cause.message);
            // A server that says goodbye, or was not there yet, is no trouble.
            if was_up && !cause.is(Reason::Draining) {
                tracing::warn!(server_id = %id, reason, cause = text, "server lost");
            } else if lost_because.as_ref().is_none_or(|known| known.reason != cause.reason) {
                tracing::info!(server_id = %id, reason, cause = text, "server does not report");
            }
            lost_because = Some(cause);
            tokio::time::sleep(backoff.wait(&self.entropy)).await;
        }
    }

    /// Takes what comes until nothing more does; says why.
    async fn consume(
        &self,
        mut parts: Parts,
        opened: Moment,
        backoff: &mut Backoff,
        lost_because: &mut Option<Cause>,
    ) -> Cause {
        let id = &self.address.id;
        let mut assembler = Assembler::new(opened);
        loop {
            let part = match tokio::time::timeout(SILENCE_MAX, parts.next()).await {
                Ok(Some(Ok(part))) => part,
                Ok(Some(Err(cause))) => return cause,
                Ok(None) => return Cause::new(Reason::PeerUnreachable, "the server ended its report"),
                Err(_) => return silent(SILENCE_MAX),
            };
            self.hint(&part);
            let now = self.board.now();
            match assembler.push(part, now) {
                Ok(Some(batch)) => {
                    let position = batch.summary.position;
                    self.board.update(|view| view.receive(id, batch));
                    let was_up = self.link.borrow().up;
                    self.link.send_modify(|link| *link = Link { up: true, position: Some(position) });
                    if !was_up {
                        tracing::info!(server_id = %id, revision = position.revision.0, "server reports");
                        backoff.reset();
                        *lost_because = None;
                    }
                }
                Ok(None) => self.board.update(|view| view.copies_mut().beat(id, now)),
                Err(error) => {
                    tracing::error!(server_id = %id, %error, "a report breaks the contract");
                    return Cause::new(Reason::Internal, error.to_string());
                }
            }
        }
    }

    /// What the server holds ahead of everybody is news for the others, before anything else is done with it.
    fn hint(&self, part: &Part) {
        let held = part.end.iter().flat_map(|end| &end.held_ahead);
        if let Some(newest) = held.max_by_key(|held| held.revision) {
            self.board.raise(Target {
                revision: newest.revision,
                traceparent: newest.traceparent.clone(),
                holder: Some(self.address.id.clone()),
            });
        }
    }
}

fn silent(time: Duration) -> Cause {
    Cause::new(Reason::PeerUnreachable, format!("the server said nothing for {} s", time.as_secs()))
}
