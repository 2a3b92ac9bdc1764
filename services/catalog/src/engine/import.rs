//! A zip becomes an update (R59): its files stream into staging of one server, and are registered in one change when the
//! archive as a whole turned out to be good.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lockstep_model::{
    FilePath, FirmwareId, UploadId,
    clock::Clock as _,
    firmware::{FirmwareOrigin, FirmwareState},
};
use ring::digest::{Context, SHA256};
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument as _;

use super::{Ask, Engine, records::Update};
use crate::{
    domain::{
        draft::{self, FILE_BYTES_MAX, FILES_MAX, New, Part, Wish},
        error::{CatalogError, Refusal},
    },
    ports::{ArchiveEntry, ArchiveError, ArchiveInvalid, ArchiveReader, Ports, Server, Servers as _, Upload},
};

/// Chunks that wait for the connection to the server.
const QUEUE_CHUNKS: usize = 4;
/// A file whose size its archive does not tell before the bytes is gathered first, for a server must know what comes.
const UNTOLD_BYTES_MAX: usize = 16 << 20;
/// How often it is looked whether the files are registered.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is imported, and where to.
#[derive(Clone, Debug)]
pub struct Import {
    /// The model of the devices.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Where somebody wants it.
    pub wish: Wish,
    /// The size of the archive.
    pub size_bytes: u64,
}

/// The files of an archive that are in staging so far.
#[derive(Debug, Default)]
struct Staged {
    parts: Vec<Part>,
    /// Also one that is not complete.
    uploads: Vec<UploadId>,
}

impl<P: Ports> Engine<P> {
    /// Imports an archive. It goes on to its end even if the caller goes away once all bytes are there; repeating the request
    /// gives the first answer.
    ///
    /// # Errors
    /// As `WriteFirmware` in the contract; then nothing of the archive is left.
    pub async fn import<A>(&self, ask: Ask, import: Import, archive: A) -> Result<Update, CatalogError>
    where
        A: ArchiveReader<Broken = Refusal> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let engine = self.clone();
        let work = async move { drop(answer.send(engine.import_now(&ask, import, archive).await)) };
        self.inner.drain.spawn("import firmware", work.in_current_span());
        answered.await.unwrap_or(Err(CatalogError::Draining))
    }

    async fn import_now<A>(&self, ask: &Ask, import: Import, archive: A) -> Result<Update, CatalogError>
    where
        A: ArchiveReader<Broken = Refusal>,
    {
        let Import { model, version, wish, size_bytes } = import;
        let target = wish.target.as_ref().map_or("", FilePath::as_str);
        let request = ask.request(format!(
            "import {model} {version} {} {} {size_bytes} {target}",
            wish.server_id,
            wish.protocol.word()
        ));
        let unnamed = || CatalogError::field("header.request_id", "cannot name an update");
        let id = draft::imported_id(&ask.caller, ask.request_id.as_str()).ok_or_else(unnamed)?;
        if self.remembered(&request, id).await?.is_some() {
            return self.wait_until_imported(id).await;
        }
        let server = self.server(&wish.server_id).await?;
        // What it holds is hardly less than its archive; each file asks for its own room before its first byte.
        self.servers().check_space(&server, size_bytes).await?;
        let mut staged = Staged::default();
        let written = async {
            self.stage(&server, &wish, archive, &mut staged).await?;
            let new = New {
                model,
                version,
                release_notes: String::new(),
                origin: FirmwareOrigin::Import,
                added_time: self.inner.outside.clock.now(),
                requested_by: ask.label(),
            };
            let record =
                draft::record(new, &wish, std::mem::take(&mut staged.parts), FirmwareState::Verifying)?;
            self.write(ask, request, None, id, record).await
        };
        // From the record on, whoever works on it registers the files, or drops them.
        let update = match written.await {
            Ok(update) => update,
            Err(error) => {
                self.drop_uploads(&server, staged.uploads).await;
                return Err(error);
            }
        };
        fail::fail_point!("catalog.import.written");
        self.begin_work(&update);
        self.wait_until_imported(id).await
    }

    /// Brings every file of the archive into staging. Nothing is left out and nothing added when it succeeds.
    async fn stage<A>(
        &self,
        server: &Server,
        wish: &Wish,
        mut archive: A,
        staged: &mut Staged,
    ) -> Result<(), CatalogError>
    where
        A: ArchiveReader<Broken = Refusal>,
    {
        while let Some(entry) = archive.next_entry().await.map_err(archive_error)? {
            if staged.parts.len() == FILES_MAX {
                let (limit, actual) = (FILES_MAX as u64, FILES_MAX as u64 + 1);
                return Err(CatalogError::TooLarge { what: "files of an update", limit, actual });
            }
            let path = draft::placed(wish.target.as_ref(), entry.path.as_str())?;
            self.check_paths([&path]).await?;
            let upload_id = UploadId::random(self.entropy());
            staged.uploads.push(upload_id);
            let part = match entry.size_bytes {
                Some(size_bytes) => {
                    self.stage_told(server, &entry, upload_id, size_bytes, &mut archive).await?
                }
                None => self.stage_untold(server, &entry, upload_id, &mut archive).await?,
            };
            staged.parts.push(part);
        }
        archive.finish().await.map_err(archive_error)?;
        if staged.parts.is_empty() {
            let rule = "it holds no file".to_owned();
            return Err(ArchiveInvalid { entry: "the archive".to_owned(), rule }.into());
        }
        Ok(())
    }

    /// A file whose size is known before its bytes: they stream through.
    async fn stage_told<A>(
        &self,
        server: &Server,
        entry: &ArchiveEntry,
        id: UploadId,
        size_bytes: u64,
        archive: &mut A,
    ) -> Result<Part, CatalogError>
    where
        A: ArchiveReader<Broken = Refusal>,
    {
        if size_bytes > FILE_BYTES_MAX {
            let (what, limit) = ("bytes of a file", FILE_BYTES_MAX);
            return Err(CatalogError::TooLarge { what, limit, actual: size_bytes });
        }
        let (chunks, queue) = mpsc::channel(QUEUE_CHUNKS);
        let read = async {
            let mut hash = Context::new(&SHA256);
            while let Some(bytes) = archive.next_chunk().await.map_err(archive_error)? {
                hash.update(&bytes);
                if chunks.send(bytes).await.is_err() {
                    // Why, the server tells.
                    return Ok(None);
                }
            }
            drop(chunks);
            Ok::<_, CatalogError>(Some(hash))
        };
        let upload = Upload { id, size_bytes };
        let (read, written) = tokio::join!(read, self.servers().write(server, upload, 0, queue));
        let hash = read?;
        let written = written?;
        match hash {
            Some(hash) if written == size_bytes => Ok(part(entry, size_bytes, hash, id)),
            _ => {
                let rule = format!("it has {written} bytes, not {size_bytes} as it says before them");
                Err(ArchiveInvalid { entry: entry.path.to_string(), rule }.into())
            }
        }
    }

    /// A file whose size is known only after its bytes.
    async fn stage_untold<A>(
        &self,
        server: &Server,
        entry: &ArchiveEntry,
        id: UploadId,
        archive: &mut A,
    ) -> Result<Part, CatalogError>
    where
        A: ArchiveReader<Broken = Refusal>,
    {
        let (mut gathered, mut hash) = (BytesMut::new(), Context::new(&SHA256));
        while let Some(bytes) = archive.next_chunk().await.map_err(archive_error)? {
            if gathered.len() + bytes.len() > UNTOLD_BYTES_MAX {
                let rule = "its size is written behind its bytes, which is taken up to 16 MiB; make the archive again from files";
                return Err(ArchiveInvalid { entry: entry.path.to_string(), rule: rule.to_owned() }.into());
            }
            hash.update(&bytes);
            gathered.extend_from_slice(&bytes);
        }
        let size_bytes = gathered.len() as u64;
        let (chunks, queue) = mpsc::channel(QUEUE_CHUNKS);
        let send = async move {
            let mut left: Bytes = gathered.freeze();
            while !left.is_empty() {
                let piece = left.split_to(left.len().min(256 << 10));
                if chunks.send(piece).await.is_err() {
                    return;
                }
            }
        };
        let upload = Upload { id, size_bytes };
        let ((), written) = tokio::join!(send, self.servers().write(server, upload, 0, queue));
        written?;
        Ok(part(entry, size_bytes, hash, id))
    }

    /// Waits until an import is published. One that cannot be is dropped whole.
    async fn wait_until_imported(&self, id: FirmwareId) -> Result<Update, CatalogError> {
        loop {
            let update = self.get(id).await?;
            match update.record.state {
                FirmwareState::Published => return Ok(update),
                FirmwareState::Failed => {
                    let failure = update.record.failure;
                    self.advance(id, FirmwareState::Failed, |record| record.state = FirmwareState::Deleting)
                        .await?;
                    self.work_on(id);
                    self.wait_until_gone(&[id]).await;
                    let failure = failure.map(|failure| Refusal::new(failure.reason, failure.message));
                    return Err(failure.map_or(CatalogError::NotFound { firmware_id: id }, Into::into));
                }
                _ if self.inner.drain.is_draining() => return Err(CatalogError::Draining),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

fn part(entry: &ArchiveEntry, size_bytes: u64, hash: Context, upload_id: UploadId) -> Part {
    let sha256 = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Part { name: entry.path.to_string(), size_bytes, sha256, uri: String::new(), upload_id }
}

fn archive_error(error: ArchiveError<Refusal>) -> CatalogError {
    match error {
        ArchiveError::Invalid(invalid) => invalid.into(),
        ArchiveError::Broken(refusal) => refusal.into(),
    }
}
