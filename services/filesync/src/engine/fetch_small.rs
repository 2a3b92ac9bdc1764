//! Small files: many to a stream, staged and published together.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lockstep_model::{Digest, FilePath, Reason, ServerId};
use tokio::time::{Instant, timeout};

use super::{
    Engine,
    fetch::{STALL, obstacle, silent},
};
use crate::{
    domain::{error::FileError, exception::Obstacle, held::Wanted, intent::Staged, tree::GROUP_BYTES},
    ports::{Part, Parts as _, Peer, PeerError, Peers as _, Ports, Range, Store as _, Write},
};

impl<P: Ports> Engine<P> {
    /// Copies a batch: from the origins first, then from whoever holds what is left.
    pub(super) async fn fetch_small(&self, batch: Vec<Wanted>) {
        let batch = match self.adopt_present(batch).await {
            Ok(batch) => batch,
            Err((batch, error)) => return self.fail_all(batch, &Obstacle::of(&error)).await,
        };
        let mut tried = BTreeSet::new();
        let mut by_origin: BTreeMap<ServerId, (Peer, Vec<Wanted>)> = BTreeMap::new();
        let mut left = Vec::new();
        for wanted in batch {
            match self.origin_of(&wanted).await {
                Some(peer) => {
                    by_origin.entry(peer.server.clone()).or_insert((peer, Vec::new())).1.push(wanted)
                }
                None => left.push(wanted),
            }
        }
        let mut reasons = BTreeMap::new();
        for (server, (peer, wanted)) in by_origin {
            left.append(&mut self.copy_small(&peer, wanted, &mut reasons).await);
            tried.insert(server);
        }
        if left.is_empty() {
            return;
        }
        // An origin may hold what another origin registered, so it is asked again unless it is the only one.
        let tried = if tried.len() == 1 { tried } else { BTreeSet::new() };
        let (holders, lost) = self.find_holders(left, &tried).await;
        for (wanted, why) in lost {
            let why = reasons.remove(&wanted.digest).unwrap_or(why);
            self.fail_fetch(&wanted, why).await;
        }
        for (peer, wanted) in holders {
            for wanted in self.copy_small(&peer, wanted, &mut reasons).await {
                let why = reasons.remove(&wanted.digest).unwrap_or_else(|| Obstacle {
                    reason: Reason::NoHolder,
                    message: format!("no server gave the content of {}", wanted.path),
                });
                self.fail_fetch(&wanted, why).await;
            }
        }
    }

    async fn fail_all(&self, batch: Vec<Wanted>, obstacle: &Obstacle) {
        for wanted in batch {
            self.fail_fetch(&wanted, obstacle.clone()).await;
        }
    }

    /// Holds what lies at its path already with the right bytes, and answers the rest.
    pub(super) async fn adopt_present(
        &self,
        batch: Vec<Wanted>,
    ) -> Result<Vec<Wanted>, (Vec<Wanted>, FileError)> {
        let paths: Vec<FilePath> = batch.iter().map(|wanted| wanted.path.clone()).collect();
        let found = match self.inner.ports.store.stat(paths.clone()).await {
            Ok(found) => found,
            Err(error) => return Err((batch, self.disk(error))),
        };
        let mut rest = Vec::with_capacity(batch.len());
        for (wanted, found) in batch.into_iter().zip(found) {
            let path = std::slice::from_ref(&wanted.path);
            let Ok(Some(found)) = found else {
                rest.push(wanted);
                continue;
            };
            let _lease = self.inner.leases.acquire(path).await;
            if !self.inner.board.is_missing(&wanted) {
                continue;
            }
            // An exchange that was cut off may have left its old bytes where the new ones are about to be written.
            let settled = self.settle_exchanges_at(Some(path)).await;
            // Bytes that are about to be replaced, untouched since they were verified, need not be read to tell that.
            let held = self.inner.board.held(path).pop().flatten();
            let is_old = held.is_some_and(|held| held.stat == found && held.digest != wanted.digest);
            let adopted = match settled {
                Ok(()) if is_old => Ok(None),
                Ok(()) => self.adopt(&wanted).await,
                Err(error) => Err(error),
            };
            let adopted = match adopted {
                Ok(Some(writes)) => self.record(writes).await.map(|()| true),
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            match adopted {
                Ok(true) => {
                    tracing::info!(path = %wanted.path, revision = %wanted.revision, target = %self.server(), bytes = 0, result = "adopted", "copy")
                }
                Ok(false) => rest.push(wanted),
                Err(error) => {
                    self.note_failure(&wanted, Obstacle::of(&error)).await;
                }
            }
        }
        Ok(rest)
    }

    /// Copies from one peer; answers what it did not give, with the reasons by digest.
    async fn copy_small(
        &self,
        peer: &Peer,
        wanted: Vec<Wanted>,
        reasons: &mut BTreeMap<Digest, Obstacle>,
    ) -> Vec<Wanted> {
        let begun = Instant::now();
        let (reserved, wanted, refused) = self.reserve_first(wanted).await;
        if let Some((_, FileError::Store { error, .. })) = refused.first() {
            self.disk(error.clone());
        }
        let mut unfit = Vec::with_capacity(refused.len());
        for (wanted, error) in refused {
            reasons.insert(wanted.digest, Obstacle::of(&error));
            unfit.push(wanted);
        }
        if reserved.is_none() {
            return unfit;
        }
        let digests: BTreeSet<Digest> = wanted.iter().map(|wanted| wanted.digest).collect();
        let mut received = BTreeMap::new();
        if let Err(error) = self.receive_small(peer, &digests, &mut received, reasons).await {
            for digest in digests.iter().filter(|digest| !received.contains_key(*digest)) {
                reasons.entry(*digest).or_insert_with(|| obstacle(&error));
            }
        }
        let (here, mut absent): (Vec<Wanted>, Vec<Wanted>) =
            wanted.into_iter().partition(|wanted| received.contains_key(&wanted.digest));
        let files = here.iter().filter_map(|w| Some((w.clone(), received.get(&w.digest)?.clone()))).collect();
        if let Err(error) = self.land_small(peer, files, begun).await {
            self.fail_all(here.clone(), &Obstacle::of(&error)).await;
            if let Err(error) = self.drop_superseded(&here).await {
                tracing::warn!(%error, "interrupted copies could not be removed");
            }
        }
        drop(reserved);
        absent.append(&mut unfit);
        absent
    }

    async fn receive_small(
        &self,
        peer: &Peer,
        digests: &BTreeSet<Digest>,
        received: &mut BTreeMap<Digest, Bytes>,
        reasons: &mut BTreeMap<Digest, Obstacle>,
    ) -> Result<(), PeerError> {
        let ranges = digests.iter().map(|digest| Range { digest: *digest, offset: 0, end: 0 }).collect();
        let stalled = |_| Err(silent(peer, STALL));
        let mut parts =
            timeout(STALL, self.inner.ports.peers.read(peer, ranges)).await.unwrap_or_else(stalled)?;
        let mut current: Option<(Digest, u64)> = None;
        while let Some(part) =
            timeout(STALL, parts.next()).await.unwrap_or_else(|_| Err(silent(peer, STALL)))?
        {
            match part {
                Part::Header { digest, size_bytes } => {
                    current = Some((digest, size_bytes));
                    if size_bytes == 0 {
                        self.keep(peer, digest, Bytes::new(), received, reasons);
                    }
                }
                Part::Chunk { data, .. } => {
                    if let Some((digest, _)) = current.take().filter(|(digest, _)| digests.contains(digest)) {
                        self.keep(peer, digest, data, received, reasons);
                    }
                }
                Part::Hashes(_) => {}
                Part::Refused { digest, error } => drop(reasons.insert(digest, obstacle(&error))),
            }
        }
        Ok(())
    }

    /// Keeps bytes that are what was asked for, and nothing else (I2).
    fn keep(
        &self,
        peer: &Peer,
        digest: Digest,
        data: Bytes,
        received: &mut BTreeMap<Digest, Bytes>,
        reasons: &mut BTreeMap<Digest, Obstacle>,
    ) {
        if Digest::of(&data) == digest {
            received.insert(digest, data);
            return;
        }
        tracing::warn!(source = %peer.server, %digest, "a peer sent bytes that do not belong to the digest");
        let message = format!("server {} sent bytes that do not belong to the digest", peer.server);
        reasons.insert(digest, Obstacle { reason: Reason::ContentDigestMismatch, message });
    }

    /// Stages, syncs, publishes and holds what was received.
    async fn land_small(
        &self,
        peer: &Peer,
        files: Vec<(Wanted, Bytes)>,
        begun: Instant,
    ) -> Result<(), FileError> {
        let paths: Vec<FilePath> = files.iter().map(|(wanted, _)| wanted.path.clone()).collect();
        let _lease = self.inner.leases.acquire(&paths).await;
        let files: Vec<_> =
            files.into_iter().filter(|(wanted, _)| self.inner.board.is_missing(wanted)).collect();
        if files.is_empty() {
            return Ok(());
        }
        let store = &self.inner.ports.store;
        let contents = files.iter().map(|(wanted, data)| (wanted.staged(), data.clone())).collect();
        let staged = store.stage(contents).await;
        fail::fail_point!("filesync.fetch.written");
        let synced =
            files.iter().map(|(wanted, _)| (wanted.staged(), Some(wanted.registered_time))).collect();
        let synced = match staged {
            Ok(()) => store.sync(synced).await,
            Err(error) => Err(error),
        };
        if let Err(error) = synced {
            // A disk without room has none for halves either.
            self.discard(files.iter().map(|(wanted, _)| wanted.staged()).collect()).await;
            return Err(self.disk(error));
        }
        fail::fail_point!("filesync.fetch.staged");
        let staged =
            files.into_iter().map(|(wanted, _)| Staged::new(wanted.clone(), wanted.staged())).collect();
        self.publish_fetched(&peer.server, staged, begun).await
    }

    /// Publishes and holds staged copies; one log line for each (R46). The caller has the lease.
    pub(super) async fn publish_fetched(
        &self,
        source: &ServerId,
        staged: Vec<Staged>,
        begun: Instant,
    ) -> Result<(), FileError> {
        let paths: Vec<FilePath> = staged.iter().map(|file| file.wanted.path.clone()).collect();
        let results = self.publish_each(&staged, "filesync.fetch").await?;
        let (mut writes, mut failed, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        for (file, result) in staged.into_iter().zip(results) {
            match result {
                Ok(mut held) => {
                    writes.append(&mut held);
                    writes.push(Write::Unjournal(file.staged));
                    copied.push(file.wanted);
                }
                Err(obstacle) => failed.push((file, obstacle)),
            }
        }
        self.record(writes).await?;
        fail::fail_point!("filesync.fetch.held");
        if let Err(error) = self.settle_exchanges_at(Some(&paths)).await {
            tracing::warn!(%error, "displaced bytes are settled later");
        }
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        for wanted in copied {
            tracing::info!(path = %wanted.path, revision = %wanted.revision, source = %source, target = %self.server(), bytes = wanted.size_bytes, duration_ms, result = "copied", "copy");
        }
        for (file, obstacle) in failed {
            // What a large copy brought is good, if it is only its name that the disk refuses.
            let is_good = obstacle.reason == Reason::DiskRefused && file.wanted.size_bytes > GROUP_BYTES;
            if is_good && file.staged == file.wanted.staged() {
                // Short of its end, so that there is something to ask for.
                self.record(vec![Write::Journal(file.staged, file.wanted.size_bytes - 1)]).await?;
            } else {
                self.discard(vec![file.staged.clone()]).await;
                self.record(vec![Write::Unjournal(file.staged)]).await?;
            }
            self.note_failure(&file.wanted, obstacle).await;
        }
        Ok(())
    }
}
