//! The layers around every handler.

use std::{collections::BTreeMap, convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use http::{Request, Response};
use lockstep_model::{Fault, Identity, Reason, identity::Members};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::ServiceExt as _;
use tracing::Instrument as _;

use crate::{
    auth::Gate,
    call::{Answer, Call},
    deadline,
    drain::{Drain, panic_text},
    metrics::Side,
    request::until_drain,
    rights::{Method, Methods},
    serve::Handler,
    status, trace,
};

/// Everything that a connection needs to answer requests. Clones share it.
pub(crate) struct Layers<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Clone for Layers<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<M> {
    gate: Gate<M>,
    methods: Methods,
    handlers: BTreeMap<String, Handler>,
    fallback: Option<Handler>,
    drain: Drain,
}

impl<M: Members> Layers<M> {
    pub(crate) fn new(
        gate: Gate<M>,
        methods: Methods,
        handlers: BTreeMap<String, Handler>,
        fallback: Option<Handler>,
        drain: &Drain,
    ) -> Self {
        Self { shared: Arc::new(Shared { gate, methods, handlers, fallback, drain: drain.clone() }) }
    }

    /// Answers one request of `peer`.
    pub(crate) async fn answer(
        self,
        peer: Option<Identity>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let other = peer.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        let call = Call::begin(Side::Server, &path, &other);
        trace::follow_headers(&call.span, request.headers());
        let span = call.span.clone();
        let method = self.shared.methods.get(path.trim_start_matches('/'));
        let asked = deadline::read(request.headers());
        let limit =
            asked.or_else(|| method.is_some_and(Method::is_unary).then_some(deadline::SERVER_DEFAULT));
        let deadline = limit.map(|limit| Instant::now() + limit);
        let handled = async {
            if let Some(left) = limit.filter(|left| *left < deadline::USEFUL_MIN) {
                return Err(status::of(&deadline::TooShort { left }));
            }
            let work = AssertUnwindSafe(self.handle(peer, method, request)).catch_unwind();
            match deadline::until(deadline, work).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(panic)) => Err(status::of(&Panicked { text: panic_text(&*panic).to_owned() })),
                Err(expired) => Err(status::of(&expired)),
            }
        };
        let response = handled.instrument(span).await.unwrap_or_else(|status| status::response(&status));
        // Health and reflection streams belong to other protocols: nobody but this layer ends them.
        let drain = method.filter(|method| method.is_open()).map(|_| &self.shared.drain);
        Ok(Answer::watch(response, call, deadline, drain))
    }

    async fn handle(
        &self,
        peer: Option<Identity>,
        method: Option<&Method>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let shared = &self.shared;
        let caller = match shared.gate.authenticate(peer, method, request.headers_mut()).await {
            Ok(caller) => caller,
            Err(refused) => return Err(refuse(&refused)),
        };
        if method.is_some_and(|method| method.client_streaming) {
            request = request.map(|body| until_drain(body, &shared.drain));
        }
        let service =
            request.uri().path().trim_start_matches('/').rsplit_once('/').map_or("", |(service, _)| service);
        let handler = match shared.handlers.get(service) {
            Some(handler) => {
                let method = method.ok_or_else(|| unimplemented(request.uri().path()))?;
                shared.gate.authorize(&caller, method).await.map_err(|refused| refuse(&refused))?;
                handler
            }
            None => shared.fallback.as_ref().ok_or_else(|| unimplemented(request.uri().path()))?,
        };
        request.extensions_mut().insert(caller);
        let answered = handler.clone().oneshot(request).await;
        Ok(answered.unwrap_or_else(|never| match never {}))
    }
}

/// A refusal is kept for who audits: it is no fault of this process, so it is no warning.
fn refuse(refused: &crate::auth::Refused) -> Status {
    tracing::info!(reason = %refused.reason(), error = %refused, "call refused");
    status::of(refused)
}

fn unimplemented(path: &str) -> Status {
    status::of(&NoSuchMethod { path: crate::text::cut(path, 256) })
}

#[derive(Debug, thiserror::Error)]
#[error("there is no call {path} here")]
struct NoSuchMethod {
    path: String,
}

impl Fault for NoSuchMethod {
    fn reason(&self) -> Reason {
        Reason::Unimplemented
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the handler panicked: {text}")]
struct Panicked {
    text: String,
}

impl Fault for Panicked {
    fn reason(&self) -> Reason {
        Reason::Internal
    }
}
