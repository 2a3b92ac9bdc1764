//! One gateway, the real process, with 200 servers that are simulated here and 100,000 registered files: its memory, what it
//! costs at rest, and how long a change takes until a watcher sees it.
//!
//! The servers answer over real TLS connections, each with its own certificate. Each has fifty files that it failed to copy,
//! and everything else; asked to catch up, it says at once that it did.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lockstep_chassis::{
    App, Channels, Drain, Health, Lane, TlsDial, TlsIdentity, TlsIncoming, pki::DevelopmentCa, watch,
};
use lockstep_model::{
    Digest, Identity, Md5, Position, Role, ServerId,
    record::{FileRecord, FileState, OperatorRecord, ServerRecord, operator_key, server_key},
};
use lockstep_proto::{
    filesync::v1::{
        Exception, ReconcileRequest, ReconcileResponse, WatchReplicasRequest, WatchReplicasResponse,
        exception::State as Missing,
        replica_service_server::{ReplicaService, ReplicaServiceServer},
    },
    gateway::v1::{
        ListRowsRequest, ListServersRequest, WatchRowsRequest, cell,
        matrix_service_client::MatrixServiceClient, server_summary,
    },
    shared::v1 as shared,
};
use lockstep_registry::{CachedMembers, Commit, Registry as _, SqliteRegistry};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Request, Response};

use crate::{setting, work::Work};

const DOMAIN: &str = "bench.test";
/// Files that each server failed to copy.
const FAILED: usize = 50;
/// Records of one commit.
const BATCH: usize = 10_000;
/// Nothing here takes longer, unless it hangs.
pub(crate) const SOON: Duration = Duration::from_secs(120);
/// What is measured at rest.
const REST: Duration = Duration::from_secs(20);
/// Changes that are watched.
const CHANGES: usize = 100;
/// The goals: resident memory with 200 servers and 100,000 files, share of one processor at rest, and the time until a
/// watcher sees a change (R41).
const MEMORY_MAX: u64 = 256 << 20;
const REST_MAX: f64 = 0.05;
const SEEN_MAX: Duration = Duration::from_secs(1);

/// A server that has everything but some files.
struct Simulated {
    registry: SqliteRegistry,
    drain: Drain,
    failed: Vec<Exception>,
    position: tokio::sync::watch::Sender<Position>,
}

fn position_into(position: Position) -> shared::Position {
    shared::Position {
        epoch: position.epoch.to_string(),
        revision: i64::try_from(position.revision.0).unwrap_or(i64::MAX),
        chain: position.chain.to_string(),
    }
}

#[tonic::async_trait]
impl ReplicaService for Simulated {
    async fn reconcile(&self, _: Request<ReconcileRequest>) -> tonic::Result<Response<ReconcileResponse>> {
        let Ok(head) = self.registry.head().await else { std::future::pending().await };
        self.position.send_replace(head);
        let exception_count = i64::try_from(self.failed.len()).unwrap_or(i64::MAX);
        Ok(Response::new(ReconcileResponse { position: Some(position_into(head)), exception_count }))
    }

    type WatchReplicasStream = watch::BoxStream<WatchReplicasResponse>;

    async fn watch_replicas(
        &self,
        _: Request<WatchReplicasRequest>,
    ) -> tonic::Result<Response<Self::WatchReplicasStream>> {
        let (parts, receiver) = mpsc::channel(4);
        let (mut position, failed) = (self.position.subscribe(), self.failed.clone());
        self.drain.spawn("watch replicas", async move {
            let mut snapshot = true;
            loop {
                let at = *position.borrow_and_update();
                let part = WatchReplicasResponse {
                    incarnation: "one".to_owned(),
                    caught_up: true,
                    snapshot,
                    exceptions: if snapshot { failed.clone() } else { Vec::new() },
                    position: Some(position_into(at)),
                    compared_age: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
                    ..WatchReplicasResponse::default()
                };
                snapshot = false;
                if parts.send(Ok(part)).await.is_err() {
                    return;
                }
                // As filesync does it: at each change, and every five seconds.
                if let Ok(Err(_)) = timeout(Duration::from_secs(5), position.changed()).await {
                    return;
                }
            }
        });
        Ok(Response::new(watch::stream(&self.drain, receiver)))
    }
}

/// Ends with the measurement.
pub(crate) struct Gateway {
    process: Child,
    port: u16,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    async fn start(place: &Place, registry: &Path) -> Result<Self> {
        let program = env::var_os("LOCKSTEP_BIN")
            .map_or_else(|| PathBuf::from("target/release/lockstep"), PathBuf::from);
        let program = fs::canonicalize(&program).with_context(|| format!("{}", program.display()))?;
        let (cert, key) = place.certificate(&Identity::Service("gateway"))?;
        let log = place.directory.join("gateway.log");
        let output = fs::File::create(&log)?;
        let process = Command::new(program)
            .args(["gateway", "--listen=127.0.0.1:0", &format!("--trust-domain={DOMAIN}")])
            .arg(format!("--registry=sqlite:{}", registry.display()))
            .arg(format!("--tls-cert={}", cert.display()))
            .arg(format!("--tls-key={}", key.display()))
            .arg(format!("--tls-ca={}", place.authority().display()))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut gateway = Self { process, port: 0 };
        let begun = Instant::now();
        while gateway.port == 0 {
            if begun.elapsed() > SOON || gateway.process.try_wait()?.is_some() {
                bail!("the gateway did not start: {}", fs::read_to_string(&log)?);
            }
            let text = fs::read_to_string(&log)?;
            let after = text.lines().filter(|line| line.contains("listening")).find_map(|line| {
                let after = line.split_once("127.0.0.1:")?.1;
                after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            });
            gateway.port = after.unwrap_or(0);
            tokio::task::yield_now().await;
        }
        Ok(gateway)
    }

    /// A line of `/proc/<pid>/status`, in bytes.
    pub(crate) fn memory(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with(name)).context("no such line")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
        Ok(kib << 10)
    }

    /// Time on processors so far.
    fn worked(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let after = stat.rsplit_once(')').context("no name")?.1;
        let figures: Vec<&str> = after.split_whitespace().collect();
        let ticks = |at: usize| -> Result<u64> { Ok(figures.get(at).context("too short")?.parse()?) };
        // User and system time, in hundredths of a second.
        Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
    }
}

/// Where everything of the measurement is.
struct Place {
    directory: PathBuf,
    ca: DevelopmentCa,
}

impl Place {
    fn authority(&self) -> PathBuf {
        self.directory.join("pki/ca.pem")
    }

    fn certificate(&self, identity: &Identity) -> Result<(PathBuf, PathBuf)> {
        let folder = self.directory.join("certificates").join(identity.to_string().replace('/', "."));
        fs::create_dir_all(&folder)?;
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        self.ca.issue(identity, &["localhost".to_owned(), "127.0.0.1".to_owned()])?.write(&cert, &key)?;
        Ok((cert, key))
    }

    fn tls(&self, identity: &Identity) -> Result<TlsIdentity> {
        let (cert, key) = self.certificate(identity)?;
        Ok(TlsIdentity::load(&cert, &key, &self.authority(), DOMAIN)?)
    }
}

fn path_of(number: usize) -> String {
    format!("files/{:03}/{number:06}.bin", number / 1_000)
}

pub(crate) fn file_record(origin: &ServerId) -> Result<String> {
    Ok(serde_json::to_string(&FileRecord {
        file_id: "0e37df36-f698-11e6-8dd4-cb9ced3df976".parse()?,
        digest: Digest::of(b""),
        md5: Md5::from_bytes([0; 16]),
        size_bytes: 1_000,
        registered_time: jiff::Timestamp::UNIX_EPOCH,
        origin: origin.clone(),
        state: FileState::Active,
        placement: lockstep_model::record::Placement::All,
        registered_by: "operator/local 1".to_owned(),
        instead_of: None,
        moved_to: None,
        deleted_by: None,
        registered_revision: None,
    })?)
}

/// Measures, and says whether the goals were met.
pub(crate) fn run(work: &Work) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut met = runtime.block_on(measure(work))?;
    met &= runtime.block_on(crate::lost::measure(work)).context("a server that vanishes and returns")?;
    Ok(met)
}

/// A gateway, the real process, and servers that are played here.
pub(crate) struct Installation {
    place: Place,
    pub(crate) registry: SqliteRegistry,
    ids: Vec<ServerId>,
    /// Of each server; one that begins its drain vanishes.
    pub(crate) servers: Vec<Drain>,
    ports: Vec<u16>,
    files: usize,
    head: Position,
    /// The record of a file.
    pub(crate) body: String,
    pub(crate) gateway: Gateway,
    channels: Channels,
}

impl Installation {
    /// All of it, heard.
    pub(crate) async fn start(work: &Work, name: &str, servers: usize, files: usize) -> Result<Self> {
        let directory = work.fresh(name)?;
        let ca = DevelopmentCa::open_or_create(&directory.join("pki"), DOMAIN)?;
        let place = Place { directory, ca };
        let database = place.directory.join("registry.sqlite");
        let registry = SqliteRegistry::open(&database)?;
        let ids: Vec<ServerId> =
            (0..servers).map(|n| Ok(format!("s{n:03}").parse()?)).collect::<Result<_>>()?;
        let drains: Vec<Drain> = ids.iter().map(|_| Drain::new()).collect();
        let role = serde_json::to_string(&OperatorRecord { role: Role::Admin })?;
        let (mut incoming, mut puts) = (Vec::new(), vec![(operator_key("local"), role)]);
        for (id, drain) in ids.iter().zip(&drains) {
            let listener = TlsIncoming::bind("127.0.0.1:0", place.tls(&of_server(id))?, drain).await?;
            let identity = Identity::Server { server_id: id.clone(), service: "timeguard" };
            let guard = TlsIncoming::bind("127.0.0.1:0", place.tls(&identity)?, drain).await?;
            let record = ServerRecord {
                mode: "distributed".parse()?,
                version: "12.04.100".parse()?,
                filesync: format!("https://127.0.0.1:{}", listener.address().port()),
                timeguard: format!("https://127.0.0.1:{}", guard.address().port()),
                store_id: serde_json::from_str("\"0e37df36-f698-11e6-8dd4-cb9ced3df976\"")?,
            };
            puts.push((server_key(id), serde_json::to_string(&record)?));
            incoming.push(listener);
            crate::guards::play(id, registry.clone(), guard, drain);
        }
        registry.commit(Commit { puts, ..Commit::default() }).await?;
        let body = file_record(ids.first().context("at least one server")?)?;
        for from in (0..files).step_by(BATCH) {
            let numbers = from..files.min(from + BATCH);
            let puts = numbers.map(|number| (format!("file/{}", path_of(number)), body.clone())).collect();
            registry.commit(Commit { puts, ..Commit::default() }).await?;
        }
        let head = registry.head().await?;
        let gateway = Gateway::start(&place, &database).await?;
        let channels = Channels::new(TlsDial::new(place.tls(&Identity::Operator("local".to_owned()))?));
        let ports = incoming.iter().map(|listener| listener.address().port()).collect();
        let all = Self { place, registry, ids, servers: drains, ports, files, head, body, gateway, channels };
        incoming.into_iter().enumerate().for_each(|(number, listener)| all.serve(number, listener));
        let begun = Instant::now();
        let mut matrix = all.matrix();
        while ready(&mut matrix).await < servers {
            if begun.elapsed() > SOON {
                bail!("not all servers were heard");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("all heard after {:.2} s from its start", begun.elapsed().as_secs_f64());
        Ok(all)
    }

    fn serve(&self, number: usize, listener: TlsIncoming) {
        let failed = (0..FAILED.min(self.files)).map(|turn| Exception {
            path: path_of((number * FAILED + turn) % self.files),
            revision: i64::try_from(self.head.revision.0).unwrap_or(i64::MAX),
            state: Missing::Failed.into(),
            failure: Some(shared::Failure {
                reason: "DISK_FULL".to_owned(),
                message: "the disk has 0 bytes free, 1000 are needed with the reserve".to_owned(),
                ..shared::Failure::default()
            }),
            ..Exception::default()
        });
        let drain = self.servers[number].clone();
        let position = tokio::sync::watch::Sender::new(self.head);
        let registry = self.registry.clone();
        let simulated = Simulated { registry, drain: drain.clone(), failed: failed.collect(), position };
        let app = App::new("filesync", CachedMembers::new(self.registry.clone()), Health::new(&[]))
            .add(ReplicaServiceServer::new(simulated));
        let ended = drain.clone();
        drain.spawn("a simulated server", async move {
            if app.serve(listener, &ended).await.is_err() {
                ended.begin();
            }
        });
    }

    /// Serves again where a server that vanished was.
    pub(crate) async fn bring_back(&mut self, number: usize) -> Result<()> {
        self.servers[number] = Drain::new();
        let address = format!("127.0.0.1:{}", self.ports[number]);
        let tls = self.place.tls(&of_server(&self.ids[number]))?;
        let listener = TlsIncoming::bind(&address, tls, &self.servers[number]).await?;
        self.serve(number, listener);
        Ok(())
    }

    /// The matrix, through the gateway.
    pub(crate) fn matrix(&self) -> MatrixServiceClient<lockstep_chassis::Channel> {
        let uri = format!("https://127.0.0.1:{}", self.gateway.port);
        MatrixServiceClient::new(self.channels.to(&uri, Identity::Service("gateway"), Lane::Control))
    }
}

fn of_server(id: &ServerId) -> Identity {
    Identity::Server { server_id: id.clone(), service: "filesync" }
}

async fn measure(work: &Work) -> Result<bool> {
    let (servers, files): (usize, usize) = (setting("SERVERS", 200), setting("MATRIX_FILES", 100_000));
    let all = Installation::start(work, "many", servers, files).await?;
    let (mut matrix, gateway) = (all.matrix(), &all.gateway);
    println!("{servers} servers × {files} files on one gateway, {FAILED} failed copies on each server\n");
    let before = gateway.worked()?;
    tokio::time::sleep(REST).await;
    let rest = (gateway.worked()? - before).as_secs_f64() / REST.as_secs_f64();

    let (seen, everywhere) = changes(&mut matrix, &all.registry, &all.body).await?;
    let asked = |name: &'static str, begun: Instant| {
        println!("{name}: {:.1} ms", begun.elapsed().as_secs_f64() * 1_000.0);
    };
    let begun = Instant::now();
    matrix.list_servers(ListServersRequest { page_size: 500, page_token: String::new() }).await?;
    asked("all servers in short", begun);
    for (name, states) in
        [("what failed", vec![cell::State::Failed]), ("what is pending", vec![cell::State::Pending])]
    {
        let states = states.into_iter().map(i32::from).collect();
        let begun = Instant::now();
        let page = matrix.list_rows(ListRowsRequest { states, ..ListRowsRequest::default() }).await?;
        asked(name, begun);
        let _ = page;
    }
    let (memory, peak) = (gateway.memory("VmRSS")?, gateway.memory("VmHWM")?);
    all.servers.iter().for_each(Drain::begin);

    let mut met = true;
    let mut line = |what: &str, value: String, fits: bool| {
        println!("{what}: {value}: {}", if fits { "met" } else { "missed" });
        met &= fits;
    };
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    line("memory, at most 256 MiB", format!("{}, peak {}", mib(memory), mib(peak)), peak <= MEMORY_MAX);
    line("at rest, at most 5 % of a processor", format!("{:.1} %", rest * 100.0), rest <= REST_MAX);
    let at = |times: &[Duration], share: usize| {
        times.get((times.len().max(1) - 1) * share / 100).copied().unwrap_or_default()
    };
    let text = |times: &[Duration]| {
        format!(
            "median {:.1} ms, p99 {:.1} ms",
            at(times, 50).as_secs_f64() * 1e3,
            at(times, 99).as_secs_f64() * 1e3
        )
    };
    line("a watcher sees a change, at most 1 s", text(&seen), at(&seen, 99) <= SEEN_MAX);
    line("and that every server has it", text(&everywhere), at(&everywhere, 99) <= SEEN_MAX);
    Ok(met)
}

async fn ready(matrix: &mut MatrixServiceClient<lockstep_chassis::Channel>) -> usize {
    let request = ListServersRequest { page_size: 500, page_token: String::new() };
    let Ok(answer) = matrix.list_servers(request).await else { return 0 };
    let servers = answer.into_inner().servers;
    servers.iter().filter(|server| server.state() == server_summary::State::Ready).count()
}

/// One change after the other: from the commit until the row is seen, and until all its cells are in sync.
async fn changes(
    matrix: &mut MatrixServiceClient<lockstep_chassis::Channel>,
    registry: &SqliteRegistry,
    body: &str,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let request = WatchRowsRequest { path_prefix: "new/".to_owned(), ..WatchRowsRequest::default() };
    let mut watch = matrix.watch_rows(request).await?.into_inner();
    let (mut seen, mut everywhere) = (Vec::new(), Vec::new());
    for number in 0..CHANGES {
        let path = format!("new/{number}.bin");
        let puts = vec![(format!("file/{path}"), body.to_owned())];
        let begun = Instant::now();
        registry.commit(Commit { puts, ..Commit::default() }).await?;
        let mut first = None;
        loop {
            let batch = timeout(SOON, watch.message()).await??.context("the watch ended")?;
            let Some(row) = batch.rows.into_iter().find(|row| row.path == path) else { continue };
            first.get_or_insert_with(|| begun.elapsed());
            if row.cells.iter().all(|cell| cell.state() == cell::State::InSync) {
                break;
            }
        }
        seen.extend(first);
        everywhere.push(begun.elapsed());
        // A change each fifth of a second.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    seen.sort();
    everywhere.sort();
    Ok((seen, everywhere))
}
