//! What a database file survives when several processes have it open and some of them die.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use lockstep_model::{Chain, Epoch, Position, Revision};
use lockstep_registry::{
    Commit, Committed, Registry, RegistryError, Request, SqliteRegistry,
    chain::{self, Link},
    conformance,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What the other process does; in lines: the role, the file, and what the role needs.
const ROLE: &str = "REGISTRY_TEST_ROLE";

struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, path: &Path, argument: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a test has a file"));
        command.args(["--exact", "another_process", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, format!("{role}\n{}\n{argument}", path.display())).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start a process");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// The rest of the next line that holds `word`.
    fn says(&mut self, word: &str) -> String {
        let found = self
            .lines
            .by_ref()
            .map(|line| line.expect("text"))
            .find_map(|line| line.split_once(word).map(|(_, rest)| rest.trim().to_owned()));
        found.unwrap_or_else(|| panic!("the process ended without saying {word}"))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the process is ours");
    }

    fn succeeds(mut self) {
        assert!(self.child.wait().expect("wait").success());
    }

    fn ends_by_kill(mut self) {
        assert_eq!(self.child.wait().expect("wait").signal(), Some(Signal::SIGKILL as i32));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side of each test: the role is in the environment.
#[test]
#[ignore = "is started by the other tests as a process of its own"]
#[allow(clippy::print_stdout, reason = "how it tells the test where it is")]
fn another_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split('\n').collect();
    let registry = SqliteRegistry::open(Path::new(words[1])).expect("open");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let say = |text: &str| println!("\n{text}");
    match words[0] {
        "epoch" => say(&format!("epoch {}", runtime.block_on(registry.head()).expect("head").epoch)),
        "count" => runtime.block_on(count(&registry)),
        "tick" => {
            for _ in 0..6 {
                std::thread::sleep(Duration::from_millis(200));
                runtime.block_on(registry.commit(small())).expect("commit");
            }
        }
        "hold" => {
            let inside = move || {
                say("inside");
                std::thread::sleep(Duration::from_secs(60));
            };
            fail::cfg_callback("registry.commit.inside", inside).expect("a fail point");
            let _ = runtime.block_on(registry.commit(large()));
        }
        "die" => {
            let die = || kill(Pid::this(), Signal::SIGKILL).expect("kill");
            fail::cfg_callback(words[2], die).expect("a fail point");
            let _ = runtime.block_on(registry.commit(large()));
        }
        "churn" => loop {
            fail::cfg("registry.commit.inside", words[2]).expect("a fail point");
            let committed = runtime.block_on(registry.commit(small())).expect("commit");
            say(&format!("committed {}", committed.revision));
        },
        other => panic!("no role {other}"),
    }
}

const WRITERS: u64 = 8;
const EACH: u64 = 10;

async fn count(registry: &SqliteRegistry) {
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let registry = registry.clone();
        writers.spawn(async move {
            for _ in 0..EACH {
                conformance::count_up(&registry, "counter").await;
            }
        });
    }
    writers.join_all().await;
}

fn small() -> Commit {
    let deletes = vec![("gone".to_owned(), "{}".to_owned())];
    let puts = (0..3).map(|at| (format!("k{at}"), "{\"some\": \"body\"}".to_owned())).collect();
    Commit { puts, deletes, ..Commit::default() }
}

/// Larger than the cache of a connection, so that part of it is in the log of the database before it is committed.
fn large() -> Commit {
    let puts = (0..2_000).map(|at| (format!("large/{at:04}"), "x".repeat(4_000))).collect();
    let request = Request { caller: "me".to_owned(), id: "1".to_owned(), fingerprint: "f".to_owned() };
    Commit { puts, request: Some(request), ..Commit::default() }
}

struct File {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn file() -> File {
    let directory = tempfile::tempdir().expect("a temporary directory");
    File { path: directory.path().join("made/with it/../registry.sqlite"), _directory: directory }
}

fn open(path: &Path) -> SqliteRegistry {
    SqliteRegistry::open(path).expect("open")
}

fn refusal(result: Result<Committed, RegistryError>) -> String {
    match result {
        Err(RegistryError::Unavailable { cause }) => cause,
        other => panic!("expected Unavailable, got {other:?}"),
    }
}

/// Reads the file without the crate: the log has no gap, each chain follows from the one before, the records are what the
/// log makes of nothing. Returns the head.
fn check(path: &Path) -> Revision {
    type Row = (u64, String, bool, String);
    let database = rusqlite::Connection::open(path).expect("open");
    let rows = |sql: &str| -> Vec<Row> {
        let mut statement = database.prepare(sql).expect("a statement");
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?, row.get(2)?, row.get(3)?))
        };
        statement.query_map([], row).expect("rows").collect::<Result<_, _>>().expect("rows")
    };
    let (epoch, head, last): (String, i64, [u8; 32]) = database
        .query_row("SELECT epoch, revision, chain FROM meta", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .expect("one row");
    let mut at = Position::start(Epoch(epoch.parse().expect("a UUID")));
    let mut records = std::collections::BTreeMap::new();
    for transaction in rows("SELECT revision, key, deleted, body FROM log ORDER BY revision, key")
        .chunk_by(|a, b| a.0 == b.0)
    {
        let revision = at.revision.next();
        assert_eq!(transaction[0].0, revision.0, "a gap");
        let links = transaction.iter().map(|(_, key, deleted, body)| Link { key, deleted: *deleted, body });
        at = Position { revision, chain: chain::next(&at.chain, revision, links), ..at };
        let sql = "SELECT chain FROM revisions WHERE revision = ?1";
        let stored: [u8; 32] =
            database.query_row(sql, [revision.0.cast_signed()], |row| row.get(0)).expect("a chain");
        assert_eq!(Chain::from_bytes(stored), at.chain);
        records.extend(transaction.iter().map(|row| (row.1.clone(), row.clone())));
    }
    assert_eq!((at.revision.0.cast_signed(), *at.chain.as_bytes()), (head, last));
    let stored = rows("SELECT revision, key, deleted, body FROM records ORDER BY key");
    assert!(stored.iter().eq(records.values()), "the records are not what the log says");
    at.revision
}

/// Two that start on an empty directory at the same time agree on one epoch (I5).
#[test]
fn processes_that_start_together_make_one_registry() {
    let file = file();
    let mut processes: Vec<_> = (0..6).map(|_| Process::start("epoch", &file.path, "")).collect();
    let epochs: Vec<_> = processes.iter_mut().map(|process| process.says("epoch ")).collect();
    processes.into_iter().for_each(Process::succeeds);
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
    assert_eq!(check(&file.path), Revision::ZERO);
}

/// R37, R63, I4: 16 writers in two processes: no gap, no lost update.
#[tokio::test]
async fn writers_in_two_processes_lose_no_update() {
    let file = file();
    let registry = open(&file.path);
    let start = registry.head().await.expect("head");
    let processes = [(); 2].map(|()| Process::start("count", &file.path, ""));
    processes.into_iter().for_each(Process::succeeds);
    conformance::counted_to(&registry, start, "counter", 2 * WRITERS * EACH).await;
    assert_eq!(check(&file.path), Revision(2 * WRITERS * EACH));
}

/// R20: a commit of another process is noticed at once, not at the next poll.
#[tokio::test]
async fn a_commit_of_another_process_wakes_who_waits() {
    let file = file();
    let registry = open(&file.path);
    let ticker = Process::start("tick", &file.path, "");
    let (mut seen, started) = (vec![Revision::ZERO], Instant::now());
    while seen[seen.len() - 1] < Revision(6) {
        assert!(started.elapsed() < Duration::from_secs(20), "the other process ended");
        let head = registry.wait_past(seen[seen.len() - 1]).await.expect("head").revision;
        if head > seen[seen.len() - 1] {
            seen.push(head);
        }
    }
    ticker.succeeds();
    // Six commits within 1.2 s: by polling each second, three at most would be seen.
    assert!(seen.len() >= 6, "{seen:?}");
}

/// I11: whether the writer died before, inside or after its transaction, the repeated request is done exactly once.
#[tokio::test]
async fn a_writer_that_is_killed_leaves_all_or_nothing() {
    for (point, happened) in [("before", false), ("inside", false), ("after", true)] {
        let file = file();
        let registry = open(&file.path);
        registry.commit(small()).await.expect("commit");
        Process::start("die", &file.path, &format!("registry.commit.{point}")).ends_by_kill();
        assert_eq!(check(&file.path), Revision(1 + u64::from(happened)), "{point}");
        let started = Instant::now();
        let committed = registry.commit(large()).await.expect("nobody is blocked");
        assert!(started.elapsed() < Duration::from_secs(4), "{point}: blocked for {:?}", started.elapsed());
        assert_eq!((committed.revision, committed.replayed), (Revision(2), happened), "{point}");
        drop(registry);
        assert_eq!(check(&file.path), Revision(2), "{point}");
        assert_eq!(open(&file.path).head().await, Ok(committed.head), "{point}");
    }
}

/// I4, I5: killed at any moment, with others writing: the chain of the file is whole, and what was acknowledged is in it.
#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let file = file();
    let registry = open(&file.path);
    for round in 0..5 {
        let mut churner = Process::start("churn", &file.path, "off");
        let mut acknowledged = 0;
        for _ in 0..4 * round + 1 {
            acknowledged = churner.says("committed ").parse().expect("a revision");
            registry.commit(small()).await.expect("commit");
        }
        churner.signal(Signal::SIGKILL);
        churner.ends_by_kill();
        assert!(check(&file.path) >= Revision(acknowledged));
    }
    assert_eq!(registry.head().await.expect("head").revision, check(&file.path));
}

/// R37: a process that writes without a break, on a slow disk, leaves the lock for moments only. Another one still gets its turn.
#[tokio::test]
async fn a_writer_beside_one_that_never_rests_gets_its_turn() {
    let file = file();
    let registry = open(&file.path);
    let mut churner = Process::start("churn", &file.path, "sleep(40)");
    churner.says("committed ");
    for _ in 0..10 {
        registry.commit(small()).await.expect("its turn");
    }
    churner.signal(Signal::SIGKILL);
    churner.ends_by_kill();
    assert!(check(&file.path) > Revision(10));
}

/// A process that holds the write lock and does not run: the others say so within 5 s, name it, and can still read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_writer_is_named() {
    let file = file();
    let registry = open(&file.path);
    let before = registry.commit(small()).await.expect("commit").head;
    let mut frozen = Process::start("hold", &file.path, "");
    frozen.says("inside");
    frozen.signal(Signal::SIGSTOP);
    let started = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let registry = registry.clone();
        calls.spawn(async move { (registry.commit(small()).await, started.elapsed()) });
    }
    // Neither a reader nor a process that starts needs the lock.
    assert_eq!(registry.head().await, Ok(before));
    assert_eq!(open(&file.path).head().await, Ok(before));
    assert!(started.elapsed() < Duration::from_secs(2));
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|(_, after)| *after < Duration::from_millis(5500)), "{:?}", started.elapsed());
    let causes: Vec<String> = answers.into_iter().map(|(answer, _)| refusal(answer)).collect();
    let holder = format!("the database is locked by process {} (", frozen.child.id());
    let (named, refused): (Vec<_>, Vec<_>) = causes.iter().partition(|cause| cause.contains(&holder));
    assert!(named.len() >= 256, "{causes:?}");
    assert!(refused.iter().all(|cause| cause.contains("overloaded, 256 calls are waiting")), "{refused:?}");
    assert!(named.iter().all(|cause| cause.contains("registry.sqlite: ")), "the file is named: {}", named[0]);
    frozen.signal(Signal::SIGKILL);
    frozen.ends_by_kill();
    let revision = registry.commit(small()).await.expect("the lock died with its holder").revision;
    assert_eq!(revision, Revision(2), "the calls that were refused had no effect");
    assert_eq!(check(&file.path), Revision(2));
}
