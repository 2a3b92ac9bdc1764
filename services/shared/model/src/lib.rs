//! The vocabulary of Lockstep: ids, paths, digests, positions, records, identities and faults.
//!
//! Owns the words that every service shares and the rules that make a value valid. Refuses to own any I/O,
//! any transport and any task: nothing here can see tonic, prost, a database or tokio.
//!
//! ```text
//! ids  path ── fold          position (epoch, revision, chain)      fault ── Reason ── Kind
//! digest  version            record (what the registry stores)      identity ── Role    clock
//! ```
//!
//! Invariants
//! 1. A value of a type in this crate is valid: it was parsed, not assumed.
//! 2. [`clock::SystemClock`] is the only place that reads the wall clock.
//! 3. A [`fault::Reason`] determines its [`fault::Kind`].

pub mod clock;
pub mod digest;
pub mod fault;
pub mod firmware;
pub mod identity;
pub mod ids;
pub mod path;
pub mod position;
pub mod record;
pub mod version;

pub use digest::{Digest, Md5};
pub use fault::{Fault, Kind, Metadata, Reason, Violation};
pub use identity::{Caller, Identity, Role};
pub use ids::{FileId, FirmwareId, Incarnation, RequestId, ServerId, StoreId, UploadId};
pub use path::{FilePath, Folded};
pub use position::{Chain, Epoch, Position, Revision};
