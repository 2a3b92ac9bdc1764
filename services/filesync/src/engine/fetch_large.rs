//! Large files: one stream each, every mebibyte checked as it arrives, and a journal that survives a crash.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use lockstep_model::{Reason, ServerId};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Engine,
    board::Transfer,
    fetch::{STALL, obstacle, silent},
    flush::Flusher,
};
use crate::{
    domain::{
        error::FileError,
        exception::Obstacle,
        held::{StagedName, Wanted},
        intent::Staged,
        tree::{GROUP_BYTES, Groups},
    },
    ports::{Index as _, Part, Parts as _, Peer, PeerError, Peers as _, Ports, Range, Store as _, Write},
};

/// Verified mebibytes that wait for the disk.
const QUEUE_GROUPS: usize = 4;
/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Why a stream ended early.
enum Broken {
    /// The peer: another one is tried.
    Peer(PeerError),
    /// This server: trying elsewhere does not help.
    Here(FileError),
}

impl<P: Ports> Engine<P> {
    /// Copies one file: from its origin first, then from whoever holds it; what was verified is kept in between.
    pub(super) async fn fetch_large(&self, wanted: Wanted) {
        let result = self.copy_large(&wanted).await;
        self.inner.board.transfer(&wanted.path, None);
        if let Err(obstacle) = result {
            self.fail_fetch(&wanted, obstacle).await;
        }
        if let Err(error) = self.drop_superseded(&[wanted]).await {
            tracing::warn!(%error, "an interrupted copy could not be removed");
        }
    }

    async fn copy_large(&self, wanted: &Wanted) -> Result<(), Obstacle> {
        let here = |error: FileError| Obstacle::of(&error);
        let rest = self.adopt_present(vec![wanted.clone()]).await.map_err(|(_, error)| here(error))?;
        if rest.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        if let Some(staged) = self.take_early(wanted).await {
            return self.land_early(wanted, staged, begun).await.map_err(here);
        }
        let mut verified = self.resume(wanted).await.map_err(here)?;
        let reserved = self.reserve(wanted.size_bytes - verified).await.map_err(|error| {
            if let FileError::Store { error, .. } = &error {
                self.disk(error.clone());
            }
            Obstacle::of(&error)
        })?;
        let mut tried = BTreeSet::new();
        let mut last = None;
        let mut next = self.origin_of(wanted).await;
        loop {
            let peer = match next.take() {
                Some(peer) => peer,
                None => {
                    let (holders, lost) = self.find_holders(vec![wanted.clone()], &tried).await;
                    match (holders.into_iter().next(), lost.into_iter().next()) {
                        (Some((peer, _)), _) => peer,
                        (None, Some((_, why))) => return Err(last.unwrap_or(why)),
                        (None, None) => return Err(last.unwrap_or_else(|| drained(wanted))),
                    }
                }
            };
            match self.stream(&peer, wanted, &mut verified).await {
                Ok(()) => {
                    drop(reserved);
                    return self.land_large(&peer.server, wanted, wanted.staged(), begun).await.map_err(here);
                }
                Err(Broken::Here(error)) => return Err(Obstacle::of(&error)),
                Err(Broken::Peer(error)) => {
                    tracing::info!(path = %wanted.path, source = %peer.server, %error, verified, "trying another source");
                    tried.insert(peer.server);
                    last = Some(obstacle(&error));
                }
            }
            if self.inner.drain.is_draining() || !self.inner.board.is_missing(wanted) {
                return Err(drained(wanted));
            }
        }
    }

    /// How many verified bytes an earlier try left in staging.
    async fn resume(&self, wanted: &Wanted) -> Result<u64, FileError> {
        let loaded = self.inner.ports.index.load_journal(wanted.staged()).await;
        let verified = loaded.map_err(|error| self.index_failed(&error))?.unwrap_or(0).min(wanted.size_bytes);
        let store = &self.inner.ports.store;
        store.truncate(&wanted.staged(), verified).await.map_err(|error| self.disk(error))?;
        Ok(verified)
    }

    /// Streams from `verified` on; moves it as bytes are written.
    async fn stream(&self, peer: &Peer, wanted: &Wanted, verified: &mut u64) -> Result<(), Broken> {
        let range = Range { digest: wanted.digest, offset: *verified - *verified % GROUP_BYTES, end: 0 };
        let (groups, write) = mpsc::channel(QUEUE_GROUPS);
        let from = range.offset;
        let (received, written) = tokio::join!(
            self.receive(peer, wanted, range, groups),
            self.write_groups(peer, wanted, from, write)
        );
        match written {
            Ok(end) => *verified = end,
            Err(error) => return Err(Broken::Here(error)),
        }
        received.map_err(Broken::Peer)?;
        match *verified == wanted.size_bytes {
            true => Ok(()),
            false => Err(Broken::Peer(wrong(peer, "the stream ended early"))),
        }
    }

    /// Receives groups and passes on those that belong to the digest (I2).
    async fn receive(
        &self,
        peer: &Peer,
        wanted: &Wanted,
        range: Range,
        groups: mpsc::Sender<(u64, Bytes)>,
    ) -> Result<(), PeerError> {
        let opened = timeout(STALL, self.inner.ports.peers.read(peer, vec![range])).await;
        let mut parts = opened.unwrap_or_else(|_| Err(silent(peer, STALL)))?;
        let (mut hashes, mut tree, mut expected) = (Vec::new(), None, range.offset);
        let hashes_bytes = Groups::count_for(wanted.size_bytes) * crate::domain::tree::HASH_BYTES as u64;
        while let Some(part) =
            timeout(STALL, parts.next()).await.unwrap_or_else(|_| Err(silent(peer, STALL)))?
        {
            match part {
                Part::Header { size_bytes, .. } if size_bytes != wanted.size_bytes => {
                    return Err(wrong(peer, "the size is another"));
                }
                Part::Header { .. } => {}
                Part::Hashes(more) => {
                    hashes.extend_from_slice(&more);
                    if hashes.len() as u64 > hashes_bytes {
                        return Err(wrong(peer, "there are too many hashes"));
                    }
                    if hashes.len() as u64 == hashes_bytes {
                        let all = Groups::from_bytes(&hashes);
                        tree = all.filter(|all| all.belong_to(wanted.digest, wanted.size_bytes));
                        if tree.is_none() {
                            return Err(wrong(peer, "the hashes do not lead to the digest"));
                        }
                    }
                }
                Part::Chunk { offset, data } => {
                    let index = usize::try_from(offset / GROUP_BYTES).unwrap_or(usize::MAX);
                    let whole =
                        data.len() as u64 == GROUP_BYTES.min(wanted.size_bytes.saturating_sub(offset));
                    if offset != expected
                        || !whole
                        || !tree.as_ref().is_some_and(|tree| tree.verify(index, &data))
                    {
                        tracing::warn!(source = %peer.server, path = %wanted.path, offset, "a peer sent bytes that do not belong to the digest");
                        return Err(wrong(peer, "the bytes do not belong to the digest"));
                    }
                    expected += data.len() as u64;
                    if groups.send((offset, data)).await.is_err() {
                        return Ok(());
                    }
                }
                Part::Refused { error, .. } => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes verified groups; answers where it came to.
    async fn write_groups(
        &self,
        peer: &Peer,
        wanted: &Wanted,
        from: u64,
        mut groups: mpsc::Receiver<(u64, Bytes)>,
    ) -> Result<u64, FileError> {
        let store = &self.inner.ports.store;
        let (name, mut end, mut flusher) = (wanted.staged(), from, Flusher::new(wanted.staged(), from));
        let (mut shown, mut shown_at, mut rate) = (from, Instant::now(), 0);
        while let Some((offset, data)) = groups.recv().await {
            end = offset + data.len() as u64;
            store.write(&name, offset, data).await.map_err(|error| self.disk(error))?;
            let durable = flusher.wrote(self, end).map_err(|error| self.disk(error))?;
            if let Some(durable) = durable.filter(|durable| *durable < wanted.size_bytes) {
                self.record(vec![Write::Journal(name.clone(), durable)]).await?;
                fail::fail_point!("filesync.fetch.journaled");
            }
            let since = shown_at.elapsed();
            if since >= PROGRESS_EVERY {
                rate = smoothed(rate, end - shown, since);
                (shown, shown_at) = (end, Instant::now());
                let (source, total_bytes) = (peer.server.clone(), wanted.size_bytes);
                let transfer = Transfer {
                    source,
                    copied_bytes: end,
                    total_bytes,
                    bytes_per_second: rate,
                    measured: shown_at,
                };
                self.inner.board.transfer(&wanted.path, Some(transfer));
                // A file that was deleted or replaced meanwhile is not worth another byte.
                if !self.inner.board.is_missing(wanted) {
                    break;
                }
            }
        }
        flusher.finish().await.map_err(|error| self.disk(error))?;
        Ok(end)
    }

    async fn land_early(&self, wanted: &Wanted, staged: StagedName, begun: Instant) -> Result<(), FileError> {
        let landed = self.land_large(&wanted.origin, wanted, staged.clone(), begun).await;
        if landed.is_err() {
            self.discard(vec![staged]).await;
        }
        landed
    }

    async fn land_large(
        &self,
        source: &ServerId,
        wanted: &Wanted,
        staged: StagedName,
        begun: Instant,
    ) -> Result<(), FileError> {
        fail::fail_point!("filesync.fetch.written");
        let store = &self.inner.ports.store;
        let synced = store.sync(vec![(staged.clone(), Some(wanted.registered_time))]).await;
        synced.map_err(|error| self.disk(error))?;
        fail::fail_point!("filesync.fetch.staged");
        let _lease = self.inner.leases.acquire([&wanted.path]).await;
        if !self.inner.board.is_missing(wanted) {
            self.record(vec![Write::Unjournal(staged.clone())]).await?;
            self.discard(vec![staged]).await;
            return Ok(());
        }
        let file = Staged { staged, wanted: wanted.clone(), checked: None };
        self.publish_fetched(source, vec![file], begun).await
    }
}

fn drained(wanted: &Wanted) -> Obstacle {
    Obstacle { reason: Reason::Draining, message: format!("the copy of {} was interrupted", wanted.path) }
}

fn wrong(peer: &Peer, what: &str) -> PeerError {
    PeerError { server: peer.server.clone(), reason: Reason::ContentDigestMismatch, message: what.to_owned() }
}

/// Bytes in a second: three parts of what it was, one part of what it is.
fn smoothed(before: u64, bytes: u64, within: Duration) -> u64 {
    let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
    let now = bytes.saturating_mul(1_000) / millis;
    if before == 0 { now } else { (before * 3 + now) / 4 }
}
