//! Bytes that were in the way of a registered file, and what is remembered of them.

use jiff::Timestamp;
use lockstep_model::{Digest, FilePath};
use serde::{Deserialize, Serialize};

use crate::domain::exception::Obstacle;

/// What is written down beside bytes that are set aside, on the same disk, so that it outlives the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsideNote {
    /// Where they were.
    pub path: FilePath,
    /// Why they were moved.
    pub why: Obstacle,
    /// When, by the clock of this server; shown only.
    pub time: Timestamp,
    /// What they are; `None` if they could not be read.
    #[serde(default)]
    pub digest: Option<Digest>,
}

/// Bytes that are set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsideFile {
    /// Names them on this server.
    pub id: String,
    /// Their size.
    pub size_bytes: u64,
    /// What was written down; `None` if that was lost.
    pub note: Option<AsideNote>,
}
