//! Serving content to peers: by digest, from wherever it lies, and never a byte that does not belong to the digest.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use lockstep_model::Digest;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, timeout_at},
};

use super::Engine;
use crate::{
    domain::{
        check::Finding,
        error::FileError,
        held::Held,
        tree::{GROUP_BYTES, Groups},
    },
    ports::{Index as _, Place, Ports, Range, Store as _},
};

/// How many streams a server sends at once; further ones wait in turn.
pub(super) const SENDS_MAX: usize = 8;
/// How many ranges one call may name.
pub const CONTENT_RANGES_MAX: usize = 1_000;
/// Messages that wait for a slow reader: at most this many mebibytes.
const QUEUE_MESSAGES: usize = 4;
/// Group hashes in one message: half a mebibyte.
const HASHES_BYTES_MAX: usize = 512 << 10;

/// How long a reader waits for a file that is just getting its final name.
const RENAME_WITHIN: Duration = Duration::from_secs(5);

/// One message of a stream of content.
#[derive(Debug)]
pub enum Answer {
    /// A range begins.
    Header(Digest, u64),
    /// Group hashes, from this group on.
    Hashes(u64, Bytes),
    /// Bytes at an offset.
    Chunk(u64, Bytes),
    /// The range cannot be given.
    Refused(Digest, FileError),
}

type Out = mpsc::Sender<Answer>;

impl<P: Ports> Engine<P> {
    /// Those of `digests` that are held, in their order.
    pub fn locate(&self, digests: Vec<Digest>) -> Vec<Digest> {
        digests.into_iter().filter(|digest| self.inner.board.find(digest).is_some()).collect()
    }

    /// Streams ranges in their order. Ends early if the reader goes away.
    pub fn content(&self, ranges: Vec<Range>) -> mpsc::Receiver<Answer> {
        let (out, answers) = mpsc::channel(QUEUE_MESSAGES);
        let engine = self.clone();
        self.inner.drain.spawn("send", async move {
            let lane = Arc::clone(&engine.inner.send_lane);
            let Ok(_permit): Result<OwnedSemaphorePermit, _> = lane.acquire_owned().await else { return };
            for range in ranges {
                let sent = match engine.send(range, &out).await {
                    Err(error) => out.send(Answer::Refused(range.digest, error)).await,
                    Ok(()) => Ok(()),
                };
                if sent.is_err() || out.is_closed() || engine.inner.drain.is_draining() {
                    return;
                }
            }
        });
        answers
    }

    /// Where a content lies. A file that is just being registered gets its final name in an instant, and is read there; one
    /// that stays in staging, because the disk refused, is read from staging.
    pub(super) async fn find_settled(&self, digest: &Digest) -> Option<(Place, Option<Held>)> {
        let mut changed = self.inner.board.watch();
        let until = Instant::now() + RENAME_WITHIN;
        loop {
            let found = self.inner.board.find(digest);
            let is_staged = matches!(found, Some((Place::Staged(_), _)));
            if !is_staged || !matches!(timeout_at(until, changed.changed()).await, Ok(Ok(()))) {
                return found;
            }
        }
    }

    async fn send(&self, range: Range, out: &Out) -> Result<(), FileError> {
        let digest = range.digest;
        let absent = || FileError::ContentNotFound { server: self.server().clone(), digest };
        let (place, held) = self.find_settled(&digest).await.ok_or_else(absent)?;
        let size_bytes = match &held {
            Some(held) => held.stat.size_bytes,
            None => self.staged_size(&place).await.ok_or_else(absent)?,
        };
        if size_bytes <= GROUP_BYTES {
            return self.send_small(digest, size_bytes, place, held, out).await;
        }
        if range.offset >= size_bytes || !range.offset.is_multiple_of(GROUP_BYTES) {
            return Err(absent());
        }
        let groups = self.groups_of(digest, &place).await?.ok_or_else(absent)?;
        if out.send(Answer::Header(digest, size_bytes)).await.is_err() {
            return Ok(());
        }
        let hashes = Bytes::from(groups.to_bytes());
        let mut first = 0;
        while first < hashes.len() {
            let end = (first + HASHES_BYTES_MAX).min(hashes.len());
            let index = (first / crate::domain::tree::HASH_BYTES) as u64;
            if out.send(Answer::Hashes(index, hashes.slice(first..end))).await.is_err() {
                return Ok(());
            }
            first = end;
        }
        let mut offset = range.offset;
        let end = if range.end == 0 { size_bytes } else { range.end.min(size_bytes) };
        while offset < end {
            let length = usize::try_from(GROUP_BYTES.min(size_bytes - offset)).unwrap_or(0);
            let data = self.read(&place, offset, length, digest).await?;
            let index = usize::try_from(offset / GROUP_BYTES).unwrap_or(usize::MAX);
            if data.len() != length || !groups.verify(index, &data) {
                return Err(self.corrupt(digest, &place, held).await);
            }
            if out.send(Answer::Chunk(offset, data)).await.is_err() {
                return Ok(());
            }
            offset += length as u64;
        }
        Ok(())
    }

    async fn send_small(
        &self,
        digest: Digest,
        size_bytes: u64,
        place: Place,
        held: Option<Held>,
        out: &Out,
    ) -> Result<(), FileError> {
        let length = usize::try_from(size_bytes).unwrap_or(0);
        let data = self.read(&place, 0, length + 1, digest).await?;
        if data.len() != length || Digest::of(&data) != digest {
            return Err(self.corrupt(digest, &place, held).await);
        }
        if out.send(Answer::Header(digest, size_bytes)).await.is_ok() && !data.is_empty() {
            let _ = out.send(Answer::Chunk(0, data)).await;
        }
        Ok(())
    }

    async fn read(
        &self,
        place: &Place,
        offset: u64,
        length: usize,
        digest: Digest,
    ) -> Result<Bytes, FileError> {
        let read = self.inner.ports.store.read(place.clone(), offset, length).await;
        read.map_err(|error| match error {
            crate::ports::StoreError::Absent { .. } => {
                FileError::ContentNotFound { server: self.server().clone(), digest }
            }
            other => self.disk(other),
        })
    }

    async fn staged_size(&self, place: &Place) -> Option<u64> {
        let Place::Staged(name) = place else { return None };
        let staged = self.inner.ports.store.staged().await.ok()?;
        staged.into_iter().find(|(found, _)| found == name).map(|(_, size)| size)
    }

    /// The group hashes: from the index, or from the bytes themselves where they are only staged yet.
    async fn groups_of(&self, digest: Digest, place: &Place) -> Result<Option<Groups>, FileError> {
        let known = self.inner.ports.index.groups(digest).await.map_err(|error| self.index_failed(&error))?;
        if known.is_some() {
            return Ok(known);
        }
        let store = &self.inner.ports.store;
        let hashed = match place {
            Place::Published(path) => store.hash_published(path.clone()).await,
            Place::Staged(name) => {
                let hashed = store.hash(vec![name.clone()], crate::ports::Algorithms::default()).await;
                hashed.map(|hashed| hashed.into_iter().flatten().next())
            }
        };
        let hashed = hashed.map_err(|error| self.disk(error))?;
        Ok(hashed.filter(|hashed| hashed.digest == digest).map(|hashed| hashed.groups))
    }

    /// The bytes are not the ones that were verified. If somebody changed the file, which its times show, it is left
    /// alone (R30); if not, the disk did, and a right copy is fetched (R45).
    async fn corrupt(&self, digest: Digest, place: &Place, held: Option<Held>) -> FileError {
        if let (Place::Published(path), Some(held)) = (place, held) {
            // Whoever has the lease may be about to replace, move or remove the file.
            let lease = self.inner.leases.acquire([path]).await;
            if self.inner.board.held(std::slice::from_ref(path)).pop().flatten().as_ref() != Some(&held) {
                return FileError::ContentNotFound { server: self.server().clone(), digest };
            }
            let found = self.inner.ports.store.stat(vec![path.clone()]).await;
            let found = found.ok().and_then(|found| found.into_iter().next()).and_then(Result::ok).flatten();
            drop(lease);
            let rotten = found.is_some_and(|found| found.same_content(&held.stat));
            tracing::error!(%path, %digest, rotten, "the bytes on the disk are not the ones that were verified");
            if rotten {
                let (engine, path) = (self.clone(), path.clone());
                self.inner.drain.spawn("distrust", async move {
                    let why = "the bytes on the disk are not the ones that were verified";
                    if let Err(error) = engine.give_up(&path, &held, Finding::Corrupt, why).await {
                        tracing::warn!(%path, %error, "a rotten file could not be given up yet");
                    }
                });
            }
        }
        FileError::ContentCorrupt { server: self.server().clone(), digest }
    }
}
