//! Keeps one task for every server that takes part and has announced a timeguard.

use lockstep_chassis::drain::Drain;
use lockstep_model::clock::Entropy;
use lockstep_replicas::{Address, Members, Tasks};
use tokio::sync::watch::Receiver;

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

impl<P: ClockReports, E: Entropy> Roster<P, E> {
    pub(super) async fn run(self, mut members: Receiver<Members>) {
        let mut tasks = Tasks::new("watch a clock", &self.drain);
        loop {
            let guards = members.borrow_and_update().guards.clone();
            tasks.keep(guards, false, |guard| self.watch(guard));
            tokio::select! {
                biased;
                () = self.drain.started() => return,
                changed = members.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The watch of a server; what it said is forgotten when that ends.
    fn watch(
        &self,
        guard: Address,
    ) -> (impl Future<Output = ()> + Send + 'static, impl FnOnce() + Send + 'static) {
        let (board, id) = (self.board.clone(), guard.id.clone());
        let watch = Watch {
            reports: self.reports.clone(),
            board: board.clone(),
            guard,
            entropy: self.entropy.clone(),
        };
        (watch.run(), move || board.forget(&id))
    }
}
