//! What goes into a registry and what comes out.

use lockstep_model::{Position, Revision};

/// The most records that one transaction may change.
pub const COMMIT_RECORDS_MAX: usize = 10_000;
/// The most bytes of keys and bodies that one transaction may carry.
pub const COMMIT_BYTES_MAX: usize = 16 << 20;
/// The most preconditions of one transaction: each record may need more than one.
pub const PRECONDITIONS_MAX: usize = 4 * COMMIT_RECORDS_MAX;
/// How many requests are remembered.
pub const REQUESTS_KEPT: u64 = 100_000;
/// The most keys of one read.
pub const KEYS_MAX: usize = 20_000;
/// The most records or changes of one page; a page is also at most 16 MiB, unless one record or transaction is more.
pub const PAGE_RECORDS_MAX: usize = 10_000;
/// The most notes of one read.
pub const NOTES_MAX: usize = 10_000;
/// The most bytes of a note, its key included.
pub const NOTE_BYTES_MAX: usize = 64 << 10;

/// A record, or the tombstone of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `kind/key`.
    pub key: String,
    /// The transaction that made it what it is.
    pub revision: Revision,
    /// JSON text; a tombstone keeps what is needed to recognise what it ended.
    pub body: String,
    /// True for a tombstone.
    pub deleted: bool,
    /// W3C trace context of the commit; outside the chain, may be empty.
    pub traceparent: String,
}

/// What must be true for a commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// No live record at the key.
    Absent(String),
    /// The live record at the key was made by this revision.
    At(String, Revision),
    /// No live record below the prefix, but those that this commit deletes or writes anew.
    PrefixEmpty(String),
}

/// A request as a caller named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who: the caller's identity, such as `operator/local`.
    pub caller: String,
    /// The caller's name for the request.
    pub id: String,
    /// Hash of what was asked, so that another request under the same name is noticed: hexadecimal text.
    pub fingerprint: String,
}

/// A transaction. A key that is named twice counts once: deletions after puts, the last mention wins. One that changes
/// nothing is checked and remembered, but makes no revision.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// All must hold.
    pub preconditions: Vec<Precondition>,
    /// Records to write: key and body.
    pub puts: Vec<(String, String)>,
    /// Records to delete: key and body of the tombstone.
    pub deletes: Vec<(String, String)>,
    /// The request to remember; none for what is safe to repeat by its nature.
    pub request: Option<Request>,
    /// W3C trace context; stored beside the changes, outside the chain.
    pub traceparent: String,
}

/// A commit that happened, now or earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision of the transaction.
    pub revision: Revision,
    /// The position of the head: this commit's own, or a later one for a repeated request.
    pub head: Position,
    /// True if this repeats an earlier request.
    pub replayed: bool,
}

/// Changes in commit order, in each transaction ordered by key.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The changes that match the prefix.
    pub changes: Vec<Record>,
    /// Everything up to here is in `changes` or does not match the prefix.
    pub through: Position,
    /// The head at the time of reading.
    pub head: Position,
}

/// Which records.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Keys begin with this.
    pub prefix: String,
    /// Keys are after this one; empty for the first page.
    pub after_key: String,
    /// Records in the page, 1 to 10,000 (others are moved to the nearer end).
    pub limit: usize,
    /// With tombstones that are not compacted yet.
    pub tombstones: bool,
}

/// One page. A series of pages is no instant: later pages may be newer than the first. Whoever needs a snapshot takes
/// the position of the **first** page and applies the changes after it; applying one twice does no harm.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Ordered by key, bytewise.
    pub records: Vec<Record>,
    /// The head at the time of reading.
    pub position: Position,
    /// Whether there are more.
    pub more: bool,
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its key.
    pub key: String,
    /// Its body.
    pub body: String,
}
