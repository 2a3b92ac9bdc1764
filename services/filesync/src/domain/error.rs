//! What can go wrong with a file, as a caller is told.

mod fault;

use lockstep_model::{Digest, FilePath, Reason, Revision, ServerId, UploadId, path::InvalidPath};
use lockstep_registry::RegistryError;

use crate::{
    domain::{exception::Obstacle, guard::Fence},
    ports::{PeerError, StoreError},
};

/// A call about files that was refused or failed. Unless it is [`FileError::Registry`] from a commit, nothing happened.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FileError {
    /// No such file.
    #[error("no file is registered at {path}")]
    NotFound {
        /// The path.
        path: FilePath,
    },
    /// No such directory.
    #[error("no file is registered below {path}")]
    NothingBelow {
        /// The path of the directory.
        path: FilePath,
    },
    /// No such upload of this caller on this server.
    #[error("server {server} has no upload {upload} of this caller")]
    UploadNotFound {
        /// The upload.
        upload: UploadId,
        /// The server that was asked.
        server: ServerId,
    },
    /// The path is taken.
    #[error("{path} is registered already, at revision {revision}, on server {origin}, with digest {digest}")]
    Exists {
        /// The path.
        path: FilePath,
        /// The revision of what is there.
        revision: Revision,
        /// Its content.
        digest: Digest,
        /// Where it was registered.
        origin: ServerId,
    },
    /// Some server could not keep the two names apart.
    #[error("{path} clashes with {other}: some server could not keep both")]
    PathConflict {
        /// The path that is refused.
        path: FilePath,
        /// The name in the way.
        other: String,
    },
    /// Somebody put a file there by hand.
    #[error("server {server} has a file at {path} that nobody registered")]
    LooseFile {
        /// The path.
        path: FilePath,
        /// The server.
        server: ServerId,
    },
    /// Nothing lies at the path.
    #[error("server {server} has no file at {path} in its transfer directory")]
    NothingThere {
        /// The path.
        path: FilePath,
        /// The server.
        server: ServerId,
    },
    /// What lies at the path is no regular file with one name.
    #[error("{path} on server {server} is {what}")]
    NotRegular {
        /// The path.
        path: FilePath,
        /// The server.
        server: ServerId,
        /// What it is.
        what: &'static str,
    },
    /// Files in place and others cannot be registered together.
    #[error("either all files of a request lie in place, or none")]
    Mixed,
    /// Nothing is set aside under this id.
    #[error("server {server} has nothing set aside under {id}")]
    AsideNotFound {
        /// The id.
        id: String,
        /// The server.
        server: ServerId,
    },
    /// The file changed since the caller saw it.
    #[error(
        "{path} is at revision {actual}, not {expected}; it came from server {origin}, with digest {digest}"
    )]
    RevisionChanged {
        /// The path.
        path: FilePath,
        /// What the caller named.
        expected: Revision,
        /// What it is.
        actual: Revision,
        /// Its content.
        digest: Digest,
        /// Where it was registered.
        origin: ServerId,
    },
    /// The directory changed since the caller saw it.
    #[error(
        "{path} has {actual_count} file(s) up to revision {actual}, not {expected_count} up to revision {expected}"
    )]
    DirectoryChanged {
        /// The path.
        path: FilePath,
        /// The files that the caller saw.
        expected_count: u64,
        /// The highest revision that the caller saw.
        expected: Revision,
        /// The files there are.
        actual_count: u64,
        /// The highest revision among them.
        actual: Revision,
    },
    /// A change of a directory has to be one change, and this one would be too large for that.
    #[error(
        "{path} has {file_count} files, one change may concern {limit} files: change the directories below it one by one"
    )]
    DirectoryTooLarge {
        /// The path.
        path: FilePath,
        /// The files there are.
        file_count: u64,
        /// The most there may be.
        limit: u64,
    },
    /// The request id names another request.
    #[error("the request id {request_id} was used for another request")]
    RequestReused {
        /// The id.
        request_id: String,
    },
    /// The bytes are not those that were declared.
    #[error("{path}: the {algorithm} digest is {actual}, not {declared} as declared")]
    DigestMismatch {
        /// The path.
        path: FilePath,
        /// BLAKE3, MD5 or SHA-256.
        algorithm: &'static str,
        /// What the caller declared.
        declared: String,
        /// What was computed from the bytes in staging.
        actual: String,
    },
    /// The bytes in staging are not those that were received.
    #[error("{path}: the bytes changed in the staging area of server {server} before they were registered")]
    StagingChanged {
        /// The path.
        path: FilePath,
        /// The server.
        server: ServerId,
    },
    /// The bytes of an upload are not those that were received any more.
    #[error(
        "the bytes of the upload {upload} changed in the staging area of server {server}; send them again"
    )]
    UploadChanged {
        /// The upload.
        upload: UploadId,
        /// The server.
        server: ServerId,
    },
    /// The bytes of an upload that another server sends on are not the ones it says.
    #[error("the bytes sent on of the upload {upload} have the digest {actual}, not {declared}")]
    NotTheContent {
        /// The upload, on the server that sent them.
        upload: UploadId,
        /// What the server says.
        declared: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// The upload stands elsewhere.
    #[error("the upload {upload} continues at byte {expected}, not {actual}")]
    OffsetMismatch {
        /// The upload.
        upload: UploadId,
        /// Where it continues.
        expected: u64,
        /// What was sent.
        actual: u64,
    },
    /// Not all announced bytes came.
    #[error("the upload {upload} has {actual} of {announced} bytes")]
    Incomplete {
        /// The upload.
        upload: UploadId,
        /// What it has.
        actual: u64,
        /// What was announced.
        announced: u64,
    },
    /// Nothing came for too long.
    #[error("the upload {upload} received nothing for {seconds} s; what arrived before is kept")]
    Stalled {
        /// The upload.
        upload: UploadId,
        /// How long.
        seconds: u64,
    },
    /// More bytes than announced, or than allowed.
    #[error("{what} may have {limit} bytes, this has {actual}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit in bytes.
        limit: u64,
        /// The size in bytes.
        actual: u64,
    },
    /// Too much at once.
    #[error("server {server} has {limit} {what} already")]
    Overloaded {
        /// The server.
        server: ServerId,
        /// What there are too many of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The server takes no part (R14).
    #[error("server {server} takes no part in synchronisation: {why}")]
    NotEligible {
        /// The server.
        server: ServerId,
        /// Why.
        why: Reason,
    },
    /// Something bars the whole server from originating changes.
    #[error("server {server} takes no changes now: {obstacle}")]
    Barred {
        /// The server.
        server: ServerId,
        /// What bars it.
        obstacle: Obstacle,
    },
    /// The clock of the server is wrong, or nobody can say that it is right, or it was set and nothing was restarted.
    #[error("server {server} originates nothing now: {fence}")]
    Fenced {
        /// The server.
        server: ServerId,
        /// What its time guard says.
        fence: Box<Fence>,
    },
    /// The registry refused, failed or did not answer.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The disk refused.
    #[error("server {server}: {error}")]
    Store {
        /// The server.
        server: ServerId,
        /// What the disk said.
        error: StoreError,
    },
    /// The index of this server cannot be read or written: nothing works without it.
    #[error("the index of server {server} failed: {cause}")]
    Index {
        /// The server.
        server: ServerId,
        /// What the database said.
        cause: String,
    },
    /// What has to be done at the path first, the disk refuses.
    #[error("server {server} cannot take {path} now: {obstacle}")]
    Stuck {
        /// The path.
        path: FilePath,
        /// The server.
        server: ServerId,
        /// What is refused, and why.
        obstacle: Obstacle,
    },
    /// A peer failed.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The process is about to stop.
    #[error("server {server} is about to stop")]
    Draining {
        /// The server.
        server: ServerId,
    },
    /// A digest that is not held here.
    #[error("server {server} does not hold {digest}")]
    ContentNotFound {
        /// The server.
        server: ServerId,
        /// The digest.
        digest: Digest,
    },
    /// What is on the disk is not what was verified.
    #[error("server {server} held {digest}, but the bytes on its disk are others by now")]
    ContentCorrupt {
        /// The server.
        server: ServerId,
        /// The digest.
        digest: Digest,
    },
    /// A name that cannot be used.
    #[error("{text:?} is no valid path: {rule}")]
    InvalidPath {
        /// What was given.
        text: String,
        /// The rule it breaks.
        rule: InvalidPath,
    },
}

impl FileError {
    /// Why work at one path is not done, where that is all it is: nothing else has to wait for it. `None` for what
    /// concerns the whole server, its registry included.
    pub fn of_one_path(&self) -> Option<Obstacle> {
        match self {
            // What is in the way, not that it is: else each try would tell of the one before.
            Self::Stuck { obstacle, .. } => Some(obstacle.clone()),
            Self::Store {
                error: StoreError::Full { .. } | StoreError::ReadOnly { .. } | StoreError::Offline { .. },
                ..
            } => None,
            Self::Store { .. } => Some(Obstacle::of(self)),
            _ => None,
        }
    }
}
