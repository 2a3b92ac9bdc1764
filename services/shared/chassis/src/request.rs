//! The body of a request whose client streams: it ends when the process drains, so that no client holds one open by
//! sending nothing. What reads it gets UNAVAILABLE `DRAINING`, never an end that looks complete.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, body::Body};

use crate::{drain::Drain, status, watch::Draining};

struct UntilDrain {
    /// `None` once the drain began.
    inner: Option<Body>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// `body` until `drain` begins.
pub(crate) fn until_drain(body: Body, drain: &Drain) -> Body {
    Body::new(UntilDrain { inner: Some(body), drain: Box::pin(drain.token().cancelled_owned()) })
}

impl http_body::Body for UntilDrain {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.inner.is_some() && self.drain.as_mut().poll(cx).is_ready() {
            self.inner = None;
            return Poll::Ready(Some(Err(status::of(&Draining))));
        }
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}
