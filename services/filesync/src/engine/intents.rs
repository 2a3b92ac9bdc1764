//! What was begun and is not settled: left by a crash, by a registry that fell silent in the middle of a commit, or because
//! the disk refuses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lockstep_model::{FilePath, Reason};
use tokio::sync::Notify;

use crate::domain::{
    exception::Obstacle,
    held::{StagedName, Wanted},
    intent::Intent,
};

/// Intents that nobody works on, and the numbers of those that somebody does.
#[derive(Debug, Default)]
pub(super) struct Intents {
    state: Mutex<State>,
    rested: Notify,
}

#[derive(Debug, Default)]
struct State {
    left: BTreeMap<u64, Intent>,
    /// Taken by somebody who settles them just now.
    settling: BTreeMap<u64, Intent>,
    active: BTreeSet<u64>,
    /// Bytes that wait for the position: nothing about the path that they are named for depends on them.
    waiting: BTreeSet<u64>,
    /// What kept the last try from being settled.
    why: BTreeMap<FilePath, Obstacle>,
    abandoned: BTreeSet<StagedName>,
}

/// Somebody works on an intent, until this is dropped.
#[derive(Debug)]
pub(super) struct Active<'a> {
    intents: &'a Intents,
    number: u64,
}

impl Intents {
    pub(super) fn new(left: impl IntoIterator<Item = (u64, Intent)>) -> Self {
        let state = State { left: left.into_iter().collect(), ..State::default() };
        Self { state: Mutex::new(state), rested: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, number: u64) -> Active<'_> {
        self.state().active.insert(number);
        Active { intents: self, number }
    }

    /// Leaves it to the next round.
    pub(super) fn leave(&self, number: u64, intent: Intent) {
        self.state().left.insert(number, intent);
    }

    /// Bytes wait for the position to come to what became of their file.
    pub(super) fn leave_waiting(&self, number: u64, intent: Intent) {
        let mut state = self.state();
        state.left.insert(number, intent);
        state.waiting.insert(number);
    }

    /// What keeps something that was begun at a path from being settled.
    pub(super) fn blame(&self, path: &FilePath, why: Obstacle) {
        self.state().why.insert(path.clone(), why);
    }

    /// The same, told.
    pub(super) fn why(&self, path: &FilePath) -> Obstacle {
        let unknown = || Obstacle {
            reason: Reason::DiskRefused,
            message: format!("what was begun at {path} before is not settled yet"),
        };
        self.state().why.get(path).cloned().unwrap_or_else(unknown)
    }

    /// Those of `paths` at which something that was begun is left.
    pub(super) fn left_at(&self, paths: &[FilePath]) -> BTreeSet<FilePath> {
        let state = self.state();
        let is_free = |number: &u64| !state.active.contains(number) && !state.waiting.contains(number);
        let left = state.left.iter().filter(|(number, _)| is_free(number)).chain(&state.settling);
        let left: BTreeSet<&FilePath> = left.flat_map(|(_, intent)| intent.paths()).collect();
        paths.iter().filter(|path| left.contains(path)).cloned().collect()
    }

    /// Those of `copies` that wait for something that is left.
    pub(super) fn concerned<'a>(&self, copies: impl Iterator<Item = &'a Wanted>) -> BTreeSet<FilePath> {
        let state = self.state();
        if state.left.is_empty() {
            return BTreeSet::new();
        }
        let is_concerned = |copy: &&Wanted| state.left.values().any(|intent| intent.concerns(copy));
        copies.filter(is_concerned).map(|copy| copy.path.clone()).collect()
    }

    /// Staged bytes that nobody needs, and that the disk did not let go of.
    pub(super) fn abandon(&self, names: Vec<StagedName>) {
        self.state().abandoned.extend(names);
    }

    /// Takes them.
    pub(super) fn take_abandoned(&self) -> Vec<StagedName> {
        std::mem::take(&mut self.state().abandoned).into_iter().collect()
    }

    /// The exchanges that are left.
    pub(super) fn exchanges(&self) -> Vec<Intent> {
        let is_exchange = |intent: &&Intent| matches!(intent, Intent::Exchange { .. });
        self.state().left.values().filter(is_exchange).cloned().collect()
    }

    /// Takes the exchanges at these paths, or all.
    pub(super) fn take_exchanges(&self, paths: Option<&[FilePath]>) -> BTreeMap<u64, Intent> {
        let mut state = self.state();
        let is_there = |intent: &Intent| match intent {
            Intent::Exchange { wanted, .. } => paths.is_none_or(|paths| paths.contains(&wanted.path)),
            _ => false,
        };
        let (taken, left) = std::mem::take(&mut state.left).into_iter().partition(|(_, i)| is_there(i));
        state.left = left;
        taken
    }

    /// Takes those that nobody works on; what is not settled has to be left again.
    pub(super) fn take(&self, which: impl Fn(&Intent) -> bool) -> BTreeMap<u64, Intent> {
        let mut state = self.state();
        let State { left, active, settling, why, waiting, .. } = &mut *state;
        let is_free = |number: &u64, intent: &Intent| !active.contains(number) && which(intent);
        let (free, busy) =
            std::mem::take(left).into_iter().partition(|(number, intent)| is_free(number, intent));
        *left = busy;
        settling.extend(BTreeMap::clone(&free));
        for (number, intent) in &free {
            waiting.remove(number);
            intent.paths().into_iter().for_each(|path| drop(why.remove(path)));
        }
        free
    }

    /// Nobody settles it any more: it is settled, or left again.
    pub(super) fn rest(&self, number: u64) {
        self.state().settling.remove(&number);
        self.rested.notify_waiters();
    }

    /// Waits until nobody settles anything at these paths just now. The caller has no lease.
    pub(super) async fn rested_at(&self, paths: &[FilePath]) {
        loop {
            let rested = self.rested.notified();
            let is_settled = |intent: &Intent| !intent.paths().into_iter().any(|path| paths.contains(path));
            if self.state().settling.values().all(is_settled) {
                return;
            }
            rested.await;
        }
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.intents.state().active.remove(&self.number);
    }
}
