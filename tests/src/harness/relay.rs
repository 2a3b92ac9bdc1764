//! A relay of TCP connections that counts what goes through it, and holds it up where a test says so. TLS passes through:
//! nobody in between can read or change it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Passes on what arrives at some addresses to others, until it is dropped.
#[derive(Debug)]
pub struct Relay {
    way: Way,
    tasks: Vec<JoinHandle<()>>,
}

/// What all connections have in common.
#[derive(Clone, Debug)]
struct Way {
    sent: Arc<AtomicU64>,
    limit: watch::Sender<u64>,
    open: watch::Sender<bool>,
}

impl Relay {
    /// Begins: from where to where.
    ///
    /// # Panics
    /// If nobody may listen at one of the addresses.
    pub async fn start(ways: Vec<(SocketAddr, SocketAddr)>) -> Self {
        let way =
            Way { sent: Arc::default(), limit: watch::Sender::new(u64::MAX), open: watch::Sender::new(true) };
        let mut tasks = Vec::new();
        for (at, to) in ways {
            let listener = TcpListener::bind(at).await.expect("a free address");
            #[allow(clippy::disallowed_methods, reason = "aborted when it is dropped")]
            tasks.push(tokio::spawn(serve(listener, to, way.clone())));
        }
        Self { way, tasks }
    }

    /// Bytes that were sent through it so far, over all connections; answers are not counted.
    pub fn sent_bytes(&self) -> u64 {
        self.way.sent.load(Ordering::Relaxed)
    }

    /// From this many bytes on nothing is passed on, until the limit is raised.
    pub fn hold_at(&self, bytes: u64) {
        self.way.limit.send_replace(bytes);
    }

    /// Keeps back everything in both directions, and ends no connection; or lets it through again.
    pub fn cut(&self, is_cut: bool) {
        self.way.open.send_replace(!is_cut);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, way: Way) {
    while let Ok((near, _)) = listener.accept().await {
        let way = way.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "it ends with its connection, or with the runtime of the test"
        )]
        tokio::spawn(async move {
            // Whoever is not there looks from outside like whoever hangs up.
            let Ok(far) = TcpStream::connect(to).await else { return };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::select! {
                biased;
                () = pass(near_in, far_out, &way, true) => {}
                () = pass(far_in, near_out, &way, false) => {}
            }
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way, is_counted: bool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let Way { sent, limit, open } = way;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // The senders are ours, so that waiting cannot fail.
        let _ = open.subscribe().wait_for(|open| *open).await;
        if is_counted {
            let sent = sent.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
            let _ = limit.subscribe().wait_for(|limit| sent <= *limit).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
