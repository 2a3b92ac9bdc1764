//! The adapters of the simulation, made as slow and as fallible as real ones: each call takes time before and after it
//! happens, so that a crash finds it not begun, or done without anybody knowing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use filesync::{
    adapters::{index_memory::MemoryIndex, store_memory::MemoryStore},
    domain::{
        aside::{AsideFile, AsideNote},
        held::{StagedName, Stat},
        tree::Groups,
    },
    ports::{
        Algorithms, Entry, Hashed, Index, IndexError, Loaded, Place, Remembered, Store, StoreError, Tree,
        Write,
    },
};
use jiff::Timestamp;
use lockstep_model::{Digest, FilePath, Position, Reason, Revision, ServerId, StoreId};
use lockstep_registry::{
    Changes, Commit, Committed, ListQuery, Listing, MemoryRegistry, Note, Record, Registry, RegistryError,
    Request,
};

use crate::{chance::Chance, trace::Trace};

/// How long a device takes for a call, and how often it fails. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    chance: Chance,
    slowest_ms: Arc<AtomicU64>,
    flaky: Arc<AtomicBool>,
}

/// A flaky device fails once in so many calls, before or after the call was carried out.
const FLAKY_ONCE_IN: u64 = 15;

impl Device {
    /// At most so many milliseconds, twice in each call.
    pub(crate) fn new(chance: Chance, slowest_ms: u64) -> Self {
        Self { chance, slowest_ms: Arc::new(AtomicU64::new(slowest_ms)), flaky: Arc::default() }
    }

    /// Makes it fail now and then, or never.
    pub(crate) fn set_flaky(&self, flaky: bool) {
        self.flaky.store(flaky, Ordering::Relaxed);
    }

    /// Whether this half of a call fails.
    fn fails(&self) -> bool {
        self.flaky.load(Ordering::Relaxed) && self.chance.once_in(2 * FLAKY_ONCE_IN)
    }

    /// Changes how slow it is.
    pub(crate) fn set_slowest(&self, slowest: Duration) {
        self.slowest_ms.store(u64::try_from(slowest.as_millis()).expect("a short time"), Ordering::Relaxed);
    }

    async fn wait(&self) {
        let wait = self.chance.millis(0..=self.slowest_ms.load(Ordering::Relaxed));
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A disk that takes its time. What is on it is looked at from outside through `inner`.
#[derive(Clone, Debug)]
pub(crate) struct SimStore {
    pub(crate) inner: MemoryStore,
    pub(crate) device: Device,
    /// Counts what may have changed something.
    pub(crate) changes: Arc<AtomicU64>,
    /// After the next sync of a staged file whose name begins so, a bit of it flips.
    pub(crate) rot: Arc<Mutex<Option<&'static str>>>,
    pub(crate) name: ServerId,
    pub(crate) trace: Trace,
}

impl SimStore {
    pub(crate) fn new(name: &ServerId, chance: Chance, trace: &Trace) -> Self {
        Self {
            inner: MemoryStore::new(1 << 30),
            device: Device::new(chance, 2),
            changes: Arc::default(),
            rot: Arc::default(),
            name: name.clone(),
            trace: trace.clone(),
        }
    }

    /// What a power cut leaves.
    pub(crate) fn crash(&self) {
        self.inner.crash();
        self.changed();
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    async fn around<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.device.wait().await;
        self.may_fail()?;
        let done = work.await;
        self.changed();
        self.device.wait().await;
        self.may_fail()?;
        done
    }

    fn may_fail(&self) -> Result<(), StoreError> {
        let cause = || "the simulated disk is flaky".to_owned();
        if self.device.fails() {
            Err(StoreError::Failed { path: "some".to_owned(), cause: cause() })
        } else {
            Ok(())
        }
    }
}

impl Store for SimStore {
    async fn claim(&self, expected: Option<StoreId>, fresh: StoreId) -> Result<StoreId, StoreError> {
        self.around(self.inner.claim(expected, fresh)).await
    }

    async fn free_bytes(&self) -> Result<u64, StoreError> {
        self.inner.free_bytes().await
    }

    async fn stage(&self, files: Vec<(StagedName, Bytes)>) -> Result<(), StoreError> {
        self.around(self.inner.stage(files)).await
    }

    async fn append(&self, name: &StagedName, before: Stat, data: Bytes) -> Result<Stat, StoreError> {
        self.around(self.inner.append(name, before, data)).await
    }

    async fn truncate(&self, name: &StagedName, size_bytes: u64) -> Result<Stat, StoreError> {
        self.around(self.inner.truncate(name, size_bytes)).await
    }

    async fn let_go(&self, name: &StagedName, end_bytes: u64) -> Result<(), StoreError> {
        self.inner.let_go(name, end_bytes).await
    }

    async fn sync(&self, files: Vec<(StagedName, Option<Timestamp>)>) -> Result<(), StoreError> {
        let names: Vec<StagedName> = files.iter().map(|(name, _)| name.clone()).collect();
        self.around(async {
            self.inner.sync(files).await?;
            let mut rot = self.rot.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(prefix) = *rot
                && names.iter().any(|name| name.as_str().starts_with(prefix))
                && self.inner.rot_staged(prefix)
            {
                *rot = None;
            }
            Ok(())
        })
        .await
    }

    async fn hash(
        &self,
        names: Vec<StagedName>,
        wanted: Algorithms,
    ) -> Result<Vec<Option<Hashed>>, StoreError> {
        self.around(self.inner.hash(names, wanted)).await
    }

    async fn look(&self, names: Vec<StagedName>) -> Result<Vec<Option<Stat>>, StoreError> {
        self.around(self.inner.look(names)).await
    }

    async fn staged(&self) -> Result<Vec<(StagedName, u64)>, StoreError> {
        self.around(self.inner.staged()).await
    }

    async fn discard(&self, names: Vec<StagedName>) -> Result<(), StoreError> {
        self.around(self.inner.discard(names)).await
    }

    async fn publish(
        &self,
        files: Vec<(StagedName, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        let paths: Vec<FilePath> = files.iter().map(|(_, path)| path.clone()).collect();
        self.around(async {
            let published = self.inner.publish(files).await;
            for path in paths {
                self.trace.note(self.name.as_str(), || format!("publishes {path}"));
            }
            published
        })
        .await
    }

    async fn exchange(
        &self,
        files: Vec<(StagedName, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        let paths: Vec<FilePath> = files.iter().map(|(_, path)| path.clone()).collect();
        self.around(async {
            let exchanged = self.inner.exchange(files).await;
            for path in paths {
                self.trace.note(self.name.as_str(), || format!("exchanges {path}"));
            }
            exchanged
        })
        .await
    }

    async fn relocate(
        &self,
        files: Vec<(FilePath, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        let pairs = files.clone();
        self.around(async {
            let relocated = self.inner.relocate(files).await;
            for (from, to) in pairs {
                self.trace.note(self.name.as_str(), || format!("moves {from} to {to}"));
            }
            relocated
        })
        .await
    }

    async fn withdraw(
        &self,
        files: Vec<(FilePath, StagedName)>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let paths: Vec<FilePath> = files.iter().map(|(path, _)| path.clone()).collect();
        self.around(async {
            let withdrawn = self.inner.withdraw(files).await;
            for path in paths {
                self.trace.note(self.name.as_str(), || format!("withdraws {path}"));
            }
            withdrawn
        })
        .await
    }

    async fn stat(&self, paths: Vec<FilePath>) -> Result<Vec<Result<Option<Stat>, StoreError>>, StoreError> {
        self.around(self.inner.stat(paths)).await
    }

    async fn read(&self, place: Place, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        self.around(self.inner.read(place, offset, length)).await
    }

    async fn hash_published(&self, path: FilePath) -> Result<Option<Hashed>, StoreError> {
        self.around(self.inner.hash_published(path)).await
    }
}

impl Tree for SimStore {
    async fn verify(&self) -> Result<(), StoreError> {
        self.inner.verify().await
    }

    async fn entries(&self, directory: String) -> Result<Vec<Entry>, StoreError> {
        self.around(self.inner.entries(directory)).await
    }

    async fn inspect(&self, paths: Vec<FilePath>) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        self.around(self.inner.inspect(paths)).await
    }

    async fn hash_in_place(
        &self,
        paths: Vec<FilePath>,
        wanted: Algorithms,
    ) -> Result<Vec<Result<Hashed, StoreError>>, StoreError> {
        self.around(self.inner.hash_in_place(paths, wanted)).await
    }

    async fn set_aside(&self, name: StagedName, note: AsideNote) -> Result<StagedName, StoreError> {
        self.around(self.inner.set_aside(name, note)).await
    }

    async fn displace(&self, id: StagedName, note: AsideNote) -> Result<(), StoreError> {
        self.around(self.inner.displace(id, note)).await
    }

    async fn aside(&self) -> Result<Vec<AsideFile>, StoreError> {
        self.around(self.inner.aside()).await
    }

    async fn bring_back(&self, id: StagedName, path: FilePath) -> Result<(), StoreError> {
        self.around(self.inner.bring_back(id, path)).await
    }

    async fn drop_aside(&self, id: StagedName) -> Result<(), StoreError> {
        self.around(self.inner.drop_aside(id)).await
    }
}

/// An index that takes its time.
#[derive(Clone, Debug)]
pub(crate) struct SimIndex {
    pub(crate) inner: MemoryIndex,
    pub(crate) device: Device,
    /// Counts what may have changed something.
    pub(crate) changes: Arc<AtomicU64>,
}

impl SimIndex {
    pub(crate) fn new(device: &Device) -> Self {
        Self { inner: MemoryIndex::default(), device: device.clone(), changes: Arc::default() }
    }

    fn may_fail(&self) -> Result<(), IndexError> {
        let cause = || "the simulated disk is flaky".to_owned();
        if self.device.fails() {
            Err(IndexError { cause: cause(), reason: Reason::Internal })
        } else {
            Ok(())
        }
    }
}

impl Index for SimIndex {
    async fn load(&self) -> Result<Loaded, IndexError> {
        self.inner.load().await
    }

    async fn apply(&self, writes: Vec<Write>) -> Result<(), IndexError> {
        self.device.wait().await;
        self.may_fail()?;
        self.inner.apply(writes).await?;
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.device.wait().await;
        Ok(())
    }

    async fn load_journal(&self, name: StagedName) -> Result<Option<u64>, IndexError> {
        self.inner.load_journal(name).await
    }

    async fn find_request(&self, caller: String, id: String) -> Result<Option<Remembered>, IndexError> {
        self.inner.find_request(caller, id).await
    }

    async fn groups(&self, digest: Digest) -> Result<Option<Groups>, IndexError> {
        self.inner.groups(digest).await
    }

    async fn probe(&self, bytes: usize) -> Result<(), IndexError> {
        self.inner.probe(bytes).await
    }
}

/// One process's way to the registry, which is outside the simulated network. It can be cut: then a call fails, and
/// whether it happened nobody knows.
#[derive(Clone, Debug)]
pub(crate) struct SimRegistry {
    pub(crate) inner: MemoryRegistry,
    pub(crate) device: Device,
    pub(crate) reachable: Arc<AtomicBool>,
    /// How often a round ended.
    pub(crate) rounds: Arc<AtomicU64>,
    host: String,
    trace: Trace,
}

impl SimRegistry {
    pub(crate) fn new(inner: &MemoryRegistry, host: &str, chance: Chance, trace: &Trace) -> Self {
        Self {
            inner: inner.clone(),
            device: Device::new(chance, 3),
            reachable: Arc::new(AtomicBool::new(true)),
            rounds: Arc::default(),
            host: host.to_owned(),
            trace: trace.clone(),
        }
    }

    fn reach(&self) -> Result<(), RegistryError> {
        if self.reachable.load(Ordering::Relaxed) && !self.device.fails() {
            return Ok(());
        }
        Err(RegistryError::Unavailable { cause: "the registry cannot be reached from here".to_owned() })
    }

    async fn around<T>(
        &self,
        work: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        self.device.wait().await;
        self.reach()?;
        let done = work.await;
        self.device.wait().await;
        self.reach()?;
        done
    }
}

impl Registry for SimRegistry {
    async fn head(&self) -> Result<Position, RegistryError> {
        self.around(self.inner.head()).await
    }

    async fn get(&self, keys: Vec<String>) -> Result<Vec<Option<Record>>, RegistryError> {
        self.around(self.inner.get(keys)).await
    }

    async fn get_latest(&self, keys: Vec<String>) -> Result<Vec<Option<Record>>, RegistryError> {
        self.around(self.inner.get_latest(keys)).await
    }

    async fn list(&self, query: ListQuery) -> Result<Listing, RegistryError> {
        self.around(self.inner.list(query)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, RegistryError> {
        self.around(async {
            let committed = self.inner.commit(commit).await;
            self.trace.note(&self.host, || format!("commits {committed:?}"));
            committed
        })
        .await
    }

    async fn find_request(&self, request: Request) -> Result<Option<Revision>, RegistryError> {
        self.around(self.inner.find_request(request)).await
    }

    async fn transaction(&self, revision: Revision) -> Result<Vec<Record>, RegistryError> {
        self.around(self.inner.transaction(revision)).await
    }

    async fn changes(&self, after: Position, prefix: String, limit: usize) -> Result<Changes, RegistryError> {
        self.around(self.inner.changes(after, prefix, limit)).await
    }

    async fn wait_past(&self, revision: Revision) -> Result<Position, RegistryError> {
        self.around(self.inner.wait_past(revision)).await
    }

    async fn put_note(&self, key: String, body: String) -> Result<(), RegistryError> {
        self.around(self.inner.put_note(key, body)).await
    }

    async fn drop_note(&self, key: String) -> Result<(), RegistryError> {
        self.around(self.inner.drop_note(key)).await
    }

    async fn notes(&self, prefix: String) -> Result<Vec<Note>, RegistryError> {
        self.around(self.inner.notes(prefix)).await
    }

    async fn acknowledge(&self, server: ServerId, position: Position) -> Result<(), RegistryError> {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.trace.note(&self.host, || format!("acknowledges {position}"));
        self.around(self.inner.acknowledge(server, position)).await
    }

    async fn compact(&self, below: Revision) -> Result<Revision, RegistryError> {
        self.around(self.inner.compact(below)).await
    }
}
