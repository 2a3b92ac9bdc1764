//! The cell rule: what is known of one file on one server. The first that applies (R43, R44, I10):
//!
//! 1. the server takes no part, or the file is not meant for it → NOT_ELIGIBLE, with why (R11, R14), and whether a copy is kept
//! 2. it was never seen → UNKNOWN
//! 3. it fell silent → UNREACHABLE, with what the rest of the rule last said, and the age of that
//! 4. it follows another history, or its copies cannot be verified → UNKNOWN, with why
//! 5. an exception on the path → its state and reason
//! 6. held ahead at the revision of the object → IN_SYNC
//! 7. its position has reached the revision of the object → IN_SYNC, with the age of the last comparison
//! 8. else PENDING
//!
//! Rules 1 to 4 are about the whole server, the rest about the file; [`state`] gives the state alone, at a tenth of the cost.

use std::time::Duration;

use lockstep_model::{Reason, Revision};

use crate::domain::{
    Moment,
    cause::Cause,
    report::{Exception, Progress, Report},
    server::Server,
};

/// A file, as the rule looks at it for one server.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its path.
    pub path: &'a str,
    /// The revision that should be held.
    pub revision: Revision,
    /// Why it is not meant for the server; `None` if it is.
    pub elsewhere: Option<Reason>,
}

/// What is known of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The copy that is running.
    pub copying: Option<Copying>,
    /// Whether the bytes are there although the file is not meant for the server; `None` where that is not known.
    pub is_kept: Option<bool>,
}

/// A copy that is running, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copying {
    /// The server the bytes come from.
    pub source: String,
    /// Bytes in a second; 0 while it stands still.
    pub bytes_per_second: u64,
    /// How long until it is complete; `None` while nobody can tell.
    pub time_left: Option<Duration>,
}

impl Cell {
    const fn of(state: CellState) -> Self {
        Self {
            state,
            cause: None,
            last_known: None,
            age: None,
            copied_bytes: 0,
            retry_delay: None,
            copying: None,
            is_kept: None,
        }
    }

    fn because(state: CellState, cause: &Cause) -> Self {
        Self { cause: Some(cause.clone()), ..Self::of(state) }
    }

    /// The cell without what changes merely because time passes.
    pub fn timeless(mut self) -> Self {
        self.age = None;
        self.retry_delay = None;
        if let Some(copying) = &mut self.copying {
            (copying.bytes_per_second, copying.time_left) = (0, None);
        }
        self
    }
}

/// The rule that applies to a copy.
enum Rule<'a> {
    Unverifiable(&'a Cause),
    Missing(&'a Exception, Moment),
    Ahead,
    Applied,
    Behind,
}

impl Rule<'_> {
    fn state(&self) -> CellState {
        match self {
            Self::Unverifiable(_) => CellState::Unknown,
            Self::Missing(exception, _) => match exception.progress {
                // Kept, and yet meant for the server by now: it has not come to that.
                Progress::Pending | Progress::Kept => CellState::Pending,
                Progress::Copying => CellState::Copying,
                Progress::Failed => CellState::Failed,
            },
            Self::Ahead | Self::Applied => CellState::InSync,
            Self::Behind => CellState::Pending,
        }
    }
}

/// The state that all cells of the server have, whatever the file; `None` if that depends on the file.
pub fn whole_state(server: &Server) -> Option<CellState> {
    if server.excluded.is_some() {
        return Some(CellState::NotEligible);
    }
    let Some(report) = &server.report else { return Some(CellState::Unknown) };
    if !server.reachable() {
        return Some(CellState::Unreachable);
    }
    report.unverifiable().map(|_| CellState::Unknown)
}

/// The state alone, without what it costs to tell the rest.
pub fn state(server: &Server, asked: Asked<'_>) -> CellState {
    match (whole_state(server), &server.report) {
        (Some(CellState::NotEligible), _) => CellState::NotEligible,
        _ if asked.elsewhere.is_some() => CellState::NotEligible,
        (Some(state), _) => state,
        (None, Some(report)) => rule(report, asked.path, asked.revision).state(),
        (None, None) => CellState::Unknown,
    }
}

/// What the server last said of the copy, whether it is heard or not; `None` if it never said anything.
pub fn last_said(server: &Server, asked: Asked<'_>) -> Option<CellState> {
    let report = server.report.as_ref()?;
    match asked.elsewhere {
        Some(_) => Some(CellState::NotEligible),
        None => Some(rule(report, asked.path, asked.revision).state()),
    }
}

/// Whether a copy is there, verified, although the file is not meant for the server; `None` if that is not known.
pub fn is_kept(server: &Server, asked: Asked<'_>) -> Option<bool> {
    let report = server.report.as_ref().filter(|report| report.unverifiable().is_none())?;
    match report.exceptions.get(asked.path) {
        Some((exception, _)) if exception.revision >= asked.revision => {
            Some(exception.progress == Progress::Kept)
        }
        _ => (report.summary.position.revision >= asked.revision).then_some(false),
    }
}

/// Whether the server can be told to have every byte of the file now: verified, meant for it or kept (R12, R47, R48).
pub fn holds(server: &Server, asked: Asked<'_>) -> bool {
    match state(server, asked) {
        CellState::InSync => true,
        CellState::NotEligible => {
            server.excluded.is_none()
                && server.reachable()
                && asked.elsewhere.is_some()
                && is_kept(server, asked) == Some(true)
        }
        _ => false,
    }
}

/// The cell of a file on `server`.
pub fn cell(server: &Server, asked: Asked<'_>, now: Moment) -> Cell {
    if let Some(cause) = &server.excluded {
        return Cell::because(CellState::NotEligible, cause);
    }
    if let Some(reason) = asked.elsewhere {
        let is_kept = is_kept(server, asked);
        return Cell { is_kept, ..Cell::because(CellState::NotEligible, &not_meant(reason)) };
    }
    let Some(report) = &server.report else { return Cell::because(CellState::Unknown, &server.silence) };
    let rule = rule(report, asked.path, asked.revision);
    if server.reachable() {
        return copy(report, asked.path, &rule, now);
    }
    Cell {
        last_known: Some(rule.state()),
        age: server.heard.map(|heard| now.saturating_sub(heard)),
        ..Cell::because(CellState::Unreachable, &server.silence)
    }
}

/// Why a file is not meant for a server, in a sentence.
fn not_meant(reason: Reason) -> Cause {
    let why = match reason {
        Reason::OptionOff => "the option that synchronises downloaded firmware is off",
        Reason::ProtocolNotWebdav => "the protocol of its firmware update is none of UMS WebDAV",
        Reason::TargetNotWebdav => "its firmware update does not lie in a WebDAV directory",
        _ => "it is meant for the server it was registered on only",
    };
    Cause::new(reason, format!("the file is not copied to other servers: {why}"))
}

fn rule<'a>(report: &'a Report, path: &str, revision: Revision) -> Rule<'a> {
    if let Some(cause) = report.unverifiable() {
        return Rule::Unverifiable(cause);
    }
    let applied = report.summary.position.revision;
    if let Some((exception, said)) = report.exceptions.get(path)
        // An exception of an older revision says nothing about this one, unless the position claims to have reached it:
        // then the two contradict, and the copy is not taken for verified.
        && (exception.revision >= revision || applied >= revision)
    {
        return Rule::Missing(exception, *said);
    }
    match report.held_ahead.get(path) {
        Some(held) if *held == revision => return Rule::Ahead,
        // The server has replaced the bytes already.
        Some(held) if *held > revision => return Rule::Behind,
        _ => {}
    }
    if applied >= revision { Rule::Applied } else { Rule::Behind }
}

fn copy(report: &Report, path: &str, rule: &Rule<'_>, now: Moment) -> Cell {
    let plain = Cell::of(rule.state());
    match rule {
        Rule::Unverifiable(cause) => Cell { cause: Some((*cause).clone()), ..plain },
        Rule::Missing(exception, said) => missing(report, path, exception, now.saturating_sub(*said), now),
        Rule::Applied => {
            let since = now.saturating_sub(report.received);
            Cell { age: report.summary.compared_age.map(|age| age + since), ..plain }
        }
        Rule::Ahead | Rule::Behind => plain,
    }
}

fn missing(report: &Report, path: &str, exception: &Exception, since: Duration, now: Moment) -> Cell {
    let state = Rule::Missing(exception, now).state();
    let transfer = report.summary.transfers.get(path).filter(|_| state == CellState::Copying);
    Cell {
        // What kept an earlier try from its goal is over, once bytes are on their way again.
        cause: exception.cause.clone().filter(|_| state == CellState::Failed),
        copied_bytes: transfer.map_or(0, |transfer| transfer.copied_bytes),
        retry_delay: exception.retry_delay.map(|delay| delay.saturating_sub(since)),
        copying: transfer.map(|transfer| report.copying(path, transfer, now)),
        ..Cell::of(state)
    }
}
