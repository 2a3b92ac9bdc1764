//! What the engine of the catalog needs from outside: a vendor to download from, archives to import, and the servers that
//! take the files.

pub mod archive;
pub mod servers;
pub mod vendor;

use lockstep_model::clock::{Clock, Entropy};
use lockstep_registry::Registry;

pub use archive::{ArchiveEntry, ArchiveError, ArchiveInvalid, ArchiveReader, ArchiveSummary};
pub use servers::{Registered, Registration, Seen, Server, Servers, Upload};
pub use vendor::{Body, Feed, FeedEntry, FeedFile, Fetched, Malformed, Vendor, VendorError};

/// Everything outside the engine, chosen once: the real things, or those of a test.
pub trait Ports: Clone + Send + Sync + 'static {
    /// The authority.
    type Registry: Registry;
    /// Where offers come from.
    type Vendor: Vendor;
    /// Where files go.
    type Servers: Servers;
    /// Time, for stamps.
    type Clock: Clock;
    /// Chance.
    type Entropy: Entropy;
}
