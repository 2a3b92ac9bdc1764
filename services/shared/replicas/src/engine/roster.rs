//! Keeps two tasks for every server that takes part: one watches it, one does what the service does for each server.

use lockstep_chassis::drain::Drain;
use lockstep_model::{Position, Reason, clock::Entropy};
use tokio::sync::watch;

use crate::{
    domain::{cause::Cause, live::Live},
    engine::{board::Board, tasks::Tasks, watch::Watch},
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

impl<V: Live, P: Reports, E: Entropy, B: Beside> Roster<V, P, E, B> {
    pub(crate) async fn run(self) {
        let mut members = self.board.members();
        let mut tasks = Tasks::new("serve a server", &self.drain);
        let mut generation = 0;
        loop {
            let current = members.borrow_and_update().clone();
            let anew = current.generation != generation;
            generation = current.generation;
            tasks.keep(current.addresses, anew, |address| self.serve(address));
            tokio::select! {
                biased;
                () = self.drain.started() => return,
                changed = members.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What is done for a server, and what is left to do when that ends.
    fn serve(
        &self,
        address: Address,
    ) -> (impl Future<Output = ()> + Send + 'static, impl FnOnce() + Send + 'static) {
        let (link, board, id) = (watch::Sender::new(Link::default()), self.board.clone(), address.id.clone());
        let beside = self.beside.serve(address.clone(), link.clone());
        let watch = Watch {
            reports: self.reports.clone(),
            board: board.clone(),
            address,
            link,
            entropy: self.entropy.clone(),
        };
        let work = async {
            let ((), ()) = tokio::join!(watch.run(), beside);
        };
        let end = move || {
            let cause = Cause::new(Reason::PeerUnreachable, "the server is not watched at present");
            board.update(|view| view.lose(&id, cause));
        };
        (work, end)
    }
}
