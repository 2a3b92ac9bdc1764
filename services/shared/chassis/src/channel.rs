//! Channels to other services: lazy, kept alive while idle, bounded in number, watched like the server's side.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use lockstep_model::Identity;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tonic::{Status, body::Body, transport::Endpoint};
use tower::ServiceExt as _;
use tracing::Instrument as _;

use crate::{
    call::{Answer, Call},
    connection::{
        CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW_BYTES,
    },
    deadline,
    metrics::Side,
    rights::{Method, Methods},
    status, trace,
};

/// The longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Channels that are kept. 200 servers with two services and a few lanes each fit.
const CHANNELS_MAX: usize = 4_096;
/// The headers of an answer: a status with all its details fits.
const HEADER_BYTES_MAX: u32 = 64 << 10;

/// How a connection is made: TLS in production, the simulated network in a simulation.
pub trait Dial: Clone + Send + Sync + 'static {
    /// The connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to `uri`, and proves that `expected` is at the other end; `None` is anybody of the installation.
    fn dial(&self, uri: Uri, expected: Option<Identity>)
    -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// What travels on a connection: content never holds up other calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Calls.
    Control,
    /// Content, on connections of their own, told apart by number.
    Bulk(u8),
}

/// All channels of a process. Clones share them.
#[derive(Clone)]
pub struct Channels {
    shared: Arc<Shared>,
}

struct Shared {
    make: Box<dyn Fn(Uri, Option<Identity>) -> tonic::transport::Channel + Send + Sync>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    channels: BTreeMap<(String, String, Lane), (u64, Channel)>,
    uses: u64,
}

impl Channels {
    /// Channels whose connections `dial` makes.
    pub fn new(dial: impl Dial) -> Self {
        let make = move |uri: Uri, expected: Option<Identity>| connect(dial.clone(), uri, expected);
        Self { shared: Arc::new(Shared { make: Box::new(make), kept: Mutex::default() }) }
    }

    /// The channel to `expected` at `uri`, such as `https://host:port`. It connects at the first call, and again after
    /// it broke. Must be called within the runtime.
    pub fn to(&self, uri: &str, expected: Identity, lane: Lane) -> Channel {
        self.find(uri, Some(expected), lane)
    }

    /// The channel to whoever of the installation answers at `uri`.
    pub fn to_anyone(&self, uri: &str, lane: Lane) -> Channel {
        self.find(uri, None, lane)
    }

    fn find(&self, uri: &str, expected: Option<Identity>, lane: Lane) -> Channel {
        let name = expected.as_ref().map_or_else(|| "anyone".to_owned(), ToString::to_string);
        let key = (uri.to_owned(), name.clone(), lane);
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        if let Some((used, channel)) = kept.channels.get_mut(&key) {
            *used = now;
            return channel.clone();
        }
        if kept.channels.len() >= CHANNELS_MAX {
            let oldest = kept.channels.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.map(|key| kept.channels.remove(&key));
        }
        let transport = match uri.parse::<Uri>() {
            Ok(uri) if uri.authority().is_some() && uri.scheme().is_some() => {
                Some((self.shared.make)(uri, expected))
            }
            _ => None,
        };
        let channel = Channel { peer: format!("{name} at {uri}").into(), transport };
        kept.channels.insert(key, (now, channel.clone()));
        channel
    }
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").finish_non_exhaustive()
    }
}

fn connect<D: Dial>(dial: D, uri: Uri, expected: Option<Identity>) -> tonic::transport::Channel {
    let origin = uri.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (dial, uri, expected) = (dial.clone(), uri.clone(), expected.clone());
        async move {
            match tokio::time::timeout(CONNECT_MAX, dial.dial(uri, expected)).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within 3 s")),
            }
        }
    });
    // tonic must not care about the scheme: whether there is TLS is the business of the dialler.
    Endpoint::from_static("http://lockstep")
        .origin(origin)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// A channel to one peer, for generated clients. It forwards deadline and trace, and tells every broken connection as
/// `PEER_UNREACHABLE`.
#[derive(Clone, Debug)]
pub struct Channel {
    peer: Arc<str>,
    /// `None` if the address cannot be dialled; then every call says so.
    transport: Option<tonic::transport::Channel>,
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(())) // waiting for the connection is part of the call, so that it counts against its deadline
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call = Call::begin(Side::Client, request.uri().path(), &self.peer);
        let (span, channel) = (call.span.clone(), self.clone());
        let called = async move {
            let mut request = request;
            trace::inject(&call.span, request.headers_mut());
            match channel.send(request).await {
                Ok((response, deadline)) => Ok(Answer::watch(response, call, deadline, None)),
                Err(status) => {
                    call.end(Some(&status));
                    Err(status)
                }
            }
        };
        Box::pin(called.instrument(span))
    }
}

impl Channel {
    async fn send(self, mut request: Request<Body>) -> Result<(Response<Body>, Option<Instant>), Status> {
        let deadline = limit(&mut request)?;
        let Some(transport) = self.transport else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "the address is no https://host:port");
            return Err(status::unreachable(&self.peer, &error));
        };
        let answered = deadline::until(deadline, transport.oneshot(request)).await;
        match answered {
            Ok(Ok(response)) => Ok((response, deadline)),
            Ok(Err(error)) => Err(status::unreachable(&self.peer, &error)),
            Err(expired) => Err(status::of(&expired)),
        }
    }
}

/// Writes what the callee may take into the request, and says until when its answer is waited for.
fn limit(request: &mut Request<Body>) -> Result<Option<Instant>, Status> {
    let method = Methods::contract().get(request.uri().path().trim_start_matches('/'));
    let asked = deadline::read(request.headers());
    let left = deadline::remaining();
    if let Some(left) = left.filter(|left| deadline::forwarded(*left) < deadline::USEFUL_MIN) {
        return Err(status::of(&deadline::TooShort { left }));
    }
    let default = method.is_none_or(Method::is_unary).then_some(deadline::CLIENT_DEFAULT);
    let Some(limit) = asked.into_iter().chain(left).min().or(default) else { return Ok(None) };
    // Waited for a little longer than the callee may take: its answer says more than our impatience.
    deadline::write(request.headers_mut(), deadline::forwarded(limit));
    Ok(Some(Instant::now() + limit))
}

#[cfg(test)]
mod tests {
    use lockstep_model::Reason;
    use tower::Service as _;

    use super::*;

    #[derive(Clone)]
    struct Nowhere;

    impl Dial for Nowhere {
        type Io = tokio::io::DuplexStream;

        async fn dial(&self, _: Uri, _: Option<Identity>) -> io::Result<Self::Io> {
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens"))
        }
    }

    #[tokio::test]
    async fn a_connection_that_fails_is_a_peer_that_cannot_be_reached() {
        let channels = Channels::new(Nowhere);
        for (uri, part) in [("https://s1:1", "nobody listens"), ("", "no https"), ("nonsense", "no https")] {
            let mut channel = channels.to(uri, Identity::Service("gateway"), Lane::Control);
            let status = channel.call(Request::new(Body::empty())).await.expect_err("there is nobody");
            let failure = status::read(&status);
            assert_eq!(failure.reason, Reason::PeerUnreachable);
            assert!(failure.message.contains("gateway at") && failure.message.contains(part), "{failure}");
        }
    }

    #[tokio::test]
    async fn channels_are_shared_and_bounded() {
        let channels = Channels::new(Nowhere);
        for n in 0..CHANNELS_MAX + 10 {
            channels.to(&format!("nonsense{n}"), Identity::Service("gateway"), Lane::Bulk(1));
            channels.to("https://kept:1", Identity::Service("gateway"), Lane::Control);
        }
        let kept = channels.shared.kept.lock().expect("not poisoned");
        assert_eq!(kept.channels.len(), CHANNELS_MAX);
        assert!(kept.channels.keys().any(|(uri, _, _)| uri == "https://kept:1"));
    }
}
