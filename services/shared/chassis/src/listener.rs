//! The listener: accepts, shakes hands aside, and hands on what is proven.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use lockstep_model::Identity;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{connection::Connection, drain::Drain, metrics, tls::TlsIdentity, verify::identity_of};

/// The longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes at once. More wait in the backlog of the kernel.
const HANDSHAKES_MAX: usize = 256;
/// Connections that are proven and not yet served.
const WAITING_MAX: usize = 64;
/// After an error of `accept`, which usually means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refused handshakes are logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A connection whose other end proved its identity.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    identity: Identity,
}

/// Proven connections, until the process drains.
#[derive(Debug)]
pub struct TlsIncoming {
    connections: mpsc::Receiver<TlsConnection>,
    address: SocketAddr,
}

impl TlsIncoming {
    /// Listens on `address`, with port 0 on any free port. Each handshake uses the certificates of its moment.
    ///
    /// # Errors
    /// The error of the operating system, such as an address in use.
    pub async fn bind(address: &str, tls: TlsIdentity, drain: &Drain) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, connections) = mpsc::channel(WAITING_MAX);
        drain.spawn("listener", accept(listener, tls, drain.clone(), sender));
        Ok(Self { connections, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Stream for TlsIncoming {
    type Item = TlsConnection;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TlsConnection>> {
        self.connections.poll_recv(cx)
    }
}

async fn accept(listener: TcpListener, tls: TlsIdentity, drain: Drain, proven: mpsc::Sender<TlsConnection>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut refusals = Refusals { quiet_until: Instant::now(), unlogged: 0 };
    let (refused, mut refusal) = mpsc::channel::<String>(WAITING_MAX);
    loop {
        let next = async {
            let permit = handshakes.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = drain.started() => return,
            Some(why) = refusal.recv() => {
                refusals.log(&why);
                continue;
            }
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                refusals.log(&format!("accept failed: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, proven, refused, begun) = (tls.clone(), proven.clone(), refused.clone(), drain.clone());
        // One slow client must not hold up the others.
        drain.spawn_for_client("handshake", async move {
            let shaken = tokio::select! {
                biased;
                () = begun.started() => return,
                shaken = tokio::time::timeout(HANDSHAKE_MAX, shake(stream, &tls)) => shaken,
            };
            drop(permit);
            let why = match shaken {
                Ok(Ok(connection)) => {
                    tokio::select! {
                        biased;
                        () = begun.started() => {}
                        _ = proven.send(connection) => {}
                    }
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it took longer than 10 s".to_owned(),
            };
            metrics::handshake_failed();
            let _ = refused.try_send(why); // the line is a courtesy, the counter counts all
        });
    }
}

async fn shake(stream: TcpStream, tls: &TlsIdentity) -> io::Result<TlsConnection> {
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(tls.server_config()).accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = certificate
        .ok_or_else(|| "there is no certificate".to_owned())
        .and_then(|certificate| identity_of(certificate, tls.trust_domain()))
        .map_err(io::Error::other)?;
    Ok(TlsConnection { stream, identity })
}

/// Anybody can make handshakes fail, so they must not fill the log.
struct Refusals {
    quiet_until: Instant,
    unlogged: u64,
}

impl Refusals {
    fn log(&mut self, why: &str) {
        if Instant::now() < self.quiet_until {
            self.unlogged += 1;
            return;
        }
        tracing::info!(why, more = self.unlogged, "connection refused in its handshake");
        self.quiet_until = Instant::now() + LOG_INTERVAL;
        self.unlogged = 0;
    }
}

impl Connection for TlsConnection {
    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
