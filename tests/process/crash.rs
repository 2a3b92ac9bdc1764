//! kill -9 at every fail point: before and after each step of register, replace, move, fetch and delete, in every kind of
//! process.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lockstep_proto::filesync::v1::{
    GetFileRequest, InPlace, MoveFileRequest, NewFile, RegisterFileRequest, UpdateFileVersionRequest,
    WatchReplicasRequest, new_file::Source,
};
use lockstep_tests::harness::{
    Installation, Ledger, Monitor, Options, addressed, content, registration, wait,
};
use nix::sys::signal::Signal;
use tonic::Code;

/// A small file.
const SMALL: usize = 3_000;
/// Above 1 MiB: it arrives at its origin by an upload, and at the others as a large file.
const LARGE: usize = 3 << 20;
/// Above 128 MiB: its progress is journaled on the way.
const JOURNALED: usize = 130 << 20;
/// For one step to have its effect, on a machine that does other things too.
const STEP_MAX: Duration = Duration::from_secs(30);

/// What is done while a point is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// One call registers a small file on s1.
    Register,
    /// The command line registers a file of this size on s1.
    Upload(usize),
    /// The same, while the child is away, so that the bytes do not arrive early: it fetches them at its start.
    Missed(usize),
    /// A file that is everywhere is replaced on s1, while its bytes are read on every server.
    Replace,
    /// A file that is everywhere gets another path on s1, while its bytes are read on every server.
    Move,
    /// A file that is everywhere is deleted on s1.
    Delete,
    /// A small file that lies on s1 is registered there.
    InPlace,
    /// A file that is everywhere was changed on the disk of s1, and is updated to that.
    Update,
}

/// One death.
struct Case {
    point: &'static str,
    child: &'static str,
    work: Work,
    /// It dies at the nth time.
    nth: u32,
}

const fn case(point: &'static str, child: &'static str, work: Work) -> Case {
    Case { point, child, work, nth: 1 }
}

const S1: &str = "s1.filesync";
const S2: &str = "s2.filesync";

/// The origin of a registration and of a deletion, and the registry below it.
const AT_THE_ORIGIN: &[Case] = &[
    case("filesync.register.staged", S1, Work::Register),
    case("filesync.register.intended", S1, Work::Register),
    case("registry.commit.before", S1, Work::Register),
    case("registry.commit.inside", S1, Work::Register),
    case("registry.commit.after", S1, Work::Register),
    case("filesync.register.committed", S1, Work::Register),
    case("filesync.register.published", S1, Work::Register),
    case("filesync.register.held", S1, Work::Register),
    case("filesync.register.staged", S1, Work::Replace),
    case("filesync.register.intended", S1, Work::Replace),
    case("registry.commit.before", S1, Work::Replace),
    case("registry.commit.inside", S1, Work::Replace),
    case("registry.commit.after", S1, Work::Replace),
    case("filesync.register.committed", S1, Work::Replace),
    case("filesync.exchange.intended", S1, Work::Replace),
    case("filesync.register.published", S1, Work::Replace),
    case("filesync.register.held", S1, Work::Replace),
    case("filesync.exchange.settled", S1, Work::Replace),
    case("registry.commit.before", S1, Work::Move),
    case("registry.commit.inside", S1, Work::Move),
    case("registry.commit.after", S1, Work::Move),
    case("filesync.move.committed", S1, Work::Move),
    case("filesync.move.intended", S1, Work::Move),
    case("filesync.move.renamed", S1, Work::Move),
    case("filesync.move.held", S1, Work::Move),
    case("filesync.upload.journaled", S1, Work::Upload(JOURNALED)),
    case("filesync.upload.synced", S1, Work::Upload(LARGE)),
    case("filesync.register.staged", S1, Work::Upload(LARGE)),
    case("filesync.register.intended", S1, Work::Upload(LARGE)),
    case("filesync.register.committed", S1, Work::Upload(LARGE)),
    case("filesync.register.published", S1, Work::Upload(LARGE)),
    case("filesync.register.held", S1, Work::Upload(LARGE)),
    case("filesync.in_place.hashed", S1, Work::InPlace),
    case("filesync.in_place.intended", S1, Work::InPlace),
    case("registry.commit.before", S1, Work::InPlace),
    case("registry.commit.inside", S1, Work::InPlace),
    case("registry.commit.after", S1, Work::InPlace),
    case("filesync.in_place.committed", S1, Work::InPlace),
    case("filesync.in_place.held", S1, Work::InPlace),
    case("filesync.update.intended", S1, Work::Update),
    case("registry.commit.before", S1, Work::Update),
    case("registry.commit.after", S1, Work::Update),
    case("filesync.update.committed", S1, Work::Update),
    case("filesync.in_place.held", S1, Work::Update),
    case("registry.commit.before", S1, Work::Delete),
    case("registry.commit.inside", S1, Work::Delete),
    case("registry.commit.after", S1, Work::Delete),
    case("filesync.delete.committed", S1, Work::Delete),
    case("filesync.delete.intended", S1, Work::Delete),
    case("filesync.delete.withdrawn", S1, Work::Delete),
    case("filesync.delete.released", S1, Work::Delete),
    case("filesync.delete.unlinked", S1, Work::Delete),
];

/// Everybody else.
const ELSEWHERE: &[Case] = &[
    case("filesync.fetch.written", S2, Work::Register),
    case("filesync.fetch.staged", S2, Work::Register),
    case("filesync.fetch.published", S2, Work::Register),
    case("filesync.fetch.held", S2, Work::Register),
    // The first round of a life comes with its start.
    Case { point: "filesync.reconcile.recorded", child: S2, work: Work::Register, nth: 2 },
    case("filesync.fetch.written", S2, Work::Upload(LARGE)),
    case("filesync.fetch.staged", S2, Work::Upload(LARGE)),
    case("filesync.fetch.published", S2, Work::Upload(LARGE)),
    case("filesync.fetch.held", S2, Work::Upload(LARGE)),
    case("filesync.fetch.journaled", S2, Work::Missed(JOURNALED)),
    case("filesync.fetch.written", S2, Work::Replace),
    case("filesync.fetch.staged", S2, Work::Replace),
    case("filesync.exchange.intended", S2, Work::Replace),
    case("filesync.fetch.published", S2, Work::Replace),
    case("filesync.fetch.held", S2, Work::Replace),
    case("filesync.exchange.settled", S2, Work::Replace),
    case("filesync.move.intended", S2, Work::Move),
    case("filesync.move.renamed", S2, Work::Move),
    case("filesync.move.held", S2, Work::Move),
    Case { point: "filesync.reconcile.recorded", child: S2, work: Work::Move, nth: 2 },
    case("gateway.fanout.before", "gateway", Work::Replace),
    case("gateway.fanout.after", "gateway", Work::Move),
    case("filesync.delete.intended", S2, Work::Delete),
    case("filesync.delete.withdrawn", S2, Work::Delete),
    case("filesync.delete.released", S2, Work::Delete),
    case("filesync.delete.unlinked", S2, Work::Delete),
    Case { point: "filesync.reconcile.recorded", child: S2, work: Work::Delete, nth: 2 },
    case("gateway.fanout.before", "gateway", Work::Register),
    case("gateway.fanout.after", "gateway", Work::Register),
    case("gateway.fanout.before", "gateway", Work::Delete),
    case("gateway.fanout.after", "gateway", Work::Delete),
];

/// I1, I2, I3, I4, I5, I6, I7, I10, I11, R29, R33, R38: whichever process is killed at whichever step, the repeated request has one
/// answer, every server ends with the registered bytes and nothing else, the matrix was right all the time, and whoever read a
/// file that was replaced or moved meanwhile saw the old bytes or the new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_crash_point_recovers() {
    let tested: BTreeSet<&str> = AT_THE_ORIGIN.iter().chain(ELSEWHERE).map(|case| case.point).collect();
    let marked = marked();
    // Those of the catalog have cases of their own, beside its tests.
    let untested: Vec<&String> = marked
        .iter()
        .filter(|point| !tested.contains(point.as_str()) && !point.starts_with("catalog."))
        .collect();
    assert!(untested.is_empty(), "no case for these points: {untested:?}");

    let origin = tokio::spawn(die(AT_THE_ORIGIN));
    let elsewhere = tokio::spawn(die(ELSEWHERE));
    let (origin, elsewhere) = (origin.await.expect("no panic"), elsewhere.await.expect("no panic"));
    let mut hits: BTreeMap<String, usize> = BTreeMap::new();
    origin.into_iter().chain(elsewhere).for_each(|point| *hits.entry(point).or_default() += 1);
    for (point, count) in &hits {
        eprintln!("{count:>4} hits  {point}");
    }
    let missed: Vec<&str> = tested.into_iter().filter(|point| !hits.contains_key(*point)).collect();
    assert!(missed.is_empty(), "never hit: {missed:?}");
}

/// Dies once for each case, in one installation; answers every hit of an armed point.
async fn die(cases: &'static [Case]) -> Vec<String> {
    let installation = Installation::start(Options::every("1h")).await;
    let monitor = Monitor::start(&installation, expected);
    let client = installation.client("publisher");
    let mut ledger = Ledger::default();
    let doomed = |number: usize| format!("doomed/{number}/{SMALL}");
    let replaced = |number: usize| format!("replaced/{number}/{SMALL}");
    let moving = |number: usize| format!("moving/{number}/{SMALL}");
    // Its content does not belong to its name, so the monitor leaves it alone.
    let changed = |number: usize| format!("changed/{number}/file");
    for (number, case) in cases.iter().enumerate() {
        let path = match case.work {
            Work::Delete => Some(doomed(number)),
            Work::Replace => Some(replaced(number)),
            Work::Move => Some(moving(number)),
            Work::Update => Some(changed(number)),
            Work::Register | Work::Upload(_) | Work::Missed(_) | Work::InPlace => None,
        };
        if let Some(path) = path {
            ledger.register(&client, "s1", &path, content(&path, SMALL)).await.expect("registered");
        }
    }
    installation.in_sync(&ledger, STEP_MAX).await;
    let mut hits = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let begun = std::time::Instant::now();
        let file = installation.directory().join(format!("hits-{number}"));
        let made = format!("made/{number}");
        let (life, quiet) = match case.work {
            Work::Missed(size) => {
                installation.take_down(case.child).await;
                upload(&installation, &mut ledger, &format!("{made}/{size}"), size).await;
                (bring_up(&installation, case, &file).await, 1)
            }
            _ => arm(&installation, case, &file).await,
        };
        match case.work {
            Work::Missed(_) => {}
            Work::Register => register(&installation, &mut ledger, &format!("made/{number}/{SMALL}")).await,
            Work::Upload(size) => {
                upload(&installation, &mut ledger, &format!("made/{number}/{size}"), size).await
            }
            Work::Replace => replace(&installation, &mut ledger, &replaced(number)).await,
            Work::Move => {
                monitor.going(&moving(number));
                relocate(&installation, &mut ledger, &moving(number)).await;
            }
            Work::InPlace => in_place(&installation, &mut ledger, &format!("made/{number}/{SMALL}")).await,
            Work::Update => update(&installation, &mut ledger, &changed(number)).await,
            Work::Delete => {
                monitor.going(&doomed(number));
                delete(&installation, &mut ledger, &doomed(number)).await;
            }
        }
        installation.reborn(case.child, life).await;
        installation.in_sync(&ledger, STEP_MAX).await;
        if case.work == Work::Delete {
            // Its row is gone before every disk has followed; the next death must not meet what is left of this one.
            let left = |id: &String| installation.transfer(id).join(doomed(number)).exists();
            wait::until("it is deleted everywhere", STEP_MAX, || async {
                let late: Vec<String> = installation.servers().into_iter().filter(left).collect();
                if late.is_empty() { Ok(()) } else { Err(format!("{late:?}")) }
            })
            .await;
            empty_staging(&installation).await;
        }
        let found = fs::read_to_string(&file).unwrap_or_default();
        assert!(found.lines().count() >= quiet, "{} was not reached", case.point);
        hits.extend(found.lines().map(str::to_owned));
        eprintln!("{:?} {} {:?} {:?}", begun.elapsed(), case.point, case.work, case.child);
    }
    others(&installation, &mut ledger).await;
    installation.in_sync(&ledger, STEP_MAX).await;
    ledger.check_disks(&installation);
    wait_for_quiet(&installation, &ledger).await;
    monitor.end();
    check_registry(&installation);
    hits
}

/// Gives the child a life in which it dies at the point; answers its process, and how often the point is reached then.
async fn arm(installation: &Installation, case: &Case, file: &Path) -> (i32, usize) {
    installation.take_down(case.child).await;
    let life = bring_up(installation, case, file).await;
    // What the start does by itself is over, so that it is the work that meets the point.
    let client = installation.client("viewer");
    wait::until(format!("{} answers", case.child), STEP_MAX, || async {
        if case.child == "gateway" {
            let question = lockstep_proto::gateway::v1::ListServersRequest::default();
            let servers =
                client.matrix().list_servers(question).await.map_err(|status| status.to_string())?;
            let ready = servers
                .into_inner()
                .servers
                .iter()
                .filter(|s| s.state() == lockstep_proto::gateway::v1::server_summary::State::Ready)
                .count();
            return if ready == 3 { Ok(()) } else { Err(format!("{ready} of 3 servers report")) };
        }
        let watched = client.replicas_at(case.child).watch_replicas(WatchReplicasRequest::default()).await;
        let mut stream = watched.map_err(|status| status.to_string())?.into_inner();
        let first = stream.message().await.map_err(|status| status.to_string())?;
        first
            .filter(|first| first.position.as_ref().is_some_and(|p| p.revision > 0))
            .map(drop)
            .ok_or_else(|| "no position".to_owned())
    })
    .await;
    assert_eq!(installation.pid(case.child), Some(life), "{} was reached by the start alone", case.point);
    (life, usize::try_from(case.nth).expect("small"))
}

/// Starts a life in which the child dies at the point; answers its process.
async fn bring_up(installation: &Installation, case: &Case, file: &Path) -> i32 {
    let crash = format!("{}={}", case.point, case.nth);
    let hits = file.display().to_string();
    let variables = [
        ("LOCKSTEP_CRASH", crash.as_str()),
        ("LOCKSTEP_HITS", hits.as_str()),
        ("LOCKSTEP_POINTS", case.point),
    ];
    installation.bring_up(case.child, &variables).await;
    installation.process(case.child).await
}

/// Registers until there is an answer, and then once more: the second answer is the first one.
async fn register(installation: &Installation, ledger: &mut Ledger, path: &str) {
    let client = installation.client("publisher");
    let call = || async {
        let request = addressed(registration(path, content(path, SMALL)), "s1");
        client
            .files()
            .register_file(request)
            .await
            .map(|answer| answer.into_inner().file.expect("the contract says so"))
    };
    let file = answered(path, call).await;
    assert_eq!(answered(path, call).await, file, "I11: repeated");
    ledger.note(&file);
}

/// Registers what lies there until there is an answer, and then once more.
async fn in_place(installation: &Installation, ledger: &mut Ledger, path: &str) {
    let place = installation.transfer("s1").join(path);
    fs::create_dir_all(place.parent().expect("a directory")).expect("made");
    fs::write(&place, content(path, SMALL)).expect("written");
    let client = installation.client("publisher");
    let source = Some(Source::InPlace(InPlace {}));
    let file = NewFile { path: path.to_owned(), source, ..NewFile::default() };
    let request = RegisterFileRequest { file: Some(file), request_id: path.to_owned() };
    let call = || async {
        let answer = client.files().register_file(addressed(request.clone(), "s1")).await;
        answer.map(|answer| answer.into_inner().file.expect("the contract says so"))
    };
    let file = answered(path, call).await;
    assert_eq!(answered(path, call).await, file, "I11: repeated");
    ledger.note(&file);
}

/// Changes a file on the disk of s1, and updates its version until there is an answer, and then once more.
async fn update(installation: &Installation, ledger: &mut Ledger, path: &str) {
    let client = installation.client("publisher");
    let found = client.files().get_file(GetFileRequest { path: path.to_owned() }).await;
    let expected_revision =
        found.expect("registered").into_inner().file.expect("the contract says so").revision;
    fs::write(installation.transfer("s1").join(path), content("other bytes", SMALL)).expect("written");
    let request =
        UpdateFileVersionRequest { path: path.to_owned(), expected_revision, request_id: path.to_owned() };
    let call = || async {
        let answer = client.stores().update_file_version(addressed(request.clone(), "s1")).await;
        answer.map(|answer| answer.into_inner().file.expect("the contract says so"))
    };
    let file = answered(path, call).await;
    assert_eq!(answered(path, call).await, file, "I11: repeated");
    ledger.note(&file);
}

/// Registers by the command line, which repeats what may be repeated.
async fn upload(installation: &Installation, ledger: &mut Ledger, path: &str, size: usize) {
    let source: PathBuf = installation.directory().join("source");
    fs::write(&source, content(path, size)).expect("written");
    installation.run(&["file", "register", source.to_str().expect("UTF-8"), path, "--server", "s1"]).await;
    let client = installation.client("viewer");
    let call = || async {
        let answer = client.files().get_file(GetFileRequest { path: path.to_owned() }).await;
        answer.map(|answer| answer.into_inner().file.expect("the contract says so"))
    };
    ledger.note(&answered(path, call).await);
}

/// What a replaced file has then.
fn newer(path: &str) -> Vec<u8> {
    content(&format!("newer {path}"), SMALL)
}

/// Replaces until there is an answer, and then once more.
async fn replace(installation: &Installation, ledger: &mut Ledger, path: &str) {
    let client = installation.client("publisher");
    let mut request = registration(path, newer(path));
    request.request_id = format!("replace-{}", request.request_id);
    if let Some(file) = &mut request.file {
        file.expected_revision = ledger.live()[path].revision;
    }
    let readers = Readers::start(installation, &[path.to_owned()], &[content(path, SMALL), newer(path)]);
    let call = || async {
        let answer = client.files().register_file(addressed(request.clone(), "s1")).await;
        answer.map(|answer| answer.into_inner().file.expect("the contract says so"))
    };
    let file = answered(path, call).await;
    assert_eq!(answered(path, call).await, file, "I11: repeated");
    ledger.note(&file);
    installation.in_sync(ledger, STEP_MAX).await;
    readers.end();
}

/// Moves until there is an answer, and then once more.
async fn relocate(installation: &Installation, ledger: &mut Ledger, path: &str) {
    let client = installation.client("publisher");
    let new_path = path.replacen("moving", "moved", 1);
    let request = MoveFileRequest {
        path: path.to_owned(),
        new_path: new_path.clone(),
        expected_revision: ledger.live()[path].revision,
        request_id: format!("move-{}", path.replace('/', "-")),
    };
    let readers = Readers::start(installation, &[path.to_owned(), new_path.clone()], &[content(path, SMALL)]);
    let call = || async {
        let answer = client.files().move_file(addressed(request.clone(), "s1")).await;
        answer.map(|answer| answer.into_inner().file.expect("the contract says so"))
    };
    let file = answered(path, call).await;
    assert_eq!(answered(path, call).await, file, "I11: repeated");
    ledger.note_deleted(path);
    ledger.note(&file);
    installation.in_sync(ledger, STEP_MAX).await;
    readers.end();
}

/// Read files of every server over and over, as devices do.
struct Readers {
    ended: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<usize>>,
}

impl Readers {
    /// The file is at one of `paths`, at the first one alone if there is no other, and is one of `contents`.
    fn start(installation: &Installation, paths: &[String], contents: &[Vec<u8>]) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let read = |server: String| {
            let places: Vec<PathBuf> =
                paths.iter().map(|path| installation.transfer(&server).join(path)).collect();
            let (contents, ended) = (contents.to_vec(), Arc::clone(&ended));
            std::thread::spawn(move || {
                let mut count = 0;
                while !ended.load(Ordering::Relaxed) {
                    for place in &places {
                        match fs::read(place) {
                            Ok(found) => {
                                assert!(contents.contains(&found), "{}: other bytes", place.display())
                            }
                            // Between looking at the one path and the other it may have moved.
                            Err(_) if places.len() > 1 => {}
                            Err(error) => panic!("{}: {error}", place.display()),
                        }
                        count += 1;
                    }
                    std::thread::yield_now();
                }
                count
            })
        };
        let threads = installation.servers().into_iter().map(read).collect();
        Self { ended, threads }
    }

    /// Fails if one of them saw anything else.
    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert!(thread.join().expect("the old bytes or the new ones") > 0, "nothing was read");
        }
    }
}

/// Deletes until there is an answer, and then once more.
async fn delete(installation: &Installation, ledger: &mut Ledger, path: &str) {
    let client = installation.client("publisher");
    let request = ledger.deletion(path);
    let call = || async {
        client.files().delete_file(addressed(request.clone(), "s1")).await.map(tonic::Response::into_inner)
    };
    let answer = answered(path, call).await;
    assert_eq!(answered(path, call).await, answer, "I11: repeated");
    ledger.note_deleted(path);
}

/// Calls until there is an answer; the outcome of a call may be unknown, but nothing else may go wrong.
async fn answered<T, F: Future<Output = tonic::Result<T>>>(path: &str, mut call: impl FnMut() -> F) -> T {
    wait::until(format!("an answer about {path}"), STEP_MAX, || {
        let called = call();
        async move {
            called.await.map_err(|status| {
                let is_passing = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
                assert!(is_passing, "{path}: {status:?}");
                status.to_string()
            })
        }
    })
    .await
}

/// The services that have no part in it may die at any moment; and a source may die in the middle of giving.
async fn others(installation: &Installation, ledger: &mut Ledger) {
    let client = installation.client("publisher");
    for (number, child) in ["catalog", "resolver", "s1.timeguard", "s2.timeguard"].into_iter().enumerate() {
        let life = installation.process(child).await;
        installation.signal(child, Signal::SIGKILL).await;
        let path = format!("meanwhile/{number}/{SMALL}");
        ledger.register(&client, "s2", &path, content(&path, SMALL)).await.expect("registered");
        installation.reborn(child, life).await;
    }
}

/// Everything that was begun is settled: the matrix does not tell when leftovers are swept, so it is looked for.
async fn wait_for_quiet(installation: &Installation, ledger: &Ledger) {
    empty_staging(installation).await;
    ledger.check_indexes(installation);
}

async fn empty_staging(installation: &Installation) {
    wait::until("nothing is left in staging", Duration::from_secs(10), || async {
        // What arrived early of an upload that was sent twice goes by itself, after two minutes.
        let stays = |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().starts_with("early-");
        let count = |id: &String| {
            fs::read_dir(installation.staging(id)).map_or(0, |all| all.flatten().filter(stays).count())
        };
        let left: Vec<(String, usize)> = installation
            .servers()
            .into_iter()
            .map(|id| (id.clone(), count(&id)))
            .filter(|(_, n)| *n > 0)
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// I4: the registry has every revision up to its head, once.
fn check_registry(installation: &Installation) {
    let registry =
        rusqlite::Connection::open(installation.data().join("registry/registry.sqlite")).expect("a registry");
    let query =
        "SELECT (SELECT revision FROM meta), count(*), max(revision) FROM revisions WHERE revision > 0";
    let (head, count, last): (i64, i64, i64) =
        registry.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("read");
    assert_eq!((head, head), (count, last), "a revision is missing");
}

/// Content belongs to its path, and the last part of a path is its size.
fn expected(path: &str) -> Option<String> {
    let size = path.rsplit('/').next()?.parse().ok()?;
    // Two contents in its life: readers look at those.
    if path.starts_with("replaced/") {
        return None;
    }
    let path = &path.replacen("moved/", "moving/", 1);
    Some(blake3::hash(&content(path, size)).to_hex().to_string())
}

/// Every fail point that the services mark.
pub(crate) fn marked() -> BTreeSet<String> {
    let (mut points, mut left) =
        (BTreeSet::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../services")]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("read").map(|entry| entry.expect("read").path()));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).expect("read");
            let found = text.split("fail_point!(\"").skip(1).filter_map(|rest| rest.split('"').next());
            points.extend(
                found
                    .filter(|point| {
                        point.contains('.') && !point.starts_with("test.") && !point.starts_with("service.")
                    })
                    .map(str::to_owned),
            );
        }
    }
    points
}
