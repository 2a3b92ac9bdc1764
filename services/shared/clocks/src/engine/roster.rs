//! Keeps one task for every server that takes part and has announced a timeguard.

use std::collections::BTreeMap;

use lockstep_chassis::drain::Drain;
use lockstep_model::{ServerId, clock::Entropy};
use lockstep_replicas::{Address, Members};
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{board::ClockBoard, watch::Watch},
    ports::ClockReports,
};

pub(super) struct Roster<P, E> {
    pub(super) reports: P,
    pub(super) board: ClockBoard,
    pub(super) drain: Drain,
    pub(super) entropy: E,
}

/// The running task of one server.
struct Watched {
    uri: String,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl<P: ClockReports, E: Entropy> Roster<P, E> {
    pub(super) async fn run(self, mut members: Receiver<Members>) {
        let mut watched: BTreeMap<ServerId, Watched> = BTreeMap::new();
        // The last task of a server: the one that follows waits for its end, so that it forgets nothing that came later.
        let mut ending: BTreeMap<ServerId, CancellationToken> = BTreeMap::new();
        loop {
            let guards = members.borrow_and_update().guards.clone();
            let gone = watched.extract_if(.., |id, watched| guards.get(id) != Some(&watched.uri));
            for (id, watched) in gone {
                watched.stop.cancel();
                ending.insert(id, watched.stopped);
            }
            ending.retain(|_, stopped| !stopped.is_cancelled());
            for (id, uri) in guards {
                let guard = Address { id: id.clone(), uri };
                watched.entry(id).or_insert_with_key(|id| self.watch(guard, ending.remove(id)));
            }
            tokio::select! {
                biased;
                () = self.drain.started() => break,
                changed = members.changed() => if changed.is_err() { break },
            }
        }
        watched.values().for_each(|watched| watched.stop.cancel());
    }

    fn watch(&self, guard: Address, before: Option<CancellationToken>) -> Watched {
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let watched = Watched { uri: guard.uri.clone(), stop: stop.clone(), stopped: stopped.clone() };
        let (board, id) = (self.board.clone(), guard.id.clone());
        let watch = Watch {
            reports: self.reports.clone(),
            board: board.clone(),
            guard,
            entropy: self.entropy.clone(),
        };
        let drain = self.drain.clone();
        self.drain.spawn("watch a clock", async move {
            if let Some(before) = before {
                before.cancelled().await;
            }
            tokio::select! {
                biased;
                () = drain.started() => {}
                () = stop.cancelled() => {}
                () = watch.run() => {}
            }
            board.forget(&id);
            stopped.cancel();
        });
        watched
    }
}
