//! Streams that never hold a process open: they end when it drains.

use std::{pin::Pin, time::Duration};

use futures::Stream;
use lockstep_model::{Fault, Reason};
use tokio::sync::mpsc;
use tonic::Status;

use crate::{drain::Drain, status};

/// How often a watch that has nothing to say sends an empty batch.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// The stream of a server-streaming RPC.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The process is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the process is about to stop")]
pub struct Draining;

impl Fault for Draining {
    fn reason(&self) -> Reason {
        Reason::Draining
    }
}

/// The items of `items` until they end or the process drains; then the stream ends with UNAVAILABLE `DRAINING`.
pub fn stream<T: Send + 'static>(drain: &Drain, items: mpsc::Receiver<Result<T, Status>>) -> BoxStream<T> {
    let state = Some((drain.clone(), items));
    Box::pin(futures::stream::unfold(state, async |state| {
        let (drain, mut items) = state?;
        tokio::select! {
            biased;
            () = drain.started() => Some((Err(status::of(&Draining)), None)),
            item = items.recv() => Some((item?, Some((drain, items)))),
        }
    }))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_watch_ends_when_the_process_drains() {
        let (drain, (items, receiver)) = (Drain::new(), mpsc::channel(4));
        let mut stream = stream::<u8>(&drain, receiver);
        items.send(Ok(1)).await.expect("the stream is there");
        assert_eq!(stream.next().await.map(|item| item.ok()), Some(Some(1)));
        drain.begin();
        let end = stream.next().await.expect("one status").expect_err("draining");
        assert_eq!(status::read(&end).reason, Reason::Draining);
        assert!(stream.next().await.is_none());
    }
}
