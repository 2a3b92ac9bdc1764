//! The simulated network under the real gRPC code: a host is who it is by its name, as a certificate would say.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
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

/// A connection of the simulated network.
pub(crate) struct SimStream {
    stream: TcpStream,
    local: String,
    remote: String,
    trace: Trace,
    flip: Option<Flip>,
}

impl SimStream {
    fn new(stream: TcpStream, trace: &Trace, flip: Option<Flip>) -> io::Result<Self> {
        let name = |address: std::net::SocketAddr| {
            turmoil::reverse_lookup(address.ip()).unwrap_or_else(|| address.to_string())
        };
        let (local, remote) = (name(stream.local_addr()?), name(stream.peer_addr()?));
        Ok(Self { stream, local, remote, trace: trace.clone(), flip })
    }
}

impl Connection for SimStream {
    fn identity(&self) -> Option<Identity> {
        identity(&self.remote)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            let read = &mut buffer.filled_mut()[before..];
            if let Some(flip) = &self.flip {
                flip.pass(read);
            }
            self.trace.note(&self.local, || format!("<- {} {} {}", self.remote, read.len(), brief(read)));
        }
        polled
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(written) = &polled {
            let written = *written.as_ref().unwrap_or(&0);
            self.trace.note(&self.local, || format!("-> {} {written} {}", self.remote, brief(&bytes[..written])));
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Dials through the simulated network.
#[derive(Clone, Debug)]
pub(crate) struct SimDial {
    pub(crate) trace: Trace,
    pub(crate) flip: Option<Flip>,
}

impl Dial for SimDial {
    type Io = SimStream;

    async fn dial(&self, uri: http::Uri, expected: Option<Identity>) -> io::Result<SimStream> {
        let host = uri.host().unwrap_or_default().to_owned();
        if expected.is_some() && expected != identity(&host) {
            let error = format!("{host} is not {}", expected.map(|who| who.to_string()).unwrap_or_default());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
        let port = uri.port_u16().unwrap_or(PORT);
        SimStream::new(TcpStream::connect((host, port)).await?, &self.trace, self.flip.clone())
    }
}

/// The connections that come in on this host.
pub(crate) async fn listen(trace: Trace) -> io::Result<impl Stream<Item = SimStream> + Send> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    Ok(futures::stream::unfold((listener, trace), async |(listener, trace)| {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return None };
            if let Ok(stream) = SimStream::new(stream, &trace, None) {
                return Some((stream, (listener, trace)));
            }
        }
    }))
}
