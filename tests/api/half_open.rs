//! A server whose connections stay open while nothing comes through them any more.

use std::time::Duration;

use lockstep_proto::gateway::v1::{ListServersRequest, cell, server_summary};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::mesh::{Mesh, Options, SOON, eventually};

/// Within this a server that vanished is told, and one that is back.
const NOTICED_MAX: Duration = Duration::from_secs(10);

/// A way to a port that can be made to swallow everything, without ending any connection.
struct Way {
    port: u16,
    to: watch::Sender<u16>,
    open: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Way {
    async fn new() -> Self {
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
                connections.spawn(pass(from_them, to_us, gate.clone()));
                connections.spawn(pass(from_us, to_them, gate.clone()));
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
    }
}

/// R23, R43, R44: a server whose connections stay open while nothing comes through is told as unreachable within ten
/// seconds, and the others are served as if it were not there; within ten seconds after the way is open again it is back,
/// and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_server_delays_nobody() {
    let way = Way::new().await;
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

    way.open.send_replace(true);
    let back = eventually("s3 is back", async || state().await == Some(server_summary::State::Ready));
    timeout(NOTICED_MAX, back).await.expect("it is back in time");
    timeout(SOON, mesh.in_sync("cut/9")).await.expect("it catches up");
}
