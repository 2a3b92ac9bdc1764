//! What a commit asks for, brought into the order in which it is stored, and whether it may happen: the same for every
//! engine.

use std::collections::BTreeMap;

use lockstep_model::{Chain, Position, Revision};

use crate::{
    chain::{self, Link},
    error::RegistryError,
    types::{COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, Commit, PRECONDITIONS_MAX, Precondition, Request},
};

/// A commit whose bounds are checked; `changes` are ordered by key, each key once.
pub(crate) struct Transaction {
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) changes: Vec<Change>,
    pub(crate) request: Option<Request>,
    pub(crate) traceparent: String,
}

pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) deleted: bool,
    pub(crate) body: String,
}

/// The records that preconditions speak about.
pub(crate) trait Live {
    type Error;

    /// The revision of the live record at `key`.
    fn at(&self, key: &str) -> Result<Option<Revision>, Self::Error>;

    /// The revision of the first live record below `prefix` that is not `ignored`.
    fn below(&self, prefix: &str, ignored: &dyn Fn(&str) -> bool) -> Result<Option<Revision>, Self::Error>;
}

impl Transaction {
    /// # Errors
    /// [`RegistryError::TooLarge`] with the figures.
    pub(crate) fn of(commit: Commit) -> Result<Self, RegistryError> {
        let records = commit.puts.len() + commit.deletes.len();
        within(records, COMMIT_RECORDS_MAX, "records")?;
        let bytes = commit.puts.iter().chain(&commit.deletes).map(|(key, body)| key.len() + body.len()).sum();
        within(bytes, COMMIT_BYTES_MAX, "bytes")?;
        within(commit.preconditions.len(), PRECONDITIONS_MAX, "preconditions")?;
        let puts = commit.puts.into_iter().map(|(key, body)| (key, (false, body)));
        let deletes = commit.deletes.into_iter().map(|(key, body)| (key, (true, body)));
        let by_key: BTreeMap<String, (bool, String)> = puts.chain(deletes).collect();
        let changes =
            by_key.into_iter().map(|(key, (deleted, body))| Change { key, deleted, body }).collect();
        let Commit { preconditions, request, traceparent, .. } = commit;
        Ok(Self { preconditions, changes, request, traceparent })
    }

    /// The error of the first precondition that does not hold.
    pub(crate) fn refusal<L: Live>(&self, live: &L) -> Result<Option<RegistryError>, L::Error> {
        for precondition in &self.preconditions {
            let (holds, actual) = match precondition {
                Precondition::Absent(key) => live.at(key).map(|actual| (actual.is_none(), actual))?,
                Precondition::At(key, wanted) => {
                    live.at(key).map(|actual| (actual == Some(*wanted), actual))?
                }
                Precondition::PrefixEmpty(prefix) => {
                    let found = live.below(prefix, &|key| self.changes(key))?;
                    (found.is_none(), found)
                }
            };
            if !holds {
                return Ok(Some(RegistryError::Refused { precondition: precondition.clone(), actual }));
            }
        }
        Ok(None)
    }

    fn changes(&self, key: &str) -> bool {
        self.changes.binary_search_by(|change| change.key.as_str().cmp(key)).is_ok()
    }

    /// The position that this transaction makes out of `head`. A transaction that changes nothing makes none.
    pub(crate) fn position(&self, head: Position) -> Position {
        if self.changes.is_empty() {
            return head;
        }
        let links = self.changes.iter().map(|change| Link {
            key: &change.key,
            deleted: change.deleted,
            body: &change.body,
        });
        let revision = head.revision.next();
        Position { epoch: head.epoch, revision, chain: chain::next(&head.chain, revision, links) }
    }
}

/// # Errors
/// [`RegistryError::TooLarge`] if `actual` is above `limit`.
pub(crate) fn within(actual: usize, limit: usize, unit: &str) -> Result<(), RegistryError> {
    if actual <= limit {
        return Ok(());
    }
    Err(RegistryError::TooLarge { limit: format!("{limit} {unit}"), actual: format!("{actual} {unit}") })
}

/// Whether the changes of `asked` are still kept.
///
/// # Errors
/// [`RegistryError::TooOld`].
pub(crate) fn kept(asked: Revision, floor: Revision) -> Result<(), RegistryError> {
    if asked > floor { Ok(()) } else { Err(RegistryError::TooOld { asked, floor }) }
}

/// Whether `asked` is in the history of `head` and its changes are still kept.
///
/// # Errors
/// [`RegistryError::Forked`] and [`RegistryError::TooOld`].
pub(crate) fn locate<E: From<RegistryError>>(
    asked: Position,
    head: Position,
    floor: Revision,
    chain_at: impl FnOnce(Revision) -> Result<Option<Chain>, E>,
) -> Result<(), E> {
    let forked = Err(RegistryError::Forked { asked, head }.into());
    if asked.epoch != head.epoch || asked.revision > head.revision {
        return forked;
    }
    if asked.revision < floor {
        return Err(RegistryError::TooOld { asked: asked.revision, floor }.into());
    }
    if chain_at(asked.revision)? == Some(asked.chain) { Ok(()) } else { forked }
}
