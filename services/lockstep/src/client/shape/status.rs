//! The documents of `status` and `server ls`.

use lockstep_model::Reason;
use lockstep_proto::{
    filesync::v1 as filesync,
    gateway::v1::{self as gateway, cell, server_summary},
    shared::v1::Failure as WireFailure,
};
use serde::Serialize;

use super::{Failure, nanos, seconds, word};
use crate::out;

/// `status`.
#[derive(Serialize)]
pub(crate) struct Status<'a> {
    pub(crate) in_sync: bool,
    pub(crate) registry_revision: i64,
    pub(crate) file_count: i64,
    pub(crate) servers: Vec<Server<'a>>,
    /// The first of the copies that are missing.
    pub(crate) missing: Vec<MissingCopy<'a>>,
    pub(crate) missing_count: i64,
    /// The first of the copies that failed.
    pub(crate) failed: Vec<MissingCopy<'a>>,
    /// Whether these are all that failed.
    pub(crate) has_all_failed: bool,
}

/// `server ls`.
#[derive(Serialize)]
pub(crate) struct Servers<'a> {
    pub(crate) servers: Vec<Server<'a>>,
    pub(crate) registry_revision: i64,
}

/// One server.
#[derive(Serialize)]
pub(crate) struct Server<'a> {
    server_id: &'a str,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'a>>,
    revision: Option<i64>,
    lag_count: i64,
    exception_count: i64,
    in_sync_count: i64,
    file_count: i64,
    conditions: Vec<Failure<'a>>,
    transfers: Vec<Transfer<'a>>,
    silent_seconds: Option<f64>,
    clock_state: String,
    clock_offset_seconds: Option<f64>,
    clock_uncertainty_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<Failure<'a>>,
    version: &'a str,
    mode: &'a str,
    filesync_uri: &'a str,
    oldest_missing: Option<MissingChange<'a>>,
    remaining_bytes: i64,
    bytes_per_second: i64,
    time_left_seconds: Option<f64>,
    copying_count: i64,
    failed_count: i64,
    pending_count: i64,
    compared_seconds: Option<f64>,
    hashed_seconds: Option<f64>,
    membership: String,
}

/// The oldest change that is not there.
#[derive(Serialize)]
struct MissingChange<'a> {
    path: &'a str,
    revision: i64,
    age_seconds: Option<f64>,
}

impl<'a> MissingChange<'a> {
    fn of(change: &'a gateway::MissingChange) -> Self {
        Self { path: &change.path, revision: change.revision, age_seconds: change.age.map(seconds) }
    }
}

impl<'a> Server<'a> {
    /// From the wire.
    pub(crate) fn of(server: &'a gateway::ServerSummary) -> Self {
        Self {
            server_id: &server.server_id,
            state: server_state(server),
            failure: server.failure.as_ref().map(Failure::of),
            revision: server.position.as_ref().map(|position| position.revision),
            lag_count: server.lag_count,
            exception_count: server.exception_count,
            in_sync_count: server.in_sync_count,
            file_count: server.file_count,
            conditions: server
                .conditions
                .iter()
                .filter_map(|it| it.failure.as_ref())
                .map(Failure::of)
                .collect(),
            transfers: server.transfers.iter().map(Transfer::of).collect(),
            silent_seconds: server.silent_age.map(seconds),
            clock_state: clock_state(server),
            clock_offset_seconds: server.clock_offset.map(seconds),
            clock_uncertainty_seconds: server.clock_uncertainty.map(seconds),
            fence: server.fence.as_ref().map(Failure::of),
            version: &server.version,
            mode: &server.mode,
            filesync_uri: &server.filesync_uri,
            oldest_missing: server.oldest_missing.as_ref().map(MissingChange::of),
            remaining_bytes: server.remaining_bytes,
            bytes_per_second: server.bytes_per_second,
            time_left_seconds: server.time_left.map(seconds),
            copying_count: server.copying_count,
            failed_count: server.failed_count,
            pending_count: server.pending_count,
            compared_seconds: server.compared_age.map(seconds),
            hashed_seconds: server.hashed_age.map(seconds),
            membership: word(
                server_summary::Membership::try_from(server.membership).map(|it| it.as_str_name()),
                "MEMBERSHIP_",
            ),
        }
    }
}

/// A copy that is running.
#[derive(Serialize)]
pub(crate) struct Transfer<'a> {
    path: &'a str,
    source_server_id: &'a str,
    copied_bytes: i64,
    total_bytes: i64,
    bytes_per_second: i64,
    time_left_seconds: Option<f64>,
}

impl<'a> Transfer<'a> {
    fn of(transfer: &'a filesync::Transfer) -> Self {
        Self {
            path: &transfer.path,
            source_server_id: &transfer.source_server_id,
            copied_bytes: transfer.copied_bytes,
            total_bytes: transfer.total_bytes,
            bytes_per_second: transfer.bytes_per_second,
            time_left_seconds: transfer.time_left.map(seconds),
        }
    }
}

/// A copy that a server should hold and does not.
#[derive(Serialize)]
pub(crate) struct MissingCopy<'a> {
    path: &'a str,
    revision: i64,
    server_id: &'a str,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'a>>,
    copied_bytes: i64,
    size_bytes: i64,
}

impl<'a> MissingCopy<'a> {
    /// From the wire.
    pub(crate) fn of(row: &'a gateway::Row, cell: &'a gateway::Cell) -> Self {
        Self {
            path: &row.path,
            revision: row.revision,
            server_id: &cell.server_id,
            state: cell_state(cell),
            failure: cell.failure.as_ref().map(Failure::of),
            copied_bytes: cell.copied_bytes,
            size_bytes: row.size_bytes,
        }
    }
}

/// The state of a server, without its prefix.
pub(crate) fn server_state(server: &gateway::ServerSummary) -> String {
    word(server_summary::State::try_from(server.state).map(|state| state.as_str_name()), "STATE_")
}

/// The state of a clock, without its prefix.
pub(crate) fn clock_state(server: &gateway::ServerSummary) -> String {
    let state = server_summary::ClockState::try_from(server.clock_state);
    word(state.map(|state| state.as_str_name()), "CLOCK_STATE_")
}

/// The state of a clock for people, with its offset unless it is trusted.
pub(crate) fn clock_words(server: &gateway::ServerSummary) -> String {
    let is_trusted = server.clock_state() == server_summary::ClockState::Trusted;
    let offset = server.clock_offset.filter(|_| !is_trusted);
    let offset = offset.map(|offset| format!(" {}", out::offset_short(nanos(offset))));
    format!("{}{}", clock_state(server), offset.unwrap_or_default())
}

/// Why the server originates nothing, unless its filesync says that already: a condition is what it really refuses by, and
/// nothing is said twice.
pub(crate) fn fence(server: &gateway::ServerSummary) -> Option<&WireFailure> {
    let conditions = server.conditions.iter().filter_map(|condition| condition.failure.as_ref());
    let is_told = conditions.into_iter().any(|failure| is_fence(&failure.reason));
    server.fence.as_ref().filter(|_| !is_told)
}

/// Whether it is a reason of the time guard.
pub(crate) fn is_fence(reason: &str) -> bool {
    [Reason::ClockFenced, Reason::RestartRequired].iter().any(|fence| fence.as_str() == reason)
}

/// The state of a cell, without its prefix.
pub(crate) fn cell_state(cell: &gateway::Cell) -> String {
    cell_state_of(cell.state)
}

/// The same, from its number.
pub(crate) fn cell_state_of(state: i32) -> String {
    word(cell::State::try_from(state).map(|state| state.as_str_name()), "STATE_")
}

/// The state of a cell with its reason or its progress, for people.
pub(crate) fn cell_words(cell: &gateway::Cell) -> String {
    let state = cell_state(cell);
    match &cell.failure {
        Some(failure) if failure.reason != state => {
            format!("{state}, {}: {}", failure.reason, failure.message)
        }
        Some(failure) => format!("{state}: {}", failure.message),
        None if cell.copied_bytes > 0 => format!("{state} ({} so far)", out::bytes(cell.copied_bytes)),
        None => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_server_is_stable() {
        let failure =
            WireFailure { reason: "R".into(), message: "m".into(), advice: "a".into(), retry_delay: None };
        let server = gateway::ServerSummary {
            server_id: "s1".into(),
            state: server_summary::State::Ready as i32,
            clock_state: server_summary::ClockState::Unmeasured as i32,
            conditions: vec![filesync::Condition { failure: Some(failure), age: None }],
            silent_age: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            ..gateway::ServerSummary::default()
        };
        let text = serde_json::to_string(&Server::of(&server)).expect("JSON");
        let expected = r#"{"server_id":"s1","state":"READY","revision":null,"lag_count":0,"exception_count":0,"in_sync_count":0,"file_count":0,"conditions":[{"reason":"R","message":"m","advice":"a"}],"transfers":[],"silent_seconds":1.5,"clock_state":"UNMEASURED","clock_offset_seconds":null,"clock_uncertainty_seconds":null,"version":"","mode":"","filesync_uri":"","oldest_missing":null,"remaining_bytes":0,"bytes_per_second":0,"time_left_seconds":null,"copying_count":0,"failed_count":0,"pending_count":0,"compared_seconds":null,"hashed_seconds":null,"membership":"UNSPECIFIED"}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn a_state_of_a_newer_service_is_shown_as_such() {
        assert_eq!(cell_state(&gateway::Cell { state: 99, ..gateway::Cell::default() }), "UNRECOGNISED");
    }
}
