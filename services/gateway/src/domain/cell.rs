//! The cell rule: what is known of one file on one server. The first that applies (R43, R44, I10):
//!
//! 1. the server takes no part → NOT_ELIGIBLE, with why (R14)
//! 2. it was never seen → UNKNOWN
//! 3. it fell silent → UNREACHABLE, with what the rest of the rule last said, and the age of that
//! 4. it follows another history, or its copies cannot be verified → UNKNOWN, with why
//! 5. an exception on the path → its state and reason
//! 6. held ahead at the revision of the object → IN_SYNC
//! 7. its position has reached the revision of the object → IN_SYNC, with the age of the last comparison
//! 8. else PENDING

use std::time::Duration;

use lockstep_model::Revision;

use crate::domain::{
    Moment,
    cause::Cause,
    report::{Exception, Progress, Report},
    server::Server,
};

/// What is known of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellState {
    /// The server takes no part.
    NotEligible,
    /// Nothing is known.
    Unknown,
    /// The server fell silent.
    Unreachable,
    /// The server has not come to it yet.
    Pending,
    /// Bytes are on their way.
    Copying,
    /// The last try failed.
    Failed,
    /// Verified on that server at that revision.
    InSync,
}

/// One file on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What is known.
    pub state: CellState,
    /// Why.
    pub cause: Option<Cause>,
    /// What was known before the server fell silent.
    pub last_known: Option<CellState>,
    /// How old the knowledge is.
    pub age: Option<Duration>,
    /// Verified and written so far.
    pub copied_bytes: u64,
    /// How long until the next try.
    pub retry_delay: Option<Duration>,
}

impl Cell {
    fn of(state: CellState) -> Self {
        Self { state, cause: None, last_known: None, age: None, copied_bytes: 0, retry_delay: None }
    }

    fn because(state: CellState, cause: &Cause) -> Self {
        Self { cause: Some(cause.clone()), ..Self::of(state) }
    }

    /// The cell without what changes merely because time passes.
    pub fn timeless(mut self) -> Self {
        self.age = None;
        self.retry_delay = None;
        self
    }
}

/// The cell of the file at `path`, registered at `revision`, on `server`.
pub fn cell(server: &Server, path: &str, revision: Revision, now: Moment) -> Cell {
    if let Some(cause) = &server.excluded {
        return Cell::because(CellState::NotEligible, cause);
    }
    let Some(report) = &server.report else { return Cell::because(CellState::Unknown, &server.silence) };
    let copy = copy(report, path, revision, now);
    if server.reachable() {
        return copy;
    }
    Cell {
        last_known: Some(copy.state),
        age: server.heard.map(|heard| now.saturating_sub(heard)),
        ..Cell::because(CellState::Unreachable, &server.silence)
    }
}

fn copy(report: &Report, path: &str, revision: Revision, now: Moment) -> Cell {
    if let Some(cause) = report.unverifiable() {
        return Cell::because(CellState::Unknown, cause);
    }
    let applied = report.summary.position.revision;
    if let Some((exception, said)) = report.exceptions.get(path)
        // An exception of an older revision says nothing about this one, unless the position claims to have reached it:
        // then the two contradict, and the copy is not taken for verified.
        && (exception.revision >= revision || applied >= revision)
    {
        return missing(report, path, exception, now.saturating_sub(*said));
    }
    match report.held_ahead.get(path) {
        Some(held) if *held == revision => return Cell::of(CellState::InSync),
        // The server has replaced the bytes already.
        Some(held) if *held > revision => return Cell::of(CellState::Pending),
        _ => {}
    }
    if applied >= revision {
        let since = now.saturating_sub(report.received);
        return Cell {
            age: report.summary.compared_age.map(|age| age + since),
            ..Cell::of(CellState::InSync)
        };
    }
    Cell::of(CellState::Pending)
}

fn missing(report: &Report, path: &str, exception: &Exception, since: Duration) -> Cell {
    let state = match exception.progress {
        Progress::Pending => CellState::Pending,
        Progress::Copying => CellState::Copying,
        Progress::Failed => CellState::Failed,
    };
    let copied = report.summary.transfers.get(path).map_or(0, |transfer| transfer.copied_bytes);
    Cell {
        cause: exception.cause.clone(),
        copied_bytes: if exception.progress == Progress::Copying { copied } else { 0 },
        retry_delay: exception.retry_delay.map(|delay| delay.saturating_sub(since)),
        ..Cell::of(state)
    }
}
