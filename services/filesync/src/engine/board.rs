//! What is known right now, in memory: read by everybody, written after the index has it.

mod ages;
mod fence;
mod left;
mod room;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_model::{Digest, FilePath, Position, Reason, Revision, ServerId};
use tokio::{sync::watch, time::Instant};

use crate::{
    domain::{
        exception::{Missing, Obstacle, Stage, retry_delay},
        held::{Held, StagedName, Wanted},
    },
    ports::{Loaded, Place, Write},
};

/// How many changes of exceptions a reader may be behind before it is given everything again.
const CHANGES_KEPT: usize = 20_000;
/// How many registrations ahead of the position are reported.
pub const AHEAD_MAX: usize = 10_000;
/// How many running copies are reported.
pub const TRANSFERS_MAX: usize = 64;

/// The board. No lock is ever held across an await.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    position: Option<Position>,
    /// Where the history begins, as long as there is no position.
    start: Option<Position>,
    held: BTreeMap<FilePath, Held>,
    by_digest: BTreeMap<Digest, BTreeSet<FilePath>>,
    staged: BTreeMap<Digest, StagedName>,
    exceptions: BTreeMap<FilePath, Exception>,
    /// Those of them that are not merely kept.
    missing_count: usize,
    sequence: u64,
    changes: VecDeque<(u64, FilePath)>,
    ahead: BTreeMap<FilePath, (Revision, String)>,
    transfers: BTreeMap<FilePath, Transfer>,
    conditions: BTreeMap<Reason, (Obstacle, Instant)>,
    compared: Option<Instant>,
    hashed: Option<Instant>,
}

/// A file that is not held.
#[derive(Clone, Debug)]
pub struct Exception {
    /// What should be held, and why it is not.
    pub missing: Missing,
    /// How far it is.
    pub stage: Stage,
    /// Since when it is missing.
    pub since: Instant,
    /// When it was tried last.
    pub tried: Option<Instant>,
    /// When it is tried next.
    pub due: Instant,
}

/// A copy that is running.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Where the bytes come from.
    pub source: ServerId,
    /// Verified and written.
    pub copied_bytes: u64,
    /// In all.
    pub total_bytes: u64,
    /// Over the last seconds.
    pub bytes_per_second: u64,
    /// When it was measured last.
    pub measured: Instant,
}

/// What a watcher is told.
#[derive(Clone, Debug)]
pub struct Report {
    /// To continue after this.
    pub sequence: u64,
    /// Whether this is everything, rather than what changed.
    pub snapshot: bool,
    /// New or changed exceptions.
    pub exceptions: Vec<Exception>,
    /// No exceptions any more.
    pub cleared: Vec<FilePath>,
    /// How far the registry was followed.
    pub position: Option<Position>,
    /// What concerns the whole server.
    pub conditions: Vec<(Obstacle, Instant)>,
    /// Running copies.
    pub transfers: Vec<(FilePath, Transfer)>,
    /// Held ahead of the position: path, revision, trace.
    pub ahead: Vec<(FilePath, Revision, String)>,
    /// Since when every copy was read and hashed again, if this process came to all of them.
    pub hashed: Option<Instant>,
}

impl Board {
    /// From what the index held at start.
    pub fn new(loaded: &Loaded) -> Self {
        let mut state = State { position: loaded.position, ..State::default() };
        for (path, held) in &loaded.held {
            state.hold(path.clone(), held.clone());
        }
        for missing in &loaded.missing {
            state.miss(missing.clone());
        }
        Self { state: Mutex::new(state), version: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.version.send_modify(|version| *version += 1);
        result
    }

    /// Told whenever something changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Takes over what the index has by now.
    pub fn apply(&self, writes: Vec<Write>) {
        self.change(|state| writes.into_iter().for_each(|write| state.apply(write)));
    }

    /// How far the registry was followed.
    pub fn position(&self) -> Option<Position> {
        self.state().position
    }

    /// What is held at each of `paths`.
    pub fn held(&self, paths: &[FilePath]) -> Vec<Option<Held>> {
        let state = self.state();
        paths.iter().map(|path| state.held.get(path).cloned()).collect()
    }

    /// Every held path.
    pub fn held_paths(&self) -> Vec<FilePath> {
        self.state().held.keys().cloned().collect()
    }

    /// Where content is: under a final name, or in staging for a file that is being registered.
    pub fn find(&self, digest: &Digest) -> Option<(Place, Option<Held>)> {
        let state = self.state();
        let published = state.by_digest.get(digest).and_then(BTreeSet::first).and_then(|path| {
            let held = state.held.get(path)?;
            Some((Place::Published(path.clone()), Some(held.clone())))
        });
        published.or_else(|| state.staged.get(digest).map(|name| (Place::Staged(name.clone()), None)))
    }

    /// Whether a path other than these holds the same content.
    pub fn shared(&self, digest: &Digest, but: &[FilePath]) -> bool {
        self.state().by_digest.get(digest).is_some_and(|paths| paths.iter().any(|path| !but.contains(path)))
    }

    /// Bytes that may be served from staging, until they are published.
    pub fn stage(&self, digest: Digest, name: Option<StagedName>) {
        let mut state = self.state();
        match name {
            Some(name) => drop(state.staged.insert(digest, name)),
            None => drop(state.staged.remove(&digest)),
        }
    }

    /// A registration of this server that its position has not reached.
    pub fn hold_ahead(&self, files: impl IntoIterator<Item = (FilePath, Revision, String)>) {
        self.change(|state| {
            for (path, revision, traceparent) in files {
                if state.ahead.len() < AHEAD_MAX && state.position.is_none_or(|at| at.revision < revision) {
                    state.ahead.insert(path, (revision, traceparent));
                }
            }
        });
    }

    /// The exceptions that are due: what should be gone first, then small files, then large ones (R27).
    pub fn due(&self, now: Instant) -> Vec<Missing> {
        let state = self.state();
        let waiting = state.exceptions.values().filter(|e| e.stage.waits() && e.due <= now);
        let mut due: Vec<Missing> = waiting.map(|exception| exception.missing.clone()).collect();
        due.sort_by(|a, b| {
            let key = |m: &Missing| (!m.is_left, m.wanted.size_bytes);
            key(a).cmp(&key(b)).then_with(|| a.wanted.path.cmp(&b.wanted.path))
        });
        due
    }

    /// When the next exception is due.
    pub fn next_due(&self) -> Option<Instant> {
        let state = self.state();
        state.exceptions.values().filter(|e| e.stage.waits()).map(|exception| exception.due).min()
    }

    /// Makes failed exceptions due, unless they were tried within the last second.
    pub fn hurry(&self, now: Instant) {
        self.change(|state| {
            for exception in state.exceptions.values_mut().filter(|e| e.stage == Stage::Failed) {
                let rested = exception.tried.is_none_or(|tried| now - tried >= Duration::from_secs(1));
                if rested {
                    exception.due = exception.due.min(now);
                }
            }
        });
    }

    /// Whether exactly this is still missing.
    pub fn is_missing(&self, wanted: &Wanted) -> bool {
        let state = self.state();
        let known = state.exceptions.get(&wanted.path).map(|exception| &exception.missing);
        known.is_some_and(|missing| missing.wanted.revision == wanted.revision && !missing.is_kept)
    }

    /// What is missing at any of `paths`.
    pub fn missing(&self, paths: &[FilePath]) -> Vec<Wanted> {
        let state = self.state();
        let missing = paths.iter().filter_map(|path| state.exceptions.get(path));
        missing
            .filter(|exception| !exception.missing.is_left && !exception.missing.is_kept)
            .map(|exception| exception.missing.wanted.clone())
            .collect()
    }

    /// Bytes are on their way.
    pub fn copying(&self, wanted: &[Wanted], now: Instant) {
        self.change(|state| {
            for wanted in wanted {
                if let Some(exception) = state.exceptions.get_mut(&wanted.path) {
                    exception.stage = Stage::Copying;
                    exception.tried = Some(now);
                }
                state.changed(wanted.path.clone());
            }
        });
    }

    /// The try did not lead to bytes: what is to be remembered of it, if exactly this is still missing.
    pub fn failed(
        &self,
        wanted: &Wanted,
        obstacle: Option<Obstacle>,
        now: Instant,
        cycle: Duration,
    ) -> Option<Missing> {
        self.change(|state| {
            let exception = state.exceptions.get_mut(&wanted.path)?;
            if exception.missing.wanted.revision != wanted.revision {
                return None;
            }
            match obstacle {
                Some(obstacle) => {
                    exception.missing.failures = exception.missing.failures.saturating_add(1);
                    exception.missing.obstacle = Some(obstacle);
                    exception.stage = Stage::Failed;
                    exception.tried = Some(now);
                    exception.due = now + retry_delay(exception.missing.failures, cycle);
                }
                None => exception.stage = Stage::Pending,
            }
            let missing = exception.missing.clone();
            state.changed(wanted.path.clone());
            Some(missing)
        })
    }

    /// The exceptions at `paths`, as they are remembered.
    pub fn exceptions(&self, paths: &[FilePath]) -> Vec<Option<Missing>> {
        let state = self.state();
        paths.iter().map(|path| state.exceptions.get(path).map(|e| e.missing.clone())).collect()
    }

    /// Copies that somebody changed, below a prefix.
    pub fn drifted(&self, prefix: &str) -> Vec<Missing> {
        let state = self.state();
        let drifted = state.exceptions.values().map(|e| &e.missing).filter(|m| m.is_drifted());
        drifted.filter(|m| m.wanted.path.as_str().starts_with(prefix)).cloned().collect()
    }

    /// Up to `count` copies after a path, ordered by path.
    pub fn held_after(&self, after: Option<&FilePath>, count: usize) -> Vec<(FilePath, Held)> {
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let next = state.held.range((from, Bound::Unbounded)).take(count);
        next.map(|(path, held)| (path.clone(), held.clone())).collect()
    }

    /// Bytes of all copies, each counted as at least so many.
    pub fn held_bytes(&self, least: u64) -> u64 {
        self.state().held.values().map(|held| held.stat.size_bytes.max(least)).sum()
    }

    /// How many files are not held.
    pub fn exception_count(&self) -> usize {
        self.state().missing_count
    }

    /// A running copy, or its end.
    pub fn transfer(&self, path: &FilePath, transfer: Option<Transfer>) {
        self.change(|state| match transfer {
            Some(transfer) => drop(state.transfers.insert(path.clone(), transfer)),
            None => drop(state.transfers.remove(path)),
        });
    }

    /// Something concerns the whole server; true if it is new.
    pub fn begin_condition(&self, obstacle: Obstacle) -> bool {
        let now = Instant::now();
        self.change(|state| {
            let known = state.conditions.get(&obstacle.reason).map(|(_, since)| *since);
            state.conditions.insert(obstacle.reason, (obstacle, known.unwrap_or(now)));
            known.is_none()
        })
    }

    /// It does not any more; true if it did.
    pub fn end_condition(&self, reason: Reason) -> bool {
        if !self.state().conditions.contains_key(&reason) {
            return false;
        }
        self.change(|state| state.conditions.remove(&reason).is_some())
    }

    /// A condition that bars this server from originating anything.
    pub fn barred(&self) -> Option<Obstacle> {
        let state = self.state();
        let bars = [Reason::StoreOffline, Reason::HistoryForked, Reason::StoreReadOnly];
        bars.iter().find_map(|reason| state.conditions.get(reason)).map(|(obstacle, _)| obstacle.clone())
    }

    /// What changed after `since`, or everything.
    pub fn report(&self, since: Option<u64>) -> Report {
        let state = self.state();
        let oldest = state.changes.front().map_or(state.sequence, |(sequence, _)| sequence - 1);
        let since = since.filter(|since| (oldest..=state.sequence).contains(since));
        let (mut exceptions, mut cleared) = (Vec::new(), Vec::new());
        match since {
            None => exceptions.extend(state.exceptions.values().cloned()),
            Some(since) => {
                let changed = state.changes.iter().rev().take_while(|(sequence, _)| *sequence > since);
                for path in changed.map(|(_, path)| path).collect::<BTreeSet<_>>() {
                    match state.exceptions.get(path) {
                        Some(exception) => exceptions.push(exception.clone()),
                        None => cleared.push(path.clone()),
                    }
                }
            }
        }
        Report {
            sequence: state.sequence,
            snapshot: since.is_none(),
            exceptions,
            cleared,
            position: state.position.or(state.start),
            conditions: state.conditions.values().cloned().chain(state.left_behind()).collect(),
            transfers: state
                .transfers
                .iter()
                .take(TRANSFERS_MAX)
                .map(|(p, t)| (p.clone(), t.clone()))
                .collect(),
            ahead: state
                .ahead
                .iter()
                .map(|(path, (revision, t))| (path.clone(), *revision, t.clone()))
                .collect(),
            hashed: state.hashed,
        }
    }
}
