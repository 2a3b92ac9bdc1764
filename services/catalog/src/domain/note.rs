//! The note of whoever works on an update: who, a counter that moves, how far, and what is in the way. A note moves no
//! revision, so progress wakes nobody.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{
    FirmwareId,
    firmware::{FirmwareFailure, FirmwareFile},
};
use serde::{Deserialize, Serialize};

/// The prefix of the keys of these notes, written by catalog.
pub const DOWNLOAD: &str = "download/";
/// Files in progress that a note tells of: four at a time, and what earlier ones left.
pub const PARTIAL_MAX: usize = 64;
/// A longer name of a version is not kept: going on then relies on the digest alone.
pub const VALIDATOR_BYTES_MAX: usize = 256;

/// The key of the note of an update.
pub fn download_key(id: FirmwareId) -> String {
    format!("{DOWNLOAD}{id}")
}

/// A file that is partly there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Bytes that are safe on the server.
    pub bytes: u64,
    /// What the vendor calls the version that they are of, so that whoever goes on notices another one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub validator: String,
}

/// The body of `download/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadNote {
    /// Who: drawn at random by each process.
    pub instance: String,
    /// Moves with every writing.
    pub beat: u64,
    /// Which files of the record are complete, by their place in it.
    #[serde(default)]
    pub done: BTreeSet<usize>,
    /// Those that are partly there.
    #[serde(default)]
    pub partial: BTreeMap<usize, Partial>,
    /// Bytes in a second, over the last seconds.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// What is in the way, and is tried again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FirmwareFailure>,
}

impl DownloadNote {
    /// Bytes of the file at `place` that are safe.
    pub fn bytes_of(&self, place: usize, file: &FirmwareFile) -> u64 {
        if self.done.contains(&place) {
            return file.size_bytes;
        }
        self.partial.get(&place).map_or(0, |partial| partial.bytes.min(file.size_bytes))
    }

    /// Bytes of all files that are safe.
    pub fn bytes(&self, files: &[FirmwareFile]) -> u64 {
        files.iter().enumerate().map(|(place, file)| self.bytes_of(place, file)).sum()
    }
}
