//! A zip archive, read strictly while it streams in.
//!
//! A zip tells everything twice: before each entry, and in the directory at its end. Readers that believe one of the two see
//! different archives, which is what hostile ones live from. Here every byte belongs to something, both stories must agree,
//! and whatever is not needed for plain files is refused with the name of the entry (R59).
//!
//! ```text
//! push(bytes) ─▶ [entry header ─▶ data ─▶ descriptor?]* ─▶ directory ─▶ zip64 end? ─▶ end ─▶ nothing more
//!                 Step::Entry      Chunk…   EntryEnd                                          Step::End
//! ```
//!
//! This is the rule alone: no I/O, and no more memory than one header, one chunk, and what is remembered of each entry.

mod directory;
mod fields;
mod header;
mod inflate;
mod unzip;

use crate::{domain::names::shown, ports::ArchiveInvalid};

pub use unzip::{Step, Unzip};

/// An archive has fewer entries than this, directories included.
pub const ENTRIES_LIMIT: usize = 100_000;
/// The most bytes of all files of an archive together, unpacked.
pub const TOTAL_BYTES_MAX: u64 = 64 << 30;
/// How many times its packed size an entry, or the whole archive, may have unpacked.
pub const RATIO_MAX: u64 = 100;
/// What may be unpacked whatever the ratio: small files of zeros are no bombs.
const RATIO_FREE_BYTES: u64 = 1 << 20;
/// The same for the archive as a whole while it comes: what is small may lie first, and what is large behind it.
const RATIO_FREE_EARLY_BYTES: u64 = 1 << 30;
/// The largest piece of content that is given at once.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Whether so much may not come out of so much.
fn is_bomb(packed: u64, unpacked: u64, free: u64) -> bool {
    unpacked > free.saturating_add(packed.saturating_mul(RATIO_MAX))
}

/// Something wrong with an entry.
fn wrong(entry: &str, rule: impl Into<String>) -> ArchiveInvalid {
    ArchiveInvalid { entry: shown(entry), rule: rule.into() }
}

/// Something wrong with the archive as such.
fn wrong_archive(rule: impl Into<String>) -> ArchiveInvalid {
    ArchiveInvalid { entry: "the archive".to_owned(), rule: rule.into() }
}

#[cfg(test)]
mod tests;
