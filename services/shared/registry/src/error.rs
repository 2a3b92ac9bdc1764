//! Why the registry did not do what was asked.

use std::time::Duration;

use lockstep_model::{Fault, Metadata, Position, Reason, Revision};

use crate::types::Precondition;

/// A refused or failed call. Nothing was changed, except after [`RegistryError::Unavailable`] from a commit, whose
/// outcome is unknown: repeat it with the same request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RegistryError {
    /// A precondition does not hold (the first one, in order); `actual` is the live revision at the key, if any.
    #[error("precondition {precondition:?} does not hold: the record is at {actual:?}")]
    Refused {
        /// The precondition.
        precondition: Precondition,
        /// The revision of the live record.
        actual: Option<Revision>,
    },
    /// The request id was used for another request.
    #[error("the request id {id} was used for another request")]
    RequestReused {
        /// The id.
        id: String,
    },
    /// The position is not in this history.
    #[error("position {asked} is not in the history of the registry, which is at {head}")]
    Forked {
        /// What was asked for.
        asked: Position,
        /// The head.
        head: Position,
    },
    /// Changes after the position are no longer kept.
    #[error("changes after revision {asked} are no longer kept; the oldest kept is {floor}")]
    TooOld {
        /// What was asked for.
        asked: Revision,
        /// The last revision that was compacted.
        floor: Revision,
    },
    /// More records or bytes than a transaction may carry, or more keys than a read may ask for.
    #[error("one call may carry {limit}, this one has {actual}")]
    TooLarge {
        /// What was exceeded, in words with the unit.
        limit: String,
        /// What was asked, in words with the unit.
        actual: String,
    },
    /// The database did not answer.
    #[error("the registry is unavailable: {cause}")]
    Unavailable {
        /// Why, with the process that holds the lock if that is known.
        cause: String,
    },
}

impl Fault for RegistryError {
    fn reason(&self) -> Reason {
        match self {
            Self::Refused { .. } => Reason::RevisionChanged,
            Self::RequestReused { .. } => Reason::RequestIdReused,
            Self::Forked { .. } => Reason::HistoryForked,
            Self::TooOld { .. } => Reason::PositionTooOld,
            Self::TooLarge { .. } => Reason::SizeLimitExceeded,
            Self::Unavailable { .. } => Reason::RegistryUnavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Unavailable { .. }).then_some(Duration::from_secs(1))
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::Refused { actual, .. } => {
                vec![("actual_revision", actual.map_or_else(String::new, |r| r.to_string()))]
            }
            Self::RequestReused { id } => vec![("request_id", id.clone())],
            Self::Forked { asked, head } => vec![("asked", asked.to_string()), ("head", head.to_string())],
            Self::TooOld { asked, floor } => vec![("asked", asked.to_string()), ("floor", floor.to_string())],
            Self::TooLarge { limit, actual } => vec![("limit", limit.clone()), ("actual", actual.clone())],
            Self::Unavailable { cause } => vec![("cause", cause.clone())],
        }
    }
}
