//! Keeps two tasks for every server that takes part: one watches it, one does what the service does for each server.

use std::collections::BTreeMap;

use lockstep_chassis::drain::Drain;
use lockstep_model::{Position, Reason, ServerId, clock::Entropy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{cause::Cause, live::Live},
    engine::{board::Board, watch::Watch},
    ports::{Address, Reports},
};

/// What the two tasks of a server tell each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Whether the server reports.
    pub up: bool,
    /// Where it was last, as it said itself.
    pub position: Option<Position>,
}

/// What a service does for each server, beside watching it: made anew when the server is served anew. It never ends.
pub trait Beside: Send + Sync + 'static {
    /// The task of one server.
    fn serve(&self, server: Address, link: watch::Sender<Link>) -> impl Future<Output = ()> + Send + 'static;
}

/// Nothing is done beside watching.
#[derive(Clone, Copy, Debug)]
pub struct OnlyWatch;

impl Beside for OnlyWatch {
    fn serve(&self, _: Address, _: watch::Sender<Link>) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }
}

pub(crate) struct Roster<V, P, E, B> {
    pub(crate) reports: P,
    pub(crate) board: Board<V>,
    pub(crate) drain: Drain,
    pub(crate) entropy: E,
    pub(crate) beside: B,
}

/// The running tasks of one server.
struct Served {
    uri: String,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl<V: Live, P: Reports, E: Entropy, B: Beside> Roster<V, P, E, B> {
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
        let beside = self.beside.serve(address.clone(), link.clone());
        let watch = Watch {
            reports: self.reports.clone(),
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
                ((), ()) = async { tokio::join!(watch.run(), beside) } => {}
            }
            let cause = Cause::new(Reason::PeerUnreachable, "the server is not watched at present");
            board.update(|view| view.lose(&id, cause));
            stopped.cancel();
        });
        served
    }
}
