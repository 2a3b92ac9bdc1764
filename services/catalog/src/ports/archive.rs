//! Archives that are imported while they stream in.

use std::fmt;

use bytes::Bytes;
use lockstep_model::{Fault, FilePath, Metadata, Reason};

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Its path in the archive: valid, and unlike all others before it.
    pub path: FilePath,
    /// Its size, where the archive tells it before the bytes; what comes is never more.
    pub size_bytes: Option<u64>,
}

/// What an archive was, when all of it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// Regular files.
    pub file_count: u64,
    /// The sizes of all files together.
    pub total_bytes: u64,
}

/// An archive on its way in. Its entries come in the order in which they lie, in bounded memory.
///
/// **Nothing that came from it may be published before [`finish`](Self::finish) succeeded.** Whether an entry is a link, and
/// whether the archive tells the same story twice, is known only from the directory at its end.
pub trait ArchiveReader: Send {
    /// Why its bytes end to come.
    type Broken: fmt::Debug + Send;

    /// The next file; what was not read of the one before it is skipped. `None` after the last one.
    fn next_entry(
        &mut self,
    ) -> impl Future<Output = Result<Option<ArchiveEntry>, ArchiveError<Self::Broken>>> + Send;

    /// The next bytes of the file that [`next_entry`](Self::next_entry) gave, at most 256 KiB; `None` after the last ones,
    /// when their number and checksum are right.
    fn next_chunk(
        &mut self,
    ) -> impl Future<Output = Result<Option<Bytes>, ArchiveError<Self::Broken>>> + Send;

    /// Reads what is left, and says whether the archive as a whole is good.
    fn finish(self) -> impl Future<Output = Result<ArchiveSummary, ArchiveError<Self::Broken>>> + Send;
}

/// Why an archive is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError<E> {
    /// It is malformed, or holds what is not taken from archives.
    #[error(transparent)]
    Invalid(#[from] ArchiveInvalid),
    /// Its bytes ended to come.
    #[error("the archive did not arrive: {0:?}")]
    Broken(E),
}

/// What is wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entry}: {rule}")]
pub struct ArchiveInvalid {
    /// The name of the entry, quoted, escaped and cut; `the archive` for what concerns no entry.
    pub entry: String,
    /// What is wrong with it.
    pub rule: String,
}

impl Fault for ArchiveInvalid {
    fn reason(&self) -> Reason {
        Reason::ArchiveInvalid
    }

    fn metadata(&self) -> Metadata {
        vec![("entry", self.entry.clone()), ("rule", self.rule.clone())]
    }
}
