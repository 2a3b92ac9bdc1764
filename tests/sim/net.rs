//! The simulated network under the real gRPC code: a host is who it is by its name, as a certificate would say.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures::Stream;
use lockstep_chassis::{Connection, Dial};
use lockstep_model::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::{Trace, brief};

/// Where every host listens.
pub(crate) const PORT: u16 = 7_443;

/// The host of the gateway.
pub(crate) const GATEWAY: &str = "gateway";

/// Where a host answers.
pub(crate) fn uri(host: &str) -> String {
    format!("http://{host}:{PORT}")
}

/// Who a host is: `s1` is the filesync of a server, `operator-1` is a person, whoever else has its service's name.
pub(crate) fn identity(host: &str) -> Option<Identity> {
    match host {
        GATEWAY => Some(Identity::Service("gateway")),
        "resolver" => Some(Identity::Service("resolver")),
        _ if host.starts_with("operator") => Some(Identity::Operator("sim".to_owned())),
        _ if host.starts_with('s') => {
            Some(Identity::Server { server_id: host.parse().ok()?, service: "filesync" })
        }
        _ => None,
    }
}

/// Flips one bit on the wire, once: behind a mark in what a host receives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flip {
    mark: Arc<Mutex<Option<Vec<u8>>>>,
    count: Arc<AtomicU64>,
}

impl Flip {
    /// Arms it.
    pub(crate) fn behind(&self, mark: &[u8]) {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark.to_vec());
    }

    /// How many bits were flipped.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn pass(&self, bytes: &mut [u8]) {
        let mut armed = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mark) = armed.as_ref() else { return };
        let found = bytes.windows(mark.len()).position(|window| window == mark);
        if let Some(byte) = found.and_then(|at| bytes.get_mut(at + mark.len())) {
            *byte ^= 1;
            *armed = None;
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The sockets of a host. When its process is killed, the tasks that own them are dropped in an order that the runtime
/// does not promise; they are closed in the order in which they were opened, so that one seed has one trace.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    dying: AtomicBool,
    opened: AtomicU64,
    left: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Sockets {
    /// The process is about to be killed.
    pub(crate) fn die(&self) {
        self.dying.store(true, Ordering::Relaxed);
    }

    /// The process begins. What this returns has to be dropped last.
    pub(crate) fn live(self: &Arc<Self>) -> LastRites {
        self.dying.store(false, Ordering::Relaxed);
        LastRites { sockets: Arc::clone(self) }
    }
}

/// Closes what a killed process left open.
pub(crate) struct LastRites {
    sockets: Arc<Sockets>,
}

impl Drop for LastRites {
    fn drop(&mut self) {
        let left = std::mem::take(&mut *self.sockets.left.lock().unwrap_or_else(PoisonError::into_inner));
        left.into_values().for_each(drop);
    }
}

/// What every connection of a host has in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Net {
    pub(crate) trace: Trace,
    pub(crate) sockets: Arc<Sockets>,
    /// Bits that flip in what it dialled for.
    pub(crate) flip: Flip,
}

/// A connection of the simulated network.
pub(crate) struct SimStream {
    /// `None` only once it is dropped.
    stream: Option<TcpStream>,
    number: u64,
    local: String,
    remote: String,
    dialled: bool,
    net: Net,
}

impl SimStream {
    fn new(stream: TcpStream, net: &Net, dialled: bool) -> io::Result<Self> {
        let name = |address: std::net::SocketAddr| {
            turmoil::reverse_lookup(address.ip()).unwrap_or_else(|| address.to_string())
        };
        let (local, remote) = (name(stream.local_addr()?), name(stream.peer_addr()?));
        let number = net.sockets.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Self { stream: Some(stream), number, local, remote, dialled, net: net.clone() })
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("it is not dropped"))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let sockets = &self.net.sockets;
        if let Some(stream) = self.stream.take().filter(|_| sockets.dying.load(Ordering::Relaxed)) {
            sockets.left.lock().unwrap_or_else(PoisonError::into_inner).insert(self.number, stream);
        }
    }
}

impl Connection for SimStream {
    fn identity(&self) -> Option<Identity> {
        identity(&self.remote)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.stream().poll_read(cx, buffer);
        if polled.is_ready() {
            let read = &mut buffer.filled_mut()[before..];
            if self.dialled {
                self.net.flip.pass(read);
            }
            self.net.trace.note(&self.local, || format!("<- {} {} {}", self.remote, read.len(), brief(read)));
        }
        polled
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write(cx, bytes);
        if let Poll::Ready(written) = &polled {
            let written = *written.as_ref().unwrap_or(&0);
            self.net
                .trace
                .note(&self.local, || format!("-> {} {written} {}", self.remote, brief(&bytes[..written])));
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

/// Dials through the simulated network.
#[derive(Clone, Debug)]
pub(crate) struct SimDial(pub(crate) Net);

impl Dial for SimDial {
    type Io = SimStream;

    async fn dial(&self, uri: http::Uri, expected: Option<Identity>) -> io::Result<SimStream> {
        let host = uri.host().unwrap_or_default().to_owned();
        if expected.is_some() && expected != identity(&host) {
            let error = format!("{host} is not {}", expected.map(|who| who.to_string()).unwrap_or_default());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
        let port = uri.port_u16().unwrap_or(PORT);
        SimStream::new(TcpStream::connect((host, port)).await?, &self.0, true)
    }
}

/// The connections that come in on this host.
pub(crate) async fn listen(net: Net) -> io::Result<impl Stream<Item = SimStream> + Send> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    Ok(futures::stream::unfold((listener, net), async |(listener, net)| {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return None };
            if let Ok(stream) = SimStream::new(stream, &net, false) {
                return Some((stream, (listener, net)));
            }
        }
    }))
}
