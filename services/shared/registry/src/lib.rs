//! The registry: the one authority that says what should exist, and in what order it changed.
//!
//! Owns the log of changes, the current records, the positions and the notes. Refuses to own what a record means:
//! bodies are text, keyed by kind and key. No transport here; each service reads it, each kind has one writer.
//!
//! ```text
//!             ┌ sqlite  (one machine, embedded)        one writer thread, readers beside it
//! Registry ───┤
//!             └ memory  (simulation)                   one lock, shared by clone
//! ```
//!
//! Invariants
//! 1. One revision per transaction, gap-free, in commit order.
//! 2. `chain(r) = BLAKE3(chain(r-1) ‖ r ‖ the stored changes)`: equal chains mean equal histories.
//! 3. A commit happens whole or not at all, and a repeated request has no second effect.
//! 4. A deletion leaves a tombstone until every server has passed it.

pub mod chain;
pub mod error;
mod location;
pub mod members;
pub mod memory;
mod page;
mod probe;
mod range;
pub mod sqlite;
mod transaction;
pub mod types;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use error::RegistryError;
pub use location::{InvalidLocation, Location};
pub use members::CachedMembers;
pub use memory::MemoryRegistry;
pub use probe::probe;
pub use sqlite::SqliteRegistry;
pub use types::*;

use lockstep_model::{Position, Revision, ServerId};

/// What a registry does; the same for every engine, held to it by one conformance suite.
///
/// Every call has the deadline of its caller; an engine answers [`RegistryError::Unavailable`] within 5 s by itself.
pub trait Registry: Clone + Send + Sync + 'static {
    /// The position of the last commit.
    fn head(&self) -> impl Future<Output = Result<Position, RegistryError>> + Send;

    /// The live records of `keys` (at most 20,000), in their order; `None` where there is none or only a tombstone.
    fn get(
        &self,
        keys: Vec<String>,
    ) -> impl Future<Output = Result<Vec<Option<Record>>, RegistryError>> + Send;

    /// The latest record or tombstone of each of `keys`.
    fn get_latest(
        &self,
        keys: Vec<String>,
    ) -> impl Future<Output = Result<Vec<Option<Record>>, RegistryError>> + Send;

    /// One page of records, ordered by key, bytewise. See [`Listing`] for what a series of pages means.
    fn list(&self, query: ListQuery) -> impl Future<Output = Result<Listing, RegistryError>> + Send;

    /// Commits a transaction, or repeats the position of the commit that carried the same request.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<Committed, RegistryError>> + Send;

    /// The revision that a remembered request committed, `None` for one that is not known.
    ///
    /// # Errors
    /// [`RegistryError::RequestReused`] if the caller used the id for another request.
    fn find_request(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Option<Revision>, RegistryError>> + Send;

    /// The changes of one transaction, ordered by key; empty for a revision that is not committed.
    ///
    /// # Errors
    /// [`RegistryError::TooOld`] at and below the floor.
    fn transaction(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<Vec<Record>, RegistryError>> + Send;

    /// The changes after a position: whole transactions only, at least one if there is any, stopping before `limit`
    /// changes would be exceeded; only keys with `prefix`.
    ///
    /// # Errors
    /// [`RegistryError::Forked`] if `after` is not in this history, [`RegistryError::TooOld`] below the floor.
    fn changes(
        &self,
        after: Position,
        prefix: String,
        limit: usize,
    ) -> impl Future<Output = Result<Changes, RegistryError>> + Send;

    /// Waits until the head is past `revision`; returns the head. May return early with the head unmoved, at the
    /// latest after about a second, so that a caller notices a database that went away.
    fn wait_past(&self, revision: Revision) -> impl Future<Output = Result<Position, RegistryError>> + Send;

    /// What the clock of the database shows now, in nanoseconds since 1970; `None` where there is none but the caller's own.
    fn time(&self) -> impl Future<Output = Result<Option<i128>, RegistryError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Writes a note: last writer wins within one key, no revision.
    fn put_note(&self, key: String, body: String) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Removes a note; none at the key is no error.
    fn drop_note(&self, key: String) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// The notes below a prefix, ordered by key, at most 10,000.
    fn notes(&self, prefix: String) -> impl Future<Output = Result<Vec<Note>, RegistryError>> + Send;

    /// Says that `server` has passed `position`; never goes back within one epoch.
    ///
    /// # Errors
    /// [`RegistryError::Forked`] if `position` is not in this history.
    fn acknowledge(
        &self,
        server: ServerId,
        position: Position,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Forgets changes and tombstones at and below `below`, but nothing that a server with a live `server/<id>` record
    /// has not acknowledged (one that never acknowledged holds everything back). Returns the new floor.
    fn compact(&self, below: Revision) -> impl Future<Output = Result<Revision, RegistryError>> + Send;
}
