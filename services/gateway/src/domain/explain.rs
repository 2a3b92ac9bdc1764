//! Why a file is where it is, and is not where it is not: what is so, since when and why, what happens next and when, and
//! what a person can do.
//!
//! The facts are the cell, the report of the server and the record; the sentences are made here and nowhere else.

use std::{collections::BTreeSet, time::Duration};

use lockstep_model::{Reason, Revision, ServerId, record::Placement};

use crate::domain::{
    Moment,
    cause::Cause,
    cell::{Asked, Cell, CellState, cell},
    learned::Learned,
    report::Report,
    server::Server,
};

/// The most paths that a copy is said to wait behind.
const WAITS_BEHIND_MAX: usize = 8;

/// What the registry says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// Every server should hold it.
    Live(Record),
    /// It was deleted.
    Deleted(Record),
    /// The file has another path now.
    Moved(Record, String),
    /// It was never registered, or so long ago that it is forgotten.
    Never,
}

/// The record of a file, or what its tombstone keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The revision that made it what it is.
    pub revision: Revision,
    /// Size of the content.
    pub size_bytes: u64,
    /// The server it was registered on.
    pub origin: ServerId,
    /// Which servers should hold it.
    pub placement: Placement,
    /// BLAKE3, as text; empty if it was not read.
    pub digest: String,
    /// When it was registered, in seconds and nanoseconds of Unix time, by the clock of its origin.
    pub registered: Option<(i64, i32)>,
    /// Who made it what it is; empty if nobody can tell.
    pub changed_by: String,
}

/// Whether something lies at a path that nobody registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loose {
    /// Nothing lies there.
    Absent,
    /// A loose file lies there.
    Present,
    /// The server did not tell.
    Unknown(Cause),
}

/// One path, explained.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The path.
    pub path: String,
    /// What the registry says.
    pub registered: Registered,
    /// All of it in one sentence.
    pub summary: String,
    /// What a person can do.
    pub advice: String,
    /// One for each server.
    pub copies: Vec<Copy>,
}

/// One copy, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The server.
    pub server: ServerId,
    /// As in the matrix; `None` if the path is not registered.
    pub cell: Option<Cell>,
    /// What is so and why.
    pub message: String,
    /// For how long.
    pub age: Option<Duration>,
    /// What happens next.
    pub next: String,
    /// How long until that.
    pub next_delay: Option<Duration>,
    /// What a person can do.
    pub advice: String,
    /// What it waits behind.
    pub waits_behind: Vec<String>,
    /// What lies there without belonging to a registered file.
    pub loose: Option<Loose>,
}

impl Copy {
    fn of(server: &ServerId) -> Self {
        Self {
            server: server.clone(),
            cell: None,
            message: String::new(),
            age: None,
            next: String::new(),
            next_delay: None,
            advice: String::new(),
            waits_behind: Vec::new(),
            loose: None,
        }
    }
}

impl Explanation {
    /// With the copies on these servers alone, or all if there are none. The summary stays that of the whole file, and
    /// says so of the servers that it counts.
    #[must_use]
    pub fn about(mut self, servers: &BTreeSet<ServerId>) -> Self {
        if !servers.is_empty() {
            self.copies.retain(|copy| servers.contains(&copy.server));
            if matches!(self.registered, Registered::Live(_)) {
                self.advice = advice(&self.copies);
            }
        }
        self
    }
}

/// Explains the copy of a registered file on one server. `alone`: fewer than two servers take part (R13).
pub fn explain_copy(
    id: &ServerId,
    server: &Server,
    (asked, size_bytes): (Asked<'_>, u64),
    learned: &Learned,
    alone: bool,
    now: Moment,
) -> Copy {
    let Asked { path, revision, .. } = asked;
    let cell = cell(server, asked, now);
    let cause = |otherwise: &str| {
        cell.cause.as_ref().map_or_else(|| otherwise.to_owned(), |cause| cause.message.clone())
    };
    let mut copy = Copy {
        advice: cell.cause.as_ref().map(|cause| cause.advice.clone()).unwrap_or_default(),
        ..Copy::of(id)
    };
    match cell.state {
        CellState::NotEligible if server.excluded.is_none() => {
            copy.message = match cell.is_kept {
                Some(true) => format!("{id} keeps a copy, verified; {}", cause("it is not meant for it")),
                Some(false) => format!("{id} has no copy; {}", cause("it is not meant for it")),
                None => cause("it is not meant for it"),
            };
        }
        CellState::NotEligible => {
            copy.message = format!("{id} takes no part: {}", cause("it is excluded"));
        }
        CellState::Unknown if server.report.is_none() => {
            copy.message = format!("nothing is known of {id}: {}", cause("it was not heard yet"));
            copy.age = Some(now.saturating_sub(server.known_since));
            copy.next = format!("the gateway tries to reach {id} every few seconds");
        }
        CellState::Unknown => {
            let why = cause("its report cannot be used");
            copy.message = format!("the copies of {id} cannot be told to be right: {why}");
        }
        CellState::Unreachable => {
            let known = cell.last_known.map_or("", last_words);
            copy.message = format!("{id} is not heard: {}; {known}", cause("it fell silent"));
            copy.age = cell.age;
            copy.next =
                format!("the gateway tries every few seconds; once it is back, {id} catches up by itself");
        }
        CellState::InSync => {
            copy.message = format!("{id} holds the bytes of revision {revision}, verified");
        }
        CellState::Copying => explain_copying(&mut copy, &cell, size_bytes),
        CellState::Failed => explain_failed(&mut copy, &cell),
        CellState::Pending => explain_pending(&mut copy, server, (path, revision), alone),
    }
    copy.age = copy.age.or_else(|| since(server, path, &cell, now));
    if copy.age.is_none() && cell.state == CellState::Pending {
        copy.age = learned.age(revision, now);
    }
    copy.cell = Some(cell);
    copy
}

/// How long the server itself says that it is so.
fn since(server: &Server, path: &str, cell: &Cell, now: Moment) -> Option<Duration> {
    if matches!(cell.state, CellState::InSync | CellState::NotEligible | CellState::Unreachable) {
        return None;
    }
    let (exception, said) = server.report.as_ref()?.exceptions.get(path)?;
    Some(exception.age + now.saturating_sub(*said))
}

fn last_words(state: CellState) -> &'static str {
    match state {
        CellState::InSync => "it held the file when it was heard last",
        CellState::Copying => "it was copying the file when it was heard last",
        CellState::Pending => "it did not have the file yet when it was heard last",
        CellState::Failed => "its last try to copy the file had failed when it was heard last",
        _ => "nothing was known of its copy before",
    }
}

fn explain_copying(copy: &mut Copy, cell: &Cell, size_bytes: u64) {
    let source = cell.copying.as_ref().map(|c| c.source.as_str()).filter(|source| !source.is_empty());
    let from =
        source.map_or_else(|| "its bytes are on their way".to_owned(), |s| format!("copying from {s}"));
    let rate = cell.copying.as_ref().map_or(0, |copying| copying.bytes_per_second);
    let id = &copy.server;
    copy.message = match (cell.copied_bytes, rate) {
        (0, 0) => format!("{id}: {from}"),
        (copied, 0) => format!("{id}: {from}, {copied} of {size_bytes} bytes, standing still at the moment"),
        (copied, rate) => format!("{id}: {from}, {copied} of {size_bytes} bytes, {rate} bytes a second"),
    };
    copy.next_delay = cell.copying.as_ref().and_then(|copying| copying.time_left);
    copy.next = if cell.copied_bytes > 0 && rate == 0 {
        "if nothing moves for 20 s, another holder is asked for the rest".to_owned()
    } else {
        "the bytes are verified and take their place".to_owned()
    };
}

fn explain_failed(copy: &mut Copy, cell: &Cell) {
    let id = &copy.server;
    let why = cell.cause.as_ref().map_or("it said no reason", |cause| cause.message.as_str());
    copy.message = format!("{id} does not hold the file: {why}");
    if cell.cause.as_ref().is_some_and(|cause| cause.is(Reason::Drifted)) {
        copy.next = String::new();
        return;
    }
    copy.next = "the copy is tried again".to_owned();
    copy.next_delay = cell.retry_delay;
}

fn explain_pending(copy: &mut Copy, server: &Server, (path, revision): (&str, Revision), alone: bool) {
    let id = copy.server.clone();
    let Some(report) = &server.report else { return };
    if report.exceptions.contains_key(path) {
        copy.waits_behind = running(report, path);
        copy.message = match copy.waits_behind.len() {
            0 => format!("{id} knows that it needs the file and is about to fetch it"),
            count => format!("{id} knows that it needs the file; {count} other copies are running there"),
        };
        copy.next =
            "it is fetched when there is room in its lane: small files do not wait for large ones".to_owned();
        return;
    }
    let applied = report.summary.position.revision;
    copy.message =
        format!("{id} has come to revision {applied} and not yet to revision {revision} of the file");
    if alone {
        copy.next =
            "nothing is scheduled, because no other server takes part; it looks by itself every few minutes"
                .to_owned();
        return;
    }
    copy.next =
        "the gateway asks it to catch up; without that it looks by itself every few minutes".to_owned();
    if let Some(condition) = report.summary.conditions.first() {
        copy.message = format!("{}; {id} says: {}", copy.message, condition.cause.message);
        copy.advice.clone_from(&condition.cause.advice);
    }
}

fn running(report: &Report, but: &str) -> Vec<String> {
    let others = report.summary.transfers.keys().filter(|path| path.as_str() != but);
    others.take(WAITS_BEHIND_MAX).cloned().collect()
}

/// Explains what lies on one server at a path that is not registered.
pub fn explain_loose(id: &ServerId, loose: Loose) -> Copy {
    let (message, advice) = match &loose {
        Loose::Absent => (format!("nothing lies at the path on {id}"), ""),
        Loose::Present => (
            format!(
                "a loose file lies at the path on {id}: nobody registered it, so it is neither copied nor deleted"
            ),
            "`lockstep file register --in-place` makes it a registered file",
        ),
        Loose::Unknown(cause) => (format!("{id} did not tell what lies at the path: {}", cause.message), ""),
    };
    Copy { message, advice: advice.to_owned(), loose: Some(loose), ..Copy::of(id) }
}

/// One path, from what the registry says and the copies.
pub fn explanation(path: String, registered: Registered, copies: Vec<Copy>) -> Explanation {
    let (summary, advice) = match &registered {
        Registered::Live(record) => live_summary(record, &copies),
        Registered::Deleted(record) => (
            format!("deleted at revision {}{}", record.revision, by(&record.changed_by)),
            "register the file again to bring it back".to_owned(),
        ),
        Registered::Moved(record, to) => (
            format!("moved to {to} at revision {}{}", record.revision, by(&record.changed_by)),
            format!("ask about {to}"),
        ),
        Registered::Never => {
            let loose = copies.iter().filter(|copy| copy.loose == Some(Loose::Present)).count();
            match loose {
                0 => (
                    "not registered, and no sign that it ever was".to_owned(),
                    "check the spelling: names differ in case and accents".to_owned(),
                ),
                count => (
                    format!(
                        "not registered; a loose file lies there on {count} server{}",
                        if count == 1 { "" } else { "s" }
                    ),
                    "register the loose file in place, or leave it alone".to_owned(),
                ),
            }
        }
    };
    Explanation { path, registered, summary, advice, copies }
}

fn by(who: &str) -> String {
    if who.is_empty() { String::new() } else { format!(" by {who}") }
}

fn live_summary(record: &Record, copies: &[Copy]) -> (String, String) {
    let states: Vec<CellState> = copies.iter().filter_map(|copy| Some(copy.cell.as_ref()?.state)).collect();
    let part = states.iter().filter(|state| **state != CellState::NotEligible).count();
    let count = |wanted: CellState| states.iter().filter(|state| **state == wanted).count();
    let in_sync = count(CellState::InSync);
    let missing = [
        (CellState::Copying, "copying"),
        (CellState::Pending, "pending"),
        (CellState::Failed, "failed"),
        (CellState::Unreachable, "unreachable"),
        (CellState::Unknown, "unknown"),
    ];
    let missing: Vec<String> = missing
        .into_iter()
        .filter_map(|(state, word)| Some(count(state)).filter(|n| *n > 0).map(|n| format!("{n} {word}")))
        .collect();
    let rest = if missing.is_empty() { String::new() } else { format!("; {}", missing.join(", ")) };
    let summary = format!(
        "registered at revision {}{}; verified on {in_sync} of {part} servers{rest}",
        record.revision,
        by(&record.changed_by)
    );
    (summary, advice(copies))
}

/// The advice of whatever does not go on by itself.
fn advice(copies: &[Copy]) -> String {
    let stuck = [CellState::Failed, CellState::Unknown, CellState::Unreachable];
    let first = stuck.iter().find_map(|state| {
        let copy = copies.iter().find(|copy| copy.cell.as_ref().is_some_and(|cell| cell.state == *state))?;
        (!copy.advice.is_empty()).then(|| format!("{}: {}", copy.server, copy.advice))
    });
    first.unwrap_or_default()
}
