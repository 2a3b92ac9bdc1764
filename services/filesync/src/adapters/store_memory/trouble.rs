//! What disks and people do to a store behind its back, and what is there to be seen of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockstep_model::FilePath;

use super::{Disk, MemoryStore};
use crate::ports::StoreError;

impl MemoryStore {
    /// What a power cut leaves.
    pub fn crash(&self) {
        let mut disk = self.disk();
        disk.live = disk.durable.clone();
    }

    /// Every final name with its bytes.
    pub fn published(&self) -> BTreeMap<FilePath, Arc<Vec<u8>>> {
        self.disk().live.transfer.iter().map(|(path, node)| (path.clone(), Arc::clone(&node.data))).collect()
    }

    /// Gives the disk another size; what is on it stays.
    pub fn resize(&self, capacity_bytes: u64) {
        self.disk().capacity_bytes = capacity_bytes;
    }

    /// From now on nothing can be renamed to or from this path, as if somebody had made it immutable; or it can again.
    pub fn refuse(&self, path: &FilePath, refuses: bool) {
        mark(&mut self.disk().refused, path, refuses);
    }

    /// From now on nobody can look at this path, as if its directory were bad; or somebody can again.
    pub fn blind(&self, path: &FilePath, blinds: bool) {
        mark(&mut self.disk().unreadable, path, blinds);
    }

    /// From now on nobody can read what is under this path, as if a sector were bad; or somebody can again.
    pub fn spoil(&self, path: &FilePath, spoils: bool) {
        mark(&mut self.disk().spoiled, path, spoils);
    }

    /// Puts bytes under a final name, as a person would.
    pub fn put(&self, path: &FilePath, data: &[u8]) {
        let mut disk = self.disk();
        let node = disk.node(data.to_vec());
        disk.live.transfer.insert(path.clone(), node.clone());
        disk.durable.transfer.insert(path.clone(), node);
    }

    /// Takes what is under a final name away, as a person would.
    pub fn remove(&self, path: &FilePath) {
        let mut disk = self.disk();
        disk.live.transfer.remove(path);
        disk.durable.transfer.remove(path);
    }

    /// Flips a bit of a published file behind everybody's back.
    pub fn rot(&self, path: &FilePath) {
        let mut disk = self.disk();
        let Disk { live, durable, .. } = &mut *disk;
        for node in [live, durable].into_iter().filter_map(|tree| tree.transfer.get_mut(path)) {
            Arc::make_mut(&mut node.data)[0] ^= 1;
        }
    }

    /// Flips a bit of a staged file behind everybody's back; false if there is none whose name begins so.
    pub fn rot_staged(&self, prefix: &str) -> bool {
        let mut disk = self.disk();
        let rotten = disk
            .live
            .staging
            .iter_mut()
            .find(|(name, node)| name.as_str().starts_with(prefix) && !node.data.is_empty());
        rotten.map(|(_, node)| Arc::make_mut(&mut node.data)[0] ^= 1).is_some()
    }
}

impl Disk {
    pub(super) fn is_unreadable(&self, path: &FilePath) -> bool {
        self.unreadable.contains(path) || self.spoiled.contains(path)
    }
}

pub(super) fn unreadable(path: &FilePath) -> StoreError {
    StoreError::Failed { path: path.to_string(), cause: "it cannot be read".to_owned() }
}

fn mark(paths: &mut BTreeSet<FilePath>, path: &FilePath, is_marked: bool) {
    match is_marked {
        true => paths.insert(path.clone()),
        false => paths.remove(path),
    };
}
