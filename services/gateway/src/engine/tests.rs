//! The loops over a registry in memory and servers that are simulated, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use lockstep_chassis::{drain::Drain, health::Health};
use lockstep_model::{
    Digest, Epoch, FilePath, Position, Reason, Revision, ServerId,
    clock::{SystemClock, SystemEntropy},
    record::{FileRecord, FileState, SERVER},
};
use lockstep_registry::{Commit, MemoryRegistry, Registry};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    domain::{
        cause::Cause,
        cell::CellState,
        filter::Filter,
        report::{HeldAhead, Part, Summary},
        run::{Ended, RunState},
        samples::{announcement, server_id},
        view::View,
    },
    engine::{
        self, Board, REGISTRY,
        runs::{RUNS_MAX, Runs, Start},
    },
    ports::{Address, Answered, Parts, Replicas, Reports},
};

/// Longer than anything here may take, in virtual time.
const LONG: Duration = Duration::from_secs(120);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    /// Catches up when asked.
    Willing,
    /// Never answers.
    Hanging,
    /// Cannot be reached.
    Gone,
}

#[derive(Clone, Debug, PartialEq)]
struct Asked {
    server: String,
    holders: Vec<String>,
    at: Instant,
}

type Stream = mpsc::Sender<Result<Part, Cause>>;

#[derive(Clone)]
struct Servers {
    registry: MemoryRegistry,
    moods: Arc<Mutex<BTreeMap<ServerId, Mood>>>,
    positions: Arc<Mutex<BTreeMap<ServerId, Position>>>,
    streams: Arc<Mutex<BTreeMap<ServerId, Stream>>>,
    asked: watch::Sender<Vec<Asked>>,
}

impl Servers {
    fn mood(&self, id: &ServerId) -> Mood {
        self.moods.lock().expect("not poisoned").get(id).copied().unwrap_or(Mood::Willing)
    }

    fn set(&self, id: &str, mood: Mood) {
        self.moods.lock().expect("not poisoned").insert(server_id(id), mood);
        if mood == Mood::Gone {
            self.streams.lock().expect("not poisoned").remove(&server_id(id));
        }
    }

    async fn say(&self, id: &str, position: Position, held_ahead: Vec<HeldAhead>) {
        let stream = self.streams.lock().expect("not poisoned").get(&server_id(id)).cloned();
        if let Some(stream) = stream {
            let _ = stream.send(Ok(part(position, held_ahead))).await;
        }
    }

    async fn asked(&self, enough: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        let mut asked = self.asked.subscribe();
        let wait = tokio::time::timeout(LONG, asked.wait_for(|asked| enough(asked))).await;
        wait.expect("asked in time").expect("the sender lives").clone()
    }
}

fn part(position: Position, held_ahead: Vec<HeldAhead>) -> Part {
    let end = Summary {
        position,
        conditions: Vec::new(),
        transfers: BTreeMap::new(),
        held_ahead,
        compared_age: Some(Duration::ZERO),
        hashed_age: None,
        stream_age: None,
    };
    let incarnation = "one".to_owned();
    Part { incarnation, snapshot: true, exceptions: Vec::new(), cleared: Vec::new(), end: Some(end) }
}

impl Reports for Servers {
    async fn watch(&self, server: &Address) -> Result<Parts, Cause> {
        if self.mood(&server.id) == Mood::Gone {
            return Err(Cause::new(Reason::PeerUnreachable, "connection refused"));
        }
        let (parts, receiver) = mpsc::channel(16);
        let position = self.positions.lock().expect("not poisoned").get(&server.id).copied();
        let position = position.unwrap_or_else(|| Position::start(epoch()));
        parts.try_send(Ok(part(position, Vec::new()))).expect("there is room");
        self.streams.lock().expect("not poisoned").insert(server.id.clone(), parts);
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed())
    }
}

impl Replicas for Servers {
    async fn reconcile(&self, server: &Address, holders: Vec<ServerId>) -> Result<Answered, Cause> {
        let holders = holders.into_iter().map(String::from).collect();
        let asked = Asked { server: server.id.to_string(), holders, at: Instant::now() };
        self.asked.send_modify(|all| all.push(asked));
        match self.mood(&server.id) {
            Mood::Hanging => std::future::pending().await,
            Mood::Gone => Err(Cause::new(Reason::PeerUnreachable, "connection refused")),
            Mood::Willing => {
                let head = self.registry.head().await.expect("the registry answers");
                self.positions.lock().expect("not poisoned").insert(server.id.clone(), head);
                self.say(server.id.as_str(), head, Vec::new()).await;
                Ok(Answered { position: head, exceptions: 0 })
            }
        }
    }

    async fn has_loose(&self, _: &Address, _: &FilePath) -> Result<bool, Cause> {
        Ok(false)
    }
}

fn epoch() -> Epoch {
    Epoch("0e37df36-f698-11e6-8dd4-cb9ced3df976".parse().expect("a UUID"))
}

struct World {
    registry: MemoryRegistry,
    servers: Servers,
    board: Board,
    health: Health,
    drain: Drain,
}

impl World {
    async fn new(servers: &[&str]) -> Self {
        let registry = MemoryRegistry::new(epoch());
        let servers_of = Servers {
            registry: registry.clone(),
            moods: Arc::default(),
            positions: Arc::default(),
            streams: Arc::default(),
            asked: watch::Sender::default(),
        };
        let world = Self {
            registry,
            servers: servers_of,
            board: Board::new(),
            health: Health::new(&[REGISTRY]),
            drain: Drain::new(),
        };
        for id in servers {
            let record =
                serde_json::to_string(&announcement("distributed", "12.04.100")).expect("serialises");
            world.put(&format!("{SERVER}{id}"), record, "").await;
        }
        let World { registry, servers, board, health, drain } = &world;
        engine::start(registry, servers.clone(), board, health, drain, SystemEntropy);
        world
    }

    async fn put(&self, key: &str, body: String, traceparent: &str) -> Revision {
        let puts = vec![(key.to_owned(), body)];
        let commit = Commit { puts, traceparent: traceparent.to_owned(), ..Commit::default() };
        self.registry.commit(commit).await.expect("commits").revision
    }

    async fn register(&self, path: &str) -> Revision {
        let record = FileRecord {
            file_id: "0e37df36-f698-11e6-8dd4-cb9ced3df976".parse().expect("an id"),
            digest: Digest::of(b""),
            md5: lockstep_model::Md5::from_bytes([0; 16]),
            size_bytes: 1,
            registered_time: Default::default(),
            origin: server_id("s1"),
            state: FileState::Active,
            placement: lockstep_model::record::Placement::All,
            registered_by: "operator/local 1".to_owned(),
            instead_of: None,
            moved_to: None,
            deleted_by: None,
            registered_revision: None,
        };
        self.put(&format!("file/{path}"), serde_json::to_string(&record).expect("serialises"), TRACE).await
    }

    async fn until(&self, holds: impl Fn(&View) -> bool) {
        let mut changes = self.board.changes();
        let wait = async {
            while !self.board.read(&holds) {
                changes.changed().await.expect("the board lives");
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("it becomes so in time");
    }

    /// The states of the row of `path`, in the order of the servers.
    fn states(&self, view: &View, path: &str) -> Vec<CellState> {
        let rows = view.list(&Filter::at(path), "", 1, self.board.now()).rows;
        rows.first().map_or_else(Vec::new, |row| row.cells.iter().map(|(_, cell)| cell.state).collect())
    }

    async fn all_in_sync(&self, path: &str) {
        self.until(|view| {
            let states = self.states(view, path);
            !states.is_empty() && states.iter().all(|state| *state == CellState::InSync)
        })
        .await;
    }

    async fn end(self) {
        self.drain.begin();
        tokio::time::timeout(LONG, self.drain.finished()).await.expect("every task ends");
        assert!(!self.drain.failed());
    }
}

/// R1, R20: what the registry says is at once asked of every server, with the trace of the registration.
#[tokio::test(start_paused = true)]
async fn a_registration_reaches_every_server_at_once() {
    let world = World::new(&["s1", "s2", "s3"]).await;
    world.until(|view| view.servers().filter(|(_, server)| server.reachable()).count() == 3).await;
    world.servers.asked(|asked| asked.len() >= 3).await;
    let before = Instant::now();
    let revision = world.register("os/base.img").await;
    world.all_in_sync("os/base.img").await;
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}", before.elapsed());
    let target = world.board.target().borrow().clone();
    assert_eq!((target.revision, target.traceparent.as_str()), (revision, TRACE));
    assert!(world.health.is_ready());
    world.end().await;
}

/// R20: what a server says it holds ahead is asked of the others before the registry was read, and names the holder.
#[tokio::test(start_paused = true)]
async fn what_one_server_holds_ahead_is_news_for_the_others() {
    let world = World::new(&["s1", "s2"]).await;
    world.servers.asked(|asked| asked.len() >= 2).await;
    world.until(|view| view.servers().all(|(_, server)| server.reachable())).await;
    let head = world.registry.head().await.expect("answers");
    let told = world.servers.asked.borrow().len();
    let (path, revision) = ("a".to_owned(), head.revision.next());
    let held = HeldAhead { path, revision, traceparent: TRACE.to_owned() };
    world.servers.say("s1", head, vec![held]).await;
    let asked = world.servers.asked(|asked| asked.iter().skip(told).any(|asked| asked.server == "s2")).await;
    let hinted = asked.iter().skip(told).find(|asked| asked.server == "s2").expect("asked");
    assert_eq!(hinted.holders, ["s1"]);
    world.end().await;
}

/// R23: a server that hangs delays no other, and is given up at its own deadline.
#[tokio::test(start_paused = true)]
async fn a_hanging_server_delays_no_other() {
    let world = World::new(&["s1", "s2", "s3"]).await;
    world.servers.set("s3", Mood::Hanging);
    world.until(|view| view.servers().all(|(_, server)| server.reachable())).await;
    world
        .servers
        .asked(|asked| ["s1", "s2", "s3"].iter().all(|id| asked.iter().any(|a| a.server == *id)))
        .await;
    let before = Instant::now();
    for name in 0..20 {
        world.register(&format!("{name}")).await;
    }
    world
        .until(|view| {
            let states = world.states(view, "19");
            matches!(states.as_slice(), [CellState::InSync, CellState::InSync, CellState::Pending])
        })
        .await;
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}", before.elapsed());
    world.servers.set("s3", Mood::Willing);
    world.all_in_sync("19").await;
    assert!(before.elapsed() < Duration::from_secs(12), "{:?}", before.elapsed());
    // One call at a time: the hanging one, and one after it for everything.
    assert!(world.servers.asked.borrow().iter().filter(|asked| asked.server == "s3").count() <= 3);
    world.end().await;
}

/// R13: one server alone is watched, but nothing is asked of it.
#[tokio::test(start_paused = true)]
async fn with_one_server_nothing_is_scheduled() {
    let world = World::new(&["s1"]).await;
    world.register("a").await;
    world.until(|view| world.states(view, "a") == [CellState::Pending]).await;
    tokio::time::sleep(LONG).await;
    assert!(world.servers.asked.borrow().is_empty());
    world.end().await;
}

/// R43: a server that vanishes is unreachable with what was known last, and catches up when it is back.
#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_catches_up_when_it_returns() {
    let world = World::new(&["s1", "s2"]).await;
    world.register("a").await;
    world.all_in_sync("a").await;
    world.servers.set("s2", Mood::Gone);
    world.until(|view| world.states(view, "a") == [CellState::InSync, CellState::Unreachable]).await;
    world.register("b").await;
    world.until(|view| world.states(view, "b") == [CellState::InSync, CellState::Unreachable]).await;
    let before = Instant::now();
    world.servers.set("s2", Mood::Willing);
    world.all_in_sync("b").await;
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
    world.end().await;
}

/// An outage of the registry is told by health, and over when it is over.
#[tokio::test(start_paused = true)]
async fn an_outage_of_the_registry_is_told_and_survived() {
    let world = World::new(&["s1", "s2"]).await;
    world.register("a").await;
    world.all_in_sync("a").await;
    world.registry.set_available(false);
    let lost = async {
        while world.health.is_ready() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, lost).await.expect("the outage is noticed");
    assert_eq!(world.board.read(|view| world.states(view, "a")), [CellState::InSync; 2]);
    world.registry.set_available(true);
    tokio::time::timeout(LONG, world.health.ready()).await.expect("the end of the outage is noticed");
    world.register("b").await;
    world.all_in_sync("b").await;
    world.end().await;
}

/// I5, I10: a server that follows another history than the registry is shown as unknown, with the reason.
#[tokio::test(start_paused = true)]
async fn a_server_with_another_history_is_told_apart() {
    let world = World::new(&["s1", "s2"]).await;
    let other = world.registry.fork();
    world.register("a").await;
    world.all_in_sync("a").await;
    let commit = Commit { puts: vec![("file/x".to_owned(), "{}".to_owned())], ..Commit::default() };
    let elsewhere = other.commit(commit).await.expect("commits").head;
    world.servers.set("s2", Mood::Hanging);
    world.servers.say("s2", elsewhere, Vec::new()).await;
    let forked = |view: &View| {
        let rows = view.list(&Filter::at("a"), "", 1, world.board.now()).rows;
        let cause = rows.first().and_then(|row| row.cells.get(1)).and_then(|(_, cell)| cell.cause.clone());
        cause.is_some_and(|cause| cause.is(Reason::HistoryForked))
    };
    world.until(forked).await;
    world.end().await;
}

fn runs_of(world: &World) -> Runs<MemoryRegistry, Servers, SystemClock> {
    Runs::new(world.registry.clone(), world.servers.clone(), world.board.clone(), SystemClock)
}

fn start_of(id: &str) -> Start {
    let (caller, path_prefix) = ("operator/local".to_owned(), String::new());
    Start { caller, request_id: id.parse().expect("an id"), path_prefix, server_ids: BTreeSet::new() }
}

/// R28: the last thousand runs are kept, latest first, and a repetition makes no new one.
#[tokio::test(start_paused = true)]
async fn the_last_thousand_runs_are_kept() {
    let world = World::new(&["s1"]).await;
    world.until(|view| view.position().is_some() && view.servers().all(|(_, s)| s.reachable())).await;
    let runs = runs_of(&world);
    let (first, ..) = runs.start(start_of("first")).await.expect("started");
    for number in 0..RUNS_MAX + 20 {
        runs.start(start_of(&format!("{number}"))).await.expect("started");
    }
    let (again, ..) = runs.start(start_of("7")).await.expect("started");
    let kept = runs.all().await.expect("read");
    assert_eq!(kept.len(), RUNS_MAX);
    assert!(kept.iter().zip(kept.iter().skip(1)).all(|(later, earlier)| later.number > earlier.number));
    assert!(!kept.contains(&first) && kept.first() == Some(&again), "7 was forgotten, and is a new one now");
    let (same, ..) = runs.start(start_of("1000")).await.expect("found");
    assert_eq!(runs.all().await.expect("read"), kept);
    assert!(kept.contains(&same));
    world.end().await;
}

/// R23, R28: a run asks all servers at once, each with its own deadline, and again while it is open; a server that hangs
/// delays no other, and a cancelled run asks nobody any more.
#[tokio::test(start_paused = true)]
async fn a_run_asks_all_at_once_and_again() {
    let world = World::new(&["s1", "s2", "s3"]).await;
    world.until(|view| view.position().is_some() && view.servers().all(|(_, s)| s.reachable())).await;
    world.register("a").await;
    world.all_in_sync("a").await;
    world.servers.set("s3", Mood::Hanging);
    let runs = runs_of(&world);
    engine::start_runs(runs.clone(), &world.drain);
    let before = Instant::now();
    let (run, _, answers) = runs.start(start_of("one")).await.expect("started");
    assert!(before.elapsed() <= Duration::from_secs(5), "{:?}", before.elapsed());
    let told: Vec<_> = answers.iter().map(|(id, answer)| (id.as_str(), answer.is_ok())).collect();
    assert_eq!(told, [("s1", true), ("s2", true), ("s3", false)]);
    // Everything is verified, so it ends by itself, although s3 did not answer.
    let ended = async {
        while runs.get(&run.run_id).await.is_ok_and(|(run, _)| run.ended.is_none()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(LONG, ended).await.expect("it ends");

    world.register("b").await;
    world
        .until(|view| world.states(view, "b").iter().filter(|s| **s == CellState::InSync).count() == 2)
        .await;
    let asked = |world: &World| world.servers.asked.borrow().iter().filter(|a| a.server == "s3").count();
    let (open, ..) = runs.start(start_of("two")).await.expect("started");
    let many = asked(&world);
    tokio::time::sleep(LONG).await;
    assert!(asked(&world) >= many + 3, "about twice a minute");
    runs.cancel(&open.run_id).await.expect("cancelled");
    world.servers.set("s3", Mood::Willing);
    world.all_in_sync("b").await;
    let (cancelled, progress) = runs.get(&open.run_id).await.expect("kept");
    assert_eq!((cancelled.ended, progress.state), (Some(Ended::Cancelled), RunState::Cancelled));
    world.end().await;
}
