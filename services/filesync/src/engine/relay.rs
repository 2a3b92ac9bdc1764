//! Sending a large upload on while it arrives, so that the other servers have its bytes about when this one does.

use std::future::Future;

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
}

impl Relay {
    pub(super) fn wrote(&self, end: u64) {
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
        let (engine, upload, progress) = (self.clone(), upload.clone(), written.subscribe());
        self.inner.drain.spawn("relay", async move {
            let peers = match engine.peers().await {
                Ok(peers) => peers,
                Err(error) => {
                    return tracing::debug!(%error, upload_id = %upload.id, "an upload is not sent on");
                }
            };
            for peer in peers.into_iter().take(PEERS_MAX) {
                let sent = engine.clone().relay_to(peer, upload.clone(), progress.clone());
                engine.inner.drain.spawn("relay", until_drain(engine.clone(), sent));
            }
        });
        Some(Relay { written })
    }

    async fn relay_to(self, peer: Peer, upload: Upload, progress: watch::Receiver<Written>) {
        let (parts, queue) = mpsc::channel(QUEUE_PARTS);
        let staged = self.inner.ports.peers.stage(&peer, upload.id, upload.size_bytes, queue);
        let (staged, fed) = tokio::join!(staged, self.feed(&upload, progress, parts));
        // Whatever goes wrong here costs nothing but time: the content is fetched once it is registered.
        if let Err(error) = staged {
            tracing::info!(%error, upload_id = %upload.id, target = %peer.server, "an upload is not sent on");
        }
        if let Err(error) = fed {
            tracing::info!(%error, upload_id = %upload.id, "an upload that is sent on could not be read");
        }
    }

    /// Reads whole groups behind the writer; ends when the peer takes no more.
    async fn feed(
        &self,
        upload: &Upload,
        mut progress: watch::Receiver<Written>,
        parts: mpsc::Sender<EarlyPart>,
    ) -> Result<(), StoreError> {
        let (mut offset, mut named) = (0, false);
        loop {
            let written = *progress.borrow_and_update();
            let end = match written {
                Written::UpTo(end) => end - end % GROUP_BYTES,
                Written::Whole(digest) => {
                    if !named && parts.send(EarlyPart::Digest(digest)).await.is_err() {
                        return Ok(());
                    }
                    named = true;
                    upload.size_bytes
                }
            };
            if offset < end {
                let length = GROUP_BYTES.min(upload.size_bytes - offset);
                let data = self.read_arriving(upload, &progress, offset, length).await?;
                if data.len() as u64 != length || parts.send(EarlyPart::Chunk { offset, data }).await.is_err()
                {
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
        let mut changed = self.inner.board.watch();
        loop {
            match self.inner.board.find(&digest) {
                Some((place @ Place::Published(_), _)) => return store.read(place, offset, length).await,
                // The rename is done, the note of it comes in an instant.
                Some((Place::Staged(_), _)) => {
                    if changed.changed().await.is_err() {
                        return Err(gone);
                    }
                }
                None => return Err(gone),
            }
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
