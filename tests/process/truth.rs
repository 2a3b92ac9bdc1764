//! Every IN_SYNC that anybody is shown, held to the disk that it speaks of, while servers vanish and disks are tampered with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::unix::fs::{FileExt as _, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use lockstep_chassis::Channel;
use lockstep_model::record::{ServerRecord, server_key};
use lockstep_proto::{
    filesync::v1::{DeleteFileRequest, MoveFileRequest, RegisterFileRequest, RestoreFileRequest},
    gateway::v1::{
        Cell, Row, WatchRowsRequest, WatchRowsResponse, cell::State,
        matrix_service_client::MatrixServiceClient,
    },
};
use lockstep_registry::{Commit, Registry as _};
use lockstep_tests::{
    chance::Chance,
    harness::{Client, Gateway, Installation, Options, Relay, addressed, content, registration, wait},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::Code;

/// Files at the beginning; then some come, move and go.
const FILES: usize = 36;
/// The size of a file.
const SIZE: usize = 700;
/// IN_SYNC cells that must have been held to a disk.
const OBSERVATIONS: u64 = 10_000;
/// The rest between two walks.
const WALK_EVERY: &str = "500ms";
/// Within this a walk comes to every copy: the rest, and the walk itself, which looks at 1,000 copies a second.
const WALK_MAX: Duration = Duration::from_millis(1_000);
/// Within this a server that vanished is told.
const VANISHED_MAX: Duration = Duration::from_secs(10);
/// What the scheduling of a busy machine may add to the two promises above, and between a gateway that says something
/// and a watcher that hears it.
const SLACK: Duration = Duration::from_secs(2);
/// How long a server is away for which the promise of ten seconds is looked at.
const AWAY: Duration = Duration::from_millis(13_500);
/// A change that meets a server or gateway that is just starting is repeated for so long.
const CHANGE_MAX: Duration = Duration::from_secs(60);
/// Between two looks at what a watcher shows although nothing new came.
const TICK: Duration = Duration::from_millis(200);

/// A registered file.
struct Live {
    revision: i64,
    bytes: Vec<u8>,
    /// On each server.
    copies: BTreeMap<String, Copied>,
}

#[derive(Clone, Copy)]
struct Copied {
    /// It cannot have been verified before: the change was not asked for that made the file what it is. A copy that was
    /// damaged when its file moved was verified before that.
    begun: Instant,
    /// Since when the bytes on the disk are not the ones of the revision, if they are not: only the test damages copies,
    /// and notes when; so bytes that are wrong now were wrong ever since.
    wrong_since: Instant,
}

/// What the test did to a server.
struct Standing {
    transfer: PathBuf,
    /// Since when it certainly reaches nobody.
    vanished: Option<Instant>,
    /// Since when it certainly works.
    calm: Instant,
}

/// When a gateway was stopped last, and woken.
#[derive(Clone, Copy, Default)]
struct Frozen {
    from: Option<Instant>,
    to: Option<Instant>,
}

/// When something was said, at the earliest, and as of when it must have been known.
#[derive(Clone, Copy)]
struct Said {
    at: Instant,
    known: Instant,
}

struct World {
    live: BTreeMap<String, Live>,
    servers: BTreeMap<String, Standing>,
    gateways: [Frozen; 2],
    found: Vec<String>,
    /// Cells that said IN_SYNC and were looked at; those of them that stated the time of a check; those whose bytes were
    /// wrong by then, as the cell could not know yet.
    observed: u64,
    stated: u64,
    overtaken: u64,
    done: BTreeMap<&'static str, usize>,
}

/// What all tasks share.
#[derive(Clone)]
struct Truth {
    world: Arc<Mutex<World>>,
    began: Instant,
}

impl World {
    fn wrong(&self, server: &str, path: &str, bytes: &[u8]) -> bool {
        let place = self.servers[server].transfer.join(path);
        let is_file = fs::symlink_metadata(&place).is_ok_and(|found| found.is_file());
        !is_file || fs::read(place).is_ok_and(|found| found != bytes)
    }

    /// The earliest moment at which the gateway can have said what arrived at `heard` on a stream opened at `opened`, and
    /// the earliest as of which it must have known: a gateway that was just woken answers before it has read what reached
    /// it meanwhile.
    fn said(&self, gateway: usize, opened: Instant, heard: Instant) -> Said {
        let Frozen { from, to } = self.gateways[gateway];
        let said = heard - SLACK;
        let since_frozen = from.filter(|_| to.is_none_or(|to| to >= said));
        let at = since_frozen.map_or(said, |from| said.min(from));
        Said { at: opened.max(at), known: if since_frozen.is_some() { at } else { opened.max(at) } }
    }
}

impl Truth {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }

    fn count(&self, what: &'static str) {
        *self.world().done.entry(what).or_default() += 1;
    }

    /// Holds rows to the disks. `fresh` are rows that were just said, with the age of their knowledge; others are what a
    /// watcher still shows.
    fn judge<'a>(&self, gateway: usize, opened: Instant, rows: impl Iterator<Item = &'a Row>, fresh: bool) {
        let heard = Instant::now();
        let mut world = self.world();
        let said = world.said(gateway, opened, heard);
        for row in rows {
            for cell in row.cells.iter().filter(|cell| cell.state() == State::InSync) {
                if let Some(wrong) = self.lie(&mut world, row, cell, said, fresh) {
                    let ms = |at: Instant| at.saturating_duration_since(self.began).as_millis();
                    let (path, server) = (&row.path, &cell.server_id);
                    let text = format!(
                        "{path} on {server} by gateway {gateway}, opened {} said {} heard {}: {wrong}; {cell:?}",
                        ms(opened),
                        ms(said.at),
                        ms(heard),
                    );
                    world.found.push(text);
                }
            }
        }
    }

    /// What is wrong about an IN_SYNC that was said then or later.
    fn lie(&self, world: &mut World, row: &Row, cell: &Cell, said: Said, fresh: bool) -> Option<String> {
        let ms = |at: Instant| at.saturating_duration_since(self.began).as_millis();
        // Another revision than the newest is about bytes that were right once.
        let live = world.live.get(&row.path).filter(|live| live.revision == row.revision)?;
        let server = &world.servers[&cell.server_id];
        let age = cell.age.filter(|_| fresh).and_then(|age| Duration::try_from(age).ok());
        if let Some(since) = server.vanished
            && said.known > since + VANISHED_MAX + SLACK
        {
            return Some(format!("the server vanished at {}", ms(since)));
        }
        let is_wrong = world.wrong(&cell.server_id, &row.path, &live.bytes);
        // When the bytes were right, as the cell states: not before there were any.
        let Copied { begun, wrong_since: since } = live.copies[&cell.server_id];
        let check = age.and_then(|age| said.at.checked_sub(age)).map_or(begun, |at| at.max(begun));
        let (is_away, calm) = (server.vanished.is_some(), server.calm);
        if fresh {
            world.observed += 1;
            world.stated += u64::from(age.is_some());
            world.overtaken += u64::from(is_wrong);
        }
        if !is_wrong {
            return None;
        }
        if check >= since {
            return Some(format!("FALSE: checked at {}, but wrong since {}", ms(check), ms(since)));
        }
        let due = since.max(calm) + WALK_MAX + SLACK;
        (!is_away && said.known > due)
            .then(|| format!("damaged since {}, calm since {}", ms(since), ms(calm)))
    }

    /// Watches for ever: streams that are opened again and again, or one for as long as it lasts.
    async fn watch(
        self,
        gateway: usize,
        mut matrix: MatrixServiceClient<Channel>,
        request: WatchRowsRequest,
        chance: Option<Chance>,
    ) {
        loop {
            let opened = Instant::now();
            let Ok(Ok(answer)) = timeout(VANISHED_MAX, matrix.watch_rows(request.clone())).await else {
                sleep(TICK).await;
                continue;
            };
            let (mut stream, mut shown) = (answer.into_inner(), BTreeMap::<String, Row>::new());
            let until = chance.as_ref().map(|chance| opened + chance.millis(50..=700));
            while until.is_none_or(|until| Instant::now() < until) {
                match timeout(TICK, stream.message()).await {
                    Ok(Ok(Some(WatchRowsResponse { rows, removed_paths, .. }))) => {
                        self.judge(gateway, opened, rows.iter(), true);
                        removed_paths.iter().for_each(|path| drop(shown.remove(path)));
                        shown.extend(rows.into_iter().map(|row| (row.path.clone(), row)));
                    }
                    Ok(_) => break,
                    Err(_) => self.judge(gateway, opened, shown.values(), false),
                }
            }
        }
    }
}

/// Harm that is done to a server or a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Stop(&'static str),
    Down(&'static str),
    Kill(&'static str),
    Cut,
    FreezeGateway,
    KillGateway,
}

struct Play {
    installation: Installation,
    second: Gateway,
    relay: Relay,
    truth: Truth,
    chance: Chance,
    client: Client,
    number: usize,
}

impl Play {
    fn server(&self, server: &str, vanished: Option<Instant>, calm: Instant) {
        let mut world = self.truth.world();
        let standing = world.servers.get_mut(server).expect("known");
        (standing.vanished, standing.calm) = (vanished, calm);
    }

    /// Does harm for a time, in which everything else goes on.
    async fn harm(&mut self, harm: Harm, length: Duration) {
        let child = |server: &str| format!("{server}.filesync");
        let never = Instant::now() + Duration::from_secs(3_600);
        let (Harm::Stop(server) | Harm::Down(server) | Harm::Kill(server)) = harm else {
            return self.harm_others(harm, length, never).await;
        };
        self.server(server, None, never);
        match harm {
            Harm::Stop(_) => self.installation.signal(&child(server), Signal::SIGSTOP).await,
            Harm::Down(_) => self.installation.take_down(&child(server)).await,
            _ => self.installation.kill(&child(server)).await,
        }
        if !matches!(harm, Harm::Kill(_)) {
            self.server(server, Some(Instant::now()), never);
            self.work(length).await;
            self.server(server, None, never);
            match harm {
                Harm::Stop(_) => self.installation.signal(&child(server), Signal::SIGCONT).await,
                _ => self.installation.bring_up(&child(server), &[("FILESYNC_WALK_EVERY", WALK_EVERY)]).await,
            }
        }
        self.server(server, None, Instant::now());
    }

    async fn harm_others(&mut self, harm: Harm, length: Duration, never: Instant) {
        let second = Pid::from_raw(i32::try_from(self.second.pid()).expect("a process id"));
        match harm {
            Harm::Cut => {
                self.relay.cut(true);
                self.server("s3", Some(Instant::now()), never);
                self.work(length).await;
                self.server("s3", None, never);
                self.relay.cut(false);
                self.server("s3", None, Instant::now());
            }
            Harm::FreezeGateway => {
                self.truth.world().gateways[1] = Frozen { from: Some(Instant::now()), to: None };
                kill(second, Signal::SIGSTOP).expect("it runs");
                self.work(length).await;
                kill(second, Signal::SIGCONT).expect("it runs");
                self.truth.world().gateways[1].to = Some(Instant::now());
            }
            _ => self.installation.kill("gateway").await,
        }
    }

    /// Tampers, changes and restores for a time.
    async fn work(&mut self, length: Duration) {
        let until = Instant::now() + length;
        while Instant::now() < until {
            match self.chance.below(10) {
                0..=4 => self.tamper(),
                5 => self.register().await,
                6 => self.replace().await,
                7 => self.rename().await,
                8 => self.delete().await,
                _ => self.restore().await,
            }
            sleep(self.chance.millis(20..=200)).await;
        }
    }

    fn one_file(&self) -> Option<String> {
        let world = self.truth.world();
        let count = world.live.len();
        (count > FILES / 2).then(|| world.live.keys().nth(self.chance.below(count)).cloned()).flatten()
    }

    /// A server that can be asked now.
    fn one_server(&self) -> String {
        let world = self.truth.world();
        let there: Vec<&String> =
            world.servers.iter().filter(|(_, s)| s.vanished.is_none()).map(|(id, _)| id).collect();
        there[self.chance.below(there.len())].clone()
    }

    fn new_path(&mut self) -> String {
        self.number += 1;
        format!("{}/{}", ["a", "b", "b/c"][self.number % 3], self.number)
    }

    /// Damages one copy, if it is right; nobody looks at it meanwhile.
    fn tamper(&mut self) {
        let Some(path) = self.one_file() else { return };
        let server = ["s1", "s2", "s3"][self.chance.below(3)];
        let mut world = self.truth.world();
        let place = world.servers[server].transfer.join(&path);
        if world.wrong(server, &path, &world.live[&path].bytes) {
            return;
        }
        let kind = ["drift", "loss", "rot", "link"][self.chance.below(4)];
        match kind {
            "drift" => fs::write(&place, format!("somebody's {}", self.chance.next())).expect("written"),
            "loss" => fs::remove_file(&place).expect("removed"),
            "rot" => rot(&place),
            _ => {
                fs::remove_file(&place).expect("removed");
                symlink("elsewhere", &place).expect("planted");
            }
        }
        let live = world.live.get_mut(&path).expect("just seen");
        live.copies.get_mut(server).expect("known").wrong_since = Instant::now();
        *world.done.entry(kind).or_default() += 1;
    }

    /// Asks until there is an answer; `None` if it is a refusal.
    async fn ask<T>(&self, what: &str, mut call: impl AsyncFnMut() -> tonic::Result<T>) -> Option<T> {
        let begun = Instant::now();
        loop {
            match call().await {
                Ok(answer) => return Some(answer),
                Err(status)
                    if matches!(
                        status.code(),
                        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted
                    ) && begun.elapsed() < CHANGE_MAX =>
                {
                    sleep(TICK).await;
                }
                Err(status) if begun.elapsed() < CHANGE_MAX => {
                    eprintln!("{what}: {status}");
                    self.truth.count("refused");
                    return None;
                }
                Err(status) => panic!("{what}: {status}"),
            }
        }
    }

    /// Takes a file out of the judgement until its change is answered: what is shown meanwhile is of either revision.
    fn take(&self, path: &str) -> Live {
        self.truth.world().live.remove(path).expect("just seen")
    }

    async fn register(&mut self) {
        let (path, server) = (self.new_path(), self.one_server());
        let other = ["s1", "s2", "s3"][self.chance.below(3)];
        if other != server {
            let place = self.truth.world().servers[other].transfer.join(&path);
            fs::create_dir_all(place.parent().expect("a directory")).expect("made");
            fs::write(place, format!("loose {path}")).expect("written");
            self.truth.count("loose in the way");
        }
        let (begun, bytes) = (Instant::now(), content(&path, SIZE));
        let request = registration(&path, bytes.clone());
        self.send(path, server, request, bytes, begun).await;
    }

    async fn replace(&mut self) {
        let Some(path) = self.one_file() else { return };
        let before = self.take(&path);
        let revision = before.revision;
        let (begun, bytes) = (Instant::now(), content(&format!("{path} {revision}"), SIZE));
        let mut request = registration(&path, bytes.clone());
        request.request_id = format!("replace-{revision}");
        request.file.as_mut().expect("just made").expected_revision = revision;
        let server = self.one_server();
        if !self.send(path.clone(), server, request, bytes, begun).await {
            self.truth.world().live.insert(path, before);
        }
    }

    async fn send(
        &self,
        path: String,
        server: String,
        request: RegisterFileRequest,
        bytes: Vec<u8>,
        begun: Instant,
    ) -> bool {
        let call = async || self.client.files().register_file(addressed(request.clone(), &server)).await;
        let Some(answer) = self.ask("register or replace", call).await else { return false };
        let file = answer.into_inner().file.expect("the contract says so");
        let mut world = self.truth.world();
        let fresh = |server: &String| (server.clone(), Copied { begun, wrong_since: begun });
        let copies = world.servers.keys().map(fresh).collect();
        world.live.insert(path, Live { revision: file.revision, bytes, copies });
        *world.done.entry("registered or replaced").or_default() += 1;
        true
    }

    async fn rename(&mut self) {
        let Some(path) = self.one_file() else { return };
        let (new_path, server) = (self.new_path(), self.one_server());
        let (before, mut copies) = (self.take(&path), BTreeMap::new());
        {
            let (world, begun) = (self.truth.world(), Instant::now());
            for (server, copied) in &before.copies {
                let is_wrong = world.wrong(server, &path, &before.bytes);
                let moved = Copied { begun, wrong_since: begun };
                copies.insert(server.clone(), if is_wrong { *copied } else { moved });
            }
        }
        let request = MoveFileRequest {
            path: path.clone(),
            new_path: new_path.clone(),
            expected_revision: before.revision,
            request_id: format!("move-{}", before.revision),
        };
        let call = async || self.client.files().move_file(addressed(request.clone(), &server)).await;
        match self.ask("move", call).await {
            Some(answer) => {
                let revision = answer.into_inner().file.expect("the contract says so").revision;
                self.truth.world().live.insert(new_path, Live { revision, copies, ..before });
                self.truth.count("moved");
            }
            None => drop(self.truth.world().live.insert(path, before)),
        }
    }

    async fn delete(&mut self) {
        let Some(path) = self.one_file() else { return };
        let server = self.one_server();
        let before = self.take(&path);
        let request = DeleteFileRequest {
            path: path.clone(),
            expected_revision: before.revision,
            request_id: format!("delete-{}", before.revision),
        };
        let call = async || self.client.files().delete_file(addressed(request.clone(), &server)).await;
        match self.ask("delete", call).await {
            Some(_) => self.truth.count("deleted"),
            None => drop(self.truth.world().live.insert(path, before)),
        }
    }

    /// Has registered bytes come back where somebody's lie.
    async fn restore(&mut self) {
        let server = self.one_server();
        let damaged: Vec<(String, i64)> = {
            let world = self.truth.world();
            let is_wrong = |path: &str, live: &Live| world.wrong(&server, path, &live.bytes);
            let wrong = world.live.iter().filter(|(path, live)| is_wrong(path, live));
            wrong.map(|(path, live)| (path.clone(), live.revision)).collect()
        };
        for (path, expected_revision) in damaged {
            let request_id = format!("restore-{}", self.chance.next());
            let request = RestoreFileRequest { path, expected_revision, request_id };
            // Refused where nothing drifted, and nothing is lost where nobody answers.
            let answer = timeout(SLACK, self.client.stores().restore_file(addressed(request, &server))).await;
            if answer.is_ok_and(|answer| answer.is_ok()) {
                self.truth.count("restored");
            }
        }
    }
}

/// Flips a byte so that the times do not show it, as a disk does.
fn rot(place: &Path) {
    let modified = fs::metadata(place).and_then(|found| found.modified()).expect("there");
    let mut bytes = fs::read(place).expect("read");
    bytes[0] ^= 1;
    let file = File::options().write(true).open(place).expect("opened");
    file.write_all_at(&bytes, 0).expect("written");
    file.set_modified(modified).expect("set");
}

/// Lets everybody reach s3 through a relay, as its record in the registry says from now on.
async fn lead_through_relay(installation: &Installation) -> Relay {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let port =
        TcpListener::bind(address(0)).and_then(|bound| bound.local_addr()).expect("a free port").port();
    let own: u16 =
        installation.uri("s3.filesync").rsplit_once(':').expect("a port").1.parse().expect("a port");
    let relay = Relay::start(vec![(address(port), address(own))]).await;
    let location: lockstep_registry::Location =
        format!("sqlite:{}", installation.registry().display()).parse().expect("a location");
    let registry = location.open().expect("a registry");
    let key = server_key(&"s3".parse().expect("an id"));
    let known = registry.get(vec![key.clone()]).await.expect("read").pop().flatten().expect("announced");
    let mut record: ServerRecord = serde_json::from_str(&known.body).expect("a record");
    record.filesync = format!("https://localhost:{port}");
    let put = (key, serde_json::to_string(&record).expect("plain"));
    registry.commit(Commit { puts: vec![put], ..Commit::default() }).await.expect("committed");
    relay
}

/// R17, R43, R44, R45, I10: while servers are killed, stopped and cut off, gateways come, go and freeze, disks are tampered
/// with and files are registered, replaced, moved and deleted, no watcher is ever shown an IN_SYNC whose bytes were not right
/// at the time of the check that it states, none about damage for longer than a walk takes, and none of a server
/// that vanished for longer than ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_in_sync_is_true() {
    let seed = std::env::var("TRUTH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let chance = Chance::new(seed, "truth");
    let often = |server: &str| {
        let child = format!("{server}.filesync");
        (child, "FILESYNC_WALK_EVERY".to_owned(), WALK_EVERY.to_owned())
    };
    let environment = ["s1", "s2", "s3"].map(often).into();
    let installation = Installation::start(Options { environment, ..Options::every("5s") }).await;
    let second = Gateway::start(&installation).await;
    let relay = lead_through_relay(&installation).await;
    let now = Instant::now();
    let standing = |server: String| {
        let transfer = installation.transfer(&server);
        (server, Standing { transfer, vanished: None, calm: now })
    };
    let world = World {
        live: BTreeMap::new(),
        servers: installation.servers().into_iter().map(standing).collect(),
        gateways: [Frozen::default(); 2],
        found: Vec::new(),
        observed: 0,
        stated: 0,
        overtaken: 0,
        done: BTreeMap::new(),
    };
    let truth = Truth { world: Arc::new(Mutex::new(world)), began: now };
    let mut watchers = JoinSet::new();
    let filters = [
        WatchRowsRequest::default(),
        WatchRowsRequest { states: vec![State::InSync.into()], ..WatchRowsRequest::default() },
        WatchRowsRequest { server_ids: vec!["s3".to_owned()], ..WatchRowsRequest::default() },
        WatchRowsRequest { path_prefix: "b/".to_owned(), ..WatchRowsRequest::default() },
    ];
    for (gateway, client) in [installation.client("viewer"), second.client("viewer")].into_iter().enumerate()
    {
        for (number, filter) in filters.iter().enumerate() {
            let again = Chance::new(seed, &format!("watcher {gateway} {number}"));
            watchers.spawn(truth.clone().watch(gateway, client.matrix(), filter.clone(), Some(again)));
        }
        for filter in &filters[..2] {
            watchers.spawn(truth.clone().watch(gateway, client.matrix(), filter.clone(), None));
        }
    }
    let client = installation.client("publisher");
    let mut play = Play { installation, second, relay, truth: truth.clone(), chance, client, number: 0 };
    for _ in 0..FILES {
        play.register().await;
    }
    let (long, short) = (AWAY, Duration::from_secs(2));
    let harms = [
        (Harm::Stop("s1"), long),
        (Harm::Down("s2"), long),
        (Harm::Cut, long),
        (Harm::Kill("s1"), short),
        (Harm::Kill("s2"), short),
        (Harm::Stop("s3"), short),
        (Harm::Down("s1"), short),
        (Harm::Cut, short * 2),
        (Harm::FreezeGateway, short),
        (Harm::FreezeGateway, short * 2),
        (Harm::KillGateway, short),
    ];
    for at in play.chance.shuffled(harms.len()) {
        let (harm, length) = harms[at];
        play.harm(harm, length).await;
        play.work(Duration::from_millis(700)).await;
    }
    wait::until("enough was seen", CHANGE_MAX, || async {
        let observed = truth.world().observed;
        if observed >= OBSERVATIONS { Ok(()) } else { Err(observed) }
    })
    .await;
    watchers.shutdown().await;
    let world = truth.world();
    eprintln!(
        "seed {seed}: {} IN_SYNC cells in {:?}, {} of them with the time of a check, {} overtaken; {:?}",
        world.observed,
        truth.began.elapsed(),
        world.stated,
        world.overtaken,
        world.done
    );
    let (count, first) = (world.found.len(), world.found.iter().take(20).collect::<Vec<_>>());
    assert!(world.found.is_empty(), "seed {seed}: {count} of {} are wrong: {first:#?}", world.observed);
    let expected = ["drift", "loss", "rot", "link", "loose in the way", "moved", "deleted", "restored"];
    let missed: BTreeSet<_> = expected.into_iter().filter(|kind| !world.done.contains_key(kind)).collect();
    assert!(missed.is_empty(), "seed {seed}: never done: {missed:?}");
}
