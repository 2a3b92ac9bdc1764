//! The servers: bytes on their way into one of them, and the files that are registered on all.

use bytes::Bytes;
use lockstep_model::{FileId, FilePath, RequestId, Revision, ServerId, UploadId, record::Placement};
use tokio::sync::mpsc;

use crate::domain::error::Refusal;

/// A server and where its filesync answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The server.
    pub id: ServerId,
    /// `https://host:port`.
    pub uri: String,
}

/// Bytes on their way into a server, under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Their name.
    pub id: UploadId,
    /// The size of the whole content.
    pub size_bytes: u64,
}

/// A file to register from an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its path.
    pub path: FilePath,
    /// Its bytes.
    pub upload_id: UploadId,
    /// SHA-256 that they must have: 64 lowercase hexadecimal digits.
    pub sha256: String,
}

/// A registered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its path.
    pub path: FilePath,
    /// What names it for life.
    pub file_id: FileId,
}

/// A file as somebody saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its path.
    pub path: FilePath,
    /// Its revision.
    pub revision: Revision,
}

/// What the filesync of a server does for the catalog. Every call has a deadline of its own, but for
/// [`write`](Self::write), which ends when nothing moves any more.
pub trait Servers: Clone + Send + Sync + 'static {
    /// Whether the server would take an upload of so many bytes: its disk has room, and its clock is right.
    ///
    /// # Errors
    /// `DISK_FULL` with figures, `STORE_READ_ONLY`, `STORE_OFFLINE`, `SERVER_NOT_ELIGIBLE`, `CLOCK_FENCED`, `RESTART_REQUIRED`,
    /// `PEER_UNREACHABLE`.
    fn check_space(&self, server: &Server, bytes: u64) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// How many bytes of an upload are safe; `None` if there is none.
    ///
    /// # Errors
    /// `PEER_UNREACHABLE` and the like.
    fn committed(
        &self,
        server: &Server,
        upload: Upload,
    ) -> impl Future<Output = Result<Option<u64>, Refusal>> + Send;

    /// Writes chunks of at most 1 MiB from `offset` on until there are no more. Answers how many bytes are safe then. What
    /// arrived before an error is safe as well.
    ///
    /// # Errors
    /// `OFFSET_MISMATCH` if the upload stands elsewhere, `OVERLOADED` while somebody else writes to it, `DISK_FULL`, …
    fn write(
        &self,
        server: &Server,
        upload: Upload,
        offset: u64,
        chunks: mpsc::Receiver<Bytes>,
    ) -> impl Future<Output = Result<u64, Refusal>> + Send;

    /// Drops an upload; one that is not there is dropped already.
    ///
    /// # Errors
    /// `PEER_UNREACHABLE` and the like.
    fn cancel(
        &self,
        server: &Server,
        upload: UploadId,
        request_id: RequestId,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Registers up to 1,000 files in one change. Repeating it with the same request gives the first answer.
    ///
    /// # Errors
    /// As `RegisterFiles` in the contract.
    fn register(
        &self,
        server: &Server,
        files: Vec<Registration>,
        placement: Placement,
        request_id: RequestId,
    ) -> impl Future<Output = Result<Vec<Registered>, Refusal>> + Send;

    /// Gives a file another path.
    ///
    /// # Errors
    /// As `MoveFile` in the contract.
    fn move_file(
        &self,
        server: &Server,
        file: Seen,
        new_path: FilePath,
        request_id: RequestId,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Says anew where up to 1,000 files should be.
    ///
    /// # Errors
    /// As `UpdatePlacement` in the contract.
    fn place(
        &self,
        server: &Server,
        files: Vec<Seen>,
        placement: Placement,
        request_id: RequestId,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Deletes up to 1,000 files for good, in one change.
    ///
    /// # Errors
    /// As `DeleteFiles` in the contract.
    fn delete(
        &self,
        server: &Server,
        files: Vec<Seen>,
        request_id: RequestId,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}
