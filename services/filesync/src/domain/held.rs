//! What this server holds: verified bytes at a path.

use std::fmt;

use jiff::Timestamp;
use lockstep_model::{
    Digest, FileId, FilePath, Md5, Revision, ServerId,
    record::{FileRecord, Placement},
};
use serde::{Deserialize, Serialize};

/// What a file looked like from outside when it was verified. If it looks otherwise, somebody changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Its size.
    pub size_bytes: u64,
    /// Its modification time, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Its change time, nanoseconds since 1970; a rename moves it.
    pub changed_ns: i64,
}

impl Stat {
    /// Whether the content may be the same: a rename moves the change time, so that is left out.
    pub fn same_content(&self, other: &Self) -> bool {
        self.size_bytes == other.size_bytes && self.modified_ns == other.modified_ns
    }
}

/// A verified copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The object.
    pub file_id: FileId,
    /// The revision whose bytes these are.
    pub revision: Revision,
    /// What was verified.
    pub digest: Digest,
    /// What it looked like then.
    pub stat: Stat,
}

/// What a file should be, with the revision that says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The path.
    pub path: FilePath,
    /// The object.
    pub file_id: FileId,
    /// The revision of its record.
    pub revision: Revision,
    /// The content.
    pub digest: Digest,
    /// MD5 of the content.
    pub md5: Md5,
    /// Size of the content.
    pub size_bytes: u64,
    /// Becomes the modification time.
    pub registered_time: Timestamp,
    /// Who had the bytes first.
    pub origin: ServerId,
    /// Which servers should hold it.
    #[serde(default)]
    pub placement: Placement,
    /// Trace of the change, may be empty.
    pub traceparent: String,
}

impl Wanted {
    /// Whether it is meant for others than `server`: a copy that is there stays, and none is made (R8 to R12, R36).
    pub fn is_elsewhere(&self, server: &ServerId) -> bool {
        self.placement.excludes(server, &self.origin).is_some()
    }

    /// What a record asks for.
    pub fn of(path: FilePath, revision: Revision, record: FileRecord, traceparent: String) -> Self {
        Self {
            path,
            file_id: record.file_id,
            revision,
            digest: record.digest,
            md5: record.md5,
            size_bytes: record.size_bytes,
            registered_time: record.registered_time,
            origin: record.origin,
            placement: record.placement,
            traceparent,
        }
    }

    /// The name of its bytes in staging, the same after a restart.
    pub fn staged(&self) -> StagedName {
        StagedName(format!("fetch-{}-{}", self.file_id, self.revision))
    }
}

/// The name of a file in the staging area: never chosen by a caller, so it needs no escaping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StagedName(String);

impl StagedName {
    /// `kind-id`.
    pub fn new(kind: &str, id: impl fmt::Display) -> Self {
        Self(format!("{kind}-{id}"))
    }

    /// The same name with a number behind it; with none for 0.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        if number == 0 { self.clone() } else { Self(format!("{}-{number}", self.0)) }
    }

    /// A name that was found in the staging area.
    pub fn found(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StagedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
