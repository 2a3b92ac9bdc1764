//! The documents of `--output json`: a stable shape with the words of the contract. Sizes, counts and revisions are
//! numbers, ages are seconds, times are RFC 3339 text in UTC. Fields may be added, never renamed or removed.

mod clock;
mod event;
mod explained;
mod firmware;
mod resolved;
mod run;
mod status;

use std::time::Duration;

use jiff::Timestamp;
use lockstep_proto::{
    filesync::v1::{self as filesync, file},
    shared::v1::Failure as WireFailure,
};
use serde::Serialize;

pub(crate) use self::{
    clock::{Clock, Clocks, ServerClock, clock_verdict, fence_state, witness_kind, witness_state},
    event::Event,
    explained::Explained,
    firmware::{
        Answer, Firmware, FirmwareRow, FirmwareRows, Offer, Offers, Settings, Updates, firmware_state,
        protocol_name,
    },
    resolved::{DescribedServer, Resolved, verdict_state},
    run::{Run, Runs, Started, run_state},
    status::{
        MissingCopy, Server, Servers, Status, cell_state, cell_state_of, cell_words, clock_words, fence,
        is_fence, server_state,
    },
};

/// `file register`, `file ls`.
#[derive(Serialize)]
pub(crate) struct Files<'a> {
    pub(crate) files: Vec<File<'a>>,
    pub(crate) next_page_token: &'a str,
}

/// `file get`; `file rm` adds the revision of the deletion.
#[derive(Serialize)]
pub(crate) struct File<'a> {
    path: &'a str,
    file_id: &'a str,
    revision: i64,
    digest: &'a str,
    md5: &'a str,
    size_bytes: i64,
    register_time: String,
    origin_server_id: &'a str,
    state: String,
    placement: String,
    placement_reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delete_revision: Option<i64>,
}

impl<'a> File<'a> {
    /// From the wire.
    pub(crate) fn of(file: &'a filesync::File) -> Self {
        Self {
            path: &file.path,
            file_id: &file.file_id,
            revision: file.revision,
            digest: &file.digest,
            md5: &file.md5,
            size_bytes: file.size_bytes,
            register_time: register_time(file),
            origin_server_id: &file.origin_server_id,
            state: word(file::State::try_from(file.state).map(|state| state.as_str_name()), "STATE_"),
            placement: placement(file),
            placement_reason: file.placement.as_ref().map_or("", |placement| placement.reason.as_str()),
            delete_revision: None,
        }
    }
}

/// Which servers should hold a file. A server of an earlier version does not say, and means all.
fn placement(file: &filesync::File) -> String {
    use filesync::placement::Scope;
    match file.placement.as_ref().map(|placement| Scope::try_from(placement.scope)) {
        None | Some(Ok(Scope::Unspecified)) => "ALL_SERVERS".to_owned(),
        Some(scope) => word(scope.map(|scope| scope.as_str_name()), "SCOPE_"),
    }
}

/// `file mv` and `file rm -r` of a directory.
#[derive(Serialize)]
pub(crate) struct Directory<'a> {
    file_count: i64,
    total_bytes: i64,
    latest_revision: i64,
    sample_paths: &'a [String],
    /// Of the change; absent after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    change_revision: Option<i64>,
}

impl<'a> Directory<'a> {
    /// From the wire.
    pub(crate) fn of(directory: &'a filesync::DirectorySummary, change_revision: Option<i64>) -> Self {
        let filesync::DirectorySummary { file_count, total_bytes, latest_revision, sample_paths } = directory;
        Self {
            file_count: *file_count,
            total_bytes: *total_bytes,
            latest_revision: *latest_revision,
            sample_paths,
            change_revision,
        }
    }
}

/// When a file was registered, as text.
pub(crate) fn register_time(file: &filesync::File) -> String {
    time(file.register_time.as_ref())
}

/// A time as text.
pub(crate) fn time(time: Option<&prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
    time.map_or_else(String::new, |time| time.to_string())
}

/// `file loose`, `file register --in-place --dry-run`.
#[derive(Serialize)]
pub(crate) struct LooseFiles<'a> {
    pub(crate) loose_files: Vec<Loose<'a>>,
}

/// A loose file.
#[derive(Serialize)]
pub(crate) struct Loose<'a> {
    path: &'a str,
    size_bytes: i64,
    modify_time: String,
    failure: Option<Failure<'a>>,
}

impl<'a> Loose<'a> {
    /// From the wire.
    pub(crate) fn of(file: &'a filesync::LooseFile) -> Self {
        Self {
            path: &file.path,
            size_bytes: file.size_bytes,
            modify_time: time(file.modify_time.as_ref()),
            failure: file.failure.as_ref().map(Failure::of),
        }
    }
}

/// `file aside`.
#[derive(Serialize)]
pub(crate) struct AsideFiles<'a> {
    pub(crate) aside_files: Vec<Aside<'a>>,
}

/// Bytes that were set aside.
#[derive(Serialize)]
pub(crate) struct Aside<'a> {
    aside_id: &'a str,
    path: &'a str,
    size_bytes: i64,
    digest: &'a str,
    aside_time: String,
    failure: Option<Failure<'a>>,
}

impl<'a> Aside<'a> {
    /// From the wire.
    pub(crate) fn of(file: &'a filesync::AsideFile) -> Self {
        Self {
            aside_id: &file.aside_id,
            path: &file.path,
            size_bytes: file.size_bytes,
            digest: &file.digest,
            aside_time: time(file.aside_time.as_ref()),
            failure: file.failure.as_ref().map(Failure::of),
        }
    }
}

/// `file check`.
#[derive(Serialize)]
pub(crate) struct Checked {
    compared_count: i64,
    drifted_count: i64,
    lost_count: i64,
    corrupt_count: i64,
    recovered_count: i64,
}

impl Checked {
    /// From the wire.
    pub(crate) fn of(found: &filesync::CheckFilesResponse) -> Self {
        Self {
            compared_count: found.compared_count,
            drifted_count: found.drifted_count,
            lost_count: found.lost_count,
            corrupt_count: found.corrupt_count,
            recovered_count: found.recovered_count,
        }
    }
}

/// Why something is not as it should be.
#[derive(Serialize)]
pub(crate) struct Failure<'a> {
    reason: &'a str,
    message: &'a str,
    advice: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_seconds: Option<f64>,
}

impl<'a> Failure<'a> {
    /// From the wire.
    pub(crate) fn of(failure: &'a WireFailure) -> Self {
        Self {
            reason: &failure.reason,
            message: &failure.message,
            advice: &failure.advice,
            retry_seconds: failure.retry_delay.map(seconds),
        }
    }
}

/// A value that this program does not know is shown as such: services may be newer than their client.
pub(super) fn word<E>(name: Result<&'static str, E>, prefix: &str) -> String {
    name.map_or_else(
        |_| "UNRECOGNISED".to_owned(),
        |name| name.strip_prefix(prefix).unwrap_or(name).to_owned(),
    )
}

/// A duration of the wire in seconds.
pub(crate) fn seconds(duration: prost_types::Duration) -> f64 {
    duration.seconds as f64 + f64::from(duration.nanos) / 1e9
}

/// A duration of the wire in nanoseconds, below zero where it is.
pub(crate) fn nanos(duration: prost_types::Duration) -> i128 {
    i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos)
}

/// A duration of the wire; one below zero, which nobody should send, is zero.
pub(crate) fn span(duration: prost_types::Duration) -> Duration {
    Duration::try_from_secs_f64(seconds(duration)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recorded shape: programs depend on these names.
    #[test]
    fn the_shape_of_a_file_is_stable() {
        let file = filesync::File {
            path: "a".into(),
            file_id: "id".into(),
            revision: 7,
            digest: "d".into(),
            md5: "m".into(),
            size_bytes: 3,
            register_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            origin_server_id: "s1".into(),
            state: file::State::Active as i32,
            placement: None,
        };
        let text = serde_json::to_string(&File::of(&file)).expect("JSON");
        let expected = r#"{"path":"a","file_id":"id","revision":7,"digest":"d","md5":"m","size_bytes":3,"register_time":"1970-01-01T00:00:01Z","origin_server_id":"s1","state":"ACTIVE","placement":"ALL_SERVERS","placement_reason":""}"#;
        assert_eq!(text, expected);
    }
}
