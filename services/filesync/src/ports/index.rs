//! What a server knows of its files.

use lockstep_model::{Digest, FilePath, Position, Reason, StoreId, UploadId};

use crate::domain::{
    exception::Missing,
    held::{Held, StagedName},
    intent::Intent,
    tree::Groups,
};

/// What this server knows of its files, durable, on its own disk. Rebuilt from the disk and the registry if lost.
pub trait Index: Clone + Send + Sync + 'static {
    /// Everything, at start.
    fn load(&self) -> impl Future<Output = Result<Loaded, IndexError>> + Send;

    /// Several writes in one durable transaction.
    fn apply(&self, writes: Vec<Write>) -> impl Future<Output = Result<(), IndexError>> + Send;

    /// How many verified bytes of a large file an earlier try left in staging.
    fn load_journal(&self, name: StagedName) -> impl Future<Output = Result<Option<u64>, IndexError>> + Send;

    /// A request that was remembered; nothing if it never was, or [`REQUESTS_KEPT`] others were since.
    fn find_request(
        &self,
        caller: String,
        id: String,
    ) -> impl Future<Output = Result<Option<Remembered>, IndexError>> + Send;

    /// The group hashes of held content above 1 MiB.
    fn groups(&self, digest: Digest) -> impl Future<Output = Result<Option<Groups>, IndexError>> + Send;

    /// Whether its disk takes this many bytes more, which it gives back; asked after it refused a write.
    fn probe(&self, bytes: usize) -> impl Future<Output = Result<(), IndexError>> + Send;
}

/// What an index holds.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// How far the registry was followed.
    pub position: Option<Position>,
    /// The store that belongs to it.
    pub store: Option<StoreId>,
    /// Verified copies.
    pub held: Vec<(FilePath, Held)>,
    /// Exceptions.
    pub missing: Vec<Missing>,
    /// What was begun, by number.
    pub intents: Vec<(u64, Intent)>,
    /// Verified bytes of large files on their way in.
    pub journal: Vec<(StagedName, u64)>,
    /// Uploads.
    pub uploads: Vec<Upload>,
    /// The last path that the scrub has read.
    pub scrubbed: Option<FilePath>,
}

/// Requests about the disk of this server that are remembered.
pub const REQUESTS_KEPT: u64 = 10_000;

/// A request about the disk of this server. What concerns records is remembered by the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Who asked.
    pub caller: String,
    /// The caller's name for it.
    pub id: String,
    /// What was asked.
    pub fingerprint: String,
    /// Whether it came to its end.
    pub is_done: bool,
    /// What was answered, or will be.
    pub answer: String,
}

/// An upload as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// Whose it is.
    pub caller: String,
    /// What was announced.
    pub size_bytes: u64,
}

/// One write to the index.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// How far the registry was followed.
    Position(Position),
    /// The store that belongs to the index.
    Store(StoreId),
    /// A verified copy.
    Hold(FilePath, Held),
    /// A copy that is not there any more.
    Release(FilePath),
    /// A file that should be held and is not.
    Miss(Missing),
    /// No exception any more.
    Clear(FilePath),
    /// Something is begun, under a number.
    Intend(u64, Intent),
    /// It is done.
    Settle(u64),
    /// Verified bytes of a large file.
    Journal(StagedName, u64),
    /// It is complete or given up.
    Unjournal(StagedName),
    /// The group hashes of a content.
    Groups(Digest, Groups),
    /// The content is not held any more.
    Ungroup(Digest),
    /// An upload begins.
    Upload(Upload),
    /// An upload ends.
    EndUpload(UploadId),
    /// The scrub has read everything up to this path.
    Scrubbed(FilePath),
    /// A request, begun or answered.
    Remember(Remembered),
    /// A request that was refused: it may be made again.
    Unremember {
        /// Who asked.
        caller: String,
        /// The caller's name for it.
        id: String,
    },
}

/// The index failed: a defect of the disk, or of the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the index failed: {cause}")]
pub struct IndexError {
    /// What the database said.
    pub cause: String,
    /// `DISK_FULL` or `STORE_READ_ONLY` where its disk refused, else `INTERNAL`.
    pub reason: Reason,
}
