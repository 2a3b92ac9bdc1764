//! Large files: one stream each, every mebibyte checked as it arrives, and a journal that survives a crash.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use lockstep_model::{Reason, ServerId};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Engine,
    board::Transfer,
    early::EarlyCopy,
    fetch::{STALL, obstacle, silent},
    staged_file::{FLUSH_BYTES, StagedFile},
};
use crate::{
    domain::{
        error::FileError,
        exception::Obstacle,
        held::{StagedName, Stat, Wanted},
        intent::Staged,
        tree::{GROUP_BYTES, GroupHash, Groups, group_hash},
    },
    ports::{Index as _, Part, Parts as _, Peer, PeerError, Peers as _, Ports, Range, Store as _, Write},
};

/// Verified mebibytes that wait for the disk.
const QUEUE_GROUPS: usize = 4;
/// What a crash may cost of a copy at most: beyond that, it waits for the disk.
const UNSAFE_BYTES_MAX: u64 = 2 * FLUSH_BYTES;
/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// How far a copy is.
struct Copy {
    verified: u64,
    /// What it looked like when all of it was read back, and the hashes of its groups.
    checked: Option<(Stat, Groups)>,
}

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
        if let Some(early) = self.take_early(wanted).await {
            return self.land_early(wanted, early, begun).await.map_err(here);
        }
        let mut copy = self.resume(wanted).await.map_err(here)?;
        let reserved = self.reserve(wanted.size_bytes - copy.verified).await.map_err(|error| {
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
            match self.stream(&peer, wanted, &mut copy).await {
                Ok(()) => {
                    drop(reserved);
                    return self
                        .land_large(&peer.server, wanted, wanted.staged(), copy.checked, begun)
                        .await
                        .map_err(here);
                }
                Err(Broken::Here(error)) => return Err(Obstacle::of(&error)),
                Err(Broken::Peer(error)) => {
                    tracing::info!(path = %wanted.path, source = %peer.server, %error, verified = copy.verified, "trying another source");
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
    async fn resume(&self, wanted: &Wanted) -> Result<Copy, FileError> {
        let loaded = self.inner.ports.index.load_journal(wanted.staged()).await;
        let verified = loaded.map_err(|error| self.index_failed(&error))?.unwrap_or(0).min(wanted.size_bytes);
        Ok(Copy { verified, checked: None })
    }

    /// Streams from where the copy is; moves it as bytes are written.
    async fn stream(&self, peer: &Peer, wanted: &Wanted, copy: &mut Copy) -> Result<(), Broken> {
        let from = copy.verified - copy.verified % GROUP_BYTES;
        let range = Range { digest: wanted.digest, offset: from, end: 0 };
        let (groups, write) = mpsc::channel(QUEUE_GROUPS);
        let (received, written) = tokio::join!(
            self.receive(peer, wanted, range, groups),
            self.write_groups(peer, wanted, from, write)
        );
        let file = written.map_err(Broken::Here)?;
        copy.verified = file.end();
        let here = |error| Broken::Here(self.disk(error));
        match received {
            Ok(groups) if copy.verified == wanted.size_bytes => {
                let stat = file.finish(self, wanted.digest, &groups).await.map_err(here)?;
                // What an earlier try left was not read back by this one.
                copy.checked = (from == 0).then_some((stat, groups));
                Ok(())
            }
            Ok(_) => {
                file.rest(self).await.map_err(here)?;
                Err(Broken::Peer(wrong(peer, "the stream ended early")))
            }
            Err(error) => {
                file.rest(self).await.map_err(here)?;
                Err(Broken::Peer(error))
            }
        }
    }

    /// Receives groups and passes on those that belong to the digest (I2).
    async fn receive(
        &self,
        peer: &Peer,
        wanted: &Wanted,
        range: Range,
        groups: mpsc::Sender<(GroupHash, Bytes)>,
    ) -> Result<Groups, PeerError> {
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
                    let hash = group_hash(index, &data);
                    let known = tree.as_ref().and_then(|tree| tree.as_slice().get(index));
                    if offset != expected || !whole || known != Some(&hash) {
                        tracing::warn!(source = %peer.server, path = %wanted.path, offset, "a peer sent bytes that do not belong to the digest");
                        return Err(wrong(peer, "the bytes do not belong to the digest"));
                    }
                    expected += data.len() as u64;
                    if groups.send((hash, data)).await.is_err() {
                        break;
                    }
                }
                Part::Refused { error, .. } => return Err(error),
            }
        }
        Ok(tree.unwrap_or_default())
    }

    /// Writes verified groups.
    async fn write_groups(
        &self,
        peer: &Peer,
        wanted: &Wanted,
        from: u64,
        mut groups: mpsc::Receiver<(GroupHash, Bytes)>,
    ) -> Result<StagedFile, FileError> {
        let name = wanted.staged();
        let disk = |error| self.disk(error);
        let mut file = StagedFile::open(self, name.clone(), from).await.map_err(disk)?;
        let mut hashes = vec![GroupHash::default(); usize::try_from(from / GROUP_BYTES).unwrap_or(0)];
        let (mut shown, mut shown_at, mut rate) = (from, Instant::now(), 0);
        // The first bytes show at once: a copy that stands still right after them tells where it comes from.
        let mut is_shown = false;
        let mut safe = from;
        while let Some((hash, data)) = groups.recv().await {
            file.append(self, data).await.map_err(disk)?;
            hashes.push(hash);
            let (end, mut durable) = (file.end(), file.flush(self, &hashes).map_err(disk)?);
            if durable.is_none() && end - safe >= UNSAFE_BYTES_MAX {
                durable = file.wait_for_flush().await.map_err(disk)?;
            }
            if let Some(durable) = durable.filter(|durable| *durable < wanted.size_bytes) {
                self.record(vec![Write::Journal(name.clone(), durable)]).await?;
                safe = durable;
                fail::fail_point!("filesync.fetch.journaled");
            }
            let since = shown_at.elapsed();
            if since >= PROGRESS_EVERY || !is_shown {
                if is_shown {
                    rate = smoothed(rate, end - shown, since);
                }
                is_shown = true;
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
        Ok(file)
    }

    async fn land_early(&self, wanted: &Wanted, early: EarlyCopy, begun: Instant) -> Result<(), FileError> {
        let EarlyCopy { name, checked } = early;
        let landed = self.land_large(&wanted.origin, wanted, name.clone(), Some(checked), begun).await;
        if landed.is_err() {
            self.discard(vec![name]).await;
        }
        landed
    }

    async fn land_large(
        &self,
        source: &ServerId,
        wanted: &Wanted,
        staged: StagedName,
        checked: Option<(Stat, Groups)>,
        begun: Instant,
    ) -> Result<(), FileError> {
        fail::fail_point!("filesync.fetch.written");
        let checked = self.seal(&staged, checked, wanted.registered_time).await?;
        fail::fail_point!("filesync.fetch.staged");
        let _lease = self.inner.leases.acquire([&wanted.path]).await;
        if !self.inner.board.is_missing(wanted) {
            self.record(vec![Write::Unjournal(staged.clone())]).await?;
            self.discard(vec![staged]).await;
            return Ok(());
        }
        let file = Staged { checked, ..Staged::new(wanted.clone(), staged) };
        self.publish_fetched(source, vec![file], begun).await
    }

    /// Gives a staged file its modification time, durable. What was read back before stays so, if nobody touched it.
    pub(super) async fn seal(
        &self,
        staged: &StagedName,
        checked: Option<(Stat, Groups)>,
        modified: Timestamp,
    ) -> Result<Option<(Stat, Groups)>, FileError> {
        let store = &self.inner.ports.store;
        let look = || async { Ok(store.look(vec![staged.clone()]).await?.pop().flatten()) };
        let disk = |error| self.disk(error);
        let before = look().await.map_err(disk)?;
        store.sync(vec![(staged.clone(), Some(modified))]).await.map_err(disk)?;
        let after = look().await.map_err(disk)?;
        let untouched = checked.filter(|(stat, _)| before == Some(*stat));
        Ok(after.zip(untouched).map(|(stat, (_, groups))| (stat, groups)))
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
