//! One server in short.

use std::{sync::Arc, time::Duration};

use lockstep_clocks::Report as ClockReport;
use lockstep_model::{Position, Revision, ServerId};

use crate::domain::{
    Moment,
    cause::Cause,
    cell::Copying,
    learned::Learned,
    pace::time_left,
    records::Records,
    report::{Condition, Progress, Report, Transfer},
    server::Server,
    standing::{Lack, Scope, lack},
};

/// A server that was not heard for this long is shown as one that may be gone for good (R17).
const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It takes no part.
    NotEligible,
    /// Nothing is known: never seen, or it follows another history.
    Unknown,
    /// It fell silent.
    Unreachable,
    /// It reports.
    Ready,
}

/// One server in short. With one server it is the only one in the list, and nothing is scheduled (R13).
#[derive(Clone, Debug)]
pub struct Summary {
    /// The server.
    pub id: ServerId,
    /// What is known of it.
    pub state: ServerState,
    /// Why.
    pub cause: Option<Cause>,
    /// The last position it reported.
    pub position: Option<Position>,
    /// How many revisions it is behind the registry.
    pub lag_count: u64,
    /// Files it does not hold.
    pub exception_count: usize,
    /// Registered files that are verified on it.
    pub in_sync_count: usize,
    /// Registered files that are meant for it.
    pub file_count: usize,
    /// What concerns the whole server, with its age now.
    pub conditions: Vec<Condition>,
    /// Copies that are running, with how fast they are now.
    pub transfers: Vec<(String, Transfer, Copying)>,
    /// What it lacks, as it was known last.
    pub lack: Lack,
    /// The oldest change that is not there: path, revision, and how long the gateway knows of it.
    pub oldest: Option<(Arc<str>, Revision, Duration)>,
    /// Bytes in a second of all running copies.
    pub bytes_per_second: u64,
    /// How long until nothing is left to copy; `None` while nobody can tell.
    pub time_left: Option<Duration>,
    /// Every copy was compared with its record within this time.
    pub compared_age: Option<Duration>,
    /// Every copy was read and hashed again within this time.
    pub hashed_age: Option<Duration>,
    /// Whether it was not heard for so long that it may be gone for good.
    pub is_orphan_candidate: bool,
    /// Since its last message.
    pub silent_age: Option<Duration>,
    /// The version of the product it runs in.
    pub version: String,
    /// How it takes part.
    pub mode: String,
    /// Where its filesync answers.
    pub filesync_uri: String,
    /// What its timeguard says of its clock; `None` if that is not heard.
    pub clock: Option<Arc<ClockReport>>,
}

pub(crate) fn summary(
    (records, learned): (&Records, &Learned),
    (id, server): (&ServerId, &Server),
    clock: Option<Arc<ClockReport>>,
    now: Moment,
) -> Summary {
    let (state, cause) = standing(server);
    let report = server.report.as_ref();
    let head = records.history.position().revision;
    let position = report.map(|report| report.summary.position);
    let since = report.map_or(Duration::ZERO, |report| now.saturating_sub(report.received));
    let aged = |condition: &Condition| Condition { age: condition.age + since, ..condition.clone() };
    let known = lack(records, (id, server), Scope { prefix: "", through: head });
    let in_sync = known
        .as_ref()
        .filter(|_| state == ServerState::Ready)
        .map_or(0, |lack| records.meant_count(id).saturating_sub(lack.files()));
    let lack = known.unwrap_or_default();
    let transfers: Vec<(String, Transfer, Copying)> = report.map_or_else(Vec::new, |report| {
        let running = report.summary.transfers.iter();
        running
            .map(|(path, transfer)| (path.clone(), transfer.clone(), report.copying(path, transfer, now)))
            .collect()
    });
    // Of a server that is not heard nobody can tell what it does now.
    let is_moving = state == ServerState::Ready;
    let bytes_per_second =
        transfers.iter().filter(|_| is_moving).map(|(.., copying)| copying.bytes_per_second).sum();
    let oldest = lack
        .oldest
        .as_ref()
        .map(|(revision, path)| (path.clone(), *revision, learned.age(*revision, now).unwrap_or_default()));
    Summary {
        id: id.clone(),
        state,
        cause: cause.cloned(),
        position,
        lag_count: head.0.saturating_sub(position.map_or(0, |position| position.revision.0)),
        exception_count: report.map_or(0, missing_count),
        in_sync_count: in_sync,
        file_count: records.meant_count(id),
        conditions: report.map_or_else(Vec::new, |r| r.summary.conditions.iter().map(aged).collect()),
        transfers,
        oldest,
        bytes_per_second,
        time_left: time_left(lack.remaining_bytes, bytes_per_second).filter(|_| is_moving),
        lack,
        compared_age: report.and_then(|r| r.summary.compared_age).map(|age| age + since),
        hashed_age: report.and_then(|r| r.summary.hashed_age).map(|age| age + since),
        is_orphan_candidate: is_orphan_candidate(server, now),
        silent_age: server.heard.map(|heard| now.saturating_sub(heard)),
        version: server.record.version.to_string(),
        mode: server.record.mode.to_string(),
        filesync_uri: server.record.filesync.clone(),
        clock,
    }
}

/// How many files it named as missing.
fn missing_count(report: &Report) -> usize {
    report.exceptions.values().filter(|(exception, _)| exception.progress != Progress::Kept).count()
}

/// Whether it takes part and was not heard for so long that it may be gone for good (R17).
fn is_orphan_candidate(server: &Server, now: Moment) -> bool {
    let last = server.heard.unwrap_or(server.known_since);
    server.excluded.is_none() && !server.reachable() && now.saturating_sub(last) > ORPHAN_AFTER
}

/// What is known of the server as a whole, and why.
pub(crate) fn standing(server: &Server) -> (ServerState, Option<&Cause>) {
    if let Some(cause) = &server.excluded {
        return (ServerState::NotEligible, Some(cause));
    }
    match &server.report {
        None => (ServerState::Unknown, Some(&server.silence)),
        Some(_) if !server.reachable() => (ServerState::Unreachable, Some(&server.silence)),
        Some(report) => match report.unverifiable() {
            Some(cause) => (ServerState::Unknown, Some(cause)),
            None => (ServerState::Ready, None),
        },
    }
}
