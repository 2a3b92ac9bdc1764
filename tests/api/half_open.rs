//! Bad ways to a server: one through which nothing comes any more, although connections stay open, and a slow one.

use std::time::Duration;

use lockstep_proto::{
    filesync::v1::{NewFile, new_file::Source},
    gateway::v1::{ListServersRequest, cell, server_summary},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    mesh::{Mesh, Options, SOON, chunk, eventually, header, uuid},
    words::told_in_words,
};

/// Within this a server that vanished is told, and one that is back.
const NOTICED_MAX: Duration = Duration::from_secs(10);

/// A way to a port that can be made to swallow everything, without ending any connection.
pub(crate) struct Way {
    pub(crate) port: u16,
    pub(crate) to: watch::Sender<u16>,
    open: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

/// As fast as it goes.
const UNTHROTTLED: u64 = u64::MAX;

impl Way {
    /// One on which what comes from the server is at most so fast, in bytes a second.
    pub(crate) async fn new(rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (to, open) = (watch::Sender::new(0), watch::Sender::new(true));
        let mut tasks = JoinSet::new();
        let (mut target, gate) = (to.subscribe(), open.subscribe());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((theirs, _)) = listener.accept().await {
                let Ok(port) = target.wait_for(|port| *port != 0).await.map(|port| *port) else { return };
                let Ok(ours) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let ((from_them, to_them), (from_us, to_us)) = (theirs.into_split(), ours.into_split());
                connections.spawn(pass(from_them, to_us, gate.clone(), UNTHROTTLED));
                connections.spawn(pass(from_us, to_them, gate.clone(), rate));
            }
        });
        Self { port, to, open, _tasks: tasks }
    }
}

/// Passes bytes on while the gate is open.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<bool>,
    rate: u64,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if gate.wait_for(|open| *open).await.is_err() {
            return;
        }
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        // What was on its way when the gate closed waits behind it.
        if gate.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if rate != UNTHROTTLED {
            tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
        }
    }
}

/// R23, R43, R44: a server whose connections stay open while nothing comes through is told as unreachable within ten
/// seconds, and the others are served as if it were not there; within ten seconds after the way is open again it is back,
/// and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_server_delays_nobody() {
    let way = Way::new(UNTHROTTLED).await;
    let mut mesh = Mesh::new(2).await;
    let advertise = format!("https://127.0.0.1:{}", way.port);
    mesh.start("s3", Options { advertise, ..Options::default() }).await;
    way.to.send_replace(mesh.servers["s3"].port);
    let caller = mesh.operator("publisher");
    let state = async || {
        let answer = caller.matrix().list_servers(ListServersRequest::default()).await.expect("lists");
        let servers = answer.into_inner().servers;
        servers.iter().find(|server| server.server_id == "s3").map(|server| server.state())
    };
    eventually("s3 is heard", async || state().await == Some(server_summary::State::Ready)).await;
    caller.register("s1", "before", b"x").await.expect("registered");
    mesh.in_sync("before").await;

    mesh.caught_up("s3").await;
    way.open.send_replace(false);
    let noticed = async {
        eventually("s3 is told", async || state().await == Some(server_summary::State::Unreachable)).await;
    };
    let served = async {
        for number in 0..10 {
            let (server, path) = (["s1", "s2"][number % 2], format!("cut/{number}"));
            caller.register(server, &path, b"x").await.expect("registered");
        }
        eventually("s1 and s2 have them", async || {
            (0..10).all(|number| {
                ["s1", "s2"].iter().all(|server| mesh.transfer(server).join(format!("cut/{number}")).exists())
            })
        })
        .await;
    };
    let both = async { tokio::join!(noticed, timeout(NOTICED_MAX, served)) };
    let ((), served) = timeout(NOTICED_MAX, both).await.expect("it is noticed in time");
    served.expect("the others are served meanwhile");
    let row = mesh.row("before").await.expect("a row");
    assert_eq!(row.cells[2].state(), cell::State::Unreachable);
    assert_eq!(row.cells[2].last_known_state(), cell::State::InSync);
    told_in_words(&mesh, "half_open", "before", "s3").await;

    way.open.send_replace(true);
    let back = eventually("s3 is back", async || state().await == Some(server_summary::State::Ready));
    timeout(NOTICED_MAX, back).await.expect("it is back in time");
    timeout(SOON, mesh.in_sync("cut/9")).await.expect("it catches up");
}

/// R43: of a copy that comes through a throttled line, the rate and the time that is left are told within a factor of two,
/// from its third second to its last but one; the server as a whole says the same, and when it is there nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_copy_tells_its_time() {
    const SIZE: usize = 24 << 20;
    const RATE: u64 = 3 << 20;
    let way = Way::new(RATE).await;
    let mut mesh = Mesh::new(1).await;
    let advertise = format!("https://127.0.0.1:{}", way.port);
    mesh.start("s2", Options { advertise, ..Options::default() }).await;
    way.to.send_replace(mesh.servers["s2"].port);
    let caller = mesh.operator("publisher");
    let id = uuid();
    let bytes = vec![7; SIZE];
    let chunks = bytes.chunks(128 << 10).enumerate().map(|(number, data)| chunk(number * (128 << 10), data));
    let parts = std::iter::once(header(&id, SIZE, 0)).chain(chunks).collect();
    eventually("s2 is heard", async || {
        let answer = caller.matrix().list_servers(ListServersRequest::default()).await.expect("lists");
        answer.into_inner().servers.iter().filter(|s| s.state() == server_summary::State::Ready).count() == 2
    })
    .await;
    caller.upload("s2", parts).await.expect("uploaded");
    let source = Some(Source::UploadId(id));
    let file = NewFile { path: "slow.bin".to_owned(), source, ..NewFile::default() };
    caller.register_as("s2", &uuid(), file).await.expect("registered");

    let mut told: Vec<(Instant, Duration, u64)> = Vec::new();
    let mut begun = None;
    eventually("s1 has it", async || {
        let row = mesh.row("slow.bin").await.unwrap_or_default();
        let Some(cell) = row.cells.first() else { return false };
        if cell.state() == cell::State::Copying && cell.copied_bytes > 0 {
            let now = Instant::now();
            let begun: &mut Instant = begun.get_or_insert(now);
            assert_eq!(cell.source_server_id, "s2");
            if now - *begun >= Duration::from_secs(2) {
                let left = cell.time_left.and_then(|left| left.try_into().ok()).expect("it moves");
                told.push((now, left, cell.bytes_per_second as u64));
                let answer =
                    caller.matrix().list_servers(ListServersRequest::default()).await.expect("lists");
                let summary = answer.into_inner().servers.swap_remove(0);
                assert!(summary.transfers.is_empty() || summary.copying_count == 1, "{summary:?}");
            }
        }
        cell.state() == cell::State::InSync
    })
    .await;
    let end = Instant::now();
    assert!(told.len() > 20, "it was watched: {told:?}");
    for (at, left, rate) in told {
        let truth = (end - at).as_secs_f64();
        let ratio = left.as_secs_f64() / truth;
        assert!(truth < 2.0 || (0.5..=2.0).contains(&ratio), "{left:?} told, {truth} s true, {rate} B/s");
        assert!((RATE / 2..=RATE * 2).contains(&rate), "{rate} B/s told, {RATE} true");
    }
    let answer = caller.matrix().list_servers(ListServersRequest::default()).await.expect("lists");
    let summary = answer.into_inner().servers.swap_remove(0);
    assert_eq!((summary.remaining_bytes, summary.time_left), (0, Some(prost_types::Duration::default())));
}
