//! What lies in the simulated transfer directory, and what was moved out of its way.

use std::collections::BTreeMap;

use lockstep_model::FilePath;

use super::{Disk, MemoryStore, Node};
use crate::{
    domain::{
        aside::{AsideFile, AsideNote},
        held::{StagedName, Stat},
    },
    ports::{Algorithms, Entry, EntryKind, Hashed, StoreError, Tree},
};

impl Disk {
    fn keep(&mut self, id: StagedName, node: Node, note: AsideNote) {
        let digest = Some(node.hash(Algorithms::default()).digest);
        let kept = (node, AsideNote { digest, ..note });
        self.durable.aside.insert(id.clone(), kept.clone());
        self.live.aside.insert(id, kept);
    }

    fn transferred(&self, path: &FilePath) -> Result<&Node, StoreError> {
        self.live.transfer.get(path).ok_or_else(|| StoreError::Absent { path: path.to_string() })
    }
}

impl Tree for MemoryStore {
    async fn verify(&self) -> Result<(), StoreError> {
        match self.disk().marker {
            Some(_) => Ok(()),
            None => Err(StoreError::Offline { cause: "the simulated root has lost its marker".to_owned() }),
        }
    }

    async fn entries(&self, directory: String) -> Result<Vec<Entry>, StoreError> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let mut found = BTreeMap::new();
        for path in self.disk().live.transfer.keys() {
            let Some(below) = path.as_str().strip_prefix(&prefix) else { continue };
            let (name, kind) = match below.split_once('/') {
                Some((name, _)) => (name, EntryKind::Directory),
                None => (below, EntryKind::File),
            };
            found.insert(name.to_owned(), kind);
        }
        match found.is_empty() && !directory.is_empty() {
            true => Err(StoreError::Absent { path: directory }),
            false => Ok(found.into_iter().map(|(name, kind)| Entry { name, kind }).collect()),
        }
    }

    async fn inspect(&self, paths: Vec<FilePath>) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        let disk = self.disk();
        Ok(paths.iter().map(|path| disk.transferred(path).map(Node::stat)).collect())
    }

    async fn hash_in_place(
        &self,
        paths: Vec<FilePath>,
        wanted: Algorithms,
    ) -> Result<Vec<Result<Hashed, StoreError>>, StoreError> {
        let mut disk = self.disk();
        let hashed = paths.iter().map(|path| disk.transferred(path).map(|node| node.hash(wanted))).collect();
        for path in paths {
            if let Some(node) = disk.live.transfer.get(&path).cloned() {
                disk.durable.transfer.insert(path, node);
            }
        }
        Ok(hashed)
    }

    async fn set_aside(&self, name: StagedName, note: AsideNote) -> Result<StagedName, StoreError> {
        let mut disk = self.disk();
        let node = disk.live.staging.remove(&name);
        let node = node.ok_or_else(|| StoreError::Absent { path: name.to_string() })?;
        disk.durable.staging.remove(&name);
        let free = (0..).map(|number| name.numbered(number)).find(|id| !disk.live.aside.contains_key(id));
        let id = free.unwrap_or(name);
        disk.keep(id.clone(), node, note);
        Ok(id)
    }

    async fn displace(&self, id: StagedName, note: AsideNote) -> Result<(), StoreError> {
        let mut disk = self.disk();
        if disk.live.transfer.contains_key(&note.path) {
            disk.may_rename(&note.path)?;
        }
        let node = disk.live.transfer.remove(&note.path);
        let node = node.ok_or_else(|| StoreError::Absent { path: note.path.to_string() })?;
        disk.durable.transfer.remove(&note.path);
        disk.keep(id, node, note);
        Ok(())
    }

    async fn aside(&self) -> Result<Vec<AsideFile>, StoreError> {
        let file = |(id, (node, note)): (&StagedName, &(Node, AsideNote))| AsideFile {
            id: id.to_string(),
            size_bytes: node.data.len() as u64,
            note: Some(note.clone()),
        };
        Ok(self.disk().live.aside.iter().map(file).collect())
    }

    async fn bring_back(&self, id: StagedName, path: FilePath) -> Result<(), StoreError> {
        let mut disk = self.disk();
        if disk.live.transfer.contains_key(&path) {
            return Err(StoreError::Occupied { path: path.to_string() });
        }
        let (node, _) =
            disk.live.aside.remove(&id).ok_or_else(|| StoreError::Absent { path: id.to_string() })?;
        disk.durable.aside.remove(&id);
        disk.durable.transfer.insert(path.clone(), node.clone());
        disk.live.transfer.insert(path, node);
        Ok(())
    }

    async fn drop_aside(&self, id: StagedName) -> Result<(), StoreError> {
        let mut disk = self.disk();
        disk.durable.aside.remove(&id);
        let dropped = disk.live.aside.remove(&id);
        dropped.map(drop).ok_or_else(|| StoreError::Absent { path: id.to_string() })
    }
}
