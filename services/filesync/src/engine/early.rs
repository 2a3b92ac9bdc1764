//! Content that arrives while its origin is still receiving it: when its record comes, only the check is left to do.
//!
//! It waits in staging under a name that no record leads to, so a crash leaves nothing but bytes that the start removes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_model::{Digest, ServerId, UploadId, clock::Entropy as _};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout},
};

use super::{Engine, board::Transfer, staged_file::StagedFile, uploads::UPLOAD_BYTES_MAX};
use crate::{
    domain::{
        error::FileError,
        held::{StagedName, Stat, Wanted},
        tree::{Groups, TreeHasher},
    },
    ports::{EarlyPart, Ports},
};

/// How many contents arrive early at once; more come in the ordinary way.
const EARLY_MAX: usize = 4;
/// How long a content that nobody wants yet is kept, of this process's own time.
const KEEP: Duration = Duration::from_secs(120);
/// How long a wanted content waits for one of its size whose digest its origin has not said yet.
const UNNAMED_WAIT: Duration = Duration::from_secs(2);
/// How often the progress of a content that is wanted already is shown.
const SHOW_EVERY: Duration = Duration::from_millis(250);

/// The contents that arrive early, and those that did.
#[derive(Debug)]
pub(super) struct EarlyCopies {
    slots: Arc<Semaphore>,
    known: Mutex<Known>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Known {
    arriving: BTreeMap<StagedName, Arriving>,
    whole: BTreeMap<Digest, (EarlyCopy, Instant)>,
}

/// A content that waits for its record.
#[derive(Debug)]
pub(super) struct EarlyCopy {
    pub(super) name: StagedName,
    pub(super) checked: (Stat, Groups),
}

#[derive(Debug)]
struct Arriving {
    origin: ServerId,
    size_bytes: u64,
    copied_bytes: u64,
    begun: Instant,
    /// Once the origin knows it.
    digest: Option<Digest>,
}

impl Default for EarlyCopies {
    fn default() -> Self {
        let slots = Arc::new(Semaphore::new(EARLY_MAX));
        Self { slots, known: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl EarlyCopies {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Ports> Engine<P> {
    /// Takes a content that `origin` is still receiving as `upload`.
    ///
    /// # Errors
    /// `OVERLOADED`, `DISK_FULL`, `SIZE_LIMIT_EXCEEDED`, `OFFSET_MISMATCH`, `CONTENT_DIGEST_MISMATCH`; then nothing is left.
    pub async fn stage_early(
        &self,
        origin: ServerId,
        upload: UploadId,
        size_bytes: u64,
        parts: mpsc::Receiver<EarlyPart>,
    ) -> Result<Digest, FileError> {
        let early = &self.inner.early;
        let Ok(_slot) = Arc::clone(&early.slots).try_acquire_owned() else {
            let server = self.server().clone();
            return Err(FileError::Overloaded {
                server,
                what: "contents that arrive early",
                limit: EARLY_MAX,
            });
        };
        // Kept longer than usual while the clock is in doubt; so no more come, but in the ordinary way.
        if !self.may_expire() && early.known().whole.len() >= EARLY_MAX {
            let (server, what) = (self.server().clone(), "contents that arrived early");
            return Err(FileError::Overloaded { server, what, limit: EARLY_MAX });
        }
        if size_bytes > UPLOAD_BYTES_MAX {
            let what = "a file".to_owned();
            return Err(FileError::TooLarge { what, limit: UPLOAD_BYTES_MAX, actual: size_bytes });
        }
        let _reserved = self.reserve(size_bytes).await?;
        let name = StagedName::new("early", self.inner.ports.entropy.uuid());
        let arriving = Arriving { origin, size_bytes, copied_bytes: 0, begun: Instant::now(), digest: None };
        early.known().arriving.insert(name.clone(), arriving);
        let mut result = self.write_early(&name, upload, size_bytes, parts).await;
        let superseded = {
            let mut known = early.known();
            known.arriving.remove(&name);
            match &mut result {
                // It was fetched in the ordinary way meanwhile.
                Ok((digest, _)) if self.inner.board.find(digest).is_some() => Some(name),
                Ok((digest, checked)) => {
                    let checked = (checked.0, std::mem::take(&mut checked.1));
                    let copy = (EarlyCopy { name, checked }, Instant::now());
                    known.whole.insert(*digest, copy).map(|(before, _)| before.name)
                }
                Err(_) => Some(name),
            }
        };
        early.changed.send_replace(());
        if let Some(superseded) = superseded {
            self.discard(vec![superseded]).await;
        }
        result.map(|(digest, _)| digest)
    }

    async fn write_early(
        &self,
        name: &StagedName,
        upload: UploadId,
        size_bytes: u64,
        mut parts: mpsc::Receiver<EarlyPart>,
    ) -> Result<(Digest, (Stat, Groups)), FileError> {
        let (mut hasher, mut end, mut declared) = (TreeHasher::default(), 0, None);
        let mut file = StagedFile::open(self, name.clone(), 0).await.map_err(|error| self.disk(error))?;
        while let Some(part) = parts.recv().await {
            match part {
                EarlyPart::Chunk { offset, .. } if offset != end => {
                    return Err(FileError::OffsetMismatch { upload, expected: end, actual: offset });
                }
                EarlyPart::Chunk { data, .. } if end + data.len() as u64 > size_bytes => {
                    let (what, actual) = (format!("the upload {upload}"), end + data.len() as u64);
                    return Err(FileError::TooLarge { what, limit: size_bytes, actual });
                }
                EarlyPart::Chunk { data, .. } => {
                    hasher.update(&data);
                    end += data.len() as u64;
                    file.append(self, data).await.map_err(|error| self.disk(error))?;
                    file.flush(self, hasher.closed()).map_err(|error| self.disk(error))?;
                }
                EarlyPart::Digest(digest) => declared = Some(digest),
            }
            if let Some(arriving) = self.inner.early.known().arriving.get_mut(name) {
                arriving.copied_bytes = end;
                arriving.digest = declared;
            }
            if end == size_bytes && declared.is_some() {
                break;
            }
        }
        let Some(declared) = declared.filter(|_| end == size_bytes) else {
            return Err(FileError::Incomplete { upload, actual: end, announced: size_bytes });
        };
        let (actual, groups) = hasher.finish();
        if actual != declared {
            return Err(FileError::NotTheContent { upload, declared, actual });
        }
        let stat = file.finish(self, actual, &groups).await.map_err(|error| self.disk(error))?;
        Ok((actual, (stat, groups)))
    }

    /// The staged bytes of a wanted content, if they arrived early; waits while they may still be arriving.
    pub(super) async fn take_early(&self, wanted: &Wanted) -> Option<EarlyCopy> {
        let mut changed = self.inner.early.changed.subscribe();
        let until = Instant::now() + UNNAMED_WAIT;
        let mut result = None;
        while !self.inner.drain.is_draining() && self.inner.board.is_missing(wanted) {
            let arriving = {
                let mut known = self.inner.early.known();
                if let Some((copy, _)) = known.whole.remove(&wanted.digest) {
                    result = Some(copy);
                    break;
                }
                let comes = |arriving: &&Arriving| match arriving.digest {
                    Some(digest) => digest == wanted.digest,
                    None => {
                        let alike =
                            arriving.origin == wanted.origin && arriving.size_bytes == wanted.size_bytes;
                        alike && Instant::now() < until
                    }
                };
                known.arriving.values().find(comes).map(Arriving::transfer)
            };
            let Some(transfer) = arriving else { break };
            self.inner.board.transfer(&wanted.path, Some(transfer));
            let _ = timeout(SHOW_EVERY, changed.changed()).await;
        }
        result
    }

    /// Removes contents that nobody wanted in time.
    pub(super) async fn sweep_early(&self) {
        if !self.may_expire() {
            return;
        }
        let mut old = Vec::new();
        self.inner.early.known().whole.retain(|_, (copy, since)| {
            let keep = since.elapsed() < KEEP;
            if !keep {
                old.push(copy.name.clone());
            }
            keep
        });
        if !old.is_empty() {
            self.discard(old).await;
        }
    }
}

impl Arriving {
    fn transfer(&self) -> Transfer {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        Transfer {
            source: self.origin.clone(),
            copied_bytes: self.copied_bytes,
            total_bytes: self.size_bytes,
            bytes_per_second: self.copied_bytes.saturating_mul(1_000) / millis,
            measured: Instant::now(),
        }
    }
}
