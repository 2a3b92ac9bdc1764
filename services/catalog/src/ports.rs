//! What the engine of the catalog needs from outside: a vendor to download from, and the servers to download into.

pub mod archive;
pub mod vendor;

pub use archive::{ArchiveEntry, ArchiveError, ArchiveInvalid, ArchiveReader, ArchiveSummary};
pub use vendor::{Body, Feed, FeedEntry, FeedFile, Fetched, Malformed, Vendor, VendorError};
