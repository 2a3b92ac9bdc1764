//! Files of one server.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use lockstep_model::{Digest, Fault, FilePath, Md5, Metadata, Reason, StoreId, digest::Sha256};

use super::Tree;
use crate::domain::{
    held::{StagedName, Stat},
    tree::Groups,
};

/// The root directory of a server: the transfer directory with final names, and the areas beside it. All on one file
/// system, so that a rename is atomic. Nothing it does follows a link or leaves the root (R70).
pub trait Store: Tree + Clone {
    /// Makes sure that the root is the store `expected`; a root that has no marker becomes `fresh` if nothing is expected.
    fn claim(
        &self,
        expected: Option<StoreId>,
        fresh: StoreId,
    ) -> impl Future<Output = Result<StoreId, StoreError>> + Send;

    /// Bytes that may still be written; [`StoreError::ReadOnly`] where none may.
    fn free_bytes(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Writes whole small contents into staging, replacing what is there.
    fn stage(&self, files: Vec<(StagedName, Bytes)>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Adds to the end of a staged file, which must still look like `before`, else [`StoreError::Changed`]. Answers what
    /// it looks like then.
    fn append(
        &self,
        name: &StagedName,
        before: Stat,
        data: Bytes,
    ) -> impl Future<Output = Result<Stat, StoreError>> + Send;

    /// Cuts a staged file to `size_bytes`; an absent one becomes empty. Answers what it looks like then.
    fn truncate(
        &self,
        name: &StagedName,
        size_bytes: u64,
    ) -> impl Future<Output = Result<Stat, StoreError>> + Send;

    /// The first bytes of a staged file, which are durable, will not be read soon: memory has better uses.
    fn let_go(
        &self,
        name: &StagedName,
        end_bytes: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sets the modification time of staged files where one is given, and makes them durable.
    fn sync(
        &self,
        files: Vec<(StagedName, Option<Timestamp>)>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads staged files anew and hashes them; `None` for one that is absent.
    fn hash(
        &self,
        names: Vec<StagedName>,
        wanted: Algorithms,
    ) -> impl Future<Output = Result<Vec<Option<Hashed>>, StoreError>> + Send;

    /// What staged files look like; `None` for an absent one.
    fn look(
        &self,
        names: Vec<StagedName>,
    ) -> impl Future<Output = Result<Vec<Option<Stat>>, StoreError>> + Send;

    /// The names and sizes of all staged files.
    fn staged(&self) -> impl Future<Output = Result<Vec<(StagedName, u64)>, StoreError>> + Send;

    /// Removes staged files; absent ones are no error.
    fn discard(&self, names: Vec<StagedName>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives staged files their final names, never replacing anything; missing directories are made. All that succeed
    /// are durable on return.
    fn publish(
        &self,
        files: Vec<(StagedName, FilePath)>,
    ) -> impl Future<Output = Result<Vec<Result<Stat, StoreError>>, StoreError>> + Send;

    /// Lets staged files change places with the files at their paths, in one step each: a reader sees the old bytes or the
    /// new ones. Whatever is displaced is in staging then, a link too, but never a directory. All that succeed are durable.
    fn exchange(
        &self,
        files: Vec<(StagedName, FilePath)>,
    ) -> impl Future<Output = Result<Vec<Result<Stat, StoreError>>, StoreError>> + Send;

    /// Gives files of the transfer directory other paths, one after the other, never replacing anything; missing
    /// directories are made, and those that became empty are removed. All that succeed are durable on return.
    fn relocate(
        &self,
        files: Vec<(FilePath, FilePath)>,
    ) -> impl Future<Output = Result<Vec<Result<Stat, StoreError>>, StoreError>> + Send;

    /// Moves files out of the transfer directory into staging, durably, and removes directories that became empty.
    fn withdraw(
        &self,
        files: Vec<(FilePath, StagedName)>,
    ) -> impl Future<Output = Result<Vec<Result<(), StoreError>>, StoreError>> + Send;

    /// What files look like; `None` for an absent one.
    fn stat(
        &self,
        paths: Vec<FilePath>,
    ) -> impl Future<Output = Result<Vec<Result<Option<Stat>, StoreError>>, StoreError>> + Send;

    /// Reads up to `length` bytes of a published or staged file; fewer at its end.
    fn read(
        &self,
        place: Place,
        offset: u64,
        length: usize,
    ) -> impl Future<Output = Result<Bytes, StoreError>> + Send;

    /// Reads a published file anew and hashes it.
    fn hash_published(
        &self,
        path: FilePath,
    ) -> impl Future<Output = Result<Option<Hashed>, StoreError>> + Send;
}

/// Where bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Under a final name.
    Published(FilePath),
    /// In staging.
    Staged(StagedName),
}

/// Which digests to compute beside BLAKE3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// MD5 too.
    pub md5: bool,
    /// SHA-256 too.
    pub sha256: bool,
}

/// What hashing a file gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// BLAKE3.
    pub digest: Digest,
    /// The hashes of its groups.
    pub groups: Groups,
    /// MD5, if wanted.
    pub md5: Option<Md5>,
    /// SHA-256, if wanted.
    pub sha256: Option<Sha256>,
    /// What the file looked like before and after; both the same, else [`StoreError::Changed`].
    pub stat: Stat,
}

/// The disk refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// Something has the name.
    #[error("something is at {path} already")]
    Occupied {
        /// The path below the root.
        path: String,
    },
    /// Nothing has the name.
    #[error("nothing is at {path}")]
    Absent {
        /// The path below the root.
        path: String,
    },
    /// A link, a directory, a device where a file should be, or a file where a directory should be.
    #[error("{path} is {what}, which is never followed or replaced")]
    Foreign {
        /// The path below the root.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// No room.
    #[error("the disk has {free_bytes} bytes free, {needed_bytes} are needed with the reserve")]
    Full {
        /// What is free.
        free_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// Not writable.
    #[error("the root directory cannot be written: {cause}")]
    ReadOnly {
        /// What the system said.
        cause: String,
    },
    /// The disk says no at one path; elsewhere it works.
    #[error("the disk refuses work at {path}: {cause}")]
    Refused {
        /// The path below the root.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The disk of the state directory, where the index is, refused a write: full, or not writable.
    #[error("the state directory takes no writes: {cause}")]
    State {
        /// `DISK_FULL` or `STORE_READ_ONLY`.
        reason: Reason,
        /// What the database said.
        cause: String,
    },
    /// The root is not the store of this server.
    #[error("the root directory is not the store of this server: {cause}")]
    Offline {
        /// What was found.
        cause: String,
    },
    /// A file changed while it was read.
    #[error("{path} changed while it was read")]
    Changed {
        /// The path below the root.
        path: String,
    },
    /// Anything else.
    #[error("the disk failed at {path}: {cause}")]
    Failed {
        /// The path below the root.
        path: String,
        /// What the system said.
        cause: String,
    },
}

impl Fault for StoreError {
    fn reason(&self) -> Reason {
        match self {
            Self::Occupied { .. } | Self::Foreign { .. } => Reason::LooseFileExists,
            Self::Absent { .. } => Reason::ContentNotFound,
            Self::Full { .. } => Reason::DiskFull,
            Self::ReadOnly { .. } => Reason::StoreReadOnly,
            Self::State { reason, .. } => *reason,
            Self::Offline { .. } => Reason::StoreOffline,
            Self::Changed { .. } => Reason::ContentChanged,
            Self::Refused { .. } | Self::Failed { .. } => Reason::DiskRefused,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::Occupied { path } | Self::Absent { path } | Self::Changed { path } => {
                vec![("path", path.clone())]
            }
            Self::Foreign { path, what } => vec![("path", path.clone()), ("found", (*what).to_owned())],
            Self::Full { free_bytes, needed_bytes } => {
                vec![("free_bytes", free_bytes.to_string()), ("needed_bytes", needed_bytes.to_string())]
            }
            Self::ReadOnly { cause } | Self::Offline { cause } | Self::State { cause, .. } => {
                vec![("cause", cause.clone())]
            }
            Self::Refused { path, cause } | Self::Failed { path, cause } => {
                vec![("path", path.clone()), ("cause", cause.clone())]
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Full { .. } | Self::ReadOnly { .. } | Self::State { .. })
            .then_some(Duration::from_secs(60))
    }
}
