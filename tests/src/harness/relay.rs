//! A relay of TCP connections that counts what goes through it. TLS passes through: nobody in between can read or change it.

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
    task::JoinHandle,
};

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Passes on what arrives at one address to another one, until it is dropped.
#[derive(Debug)]
pub struct Relay {
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Begins.
    ///
    /// # Panics
    /// If nobody may listen at `at`.
    #[allow(
        clippy::disallowed_methods,
        reason = "aborted when it is dropped, and it ends with the runtime of the test"
    )]
    pub async fn start(at: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.expect("a free address");
        let sent: Arc<AtomicU64> = Arc::default();
        let counter = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    // Whoever is not there looks from outside like whoever hangs up.
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    let back = AtomicU64::new(0);
                    tokio::select! {
                        biased;
                        () = pass(near_in, far_out, &counter) => {}
                        () = pass(far_in, near_out, &back) => {}
                    }
                });
            }
        });
        Self { sent, task }
    }

    /// Bytes that were sent to `to` so far, over all connections.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counter: &AtomicU64) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
