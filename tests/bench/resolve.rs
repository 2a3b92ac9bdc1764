//! Connection data for devices: calls a second and how long each takes, at 1,000 updates × 200 servers, beside a bare tonic
//! service that gives a ready answer of the same message, in turn, over the same kind of connection, in one process.
//!
//! The resolver is the whole service: TLS, identities, rights, deadlines, spans; its view is fed by servers that are simulated
//! here. Each server lacks a quarter of the updates, and is the current server of as many devices, so that a quarter of the
//! answers is a choice among the others: the hardest one, among 150 servers of other sites. Meanwhile servers report changes of their copies, forty a second.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use lockstep_chassis::{
    Channel, Channels, Drain, Health, Lane, TlsDial, TlsIdentity, TlsIncoming, pki::DevelopmentCa,
};
use lockstep_clocks::{ClockBoard, GrpcClockReports};
use lockstep_model::{
    Identity, Reason, Revision, Role, ServerId,
    clock::SystemEntropy,
    firmware::firmware_key,
    record::{AddressRecord, OperatorRecord, ServerRecord, address_key, operator_key, server_key},
};
use lockstep_proto::resolver::v1::{
    Connection, ResolveConnectionRequest, ResolveConnectionResponse,
    connection_service_client::ConnectionServiceClient,
    connection_service_server::{ConnectionService, ConnectionServiceServer},
    resolve_connection_request::Subject,
};
use lockstep_registry::{Commit, MemoryRegistry, Registry as _};
use lockstep_replicas::{
    Address, Live as _, Parts, Reports,
    domain::{
        cause::Cause,
        report::{Exception, Part, Progress, Summary},
    },
};
use resolver::domain::resolve::Question;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Request, Response, transport::server::Connected};

use crate::{many::file_record, setting, work::Work};

const DOMAIN: &str = "bench.test";
/// Files of an update.
const FILES: usize = 3;
/// Sites of servers.
const SITES: usize = 20;
/// Connections, and calls at once on each, of the closed loop.
const CONNECTIONS: u8 = 4;
const AT_ONCE: usize = 16;
/// How long one side is measured in one round.
const ROUND: Duration = Duration::from_secs(4);
/// Calls a second of the open loop, in portions.
const RATE: usize = 10_000;
const PORTION: usize = 10;
/// Between two reports of changes.
const CHANGE_EVERY: Duration = Duration::from_millis(25);
/// Nothing here takes longer, unless it hangs.
const SOON: Duration = Duration::from_secs(60);
/// The goals: calls a second beside the bare service, and p99 in the open loop.
const RATIO_MIN: f64 = 0.8;
const P99_MAX: Duration = Duration::from_millis(2);

/// The way of one server to the resolver.
type Stream = mpsc::Sender<Result<Part, Cause>>;

/// Servers that report what they lack, and go on when they are told to.
#[derive(Clone)]
struct Simulated {
    registry: MemoryRegistry,
    lacks: Arc<BTreeMap<ServerId, Vec<String>>>,
    streams: Arc<Mutex<Vec<Stream>>>,
}

fn copying(path: &str) -> (String, Exception) {
    let exception = Exception {
        revision: Revision(1),
        progress: Progress::Copying,
        cause: None,
        retry_delay: None,
        age: Duration::ZERO,
    };
    (path.to_owned(), exception)
}

impl Reports for Simulated {
    async fn watch(&self, server: &Address) -> Result<Parts, Cause> {
        let away = |text: &str| Cause::new(Reason::PeerUnreachable, text);
        let position = self.registry.head().await.map_err(|_| away("no registry"))?;
        let lacks = self.lacks.get(&server.id).ok_or_else(|| away("no such server"))?;
        let end = Summary {
            position,
            conditions: Vec::new(),
            transfers: BTreeMap::new(),
            held_ahead: Vec::new(),
            compared_age: None,
            hashed_age: None,
            stream_age: None,
        };
        let (sender, receiver) = mpsc::channel(64);
        let first = Part {
            incarnation: "one".to_owned(),
            snapshot: true,
            exceptions: lacks.iter().map(|path| copying(path)).collect(),
            cleared: Vec::new(),
            end: Some(end),
        };
        let _ = sender.try_send(Ok(first));
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed())
    }
}

impl Simulated {
    /// Turn after turn, some server has copied a file of an update, and lacks it again the next time.
    async fn change(self) {
        let Ok(position) = self.registry.head().await else { return };
        for turn in 0.. {
            sleep(CHANGE_EVERY).await;
            let stream = {
                let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                streams.get(turn % streams.len().max(1)).cloned()
            };
            let path = path_of(turn % 97, 0);
            let has = (turn / 97) % 2 == 0;
            let part = Part {
                incarnation: "one".to_owned(),
                snapshot: false,
                exceptions: if has { Vec::new() } else { vec![copying(&path)] },
                cleared: if has { vec![path] } else { Vec::new() },
                end: Some(Summary {
                    position,
                    conditions: Vec::new(),
                    transfers: BTreeMap::new(),
                    held_ahead: Vec::new(),
                    compared_age: None,
                    hashed_age: None,
                    stream_age: None,
                }),
            };
            if let Some(stream) = stream {
                let _ = stream.try_send(Ok(part));
            }
        }
    }
}

/// A bare service with a ready answer.
#[derive(Clone)]
struct Echo(ResolveConnectionResponse);

#[tonic::async_trait]
impl ConnectionService for Echo {
    async fn resolve_connection(
        &self,
        _: Request<ResolveConnectionRequest>,
    ) -> tonic::Result<Response<ResolveConnectionResponse>> {
        Ok(Response::new(self.0.clone()))
    }
}

/// A connection as tonic's own server takes it.
struct Io<T>(T);

impl<T> Connected for Io<T> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<T: AsyncRead + Unpin> AsyncRead for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn path_of(update: usize, file: usize) -> String {
    format!("firmware/{update:04}/{file}.bin")
}

fn update_id(update: usize) -> String {
    format!("0e37df36-f698-41e6-8dd4-{update:012x}")
}

fn server_name(number: usize) -> String {
    format!("s{number:03}")
}

/// Whether the server lacks the update.
fn lacks(server: usize, update: usize) -> bool {
    (server + update).is_multiple_of(4)
}

/// The questions, one after the other: every update, every server, another device each time.
#[derive(Default)]
struct Questions {
    turn: AtomicUsize,
    updates: usize,
    servers: usize,
}

impl Questions {
    fn next(&self) -> ResolveConnectionRequest {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        ResolveConnectionRequest {
            subject: Some(Subject::FirmwareId(update_id(turn.wrapping_mul(7_919) % self.updates))),
            current_server_id: server_name(turn.wrapping_mul(31) % self.servers),
            device_id: format!("device-{turn}"),
            ..ResolveConnectionRequest::default()
        }
    }
}

/// One of the two that are measured.
struct Side {
    name: &'static str,
    channels: Vec<Channel>,
    rates: Vec<f64>,
    /// Microseconds of a processor for a call.
    costs: Vec<f64>,
}

/// Measures, and says whether the goals were met.
pub(crate) fn run(work: &Work) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(work))
}

async fn measure(work: &Work) -> Result<bool> {
    let (servers, updates): (usize, usize) = (setting("SERVERS", 200), setting("UPDATES", 1_000));
    let (rounds, drain) = (setting("ROUNDS", 5_usize), Drain::new());
    let directory = work.fresh("resolve")?;
    let ca = DevelopmentCa::open_or_create(&directory.join("pki"), DOMAIN)?;
    let tls = |identity: &Identity| -> Result<TlsIdentity> {
        let folder = directory.join(identity.to_string().replace('/', "."));
        std::fs::create_dir_all(&folder)?;
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        ca.issue(identity, &["localhost".to_owned(), "127.0.0.1".to_owned()])?.write(&cert, &key)?;
        Ok(TlsIdentity::load(&cert, &key, &directory.join("pki/ca.pem"), DOMAIN)?)
    };
    let simulated = simulated(servers, updates).await?;
    let identity = Identity::Service("resolver");
    let caller = tls(&Identity::Operator("local".to_owned()))?;
    let channels = |port: u16| -> Vec<Channel> {
        let channels = Channels::new(TlsDial::new(caller.clone()));
        let uri = format!("https://127.0.0.1:{port}");
        (0..CONNECTIONS).map(|lane| channels.to(&uri, identity.clone(), Lane::Bulk(lane))).collect()
    };

    let incoming = TlsIncoming::bind("127.0.0.1:0", tls(&identity)?, &drain).await?;
    let mut resolver = Side {
        name: "resolver",
        channels: channels(incoming.address().port()),
        rates: Vec::new(),
        costs: Vec::new(),
    };
    let parts = resolver::Parts {
        registry: simulated.registry.clone(),
        reports: simulated.clone(),
        // No server has announced a timeguard, so nobody is asked.
        clock_reports: GrpcClockReports::new(Channels::new(TlsDial::new(caller.clone()))),
        password_key: None,
        health: Health::new(&["registry"]),
        drain: drain.clone(),
        entropy: SystemEntropy,
    };
    let ended = drain.clone();
    drain.spawn("the resolver", async move {
        if resolver::serve(parts, incoming).await.is_err() {
            ended.begin();
        }
    });
    let questions = Arc::new(Questions { turn: AtomicUsize::new(0), updates, servers });
    let known = ready(&resolver, &questions).await?;

    let incoming = TlsIncoming::bind("127.0.0.1:0", tls(&identity)?, &drain).await?;
    let mut echo = Side {
        name: "bare tonic",
        channels: channels(incoming.address().port()),
        rates: Vec::new(),
        costs: Vec::new(),
    };
    let ended = drain.clone();
    drain.spawn("the bare service", async move {
        let incoming = incoming.map(|connection| Ok::<_, io::Error>(Io(connection)));
        let server =
            tonic::transport::Server::builder().add_service(ConnectionServiceServer::new(Echo(known)));
        let _ = server.serve_with_incoming_shutdown(incoming, async move { ended.started().await }).await;
    });
    let answer = alone(&simulated, &questions, &drain).await?;
    let ended = drain.clone();
    drain.spawn("changes", async move {
        tokio::select! {
            biased;
            () = ended.started() => {}
            () = simulated.change() => {}
        }
    });

    println!("{updates} updates × {servers} servers, {} calls at once", usize::from(CONNECTIONS) * AT_ONCE);
    println!("an answer alone, without a call: {:.1} µs\n", answer.as_secs_f64() * 1e6);
    for round in 1..=rounds {
        for side in [&mut echo, &mut resolver] {
            let before = worked()?;
            let rate = closed(side, &questions, &drain).await?;
            // Both ends together; it hardly depends on what else the machine does.
            let cost = (worked()? - before).as_secs_f64() * 1e6 / (rate * ROUND.as_secs_f64());
            println!(
                "round {round}: {} {rate:.0} calls a second, {cost:.0} µs of a processor each",
                side.name
            );
            side.rates.push(rate);
            side.costs.push(cost);
        }
    }
    let median = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let (rate, bare) = (median(&resolver.rates), median(&echo.rates));
    let ratio = rate / bare;
    let mut met = true;
    let mut line = |what: &str, value: String, fits: bool| {
        println!("{what}: {value}: {}", if fits { "met" } else { "missed" });
        met &= fits;
    };
    println!();
    let (cost, bare_cost) = (median(&resolver.costs), median(&echo.costs));
    println!(
        "processor time of a call, both ends: {cost:.0} µs beside {bare_cost:.0} µs, {:.2}",
        bare_cost / cost
    );
    let rates = format!("{rate:.0} beside {bare:.0}, {ratio:.2}");
    line("calls a second, at least 0.8 of bare tonic", rates, ratio >= RATIO_MIN);
    for side in [&echo, &resolver] {
        let (times, lost) = open(side, &questions, &drain).await?;
        let at =
            |share: usize| times.get((times.len().max(1) - 1) * share / 1_000).copied().unwrap_or_default();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mut text =
            format!("p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms", ms(at(500)), ms(at(990)), ms(at(999)));
        if lost > 0 {
            text.push_str(&format!(", {lost} calls without an answer"));
        }
        match side.name {
            "resolver" => line(
                "resolver at 10,000 calls a second, p99 at most 2 ms",
                text,
                lost == 0 && at(990) <= P99_MAX,
            ),
            name => println!("{name} at 10,000 calls a second: {text}"),
        }
    }
    drain.begin();
    Ok(met)
}

/// Time of this process on processors so far.
fn worked() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').context("no name")?.1;
    let figures: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| -> Result<u64> { Ok(figures.get(at).context("too short")?.parse()?) };
    // User and system time, in hundredths of a second.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// How long an answer takes without the call around it: over a view of its own, which is fed in the same way.
async fn alone(simulated: &Simulated, questions: &Questions, drain: &Drain) -> Result<Duration> {
    let (board, health) = (resolver::engine::Board::new(), Health::new(&["registry"]));
    let process = lockstep_replicas::Process { health: &health, drain, entropy: &SystemEntropy };
    let registry = &simulated.registry;
    lockstep_replicas::start(registry, simulated.clone(), &board, process, lockstep_replicas::OnlyWatch);
    let begun = Instant::now();
    let heard = || board.read(|view| view.copies().servers().values().filter(|s| s.reachable()).count());
    while heard() < questions.servers {
        if begun.elapsed() > SOON {
            bail!("not all servers were heard");
        }
        sleep(Duration::from_millis(10)).await;
    }
    let answers = resolver::engine::resolver::Resolver::new(board, ClockBoard::new(), None);
    let asked: Vec<Question> = (0..50_000).filter_map(|_| question(questions.next())).collect();
    let begun = Instant::now();
    for question in &asked {
        answers.resolve(question).map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    Ok(begun.elapsed() / u32::try_from(asked.len())?)
}

fn question(request: ResolveConnectionRequest) -> Option<Question> {
    let Some(Subject::FirmwareId(id)) = request.subject else { return None };
    Some(Question {
        subject: resolver::domain::resolve::Subject::Firmware(id.parse().ok()?),
        current: request.current_server_id.parse().ok()?,
        device: request.device_id.parse().ok()?,
        site: String::new(),
        is_explained: false,
    })
}

/// The registry with all records, and the servers with what they lack.
async fn simulated(servers: usize, updates: usize) -> Result<Simulated> {
    let epoch = lockstep_model::Epoch("0e37df36-f698-41e6-8dd4-cb9ced3df976".parse()?);
    let registry = MemoryRegistry::new(epoch);
    let first: ServerId = server_name(0).parse()?;
    let body = file_record(&first)?;
    let mut puts = Vec::new();
    for update in 0..updates {
        puts.extend((0..FILES).map(|file| (format!("file/{}", path_of(update, file)), body.clone())));
    }
    // The files are of revision 1, as the servers say.
    registry.commit(Commit { puts, ..Commit::default() }).await?;
    let role = serde_json::to_string(&OperatorRecord { role: Role::Admin })?;
    let mut puts = vec![(operator_key("local"), role)];
    let mut lacking = BTreeMap::new();
    for number in 0..servers {
        let id: ServerId = server_name(number).parse()?;
        let record = ServerRecord {
            mode: "distributed".parse()?,
            version: "12.04.100".parse()?,
            filesync: format!("https://{id}.bench.test:7001"),
            timeguard: String::new(),
            store_id: serde_json::from_str("\"0e37df36-f698-41e6-8dd4-cb9ced3df976\"")?,
        };
        let said = AddressRecord {
            site: format!("site-{}", number % SITES),
            public_address: format!("{id}.public.test"),
            public_https_port: Some(443),
            ..AddressRecord::default()
        };
        puts.push((server_key(&id), serde_json::to_string(&record)?));
        puts.push((address_key(&id), serde_json::to_string(&said)?));
        let lacked = (0..updates).filter(|update| lacks(number, *update));
        lacking.insert(id, lacked.map(|update| path_of(update, FILES - 1)).collect());
    }
    for update in 0..updates {
        let files: Vec<_> = (0..FILES)
            .map(|file| {
                serde_json::json!({ "path": path_of(update, file), "size_bytes": 1_000, "sha256": "00",
                    "upload_id": "0e37df36-f698-41e6-8dd4-cb9ced3df976" })
            })
            .collect();
        let record = serde_json::json!({
            "model": "M1", "version": update.to_string(), "state": "PUBLISHED", "origin": "import",
            "server_id": first, "target": format!("firmware/{update:04}"), "protocol": "HTTPS_WEBDAV",
            "added_time": "1970-01-01T00:00:00Z", "files": files, "requested_by": "operator/local 1",
        });
        puts.push((firmware_key(&update_id(update).parse()?), record.to_string()));
    }
    registry.commit(Commit { puts, ..Commit::default() }).await?;
    Ok(Simulated { registry, lacks: Arc::new(lacking), streams: Arc::default() })
}

/// Waits until every server is known to the resolver: each that holds an update is sent for itself, and no other.
async fn ready(side: &Side, questions: &Questions) -> Result<ResolveConnectionResponse> {
    let channel = side.channels.first().context("a channel")?;
    let mut client = ConnectionServiceClient::new(channel.clone());
    let mut known = None;
    for server in 0..questions.servers {
        for update in 0..2 {
            let request = ResolveConnectionRequest {
                subject: Some(Subject::FirmwareId(update_id(update))),
                current_server_id: server_name(server),
                device_id: "device".to_owned(),
                ..ResolveConnectionRequest::default()
            };
            let begun = Instant::now();
            loop {
                if begun.elapsed() > SOON {
                    bail!("{} was not heard", server_name(server));
                }
                let Ok(answer) = client.resolve_connection(request.clone()).await else { continue };
                let answer = answer.into_inner();
                let sent = answer.connection.as_ref().map(|c: &Connection| c.server_id.clone());
                if (sent.as_deref() == Some(&server_name(server))) != lacks(server, update) {
                    known = Some(answer);
                    break;
                }
            }
        }
    }
    known.context("no server")
}

/// As many calls as fit, with a fixed number of them at once: calls a second.
async fn closed(side: &Side, questions: &Arc<Questions>, drain: &Drain) -> Result<f64> {
    let (done, finished) = mpsc::channel(usize::from(CONNECTIONS) * AT_ONCE);
    let begun = Instant::now();
    for channel in side.channels.iter().flat_map(|channel| std::iter::repeat_n(channel, AT_ONCE)) {
        let mut client = ConnectionServiceClient::new(channel.clone());
        let (questions, done) = (questions.clone(), done.clone());
        drain.spawn("calls", async move {
            let mut calls = 0_usize;
            while begun.elapsed() < ROUND {
                if client.resolve_connection(questions.next()).await.is_err() {
                    return;
                }
                calls += 1;
            }
            let _ = done.send(calls).await;
        });
    }
    drop(done);
    let mut counts = finished;
    let (mut calls, mut callers) = (0, 0);
    while let Some(count) = timeout(SOON, counts.recv()).await? {
        calls += count;
        callers += 1;
    }
    if callers < usize::from(CONNECTIONS) * AT_ONCE {
        bail!("{}: a call failed", side.name);
    }
    Ok(calls as f64 / begun.elapsed().as_secs_f64())
}

/// Calls at fixed moments, whether the earlier ones were answered or not: how long each takes from its moment, sorted, and
/// how many had no answer.
async fn open(side: &Side, questions: &Arc<Questions>, drain: &Drain) -> Result<(Vec<Duration>, usize)> {
    let total = RATE * usize::try_from(ROUND.as_secs())?;
    let (done, mut finished) = mpsc::channel(total);
    let begun = Instant::now() + Duration::from_millis(10);
    for number in 0..total / PORTION {
        let moment = begun + Duration::from_secs(1) * u32::try_from(number * PORTION)? / u32::try_from(RATE)?;
        sleep_until(moment).await;
        // The timer ticks in milliseconds: what it is late belongs to nobody's answer.
        let moment = Instant::now();
        for turn in 0..PORTION {
            let channel = side.channels.get(turn % side.channels.len()).context("a channel")?;
            let mut client = ConnectionServiceClient::new(channel.clone());
            let (question, done) = (questions.next(), done.clone());
            drain.spawn("call", async move {
                if client.resolve_connection(question).await.is_ok() {
                    let _ = done.send(moment.elapsed()).await;
                }
            });
        }
    }
    drop(done);
    let mut times = Vec::with_capacity(total);
    while let Some(time) = timeout(SOON, finished.recv()).await? {
        times.push(time);
    }
    times.sort();
    let lost = total - times.len();
    Ok((times, lost))
}
