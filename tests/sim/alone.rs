//! One thing goes wrong at a time, and what must not follow from it.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use filesync::ports::Tree as _;
use futures::FutureExt as _;
use lockstep_model::Reason;

use crate::{
    mesh::{Mesh, Options, SCRUB_EVERY},
    operator::New,
    seeds,
};

/// Enough for a start, a registration and its copies while nothing is wrong.
const SOON: Duration = Duration::from_secs(5);
/// Long enough for two tries of a copy, short of any cycle.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Everything is fetched after its registration.
pub(crate) const FETCHED: Options = Options {
    servers: 3,
    cycle: Duration::from_secs(300),
    gateway: true,
    traced: false,
    relay_bytes_min: u64::MAX,
    exceptions_max: filesync::EXCEPTIONS_MAX,
    scrub_every: SCRUB_EVERY,
};

/// A world in which everything has started.
pub(crate) fn started(options: Options) -> Mesh {
    seeds::show_log();
    let mut mesh = Mesh::new(7, options);
    mesh.ask(SOON, async move |operator| {
        let servers = ["s1".to_owned()];
        let file = New::at("first", Bytes::from_static(b"everything has started"));
        let door = if options.gateway { operator } else { operator.directly("s1") };
        door.register(&servers, &[file]).await.expect("nothing is wrong");
    });
    if options.gateway {
        mesh.converge(SOON);
    }
    mesh
}

/// Registers one file on one server; answers its revision.
pub(crate) fn register(mesh: &mut Mesh, server: &str, path: &str, content: &[u8]) -> i64 {
    let (servers, file) = ([server.to_owned()], New::at(path, content.to_vec()));
    let files = mesh.ask(MINUTE, async move |operator| operator.register(&servers, &[file]).await);
    files.expect("nothing keeps it from being registered")[0].revision
}

pub(crate) fn delete(mesh: &mut Mesh, server: &str, path: &str, revision: i64) {
    let (servers, path) = ([server.to_owned()], path.to_owned());
    let deleted = mesh.ask(MINUTE, async move |operator| operator.delete(&servers, &path, revision).await);
    deleted.expect("nothing keeps it from being deleted");
}

/// R20, R23: while the third server is cut off, slow or dead, what is registered on the first is on the second at once.
#[test]
fn a_server_that_is_slow_or_away_delays_no_other() {
    let faults: [fn(&mut Mesh); 4] = [
        |mesh| mesh.cut("s3"),
        |mesh| mesh.slow("s3", Duration::from_secs(4)),
        |mesh| mesh.cut_power("s3"),
        |mesh| mesh.servers[2].store.device.set_slowest(MINUTE),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let mut mesh = started(Options::default());
        fault(&mut mesh);
        for at in 0..10 {
            let (path, content) = (format!("{at}"), mesh.chance.bytes(300));
            register(&mut mesh, "s1", &path, &content);
            let missing = || format!("fault {number}: s2 has not {path}");
            mesh.until(Duration::from_secs(1), |mesh| (!mesh.has(1, &path, &content)).then(missing));
        }
        mesh.heal();
        mesh.converge(2 * MINUTE);
    }
}

/// R21, R24: where nobody gives notice, nothing arrives before the cycle, and everything at the cycle, by comparison
/// with the registry.
#[test]
fn without_notices_the_cycle_does_the_work() {
    let cycle = MINUTE;
    let mut mesh = started(Options { cycle, gateway: false, ..Options::default() });
    let contents: Vec<Vec<u8>> = (0..20).map(|_| mesh.chance.bytes(500)).collect();
    let files: Vec<New> =
        contents.iter().zip(0..).map(|(c, at)| New::at(format!("{at}"), c.clone())).collect();
    mesh.ask(SOON, async move |operator| {
        operator.directly("s1").register(&["s1".to_owned()], &files).await.expect("nothing is wrong");
    });
    let others_have = |mesh: &Mesh| (1..3).map(|server| mesh.published(server).len()).sum::<usize>();
    while mesh.elapsed() < cycle - Duration::from_secs(1) {
        mesh.step();
        assert_eq!(others_have(&mesh), 0, "after {:?}, before the cycle", mesh.elapsed());
    }
    mesh.converge(SOON);
    assert_eq!(others_have(&mesh), 2 * 21);
}

/// I3, R32, R33: a server that was away while files were deleted, and some paths taken again, removes them as soon as it
/// is back, and brings none of them back to the others.
#[test]
fn nothing_deleted_comes_back_with_a_server_that_was_away() {
    let faults: [fn(&mut Mesh); 2] = [|mesh| mesh.cut("s3"), |mesh| mesh.cut_power("s3")];
    for fault in faults {
        let mut mesh = started(Options::default());
        let mut revisions = Vec::new();
        for at in 0..12 {
            let content = mesh.chance.bytes(200);
            revisions.push(register(&mut mesh, "s3", &format!("dir/{at}"), &content));
        }
        mesh.converge(SOON);
        fault(&mut mesh);
        for (at, revision) in revisions.iter().enumerate().take(8) {
            delete(&mut mesh, "s1", &format!("dir/{at}"), *revision);
        }
        let again = mesh.chance.bytes(200);
        register(&mut mesh, "s2", "dir/0", &again);
        mesh.pass(Duration::from_secs(20));
        mesh.heal();
        // The cycle of five minutes has no part in this.
        mesh.converge(Duration::from_secs(20));
        assert_eq!(mesh.published(2).len(), 1 + 4 + 1);
        assert!(mesh.has(2, "dir/0", &again));
        mesh.pass(MINUTE);
        assert_eq!(mesh.judge.unequal(&mesh.servers), None);
    }
}

/// I1, I3: a path that is taken again on a server that has not followed its deletion yet keeps its bytes there, whatever
/// round runs meanwhile: nobody else has them.
#[test]
fn a_path_taken_again_before_its_deletion_was_followed_is_not_lost() {
    let mut mesh = started(Options { gateway: false, ..Options::default() });
    mesh.servers[2].registry.device.set_slowest(Duration::from_millis(150));
    for at in 0..25 {
        let path = format!("{at}");
        let (before, again) = (mesh.chance.bytes(100), mesh.chance.bytes(100));
        let taken = path.clone();
        mesh.ask(MINUTE, async move |operator| {
            let (servers, door) = (["s1".to_owned()], operator.directly("s1"));
            let files = door.register(&servers, &[New::at(taken.clone(), before)]).await.expect("it is free");
            door.delete(&servers, &taken, files[0].revision).await.expect("it is there");
        });
        let round = mesh.begin(async |operator| operator.directly("s3").reconcile("s3").await);
        mesh.ask(MINUTE, async move |operator| {
            let door = operator.directly("s3");
            door.register(&["s3".to_owned()], &[New::at(path, again)]).await.expect("it is free again");
        });
        mesh.until(MINUTE, |_| (!round.is_there()).then(|| "no answer".to_owned()));
    }
    for server in ["s1", "s2", "s3"] {
        let round = mesh.ask(MINUTE, async move |operator| operator.directly(server).reconcile(server).await);
        round.expect("nothing keeps it from a round");
    }
    mesh.converge(MINUTE);
    mesh.judge.settle(&mesh.book.ledger()).expect("nothing acknowledged is lost");
}

/// R63, R65: clocks that are stepped by hours and days, again and again, neither stop nor flood the cycle, delete
/// nothing and decide nothing.
#[test]
fn stepped_clocks_neither_stop_nor_flood_the_cycle() {
    let cycle = Duration::from_secs(10);
    let mut mesh = started(Options { cycle, gateway: false, ..Options::default() });
    mesh.converge(2 * cycle);
    let (before, begun) = ([0, 1, 2].map(|server| mesh.rounds(server)), mesh.elapsed());
    for step in [5 * 3_600, -26 * 3_600, 400 * 86_400, -800 * 86_400, 3_600, 86_400] {
        for (server, at) in mesh.servers.iter().zip(1..) {
            server.clock.step(step * at);
        }
        mesh.pass(2 * cycle);
    }
    let passed = mesh.elapsed() - begun;
    let cycles = passed.as_secs() / cycle.as_secs();
    for (server, before) in before.into_iter().enumerate() {
        let rounds = mesh.rounds(server) - before;
        assert!(
            (cycles - 1..=cycles + 1).contains(&rounds),
            "s{}: {rounds} rounds in {passed:?}",
            server + 1
        );
        assert_eq!(mesh.published(server).len(), 1);
    }
    // Order is the registry's, whatever the clocks say: the last registration of a path is the one that stands.
    for (server, text) in [("s3", "one"), ("s1", "two"), ("s2", "three")] {
        let (server, content) = (server.to_owned(), Bytes::from(text));
        mesh.servers[0].clock.step(-86_400);
        mesh.ask(MINUTE, async move |operator| {
            let door = operator.directly(&server);
            let servers = [server.clone()];
            let files =
                door.register(&servers, &[New::at("path", content.clone())]).await.expect("it is free");
            if &content[..] != b"three" {
                door.delete(&servers, "path", files[0].revision).await.expect("it is there");
            }
        });
    }
    mesh.converge(2 * cycle);
    assert!((0..3).all(|server| mesh.has(server, "path", b"three")));
}

/// Content of a size with a mark in it, again and again, so that a flip behind a mark hits content.
fn marked(mesh: &Mesh, size: usize) -> (Vec<u8>, Vec<u8>) {
    let (mark, mut content) = (mesh.chance.bytes(16), mesh.chance.bytes(size));
    for at in (50..size.saturating_sub(100)).step_by(9_000) {
        content[at..at + mark.len()].copy_from_slice(&mark);
    }
    (content, mark)
}

/// I2, I7: a bit that flips on its way between two servers is never published; the right bytes come another time.
#[test]
fn a_bit_that_flips_in_flight_is_never_published() {
    for size in [200, 60_000, 900_000, 2_500_000] {
        let mut mesh = started(FETCHED);
        let (content, mark) = marked(&mesh, size);
        mesh.servers[1].net.flip.behind(&mark);
        mesh.servers[2].net.flip.behind(&mark);
        register(&mut mesh, "s1", "os/base.img", &content);
        // The judge looks at every name after every step.
        mesh.converge(MINUTE);
        let flips = [1, 2].map(|server| mesh.servers[server].net.flip.count());
        assert_eq!(flips, [1, 1], "{size} bytes");
        assert!((0..3).all(|server| mesh.has(server, "os/base.img", &content)));
        assert_eq!(mesh.judge.leftovers(&mesh.servers), None);
    }
}

/// I2, I7: a bit that flips in the staging area of a receiver, between the last write and the name, is never published;
/// the right bytes are fetched again.
#[test]
fn a_bit_that_rots_in_staging_is_never_published() {
    let early = Options::default();
    for (size, staged, options) in [
        (200, "fetch-", FETCHED),
        (900_000, "fetch-", FETCHED),
        (2_500_000, "fetch-", FETCHED),
        (2_500_000, "early-", early),
    ] {
        let mut mesh = started(options);
        let content = mesh.chance.bytes(size);
        let armed =
            |mesh: &Mesh, server: usize| mesh.servers[server].store.rot.lock().expect("no panic").is_some();
        *mesh.servers[1].store.rot.lock().expect("no panic") = Some(staged);
        register(&mut mesh, "s1", "os/base.img", &content);
        mesh.converge(MINUTE);
        assert!(!armed(&mesh, 1), "nothing rotted");
        assert!((0..3).all(|server| mesh.has(server, "os/base.img", &content)));
        assert_eq!(mesh.judge.leftovers(&mesh.servers), None);
    }
}

/// I1, I2: a bit that flips in the staging area of the origin is found before the registration: it is refused with the
/// reason, nothing is registered, and the next try succeeds.
#[test]
fn a_bit_that_rots_before_the_registration_refuses_it() {
    for (size, staged) in [(200, "inline-"), (2_500_000, "upload-")] {
        let mut mesh = started(Options::default());
        let (content, head) = (mesh.chance.bytes(size), mesh.judge.head());
        *mesh.servers[0].store.rot.lock().expect("no panic") = Some(staged);
        let file = New::at("os/base.img", content.clone());
        let refused =
            mesh.ask(MINUTE, async move |operator| operator.register(&["s1".to_owned()], &[file]).await);
        let refused = refused.expect_err("its bytes are not the ones that were sent");
        assert_eq!(refused.reason, Reason::ContentDigestMismatch, "{refused}");
        assert_eq!(mesh.judge.head(), head);
        assert_eq!(mesh.judge.unequal(&mesh.servers), None);
        register(&mut mesh, "s1", "os/base.img", &content);
        mesh.converge(SOON);
        assert_eq!(mesh.judge.leftovers(&mesh.servers), None);
    }
}

/// I1, I5: while the registry cannot be reached nothing is registered and nothing is lost; what was asked for meanwhile
/// is done once, when it is back.
#[test]
fn an_outage_of_the_registry_loses_nothing_and_doubles_nothing() {
    let mut mesh = started(Options::default());
    let reachable = |mesh: &Mesh, is: bool| {
        for server in &mesh.servers {
            server.registry.reachable.store(is, Ordering::Relaxed);
        }
        mesh.gateway_registry.reachable.store(is, Ordering::Relaxed);
    };
    reachable(&mesh, false);
    let servers = mesh.from(0);
    let contents: Vec<Vec<u8>> = (0..6).map(|_| mesh.chance.bytes(400)).collect();
    let asked: Vec<_> = contents
        .iter()
        .zip(0..)
        .map(|(content, at)| {
            let (mut servers, file) = (servers.clone(), New::at(format!("{at}"), content.clone()));
            servers.rotate_left(at % 3);
            mesh.begin(async move |operator| operator.register(&servers, &[file]).await)
        })
        .collect();
    let head = mesh.judge.head();
    mesh.pass(Duration::from_secs(30));
    assert_eq!(mesh.judge.head(), head);
    reachable(&mesh, true);
    mesh.until(MINUTE, |_| asked.iter().any(|asked| !asked.is_there()).then(|| "no answer".to_owned()));
    for asked in asked {
        asked.take().expect("each path was free");
    }
    mesh.converge(MINUTE);
    mesh.judge.settle(&mesh.book.ledger()).expect("all of it, once");
    assert_eq!(mesh.judge.leftovers(&mesh.servers), None);
}

/// R44: while the disk refuses a look at one copy, nothing is said of all copies; the others are compared all the same.
#[test]
fn nothing_is_claimed_of_all_copies_where_one_cannot_be_looked_at() {
    let mut mesh = started(Options { servers: 1, ..Options::default() });
    register(&mut mesh, "s1", "blind", b"blind");
    register(&mut mesh, "s1", "seen", b"seen");
    let compared = |mesh: &mut Mesh| {
        let age = mesh.ask(MINUTE, async |operator| {
            let (mut age, door) = (None, operator.directly("s1"));
            let watched = door.watch_replicas(|report| age = age.take().or(report.compared_age));
            let _ = tokio::time::timeout(Duration::from_secs(1), watched).await;
            age
        });
        u64::try_from(age.expect("it walked").seconds).expect("an age")
    };
    mesh.pass(2 * MINUTE);
    assert!(compared(&mut mesh) < 60);
    let path = "blind".parse().expect("a path");
    mesh.servers[0].store.inner.blind(&path, true);
    mesh.pass(5 * MINUTE);
    assert!(compared(&mut mesh) >= 240, "it was not looked at for minutes");
    mesh.servers[0].store.inner.blind(&path, false);
    mesh.pass(2 * MINUTE);
    assert!(compared(&mut mesh) < 60);
}

/// R45, I2: what rots behind unchanged times is found by the scrub within its period, wherever in its turn it is, among
/// files that are small and one that is not; it is repaired from another server, and what rotted is kept aside.
#[test]
fn what_rots_is_found_within_the_period_of_the_scrub() {
    let scrub_every = 5 * MINUTE;
    let mut mesh = started(Options { scrub_every, ..Options::default() });
    let mut contents = Vec::new();
    for at in 0..30 {
        let size = if at == 11 { 3_000_000 } else { 40 * at + 1 };
        let (path, content) = (format!("dir/{at:02}"), mesh.chance.bytes(size));
        register(&mut mesh, &format!("s{}", at % 3 + 1), &path, &content);
        contents.push((path, content));
    }
    mesh.converge(MINUTE);
    // Somewhere in its turn; and the walk, which looks at times, has passed them all.
    mesh.pass(MINUTE + Duration::from_secs(20));
    let rotten = [0, 3, 11, 17, 28, 29];
    for at in rotten {
        mesh.rot(1, &contents[at].0);
    }
    mesh.pass(Duration::from_secs(1));
    let is_right = |mesh: &Mesh, at: usize| mesh.has(1, &contents[at].0, &contents[at].1);
    assert!(rotten.iter().any(|at| !is_right(&mesh, *at)), "nothing rotted");
    // Reading takes a moment, and so does the repair.
    let found = mesh.until(scrub_every + Duration::from_secs(10), |mesh| {
        rotten.iter().find(|at| !is_right(mesh, **at)).map(|at| format!("{at} is rotten"))
    });
    assert!(found > Duration::from_secs(10), "something else found it");
    mesh.converge(SOON);
    assert!((0..30).all(|at| is_right(&mesh, at)));
    let aside =
        mesh.servers[1].store.inner.aside().now_or_never().expect("a disk in memory").expect("listed");
    assert_eq!(aside.len(), rotten.len(), "what rotted is kept");
}
