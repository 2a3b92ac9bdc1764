//! One large file on its way into staging: written in order, made durable and read back beside further writes, so that
//! little is left to do at the end, and let go of by the memory of the machine, which has better uses for it.
//!
//! Whoever else writes to it is noticed: after each write it is looked at, and before the next it must look the same.

use bytes::Bytes;
use lockstep_model::Digest;
use tokio::sync::oneshot;

use super::Engine;
use crate::{
    domain::{
        held::{StagedName, Stat},
        tree::{GROUP_BYTES, GroupHash, Groups, group_hash},
    },
    ports::{Place, Ports, Store as _, StoreError},
};

/// Bytes between two flushes.
pub(super) const FLUSH_BYTES: u64 = 64 << 20;

/// A staged file that is being written. One flush runs at a time.
#[derive(Debug)]
pub(super) struct StagedFile {
    name: StagedName,
    stat: Stat,
    every: u64,
    begun: u64,
    running: Option<(u64, oneshot::Receiver<Result<(), StoreError>>)>,
}

impl StagedFile {
    /// The file, cut to its first `from` bytes, which are durable.
    pub(super) async fn open<P: Ports>(
        engine: &Engine<P>,
        name: StagedName,
        from: u64,
    ) -> Result<Self, StoreError> {
        Self::open_every(FLUSH_BYTES, engine, name, from).await
    }

    /// The same, with so many bytes between two flushes.
    pub(super) async fn open_every<P: Ports>(
        every: u64,
        engine: &Engine<P>,
        name: StagedName,
        from: u64,
    ) -> Result<Self, StoreError> {
        let stat = engine.inner.ports.store.truncate(&name, from).await?;
        // A group that is not complete yet is read back as a whole.
        let begun = from - from % GROUP_BYTES;
        Ok(Self { name, stat, every, begun, running: None })
    }

    /// Waits for the flush that is running; answers how far the file is durable then.
    pub(super) async fn wait_for_flush(&mut self) -> Result<Option<u64>, StoreError> {
        let Some((up_to, running)) = self.running.take() else { return Ok(None) };
        match running.await {
            Ok(result) => result.map(|()| Some(up_to)),
            Err(_) => Ok(None),
        }
    }

    /// Bytes so far.
    pub(super) fn end(&self) -> u64 {
        self.stat.size_bytes
    }

    /// Adds to its end.
    pub(super) async fn append<P: Ports>(
        &mut self,
        engine: &Engine<P>,
        data: Bytes,
    ) -> Result<(), StoreError> {
        self.stat = engine.inner.ports.store.append(&self.name, self.stat, data).await?;
        Ok(())
    }

    /// Begins a flush when enough was written; `hashes` are those of all groups that are complete. Answers how far the
    /// file is durable, if that is news.
    pub(super) fn flush<P: Ports>(
        &mut self,
        engine: &Engine<P>,
        hashes: &[GroupHash],
    ) -> Result<Option<u64>, StoreError> {
        let ended = match &mut self.running {
            None => None,
            Some((up_to, running)) => match running.try_recv() {
                Ok(result) => Some(result.map(|()| *up_to)?),
                Err(oneshot::error::TryRecvError::Empty) => return Ok(None),
                Err(oneshot::error::TryRecvError::Closed) => None,
            },
        };
        self.running = None;
        let end = hashes.len() as u64 * GROUP_BYTES;
        if end.min(self.end()).saturating_sub(self.begun) >= self.every {
            let end = end.min(self.end());
            let (answer, answered) = oneshot::channel();
            let (engine, name, begun) = (engine.clone(), self.name.clone(), self.begun);
            let hashes = hashes[index(begun)..].to_vec();
            engine.clone().inner.drain.spawn("flush", async move {
                let _ = answer.send(read_back(&engine, &name, begun, end, &hashes).await);
            });
            self.begun = end;
            self.running = Some((end, answered));
        }
        Ok(ended)
    }

    /// Makes it durable as far as it is.
    pub(super) async fn rest<P: Ports>(self, engine: &Engine<P>) -> Result<(), StoreError> {
        wait(self.running).await?;
        engine.inner.ports.store.sync(vec![(self.name, None)]).await
    }

    /// Makes it durable and reads the rest of it back. Answers what it looks like: nobody else has written to it.
    pub(super) async fn finish<P: Ports>(
        self,
        engine: &Engine<P>,
        digest: Digest,
        groups: &Groups,
    ) -> Result<Stat, StoreError> {
        let (store, name, end) = (&engine.inner.ports.store, &self.name, self.end());
        wait(self.running).await?;
        let changed = || StoreError::Changed { path: name.to_string() };
        if groups.is_empty() {
            store.sync(vec![(name.clone(), None)]).await?;
            let length = usize::try_from(end).unwrap_or(0);
            let data = store.read(Place::Staged(name.clone()), 0, length).await?;
            if Digest::of(&data) != digest {
                return Err(changed());
            }
        } else {
            let hashes = groups.as_slice().get(index(self.begun)..).unwrap_or_default();
            read_back(engine, name, self.begun, end, hashes).await?;
        }
        let look = store.look(vec![name.clone()]).await?.pop().flatten();
        look.filter(|look| *look == self.stat).ok_or_else(changed)
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset / GROUP_BYTES).unwrap_or(usize::MAX)
}

/// Waits for the flush that is running; its error must not be lost, because the system tells it only once.
async fn wait(running: Option<(u64, oneshot::Receiver<Result<(), StoreError>>)>) -> Result<(), StoreError> {
    match running {
        Some((_, running)) => running.await.unwrap_or(Ok(())),
        None => Ok(()),
    }
}

/// What is durable must be what was written (I2).
async fn read_back<P: Ports>(
    engine: &Engine<P>,
    name: &StagedName,
    from: u64,
    end: u64,
    hashes: &[GroupHash],
) -> Result<(), StoreError> {
    let store = &engine.inner.ports.store;
    store.sync(vec![(name.clone(), None)]).await?;
    let (mut offset, mut hashes) = (from, hashes.iter());
    while offset < end {
        let length = GROUP_BYTES.min(end - offset);
        let place = Place::Staged(name.clone());
        let data = store.read(place, offset, usize::try_from(length).unwrap_or(0)).await?;
        if data.len() as u64 != length || hashes.next() != Some(&group_hash(index(offset), &data)) {
            return Err(StoreError::Changed { path: name.to_string() });
        }
        offset += length;
    }
    store.let_go(name, end).await
}
