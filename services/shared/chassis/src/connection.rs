//! One HTTP/2 connection of a client, from its handshake to its end.

use std::time::Duration;

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use lockstep_model::{Identity, identity::Members};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;

use crate::{drain::Drain, layer::Layers};

/// How often a connection is asked whether it still lives, also while idle, and how long it may take to answer: a
/// vanished peer is noticed within 7 s.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// See [`KEEPALIVE_INTERVAL`].
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// What may be in flight in one stream: 1 Gbit/s at a round trip of 100 ms.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// What may be in flight in one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// The largest frame: small calls on the same connection wait for at most one.
pub const FRAME_BYTES_MAX: u32 = 256 << 10;
/// Streams at once in one connection.
const STREAMS_MAX: u32 = 100;
/// The headers of a request: metadata, no content.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// A connection keeps the certificate of its handshake, so it is ended from time to time: new calls go to a new one
/// after this, and calls that run on are cut after as much again. So no connection outlives a certificate by an hour.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// Something that requests arrive on, and who is at its other end.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The owner of the other end, as the handshake proved it; `None` is refused by everything but a probe port.
    fn identity(&self) -> Option<Identity>;
}

/// Serves one connection until it ends or the process drains.
pub(crate) async fn serve<M: Members>(io: impl Connection, layers: Layers<M>, drain: Drain) {
    let identity = io.identity();
    let service = service_fn(move |request: http::Request<Incoming>| {
        layers.clone().answer(identity.clone(), request.map(Body::new))
    });
    run(io, service, drain, AGE_MAX).await;
}

/// Runs any service on a connection. After `age` it takes no new calls, after twice that it is cut.
pub(crate) async fn run<S>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: S,
    drain: Drain,
    age: Duration,
) where
    S: hyper::service::HttpService<Incoming, ResBody = Body> + Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    let mut builder = http2::Builder::new(drain.clone());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        // gRPC has no use for it, and it would be the only thing on the wire that comes from the wall clock.
        .auto_date_header(false);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    let end = tokio::select! {
        biased;
        ended = connection.as_mut() => return log_end(&ended),
        () = drain.started() => None,
        () = tokio::time::sleep(age) => Some(age),
    };
    connection.as_mut().graceful_shutdown();
    match end {
        // The process as a whole has a limit, see `launch`.
        None => log_end(&connection.await),
        Some(grace) => match tokio::time::timeout(grace, connection).await {
            Ok(ended) => log_end(&ended),
            Err(_) => tracing::debug!("connection cut at its greatest age"),
        },
    }
}

/// Connections break all the time; what was lost is told by the calls that were on them.
fn log_end(ended: &Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
