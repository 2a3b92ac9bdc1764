//! The index of the simulation: every transaction is durable at once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lockstep_model::{Digest, FilePath, Position, StoreId, UploadId};

use crate::{
    domain::{
        exception::Missing,
        held::{Held, StagedName},
        intent::Intent,
        tree::Groups,
    },
    ports::{Index, IndexError, Loaded, REQUESTS_KEPT, Remembered, Upload, Write},
};

/// An index that outlives the process that uses it, as a disk would.
#[derive(Clone, Debug, Default)]
pub struct MemoryIndex {
    rows: Arc<Mutex<Rows>>,
}

#[derive(Debug, Default)]
struct Rows {
    position: Option<Position>,
    store: Option<StoreId>,
    held: BTreeMap<FilePath, Held>,
    missing: BTreeMap<FilePath, Missing>,
    intents: BTreeMap<u64, Intent>,
    journal: BTreeMap<StagedName, u64>,
    groups: BTreeMap<Digest, Groups>,
    uploads: BTreeMap<UploadId, Upload>,
    scrubbed: Option<FilePath>,
    requests: VecDeque<Remembered>,
}

impl MemoryIndex {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn forget(&mut self, caller: &str, id: &str) {
        self.requests.retain(|known| known.caller != caller || known.id != id);
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Position(position) => self.position = Some(position),
            Write::Store(store) => self.store = Some(store),
            Write::Hold(path, held) => drop(self.held.insert(path, held)),
            Write::Release(path) => drop(self.held.remove(&path)),
            Write::Miss(missing) => drop(self.missing.insert(missing.wanted.path.clone(), missing)),
            Write::Clear(path) => drop(self.missing.remove(&path)),
            Write::Intend(number, intent) => drop(self.intents.insert(number, intent)),
            Write::Settle(number) => drop(self.intents.remove(&number)),
            Write::Journal(name, bytes) => drop(self.journal.insert(name, bytes)),
            Write::Unjournal(name) => drop(self.journal.remove(&name)),
            Write::Groups(digest, groups) => drop(self.groups.insert(digest, groups)),
            Write::Ungroup(digest) => drop(self.groups.remove(&digest)),
            Write::Upload(upload) => drop(self.uploads.insert(upload.id, upload)),
            Write::EndUpload(id) => drop(self.uploads.remove(&id)),
            Write::Scrubbed(path) => self.scrubbed = Some(path),
            Write::Remember(request) => {
                self.forget(&request.caller, &request.id);
                self.requests.push_back(request);
                if self.requests.len() as u64 > REQUESTS_KEPT {
                    self.requests.pop_front();
                }
            }
            Write::Unremember { caller, id } => self.forget(&caller, &id),
        }
    }
}

impl Index for MemoryIndex {
    async fn load(&self) -> Result<Loaded, IndexError> {
        let rows = self.rows();
        Ok(Loaded {
            position: rows.position,
            store: rows.store,
            held: rows.held.iter().map(|(path, held)| (path.clone(), held.clone())).collect(),
            missing: rows.missing.values().cloned().collect(),
            intents: rows.intents.iter().map(|(number, intent)| (*number, intent.clone())).collect(),
            journal: rows.journal.iter().map(|(name, bytes)| (name.clone(), *bytes)).collect(),
            uploads: rows.uploads.values().cloned().collect(),
            scrubbed: rows.scrubbed.clone(),
        })
    }

    async fn apply(&self, writes: Vec<Write>) -> Result<(), IndexError> {
        let mut rows = self.rows();
        writes.into_iter().for_each(|write| rows.apply(write));
        Ok(())
    }

    async fn load_journal(&self, name: StagedName) -> Result<Option<u64>, IndexError> {
        Ok(self.rows().journal.get(&name).copied())
    }

    async fn find_request(&self, caller: String, id: String) -> Result<Option<Remembered>, IndexError> {
        let rows = self.rows();
        Ok(rows.requests.iter().find(|known| known.caller == caller && known.id == id).cloned())
    }

    async fn groups(&self, digest: Digest) -> Result<Option<Groups>, IndexError> {
        Ok(self.rows().groups.get(&digest).cloned())
    }

    async fn probe(&self, _bytes: usize) -> Result<(), IndexError> {
        Ok(())
    }
}
