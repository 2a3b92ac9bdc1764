//! One large file into the staging area of one server: a stream of chunks, continued where it broke off.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use lockstep_chassis::status::{self, Failure};
use lockstep_model::{Digest, Fault, Reason, ServerId, UploadId, clock::SystemEntropy};
use lockstep_proto::filesync::v1::{
    GetUploadRequest, UploadChunk, UploadHeader, WriteUploadRequest, write_upload_request::Part,
};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    connect::{self, Session},
    progress::Progress,
    source::Entry,
};
use crate::problem::{Problem, Result};

/// Bytes in a chunk: the largest the contract allows, on a connection that carries nothing else.
const CHUNK_BYTES: usize = 1 << 20;
/// Content from this size on goes to the server without the gateway in between, where that is possible; below it, asking
/// costs more than it saves.
const NEAR_BYTES_MIN: u64 = 32 << 20;
/// Chunks between the disk and the connection.
const CHUNKS_AHEAD: usize = 4;
/// Streams without progress between them before the upload is given up. With the waits between them that is some 40 s:
/// longer than a server takes to notice that a stream before broke off.
const ATTEMPTS_MAX: u32 = 10;
/// The wait before a new stream; doubled while nothing gets further.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// An upload that is complete.
pub(crate) struct Uploaded {
    /// Its id, for the commit.
    pub(crate) upload_id: UploadId,
    /// What was read from the disk; the server compares it with what arrived.
    pub(crate) digest: Digest,
}

/// Uploads one file.
pub(crate) async fn upload(
    session: &Session,
    server: &ServerId,
    entry: &Entry,
    lane: u8,
    progress: &Arc<Progress>,
) -> Result<Uploaded> {
    let what = format!("could not upload {}", entry.file.display());
    let unreadable = |error: &io::Error| Problem::io(&what, entry.file.display(), error);
    let file = File::open(&entry.file).map_err(|error| unreadable(&error))?;
    let (mut upload_id, mut offset) = (resumable(server, entry, &file), 0);
    let mut reader = Reader {
        file,
        size_bytes: entry.size_bytes,
        hasher: blake3::Hasher::new(),
        hashed_bytes: 0,
        resumed: false,
        progress: Arc::clone(progress),
    };
    let mut idle_attempts: u32 = 0;
    let mut near = match entry.size_bytes >= NEAR_BYTES_MIN {
        true => session.uploads_near(server, lane).await,
        false => None,
    };
    // An earlier command that was cut off may have sent most of it.
    if entry.size_bytes >= NEAR_BYTES_MIN {
        let safe = safe_bytes(session, server, lane, upload_id, &mut idle_attempts).await;
        offset = safe.unwrap_or(0).min(entry.size_bytes);
    }
    loop {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let header = UploadHeader {
            upload_id: upload_id.to_string(),
            size_bytes: wire(entry.size_bytes),
            offset_bytes: wire(offset),
            scope: 0,
        };
        let reading = spawn_blocking(move || {
            let result = reader.send(header, offset, &sender);
            (reader, result)
        });
        let mut uploads = match near.take() {
            Some(near) => near,
            None => session.uploads(lane),
        };
        let answer = uploads.write_upload(connect::addressed(ReceiverStream::new(receiver), server)).await;
        let (returned, read) = reading.await.map_err(|error| unreadable(&error.into()))?;
        reader = returned;
        read.map_err(|error| unreadable(&error))?;
        let next = match answer.map(tonic::Response::into_inner).map_err(|status| status::read(&status)) {
            Ok(answer) if answer.committed_bytes == wire(entry.size_bytes) => {
                let digest = Digest::from_bytes(*reader.hasher.finalize().as_bytes());
                if answer.digest == digest.to_string() || !reader.resumed {
                    return Ok(Uploaded { upload_id, digest });
                }
                // What an earlier command sent was read before the file changed.
                upload_id = UploadId::random(&SystemEntropy);
                reader.resumed = false;
                Next { offset: 0, failure: None }
            }
            Ok(answer) => Next { offset: u64::try_from(answer.committed_bytes).unwrap_or(0), failure: None },
            Err(failure) if failure.reason == Reason::OffsetMismatch || !may_pass(&failure) => {
                Next { offset: continue_at(&failure, offset), failure: Some(failure) }
            }
            Err(failure) => {
                let safe = safe_bytes(session, server, lane, upload_id, &mut idle_attempts).await;
                Next { offset: safe.unwrap_or(offset).min(entry.size_bytes), failure: Some(failure) }
            }
        };
        if next.offset > offset {
            idle_attempts = 0;
        } else {
            idle_attempts += 1;
            let hopeless = next.failure.as_ref().is_some_and(|failure| !may_pass(failure));
            if hopeless || idle_attempts >= ATTEMPTS_MAX {
                let failure = next.failure.unwrap_or_else(|| Failure::of(&Stalled { upload_id, offset }));
                return Err(Problem::call(what, session.place(Some(server)), &failure));
            }
            tokio::time::sleep(backoff(idle_attempts)).await;
        }
        offset = next.offset;
    }
}

/// The same id for the same source and path, so that a command that is repeated goes on where it was cut off.
fn resumable(server: &ServerId, entry: &Entry, file: &File) -> UploadId {
    let random = || UploadId::random(&SystemEntropy);
    let Ok(source) = entry.file.canonicalize() else { return random() };
    let Ok(modified) = file.metadata().and_then(|found| found.modified()) else { return random() };
    let Ok(modified) = modified.duration_since(std::time::UNIX_EPOCH) else { return random() };
    let mut hasher = blake3::Hasher::new_derive_key("lockstep 2026 resumable upload");
    let (size, modified) = (entry.size_bytes.to_string(), modified.as_nanos().to_string());
    let source = source.as_os_str().as_encoded_bytes();
    for part in [
        server.as_str().as_bytes(),
        entry.path.as_str().as_bytes(),
        source,
        size.as_bytes(),
        modified.as_bytes(),
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string().parse().unwrap_or_else(|_| random())
}

/// How many bytes of an upload are safe on the server; 0 for one that it does not know, nothing if it does not say.
async fn committed(session: &Session, server: &ServerId, lane: u8, upload_id: UploadId) -> Option<u64> {
    let request = GetUploadRequest { upload_id: upload_id.to_string() };
    let mut uploads = session.uploads(lane);
    match connect::read(uploads.get_upload(connect::addressed(request, server))).await {
        Ok(answer) => u64::try_from(answer.committed_bytes).ok(),
        Err(failure) if failure.reason == Reason::UploadNotFound => Some(0),
        Err(_) => None,
    }
}

/// The same, asked until the server says it or no attempt is left: a stream that begins at a wrong place would be refused
/// after all that its window lets through was sent.
async fn safe_bytes(
    session: &Session,
    server: &ServerId,
    lane: u8,
    upload_id: UploadId,
    idle_attempts: &mut u32,
) -> Option<u64> {
    loop {
        let safe = committed(session, server, lane, upload_id).await;
        if safe.is_some() || *idle_attempts + 1 >= ATTEMPTS_MAX {
            return safe;
        }
        *idle_attempts += 1;
        tokio::time::sleep(backoff(*idle_attempts)).await;
    }
}

fn backoff(idle_attempts: u32) -> Duration {
    (BACKOFF_FIRST * (1 << idle_attempts.min(4))).min(BACKOFF_MAX)
}

/// Where the next stream begins, and why there is one.
struct Next {
    offset: u64,
    failure: Option<Failure>,
}

/// The server takes streams and commits nothing.
#[derive(Debug, thiserror::Error)]
#[error("the upload {upload_id} stays at byte {offset}")]
struct Stalled {
    upload_id: UploadId,
    offset: u64,
}

impl Fault for Stalled {
    fn reason(&self) -> Reason {
        Reason::PeerUnreachable
    }
}

/// The offset that the server names, else the one where the last stream began.
fn continue_at(failure: &Failure, offset: u64) -> u64 {
    let named = failure.metadata.get("expected_offset").and_then(|text| text.parse().ok());
    if failure.reason == Reason::OffsetMismatch { named.unwrap_or(offset) } else { offset }
}

/// Whether another stream may get further.
fn may_pass(failure: &Failure) -> bool {
    connect::is_passing(failure) || failure.reason == Reason::OffsetMismatch
}

/// Reads the file, and hashes each byte once however often it is sent.
struct Reader {
    file: File,
    size_bytes: u64,
    hasher: blake3::Hasher,
    hashed_bytes: u64,
    /// Whether bytes were taken over from an earlier command.
    resumed: bool,
    progress: Arc<Progress>,
}

impl Reader {
    /// Sends the header and everything from `offset`. A receiver that went away is no error: the call says why.
    fn send(
        &mut self,
        header: UploadHeader,
        offset: u64,
        sender: &mpsc::Sender<WriteUploadRequest>,
    ) -> io::Result<()> {
        let message = |part| WriteUploadRequest { part: Some(part) };
        if sender.blocking_send(message(Part::Header(header))).is_err() {
            return Ok(());
        }
        self.skip_to(offset)?;
        let mut offset = offset;
        while offset < self.size_bytes {
            let length = usize::try_from(self.size_bytes - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let mut data = vec![0; length];
            self.file.read_exact(&mut data)?;
            self.hash(offset, &data);
            let chunk = UploadChunk { offset_bytes: wire(offset), data: Bytes::from(data) };
            if sender.blocking_send(message(Part::Chunk(chunk))).is_err() {
                return Ok(());
            }
            offset += length as u64;
        }
        Ok(())
    }

    /// Goes to `offset`; what an earlier command sent is hashed on the way.
    fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.hashed_bytes.min(offset)))?;
        let mut data = vec![0; CHUNK_BYTES];
        while self.hashed_bytes < offset {
            self.resumed = true;
            let left = usize::try_from(offset - self.hashed_bytes).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            self.file.read_exact(&mut data[..left])?;
            self.hash(self.hashed_bytes, &data[..left]);
        }
        Ok(())
    }

    fn hash(&mut self, offset: u64, data: &[u8]) {
        let known =
            usize::try_from(self.hashed_bytes.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
        let new = &data[known..];
        self.hasher.update(new);
        self.hashed_bytes += new.len() as u64;
        self.progress.add(new.len() as u64);
    }
}

fn wire(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(name: &str, bytes: &[u8]) -> Reader {
        let path = std::env::temp_dir().join(format!("lockstep-upload-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).expect("written");
        let file = File::open(&path).expect("opened");
        std::fs::remove_file(&path).expect("removed");
        let progress = Arc::new(Progress::new(0));
        Reader {
            file,
            size_bytes: bytes.len() as u64,
            hasher: blake3::Hasher::new(),
            hashed_bytes: 0,
            resumed: false,
            progress,
        }
    }

    fn sent(reader: &mut Reader, offset: u64, chunks: usize) -> Vec<WriteUploadRequest> {
        let (sender, mut receiver) = mpsc::channel(8);
        reader.send(UploadHeader::default(), offset, &sender).expect("read");
        drop(sender);
        let all: Vec<_> = std::iter::from_fn(|| receiver.blocking_recv()).collect();
        assert_eq!(all.len(), chunks + 1, "the header and the chunks");
        all
    }

    #[test]
    fn bytes_that_are_sent_again_are_hashed_once() {
        let bytes: Vec<u8> = (0..(2 << 20) + 5).map(|n: u32| n as u8).collect();
        let mut reader = reader("again", &bytes);
        sent(&mut reader, 0, 3);
        sent(&mut reader, 1 << 20, 2);
        sent(&mut reader, 0, 3);
        assert_eq!(Digest::from_bytes(*reader.hasher.finalize().as_bytes()), Digest::of(&bytes));
    }

    #[test]
    fn bytes_that_were_sent_before_are_hashed_and_not_sent() {
        let bytes: Vec<u8> = (0..(2 << 20) + 5).map(|n: u32| n as u8).collect();
        let mut reader = reader("before", &bytes);
        sent(&mut reader, (1 << 20) + 3, 2);
        assert!(reader.resumed);
        assert_eq!(Digest::from_bytes(*reader.hasher.finalize().as_bytes()), Digest::of(&bytes));
    }

    #[test]
    fn an_empty_file_is_a_header_alone() {
        let mut reader = reader("empty", b"");
        sent(&mut reader, 0, 0);
        assert_eq!(Digest::from_bytes(*reader.hasher.finalize().as_bytes()), Digest::of(b""));
    }
}
