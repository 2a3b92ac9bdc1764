//! One server in short.

use std::{collections::BTreeSet, time::Duration};

use lockstep_model::{Position, ServerId};

use crate::domain::{
    Moment,
    cause::Cause,
    cell::{CellState, cell},
    records::Records,
    report::{Condition, Transfer},
    server::Server,
};

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
    /// Registered files in all.
    pub file_count: usize,
    /// What concerns the whole server, with its age now.
    pub conditions: Vec<Condition>,
    /// Copies that are running.
    pub transfers: Vec<(String, Transfer)>,
    /// Since its last message.
    pub silent_age: Option<Duration>,
    /// The version of the product it runs in.
    pub version: String,
    /// How it takes part.
    pub mode: String,
    /// Where its filesync answers.
    pub filesync_uri: String,
}

pub(crate) fn summary(records: &Records, id: &ServerId, server: &Server, now: Moment) -> Summary {
    let (state, cause) = standing(server);
    let report = server.report.as_ref();
    let head = records.history.position().revision.0;
    let position = report.map(|report| report.summary.position);
    let since = report.map_or(Duration::ZERO, |report| now.saturating_sub(report.received));
    let aged = |condition: &Condition| Condition { age: condition.age + since, ..condition.clone() };
    Summary {
        id: id.clone(),
        state,
        cause: cause.cloned(),
        position,
        lag_count: head.saturating_sub(position.map_or(0, |position| position.revision.0)),
        exception_count: report.map_or(0, |report| report.exceptions.len()),
        in_sync_count: in_sync_count(records, server, state, now),
        file_count: records.file_count(),
        conditions: report.map_or_else(Vec::new, |r| r.summary.conditions.iter().map(aged).collect()),
        transfers: report.map_or_else(Vec::new, |r| {
            r.summary.transfers.iter().map(|(p, t)| (p.clone(), t.clone())).collect()
        }),
        silent_age: server.heard.map(|heard| now.saturating_sub(heard)),
        version: server.record.version.to_string(),
        mode: server.record.mode.to_string(),
        filesync_uri: server.record.filesync.clone(),
    }
}

fn standing(server: &Server) -> (ServerState, Option<&Cause>) {
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

/// As many as there are IN_SYNC cells, without looking at each: all files up to the position, corrected by what the
/// server named one by one.
fn in_sync_count(records: &Records, server: &Server, state: ServerState, now: Moment) -> usize {
    let (ServerState::Ready, Some(report)) = (state, &server.report) else { return 0 };
    let applied = report.summary.position.revision;
    let beyond = records.between(applied, records.history.position().revision).count();
    let named: BTreeSet<&String> = report.exceptions.keys().chain(report.held_ahead.keys()).collect();
    named.into_iter().filter_map(|path| Some((path, records.file(path)?))).fold(
        records.file_count().saturating_sub(beyond),
        |count, (path, file)| {
            let expected = usize::from(file.revision <= applied);
            let actual = usize::from(cell(server, path, file.revision, now).state == CellState::InSync);
            (count + actual).saturating_sub(expected)
        },
    )
}
