//! Sync runs: what is kept of one, and how far it is, which follows from what the servers report (R26, R28).
//!
//! ```text
//!            everything in scope verified
//!  RUNNING ───────────────────────────────▶ COMPLETED   (noted by whichever gateway sees it)
//!    ▲ │                                        ▲
//!    │ ▼ only what cannot move is left          │
//!  WAITING ─────────────────────────────────────┘
//!    └──────────── cancelled ─────────────▶ CANCELLED
//! ```

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use lockstep_model::{Digest, Epoch, Reason, Revision, ServerId};
use serde::{Deserialize, Serialize};

use crate::domain::{
    Moment,
    cause::Cause,
    cell::{CellState, state, whole_state},
    pace::time_left,
    records::Records,
    report::Report,
    server::Server,
    standing::{Lack, Scope, lack, named},
    view::View,
};

/// The prefix of the keys of notes about runs.
pub const RUN: &str = "run/";
/// The most obstacles that are told.
pub const OBSTACLES_MAX: usize = 20;

/// What is kept of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its name, which follows from the caller and the request.
    pub run_id: String,
    /// Runs are counted, so that they have an order that no clock decides.
    pub number: u64,
    /// What paths begin with.
    pub path_prefix: String,
    /// The servers that were named; none for all that take part.
    pub server_ids: BTreeSet<ServerId>,
    /// The history that the target belongs to.
    pub epoch: Epoch,
    /// Files up to this revision are waited for.
    pub target: Revision,
    /// Who started it.
    pub started_by: String,
    /// When, by the clock of the gateway that was asked; shown only.
    pub start_time: Timestamp,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Ended {
    /// Everything in its scope was verified.
    Completed,
    /// Somebody ended the asking.
    Cancelled,
}

/// The key of the note of a run.
pub fn run_key(run_id: &str) -> String {
    format!("{RUN}{run_id}")
}

/// The name of the run that this request of this caller starts, in the form of a UUID: the same on every gateway.
pub fn run_id(caller: &str, request_id: &str) -> String {
    let hex = Digest::of(format!("run\0{caller}\0{request_id}").as_bytes()).to_string();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Copies are under way or about to be.
    Running,
    /// Only what cannot move by itself at the moment is left.
    Waiting,
    /// Everything in its scope was verified.
    Completed,
    /// Somebody ended the asking.
    Cancelled,
}

/// What keeps a run from ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// The server.
    pub server: ServerId,
    /// The file; `None` for the server as a whole.
    pub path: Option<String>,
    /// Why.
    pub cause: Cause,
    /// How long until the next try.
    pub retry_delay: Option<Duration>,
}

/// The part of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The server.
    pub server: ServerId,
    /// Files in the scope.
    pub files: usize,
    /// Those that are verified.
    pub in_sync: usize,
    /// Bytes that are still to be copied.
    pub remaining_bytes: u64,
    /// Whether it is asked to catch up: it is heard and lacks something.
    pub is_asked: bool,
}

/// How far a run is, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunProgress {
    /// Whether it moves.
    pub state: RunState,
    /// One for each server in scope, ordered by id.
    pub shares: Vec<Share>,
    /// What keeps it, at most [`OBSTACLES_MAX`].
    pub hindrances: Vec<Hindrance>,
    /// How long until everything is there; `None` while nobody can tell.
    pub time_left: Option<Duration>,
}

impl RunProgress {
    fn ended(state: RunState) -> Self {
        Self { state, shares: Vec::new(), hindrances: Vec::new(), time_left: None }
    }
}

/// How far `run` is, by what the servers report.
pub fn progress(view: &View, run: &Run, now: Moment) -> RunProgress {
    match run.ended {
        Some(Ended::Completed) => return RunProgress::ended(RunState::Completed),
        Some(Ended::Cancelled) => return RunProgress::ended(RunState::Cancelled),
        None => {}
    }
    let Some((records, _)) = view.records() else { return RunProgress::ended(RunState::Running) };
    let position = records.history.position();
    if position.epoch != run.epoch {
        return RunProgress { hindrances: foreign(view, run), ..RunProgress::ended(RunState::Waiting) };
    }
    let scope = Scope { prefix: &run.path_prefix, through: run.target };
    let mut found = RunProgress::ended(RunState::Waiting);
    let (mut moves, mut longest) = (false, Some(Duration::ZERO));
    for (id, server) in in_scope(view, run) {
        let files = scope.meant_count(records, id);
        let lack = lack(records, (id, server), scope).filter(|_| whole_state(server).is_none());
        let left = match &lack {
            Some(lack) => {
                let rate = server.report.as_ref().map_or(0, |report| rate(report, now));
                moves |= lack.pending + lack.copying > 0;
                hinder(&mut found.hindrances, records, (id, server), scope, lack, now);
                time_left(lack.remaining_bytes, rate)
            }
            None => {
                hinder_wholly(&mut found.hindrances, id, server);
                None
            }
        };
        longest = longest.zip(left).map(|(a, b)| a.max(b));
        let missing = lack.as_ref().map_or(files, Lack::files);
        found.shares.push(Share {
            server: id.clone(),
            files,
            in_sync: files.saturating_sub(missing),
            remaining_bytes: lack.as_ref().map_or(0, |lack| lack.remaining_bytes),
            is_asked: lack.is_some() && missing > 0,
        });
    }
    let all_heard = found.shares.iter().all(|share| share.in_sync == share.files)
        && in_scope(view, run).all(|(_, server)| whole_state(server).is_none());
    found.time_left = longest.filter(|_| all_heard || moves);
    // What the gateway has not read yet may be missing without anybody knowing.
    let is_read = position.revision >= run.target;
    found.state = if is_read && all_heard && !found.shares.is_empty() {
        RunState::Completed
    } else if moves || !is_read {
        RunState::Running
    } else {
        RunState::Waiting
    };
    found
}

/// Nobody can tell how far a run is that belongs to another history.
fn foreign(view: &View, run: &Run) -> Vec<Hindrance> {
    let cause = || {
        Cause::new(
            Reason::HistoryForked,
            "the run belongs to another history of the registry; start a new one",
        )
    };
    let hindered = in_scope(view, run).take(OBSTACLES_MAX);
    hindered
        .map(|(id, _)| Hindrance { server: id.clone(), path: None, cause: cause(), retry_delay: None })
        .collect()
}

/// The servers that a run is about: those that are named, or all that take part.
pub fn in_scope<'a>(view: &'a View, run: &'a Run) -> impl Iterator<Item = (&'a ServerId, &'a Server)> {
    view.servers().filter(|(id, server)| {
        if run.server_ids.is_empty() { server.excluded.is_none() } else { run.server_ids.contains(id) }
    })
}

fn rate(report: &Report, now: Moment) -> u64 {
    report.paces.values().map(|pace| pace.rate(now)).sum()
}

/// The server as a whole: it takes no part, is not heard, or cannot be believed.
fn hinder_wholly(hindrances: &mut Vec<Hindrance>, id: &ServerId, server: &Server) {
    let unverifiable = server.report.as_ref().and_then(|report| report.unverifiable());
    let heard = if server.reachable() { unverifiable } else { None };
    let cause = server.excluded.as_ref().or(heard).unwrap_or(&server.silence).clone();
    if hindrances.len() < OBSTACLES_MAX {
        hindrances.push(Hindrance { server: id.clone(), path: None, cause, retry_delay: None });
    }
}

/// What failed on a server, its conditions first.
fn hinder(
    hindrances: &mut Vec<Hindrance>,
    records: &Records,
    (id, server): (&ServerId, &Server),
    scope: Scope<'_>,
    lack: &Lack,
    now: Moment,
) {
    let Some(report) = server.report.as_ref().filter(|_| lack.files() > 0) else { return };
    let conditions = report.summary.conditions.iter().map(|condition| Hindrance {
        server: id.clone(),
        path: None,
        cause: condition.cause.clone(),
        retry_delay: None,
    });
    let failed = named(records, report)
        .filter(|(path, file)| scope.holds(path, file))
        .filter(|(path, file)| state(server, file.asked(path, id)) == CellState::Failed)
        .filter_map(|(path, _)| {
            let (exception, said) = report.exceptions.get(&**path)?;
            let cause = exception.cause.clone();
            Some(Hindrance {
                server: id.clone(),
                path: Some(path.to_string()),
                cause: cause.unwrap_or_else(|| Cause::new(Reason::Internal, "the server said no reason")),
                retry_delay: exception
                    .retry_delay
                    .map(|delay| delay.saturating_sub(now.saturating_sub(*said))),
            })
        });
    let room = OBSTACLES_MAX.saturating_sub(hindrances.len());
    hindrances.extend(conditions.chain(failed).take(room));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lockstep_replicas::Live as _;

    use super::*;
    use crate::domain::{
        records::Change,
        report::{Batch, Exception, Progress, Transfer},
        samples::{announcement, position, registered, report_at, server_id, snapshot},
    };

    const NOW: Moment = Duration::from_secs(10);

    fn run(servers: &[&str], prefix: &str, target: u64) -> Run {
        Run {
            run_id: run_id("operator/local", "1"),
            number: 1,
            path_prefix: prefix.to_owned(),
            server_ids: servers.iter().map(|id| server_id(id)).collect(),
            epoch: position(0).epoch,
            target: Revision(target),
            started_by: "operator/local".to_owned(),
            start_time: Timestamp::UNIX_EPOCH,
            ended: None,
        }
    }

    /// Three servers (revisions 1 to 3, the third stand-alone), then the files a/1, a/2 and b (4 to 6).
    fn view() -> View {
        let mut records = Records::at(position(0));
        for (number, mode) in [(1, "distributed"), (2, "distributed"), (3, "standalone")] {
            let record = Some(Box::new(announcement(mode, "12.04.100")));
            records.apply(Revision(number), Change::Server(server_id(&format!("s{number}")), record));
        }
        for (revision, path) in [(4, "a/1"), (5, "a/2"), (6, "b")] {
            records.apply(Revision(revision), registered(path));
        }
        records.history.advance(position(6));
        let mut view = View::default();
        view.adopt(records, Moment::ZERO);
        view
    }

    fn report(view: &mut View, server: &str, exceptions: &[(&str, u64, Progress)]) {
        let exceptions = exceptions.iter().map(|(path, revision, progress)| {
            let cause =
                (*progress == Progress::Failed).then(|| Cause::new(Reason::DiskFull, "too little room"));
            let retry_delay = Some(Duration::from_secs(60));
            let (revision, age) = (Revision(*revision), Duration::ZERO);
            let exception = Exception { revision, progress: *progress, cause, retry_delay, age };
            ((*path).to_owned(), Some(exception))
        });
        let mut batch = Batch { exceptions: exceptions.collect(), ..snapshot(report_at(6)) };
        let transfer =
            Transfer { source: "s1".to_owned(), copied_bytes: 0, total_bytes: 1, bytes_per_second: 1 };
        let copying = batch.exceptions.iter().filter(|(_, exception)| {
            exception.as_ref().is_some_and(|exception| exception.progress == Progress::Copying)
        });
        batch.summary.transfers =
            copying.map(|(path, _)| (path.clone(), transfer.clone())).collect::<BTreeMap<_, _>>();
        view.receive(&server_id(server), batch);
    }

    fn state_of(view: &View, run: &Run) -> RunState {
        progress(view, run, NOW).state
    }

    /// R28: a run is complete when all servers that take part hold all files of its scope, and no sooner.
    #[test]
    fn a_run_is_complete_when_everything_in_scope_is_verified() {
        let mut view = view();
        let all = run(&[], "", 6);
        assert_eq!(state_of(&view, &all), RunState::Waiting, "nobody was heard");
        report(&mut view, "s1", &[]);
        report(&mut view, "s2", &[("a/2", 5, Progress::Copying)]);
        let found = progress(&view, &all, NOW);
        let shares: Vec<_> = found.shares.iter().map(|s| (s.server.as_str(), s.in_sync, s.files)).collect();
        assert_eq!((found.state, shares), (RunState::Running, vec![("s1", 3, 3), ("s2", 2, 3)]));
        // The copy is outside the scope, or later than the target, or on another server.
        assert_eq!(state_of(&view, &run(&[], "b", 6)), RunState::Completed);
        assert_eq!(state_of(&view, &run(&[], "", 4)), RunState::Completed);
        assert_eq!(state_of(&view, &run(&["s1"], "", 6)), RunState::Completed);
        assert_eq!(state_of(&view, &run(&[], "a/", 6)), RunState::Running);
        // The target is beyond what the gateway has read.
        assert_eq!(state_of(&view, &run(&["s1"], "", 7)), RunState::Running);
        report(&mut view, "s2", &[]);
        assert_eq!(state_of(&view, &all), RunState::Completed);
        let cancelled = Run { ended: Some(Ended::Cancelled), ..all.clone() };
        assert_eq!(state_of(&view, &cancelled), RunState::Cancelled);
        let foreign = Run { epoch: Epoch(Default::default()), ..all };
        let found = progress(&view, &foreign, NOW);
        assert!(found.state == RunState::Waiting && found.hindrances.len() == 2, "{found:?}");
        assert!(found.hindrances.iter().all(|h| h.cause.is(Reason::HistoryForked)));
    }

    /// R26, R28: a run that cannot end says what keeps it: servers and files, with reason and next try.
    #[test]
    fn a_run_that_cannot_end_says_what_keeps_it() {
        let mut view = view();
        report(&mut view, "s1", &[("a/1", 4, Progress::Failed), ("b", 6, Progress::Failed)]);
        let found = progress(&view, &run(&[], "a/", 6), NOW);
        assert_eq!(found.state, RunState::Waiting);
        let told: Vec<_> = found
            .hindrances
            .iter()
            .map(|h| (h.server.as_str(), h.path.as_deref(), h.cause.reason.as_str(), h.retry_delay))
            .collect();
        let failed = ("s1", Some("a/1"), "DISK_FULL", Some(Duration::from_secs(50)));
        assert_eq!(told, [failed, ("s2", None, "PEER_UNREACHABLE", None)]);
        // One that takes no part is not waited for, unless somebody names it.
        let named = progress(&view, &run(&["s3"], "", 6), NOW);
        assert_eq!((named.state, named.hindrances.len()), (RunState::Waiting, 1));
        assert!(named.hindrances.iter().all(|h| h.cause.is(Reason::Standalone)));
        view.lose(&server_id("s1"), Cause::new(Reason::PeerUnreachable, "gone"));
        assert_eq!(progress(&view, &run(&[], "", 6), NOW).hindrances.len(), 2);
    }

    #[test]
    fn ids_follow_from_the_caller_and_the_request() {
        let id = run_id("operator/local", "1");
        assert_eq!(id.len(), 36);
        assert_eq!(id, run_id("operator/local", "1"));
        assert_ne!(id, run_id("operator/local1", ""));
        assert_ne!(id, run_id("operator/other", "1"));
    }
}
