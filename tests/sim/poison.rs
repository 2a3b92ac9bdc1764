//! One path at which a disk says no, for as long as it likes: that path is an exception, everything else goes on.

use std::time::Duration;

use filesync::{domain::exception::Missing, ports::Index as _};
use futures::FutureExt as _;
use lockstep_model::{FilePath, Reason};
use lockstep_proto::filesync::v1::File;
use lockstep_registry::Registry as _;

use crate::{
    mesh::{Mesh, Options},
    operator::New,
    seeds,
};

const SOON: Duration = Duration::from_secs(5);
const CYCLE: Duration = Duration::from_secs(30);
/// Long enough for several tries of what is refused.
const WHILE: Duration = Duration::from_secs(100);
const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn path(text: &str) -> FilePath {
    text.parse().expect("paths of tests are valid")
}

fn world(servers: usize) -> Mesh {
    seeds::show_log();
    Mesh::new(11, Options { servers, cycle: CYCLE, ..Options::default() })
}

pub(crate) fn register(mesh: &mut Mesh, server: &str, at: &str, content: &[u8]) -> File {
    let (servers, file) = ([server.to_owned()], New::at(at, content.to_vec()));
    let files = mesh.ask(MINUTE, async move |operator| operator.register(&servers, &[file]).await);
    files.unwrap_or_else(|failure| panic!("{at}: {failure}")).remove(0)
}

pub(crate) fn move_to(mesh: &mut Mesh, server: &str, file: &File, to: &str) -> File {
    let (servers, file, to) = ([server.to_owned()], file.clone(), to.to_owned());
    let moved = mesh.ask(MINUTE, async move |operator| operator.move_file(&servers, &file, &to).await);
    moved.unwrap_or_else(|failure| panic!("{failure}"))
}

pub(crate) fn delete(mesh: &mut Mesh, server: &str, file: &File) {
    let (servers, file) = ([server.to_owned()], file.clone());
    let deleted =
        mesh.ask(MINUTE, async move |operator| operator.delete(&servers, &file.path, file.revision).await);
    deleted.unwrap_or_else(|failure| panic!("{failure}"));
}

fn refuse(mesh: &Mesh, server: usize, at: &str, refuses: bool) {
    mesh.servers[server].store.inner.refuse(&path(at), refuses);
}

/// What a server remembers of a path, on its disk.
pub(crate) fn exception(mesh: &Mesh, server: usize, at: &str) -> Option<Missing> {
    let loaded = mesh.servers[server].index.inner.load().now_or_never().expect("in memory").expect("read");
    loaded.missing.into_iter().find(|missing| missing.wanted.path == path(at))
}

/// Waits until a server knows that this path is refused; answers how often it tried.
fn refused(mesh: &mut Mesh, server: usize, at: &str, is_left: bool) -> u32 {
    mesh.until(SOON, |mesh| {
        let known = exception(mesh, server, at).filter(|known| known.is_left == is_left);
        let why = known.and_then(|known| known.obstacle).map(|why| why.reason);
        (why != Some(Reason::DiskRefused)).then(|| format!("{at} is not told as refused, but {why:?}"))
    });
    exception(mesh, server, at).expect("just seen").failures
}

/// Everything else goes on: files come and go, and the position of the server moves past it all.
fn others_go_on(mesh: &mut Mesh, origin: &str, server: usize, times: usize) {
    for at in 0..times {
        let (name, content) = (format!("others/{at}"), mesh.chance.bytes(200));
        let file = register(mesh, origin, &name, &content);
        mesh.until(SOON, |mesh| (!mesh.has(server, &name, &content)).then(|| format!("{name} did not come")));
        delete(mesh, origin, &file);
        mesh.until(SOON, |mesh| {
            let is_there = mesh.published(server).iter().any(|(path, _)| *path == name);
            is_there.then(|| format!("{name} did not go"))
        });
    }
    mesh.until(SOON, |mesh| {
        let at = position(mesh, server);
        (at != mesh.judge.head().revision.0).then(|| format!("the position waits at {at}"))
    });
}

pub(crate) fn position(mesh: &Mesh, server: usize) -> u64 {
    let loaded = mesh.servers[server].index.inner.load().now_or_never().expect("in memory").expect("read");
    loaded.position.map_or(0, |position| position.revision.0)
}

pub(crate) fn settled(mesh: &mut Mesh) {
    mesh.converge(2 * CYCLE);
    mesh.judge.settle(&mesh.book.ledger()).expect("nothing acknowledged is lost");
    // What was displaced goes after the index knows what took its place.
    mesh.until(SOON, |mesh| mesh.judge.leftovers(&mesh.servers));
}

/// I3, I6, R26, R32: a deletion that the disk of one server refuses is told and tried again, ever less often and at most
/// once in a cycle; it holds up nobody, and is known after a restart. Then it is carried out.
#[test]
fn a_deletion_that_is_refused_holds_up_nobody() {
    let mut mesh = world(3);
    let file = register(&mut mesh, "s1", "poison/x", b"poison");
    mesh.converge(SOON);
    refuse(&mesh, 1, "poison/x", true);
    delete(&mut mesh, "s1", &file);
    refused(&mut mesh, 1, "poison/x", true);
    others_go_on(&mut mesh, "s1", 1, 5);
    mesh.pass(WHILE);
    let tries = exception(&mesh, 1, "poison/x").expect("it is there").failures;
    // 1 + 2 + 4 + 8 + 16 s, then the cycle; a hurry of the cycle may add as many as there were cycles.
    assert!((5..=14).contains(&tries), "{tries} tries in {WHILE:?}");
    assert!(mesh.has(1, "poison/x", b"poison") && !mesh.has(2, "poison/x", b"poison"));
    mesh.kill("s2");
    mesh.start("s2");
    mesh.pass(SOON);
    refused(&mut mesh, 1, "poison/x", true);
    others_go_on(&mut mesh, "s1", 1, 2);
    refuse(&mesh, 1, "poison/x", false);
    settled(&mut mesh);
}

/// I3, R37: while a deletion is refused on one server, the path may be taken again elsewhere; the deletion that is tried
/// again removes nothing of the newer file.
#[test]
fn a_deletion_that_is_tried_again_removes_nothing_newer() {
    let mut mesh = world(3);
    let file = register(&mut mesh, "s1", "poison/x", b"old");
    mesh.converge(SOON);
    refuse(&mesh, 1, "poison/x", true);
    delete(&mut mesh, "s1", &file);
    refused(&mut mesh, 1, "poison/x", true);
    let again = [New::at("poison/x", b"here".to_vec())];
    let told =
        mesh.ask(MINUTE, async move |operator| operator.try_register("s2", "here".into(), &again, 0).await);
    assert_eq!(told.expect_err("its disk refuses").reason, Reason::DiskRefused);
    register(&mut mesh, "s1", "poison/x", b"newer");
    refused(&mut mesh, 1, "poison/x", false);
    others_go_on(&mut mesh, "s1", 1, 2);
    assert!(mesh.has(2, "poison/x", b"newer"));
    refuse(&mesh, 1, "poison/x", false);
    settled(&mut mesh);
    assert!(mesh.has(1, "poison/x", b"newer"));
}

/// R32, R38: a move whose old path is stuck on one server: the file is there under its new name, brought by others; the old
/// one is told, and goes when it can.
#[test]
fn a_move_from_a_stuck_path_arrives_all_the_same() {
    let mut mesh = world(3);
    let file = register(&mut mesh, "s1", "poison/x", b"moving");
    mesh.converge(SOON);
    refuse(&mesh, 1, "poison/x", true);
    move_to(&mut mesh, "s3", &file, "y");
    refused(&mut mesh, 1, "poison/x", true);
    mesh.until(SOON, |mesh| (!mesh.has(1, "y", b"moving")).then(|| "y did not come".to_owned()));
    others_go_on(&mut mesh, "s1", 1, 2);
    refuse(&mesh, 1, "poison/x", false);
    settled(&mut mesh);
}

/// I1, R38: a move whose new path is stuck, on the only server there is: the bytes stay where they are, whatever else
/// happens, and get their new name when they can.
#[test]
fn a_move_to_a_stuck_path_loses_nothing() {
    let mut mesh = world(1);
    let file = register(&mut mesh, "s1", "x", b"moving");
    refuse(&mesh, 0, "poison/y", true);
    move_to(&mut mesh, "s1", &file, "poison/y");
    refused(&mut mesh, 0, "poison/y", false);
    refused(&mut mesh, 0, "x", true);
    others_go_on(&mut mesh, "s1", 0, 3);
    mesh.kill("s1");
    mesh.start("s1");
    mesh.pass(WHILE);
    assert!(mesh.has(0, "x", b"moving"), "the only bytes there are");
    refuse(&mesh, 0, "poison/y", false);
    settled(&mut mesh);
    assert!(mesh.has(0, "poison/y", b"moving"));
}

/// I1, R20, R23: a file that cannot get its name on its own origin is on all others, keeps nobody waiting, and gets its name
/// when it can.
#[test]
fn a_registration_that_cannot_be_published_holds_up_nobody() {
    let mut mesh = world(3);
    refuse(&mesh, 0, "poison/x", true);
    register(&mut mesh, "s1", "poison/x", b"registered");
    refused(&mut mesh, 0, "poison/x", false);
    mesh.until(SOON, |mesh| (!mesh.has(1, "poison/x", b"registered")).then(|| "it did not come".to_owned()));
    others_go_on(&mut mesh, "s1", 0, 3);
    mesh.cut_power("s1");
    mesh.start("s1");
    mesh.pass(SOON);
    refused(&mut mesh, 0, "poison/x", false);
    refuse(&mesh, 0, "poison/x", false);
    settled(&mut mesh);
    assert!(mesh.has(0, "poison/x", b"registered"));
}

/// I1: a file that could not be published yet moves, and its old path is taken again at once, all on the only server there
/// is: both have their bytes in the end.
#[test]
fn a_path_taken_again_before_its_file_was_published_loses_nothing() {
    for is_killed in [false, true] {
        let mut mesh = world(1);
        refuse(&mesh, 0, "x", true);
        let file = register(&mut mesh, "s1", "x", b"first");
        move_to(&mut mesh, "s1", &file, "y");
        refuse(&mesh, 0, "x", false);
        register(&mut mesh, "s1", "x", b"second");
        if is_killed {
            mesh.kill("s1");
            mesh.start("s1");
        }
        settled(&mut mesh);
        assert!(mesh.has(0, "y", b"first") && mesh.has(0, "x", b"second"), "killed: {is_killed}");
    }
}

/// R21, R23, R26: a copy that no server can give neither spins nor stops others; it is tried again ever less often, at most
/// once in a cycle, and comes when somebody gives it.
#[test]
fn a_copy_that_nobody_gives_neither_spins_nor_stops_others() {
    let mut mesh = world(3);
    register(&mut mesh, "s1", "first", b"everything has started");
    mesh.converge(SOON);
    mesh.cut("s2");
    mesh.cut("s3");
    let content = mesh.chance.bytes(5_000);
    register(&mut mesh, "s1", "poison/x", &content);
    mesh.kill("s1");
    mesh.reconnect("s2");
    mesh.reconnect("s3");
    mesh.until(MINUTE, |mesh| {
        let why = exception(mesh, 1, "poison/x").and_then(|known| known.obstacle);
        why.is_none().then(|| "nothing is told".to_owned())
    });
    others_go_on(&mut mesh, "s3", 1, 3);
    let before = exception(&mesh, 1, "poison/x").expect("it is there").failures;
    mesh.pass(WHILE);
    let tries = exception(&mesh, 1, "poison/x").expect("it is there").failures - before;
    assert!((2..=14).contains(&tries), "{tries} tries in {WHILE:?}");
    // Small ones do not wait for it, nor for a large one that comes.
    let (large, small) = (mesh.chance.bytes(3_000_000), mesh.chance.bytes(300));
    register(&mut mesh, "s3", "large", &large);
    register(&mut mesh, "s3", "small", &small);
    mesh.until(SOON, |mesh| (!mesh.has(1, "small", &small)).then(|| "small did not come".to_owned()));
    mesh.start("s1");
    settled(&mut mesh);
}

/// I1, R38: a server that was away so long that the changes are no longer kept follows a move from a listing, by a rename:
/// nobody else who could be asked has the bytes. That holds if the listing has the tombstone, and if it has not.
#[test]
fn a_move_that_is_only_listed_is_a_rename() {
    for is_forgotten in [false, true] {
        seeds::show_log();
        // So few that the old path and the new one are on different pages of the listing.
        let mut mesh =
            Mesh::new(11, Options { servers: 2, cycle: CYCLE, exceptions_max: 2, ..Options::default() });
        let file = register(&mut mesh, "s1", "a/x", b"moving");
        let mut others = vec![register(&mut mesh, "s1", "other", b"other")];
        mesh.converge(SOON);
        mesh.kill("s2");
        let forget = |mesh: &Mesh| {
            let (registry, head) = (mesh.servers[1].registry.inner.clone(), mesh.judge.head());
            // As if somebody had restored an old index of s2.
            for server in &mesh.servers {
                let acknowledged = registry.acknowledge(server.id.clone(), head).now_or_never();
                acknowledged.expect("in memory").expect("acknowledged");
            }
            let floor =
                registry.compact(head.revision).now_or_never().expect("in memory").expect("compacted");
            assert_eq!(floor, head.revision);
        };
        others.push(register(&mut mesh, "s1", "another", b"another"));
        mesh.pass(SOON);
        if !is_forgotten {
            forget(&mesh);
        }
        move_to(&mut mesh, "s1", &file, "z/x");
        mesh.pass(SOON);
        if is_forgotten {
            forget(&mesh);
        }
        mesh.cut("s1");
        mesh.start("s2");
        mesh.until(MINUTE, |mesh| (!mesh.has(1, "z/x", b"moving")).then(|| "it was not renamed".to_owned()));
        mesh.reconnect("s1");
        settled(&mut mesh);
    }
}
