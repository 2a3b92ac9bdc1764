//! The body of an answer. It drives its own connection, so that both end when nobody wants it any more.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use http_body_util::Empty;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::{Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep};
use url::Url;

use super::{connect::Io, unreachable};
use crate::ports::VendorError;

/// A connection with one request on it.
pub(super) type Wire = Pin<Box<Connection<TokioIo<Box<dyn Io>>, Empty<Bytes>>>>;

/// The bytes of an answer, as they come.
pub(super) struct Arriving {
    uri: Url,
    wire: Option<Wire>,
    /// Held until the end: without it the connection takes itself for done.
    _sender: SendRequest<Empty<Bytes>>,
    body: Incoming,
    idle: Duration,
    /// Counts only while somebody waits for bytes.
    patience: Pin<Box<Sleep>>,
    is_waiting: bool,
    seen: u64,
}

impl Arriving {
    /// The body of an answer from `uri`.
    pub(super) fn new(
        uri: Url,
        wire: Option<Wire>,
        sender: SendRequest<Empty<Bytes>>,
        body: Incoming,
        idle: Duration,
    ) -> Self {
        let patience = Box::pin(sleep(idle));
        Self { uri, wire, _sender: sender, body, idle, patience, is_waiting: false, seen: 0 }
    }

    fn failed(&self, what: &str) -> Poll<Option<Result<Bytes, VendorError>>> {
        Poll::Ready(Some(Err(unreachable(&self.uri, format!("{what} after {} bytes", self.seen)))))
    }
}

impl Stream for Arriving {
    type Item = Result<Bytes, VendorError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        // What ends the connection is told by the body as well.
        if let Some(wire) = &mut this.wire
            && wire.as_mut().poll(context).is_ready()
        {
            this.wire = None;
        }
        loop {
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(_))) => return this.failed("the connection broke"),
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    if data.is_empty() {
                        continue;
                    }
                    this.is_waiting = false;
                    this.seen += data.len() as u64;
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Pending => {}
            }
            if !this.is_waiting {
                this.is_waiting = true;
                this.patience.as_mut().reset(Instant::now() + this.idle);
            }
            return match this.patience.as_mut().poll(context) {
                Poll::Ready(()) => {
                    let what = format!("nothing came for {:?},", this.idle);
                    this.failed(&what)
                }
                Poll::Pending => Poll::Pending,
            };
        }
    }
}
