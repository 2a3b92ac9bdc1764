//! One task for each server, for as long as it is a member at the same address.

use std::collections::BTreeMap;

use lockstep_chassis::drain::Drain;
use lockstep_model::ServerId;
use tokio_util::sync::CancellationToken;

use crate::ports::Address;

/// The running tasks, by server.
pub struct Tasks {
    name: &'static str,
    drain: Drain,
    running: BTreeMap<ServerId, Running>,
    /// The last tasks of a server: the one that follows waits for their end, so that two never speak for one server.
    ending: BTreeMap<ServerId, CancellationToken>,
}

struct Running {
    uri: String,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Tasks {
    /// None yet; each will have this name.
    pub fn new(name: &'static str, drain: &Drain) -> Self {
        Self { name, drain: drain.clone(), running: BTreeMap::new(), ending: BTreeMap::new() }
    }

    /// Has a task run for each of these servers, and for no other. One whose address is another than before begins anew, and
    /// so do all where `anew` says so. `work` of a server ends when it is not needed any more, and then `end` runs.
    pub fn keep<W, E>(
        &mut self,
        addresses: BTreeMap<ServerId, String>,
        anew: bool,
        mut start: impl FnMut(Address) -> (W, E),
    ) where
        W: Future<Output = ()> + Send + 'static,
        E: FnOnce() + Send + 'static,
    {
        let gone = self.running.extract_if(.., |id, running| anew || addresses.get(id) != Some(&running.uri));
        for (id, running) in gone {
            running.stop.cancel();
            self.ending.insert(id, running.stopped);
        }
        self.ending.retain(|_, stopped| !stopped.is_cancelled());
        for (id, uri) in addresses {
            if !self.running.contains_key(&id) {
                let (work, end) = start(Address { id: id.clone(), uri: uri.clone() });
                let before = self.ending.remove(&id);
                let running = self.run(uri, before, work, end);
                self.running.insert(id, running);
            }
        }
    }

    fn run(
        &self,
        uri: String,
        before: Option<CancellationToken>,
        work: impl Future<Output = ()> + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> Running {
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let running = Running { uri, stop: stop.clone(), stopped: stopped.clone() };
        let drain = self.drain.clone();
        self.drain.spawn(self.name, async move {
            if let Some(before) = before {
                before.cancelled().await;
            }
            tokio::select! {
                biased;
                () = drain.started() => {}
                () = stop.cancelled() => {}
                () = work => {}
            }
            end();
            stopped.cancel();
        });
        running
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.stop.cancel());
    }
}
