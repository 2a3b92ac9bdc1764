//! Between the contract and the domain.

use std::{collections::BTreeMap, time::Duration};

use lockstep_model::{Epoch, Position, Reason, Revision};
use lockstep_proto::{filesync::v1 as filesync, shared::v1 as shared};

use crate::domain::{
    cause::Cause,
    report::{Condition, Exception, HeldAhead, Part, Progress, Summary as ReportSummary, Transfer},
};

/// A number of the contract, which has no unsigned ones; what does not fit is beyond every documented bound.
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A duration for the contract.
pub fn duration(value: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(value.subsec_nanos()).unwrap_or(0);
    prost_types::Duration { seconds, nanos }
}

/// A duration of the contract; `None` if it is absent, or below zero.
pub fn duration_from(value: Option<prost_types::Duration>) -> Option<Duration> {
    value.and_then(|value| value.try_into().ok())
}

/// A position for the contract.
pub fn position(position: Position) -> shared::Position {
    shared::Position {
        epoch: position.epoch.to_string(),
        revision: number(position.revision.0),
        chain: position.chain.to_string(),
    }
}

/// A position of the contract; `None` if it is none.
pub fn position_from(position: &shared::Position) -> Option<Position> {
    Some(Position {
        epoch: Epoch(position.epoch.parse().ok()?),
        revision: Revision(position.revision.try_into().ok()?),
        chain: position.chain.parse().ok()?,
    })
}

/// A cause for the contract, with how long until the next try.
pub fn failure(cause: Cause, retry_delay: Option<Duration>) -> shared::Failure {
    let Cause { reason, message, advice } = cause;
    shared::Failure { reason, message, advice, retry_delay: retry_delay.map(duration) }
}

/// A cause as another process said it.
pub fn cause_from(failure: shared::Failure) -> Cause {
    Cause::reported(&failure.reason, &failure.message, &failure.advice)
}

impl Part {
    /// From one message of the stream.
    ///
    /// # Errors
    /// What breaks the contract.
    pub fn from_wire(message: filesync::WatchReplicasResponse) -> Result<Self, Cause> {
        let broken = || Cause::new(Reason::Internal, "the server sent a position that is none");
        let exceptions = message.exceptions.into_iter().map(exception_from).collect();
        let end = match message.position {
            None => None,
            Some(position) => Some(ReportSummary {
                position: position_from(&position).ok_or_else(broken)?,
                conditions: message.conditions.into_iter().map(condition_from).collect(),
                transfers: message.transfers.into_iter().map(transfer_from).collect::<BTreeMap<_, _>>(),
                held_ahead: message.held_ahead.into_iter().map(held_ahead_from).collect(),
                compared_age: duration_from(message.compared_age),
                hashed_age: duration_from(message.hashed_age),
                stream_age: duration_from(message.stream_age),
            }),
        };
        Ok(Self {
            incarnation: message.incarnation,
            snapshot: message.snapshot,
            exceptions,
            cleared: message.cleared_paths,
            end,
        })
    }
}

fn exception_from(exception: filesync::Exception) -> (String, Exception) {
    use filesync::exception::State;
    let progress = match exception.state() {
        State::Copying => Progress::Copying,
        State::Failed => Progress::Failed,
        State::Kept => Progress::Kept,
        // A state that this version does not know is still an exception: the file is not held.
        State::Unspecified | State::Pending => Progress::Pending,
    };
    let read = Exception {
        revision: Revision(unsigned(exception.revision)),
        progress,
        cause: exception.failure.map(cause_from),
        retry_delay: duration_from(exception.retry_delay),
        age: duration_from(exception.age).unwrap_or_default(),
    };
    (exception.path, read)
}

fn condition_from(condition: filesync::Condition) -> Condition {
    Condition {
        cause: cause_from(condition.failure.unwrap_or_default()),
        age: duration_from(condition.age).unwrap_or_default(),
    }
}

fn transfer_from(transfer: filesync::Transfer) -> (String, Transfer) {
    let read = Transfer {
        source: transfer.source_server_id,
        copied_bytes: unsigned(transfer.copied_bytes),
        total_bytes: unsigned(transfer.total_bytes),
        bytes_per_second: unsigned(transfer.bytes_per_second),
    };
    (transfer.path, read)
}

fn held_ahead_from(held: filesync::HeldAhead) -> HeldAhead {
    HeldAhead { path: held.path, revision: Revision(unsigned(held.revision)), traceparent: held.traceparent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_the_wire() {
        let start = Position::start(Epoch("0e37df36-f698-11e6-8dd4-cb9ced3df976".parse().expect("a UUID")));
        assert_eq!(position_from(&position(start)), Some(start));
        for broken in [
            shared::Position { epoch: "x".to_owned(), ..position(start) },
            shared::Position { revision: -1, ..position(start) },
            shared::Position { chain: "00".to_owned(), ..position(start) },
        ] {
            assert_eq!(position_from(&broken), None);
        }
    }

    #[test]
    fn what_a_newer_server_says_is_tolerated() {
        let start = Position::start(Epoch(Default::default()));
        let exception =
            filesync::Exception { path: "a".to_owned(), state: 99, revision: 3, ..Default::default() };
        let message = filesync::WatchReplicasResponse {
            position: Some(position(start)),
            exceptions: vec![exception],
            conditions: vec![filesync::Condition {
                failure: Some(shared::Failure { reason: "NEW".to_owned(), ..Default::default() }),
                age: None,
            }],
            ..Default::default()
        };
        let part = Part::from_wire(message).expect("tolerated");
        assert_eq!(part.exceptions.first().map(|(_, e)| e.progress), Some(Progress::Pending));
        let end = part.end.expect("a position ends a batch");
        assert_eq!(end.conditions.first().map(|c| c.cause.reason.as_str()), Some("NEW"));
    }
}
