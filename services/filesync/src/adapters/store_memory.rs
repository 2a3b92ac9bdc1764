//! The store of the simulation: what is written is pending until it is synced, and a crash forgets what is pending.

mod tree;
mod trouble;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use lockstep_model::{FilePath, StoreId};

use self::trouble::unreadable;
use crate::{
    domain::{
        aside::AsideNote,
        hasher::ContentHasher,
        held::{StagedName, Stat},
    },
    ports::{Algorithms, Hashed, Place, Store, StoreError},
};

/// A disk that outlives the process that uses it.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    marker: Option<StoreId>,
    live: Tree,
    durable: Tree,
    capacity_bytes: u64,
    ticks: i64,
    refused: BTreeSet<FilePath>,
    unreadable: BTreeSet<FilePath>,
    spoiled: BTreeSet<FilePath>,
}

#[derive(Clone, Debug, Default)]
struct Tree {
    staging: BTreeMap<StagedName, Node>,
    transfer: BTreeMap<FilePath, Node>,
    aside: BTreeMap<StagedName, (Node, AsideNote)>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    data: Arc<Vec<u8>>,
    modified_ns: i64,
    changed_ns: i64,
}

impl Node {
    fn stat(&self) -> Stat {
        let Self { data, modified_ns, changed_ns } = self;
        Stat { size_bytes: data.len() as u64, modified_ns: *modified_ns, changed_ns: *changed_ns }
    }

    fn hash(&self, wanted: Algorithms) -> Hashed {
        let mut hasher = ContentHasher::new(wanted);
        hasher.update(&self.data);
        hasher.finish(self.stat())
    }
}

impl MemoryStore {
    /// An empty disk.
    pub fn new(capacity_bytes: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk { capacity_bytes, ..Disk::default() })) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn tick(&mut self) -> i64 {
        self.ticks += 1;
        self.ticks
    }

    fn node(&mut self, data: Vec<u8>) -> Node {
        let now = self.tick();
        Node { data: Arc::new(data), modified_ns: now, changed_ns: now }
    }

    fn free(&self) -> u64 {
        let Tree { staging, transfer, aside } = &self.live;
        let used: usize = staging
            .values()
            .chain(transfer.values())
            .chain(aside.values().map(|(n, _)| n))
            .map(|n| n.data.len())
            .sum();
        self.capacity_bytes.saturating_sub(used as u64)
    }

    fn need(&self, bytes: u64) -> Result<(), StoreError> {
        let free_bytes = self.free();
        if bytes > free_bytes { Err(StoreError::Full { free_bytes, needed_bytes: bytes }) } else { Ok(()) }
    }

    fn may_rename(&self, path: &FilePath) -> Result<(), StoreError> {
        match self.refused.contains(path) {
            true => Err(StoreError::Refused { path: path.to_string(), cause: "it is immutable".to_owned() }),
            false => Ok(()),
        }
    }

    fn publish(&mut self, name: &StagedName, path: &FilePath) -> Result<Stat, StoreError> {
        if self.live.transfer.contains_key(path) {
            return Err(StoreError::Occupied { path: path.to_string() });
        }
        self.may_rename(path)?;
        let now = self.tick();
        let mut node =
            self.live.staging.remove(name).ok_or_else(|| StoreError::Absent { path: name.to_string() })?;
        node.changed_ns = now;
        let stat = node.stat();
        self.live.transfer.insert(path.clone(), node);
        // What was not synced before the rename is empty after a power cut, as on a real file system.
        let mut durable = self.durable.staging.remove(name).unwrap_or_default();
        durable.changed_ns = now;
        self.durable.transfer.insert(path.clone(), durable);
        Ok(stat)
    }

    fn exchange(&mut self, name: &StagedName, path: &FilePath) -> Result<Stat, StoreError> {
        let absent = |what: &dyn std::fmt::Display| StoreError::Absent { path: what.to_string() };
        if !self.live.transfer.contains_key(path) {
            return Err(absent(path));
        }
        self.may_rename(path)?;
        let mut new = self.live.staging.remove(name).ok_or_else(|| absent(name))?;
        let now = self.tick();
        new.changed_ns = now;
        let stat = new.stat();
        if let Some(mut old) = self.live.transfer.insert(path.clone(), new) {
            old.changed_ns = now;
            self.live.staging.insert(name.clone(), old);
        }
        let mut durable = self.durable.staging.remove(name).unwrap_or_default();
        durable.changed_ns = now;
        if let Some(old) = self.durable.transfer.insert(path.clone(), durable) {
            self.durable.staging.insert(name.clone(), old);
        }
        Ok(stat)
    }

    fn relocate(&mut self, from: &FilePath, to: &FilePath) -> Result<Stat, StoreError> {
        if self.live.transfer.contains_key(to) {
            return Err(StoreError::Occupied { path: to.to_string() });
        }
        let absent = || StoreError::Absent { path: from.to_string() };
        if self.live.transfer.contains_key(from) {
            self.may_rename(from).and_then(|()| self.may_rename(to))?;
        }
        let mut node = self.live.transfer.remove(from).ok_or_else(absent)?;
        node.changed_ns = self.tick();
        let stat = node.stat();
        self.live.transfer.insert(to.clone(), node);
        let mut durable = self.durable.transfer.remove(from).unwrap_or_default();
        durable.changed_ns = stat.changed_ns;
        self.durable.transfer.insert(to.clone(), durable);
        Ok(stat)
    }

    fn withdraw(&mut self, path: &FilePath, name: &StagedName) -> Result<(), StoreError> {
        if self.live.transfer.contains_key(path) {
            self.may_rename(path)?;
        }
        let now = self.tick();
        let mut node =
            self.live.transfer.remove(path).ok_or_else(|| StoreError::Absent { path: path.to_string() })?;
        node.changed_ns = now;
        self.durable.transfer.remove(path);
        self.durable.staging.insert(name.clone(), node.clone());
        self.live.staging.insert(name.clone(), node);
        Ok(())
    }
}

impl Store for MemoryStore {
    async fn claim(&self, expected: Option<StoreId>, fresh: StoreId) -> Result<StoreId, StoreError> {
        let mut disk = self.disk();
        match (disk.marker, expected) {
            (None, Some(expected)) => {
                Err(StoreError::Offline { cause: format!("no marker of store {expected}") })
            }
            (Some(found), Some(expected)) if found != expected => {
                Err(StoreError::Offline { cause: format!("store {found} instead of {expected}") })
            }
            (found, _) => Ok(*disk.marker.insert(found.unwrap_or(fresh))),
        }
    }

    async fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.disk().free())
    }

    async fn stage(&self, files: Vec<(StagedName, Bytes)>) -> Result<(), StoreError> {
        let mut disk = self.disk();
        disk.need(files.iter().map(|(_, data)| data.len() as u64).sum())?;
        for (name, data) in files {
            let node = disk.node(data.to_vec());
            disk.live.staging.insert(name, node);
        }
        Ok(())
    }

    async fn append(&self, name: &StagedName, before: Stat, data: Bytes) -> Result<Stat, StoreError> {
        let mut disk = self.disk();
        disk.need(data.len() as u64)?;
        let now = disk.tick();
        let absent = || StoreError::Absent { path: name.to_string() };
        let node = disk.live.staging.get_mut(name).ok_or_else(absent)?;
        if node.stat() != before {
            return Err(StoreError::Changed { path: name.to_string() });
        }
        Arc::make_mut(&mut node.data).extend_from_slice(&data);
        (node.modified_ns, node.changed_ns) = (now, now);
        Ok(node.stat())
    }

    async fn truncate(&self, name: &StagedName, size_bytes: u64) -> Result<Stat, StoreError> {
        let mut disk = self.disk();
        let now = disk.tick();
        let node = disk.live.staging.entry(name.clone()).or_default();
        Arc::make_mut(&mut node.data).resize(usize::try_from(size_bytes).unwrap_or(usize::MAX), 0);
        (node.modified_ns, node.changed_ns) = (now, now);
        Ok(node.stat())
    }

    async fn let_go(&self, _: &StagedName, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn sync(&self, files: Vec<(StagedName, Option<Timestamp>)>) -> Result<(), StoreError> {
        let mut disk = self.disk();
        for (name, modified) in files {
            let now = disk.tick();
            let absent = || StoreError::Absent { path: name.to_string() };
            let node = disk.live.staging.get_mut(&name).ok_or_else(absent)?;
            if let Some(modified) = modified {
                node.modified_ns = i64::try_from(modified.as_nanosecond()).unwrap_or(i64::MAX);
                node.changed_ns = now;
            }
            let synced = node.clone();
            disk.durable.staging.insert(name, synced);
        }
        Ok(())
    }

    async fn hash(
        &self,
        names: Vec<StagedName>,
        wanted: Algorithms,
    ) -> Result<Vec<Option<Hashed>>, StoreError> {
        let disk = self.disk();
        Ok(names.iter().map(|name| disk.live.staging.get(name).map(|node| node.hash(wanted))).collect())
    }

    async fn look(&self, names: Vec<StagedName>) -> Result<Vec<Option<Stat>>, StoreError> {
        let disk = self.disk();
        Ok(names.iter().map(|name| disk.live.staging.get(name).map(Node::stat)).collect())
    }

    async fn staged(&self) -> Result<Vec<(StagedName, u64)>, StoreError> {
        let disk = self.disk();
        Ok(disk.live.staging.iter().map(|(name, node)| (name.clone(), node.data.len() as u64)).collect())
    }

    async fn discard(&self, names: Vec<StagedName>) -> Result<(), StoreError> {
        let mut disk = self.disk();
        for name in names {
            disk.live.staging.remove(&name);
            disk.durable.staging.remove(&name);
        }
        Ok(())
    }

    async fn publish(
        &self,
        files: Vec<(StagedName, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        let mut disk = self.disk();
        Ok(files.iter().map(|(name, path)| disk.publish(name, path)).collect())
    }

    async fn exchange(
        &self,
        files: Vec<(StagedName, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        let mut disk = self.disk();
        Ok(files.iter().map(|(name, path)| disk.exchange(name, path)).collect())
    }

    async fn relocate(
        &self,
        files: Vec<(FilePath, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        let mut disk = self.disk();
        Ok(files.iter().map(|(from, to)| disk.relocate(from, to)).collect())
    }

    async fn withdraw(
        &self,
        files: Vec<(FilePath, StagedName)>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut disk = self.disk();
        Ok(files.iter().map(|(path, name)| disk.withdraw(path, name)).collect())
    }

    async fn stat(&self, paths: Vec<FilePath>) -> Result<Vec<Result<Option<Stat>, StoreError>>, StoreError> {
        let disk = self.disk();
        let look = |path: &FilePath| match disk.unreadable.contains(path) {
            true => Err(unreadable(path)),
            false => Ok(disk.live.transfer.get(path).map(Node::stat)),
        };
        Ok(paths.iter().map(look).collect())
    }

    async fn read(&self, place: Place, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let disk = self.disk();
        let (node, path) = match &place {
            Place::Published(path) if disk.is_unreadable(path) => return Err(unreadable(path)),
            Place::Published(path) => (disk.live.transfer.get(path), path.to_string()),
            Place::Staged(name) => (disk.live.staging.get(name), name.to_string()),
        };
        let data = &node.ok_or(StoreError::Absent { path })?.data;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        Ok(Bytes::copy_from_slice(&data[from..from.saturating_add(length).min(data.len())]))
    }

    async fn hash_published(&self, path: FilePath) -> Result<Option<Hashed>, StoreError> {
        let disk = self.disk();
        match disk.is_unreadable(&path) {
            true => Err(unreadable(&path)),
            false => Ok(disk.live.transfer.get(&path).map(|node| node.hash(Algorithms::default()))),
        }
    }
}
