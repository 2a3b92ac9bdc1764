//! The engine for simulation: deterministic, in one process, shared by clone.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_model::{Chain, Epoch, Position, Revision, ServerId, record};
use tokio::sync::Notify;

use crate::{
    Changes, Commit, Committed, KEYS_MAX, ListQuery, Listing, NOTE_BYTES_MAX, NOTES_MAX, Note, REQUESTS_KEPT,
    Record, Registry, RegistryError, Request,
    page::{ChangePage, RecordPage},
    range,
    transaction::{Live, Transaction, kept, locate, within},
};

/// How long a waiter waits for a head that does not move.
const WAIT: Duration = Duration::from_secs(1);

/// A registry in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Clone, Debug)]
struct State {
    available: bool,
    /// The clock of the database, if it has one.
    clock: Option<DatabaseClock>,
    head: Position,
    floor: Revision,
    chains: BTreeMap<Revision, Chain>,
    log: BTreeMap<(Revision, String), Record>,
    records: BTreeMap<String, Record>,
    requests: BTreeMap<(String, String), Answered>,
    request_order: BTreeMap<u64, (String, String)>,
    request_seq: u64,
    notes: BTreeMap<String, String>,
    acknowledged: BTreeMap<ServerId, Revision>,
}

/// The clock of the simulated database.
#[derive(Clone)]
struct DatabaseClock {
    takes: Duration,
    shows: Arc<dyn Fn() -> i128 + Send + Sync>,
}

impl std::fmt::Debug for DatabaseClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseClock").field("takes", &self.takes).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Answered {
    fingerprint: String,
    revision: Revision,
}

impl MemoryRegistry {
    /// An empty registry.
    pub fn new(epoch: Epoch) -> Self {
        let head = Position::start(epoch);
        Self::with(State {
            available: true,
            clock: None,
            head,
            floor: Revision::ZERO,
            chains: BTreeMap::from([(head.revision, head.chain)]),
            log: BTreeMap::new(),
            records: BTreeMap::new(),
            requests: BTreeMap::new(),
            request_order: BTreeMap::new(),
            request_seq: 0,
            notes: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        })
    }

    fn with(state: State) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(state), moved: Notify::new() }) }
    }

    /// Whether calls are answered, or all refused as unavailable.
    pub fn set_available(&self, available: bool) {
        self.state().available = available;
        self.shared.moved.notify_waiters();
    }

    /// From now on the database has a clock of its own, which shows so many nanoseconds since 1970; to tell it takes a while.
    pub fn set_clock(&self, takes: Duration, shows: impl Fn() -> i128 + Send + Sync + 'static) {
        self.state().clock = Some(DatabaseClock { takes, shows: Arc::new(shows) });
    }

    /// A registry of its own with the same past, as after the restore of a backup: what both commit from now on are two
    /// histories.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::with(self.state().clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No call leaves the state half changed, so a panic of another holder says nothing about it.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn available(&self) -> Result<MutexGuard<'_, State>, RegistryError> {
        let state = self.state();
        if state.available {
            return Ok(state);
        }
        Err(RegistryError::Unavailable { cause: "the simulated registry is switched off".to_owned() })
    }
}

impl Registry for MemoryRegistry {
    async fn time(&self) -> Result<Option<i128>, RegistryError> {
        let Some(clock) = self.available()?.clock.clone() else { return Ok(None) };
        tokio::time::sleep(clock.takes / 2).await;
        let shown = (clock.shows)();
        tokio::time::sleep(clock.takes / 2).await;
        Ok(Some(shown))
    }

    async fn head(&self) -> Result<Position, RegistryError> {
        Ok(self.available()?.head)
    }

    async fn get(&self, keys: Vec<String>) -> Result<Vec<Option<Record>>, RegistryError> {
        let latest = self.get_latest(keys).await?;
        Ok(latest.into_iter().map(|found| found.filter(|record| !record.deleted)).collect())
    }

    async fn get_latest(&self, keys: Vec<String>) -> Result<Vec<Option<Record>>, RegistryError> {
        within(keys.len(), KEYS_MAX, "keys")?;
        let state = self.available()?;
        Ok(keys.iter().map(|key| state.records.get(key).cloned()).collect())
    }

    async fn list(&self, query: ListQuery) -> Result<Listing, RegistryError> {
        let state = self.available()?;
        let mut page = RecordPage::new(query.limit);
        let mut found = below(&state.records, &query.prefix)
            .filter(|(key, record)| **key > query.after_key && (query.tombstones || !record.deleted));
        let more = found.any(|(_, record)| !page.push(record.clone()));
        Ok(Listing { records: page.finish(), position: state.head, more })
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, RegistryError> {
        let transaction = Transaction::of(commit)?;
        let committed = self.available()?.commit(transaction)?;
        self.shared.moved.notify_waiters();
        Ok(committed)
    }

    async fn find_request(&self, request: Request) -> Result<Option<Revision>, RegistryError> {
        self.available()?.answered(&request)
    }

    async fn transaction(&self, revision: Revision) -> Result<Vec<Record>, RegistryError> {
        let state = self.available()?;
        kept(revision, state.floor)?;
        let from = (revision, String::new());
        Ok(state
            .log
            .range(from..)
            .take_while(|((at, _), _)| *at == revision)
            .map(|(_, r)| r.clone())
            .collect())
    }

    async fn changes(&self, after: Position, prefix: String, limit: usize) -> Result<Changes, RegistryError> {
        let state = self.available()?;
        let chain_at = |revision| Ok::<_, RegistryError>(state.chains.get(&revision).copied());
        locate(after, state.head, state.floor, chain_at)?;
        let mut page = ChangePage::new(limit);
        let later = state.log.range((after.revision.next(), String::new())..);
        for (_, change) in later.filter(|((_, key), _)| key.starts_with(&prefix)) {
            if !page.push(change.clone()) {
                break;
            }
        }
        let (changes, revision) = page.finish(state.head.revision);
        let chain = state.chains[&revision];
        Ok(Changes { changes, through: Position { revision, chain, ..state.head }, head: state.head })
    }

    async fn wait_past(&self, revision: Revision) -> Result<Position, RegistryError> {
        let moved = self.shared.moved.notified();
        tokio::pin!(moved);
        moved.as_mut().enable();
        let head = self.head().await?;
        if head.revision > revision {
            return Ok(head);
        }
        // Moved or not: the head says it.
        let _ = tokio::time::timeout(WAIT, moved).await;
        self.head().await
    }

    async fn put_note(&self, key: String, body: String) -> Result<(), RegistryError> {
        within(key.len() + body.len(), NOTE_BYTES_MAX, "bytes in a note")?;
        self.available()?.notes.insert(key, body);
        Ok(())
    }

    async fn drop_note(&self, key: String) -> Result<(), RegistryError> {
        self.available()?.notes.remove(&key);
        Ok(())
    }

    async fn notes(&self, prefix: String) -> Result<Vec<Note>, RegistryError> {
        let state = self.available()?;
        let found = below(&state.notes, &prefix).take(NOTES_MAX);
        Ok(found.map(|(key, body)| Note { key: key.clone(), body: body.clone() }).collect())
    }

    async fn acknowledge(&self, server: ServerId, position: Position) -> Result<(), RegistryError> {
        let mut state = self.available()?;
        match locate(position, state.head, state.floor, |revision| Ok(state.chains.get(&revision).copied())) {
            Ok(()) | Err(RegistryError::TooOld { .. }) => {}
            Err(error) => return Err(error),
        }
        let acknowledged = state.acknowledged.entry(server).or_default();
        *acknowledged = position.revision.max(*acknowledged);
        Ok(())
    }

    async fn compact(&self, limit: Revision) -> Result<Revision, RegistryError> {
        Ok(self.available()?.compact(limit))
    }
}

fn below<'a, V>(map: &'a BTreeMap<String, V>, prefix: &str) -> impl Iterator<Item = (&'a String, &'a V)> {
    let end = range::end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
    map.range((Bound::Included(prefix.to_owned()), end))
}

impl Live for State {
    type Error = Infallible;

    fn at(&self, key: &str) -> Result<Option<Revision>, Infallible> {
        Ok(self.records.get(key).filter(|record| !record.deleted).map(|record| record.revision))
    }

    fn below(&self, prefix: &str, ignored: &dyn Fn(&str) -> bool) -> Result<Option<Revision>, Infallible> {
        let mut found = below(&self.records, prefix).filter(|(key, record)| !record.deleted && !ignored(key));
        Ok(found.next().map(|(_, record)| record.revision))
    }
}

impl State {
    fn answered(&self, request: &Request) -> Result<Option<Revision>, RegistryError> {
        match self.requests.get(&(request.caller.clone(), request.id.clone())) {
            Some(answered) if answered.fingerprint != request.fingerprint => {
                Err(RegistryError::RequestReused { id: request.id.clone() })
            }
            answered => Ok(answered.map(|answered| answered.revision)),
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Result<Committed, RegistryError> {
        if let Some(request) = &transaction.request
            && let Some(revision) = self.answered(request)?
        {
            return Ok(Committed { revision, head: self.head, replayed: true });
        }
        let Ok(refusal) = transaction.refusal(self);
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        self.head = transaction.position(self.head);
        let revision = self.head.revision;
        self.chains.insert(revision, self.head.chain);
        let Transaction { changes, request, traceparent, .. } = transaction;
        for change in changes {
            let (key, body, deleted) = (change.key, change.body, change.deleted);
            let record = Record { key, revision, body, deleted, traceparent: traceparent.clone() };
            self.log.insert((revision, record.key.clone()), record.clone());
            self.records.insert(record.key.clone(), record);
        }
        if let Some(request) = request {
            self.remember(request, revision);
        }
        Ok(Committed { revision, head: self.head, replayed: false })
    }

    fn remember(&mut self, request: Request, revision: Revision) {
        let key = (request.caller, request.id);
        self.request_seq += 1;
        self.request_order.insert(self.request_seq, key.clone());
        self.requests.insert(key, Answered { fingerprint: request.fingerprint, revision });
        if let Some(oldest) = self.request_order.remove(&self.request_seq.saturating_sub(REQUESTS_KEPT)) {
            self.requests.remove(&oldest);
        }
    }

    fn compact(&mut self, limit: Revision) -> Revision {
        let live = below(&self.records, record::SERVER).filter(|(_, record)| !record.deleted);
        let passed = |key: &str| {
            let server = key.strip_prefix(record::SERVER).and_then(|id| id.parse::<ServerId>().ok());
            server.and_then(|id| self.acknowledged.get(&id).copied()).unwrap_or_default()
        };
        let clamp = live.map(|(key, _)| passed(key)).min().unwrap_or(limit);
        self.floor = self.floor.max(limit.min(self.head.revision).min(clamp));
        let floor = self.floor;
        self.log = self.log.split_off(&(floor.next(), String::new()));
        self.chains = self.chains.split_off(&floor);
        self.records.retain(|_, record| !record.deleted || record.revision > floor);
        floor
    }
}
