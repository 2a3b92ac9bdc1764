//! Working on what is missing: small files in batches on a lane of their own, so that none waits behind a large one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use lockstep_model::{Digest, Fault as _, Reason, ServerId};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument as _;

use super::{Engine, reconcile::PAGE_CHANGES};
use crate::{
    domain::{
        error::FileError,
        exception::{Missing, Obstacle},
        held::{StagedName, Wanted},
        tree::GROUP_BYTES,
    },
    ports::{Peer, PeerError, Peers as _, Ports, Store as _, StoreError, Write},
};

/// Batches of small files that run at once.
pub(super) const SMALL_BATCHES: usize = 2;
/// Large files that are received at once.
pub(super) const LARGE_COPIES: usize = 4;
/// Files in a batch.
const BATCH_FILES: usize = 500;
/// Bytes in a batch; they are held in memory until they are staged.
const BATCH_BYTES: u64 = 8 << 20;
/// Files that the disk refused, tried again one after the other before others are looked at.
const STUCK_FILES: usize = 100;
/// How long a peer may take to say what it holds.
const LOCATE_WITHIN: Duration = Duration::from_secs(3);
/// How long a stream may stand still before another source is tried: with the question who else holds the file, less than
/// 30 s in all. A mebibyte arrives whole or not at all, so this is also the slowest copy there is: 52 KiB/s.
pub(super) const STALL: Duration = Duration::from_secs(20);
/// How long a copy that found no room waits at most until it is tried again, if there is room by then.
const FULL_RETRY: Duration = Duration::from_secs(10);
/// How long to wait when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// Space that a transfer may count on, until it is dropped.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    reserved_bytes: &'a std::sync::atomic::AtomicU64,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.reserved_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl<P: Ports> Engine<P> {
    /// Sets space aside before the first byte is written.
    pub(super) async fn reserve(&self, bytes: u64) -> Result<Reserved<'_>, FileError> {
        let free_bytes = self.inner.ports.store.free_bytes().await.map_err(|error| self.disk(error))?;
        let reserved_bytes = &self.inner.reserved_bytes;
        let before = reserved_bytes.fetch_add(bytes, Ordering::Relaxed);
        let reserved = Reserved { reserved_bytes, bytes };
        if before.saturating_add(bytes) > free_bytes {
            let (free_bytes, needed_bytes) = (free_bytes.saturating_sub(before), bytes);
            let error = StoreError::Full { free_bytes, needed_bytes };
            return Err(FileError::Store { server: self.server().clone(), error });
        }
        Ok(reserved)
    }

    /// Sets space aside for as many small files as fit, the first ones; answers the others with why.
    pub(super) async fn reserve_first(
        &self,
        mut wanted: Vec<Wanted>,
    ) -> (Option<Reserved<'_>>, Vec<Wanted>, Vec<(Wanted, FileError)>) {
        let mut refused = Vec::new();
        loop {
            let error = match self.reserve(wanted.iter().map(|wanted| wanted.size_bytes).sum()).await {
                Ok(reserved) => return (Some(reserved), wanted, refused),
                Err(error) => error,
            };
            // What does not fit all together may fit in part.
            let is_full = matches!(error, FileError::Store { error: StoreError::Full { .. }, .. });
            let keep = if is_full { wanted.len() / 2 } else { 0 };
            refused.extend(wanted.split_off(keep).into_iter().map(|wanted| (wanted, error.clone())));
            if wanted.is_empty() {
                return (None, wanted, refused);
            }
        }
    }

    /// Starts copies of whatever is due, until the process drains.
    pub(super) async fn run_fetch(self) {
        loop {
            self.dispatch().await;
            // A position that waits moves on as soon as there is room for what follows.
            let room = self.inner.settings.exceptions_max.saturating_sub(self.inner.board.exception_count());
            if self.inner.ahead.waits() && room >= PAGE_CHANGES.min(self.inner.settings.exceptions_max) {
                self.request_round();
            }
            if let Err(error) = self.sweep_uploads().await {
                tracing::warn!(%error, "old uploads could not be removed");
            }
            self.sweep_early().await;
            let next = self.inner.board.next_due().unwrap_or_else(|| Instant::now() + IDLE);
            // What is due now but found no room in its lane is started when a copy ends.
            let next = next.max(Instant::now() + Duration::from_millis(100));
            tokio::select! {
                biased;
                () = self.inner.drain.started() => return,
                () = self.inner.fetch.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    async fn dispatch(&self) {
        let (now, board) = (Instant::now(), &self.inner.board);
        // Nothing is downloaded into what is not the store of this server, or cannot be written.
        if board.has_condition(Reason::StoreOffline) || board.has_condition(Reason::StoreReadOnly) {
            return;
        }
        let due = board.due(now);
        let concerned = self.inner.intents.concerned(due.iter().map(|missing| &missing.wanted));
        let (stuck, due): (Vec<Missing>, Vec<Missing>) = due.into_iter().partition(|missing| {
            let wanted = &missing.wanted;
            missing.is_left
                || wanted.is_elsewhere(self.server())
                || concerned.contains(&wanted.path)
                || board.is_doubted(wanted)
                || board.stale_path(wanted).is_some()
        });
        self.dispatch_stuck(stuck);
        let mut due: Vec<Wanted> = due.into_iter().map(|missing| missing.wanted).collect();
        if !due.is_empty() && board.has_condition(Reason::DiskFull) {
            // Without figures, each try finds out for itself.
            let free_bytes = self.inner.ports.store.free_bytes().await.unwrap_or(u64::MAX);
            due = board.fitting(due, free_bytes, now, FULL_RETRY);
        }
        let (small, large): (Vec<Wanted>, Vec<Wanted>) =
            due.into_iter().partition(|wanted| wanted.size_bytes <= GROUP_BYTES);
        let mut small = small.into_iter().peekable();
        while small.peek().is_some()
            && let Ok(permit) = Arc::clone(&self.inner.small_lane).try_acquire_owned()
        {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(next) =
                small.next_if(|w| batch.len() < BATCH_FILES && bytes + w.size_bytes <= BATCH_BYTES)
            {
                bytes += next.size_bytes;
                batch.push(next);
            }
            self.inner.board.copying(&batch, now);
            let engine = self.clone();
            let span = tracing::info_span!("fetch", server_id = %self.server(), files = batch.len(), bytes);
            follow(&span, &batch);
            let work = async move {
                // Cut off by the drain it is as after a crash: the exception is there at the next start.
                tokio::select! {
                    biased;
                    () = engine.inner.drain.started() => {}
                    () = engine.fetch_small(batch) => {}
                }
                drop(permit);
                engine.inner.fetch.notify_one();
            };
            self.inner.drain.spawn("fetch", work.instrument(span));
        }
        for wanted in large {
            let Ok(permit) = Arc::clone(&self.inner.large_lane).try_acquire_owned() else { return };
            self.inner.board.copying(std::slice::from_ref(&wanted), now);
            let engine = self.clone();
            let span = tracing::info_span!("fetch", server_id = %self.server(), path = %wanted.path, bytes = wanted.size_bytes);
            follow(&span, std::slice::from_ref(&wanted));
            let work = async move {
                // Cut off by the drain it is as after a crash: the exception is there at the next start.
                tokio::select! {
                    biased;
                    () = engine.inner.drain.started() => {}
                    () = engine.fetch_large(wanted) => {}
                }
                drop(permit);
                engine.inner.fetch.notify_one();
            };
            self.inner.drain.spawn("fetch", work.instrument(span));
        }
    }

    fn dispatch_stuck(&self, mut stuck: Vec<Missing>) {
        if stuck.is_empty() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.inner.stuck_lane).try_acquire_owned() else { return };
        stuck.truncate(STUCK_FILES);
        let engine = self.clone();
        let span = tracing::info_span!("retry", server_id = %self.server(), files = stuck.len());
        let work = async move {
            tokio::select! {
                biased;
                () = engine.inner.drain.started() => {}
                () = engine.retry_stuck(stuck) => {}
            }
            drop(permit);
            engine.inner.fetch.notify_one();
        };
        self.inner.drain.spawn("retry", work.instrument(span));
    }

    /// Notes that a try did not lead to bytes; under a lease, so that a deletion in between is not overwritten.
    pub(super) async fn fail_fetch(&self, wanted: &Wanted, obstacle: Obstacle) {
        let _lease = self.inner.leases.acquire([&wanted.path]).await;
        self.note_failure(wanted, obstacle).await;
    }

    /// Removes what was staged of copies that are not wanted any more.
    pub(super) async fn drop_superseded(&self, copies: &[Wanted]) -> Result<(), FileError> {
        let names: Vec<StagedName> =
            copies.iter().filter(|wanted| !self.inner.board.is_missing(wanted)).map(Wanted::staged).collect();
        if names.is_empty() {
            return Ok(());
        }
        self.record(names.iter().map(|name| Write::Unjournal(name.clone())).collect()).await?;
        self.discard(names).await;
        Ok(())
    }

    /// The same, for who has the lease of the path.
    pub(super) async fn note_failure(&self, wanted: &Wanted, obstacle: Obstacle) {
        let cycle = if obstacle.reason == Reason::DiskFull { FULL_RETRY } else { self.cycle() };
        tracing::info!(path = %wanted.path, revision = %wanted.revision, reason = %obstacle.reason, %obstacle, result = "failed", "copy");
        let missing = self.inner.board.failed(wanted, Some(obstacle), Instant::now(), cycle);
        if let Some(missing) = missing
            && let Err(error) = self.record(vec![Write::Miss(missing)]).await
        {
            tracing::warn!(%error, "a failed copy could not be noted");
        }
    }

    /// Which of the peers that were not tried yet hold what is wanted; for what none holds, why.
    pub(super) async fn find_holders(
        &self,
        wanted: Vec<Wanted>,
        tried: &BTreeSet<ServerId>,
    ) -> (Vec<(Peer, Vec<Wanted>)>, Vec<(Wanted, Obstacle)>) {
        let peers = match self.peers().await {
            Ok(peers) => peers,
            Err(error) => {
                let obstacle = Obstacle::of(&error);
                return (Vec::new(), wanted.into_iter().map(|w| (w, obstacle.clone())).collect());
            }
        };
        let peers: Vec<Peer> = peers.into_iter().filter(|peer| !tried.contains(&peer.server)).collect();
        let digests: Vec<Digest> =
            wanted.iter().map(|w| w.digest).collect::<BTreeSet<Digest>>().into_iter().collect();
        let asked = join_all(peers.iter().map(|peer| {
            let digests = digests.clone();
            async move {
                let answer = timeout(LOCATE_WITHIN, self.inner.ports.peers.locate(peer, digests)).await;
                answer.unwrap_or_else(|_| Err(silent(peer, LOCATE_WITHIN)))
            }
        }))
        .await;
        let silent: Vec<String> = peers
            .iter()
            .zip(&asked)
            .filter(|(_, answer)| answer.is_err())
            .map(|(peer, _)| peer.server.to_string())
            .collect();
        let mut found: BTreeMap<usize, Vec<Wanted>> = BTreeMap::new();
        let mut lost = Vec::new();
        for (turn, wanted) in wanted.into_iter().enumerate() {
            // Holders take turns, so that not everything comes from one.
            let order = (0..peers.len()).map(|at| (at + turn) % peers.len());
            let holder =
                order.into_iter().find(|at| asked[*at].as_ref().is_ok_and(|h| h.contains(&wanted.digest)));
            match holder {
                Some(at) => found.entry(at).or_default().push(wanted),
                None => lost.push((wanted.clone(), no_holder(&wanted, &silent))),
            }
        }
        (found.into_iter().map(|(at, wanted)| (peers[at].clone(), wanted)).collect(), lost)
    }

    /// The peer that a file came from, if it is one that can be asked.
    pub(super) async fn origin_of(&self, wanted: &Wanted) -> Option<Peer> {
        self.peers().await.ok()?.into_iter().find(|peer| peer.server == wanted.origin)
    }
}

/// Joins the trace of the change; a batch that joins several belongs to the first.
fn follow(span: &tracing::Span, batch: &[Wanted]) {
    if let Some(wanted) = batch.iter().find(|wanted| !wanted.traceparent.is_empty()) {
        lockstep_chassis::trace::follow(span, &wanted.traceparent);
    }
}

pub(super) fn silent(peer: &Peer, within: Duration) -> PeerError {
    PeerError {
        server: peer.server.clone(),
        reason: Reason::PeerUnreachable,
        message: format!("no answer within {} s", within.as_secs()),
    }
}

fn no_holder(wanted: &Wanted, silent: &[String]) -> Obstacle {
    let path = &wanted.path;
    match silent {
        [] => {
            Obstacle { reason: Reason::NoHolder, message: format!("no server holds the content of {path}") }
        }
        _ => Obstacle {
            reason: Reason::PeerUnreachable,
            message: format!(
                "no server that answers holds the content of {path}; no answer from {}",
                silent.join(", ")
            ),
        },
    }
}

/// What a failed read means for the copy.
pub(super) fn obstacle(error: &PeerError) -> Obstacle {
    Obstacle { reason: error.reason(), message: error.to_string() }
}
