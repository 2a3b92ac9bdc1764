//! The one door: hands calls to the process that answers them, without looking into their messages.
//!
//! What changes on the way is the metadata: the principal is the one that was authenticated here, whatever the caller
//! wrote; the deadline is what is left less the reserve; the trace context is that of this hop. The process that answers
//! authorises the principal itself (SECURITY: rights).

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use lockstep_chassis::{Channel, Channels, Lane, PRINCIPAL_KEY, SERVER_KEY, rights::Methods, status};
use lockstep_model::{Caller, Fault, Identity, Metadata, Reason};
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt as _};

use crate::{
    config::Uris,
    domain::route::{Call, Route, RouteError, route},
    engine::Board,
};

/// Connections for uploads to one server: enough to fill a fast line, few enough for a slow server.
const UPLOAD_LANES: usize = 4;
/// The largest request that is kept so that another server can be asked. Reads are names and tokens.
const KEPT_BYTES_MAX: usize = 128 << 10;

/// The services that belong to the installation, and where they answer.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    /// catalog.
    pub catalog: Uris,
    /// resolver.
    pub resolver: Uris,
}

/// The door as a service. Clones share it.
#[derive(Clone, Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    board: Board,
    channels: Channels,
    backends: Backends,
    turn: AtomicUsize,
}

/// Where a call may be answered.
struct Candidate {
    identity: Identity,
    uri: String,
}

/// Why a call was not handed on.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("a request that any server can answer has at most {KEPT_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the request broke off: {0}")]
    Broken(String),
    #[error("the request did not pass authentication")]
    Unauthenticated,
    #[error("metadata cannot carry {0}")]
    Metadata(String),
}

impl Fault for ProxyError {
    fn reason(&self) -> Reason {
        match self {
            Self::TooLarge => Reason::SizeLimitExceeded,
            Self::Broken(_) => Reason::PeerUnreachable,
            Self::Unauthenticated => Reason::IdentityUnknown,
            Self::Metadata(_) => Reason::Internal,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::TooLarge => vec![("limit_bytes", KEPT_BYTES_MAX.to_string())],
            _ => Vec::new(),
        }
    }
}

impl Proxy {
    /// A door to the servers that the board knows, and to `backends`.
    pub fn new(board: Board, channels: Channels, backends: Backends) -> Self {
        Self { shared: Arc::new(Shared { board, channels, backends, turn: AtomicUsize::new(0) }) }
    }

    async fn hand_on(self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let method = Methods::contract().get(request.uri().path().trim_start_matches('/'));
        let any_server = method.map(|method| method.rights.as_ref().is_some_and(|rights| rights.any_server));
        let streams_in = method.is_some_and(|method| method.client_streaming);
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let candidates = self.candidates(&request, any_server, turn).map_err(|error| status::of(&error))?;
        stamp(&mut request).map_err(|error| status::of(&error))?;
        let lane = if streams_in {
            Lane::Bulk(u8::try_from(turn % UPLOAD_LANES).unwrap_or(0))
        } else {
            Lane::Control
        };
        match candidates.as_slice() {
            [only] => self.channel(only, lane).oneshot(request).await,
            several => self.try_each(several, lane, request).await,
        }
    }

    fn candidates(
        &self,
        request: &Request<Body>,
        any_server: Option<bool>,
        turn: usize,
    ) -> Result<Vec<Candidate>, RouteError> {
        let server = request.headers().get(SERVER_KEY).map(|id| String::from_utf8_lossy(id.as_bytes()));
        let call = Call { path: request.uri().path(), server: server.as_deref(), any_server, turn };
        match self.shared.board.read(|view| route(view, call))? {
            Route::Servers(service, servers) => {
                let server =
                    |(server_id, uri)| Candidate { identity: Identity::Server { server_id, service }, uri };
                Ok(servers.into_iter().map(server).collect())
            }
            Route::Service(service) => {
                let backends = &self.shared.backends;
                let mut uris = if service == "catalog" {
                    backends.catalog.0.clone()
                } else {
                    backends.resolver.0.clone()
                };
                if uris.is_empty() {
                    let cause = format!("this gateway was not told where it is: see --{service}");
                    return Err(RouteError::Unreachable { peer: service.to_owned(), cause });
                }
                let by = turn % uris.len();
                uris.rotate_left(by);
                uris.truncate(1);
                Ok(uris
                    .into_iter()
                    .map(|uri| Candidate { identity: Identity::Service(service), uri })
                    .collect())
            }
        }
    }

    fn channel(&self, candidate: &Candidate, lane: Lane) -> Channel {
        self.shared.channels.to(&candidate.uri, candidate.identity.clone(), lane)
    }

    /// Asks one after the other until one can be reached: the contract says that any gives the same answer, and only
    /// reads without side effects say so.
    async fn try_each(
        &self,
        several: &[Candidate],
        lane: Lane,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, KEPT_BYTES_MAX).collect().await.map_err(|error| {
            let broken = match error.is::<http_body_util::LengthLimitError>() {
                true => ProxyError::TooLarge,
                false => ProxyError::Broken(error.to_string()),
            };
            status::of(&broken)
        })?;
        let body: Bytes = body.to_bytes();
        let mut last = None;
        for candidate in several {
            let request = Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
            match self.channel(candidate, lane).oneshot(request).await {
                Ok(response) if !is_unavailable(&response) => return Ok(response),
                Err(status) if status::read(&status).reason != Reason::PeerUnreachable => return Err(status),
                answer => last = Some(answer),
            }
        }
        last.unwrap_or_else(|| {
            let cause = "no server is known".to_owned();
            Err(status::of(&RouteError::Unreachable { peer: "filesync".to_owned(), cause }))
        })
    }
}

/// Writes the principal that was authenticated here in place of whatever the caller wrote.
fn stamp(request: &mut Request<Body>) -> Result<(), ProxyError> {
    let caller: Caller = request.extensions_mut().remove().ok_or(ProxyError::Unauthenticated)?;
    let principal = caller.principal.to_string();
    let value = HeaderValue::from_str(&principal).map_err(|_| ProxyError::Metadata(principal))?;
    request.headers_mut().insert(PRINCIPAL_KEY, value);
    request.headers_mut().remove(SERVER_KEY);
    Ok(())
}

/// Whether a server answered that it cannot answer now, and nothing else.
fn is_unavailable(response: &Response<Body>) -> bool {
    Status::from_header_map(response.headers())
        .is_some_and(|status| status.code() == tonic::Code::Unavailable)
}

impl Service<Request<Body>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let proxy = self.clone();
        Box::pin(async move { Ok(proxy.hand_on(request).await.unwrap_or_else(Status::into_http)) })
    }
}
