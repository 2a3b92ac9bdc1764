//! Making bytes durable beside further writes, so that the sync at the end of a large file is short.

use tokio::sync::oneshot;

use super::Engine;
use crate::{
    domain::held::StagedName,
    ports::{Ports, Store as _, StoreError},
};

/// Bytes between two flushes: what a crash may cost of a transfer that is under way.
const FLUSH_BYTES: u64 = 64 << 20;

/// Flushes one staged file, one flush at a time.
#[derive(Debug)]
pub(super) struct Flusher {
    name: StagedName,
    begun: u64,
    running: Option<(u64, oneshot::Receiver<Result<(), StoreError>>)>,
}

impl Flusher {
    /// For a file whose first `from` bytes are durable.
    pub(super) fn new(name: StagedName, from: u64) -> Self {
        Self { name, begun: from, running: None }
    }

    /// Says that the file is written up to `end`. Answers how far it is durable, if that is news.
    pub(super) fn wrote<P: Ports>(
        &mut self,
        engine: &Engine<P>,
        end: u64,
    ) -> Result<Option<u64>, StoreError> {
        let ended = match &mut self.running {
            None => None,
            Some((up_to, running)) => match running.try_recv() {
                Ok(result) => Some(result.map(|()| *up_to)?),
                Err(oneshot::error::TryRecvError::Empty) => return Ok(None),
                Err(oneshot::error::TryRecvError::Closed) => None,
            },
        };
        self.running = None;
        if end - self.begun >= FLUSH_BYTES {
            let (answer, answered) = oneshot::channel();
            let (store, name) = (engine.inner.ports.store.clone(), self.name.clone());
            engine.inner.drain.spawn("flush", async move {
                let _ = answer.send(store.sync(vec![(name, None)]).await);
            });
            self.begun = end;
            self.running = Some((end, answered));
        }
        Ok(ended)
    }

    /// Waits for the flush that is running; its error must not be lost, because the system tells it only once.
    pub(super) async fn finish(self) -> Result<(), StoreError> {
        match self.running {
            Some((_, running)) => running.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}
