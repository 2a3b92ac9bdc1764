//! Tests of the rules together: the cell table, and that what is marked is what changed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lockstep_model::{Reason, Revision, ServerId};
use lockstep_replicas::Live as _;
use proptest::prelude::*;

use crate::domain::{
    Moment,
    cause::Cause,
    cell::{Asked, Cell, CellState, cell},
    cursor::Cursor,
    filter::Filter,
    records::{Change, Records},
    report::{Batch, Condition, Exception, HeldAhead, Progress, Summary, Transfer},
    samples::{announcement, position, registered, report_at, server_id, snapshot},
    server::{Reading, Server},
    summary::ServerState,
    view::{Expired, View},
};

fn exception(revision: u64, progress: Progress) -> Exception {
    // A try that failed earlier is still remembered while another one is under way.
    let cause = matches!(progress, Progress::Failed | Progress::Copying)
        .then(|| Cause::new(Reason::DiskFull, "too little room"));
    let (retry_delay, age) = (Some(Duration::from_secs(60)), Duration::from_secs(3));
    Exception { revision: Revision(revision), progress, cause, retry_delay, age }
}

fn held(path: &str, revision: u64) -> HeldAhead {
    HeldAhead { path: path.to_owned(), revision: Revision(revision), traceparent: String::new() }
}

/// A server that reported `batch`, to a gateway at revision 10.
fn reporting(batch: Batch) -> Server {
    let mut server = Server::new(announcement("distributed", "12.04.100"));
    server.receive(batch);
    server.settle(&Records::at(position(10)).history, None);
    server
}

/// The file `a`, registered at revision 5, for a server that should hold it.
fn asked() -> Asked<'static> {
    Asked { path: "a", revision: Revision(5), elsewhere: None }
}

/// The cell of the file `a`, registered at revision 5, ten seconds later.
fn shown(server: &Server) -> Cell {
    cell(server, asked(), Duration::from_secs(10))
}

fn with_exception(applied: u64, revision: u64, progress: Progress) -> Batch {
    let exceptions = BTreeMap::from([("a".to_owned(), Some(exception(revision, progress)))]);
    let transfer = Transfer { source: "s1".to_owned(), copied_bytes: 7, total_bytes: 9, bytes_per_second: 1 };
    let mut batch = Batch { exceptions, ..snapshot(at(applied)) };
    batch.summary.transfers.insert("a".to_owned(), transfer);
    batch
}

/// A report at a position that the gateway knows: 0 or 10, or one that the registry vouches for.
fn at(revision: u64) -> Summary {
    report_at(revision)
}

fn vouched(batch: Batch) -> Server {
    let mut server = Server::new(announcement("distributed", "12.04.100"));
    server.rule(batch.summary.position, None);
    server.receive(batch);
    server.settle(&Records::at(position(10)).history, None);
    server
}

/// R43, R44, I10: each state with the reason and the age that belong to it.
#[test]
fn a_cell_is_the_first_rule_that_applies() {
    let state = |server: &Server| {
        let cell = shown(server);
        (cell.state, cell.cause.map(|cause| cause.reason))
    };
    let why = |reason: Reason| Some(reason.as_str().to_owned());

    // 1: R14
    let old = Server::new(announcement("high-availability", "6.05.100"));
    assert_eq!(state(&old), (CellState::NotEligible, why(Reason::UnsupportedVersion)));
    let alone = Server::new(announcement("standalone", "12.04.100"));
    assert_eq!(state(&alone), (CellState::NotEligible, why(Reason::Standalone)));
    // 2
    let unseen = Server::new(announcement("distributed", "12.04.100"));
    assert_eq!(state(&unseen), (CellState::Unknown, why(Reason::PeerUnreachable)));
    // 3
    let mut lost = reporting(snapshot(at(10)));
    lost.lose(Cause::new(Reason::PeerUnreachable, "connection refused"));
    assert_eq!(state(&lost), (CellState::Unreachable, why(Reason::PeerUnreachable)));
    assert_eq!(shown(&lost).last_known, Some(CellState::InSync));
    assert_eq!(shown(&lost).age, Some(Duration::from_secs(10)));
    // 4
    let mut elsewhere = snapshot(at(10));
    elsewhere.summary.position.chain = position(9).chain;
    assert_eq!(state(&reporting(elsewhere)), (CellState::Unknown, why(Reason::HistoryForked)));
    for reason in [Reason::StoreOffline, Reason::HistoryForked] {
        let mut offline = snapshot(at(10));
        let cause = Cause::new(reason, "the root is not mounted");
        offline.summary.conditions.push(Condition { cause, age: Duration::ZERO });
        assert_eq!(state(&reporting(offline)), (CellState::Unknown, why(reason)));
    }
    let mut full = snapshot(at(10));
    full.summary
        .conditions
        .push(Condition { cause: Cause::new(Reason::DiskFull, "full"), age: Duration::ZERO });
    assert_eq!(state(&reporting(full)), (CellState::InSync, None));
    // 5
    let failed = reporting(with_exception(10, 5, Progress::Failed));
    assert_eq!(state(&failed), (CellState::Failed, why(Reason::DiskFull)));
    assert_eq!(shown(&failed).retry_delay, Some(Duration::from_secs(50)));
    let copying = reporting(with_exception(10, 5, Progress::Copying));
    assert_eq!((shown(&copying).state, shown(&copying).copied_bytes), (CellState::Copying, 7));
    assert_eq!(state(&reporting(with_exception(10, 5, Progress::Pending))), (CellState::Pending, None));
    let newer = reporting(with_exception(10, 7, Progress::Copying));
    assert_eq!(state(&newer), (CellState::Copying, None));
    let contradiction = reporting(with_exception(10, 3, Progress::Failed));
    assert_eq!(state(&contradiction), (CellState::Failed, why(Reason::DiskFull)));
    let outdated = vouched(with_exception(4, 3, Progress::Failed));
    assert_eq!(state(&outdated), (CellState::Pending, None));
    // 6
    let mut ahead = snapshot(at(4));
    ahead.summary.held_ahead.push(held("a", 5));
    assert_eq!(state(&vouched(ahead.clone())), (CellState::InSync, None));
    ahead.summary.held_ahead = vec![held("a", 4)];
    assert_eq!(state(&vouched(ahead)), (CellState::Pending, None));
    let mut replaced = snapshot(at(10));
    replaced.summary.held_ahead.push(held("a", 9));
    assert_eq!(state(&reporting(replaced)), (CellState::Pending, None));
    // 7
    let synced = reporting(snapshot(at(10)));
    assert_eq!(state(&synced), (CellState::InSync, None));
    assert_eq!(shown(&synced).age, Some(Duration::from_secs(110)));
    // 8
    assert_eq!(state(&vouched(snapshot(at(4)))), (CellState::Pending, None));
}

/// What a server as a whole may be, with what that makes of each of its cells; `None`: that depends on the file.
fn standings() -> Vec<(&'static str, Option<(CellState, Reason)>)> {
    vec![
        ("too old", Some((CellState::NotEligible, Reason::UnsupportedVersion))),
        ("alone", Some((CellState::NotEligible, Reason::Standalone))),
        ("never seen", Some((CellState::Unknown, Reason::PeerUnreachable))),
        ("lost", Some((CellState::Unreachable, Reason::PeerUnreachable))),
        ("stopped", Some((CellState::Unreachable, Reason::Draining))),
        ("another chain", Some((CellState::Unknown, Reason::HistoryForked))),
        ("says that it is forked", Some((CellState::Unknown, Reason::HistoryForked))),
        ("store offline", Some((CellState::Unknown, Reason::StoreOffline))),
        ("disk full", None),
        ("read only", None),
        ("well", None),
    ]
}

/// What a server may say of the file `a`, registered at revision 5: the exception, what it holds ahead, where it is.
type Said = (&'static str, Option<Exception>, Option<u64>, u64, (CellState, Option<String>));

fn said() -> Vec<Said> {
    let mut all: Vec<Said> = vec![
        ("applied", None, None, 10, (CellState::InSync, None)),
        ("exactly applied", None, None, 5, (CellState::InSync, None)),
        ("behind", None, None, 4, (CellState::Pending, None)),
        ("at the beginning", None, None, 0, (CellState::Pending, None)),
        ("held ahead", None, Some(5), 4, (CellState::InSync, None)),
        ("held ahead, older", None, Some(3), 0, (CellState::Pending, None)),
        ("held ahead, newer", None, Some(7), 10, (CellState::Pending, None)),
        ("about to come", Some(exception(5, Progress::Pending)), None, 10, (CellState::Pending, None)),
        ("on its way", Some(exception(5, Progress::Copying)), None, 10, (CellState::Copying, None)),
        (
            "a later version on its way",
            Some(exception(7, Progress::Copying)),
            None,
            10,
            (CellState::Copying, None),
        ),
        (
            "an exception that is over",
            Some(exception(3, Progress::Copying)),
            None,
            4,
            (CellState::Pending, None),
        ),
        ("a contradiction", Some(exception(3, Progress::Copying)), None, 10, (CellState::Copying, None)),
        (
            "missing and held ahead",
            Some(exception(5, Progress::Copying)),
            Some(5),
            10,
            (CellState::Copying, None),
        ),
    ];
    // Whatever reason a server gives is shown, known here or not.
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str()).chain(["FROM_A_NEWER_VERSION"]);
    all.extend(reasons.map(|reason| {
        let cause = Some(Cause::reported(reason, "so it says", "do something"));
        let failed = Exception { cause, ..exception(5, Progress::Failed) };
        ("failed", Some(failed), None, 10, (CellState::Failed, Some(reason.to_owned())))
    }));
    all
}

/// R43, R44, I10: the rule as a table: whatever a server as a whole is, with whatever it may say of a file. The first that
/// applies decides; of one that fell silent the rest of the rule is what was known last; the short form says the same.
#[test]
fn the_cell_rule_is_this_table() {
    for (standing, whole) in standings() {
        for (what, exception, ahead, applied, (state, reason)) in said() {
            let row = format!("{standing}, {what}");
            let record = match standing {
                "too old" => announcement("high-availability", "6.05.100"),
                "alone" => announcement("standalone", "12.04.100"),
                _ => announcement("distributed", "12.04.100"),
            };
            let mut server = Server::new(record);
            let exceptions = BTreeMap::from([("a".to_owned(), exception.clone())]);
            let mut batch = Batch { exceptions, ..snapshot(report_at(applied)) };
            batch.summary.held_ahead.extend(ahead.map(|revision| held("a", revision)));
            let condition = match standing {
                "says that it is forked" => Some(Reason::HistoryForked),
                "store offline" => Some(Reason::StoreOffline),
                "disk full" => Some(Reason::DiskFull),
                "read only" => Some(Reason::StoreReadOnly),
                _ => None,
            };
            batch.summary.conditions.extend(
                condition
                    .map(|reason| Condition { cause: Cause::new(reason, "so it is"), age: Duration::ZERO }),
            );
            if standing == "another chain" {
                batch.summary.position.chain = position(99).chain;
                let cause = Cause::new(Reason::HistoryForked, "the registry says so");
                server.rule(batch.summary.position, Some(cause));
            } else {
                server.rule(batch.summary.position, None);
            }
            if standing != "never seen" {
                server.receive(batch);
                server.settle(&Records::at(position(10)).history, None);
            }
            match standing {
                "lost" => drop(server.lose(Cause::new(Reason::PeerUnreachable, "connection refused"))),
                "stopped" => drop(server.lose(Cause::new(Reason::Draining, "it said goodbye"))),
                _ => {}
            }
            let cell = shown(&server);
            let (expected, why) = match whole {
                Some((state, reason)) => (state, Some(reason.as_str().to_owned())),
                None => (state, reason.clone()),
            };
            assert_eq!((cell.state, cell.cause.map(|cause| cause.reason)), (expected, why), "{row}");
            assert_eq!(crate::domain::cell::state(&server, asked()), expected, "{row}");
            let last = (expected == CellState::Unreachable).then_some(state);
            assert_eq!(cell.last_known, last, "{row}");
            // An age goes with what was verified and with who fell silent; a next try with what is missing.
            let has_age =
                expected == CellState::Unreachable || expected == CellState::InSync && ahead.is_none();
            assert_eq!(cell.age.is_some(), has_age, "{row}");
        }
    }
}

/// I10: what a server says is shown only when the gateway has read as far.
#[test]
fn a_report_waits_for_the_gateway_and_for_the_registry() {
    let mut history = Records::at(position(10)).history;
    let mut server = Server::new(announcement("distributed", "12.04.100"));
    server.receive(snapshot(at(11)));
    server.settle(&history, None);
    assert_eq!(shown(&server).state, CellState::Unknown);
    history.advance(position(11));
    server.settle(&history, None);
    assert_eq!(shown(&server).state, CellState::InSync);

    // Held at a revision that the gateway has not read: the bytes of revision 5 may be gone already.
    let mut ahead = snapshot(at(11));
    ahead.summary.held_ahead.push(held("a", 12));
    server.receive(ahead);
    server.settle(&history, None);
    assert!(server.report.as_ref().is_some_and(|report| report.held_ahead.is_empty()));

    // A position that is older than what the gateway remembers is judged by the registry.
    let mut server = Server::new(announcement("distributed", "12.04.100"));
    server.receive(snapshot(at(7)));
    server.settle(&history, None);
    assert_eq!(server.doubtful(&history), Some(position(7)));
    assert_eq!(shown(&server).state, CellState::Unknown);
    server.rule(position(7), Some(Cause::new(Reason::HistoryForked, "another history")));
    server.settle(&history, None);
    assert_eq!(shown(&server).cause.map(|cause| cause.reason).as_deref(), Some("HISTORY_FORKED"));
    assert_eq!(server.doubtful(&history), None);
}

/// I5: a server that speaks of revisions that a registry, read since, does not have follows another history.
#[test]
fn a_report_beyond_the_head_of_the_registry_is_a_fork() {
    let history = Records::at(position(10)).history;
    let mut server = Server::new(announcement("distributed", "12.04.100"));
    let received = Duration::from_secs(5);
    server.receive(Batch { received, ..snapshot(at(12)) });
    let reading = |began: u64| Some(Reading { began: Duration::from_secs(began), head: Revision(10) });
    server.settle(&history, reading(4));
    assert!(server.report.is_none());
    server.settle(&history, reading(6));
    assert_eq!(shown(&server).cause.map(|cause| cause.reason).as_deref(), Some("HISTORY_FORKED"));
}

const PATHS: [&str; 6] = ["a", "a/b", "b", "b/1", "b/2", "c"];

#[derive(Clone, Debug)]
enum Event {
    Register(usize),
    Delete(usize),
    Announce(usize, bool),
    Forget(usize),
    Report { server: usize, lag: u64, snapshot: bool, path: usize, kind: u8, held: Option<usize> },
    Lose(usize),
    Reload,
    Read,
    Watch,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let path = 0..PATHS.len();
    let server = 0..3_usize;
    let report =
        (server.clone(), 0..4_u64, any::<bool>(), path.clone(), 0..5_u8, prop::option::of(path.clone()));
    let report = report.prop_map(|(server, lag, snapshot, path, kind, held)| Event::Report {
        server,
        lag,
        snapshot,
        path,
        kind,
        held,
    });
    let event = prop_oneof![
        4 => path.clone().prop_map(Event::Register),
        2 => path.prop_map(Event::Delete),
        1 => (server.clone(), any::<bool>()).prop_map(|(server, eligible)| Event::Announce(server, eligible)),
        1 => server.clone().prop_map(Event::Forget),
        6 => report,
        3 => server.prop_map(Event::Lose),
        1 => Just(Event::Reload),
        3 => Just(Event::Read),
        8 => Just(Event::Watch),
    ];
    prop::collection::vec(event, 1..80)
}

/// All kinds of filters.
fn filters() -> impl Strategy<Value = Filter> {
    const STATES: [CellState; 7] = [
        CellState::NotEligible,
        CellState::Unknown,
        CellState::Unreachable,
        CellState::Pending,
        CellState::Copying,
        CellState::Failed,
        CellState::InSync,
    ];
    let places = prop_oneof![
        "(|a|b/)".prop_map(Filter::below),
        (0..PATHS.len()).prop_map(|path| Filter::at(PATHS[path])),
    ];
    let servers = prop::collection::btree_set((1..=3).prop_map(|n| server_id(&format!("s{n}"))), 0..3);
    let states = prop::collection::btree_set((0..7_usize).prop_map(|state| STATES[state]), 0..4);
    (places, servers, states).prop_map(|(place, servers, states)| place.of_servers(servers).in_states(states))
}

struct World {
    view: View,
    head: u64,
    now: Moment,
    copy: Records,
}

impl World {
    fn new() -> Self {
        let mut view = View::default();
        let copy = Records::at(position(0));
        view.adopt(copy.clone(), Moment::ZERO);
        let mut world = Self { view, head: 0, now: Moment::ZERO, copy };
        (0..3).for_each(|server| world.apply(&Event::Announce(server, true)));
        world
    }

    fn commit(&mut self, change: Change) {
        self.head += 1;
        let revision = Revision(self.head);
        self.copy.apply(revision, change.clone());
        self.copy.history.advance(position(self.head));
        self.view.advance(vec![(revision, change)], Vec::new(), position(self.head), self.now);
    }

    fn apply(&mut self, event: &Event) {
        self.now += Duration::from_secs(1);
        let id = |server: usize| server_id(["s1", "s2", "s3"][server]);
        match event {
            Event::Register(path) => self.commit(registered(PATHS[*path])),
            Event::Delete(path) => self.commit(Change::File(PATHS[*path].to_owned(), None)),
            Event::Announce(server, eligible) => {
                let mode = if *eligible { "distributed" } else { "standalone" };
                self.commit(Change::Server(id(*server), Some(Box::new(announcement(mode, "12.04.100")))));
            }
            Event::Forget(server) => self.commit(Change::Server(id(*server), None)),
            Event::Report { server, lag, snapshot, path, kind, held: ahead } => {
                // Up to one revision ahead of the gateway.
                let position = (self.head + 1).saturating_sub(*lag);
                let progress =
                    [Progress::Pending, Progress::Copying, Progress::Failed][usize::from(*kind) % 3];
                let exception = (*kind < 4).then(|| exception(position, progress));
                let mut summary = report_at(position);
                if *kind == 4 && *lag > 1 {
                    let cause = Cause::new(Reason::StoreOffline, "the root is not mounted");
                    summary.conditions.push(Condition { cause, age: Duration::ZERO });
                }
                if kind % 2 == 1 {
                    let (source, copied_bytes) = ("s1".to_owned(), self.now.as_secs());
                    let transfer = Transfer { source, copied_bytes, total_bytes: 99, bytes_per_second: 1 };
                    summary.transfers.extend(PATHS.map(|path| (path.to_owned(), transfer.clone())));
                }
                summary.held_ahead.extend(ahead.map(|path| held(PATHS[path], self.head)));
                let exceptions = BTreeMap::from([(PATHS[*path].to_owned(), exception)]);
                self.view.receive(
                    &id(*server),
                    Batch { snapshot: *snapshot, exceptions, summary, received: self.now },
                );
            }
            Event::Lose(server) => self.view.lose(&id(*server), Cause::new(Reason::PeerUnreachable, "gone")),
            Event::Reload => self.view.adopt(self.copy.clone(), self.now),
            Event::Read => self.view.read(Reading { began: self.now, head: Revision(self.head) }),
            Event::Watch => {}
        }
    }

    /// Everything, evaluated anew, without what changes merely because time passes.
    fn truth(&self, filter: &Filter) -> BTreeMap<Arc<str>, Timeless> {
        let page = self.view.list(filter, "", usize::MAX, self.now);
        assert_eq!(page.next, None);
        page.rows.into_iter().map(timeless).collect()
    }
}

type Timeless = (Revision, Vec<(ServerId, Cell)>);

fn timeless(row: crate::domain::view::Row) -> (Arc<str>, Timeless) {
    let cells = row.cells.into_iter().map(|(id, cell)| (id, cell.timeless())).collect();
    (row.path, (row.revision, cells))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// R41: whoever watches, from any moment, with any pauses and any filter, ends with exactly what is true.
    #[test]
    fn what_a_watcher_has_is_what_is_true(events in events(), filter in filters()) {
        let mut world = World::new();
        let mut watcher: Option<(Cursor, BTreeMap<Arc<str>, Timeless>)> = None;
        for event in events.iter().chain([&Event::Watch]) {
            world.apply(event);
            if !matches!(event, Event::Watch) {
                continue;
            }
            let (cursor, seen) = watcher.get_or_insert_with(|| (world.view.watch(), BTreeMap::new()));
            // A resumed stream goes on from the text of the cursor.
            *cursor = Cursor::parse(&cursor.to_text()).expect("a cursor");
            while cursor.walk.is_some() || cursor.changed.min(cursor.removed) < world.view.sequence() {
                let rows = world.view.next(cursor, &filter, world.now).expect("nothing is forgotten");
                seen.extend(rows.rows.into_iter().map(timeless));
                rows.removed.iter().for_each(|path| drop(seen.remove(path)));
            }
            prop_assert!(cursor.caught_up);
            prop_assert_eq!(&*seen, &world.truth(&filter));
        }
    }

    /// R44: the short form of a server counts what its cells show.
    #[test]
    fn summaries_count_what_the_cells_show(events in events()) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
            let rows = world.view.list(&Filter::default(), "", usize::MAX, world.now).rows;
            for summary in world.view.summaries("", usize::MAX, |_| None, world.now).0 {
                let in_sync = |cells: &[(ServerId, Cell)]| {
                    cells.iter().any(|(server, cell)| *server == summary.id && cell.state == CellState::InSync)
                };
                prop_assert_eq!(summary.in_sync_count, rows.iter().filter(|row| in_sync(&row.cells)).count());
                if summary.state != ServerState::Ready {
                    continue;
                }
                let cells = || rows.iter().filter_map(|row| {
                    let (_, cell) = row.cells.iter().find(|(server, _)| *server == summary.id)?;
                    Some((row, cell))
                });
                let count = |state| cells().filter(|(_, cell)| cell.state == state).count();
                let lack = &summary.lack;
                prop_assert_eq!(
                    (lack.pending, lack.copying, lack.failed),
                    (count(CellState::Pending), count(CellState::Copying), count(CellState::Failed))
                );
                let missing = || cells().filter(|(_, cell)| cell.state != CellState::InSync);
                let bytes: u64 = missing().map(|(row, cell)| row.size_bytes.saturating_sub(cell.copied_bytes)).sum();
                prop_assert_eq!(lack.remaining_bytes, bytes);
                let oldest = missing().map(|(row, _)| (row.revision, row.path.clone())).min();
                prop_assert_eq!(&lack.oldest, &oldest);
            }
        }
    }

    /// H1: pages with any filter are, put together, what all rows are that match, each looked at once.
    #[test]
    fn pages_are_what_matches(events in events(), filter in filters(), wanted in 1..4_usize) {
        let mut world = World::new();
        events.iter().for_each(|event| world.apply(event));
        let all = world.view.list(&Filter::default(), "", usize::MAX, world.now).rows;
        let (mut paged, mut after) = (Vec::new(), String::new());
        loop {
            let page = world.view.list(&filter, &after, wanted, world.now);
            prop_assert!(page.rows.len() <= wanted);
            paged.extend(page.rows);
            let Some(next) = page.next else { break };
            prop_assert!(*next > *after);
            after = next.to_string();
        }
        let expected: Vec<_> = all.into_iter().filter(|row| filter.names(&row.path)).map(|mut row| {
            row.cells.retain(|(server, _)| filter.shows(server));
            row
        }).filter(|row| !filter.is_by_state() || row.cells.iter().any(|(_, cell)| filter.admits(cell.state))).collect();
        prop_assert_eq!(paged, expected);
    }
}

#[test]
fn a_watcher_that_is_far_behind_walks_again_and_misses_nothing() {
    let mut world = World::new();
    let total = 12_000;
    let register = |world: &mut World, name: usize| world.commit(registered(&format!("{name:06}")));
    (0..total).for_each(|name| register(&mut world, name));
    let mut cursor = world.view.watch();
    let mut seen = BTreeMap::new();
    let mut told = |world: &World, cursor: &mut Cursor| {
        let rows = world.view.next(cursor, &Filter::default(), world.now).expect("no removal is forgotten");
        seen.extend(rows.rows.into_iter().map(timeless));
        seen.len()
    };
    assert_eq!(told(&world, &mut cursor), 500);
    // Overtaken in the middle of the walk: what was given already is given once more, after the rest.
    (0..total).for_each(|name| register(&mut world, name));
    let mut messages = 1;
    while cursor.walk.is_some() || cursor.changed < world.view.sequence() {
        told(&world, &mut cursor);
        messages += 1;
        assert!(messages < 100, "the walk ends");
    }
    assert!(cursor.caught_up);
    assert_eq!(
        seen,
        (0..total).step_by(500).fold(BTreeMap::new(), |mut all, name| {
            let after = name.checked_sub(1).map_or_else(String::new, |name| format!("{name:06}"));
            all.extend(
                world.view.list(&Filter::default(), &after, 500, world.now).rows.into_iter().map(timeless),
            );
            all
        })
    );
}

/// R41: a server that vanishes and returns while a reader is still being told of it costs the reader each row once more, and not
/// twice: what flipped back before it was sent is only told as it is now.
#[test]
fn rows_that_flip_back_are_told_once() {
    let mut world = World::new();
    let total = 12_000;
    (0..total).for_each(|name| world.commit(registered(&format!("{name:06}"))));
    let s1 = server_id("s1");
    let receive = |world: &mut World| {
        let batch = Batch { received: world.now, ..snapshot(report_at(world.head)) };
        world.view.receive(&s1, batch);
    };
    receive(&mut world);
    let mut cursor = world.view.watch();
    let mut told = BTreeMap::new();
    let mut next = |world: &World, cursor: &mut Cursor| {
        let rows = world.view.next(cursor, &Filter::default(), world.now).expect("nothing was removed").rows;
        let states = rows.iter().map(|row| (row.path.clone(), row.cells[0].1.state));
        told.extend(states.clone());
        (rows.len(), states.filter(|(_, state)| *state == CellState::Unreachable).count())
    };
    let is_behind =
        |world: &World, cursor: &Cursor| cursor.walk.is_some() || cursor.changed < world.view.sequence();
    while is_behind(&world, &cursor) {
        next(&world, &mut cursor);
    }
    world.view.lose(&s1, Cause::new(Reason::PeerUnreachable, "gone"));
    for _ in 0..4 {
        assert_eq!(next(&world, &mut cursor), (500, 500));
    }
    receive(&mut world);
    let mut again = 0;
    while is_behind(&world, &cursor) {
        let (rows, unreachable) = next(&world, &mut cursor);
        assert_eq!(unreachable, 0, "it is back");
        again += rows;
    }
    assert!((total..total + 1_000).contains(&again), "{again} rows");
    assert!(told.len() == total && told.values().all(|state| *state == CellState::InSync));
}

#[test]
fn a_watcher_that_missed_forgotten_removals_starts_over() {
    let mut world = World::new();
    for name in 0..10_001 {
        world.commit(registered(&format!("{name}")));
    }
    let mut cursor = world.view.watch();
    for name in 0..10_001 {
        world.commit(Change::File(format!("{name}"), None));
    }
    assert_eq!(world.view.next(&mut cursor, &Filter::default(), world.now).map(|_| ()), Err(Expired));
    let mut from_another_life = Cursor { changed: u64::MAX, ..world.view.watch() };
    assert_eq!(
        world.view.next(&mut from_another_life, &Filter::default(), world.now).map(|_| ()),
        Err(Expired)
    );
}

/// H1: among many rows of which few match, a page ends after so many rows that were looked at, and goes on behind them;
/// where only what servers named can match, nothing else is looked at.
#[test]
fn a_page_of_few_matches_is_bounded() {
    let mut world = World::new();
    let total = 50_000;
    (0..total).for_each(|name| world.commit(registered(&format!("{name:06}"))));
    let report = |world: &mut World, server: &str| {
        let received = world.now;
        let exceptions = BTreeMap::from([("040000".to_owned(), Some(exception(40_004, Progress::Failed)))]);
        let batch = Batch { exceptions, received, ..snapshot(report_at(world.head)) };
        world.view.receive(&server_id(server), batch);
    };
    report(&mut world, "s1");
    let failed = Filter::default().in_states([CellState::Failed].into());
    let of_s1 = failed.clone().of_servers([server_id("s1")].into());
    // Nothing was heard of the other two, so none of their cells failed either.
    for filter in [&of_s1, &failed] {
        let page = world.view.list(filter, "", 50, world.now);
        assert_eq!((page.rows.len(), page.next), (1, None));
    }
    // Whatever is unknown is so on every row.
    let unknown =
        Filter::default().in_states([CellState::Unknown].into()).of_servers(of_s1.servers().clone());
    let none = world.view.list(&unknown, "", 50, world.now);
    assert_eq!((none.rows.len(), none.next), (0, None));
    // What is behind may be anything: a server at the beginning has all rows pending, one by one.
    report(&mut world, "s2");
    let behind = Batch { received: world.now, ..snapshot(report_at(0)) };
    world.view.receive(&server_id("s3"), behind);
    let (mut pages, mut found, mut after) = (0, 0, String::new());
    loop {
        let page = world.view.list(&failed, &after, 50, world.now);
        (pages, found) = (pages + 1, found + page.rows.len());
        let Some(next) = page.next else { break };
        after = next.to_string();
    }
    assert_eq!((pages, found), (3, 1), "20,000 rows are looked at for a page");
}

/// R43: the oldest change that is not there has the age of the reading that brought it.
#[test]
fn the_oldest_missing_change_has_its_age() {
    let mut world = World::new();
    world.now = Duration::from_secs(100);
    world.commit(registered("a"));
    world.now = Duration::from_secs(130);
    world.commit(registered("b"));
    let at = world.head - 2;
    world.view.receive(&server_id("s1"), Batch { received: world.now, ..snapshot(report_at(at)) });
    world.now = Duration::from_secs(150);
    let (summaries, _) = world.view.summaries("", 1, |_| None, world.now);
    let (path, revision, age) = summaries.first().and_then(|s| s.oldest.clone()).expect("it lacks two");
    assert_eq!((&*path, revision.0, age), ("a", world.head - 1, Duration::from_secs(50)));
}

/// R17: whoever was not heard for a day is shown as one that may be gone for good, and slows nobody.
#[test]
fn a_server_that_is_silent_for_a_day_is_an_orphan_candidate() {
    let mut world = World::new();
    world.view.receive(&server_id("s1"), snapshot(report_at(world.head)));
    let orphans = |world: &World, hours: u64| {
        let (summaries, _) = world.view.summaries("", 9, |_| None, Duration::from_secs(hours * 3_600 + 60));
        let orphans = summaries.iter().filter(|summary| summary.is_orphan_candidate);
        orphans.map(|summary| summary.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(orphans(&world, 23), Vec::<String>::new());
    assert_eq!(orphans(&world, 24), ["s2", "s3"]);
    world.view.lose(&server_id("s1"), Cause::new(Reason::PeerUnreachable, "gone"));
    assert_eq!(orphans(&world, 25), ["s1", "s2", "s3"]);
}

/// R41: a server that stays away in ever other words changes no row more than once: nobody is given everything again.
#[test]
fn a_server_that_stays_away_changes_nothing_again() {
    let mut world = World::new();
    let mut lose = |reason, words: &str| {
        world.view.lose(&server_id("s1"), Cause::new(reason, words));
        let words = world.view.server(&server_id("s1")).map(|server| server.silence.message.clone());
        (world.view.sequence(), words.unwrap_or_default())
    };
    let (first, words) = lose(Reason::PeerUnreachable, "connection refused");
    assert_eq!(words, "connection refused");
    assert_eq!(lose(Reason::PeerUnreachable, "no connection within 3 s"), (first, words));
    let (later, words) = lose(Reason::Draining, "it says goodbye");
    assert!(later > first && words == "it says goodbye");
}
