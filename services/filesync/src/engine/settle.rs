//! Settling what was begun before a crash, or before the registry fell silent in the middle of a commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lockstep_model::{Digest, FilePath, UploadId, record::file_key};
use lockstep_registry::{Record, Registry as _};

use super::{Engine, codec::decode};
use crate::{
    domain::{
        error::FileError,
        held::{StagedName, Wanted},
        intent::{Intent, Staged},
    },
    ports::{Algorithms, Ports, Store as _, Write},
};

/// Intents that nobody works on, and the numbers of those that somebody does.
#[derive(Debug, Default)]
pub(super) struct Intents {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    left: BTreeMap<u64, Intent>,
    active: BTreeSet<u64>,
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
        Self { state: Mutex::new(state) }
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

    /// Whether something that was begun at one of `paths` is left.
    pub(super) fn is_left_at(&self, paths: &[FilePath]) -> bool {
        let touches = |intent: &Intent| match intent {
            Intent::Register { files } => files.iter().any(|file| paths.contains(&file.wanted.path)),
            Intent::InPlace { files } => files.iter().any(|wanted| paths.contains(&wanted.path)),
            Intent::Delete { path, .. } => paths.contains(path),
        };
        let state = self.state();
        state.left.iter().any(|(number, intent)| !state.active.contains(number) && touches(intent))
    }

    /// Takes what nobody works on; what is not settled has to be left again.
    fn take(&self) -> BTreeMap<u64, Intent> {
        let mut state = self.state();
        let State { left, active, .. } = &mut *state;
        let (busy, free) = std::mem::take(left).into_iter().partition(|(number, _)| active.contains(number));
        *left = busy;
        free
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.intents.state().active.remove(&self.number);
    }
}

impl<P: Ports> Engine<P> {
    /// Removes staged bytes that nobody needs. What the disk does not let go of now is tried again in each round: the
    /// outcome of the work itself does not depend on it.
    pub(super) async fn discard(&self, names: Vec<StagedName>) {
        if let Err(error) = self.inner.ports.store.discard(names.clone()).await {
            tracing::debug!(%error, count = names.len(), "staged bytes are removed later");
            self.inner.intents.state().abandoned.extend(names);
        }
    }

    /// Settles every intent that nobody works on.
    pub(super) async fn settle(&self) -> Result<(), FileError> {
        let abandoned = std::mem::take(&mut self.inner.intents.state().abandoned);
        if !abandoned.is_empty() {
            self.discard(abandoned.into_iter().collect()).await;
        }
        let mut intents = self.inner.intents.take();
        while let Some((number, intent)) = intents.pop_first() {
            let result = match intent.clone() {
                Intent::Register { files } => self.settle_register(number, files).await,
                Intent::InPlace { files } => self.settle_in_place(number, files).await,
                Intent::Delete { path, staged, digest } => {
                    self.settle_delete(number, path, staged, digest).await
                }
            };
            if let Err(error) = result {
                self.inner.intents.leave(number, intent);
                intents.into_iter().for_each(|(number, intent)| self.inner.intents.leave(number, intent));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The registry says whether the files were committed: the live record carries the `file_id`, or it does not.
    async fn settle_register(&self, number: u64, files: Vec<Staged>) -> Result<(), FileError> {
        let paths: Vec<FilePath> = files.iter().map(|file| file.wanted.path.clone()).collect();
        let _lease = self.inner.leases.acquire(&paths).await;
        let latest = self.registry().get_latest(paths.iter().map(file_key).collect()).await?;
        let (mut committed, mut dropped) = (Vec::new(), Vec::new());
        for (mut file, record) in files.into_iter().zip(latest) {
            match record.filter(|record| !record.deleted) {
                Some(record) if decode(&record)?.file_id == file.wanted.file_id => {
                    file.wanted.revision = record.revision;
                    committed.push(file);
                }
                record => {
                    self.withdraw_dropped(&file.wanted, record.as_ref()).await?;
                    dropped.push(file.staged);
                }
            }
        }
        tracing::info!(
            committed = committed.len(),
            dropped = dropped.len(),
            "settling an interrupted registration"
        );
        // Uploads that were not committed may be committed yet; the others became files.
        dropped.retain(|staged| self.upload_of(staged).is_none());
        let taken: Vec<UploadId> = committed.iter().filter_map(|file| self.upload_of(&file.staged)).collect();
        if !taken.is_empty() {
            self.end_uploads(&taken).await?;
        }
        let mut writes = Vec::new();
        let mut unpublished = Vec::new();
        for file in committed {
            // After a crash behind the rename the bytes have their final name already.
            match self.adopt(&file.wanted).await? {
                Some(mut held) => writes.append(&mut held),
                None => unpublished.push(file),
            }
        }
        self.record(writes).await?;
        let left = self.publish_registered(number, unpublished).await?;
        if !left.is_empty() {
            self.inner.intents.leave(number, Intent::Register { files: left });
        }
        self.discard(dropped).await;
        Ok(())
    }

    /// A file that got its name before the crash, and was deleted while this server was away, is still there.
    async fn withdraw_dropped(&self, wanted: &Wanted, record: Option<&Record>) -> Result<(), FileError> {
        let others = match record {
            Some(record) => decode(record)?.digest == wanted.digest,
            None => false,
        };
        let held = self.inner.board.held(std::slice::from_ref(&wanted.path)).pop().flatten();
        if others || held.is_some() {
            return Ok(());
        }
        if let Some(writes) = self.adopt(wanted).await? {
            self.record(writes).await?;
            self.remove(wanted.path.clone()).await?;
        }
        Ok(())
    }

    /// Whatever the intent moved into staging is unlinked if it is ours, else set aside; the rest is planned again.
    pub(super) async fn settle_delete(
        &self,
        number: u64,
        path: FilePath,
        staged: StagedName,
        digest: Digest,
    ) -> Result<(), FileError> {
        let store = &self.inner.ports.store;
        let hashed = store
            .hash(vec![staged.clone()], Algorithms::default())
            .await
            .map_err(|error| self.disk(error))?;
        let mut writes = vec![Write::Settle(number)];
        let found = hashed.into_iter().flatten().next();
        if found.is_some() {
            writes.splice(0..0, self.release(&path, digest));
        }
        if found.as_ref().is_some_and(|found| found.digest != digest) {
            self.keep_aside(staged.clone(), &path).await.map_err(|error| self.disk(error))?;
        }
        self.record(writes).await?;
        fail::fail_point!("filesync.delete.released");
        self.discard(vec![staged]).await;
        fail::fail_point!("filesync.delete.unlinked");
        Ok(())
    }
}
