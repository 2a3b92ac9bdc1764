//! One call, watched from its first byte to its status: the span, the metric and the deadline of its answer. Both ends
//! use it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use lockstep_model::Kind;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status, body::Body};
use tracing::{Span, field::Empty};

use crate::{
    deadline,
    drain::Drain,
    metrics::{self, Side},
    rights::Methods,
    status,
    watch::Draining,
};

/// The name of calls that the contract does not know; they must not make new names for spans and metrics.
const UNKNOWN: &str = "unknown";

/// A call that has not ended. Dropped before it ended, it counts as cancelled.
pub(crate) struct Call {
    pub(crate) span: Span,
    side: Side,
    method: &'static str,
    begun: Instant,
    ended: bool,
}

impl Call {
    /// Begins the call with the path of a request.
    pub(crate) fn begin(side: Side, path: &str, other: &str) -> Self {
        let known = Methods::contract().get(path.trim_start_matches('/'));
        let method = known.map_or(UNKNOWN, |method| method.name.as_str());
        let kind = match side {
            Side::Server => "server",
            Side::Client => "client",
        };
        let span = tracing::info_span!(
            "rpc",
            otel.name = method,
            otel.kind = kind,
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.response.status_code = Empty,
            reason = Empty,
            peer = other,
        );
        Self { span, side, method, begun: Instant::now(), ended: false }
    }

    /// The call ended with `status`, `None` for OK.
    pub(crate) fn end(&mut self, status: Option<&Status>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let code = status.map_or(Code::Ok, Status::code);
        self.span.record("rpc.response.status_code", status::code_name(code));
        if let Some(status) = status.filter(|_| code != Code::Ok) {
            let failure = status::read(status);
            self.span.record("reason", failure.reason.as_str());
            // A mistake of the caller is no error of the server.
            let ours = matches!(
                failure.kind(),
                Kind::Bug | Kind::Unavailable | Kind::Corrupt | Kind::Late | Kind::Unbuilt
            );
            if ours || self.side == Side::Client {
                self.span.record("otel.status_code", "ERROR");
            }
        }
        metrics::call_ended(self.side, self.method, code, self.begun.elapsed());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.ended = true;
            self.span.record("rpc.response.status_code", status::code_name(Code::Cancelled));
            metrics::call_ended(self.side, self.method, Code::Cancelled, self.begun.elapsed());
        }
    }
}

/// The body of an answer. It ends with the status of the call, also when the deadline passes, the process drains or
/// the connection behind it breaks.
pub(crate) struct Answer {
    inner: Body,
    call: Call,
    deadline: Option<Pin<Box<Sleep>>>,
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    done: bool,
}

impl Answer {
    /// Watches `response` of `call`. `drain` is given for streams that do not end by themselves when it begins.
    pub(crate) fn watch(
        response: http::Response<Body>,
        mut call: Call,
        deadline: Option<Instant>,
        drain: Option<&Drain>,
    ) -> http::Response<Body> {
        let (mut head, inner) = response.into_parts();
        if call.side == Side::Client {
            status::drop_broken_details(&mut head.headers);
        }
        // An answer without a body carries its status in its head.
        if let Some(told) = status::in_headers(&head.headers) {
            let completed = (call.side == Side::Server).then(|| status::complete(&told)).flatten();
            call.end(Some(completed.as_ref().unwrap_or(&told)));
            return match completed {
                Some(completed) => status::response(&completed),
                None => http::Response::from_parts(head, inner),
            };
        }
        let answer = Self {
            inner,
            call,
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
            drain: drain.map(|drain| Box::pin(drain.token().cancelled_owned())),
            done: false,
        };
        http::Response::from_parts(head, Body::new(answer))
    }

    /// The last frame: trailers on the server, an error on the client, where a message may be incomplete.
    fn end(&mut self, status: Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.done = true;
        self.call.end(Some(&status));
        Some(match self.call.side {
            Side::Server => Ok(Frame::trailers(status::trailers(&status))),
            Side::Client => Err(status),
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut limit = None;
        if let Some(sleep) = &mut self.deadline {
            limit = Some(sleep.deadline());
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(self.end(status::of(&deadline::Expired)));
            }
        }
        if self.drain.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(self.end(status::of(&Draining)));
        }
        let inner = Pin::new(&mut self.inner);
        let frame = match self.call.side {
            Side::Server => deadline::sync_scope(limit, || inner.poll_frame(cx)),
            Side::Client => inner.poll_frame(cx),
        };
        Poll::Ready(match std::task::ready!(frame) {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(trailers) => self.trailers(trailers),
                Err(frame) => Some(Ok(frame)),
            },
            Some(Err(status)) => {
                let broken = status.details().is_empty();
                let status = if broken { status::of(&status::read(&status)) } else { status };
                self.end(status)
            }
            None => {
                self.done = true;
                None
            }
        })
    }

    fn trailers(&mut self, mut trailers: http::HeaderMap) -> Option<Result<Frame<Bytes>, Status>> {
        self.done = true;
        if self.call.side == Side::Client {
            status::drop_broken_details(&mut trailers);
        }
        if let Some(told) = status::in_headers(&trailers) {
            let completed = (self.call.side == Side::Server).then(|| status::complete(&told)).flatten();
            self.call.end(Some(completed.as_ref().unwrap_or(&told)));
            if let Some(completed) = completed {
                trailers = status::trailers(&completed);
            }
        }
        Some(Ok(Frame::trailers(trailers)))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let span = self.call.span.clone();
        let _entered = span.enter();
        self.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}
