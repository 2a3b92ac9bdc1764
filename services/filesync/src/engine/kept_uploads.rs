//! What is kept of uploads between their streams, across a restart, and until nobody wants them any more.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use lockstep_chassis::deadline;
use lockstep_model::UploadId;
use tokio::time::Instant;

use super::{
    Engine,
    uploads::{Audience, Complete, Known, Progress, State, staged_of},
};
use crate::{
    domain::{error::FileError, held::StagedName},
    ports::{Loaded, Ports, Store as _, StoreError, Upload, Write},
};

/// An upload that nobody continued for so long, of this process's own time, is removed.
const IDLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl<P: Ports> Engine<P> {
    /// The upload whose bytes have this name.
    pub(super) fn upload_of(&self, staged: &StagedName) -> Option<UploadId> {
        self.uploads().values().find(|known| staged_of(&known.upload) == *staged).map(|known| known.upload.id)
    }

    /// They became files.
    pub(super) async fn end_uploads(&self, ids: &[UploadId]) -> Result<(), FileError> {
        self.forget_uploads(ids);
        let name = |id| Write::Unjournal(StagedName::new("upload", id));
        self.record(ids.iter().flat_map(|id| [Write::EndUpload(*id), name(*id)]).collect()).await
    }

    /// Nobody may use them any more.
    pub(super) fn forget_uploads(&self, ids: &[UploadId]) {
        let mut uploads = self.uploads();
        ids.iter().for_each(|id| drop(uploads.remove(id)));
    }

    /// Notes how many bytes of an upload a crash cannot take back.
    pub(super) async fn note_safe(&self, upload: &Upload, safe_bytes: u64) -> Result<(), FileError> {
        self.record(vec![Write::Journal(staged_of(upload), safe_bytes)]).await?;
        if let Some(known) = self.uploads().get_mut(&upload.id) {
            known.safe_bytes = safe_bytes;
        }
        Ok(())
    }

    /// How far an upload of `caller` is, and how large it will be.
    ///
    /// # Errors
    /// `UPLOAD_NOT_FOUND`.
    pub fn upload_progress(&self, caller: &str, id: UploadId) -> Result<(Progress, u64), FileError> {
        let uploads = self.uploads();
        let known = uploads.get(&id).filter(|known| known.upload.caller == caller);
        let known =
            known.ok_or_else(|| FileError::UploadNotFound { upload: id, server: self.server().clone() })?;
        let progress = match &known.state {
            State::Busy => Progress { committed_bytes: known.safe_bytes, digests: None },
            State::Resting { committed_bytes, .. } => {
                Progress { committed_bytes: *committed_bytes, digests: None }
            }
            State::Complete(Complete { size_bytes, digest, md5, .. }) => {
                Progress { committed_bytes: *size_bytes, digests: Some((*digest, *md5)) }
            }
        };
        Ok((progress, known.upload.size_bytes))
    }

    /// Drops an upload of `caller` and its bytes; one that is not there is dropped already.
    ///
    /// # Errors
    /// `OVERLOADED` while somebody writes to it or registers it; `DISK_FULL`, `STORE_READ_ONLY`.
    pub async fn cancel_upload(&self, caller: &str, id: UploadId) -> Result<(), FileError> {
        let staged = {
            let mut uploads = self.uploads();
            let Some(known) = uploads.get_mut(&id).filter(|known| known.upload.caller == caller) else {
                return Ok(());
            };
            if matches!(known.state, State::Busy) {
                let server = self.server().clone();
                return Err(FileError::Overloaded { server, what: "user of this upload", limit: 1 });
            }
            // Nobody continues it from here on.
            known.state = State::Busy;
            staged_of(&known.upload)
        };
        let engine = self.clone();
        let work = async move {
            engine.end_uploads(&[id]).await?;
            engine.discard(vec![staged]).await;
            Ok(())
        };
        self.detached(work).await
    }

    /// Whether the disk has room for so many bytes beside everything that is under way; answers how many it has room for.
    ///
    /// # Errors
    /// `DISK_FULL` with figures, `STORE_READ_ONLY`, `STORE_OFFLINE`, `SERVER_NOT_ELIGIBLE`, `CLOCK_FENCED`,
    /// `RESTART_REQUIRED`.
    pub async fn check_space(&self, bytes: u64) -> Result<u64, FileError> {
        self.may_originate(deadline::current()).await?;
        self.verify_store().await?;
        let free_bytes = self.inner.ports.store.free_bytes().await.map_err(|error| self.disk(error))?;
        let free_bytes = free_bytes.saturating_sub(self.inner.reserved_bytes.load(Ordering::Relaxed));
        if bytes > free_bytes {
            // Nothing was refused yet, so that this is no condition of the server.
            let error = StoreError::Full { free_bytes, needed_bytes: bytes };
            return Err(FileError::Store { server: self.server().clone(), error });
        }
        Ok(free_bytes)
    }

    /// What a restart left: of the bytes that are there, only those that are known to be synced count. The others may be
    /// what a power cut made of them.
    pub(super) async fn restore_uploads(&self, loaded: &Loaded) -> Result<(), FileError> {
        let staged = self.inner.ports.store.staged().await.map_err(|error| self.disk(error))?;
        let staged: BTreeMap<StagedName, u64> = staged.into_iter().collect();
        let synced: BTreeMap<&StagedName, u64> =
            loaded.journal.iter().map(|(name, bytes)| (name, *bytes)).collect();
        for upload in &loaded.uploads {
            let name = staged_of(upload);
            let there = staged.get(&name).copied().unwrap_or(0).min(upload.size_bytes);
            let committed_bytes = there.min(synced.get(&name).copied().unwrap_or(0));
            let state = State::Resting { committed_bytes, hasher: None };
            let (upload, touched) = (upload.clone(), Instant::now());
            let known = Known { upload, touched, safe_bytes: committed_bytes, state };
            self.uploads().insert(known.upload.id, known);
        }
        Ok(())
    }

    /// Completes uploads whose bytes were all safe before this process began: whoever was told so may commit them (I11).
    pub(super) async fn resume_complete(&self, caller: &str, ids: &[UploadId]) -> Result<(), FileError> {
        for id in ids {
            let is_whole = |known: &&Known| {
                let size_bytes = known.upload.size_bytes;
                known.upload.caller == caller
                    && matches!(known.state, State::Resting { committed_bytes, .. } if committed_bytes == size_bytes)
            };
            let whole = self.uploads().get(id).filter(is_whole).map(|known| known.upload.clone());
            if let Some(upload) = whole {
                let size_bytes = upload.size_bytes;
                let writer = self.begin_upload(upload, size_bytes, Audience::OriginOnly, None).await?;
                self.end_upload(writer).await?;
            }
        }
        Ok(())
    }

    /// Removes uploads that nobody continued for a day. A restart begins the day anew, and so does a time in which the clock
    /// of this server is in doubt: then nobody could register them.
    pub(super) async fn sweep_uploads(&self) -> Result<(), FileError> {
        if !self.may_expire() {
            let now = Instant::now();
            self.uploads().values_mut().for_each(|known| known.touched = now);
            return Ok(());
        }
        let idle = |known: &Known| !matches!(known.state, State::Busy) && known.touched.elapsed() > IDLE_MAX;
        let old: Vec<Upload> =
            self.uploads().values().filter(|known| idle(known)).map(|known| known.upload.clone()).collect();
        if old.is_empty() {
            return Ok(());
        }
        let ids: Vec<UploadId> = old.iter().map(|upload| upload.id).collect();
        self.end_uploads(&ids).await?;
        let names = old.iter().map(staged_of).collect();
        self.discard(names).await;
        Ok(())
    }
}
