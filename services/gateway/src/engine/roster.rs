//! Keeps two tasks for every server that takes part: one watches it, one asks it to catch up.
//!
//! With one server nothing is scheduled: there is nobody to ask, so it is only watched (R13).

use std::collections::BTreeMap;

use lockstep_chassis::drain::Drain;
use lockstep_model::{Position, Reason, ServerId, clock::Entropy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::cause::Cause,
    engine::{board::Board, fanout::FanOut, watch::Watch},
    ports::{Address, Replicas},
};

/// What the two tasks of a server tell each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Link {
    /// Whether the server reports.
    pub(crate) up: bool,
    /// Where it was last, as it said itself.
    pub(crate) position: Option<Position>,
}

pub(crate) struct Roster<P, E> {
    pub(crate) replicas: P,
    pub(crate) board: Board,
    pub(crate) drain: Drain,
    pub(crate) entropy: E,
}

/// The running tasks of one server.
struct Served {
    uri: String,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl<P: Replicas, E: Entropy> Roster<P, E> {
    pub(crate) async fn run(self) {
        let mut members = self.board.members();
        let mut served: BTreeMap<ServerId, Served> = BTreeMap::new();
        // The last tasks of a server: those that follow wait for their end, so that two never speak for one server.
        let mut ending: BTreeMap<ServerId, CancellationToken> = BTreeMap::new();
        let mut generation = 0;
        loop {
            let current = members.borrow_and_update().clone();
            let anew = current.generation != generation;
            generation = current.generation;
            let gone: Vec<ServerId> = served
                .iter()
                .filter(|(id, served)| anew || current.addresses.get(id) != Some(&served.uri))
                .map(|(id, _)| id.clone())
                .collect();
            for served in gone.into_iter().filter_map(|id| served.remove_entry(&id)) {
                served.1.stop.cancel();
                ending.insert(served.0, served.1.stopped);
            }
            ending.retain(|_, stopped| !stopped.is_cancelled());
            for (id, uri) in current.addresses {
                let address = Address { id: id.clone(), uri };
                served.entry(id).or_insert_with_key(|id| self.serve(address, ending.remove(id)));
            }
            tokio::select! {
                biased;
                () = self.drain.started() => break,
                changed = members.changed() => if changed.is_err() { break },
            }
        }
        served.values().for_each(|served| served.stop.cancel());
    }

    fn serve(&self, address: Address, before: Option<CancellationToken>) -> Served {
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let served = Served { uri: address.uri.clone(), stop: stop.clone(), stopped: stopped.clone() };
        let (link, board, id) = (watch::Sender::new(Link::default()), self.board.clone(), address.id.clone());
        let fan_out = FanOut {
            replicas: self.replicas.clone(),
            board: board.clone(),
            address: address.clone(),
            link: link.clone(),
            entropy: self.entropy.clone(),
        };
        let watch = Watch {
            replicas: self.replicas.clone(),
            board: board.clone(),
            address,
            link,
            entropy: self.entropy.clone(),
        };
        let drain = self.drain.clone();
        self.drain.spawn("serve a server", async move {
            if let Some(before) = before {
                before.cancelled().await;
            }
            tokio::select! {
                biased;
                () = drain.started() => {}
                () = stop.cancelled() => {}
                ((), ()) = async { tokio::join!(watch.run(), fan_out.run()) } => {}
            }
            let cause =
                Cause::new(Reason::PeerUnreachable, "the gateway does not watch the server at present");
            board.update(|view| view.lose(&id, cause));
            stopped.cancel();
        });
        served
    }
}
