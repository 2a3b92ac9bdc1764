//! Sending a large upload on while it arrives, so that the other servers have its bytes about when this one does.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use lockstep_model::Digest;
use tokio::sync::{mpsc, watch};

use super::{Engine, uploads::staged_of};
use crate::{
    domain::tree::GROUP_BYTES,
    ports::{EarlyPart, Peer, Peers as _, Place, Ports, Store as _, StoreError, Upload},
};

/// How many servers get an upload while it arrives; further ones fetch it from any of these later.
const PEERS_MAX: usize = 4;
/// Chunks that are kept in memory for those who are about as fast as the upload; others read them from staging.
const RECENT_CHUNKS: usize = 8;
/// Mebibytes that wait for a connection.
const QUEUE_PARTS: usize = 2;

/// How far an upload is.
#[derive(Clone, Copy, Debug)]
enum Written {
    UpTo(u64),
    Whole(Digest),
}

/// An upload that is sent on. Dropped early, nothing is left of it at the other end.
#[derive(Debug)]
pub(super) struct Relay {
    written: watch::Sender<Written>,
    recent: Arc<Recent>,
}

/// The last chunks, with their offsets.
#[derive(Debug, Default)]
struct Recent(Mutex<VecDeque<(u64, Bytes)>>);

impl Recent {
    fn chunks(&self) -> MutexGuard<'_, VecDeque<(u64, Bytes)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, offset: u64) -> Option<Bytes> {
        self.chunks().iter().find(|(begin, _)| *begin == offset).map(|(_, data)| data.clone())
    }
}

impl Relay {
    pub(super) fn wrote(&self, offset: u64, data: Bytes) {
        let end = offset + data.len() as u64;
        {
            let mut chunks = self.recent.chunks();
            chunks.push_back((offset, data));
            if chunks.len() > RECENT_CHUNKS {
                chunks.pop_front();
            }
        }
        self.written.send_replace(Written::UpTo(end));
    }

    pub(super) fn finish(self, digest: Digest) {
        self.written.send_replace(Written::Whole(digest));
    }
}

impl<P: Ports> Engine<P> {
    /// Begins to send an upload on, if it is large enough to be worth it.
    pub(super) fn relay(&self, upload: &Upload, written_bytes: u64) -> Option<Relay> {
        if upload.size_bytes < self.inner.settings.relay_bytes_min.max(GROUP_BYTES + 1) {
            return None;
        }
        let written = watch::Sender::new(Written::UpTo(written_bytes));
        let recent = Arc::new(Recent::default());
        let (engine, upload, progress) = (self.clone(), upload.clone(), written.subscribe());
        let kept = Arc::clone(&recent);
        self.inner.drain.spawn("relay", async move {
            let peers = match engine.peers().await {
                Ok(peers) => peers,
                Err(error) => {
                    return tracing::debug!(%error, upload_id = %upload.id, "an upload is not sent on");
                }
            };
            for peer in peers.into_iter().take(PEERS_MAX) {
                let sent = engine.clone().relay_to(peer, upload.clone(), progress.clone(), Arc::clone(&kept));
                engine.inner.drain.spawn("relay", until_drain(engine.clone(), sent));
            }
        });
        Some(Relay { written, recent })
    }

    async fn relay_to(
        self,
        peer: Peer,
        upload: Upload,
        progress: watch::Receiver<Written>,
        recent: Arc<Recent>,
    ) {
        let (parts, queue) = mpsc::channel(QUEUE_PARTS);
        let staged = self.inner.ports.peers.stage(&peer, upload.id, upload.size_bytes, queue);
        let (staged, fed) = tokio::join!(staged, self.feed(&upload, progress, &recent, parts));
        // Whatever goes wrong here costs nothing but time: the content is fetched once it is registered.
        if let Err(error) = staged {
            tracing::info!(%error, upload_id = %upload.id, target = %peer.server, "an upload is not sent on");
        }
        if let Err(error) = fed {
            tracing::info!(%error, upload_id = %upload.id, "an upload that is sent on could not be read");
        }
    }

    /// Sends what is written, right behind the writer; ends when the peer takes no more.
    async fn feed(
        &self,
        upload: &Upload,
        mut progress: watch::Receiver<Written>,
        recent: &Recent,
        parts: mpsc::Sender<EarlyPart>,
    ) -> Result<(), StoreError> {
        let (mut offset, mut named) = (0, false);
        loop {
            let written = *progress.borrow_and_update();
            let end = match written {
                Written::UpTo(end) => end,
                Written::Whole(digest) => {
                    if !named && parts.send(EarlyPart::Digest(digest)).await.is_err() {
                        return Ok(());
                    }
                    named = true;
                    upload.size_bytes
                }
            };
            if offset < end {
                let data = match recent.at(offset) {
                    Some(data) => data,
                    None => {
                        self.read_arriving(upload, &progress, offset, GROUP_BYTES.min(end - offset)).await?
                    }
                };
                let length = data.len() as u64;
                if length == 0 || parts.send(EarlyPart::Chunk { offset, data }).await.is_err() {
                    return Ok(());
                }
                offset += length;
                continue;
            }
            if named {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = parts.closed() => return Ok(()),
                changed = progress.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// From staging; once it is registered, from where the file is then.
    async fn read_arriving(
        &self,
        upload: &Upload,
        progress: &watch::Receiver<Written>,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, StoreError> {
        let length = usize::try_from(length).unwrap_or(0);
        let store = &self.inner.ports.store;
        let gone = match store.read(Place::Staged(staged_of(upload)), offset, length).await {
            Err(gone @ StoreError::Absent { .. }) => gone,
            read => return read,
        };
        let Written::Whole(digest) = *progress.borrow() else { return Err(gone) };
        match self.find_settled(&digest).await {
            Some((place, _)) => store.read(place, offset, length).await,
            None => Err(gone),
        }
    }
}

/// Cut off by the drain it is as if the upload had broken off.
async fn until_drain<P: Ports>(engine: Engine<P>, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = engine.inner.drain.started() => {}
        () = work => {}
    }
}
