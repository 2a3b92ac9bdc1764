//! Uploads: bytes on their way into staging, which one caller may continue and one commit may take.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use lockstep_model::{Digest, Md5, UploadId};
use tokio::time::Instant;

use super::{Engine, relay::Relay, staged_file::StagedFile};
use crate::{
    domain::{
        error::FileError,
        hasher::ContentHasher,
        held::{StagedName, Stat},
        tree::Groups,
    },
    ports::{Algorithms, Place, Ports, Store as _, StoreError, Upload, Write},
};

/// The largest content: 64 GiB.
pub const UPLOAD_BYTES_MAX: u64 = 64 << 30;
/// How many uploads a server keeps at a time.
const UPLOADS_MAX: usize = 4_096;
/// Bytes between two flushes of an upload.
const FLUSH_BYTES: u64 = 16 << 20;
/// Bytes that arrived and are not safe. A crash may cost 64 MiB, and that includes what the client has sent and nobody has
/// read yet: the windows of its stream, 16 MiB to the gateway and 16 MiB from there, and a chunk on either side.
const UNSAFE_BYTES_MAX: u64 = 30 << 20;
/// How much is read at once when an upload is hashed again.
const READ_BYTES: usize = 1 << 20;

/// The uploads of a server.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    known: Mutex<BTreeMap<UploadId, Known>>,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) upload: Upload,
    pub(super) touched: Instant,
    /// Bytes that a crash cannot take back, while somebody writes more.
    pub(super) safe_bytes: u64,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// Somebody writes to it, or a commit has it.
    Busy,
    /// So many bytes are safe; the hash of them, unless this process never saw them.
    Resting { committed_bytes: u64, hasher: Option<Box<ContentHasher>> },
    /// All bytes are safe.
    Complete(Complete),
}

/// A complete upload.
#[derive(Clone, Debug)]
pub(super) struct Complete {
    pub(super) id: UploadId,
    pub(super) digest: Digest,
    pub(super) md5: Md5,
    pub(super) size_bytes: u64,
    /// What the bytes looked like when they were read back, and the hashes of their groups.
    pub(super) checked: Option<(Stat, Groups)>,
}

impl Complete {
    pub(super) fn staged(&self) -> StagedName {
        StagedName::new("upload", self.id)
    }
}

pub(super) fn staged_of(upload: &Upload) -> StagedName {
    StagedName::new("upload", upload.id)
}

/// Whom an upload will be meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All servers: a large one is sent on while it arrives.
    AllServers,
    /// This one.
    OriginOnly,
}

/// An upload that is being written.
#[derive(Debug)]
pub struct Writer {
    upload: Upload,
    safe_bytes: u64,
    /// Of exactly the written bytes; none after a write that failed, whose bytes it had taken in already.
    hasher: Option<Box<ContentHasher>>,
    file: StagedFile,
    relay: Option<Relay>,
}

/// How far an upload is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Bytes that are safe.
    pub committed_bytes: u64,
    /// The digests, once it is complete.
    pub digests: Option<(Digest, Md5)>,
}

const ALGORITHMS: Algorithms = Algorithms { md5: true, sha256: false };

impl<P: Ports> Engine<P> {
    pub(super) fn uploads(&self) -> MutexGuard<'_, BTreeMap<UploadId, Known>> {
        self.inner.uploads.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload, or continues one at `offset`; with a `deadline` after which the caller does not wait for it.
    ///
    /// # Errors
    /// `OFFSET_MISMATCH`, `SIZE_LIMIT_EXCEEDED`, `DISK_FULL`, `UPLOAD_NOT_FOUND` for somebody else's, `OVERLOADED`; a new one
    /// also `CLOCK_FENCED`, `RESTART_REQUIRED`.
    pub async fn begin_upload(
        &self,
        upload: Upload,
        offset: u64,
        audience: Audience,
        deadline: Option<Instant>,
    ) -> Result<Writer, FileError> {
        // Bytes of one that was begun before are taken whatever the clock says: nothing is decided by them.
        let is_begun = self.uploads().contains_key(&upload.id);
        if is_begun {
            self.may_change()?;
        } else {
            self.may_originate(deadline).await?;
        }
        let id = upload.id;
        if upload.size_bytes > UPLOAD_BYTES_MAX {
            let what = "a file".to_owned();
            return Err(FileError::TooLarge { what, limit: UPLOAD_BYTES_MAX, actual: upload.size_bytes });
        }
        let (committed_bytes, hasher, new) = self.take_upload(&upload, offset)?;
        let result = self.prepare_upload(&upload, committed_bytes, hasher, new, audience).await;
        if result.is_err() {
            match new {
                true => drop(self.uploads().remove(&id)),
                false => self.rest(&upload, State::Resting { committed_bytes, hasher: None }),
            }
        }
        result
    }

    /// Marks the upload as busy, if it is the caller's and stands at `offset`.
    fn take_upload(
        &self,
        upload: &Upload,
        offset: u64,
    ) -> Result<(u64, Option<Box<ContentHasher>>, bool), FileError> {
        let id = upload.id;
        let mut uploads = self.uploads();
        let count = uploads.len();
        let Some(known) = uploads.get_mut(&id) else {
            if count >= UPLOADS_MAX {
                return Err(FileError::Overloaded {
                    server: self.server().clone(),
                    what: "uploads",
                    limit: UPLOADS_MAX,
                });
            }
            if offset != 0 {
                return Err(FileError::OffsetMismatch { upload: id, expected: 0, actual: offset });
            }
            let (upload, touched) = (upload.clone(), Instant::now());
            uploads.insert(id, Known { upload, touched, safe_bytes: 0, state: State::Busy });
            return Ok((0, None, true));
        };
        if known.upload.caller != upload.caller || known.upload.size_bytes != upload.size_bytes {
            return Err(FileError::UploadNotFound { upload: id, server: self.server().clone() });
        }
        let stands = match &known.state {
            State::Busy => {
                return Err(FileError::Overloaded {
                    server: self.server().clone(),
                    what: "writer of this upload",
                    limit: 1,
                });
            }
            State::Resting { committed_bytes, .. } => *committed_bytes,
            State::Complete(complete) => complete.size_bytes,
        };
        if stands != offset {
            return Err(FileError::OffsetMismatch { upload: id, expected: stands, actual: offset });
        }
        known.safe_bytes = offset;
        match std::mem::replace(&mut known.state, State::Busy) {
            State::Resting { hasher, .. } => Ok((offset, hasher, false)),
            _ => Ok((offset, None, false)),
        }
    }

    async fn prepare_upload(
        &self,
        upload: &Upload,
        committed_bytes: u64,
        hasher: Option<Box<ContentHasher>>,
        new: bool,
        audience: Audience,
    ) -> Result<Writer, FileError> {
        drop(self.reserve(upload.size_bytes - committed_bytes).await?);
        if new {
            self.record(vec![Write::Upload(upload.clone())]).await?;
        }
        let name = staged_of(upload);
        let file = StagedFile::open_every(FLUSH_BYTES, self, name.clone(), committed_bytes).await;
        let file = file.map_err(|error| self.disk(error))?;
        let hasher = match hasher {
            Some(hasher) => hasher,
            None => Box::new(self.hash_again(&name, committed_bytes).await?),
        };
        let relay = match audience {
            Audience::AllServers => self.relay(upload, committed_bytes),
            Audience::OriginOnly => None,
        };
        Ok(Writer { upload: upload.clone(), safe_bytes: committed_bytes, hasher: Some(hasher), file, relay })
    }

    async fn hash_again(&self, name: &StagedName, size_bytes: u64) -> Result<ContentHasher, FileError> {
        let (mut hasher, mut offset) = (ContentHasher::new(ALGORITHMS), 0);
        while offset < size_bytes {
            let read = self.inner.ports.store.read(Place::Staged(name.clone()), offset, READ_BYTES).await;
            let bytes = read.map_err(|error| self.disk(error))?;
            if bytes.is_empty() {
                break;
            }
            hasher.update(&bytes);
            offset += bytes.len() as u64;
        }
        Ok(hasher)
    }

    /// The next bytes of an upload. They are not safe before [`Engine::end_upload`].
    ///
    /// # Errors
    /// `OFFSET_MISMATCH`, `SIZE_LIMIT_EXCEEDED`, `DISK_FULL`.
    pub async fn write_upload(&self, writer: &mut Writer, offset: u64, data: Bytes) -> Result<(), FileError> {
        let expected = writer.file.end();
        if offset != expected {
            return Err(FileError::OffsetMismatch { upload: writer.upload.id, expected, actual: offset });
        }
        let end = expected + data.len() as u64;
        if end > writer.upload.size_bytes {
            let what = format!("the upload {} as announced", writer.upload.id);
            return Err(FileError::TooLarge { what, limit: writer.upload.size_bytes, actual: end });
        }
        // Hashing takes about as long as writing: side by side they cost half.
        let mut hasher = match writer.hasher.take() {
            Some(hasher) => hasher,
            None => Box::new(self.hash_again(&staged_of(&writer.upload), expected).await?),
        };
        let (bytes, sent_on) = (data.clone(), data.clone());
        let hash = async move {
            if bytes.len() < READ_BYTES / 4 {
                hasher.update(&bytes);
                return Ok(hasher);
            }
            tokio::task::spawn_blocking(move || {
                hasher.update(&bytes);
                hasher
            })
            .await
        };
        let (hashed, written) = tokio::join!(hash, writer.file.append(self, data));
        written.map_err(|error| self.disk(error))?;
        let hasher = hashed.map_err(|_| FileError::Draining { server: self.server().clone() })?;
        let mut durable = writer.file.flush(self, hasher.closed()).map_err(|error| self.disk(error))?;
        writer.hasher = Some(hasher);
        if durable.is_none() && writer.file.end() - writer.safe_bytes >= UNSAFE_BYTES_MAX {
            durable = writer.file.wait_for_flush().await.map_err(|error| self.disk(error))?;
        }
        if let Some(durable) = durable {
            self.note_safe(&writer.upload, durable).await?;
            writer.safe_bytes = durable;
            fail::fail_point!("filesync.upload.journaled");
        }
        if let Some(relay) = &writer.relay {
            relay.wrote(offset, sent_on);
        }
        Ok(())
    }

    /// Makes what was written safe and answers how far the upload is.
    ///
    /// # Errors
    /// `DISK_FULL`, `STORE_READ_ONLY`.
    pub async fn end_upload(&self, writer: Writer) -> Result<Progress, FileError> {
        let Writer { upload, hasher, file, relay, .. } = writer;
        let committed_bytes = file.end();
        let hasher = match hasher {
            Some(hasher) if committed_bytes == upload.size_bytes => hasher,
            hasher => {
                if let Err(error) = file.rest(self).await {
                    return self.lose(&upload, error).await;
                }
                self.note_rest(&upload, committed_bytes).await?;
                fail::fail_point!("filesync.upload.synced");
                self.rest(&upload, State::Resting { committed_bytes, hasher });
                return Ok(Progress { committed_bytes, digests: None });
            }
        };
        let hashed = hasher.finish(Stat { size_bytes: committed_bytes, modified_ns: 0, changed_ns: 0 });
        let stat = match file.finish(self, hashed.digest, &hashed.groups).await {
            Ok(stat) => stat,
            Err(error) => return self.lose(&upload, error).await,
        };
        self.note_rest(&upload, committed_bytes).await?;
        fail::fail_point!("filesync.upload.synced");
        let md5 = hashed.md5.unwrap_or(Md5::from_bytes([0; 16]));
        if let Some(relay) = relay {
            relay.finish(hashed.digest);
        }
        let checked = Some((stat, hashed.groups));
        let complete =
            Complete { id: upload.id, digest: hashed.digest, md5, size_bytes: committed_bytes, checked };
        self.rest(&upload, State::Complete(complete));
        Ok(Progress { committed_bytes, digests: Some((hashed.digest, md5)) })
    }

    /// What a failed sync lost, nobody knows.
    async fn lose(&self, upload: &Upload, error: StoreError) -> Result<Progress, FileError> {
        let noted = self.note_safe(upload, 0).await;
        self.rest(upload, State::Resting { committed_bytes: 0, hasher: None });
        noted?;
        Err(match error {
            StoreError::Changed { .. } => {
                FileError::UploadChanged { upload: upload.id, server: self.server().clone() }
            }
            error => self.disk(error),
        })
    }

    /// Notes that all of it is synced; if that fails, it goes on from what was noted before.
    async fn note_rest(&self, upload: &Upload, committed_bytes: u64) -> Result<(), FileError> {
        let noted = self.note_safe(upload, committed_bytes).await;
        if noted.is_err() {
            self.rest(upload, State::Resting { committed_bytes, hasher: None });
        }
        noted
    }

    fn rest(&self, upload: &Upload, state: State) {
        if let Some(known) = self.uploads().get_mut(&upload.id) {
            known.state = state;
            known.touched = Instant::now();
        }
    }

    /// Gives complete uploads of `caller` to a commit, all or none.
    pub(super) fn claim_uploads(&self, caller: &str, ids: &[UploadId]) -> Result<Vec<Complete>, FileError> {
        let mut uploads = self.uploads();
        let mut claimed: Vec<Complete> = Vec::with_capacity(ids.len());
        for id in ids {
            let known = uploads.get(id).filter(|known| known.upload.caller == caller);
            match known.map(|known| (&known.upload, &known.state)) {
                Some((_, State::Complete(complete))) if !claimed.iter().any(|other| other.id == *id) => {
                    claimed.push(complete.clone());
                }
                Some((upload, State::Resting { committed_bytes, .. })) => {
                    let (actual, announced) = (*committed_bytes, upload.size_bytes);
                    return Err(FileError::Incomplete { upload: *id, actual, announced });
                }
                // Often the same call, repeated because its caller lost sight of it: it has its answer in a moment.
                Some((_, State::Busy)) => {
                    let server = self.server().clone();
                    return Err(FileError::Overloaded { server, what: "user of this upload", limit: 1 });
                }
                _ => return Err(FileError::UploadNotFound { upload: *id, server: self.server().clone() }),
            }
        }
        for complete in &claimed {
            if let Some(known) = uploads.get_mut(&complete.id) {
                known.state = State::Busy;
            }
        }
        Ok(claimed)
    }

    /// Gives them back, because the commit was refused.
    pub(super) fn return_uploads(&self, claimed: Vec<Complete>) {
        let mut uploads = self.uploads();
        for complete in claimed {
            if let Some(known) = uploads.get_mut(&complete.id) {
                known.state = State::Complete(complete);
            }
        }
    }
}
