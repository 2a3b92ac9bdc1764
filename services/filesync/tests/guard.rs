//! What a server does while its time guard fences it, over everything else in memory: it originates nothing, and goes on
//! with all that makes no change of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use filesync::{
    Checks, EXCEPTIONS_MAX, Parts, Settings,
    adapters::{index_memory::MemoryIndex, store_memory::MemoryStore},
    domain::{
        error::FileError,
        guard::{Fence, Standing},
    },
    engine::{Adapters, Answer, Ask, Audience, Declared, Engine, NewFile, Place, Registered, Seen, Source},
    ports::{EarlyPart, Guard, Part, Parts as Stream, Peer, PeerError, Peers, Range, Upload},
};
use jiff::SignedDuration;
use lockstep_chassis::{Drain, Health, deadline};
use lockstep_model::{
    Digest, Fault as _, FilePath, Reason, Revision, ServerId, UploadId,
    clock::{Entropy as _, SystemClock, SystemEntropy},
    position::Epoch,
    record::Placement,
};
use lockstep_registry::{MemoryRegistry, Registry as _};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

/// Virtual time in which everything here is over.
const SOON: Duration = Duration::from_secs(120);

type Fake = Parts<MemoryStore, MemoryIndex, MemoryRegistry, Wires, Says, SystemClock, SystemEntropy>;

/// A guard that says what a test says.
#[derive(Clone)]
struct Says(Arc<watch::Sender<Standing>>, Arc<AtomicBool>);

impl Guard for Says {
    fn standing(&self) -> Standing {
        let standing = self.0.borrow().clone();
        if self.1.swap(false, Ordering::Relaxed) {
            self.0.send_replace(fence(Reason::ClockFenced));
        }
        standing
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        let mut changes = self.0.subscribe();
        async move { drop(changes.changed().await) }
    }
}

/// Peers that are asked without a network.
#[derive(Clone, Default)]
struct Wires {
    engines: Arc<Mutex<BTreeMap<ServerId, Engine<Fake>>>>,
}

impl Wires {
    fn engine(&self, server: &ServerId) -> Engine<Fake> {
        self.engines.lock().expect("no panic").get(server).expect("it was started").clone()
    }
}

struct Answers(ServerId, mpsc::Receiver<Answer>);

impl Stream for Answers {
    async fn next(&mut self) -> Result<Option<Part>, PeerError> {
        Ok(self.1.recv().await.map(|answer| match answer {
            Answer::Header(digest, size_bytes) => Part::Header { digest, size_bytes },
            Answer::Hashes(_, hashes) => Part::Hashes(hashes),
            Answer::Chunk(offset, data) => Part::Chunk { offset, data },
            Answer::Refused(digest, error) => {
                let (reason, message) = (error.reason(), error.to_string());
                Part::Refused { digest, error: PeerError { server: self.0.clone(), reason, message } }
            }
        }))
    }
}

impl Peers for Wires {
    async fn locate(&self, peer: &Peer, digests: Vec<Digest>) -> Result<BTreeSet<Digest>, PeerError> {
        Ok(self.engine(&peer.server).locate(digests).into_iter().collect())
    }

    async fn read(&self, peer: &Peer, ranges: Vec<Range>) -> Result<impl Stream, PeerError> {
        Ok(Answers(peer.server.clone(), self.engine(&peer.server).content(ranges)))
    }

    async fn stage(
        &self,
        peer: &Peer,
        _: UploadId,
        _: u64,
        _: mpsc::Receiver<EarlyPart>,
    ) -> Result<(), PeerError> {
        let (server, message) = (peer.server.clone(), "it is fetched when it is registered".to_owned());
        Err(PeerError { server, reason: Reason::Overloaded, message })
    }
}

/// All servers.
struct World {
    registry: MemoryRegistry,
    wires: Wires,
    drain: Drain,
}

/// One of them.
struct Server {
    engine: Engine<Fake>,
    store: MemoryStore,
    guard: Says,
}

impl World {
    fn new() -> Self {
        let registry = MemoryRegistry::new(Epoch(SystemEntropy.uuid()));
        Self { registry, wires: Wires::default(), drain: Drain::new() }
    }

    async fn server(&self, id: &str, standing: Standing) -> Server {
        let server_id: ServerId = id.parse().expect("an id");
        let settings = Settings {
            server_id: server_id.clone(),
            mode: "distributed".parse().expect("a mode"),
            version: "12.04.100".parse().expect("a version"),
            advertise: format!("https://{id}:1"),
            timeguard: String::new(),
            reconcile_every: Duration::from_secs(300),
            relay_bytes_min: 1 << 30,
            exceptions_max: EXCEPTIONS_MAX,
            lost_store: None,
            checks: Checks::default(),
        };
        let guard = Says(Arc::new(watch::Sender::new(standing)), Arc::default());
        let store = MemoryStore::new(1 << 30);
        let ports = Adapters::<Fake> {
            store: store.clone(),
            index: MemoryIndex::default(),
            registry: self.registry.clone(),
            peers: self.wires.clone(),
            guard: guard.clone(),
            clock: SystemClock,
            entropy: SystemEntropy,
        };
        let health = Health::new(&["registry", "store"]);
        let started = Engine::start(settings, ports, self.drain.clone(), health.clone());
        let engine = started.await.expect("an empty index");
        self.wires.engines.lock().expect("no panic").insert(server_id, engine.clone());
        health.ready().await;
        Server { engine, store, guard }
    }

    async fn head(&self) -> Revision {
        self.registry.head().await.expect("it answers").revision
    }

    async fn ends(self) {
        self.drain.begin();
        self.drain.finished().await;
        assert!(!self.drain.failed(), "a task panicked");
    }
}

impl Server {
    fn says(&self, standing: Standing) {
        self.guard.0.send_replace(standing);
    }

    /// It may originate when it is asked the next time, and not any more after that.
    async fn opens_once(&self) {
        self.says(Standing::Open);
        // Whoever else asks has done so by then.
        until("it is open", async || self.conditions().is_empty()).await;
        self.guard.1.store(true, Ordering::Relaxed);
    }

    async fn register(&self, at: &str, content: &'static [u8]) -> Result<Registered, FileError> {
        let file = new_file(at, Source::Content(Bytes::from_static(content)), Place::Free);
        Ok(self.engine.register(ask(at), vec![file]).await?.remove(0))
    }

    async fn holds(&self, at: &str) -> bool {
        self.engine.board().held(&[path(at)])[0].is_some()
    }

    fn conditions(&self) -> Vec<(Reason, Instant)> {
        let conditions = self.engine.board().report(None).conditions;
        conditions.into_iter().map(|(obstacle, since)| (obstacle.reason, since)).collect()
    }
}

fn path(text: &str) -> FilePath {
    text.parse().expect("a valid path")
}

fn new_file(at: &str, source: Source, place: Place) -> NewFile {
    NewFile { path: path(at), source, declared: Declared::default(), place, placement: None }
}

fn ask(request: &str) -> Ask {
    let request_id = request.replace('/', "-").parse().expect("an id");
    Ask::new("operator/local".to_owned(), request_id)
}

fn upload(size_bytes: u64) -> Upload {
    Upload { id: UploadId::random(&SystemEntropy), caller: "operator/local".to_owned(), size_bytes }
}

fn fence(reason: Reason) -> Standing {
    Standing::Fenced(Fence {
        reason,
        message: "the clock of s1 is wrong".to_owned(),
        offset: Some(SignedDuration::from_millis(-72_040)),
        uncertainty: Some(Duration::from_millis(250)),
        limit: Some(Duration::from_secs(60)),
        age: Duration::from_secs(7),
        is_said: true,
    })
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Whatever originates a change, each under a name of its own.
async fn originate(server: &Server, file: &Registered) -> Vec<(&'static str, Option<FileError>)> {
    let (engine, at, seen) = (&server.engine, file.path.clone(), file.revision);
    let content = || Source::Content(Bytes::from_static(b"new"));
    let whole = Seen { file_count: 1, latest: seen };
    let register = async |request: &str, new: NewFile| engine.register(ask(request), vec![new]).await.err();
    let (to, below) = (path("moved"), path("kept"));
    vec![
        ("register", register("r1", new_file("new", content(), Place::Free)).await),
        ("numbered", register("r2", new_file("new", content(), Place::Numbered)).await),
        ("in place", register("r3", new_file("loose", Source::InPlace, Place::Free)).await),
        ("upload", engine.begin_upload(upload(3), 0, Audience::AllServers, None).await.err()),
        ("space", engine.check_space(3).await.err()),
        ("update", engine.update_version(ask("r4"), at.clone(), seen).await.err()),
        ("place", {
            let placement = Placement::OriginOnly { reason: Reason::OptionOff };
            engine.place(ask("r5"), vec![(at.clone(), seen)], placement).await.err()
        }),
        ("move", engine.move_file(ask("r6"), path("kept/other"), to, seen).await.err()),
        ("move all", engine.move_directory(ask("r7"), below.clone(), path("away"), whole).await.err()),
        ("delete all", engine.delete_directory(ask("r8"), below, whole).await.err()),
        ("replace", register("r9", new_file(at.as_str(), content(), Place::Taken(seen))).await),
        ("delete", engine.delete(ask("r10"), vec![(at, seen)]).await.err()),
    ]
}

/// R62, R64: whatever originates is refused with the reason of the fence and its figures, before anything is changed; the
/// condition of the server says so, and when the fence is lifted, all of it works.
#[tokio::test(start_paused = true)]
async fn a_fenced_server_originates_nothing_until_the_fence_is_lifted() {
    let world = World::new();
    let server = world.server("s1", Standing::Open).await;
    let file = server.register("kept/file", b"as it was").await.expect("registered");
    server.store.put(&path("loose"), b"nobody registered it");
    for reason in [Reason::ClockFenced, Reason::RestartRequired] {
        server.says(fence(reason));
        let begun = Instant::now();
        until("the condition is shown", async || server.conditions().iter().any(|(c, _)| *c == reason)).await;
        let [(_, since)] = server.conditions()[..] else { panic!("one fence, not two") };
        assert!(since <= begun, "as old as the guard says");
        assert_eq!(server.engine.board().barred(), None, "it bars nothing but what is originated");
        let before = (world.head().await, server.store.published());
        for (what, refusal) in originate(&server, &file).await {
            let refusal = refusal.unwrap_or_else(|| panic!("{what} with {reason}"));
            let FileError::Fenced { .. } = &refusal else { panic!("{what}: {refusal}") };
            assert_eq!(refusal.reason(), reason, "{what}");
            let metadata = [
                ("server_id", "s1"),
                ("offset_seconds", "-72.040"),
                ("uncertainty_seconds", "0.250"),
                ("limit_seconds", "60"),
                ("since_seconds", "7"),
            ];
            assert_eq!(refusal.metadata(), metadata.map(|(key, value)| (key, value.to_owned())), "{what}");
            assert_eq!(refusal.retry_after().is_some(), reason == Reason::ClockFenced, "{what}");
            let text = "server s1 originates nothing now: the clock of s1 is wrong (for 7 s)";
            assert_eq!(refusal.to_string(), text, "{what}");
        }
        assert_eq!((world.head().await, server.store.published()), before, "nothing happened");
    }
    server.says(Standing::Open);
    until("the condition ends", async || server.conditions().is_empty()).await;
    for (what, refusal) in originate(&server, &file).await {
        let is_fenced = matches!(refusal, Some(FileError::Fenced { .. }));
        assert!(!is_fenced, "{what}: {refusal:?}");
        let is_first = ["register", "numbered", "in place", "upload", "space", "place"].contains(&what);
        assert!(!is_first || refusal.is_none(), "{what}: {refusal:?}");
    }
    world.ends().await;
}

/// R62: a fence that goes up while a change is prepared, which may take long, keeps it from being committed; nothing is left of it,
/// and the same change works later.
#[tokio::test(start_paused = true)]
async fn a_fence_that_goes_up_meanwhile_keeps_a_change_back() {
    let world = World::new();
    let server = world.server("s1", Standing::Open).await;
    let (engine, at) = (&server.engine, path("kept/file"));
    let mut file = server.register("kept/file", b"as it was").await.expect("registered");
    server.store.put(&path("loose"), b"nobody registered it");
    for is_fenced in [true, false] {
        let before = world.head().await;
        let prepare = async || match is_fenced {
            true => server.opens_once().await,
            false => server.says(Standing::Open),
        };
        let told = async |what: &str, changed: Result<Option<Registered>, FileError>| match changed {
            Ok(changed) if !is_fenced => changed,
            Err(FileError::Fenced { .. }) if is_fenced => None,
            other => panic!("{what}: {other:?}"),
        };
        prepare().await;
        told("register", server.register("new", b"new").await.map(Some)).await;
        prepare().await;
        let loose = vec![new_file("loose", Source::InPlace, Place::Free)];
        told("in place", engine.register(ask("loose"), loose).await.map(|mut files| files.pop())).await;
        prepare().await;
        let placement = Placement::OriginOnly { reason: Reason::OptionOff };
        let placed = engine.place(ask("place"), vec![(at.clone(), file.revision)], placement).await;
        file = told("place", placed.map(|mut files| files.pop())).await.unwrap_or(file);
        prepare().await;
        let moved = engine.move_file(ask("move"), at.clone(), path("moved"), file.revision).await;
        told("move", moved.map(Some)).await;
        assert_eq!(world.head().await == before, is_fenced, "nothing was committed");
    }
    world.ends().await;
}

/// R62: receiving, serving, removing what others deleted, bringing back registered bytes, and uploads that were begun go on.
#[tokio::test(start_paused = true)]
async fn a_fenced_server_goes_on_with_what_makes_no_change() {
    let world = World::new();
    let (one, two) = (world.server("s1", Standing::Open).await, world.server("s2", Standing::Open).await);
    let own = two.register("from-two", b"served by two").await.expect("registered");
    let begun = upload(6);
    let mut writer =
        two.engine.begin_upload(begun.clone(), 0, Audience::AllServers, None).await.expect("begun");
    two.engine.write_upload(&mut writer, 0, Bytes::from_static(b"abc")).await.expect("written");
    two.engine.end_upload(writer).await.expect("half of it is safe");
    two.says(fence(Reason::ClockFenced));

    let sent = one.register("from-one", b"received by two").await.expect("one is not fenced");
    two.engine.reconcile().await.expect("rounds go on");
    until("two receives", async || two.holds("from-one").await).await;
    one.engine.reconcile().await.expect("a round");
    until("two serves", async || one.holds("from-two").await).await;

    one.engine.delete(ask("d"), vec![(sent.path.clone(), sent.revision)]).await.expect("deleted");
    two.engine.reconcile().await.expect("rounds go on");
    assert!(!two.store.published().contains_key(&sent.path), "what others deleted goes");

    let mut writer =
        two.engine.begin_upload(begun.clone(), 3, Audience::AllServers, None).await.expect("begun before");
    two.engine.write_upload(&mut writer, 3, Bytes::from_static(b"def")).await.expect("written");
    assert!(two.engine.end_upload(writer).await.expect("safe").digests.is_some(), "complete");
    let file = || new_file("uploaded", Source::Upload(begun.id), Place::Free);
    let refusal = two.engine.register(ask("u"), vec![file()]).await.expect_err("a change");
    assert_eq!(refusal.reason(), Reason::ClockFenced);

    two.store.put(&own.path, b"changed by hand");
    let restored = two.engine.restore(ask("restore"), own.path.clone(), own.revision).await;
    assert_eq!(restored.expect("no change").revision, own.revision);
    until("the registered bytes are back", async || {
        two.store.published().get(&own.path).is_some_and(|bytes| bytes.as_slice() == b"served by two")
    })
    .await;

    two.says(Standing::Open);
    two.engine.register(ask("u"), vec![file()]).await.expect("the upload is still there");
    world.ends().await;
}

/// A request that was carried out before the fence is answered with what it led to, within it as well.
#[tokio::test(start_paused = true)]
async fn what_was_done_before_a_fence_is_answered_within_it() {
    let world = World::new();
    let server = world.server("s1", Standing::Open).await;
    let file = server.register("file", b"bytes").await.expect("registered");
    let moved = server.engine.move_file(ask("m"), path("file"), path("to"), file.revision).await;
    let moved = moved.expect("moved");
    server.says(fence(Reason::RestartRequired));
    assert_eq!(server.register("file", b"bytes").await.expect("answered").revision, file.revision);
    let again = server.engine.move_file(ask("m"), path("file"), path("to"), file.revision).await;
    assert_eq!(again.expect("answered"), moved);
    let other = server.engine.move_file(ask("n"), path("to"), path("on"), moved.revision).await;
    assert_eq!(other.expect_err("new").reason(), Reason::RestartRequired);
    world.ends().await;
}

/// R62: until the clock was judged for the first time, changes wait, ten seconds at most; then they are refused.
#[tokio::test(start_paused = true)]
async fn changes_wait_for_the_first_judgement() {
    let world = World::new();
    let server = world.server("s1", Standing::Starting).await;
    let begun = Instant::now();
    let refusal = server.register("a", b"too early").await.expect_err("not judged");
    assert_eq!((refusal.reason(), begun.elapsed().as_secs()), (Reason::ClockFenced, 10));
    assert!(refusal.to_string().contains("was not judged within 10 s"), "{refusal}");
    assert!(server.conditions().is_empty(), "nothing is known against it yet");
    // Whoever waits less hears why, and not that their time is over.
    let begun = Instant::now();
    let impatient = Box::pin(server.register("a", b"too early"));
    let refusal = deadline::within(Duration::from_secs(4), impatient).await;
    let refusal = refusal.expect("told in time").expect_err("not judged");
    assert_eq!((refusal.reason(), begun.elapsed().as_millis()), (Reason::ClockFenced, 3_500));

    let (registered, ()) = tokio::join!(server.register("a", b"in time"), async {
        sleep(Duration::from_secs(4)).await;
        server.says(Standing::Open);
    });
    registered.expect("it waited");
    server.says(Standing::Starting);
    let begun = Instant::now();
    let (refusal, ()) = tokio::join!(server.register("b", b"never"), async {
        sleep(Duration::from_secs(2)).await;
        server.says(fence(Reason::RestartRequired));
    });
    assert_eq!(refusal.expect_err("fenced").reason(), Reason::RestartRequired);
    assert_eq!(begun.elapsed().as_secs(), 2);
    server.says(Standing::Starting);
    let (refusal, ()) = tokio::join!(server.register("c", b"never"), async {
        sleep(Duration::from_secs(1)).await;
        world.drain.begin();
    });
    assert_eq!(refusal.expect_err("it drains").reason(), Reason::Draining);
    world.ends().await;
}

/// R65, I14: an upload that nobody continues goes after a day of monotonic time, and not while the clock is in doubt, in which
/// nobody could register it; that time does not count.
#[tokio::test(start_paused = true)]
async fn no_upload_is_dropped_while_the_clock_is_in_doubt() {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let world = World::new();
    let server = world.server("s1", Standing::Open).await;
    let kept = upload(6);
    let mut writer =
        server.engine.begin_upload(kept.clone(), 0, Audience::AllServers, None).await.expect("begun");
    server.engine.write_upload(&mut writer, 0, Bytes::from_static(b"abc")).await.expect("written");
    server.engine.end_upload(writer).await.expect("safe");
    let is_there = || server.engine.upload_progress(&kept.caller, kept.id).is_ok();
    for doubt in [fence(Reason::ClockFenced), fence(Reason::RestartRequired), Standing::Starting] {
        server.says(doubt);
        sleep(HOUR * 100).await;
        assert!(is_there(), "whatever its age is");
    }
    server.says(Standing::Open);
    sleep(HOUR * 23).await;
    assert!(is_there(), "the doubt does not count");
    sleep(HOUR * 2).await;
    assert!(!is_there(), "a day after it");
    world.ends().await;
}

/// R65, I14: a content that came early and is not wanted goes after two minutes, and not while the clock is in doubt; so that
/// they do not fill the disk meanwhile, few more are taken.
#[tokio::test(start_paused = true)]
async fn no_early_copy_is_dropped_while_the_clock_is_in_doubt() {
    const MINUTE: Duration = Duration::from_secs(60);
    let world = World::new();
    let server = world.server("s1", Standing::Open).await;
    let send = async |content: u8| {
        let (parts, queue) = mpsc::channel(2);
        let data = Bytes::from(vec![content; 8]);
        let digest = Digest::of(&data);
        parts.send(EarlyPart::Chunk { offset: 0, data }).await.expect("room");
        parts.send(EarlyPart::Digest(digest)).await.expect("room");
        drop(parts);
        let origin = "s2".parse().expect("an id");
        server.engine.stage_early(origin, UploadId::random(&SystemEntropy), 8, queue).await
    };
    let staged = async || {
        use filesync::ports::Store as _;
        server.store.staged().await.expect("a list").len()
    };
    server.says(fence(Reason::ClockFenced));
    for content in 0..4 {
        send(content).await.expect("received as before");
    }
    assert_eq!(send(4).await.expect_err("enough").reason(), Reason::Overloaded);
    sleep(MINUTE * 60).await;
    assert_eq!(staged().await, 4, "whatever their age is");
    server.says(Standing::Open);
    until("they go", async || staged().await == 0).await;
    send(5).await.expect("received as before");
    world.ends().await;
}
