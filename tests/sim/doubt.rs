//! A disk that refuses a look at a copy that was verified: what is told of it meanwhile, and what becomes of it.

use std::time::Duration;

use filesync::ports::Tree as _;
use futures::FutureExt as _;
use lockstep_model::Reason;
use lockstep_proto::gateway::v1::cell::State;

use crate::{
    alone::{FETCHED, MINUTE, delete, register, started},
    mesh::{Mesh, Options},
    operator::New,
};

/// The walk looks at every copy twice a minute.
const WALK: Duration = Duration::from_secs(45);
/// What is refused is tried again at least this often.
const OPTIONS: Options = Options { servers: 2, cycle: Duration::from_secs(20), ..FETCHED };
const REFUSED: (State, Reason) = (State::Failed, Reason::DiskRefused);

/// What is told of one copy, with the reason if there is one.
fn told(mesh: &mut Mesh, server: &str, path: &str) -> (State, String) {
    let rows = mesh.ask(MINUTE, async |operator| operator.rows().await).expect("told");
    let cells = rows.into_iter().find(|row| row.path == path).map(|row| row.cells).unwrap_or_default();
    let cell = cells.into_iter().find(|cell| cell.server_id == server).unwrap_or_default();
    (cell.state(), cell.failure.map(|failure| failure.reason).unwrap_or_default())
}

fn until_told(mesh: &mut Mesh, server: &str, path: &str, within: Duration, expected: (State, Reason)) {
    let reason = if expected.0 == State::InSync { "" } else { expected.1.as_str() };
    for _ in 0..within.as_secs() {
        if told(mesh, server, path) == (expected.0, reason.to_owned()) {
            return;
        }
        mesh.pass(Duration::from_secs(1));
    }
    panic!("within {within:?} {path} on {server} is {expected:?}, not {:?}", told(mesh, server, path));
}

fn in_sync(mesh: &mut Mesh, server: &str, path: &str, within: Duration) {
    until_told(mesh, server, path, within, (State::InSync, Reason::Internal));
}

/// R43, R44, H3: a copy that the disk refuses a look at is not told to be in sync for longer than a walk takes, whether it
/// cannot be looked at or not be read; it is told for what reason, and verified again when it can be read.
#[test]
fn a_copy_that_cannot_be_looked_at_is_not_in_sync() {
    let mut mesh = started(Options { scrub_every: Duration::from_secs(20), ..OPTIONS });
    for path in ["blind", "seen", "spoiled"] {
        register(&mut mesh, "s1", path, path.as_bytes());
    }
    mesh.converge(MINUTE);
    let (blind, spoiled) = ("blind".parse().expect("a path"), "spoiled".parse().expect("a path"));
    let store = mesh.servers[1].store.inner.clone();
    store.blind(&blind, true);
    until_told(&mut mesh, "s2", "blind", WALK, REFUSED);
    // Its times are as they were: only who reads it finds out.
    store.spoil(&spoiled, true);
    until_told(&mut mesh, "s2", "spoiled", MINUTE, REFUSED);
    // A restart forgets nothing of it.
    mesh.kill("s2");
    mesh.start("s2");
    until_told(&mut mesh, "s2", "blind", MINUTE, REFUSED);
    mesh.pass(WALK);
    assert_eq!(told(&mut mesh, "s2", "spoiled").0, State::Failed);
    in_sync(&mut mesh, "s2", "seen", WALK);
    in_sync(&mut mesh, "s1", "blind", WALK);
    store.blind(&blind, false);
    store.spoil(&spoiled, false);
    for path in ["blind", "spoiled"] {
        in_sync(&mut mesh, "s2", path, MINUTE);
        assert!(mesh.has(1, path, path.as_bytes()));
    }
    let aside = store.aside().now_or_never().expect("a disk in memory").expect("listed");
    assert!(aside.is_empty(), "nothing was replaced: {aside:?}");
    mesh.judge.settle(&mesh.book.ledger()).expect("as it was");
}

/// R31, R32, R38: a copy that cannot be looked at goes with its file, moves with it, and is replaced with it; bytes that
/// somebody changed meanwhile are drift, and are left alone.
#[test]
fn what_cannot_be_looked_at_follows_its_file() {
    let mut mesh = started(OPTIONS);
    register(&mut mesh, "s1", "changed", b"changed");
    let deleted = register(&mut mesh, "s1", "deleted", b"deleted");
    let servers = ["s1".to_owned()];
    let moved = mesh.ask(MINUTE, async |operator| {
        let servers = ["s1".to_owned()];
        operator.register(&servers, &[New::at("moved", b"moved".as_slice())]).await.expect("registered")
    });
    mesh.converge(MINUTE);
    let store = mesh.servers[1].store.inner.clone();
    for path in ["changed", "deleted", "moved"] {
        store.blind(&path.parse().expect("a path"), true);
        until_told(&mut mesh, "s2", path, WALK, REFUSED);
    }
    delete(&mut mesh, "s1", "deleted", deleted);
    let is_there = |mesh: &Mesh, path: &str| mesh.published(1).iter().any(|(known, _)| known == path);
    mesh.until(MINUTE, |mesh| is_there(mesh, "deleted").then(|| "it is there".to_owned()));
    let [moved] = moved.try_into().expect("one file");
    mesh.ask(MINUTE, async move |operator| operator.move_file(&servers, &moved, "new").await).expect("moved");
    in_sync(&mut mesh, "s2", "new", MINUTE);
    assert!(mesh.has(1, "new", b"moved"));
    let changed: lockstep_model::FilePath = "changed".parse().expect("a path");
    mesh.judge.excuse(1, changed.clone());
    store.put(&changed, b"somebody's");
    store.blind(&changed, false);
    until_told(&mut mesh, "s2", "changed", MINUTE, (State::Failed, Reason::Drifted));
    assert!(mesh.has(1, "changed", b"somebody's"), "nobody has decided");
}
