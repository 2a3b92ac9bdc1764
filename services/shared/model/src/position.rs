//! Where in the history of the registry something is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The number of a transaction in the registry: gap-free, in commit order, 0 before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first transaction.
    pub const ZERO: Self = Self(0);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One history. Random at creation of a registry; changes only when an admin accepts a fork.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub uuid::Uuid);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The hash over all transactions up to a revision; equal chains mean equal histories.
pub type Chain = Digest;

/// A point in a history. Two positions with one epoch and one revision but different chains are a fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The history.
    pub epoch: Epoch,
    /// The last transaction that is included.
    pub revision: Revision,
    /// The hash of everything up to it.
    pub chain: Chain,
}

impl Position {
    /// The start of `epoch`: nothing committed yet. The first chain is the hash of the epoch, so that two histories
    /// never share one.
    pub fn start(epoch: Epoch) -> Self {
        Self { epoch, revision: Revision::ZERO, chain: Digest::of(epoch.0.as_bytes()) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.revision, self.epoch)
    }
}
