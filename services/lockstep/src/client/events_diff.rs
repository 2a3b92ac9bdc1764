//! What happened between two views of the matrix. Pure: rows and summaries go in, events come out.
//!
//! Only files that are not in sync are remembered, so what it takes grows with the exceptions and not with the files. The
//! copies of a server that falls silent are told as what they were: the silence is one event of the server.

use std::collections::BTreeMap;

use lockstep_proto::{
    gateway::v1::{Cell, Row, ServerSummary, cell::State, server_summary::ClockState},
    shared::v1::Failure,
};

use super::shape;
use crate::out::{self, Tone};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Happened {
    pub(crate) path: Option<String>,
    pub(crate) revision: Option<i64>,
    pub(crate) server_id: Option<String>,
    pub(crate) failure: Option<Failure>,
    pub(crate) change: Change,
}

/// What kind of thing happened.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum Change {
    /// From here on changes are told.
    #[default]
    Watching,
    /// A file was registered, replaced, or moved to this path.
    FileChanged,
    /// A file was deleted, or moved away.
    FileGone,
    /// A copy has another state.
    Copy { from: String, to: String },
    /// A server has another state; `from` is empty if it was never seen before.
    Server { from: String, to: String },
    /// Something concerns a whole server from now on.
    ConditionBegan,
    /// It does so no more.
    ConditionEnded,
}

/// The copies of a file by server, as they were told last.
type Copies = BTreeMap<String, i32>;

/// What was told last.
#[derive(Default)]
pub(crate) struct Told {
    /// Files that are not in sync, with their revision.
    open: BTreeMap<String, (i64, Copies)>,
    /// Files up to this revision are known, whether they are in sync or not.
    revision: i64,
    servers: BTreeMap<String, Seen>,
    is_caught_up: bool,
}

/// A server as it was told last.
struct Seen {
    state: String,
    conditions: BTreeMap<String, Failure>,
}

impl Told {
    /// Takes in one message of the watch. Before it has caught up nothing is told.
    pub(crate) fn rows(
        &mut self,
        rows: Vec<Row>,
        removed: Vec<String>,
        revision: i64,
        caught_up: bool,
    ) -> Vec<Happened> {
        let mut events = Vec::new();
        let first = !self.is_caught_up;
        for row in rows {
            self.row(row, &mut events);
        }
        for path in removed {
            self.open.remove(&path);
            let path = Some(path);
            events.push(Happened { path, change: Change::FileGone, ..Happened::default() });
        }
        if first {
            events.clear();
        }
        if caught_up {
            self.revision = self.revision.max(revision);
        }
        if first && caught_up {
            self.is_caught_up = true;
            events.push(Happened { revision: Some(self.revision), ..Happened::default() });
        }
        events
    }

    fn row(&mut self, row: Row, events: &mut Vec<Happened>) {
        let now: Copies =
            row.cells.iter().filter_map(|cell| Some((cell.server_id.clone(), known(cell)?))).collect();
        let before = self.open.remove(&row.path);
        let is_changed = match &before {
            Some((revision, _)) => row.revision > *revision,
            None => row.revision > self.revision,
        };
        let told = |server_id: Option<&Cell>, change: Change| Happened {
            path: Some(row.path.clone()),
            revision: Some(row.revision),
            server_id: server_id.map(|cell| cell.server_id.clone()),
            failure: server_id.and_then(|cell| cell.failure.clone()),
            change,
        };
        if is_changed {
            events.push(told(None, Change::FileChanged));
        }
        for cell in &row.cells {
            let Some(to) = now.get(&cell.server_id) else { continue };
            // What was not remembered was in sync, unless it is new.
            let in_sync = if is_changed { State::Pending } else { State::InSync } as i32;
            let from = before.as_ref().and_then(|(_, copies)| copies.get(&cell.server_id));
            let from = from.copied().unwrap_or(in_sync);
            if from != *to {
                events.push(told(Some(cell), Change::Copy { from: word(from), to: word(*to) }));
            }
        }
        if now.values().any(|state| *state != State::InSync as i32) {
            self.open.insert(row.path, (row.revision, now));
        }
    }

    /// Whether everything that was so at the start is known.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// Takes in the summaries.
    pub(crate) fn servers(&mut self, servers: &[ServerSummary]) -> Vec<Happened> {
        let mut events = Vec::new();
        for server in servers {
            let id = Some(server.server_id.clone());
            let state = shape::server_state(server);
            let seen = self.servers.get(&server.server_id);
            let mut conditions: BTreeMap<String, Failure> = server
                .conditions
                .iter()
                .filter_map(|condition| condition.failure.clone())
                .chain(server.fence.clone())
                .map(|failure| (failure.reason.clone(), failure))
                .collect();
            // That its timeguard is not heard lifts no fence.
            if server.clock_state() == ClockState::Unmeasured {
                let fences = seen.into_iter().flat_map(|seen| &seen.conditions);
                let fences = fences.filter(|(reason, _)| shape::is_fence(reason));
                conditions.extend(fences.map(|(reason, failure)| (reason.clone(), failure.clone())));
            }
            let from = seen.map_or("", |seen| seen.state.as_str());
            if from != state {
                let change = Change::Server { from: from.to_owned(), to: state.clone() };
                let failure = server.failure.clone();
                events.push(Happened { server_id: id.clone(), failure, change, ..Happened::default() });
            }
            let none = BTreeMap::new();
            let before = seen.map_or(&none, |seen| &seen.conditions);
            let other =
                |from: &BTreeMap<String, Failure>, but: &BTreeMap<String, Failure>, change: Change| {
                    let other = from.iter().filter(|(reason, _)| !but.contains_key(*reason));
                    let event = |(_, failure): (&String, &Failure)| Happened {
                        server_id: id.clone(),
                        failure: Some(failure.clone()),
                        change: change.clone(),
                        ..Happened::default()
                    };
                    other.map(event).collect::<Vec<_>>()
                };
            events.extend(other(&conditions, before, Change::ConditionBegan));
            events.extend(other(before, &conditions, Change::ConditionEnded));
            self.servers.insert(server.server_id.clone(), Seen { state, conditions });
        }
        events
    }
}

/// What is known of a copy, also of one whose server is silent; `None` if the server takes no part, or nothing is known.
fn known(cell: &Cell) -> Option<i32> {
    let state = if cell.state() == State::Unreachable { cell.last_known_state() } else { cell.state() };
    match state {
        State::Pending | State::Copying | State::Failed | State::InSync => Some(state as i32),
        _ => None,
    }
}

fn word(state: i32) -> String {
    shape::cell_state(&Cell { state, ..Cell::default() })
}

impl Happened {
    /// As one line, without its time.
    pub(crate) fn line(&self) -> String {
        let path = out::escaped(self.path.as_deref().unwrap_or_default());
        let server = self.server_id.as_deref().unwrap_or_default();
        let failure = self.failure.as_ref();
        let why = failure.map(|it| format!(": {} ({})", out::escaped(&it.message), it.reason));
        let why = why.unwrap_or_default();
        let revision = self.revision.unwrap_or_default();
        match &self.change {
            Change::Watching => format!("watching, from revision {revision}"),
            Change::FileChanged => format!("{path}  registered at revision {revision}"),
            Change::FileGone => format!("{path}  not registered any more"),
            Change::Copy { from, to } => format!("{path}  {server}  {from} -> {}{why}", coloured(to)),
            Change::Server { from, to } if from.is_empty() => {
                format!("server {server}  {}{why}", coloured(to))
            }
            Change::Server { from, to } => format!("server {server}  {from} -> {}{why}", coloured(to)),
            Change::ConditionBegan => format!("server {server}  began{why}"),
            Change::ConditionEnded => {
                format!("server {server}  ended: {}", failure.map_or("", |failure| &failure.reason))
            }
        }
    }
}

fn coloured(state: &str) -> String {
    let tone = match state {
        "IN_SYNC" | "READY" => Tone::Good,
        "FAILED" | "UNREACHABLE" => Tone::Bad,
        _ => Tone::Wait,
    };
    out::painted(tone, state)
}

#[cfg(test)]
mod tests {
    use lockstep_proto::{filesync::v1::Condition, gateway::v1::server_summary};

    use super::*;

    fn row(path: &str, revision: i64, states: &[State]) -> Row {
        let cell = |(number, state): (usize, &State)| Cell {
            server_id: format!("s{}", number + 1),
            state: *state as i32,
            last_known_state: State::InSync as i32,
            ..Cell::default()
        };
        let cells = states.iter().enumerate().map(cell).collect();
        Row { path: path.to_owned(), revision, cells, ..Row::default() }
    }

    fn lines(events: &[Happened]) -> Vec<String> {
        events.iter().map(Happened::line).collect()
    }

    #[test]
    fn only_what_changes_is_told() {
        let mut told = Told::default();
        let first = vec![row("a", 1, &[State::InSync]), row("b", 2, &[State::Pending])];
        assert_eq!(lines(&told.rows(first, Vec::new(), 2, true)), ["watching, from revision 2"]);
        let next = vec![row("a", 1, &[State::InSync]), row("b", 2, &[State::InSync])];
        assert_eq!(lines(&told.rows(next, Vec::new(), 2, true)), ["b  s1  PENDING -> IN_SYNC"]);
        assert!(told.open.is_empty(), "what is in sync is not remembered");
        let new = vec![row("c", 3, &[State::InSync, State::Pending]), row("a", 1, &[State::Failed])];
        assert_eq!(
            lines(&told.rows(new, vec!["b".to_owned()], 3, true)),
            [
                "c  registered at revision 3",
                "c  s1  PENDING -> IN_SYNC",
                "a  s1  IN_SYNC -> FAILED",
                "b  not registered any more"
            ]
        );
    }

    #[test]
    fn a_silent_server_is_one_event() {
        let mut told = Told::default();
        told.rows(vec![row("a", 1, &[State::InSync, State::InSync])], Vec::new(), 1, true);
        let silent = vec![row("a", 1, &[State::InSync, State::Unreachable])];
        assert!(told.rows(silent, Vec::new(), 1, true).is_empty());
        let failure = |reason: &str| Failure {
            reason: reason.to_owned(),
            message: "m".to_owned(),
            ..Failure::default()
        };
        let mut server = ServerSummary {
            server_id: "s2".to_owned(),
            state: server_summary::State::Ready as i32,
            conditions: vec![Condition { failure: Some(failure("DISK_FULL")), age: None }],
            ..ServerSummary::default()
        };
        let begun = told.servers(std::slice::from_ref(&server));
        assert_eq!(lines(&begun), ["server s2  READY", "server s2  began: m (DISK_FULL)"]);
        assert!(told.servers(std::slice::from_ref(&server)).is_empty());
        server.state = server_summary::State::Unreachable as i32;
        server.failure = Some(failure("PEER_UNREACHABLE"));
        server.conditions.clear();
        assert_eq!(
            lines(&told.servers(std::slice::from_ref(&server))),
            ["server s2  READY -> UNREACHABLE: m (PEER_UNREACHABLE)", "server s2  ended: DISK_FULL"]
        );
    }

    /// R62: a fence is told when it goes up and when it is lifted, once, whoever says so; not when its timeguard is not heard.
    #[test]
    fn a_fence_is_told_when_it_goes_up_and_when_it_is_lifted() {
        let mut told = Told::default();
        let fence =
            Failure { reason: "CLOCK_FENCED".to_owned(), message: "m".to_owned(), ..Failure::default() };
        let server = |state: ClockState, fence: Option<&Failure>, condition: Option<&Failure>| {
            let condition = condition.map(|it| Condition { failure: Some(it.clone()), age: None });
            vec![ServerSummary {
                server_id: "s2".to_owned(),
                state: server_summary::State::Ready as i32,
                clock_state: state.into(),
                fence: fence.cloned(),
                conditions: condition.into_iter().collect(),
                ..ServerSummary::default()
            }]
        };
        told.servers(&server(ClockState::Trusted, None, None));
        let begun = told.servers(&server(ClockState::Skewed, Some(&fence), None));
        assert_eq!(lines(&begun), ["server s2  began: m (CLOCK_FENCED)"]);
        assert!(told.servers(&server(ClockState::Skewed, Some(&fence), Some(&fence))).is_empty());
        assert!(told.servers(&server(ClockState::Unmeasured, None, None)).is_empty());
        assert!(told.servers(&server(ClockState::Skewed, Some(&fence), None)).is_empty());
        let lifted = told.servers(&server(ClockState::Trusted, None, None));
        assert_eq!(lines(&lifted), ["server s2  ended: CLOCK_FENCED"]);
    }
}
