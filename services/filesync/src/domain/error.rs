//! What can go wrong with a file, as a caller is told.

use std::time::Duration;

use lockstep_model::{
    Digest, Fault, FilePath, Metadata, Reason, Revision, ServerId, UploadId, Violation, path::InvalidPath,
};
use lockstep_registry::RegistryError;

use crate::{
    domain::exception::Obstacle,
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
        "{path} has {actual_count} files up to revision {actual}, not {expected_count} up to revision {expected}"
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

impl Fault for FileError {
    fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } | Self::NothingBelow { .. } => Reason::FileNotFound,
            Self::UploadNotFound { .. } => Reason::UploadNotFound,
            Self::Exists { .. } => Reason::FileExists,
            Self::PathConflict { .. } => Reason::PathConflict,
            Self::LooseFile { .. } => Reason::LooseFileExists,
            Self::NothingThere { .. } | Self::AsideNotFound { .. } => Reason::ContentNotFound,
            Self::NotRegular { .. } => Reason::NotRegular,
            Self::Mixed => Reason::FieldViolation,
            Self::RevisionChanged { .. } | Self::DirectoryChanged { .. } => Reason::RevisionChanged,
            Self::RequestReused { .. } => Reason::RequestIdReused,
            Self::DigestMismatch { .. }
            | Self::UploadChanged { .. }
            | Self::StagingChanged { .. }
            | Self::NotTheContent { .. } => Reason::ContentDigestMismatch,
            Self::OffsetMismatch { .. } | Self::Incomplete { .. } => Reason::OffsetMismatch,
            Self::Stalled { .. } => Reason::DeadlineExpired,
            Self::TooLarge { .. } => Reason::SizeLimitExceeded,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::NotEligible { .. } => Reason::ServerNotEligible,
            Self::Barred { obstacle, .. } => obstacle.reason,
            Self::Registry(error) => error.reason(),
            Self::Store { error, .. } => error.reason(),
            Self::Peer(error) => error.reason(),
            Self::Draining { .. } => Reason::Draining,
            Self::ContentNotFound { .. } => Reason::ContentNotFound,
            Self::ContentCorrupt { .. } => Reason::StoredContentCorrupt,
            Self::InvalidPath { .. } => Reason::PathInvalid,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::NotFound { path } | Self::NothingBelow { path } => vec![("path", path.to_string())],
            Self::UploadNotFound { upload, server } | Self::UploadChanged { upload, server } => {
                vec![("upload_id", upload.to_string()), ("server_id", server.to_string())]
            }
            Self::Exists { path, revision, digest, origin } => vec![
                ("path", path.to_string()),
                ("revision", revision.to_string()),
                ("digest", digest.to_string()),
                ("origin_server_id", origin.to_string()),
            ],
            Self::PathConflict { path, other } => {
                vec![("path", path.to_string()), ("other_path", other.clone())]
            }
            Self::LooseFile { path, server }
            | Self::NothingThere { path, server }
            | Self::StagingChanged { path, server } => {
                vec![("path", path.to_string()), ("server_id", server.to_string())]
            }
            Self::NotRegular { path, server, what } => vec![
                ("path", path.to_string()),
                ("server_id", server.to_string()),
                ("found", (*what).to_owned()),
            ],
            Self::Mixed => Vec::new(),
            Self::AsideNotFound { id, server } => {
                vec![("aside_id", id.clone()), ("server_id", server.to_string())]
            }
            Self::RevisionChanged { path, expected, actual, digest, origin } => vec![
                ("path", path.to_string()),
                ("expected_revision", expected.to_string()),
                ("actual_revision", actual.to_string()),
                ("digest", digest.to_string()),
                ("origin_server_id", origin.to_string()),
            ],
            Self::DirectoryChanged { path, expected_count, expected, actual_count, actual } => vec![
                ("path", path.to_string()),
                ("expected_file_count", expected_count.to_string()),
                ("expected_revision", expected.to_string()),
                ("actual_file_count", actual_count.to_string()),
                ("actual_revision", actual.to_string()),
            ],
            Self::RequestReused { request_id } => vec![("request_id", request_id.clone())],
            Self::DigestMismatch { path, algorithm, declared, actual } => vec![
                ("path", path.to_string()),
                ("algorithm", (*algorithm).to_owned()),
                ("declared", declared.clone()),
                ("actual", actual.clone()),
            ],
            Self::NotTheContent { upload, declared, actual } => vec![
                ("upload_id", upload.to_string()),
                ("declared", declared.to_string()),
                ("actual", actual.to_string()),
            ],
            Self::OffsetMismatch { upload, expected, actual } => vec![
                ("upload_id", upload.to_string()),
                ("expected_offset", expected.to_string()),
                ("actual_offset", actual.to_string()),
            ],
            Self::Incomplete { upload, actual, announced } => vec![
                ("upload_id", upload.to_string()),
                ("expected_offset", actual.to_string()),
                ("size_bytes", announced.to_string()),
            ],
            Self::Stalled { upload, seconds } => {
                vec![("upload_id", upload.to_string()), ("seconds", seconds.to_string())]
            }
            Self::TooLarge { limit, actual, .. } => {
                vec![("limit_bytes", limit.to_string()), ("actual_bytes", actual.to_string())]
            }
            Self::Overloaded { server, limit, .. } => {
                vec![("server_id", server.to_string()), ("limit", limit.to_string())]
            }
            Self::NotEligible { server, why } => {
                vec![("server_id", server.to_string()), ("why", why.to_string())]
            }
            Self::Registry(error) => error.metadata(),
            Self::Store { server, error } => {
                let mut metadata = error.metadata();
                metadata.push(("server_id", server.to_string()));
                metadata
            }
            Self::Peer(error) => error.metadata(),
            Self::Barred { server, .. } | Self::Draining { server } => {
                vec![("server_id", server.to_string())]
            }
            Self::ContentNotFound { server, digest } | Self::ContentCorrupt { server, digest } => {
                vec![("server_id", server.to_string()), ("digest", digest.to_string())]
            }
            Self::InvalidPath { text, rule } => vec![("path", text.clone()), ("rule", rule.to_string())],
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { .. } => Some(Duration::from_secs(1)),
            Self::Registry(error) => error.retry_after(),
            Self::Store { error, .. } => error.retry_after(),
            _ => None,
        }
    }

    fn violations(&self) -> Vec<Violation> {
        let mixed = || Violation { field: "files".to_owned(), description: self.to_string() };
        if matches!(self, Self::Mixed) { vec![mixed()] } else { Vec::new() }
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        match self {
            Self::NotFound { path } | Self::NothingBelow { path } => Some(("file", path.to_string())),
            Self::NothingThere { path, .. } | Self::Exists { path, .. } | Self::LooseFile { path, .. } => {
                Some(("file", path.to_string()))
            }
            Self::PathConflict { other, .. } => Some(("file", other.clone())),
            Self::AsideNotFound { id, .. } => Some(("aside", id.clone())),
            Self::UploadNotFound { upload, .. } => Some(("upload", upload.to_string())),
            Self::ContentNotFound { digest, .. } => Some(("content", digest.to_string())),
            _ => None,
        }
    }
}
