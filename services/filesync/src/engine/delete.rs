//! Deleting: the tombstone is committed, then every server removes its copy.

use std::collections::BTreeMap;

use lockstep_model::{
    Digest, FilePath, Reason, Revision,
    clock::Entropy as _,
    path::fold,
    record::{FileRecord, file_key},
};
use lockstep_registry::{Record, Registry as _, RegistryError, Request};

use super::{
    Ask, Engine, Registered,
    change::Step,
    codec::{decode, named},
    commit::ATTEMPTS_MAX,
};
use crate::{
    domain::{error::FileError, exception::Obstacle, held::StagedName, intent::Intent},
    ports::{Algorithms, Ports, Store as _, StoreError, Write},
};

/// What the disk refuses, and why.
pub(super) type Refused = BTreeMap<FilePath, Obstacle>;

/// A copy on its way out.
pub(super) struct Leaving {
    /// The number of its intent.
    pub(super) number: u64,
    /// Where it was.
    pub(super) path: FilePath,
    /// Where it goes before it is unlinked.
    pub(super) staged: StagedName,
    /// What it should be.
    pub(super) digest: Digest,
}

impl Leaving {
    fn intent(&self) -> Intent {
        let Self { path, staged, digest, .. } = self;
        Intent::Delete { path: path.clone(), staged: staged.clone(), digest: *digest }
    }
}

impl<P: Ports> Engine<P> {
    /// Deletes files for good, all or none; answers them as they were, and the revision of the deletion.
    ///
    /// # Errors
    /// As the contract says; after one other than `REGISTRY_UNAVAILABLE` nothing happened.
    pub async fn delete(
        &self,
        ask: Ask,
        files: Vec<(FilePath, Revision)>,
    ) -> Result<(Vec<Registered>, Revision), FileError> {
        let engine = self.clone();
        self.detached(async move { engine.delete_now(&ask, &files).await }).await
    }

    async fn delete_now(
        &self,
        ask: &Ask,
        files: &[(FilePath, Revision)],
    ) -> Result<(Vec<Registered>, Revision), FileError> {
        self.may_change()?;
        self.verify_store().await?;
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let what: Vec<String> =
            files.iter().map(|(path, expected)| format!("delete {path} {expected}")).collect();
        let request = Request {
            caller: ask.caller.clone(),
            id: ask.request_id.to_string(),
            fingerprint: what.join("\n"),
        };
        let known = self.registry().find_request(request.clone()).await;
        if let Some(revision) = known.map_err(|error| named(error, ask.request_id.as_str()))?
            && let Ok(written) = self.registry().transaction(revision).await
        {
            let tombstone = |path| written.iter().find(|record| record.key == file_key(path)).cloned();
            let tombstones: Vec<_> = files.iter().map(|(path, _)| tombstone(path)).collect();
            return Ok((deleted(files, tombstones)?, revision));
        }
        self.may_originate(ask.deadline).await?;
        let keys: Vec<String> = files.iter().map(|(path, _)| file_key(path)).collect();
        for _ in 0..ATTEMPTS_MAX {
            let latest = self.registry().get_latest(keys.clone()).await?;
            // The request may be forgotten; what it made still tells.
            if let Some(Some(first)) =
                latest.first().filter(|record| record.as_ref().is_some_and(|r| r.deleted))
                && decode(first)?.deleted_by.as_ref() == Some(&ask.label())
            {
                let revision = first.revision;
                return Ok((deleted(files, latest)?, revision));
            }
            let steps = files.iter().zip(&latest).map(|((path, expected), record)| {
                let record = record.as_ref().filter(|record| !record.deleted);
                Step::at(
                    path,
                    record.ok_or_else(|| FileError::NotFound { path: path.clone() })?,
                    *expected,
                    None,
                )
            });
            let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
            match self.commit_steps(ask, request.clone(), &steps).await {
                Err(FileError::Registry(RegistryError::Refused { .. })) => {}
                Err(error) => return Err(error),
                Ok(committed) => {
                    fail::fail_point!("filesync.delete.committed");
                    // The tombstone stands. Whatever keeps this server from removing its copy now, its next round does.
                    if let Err(error) = self.reconcile().await {
                        tracing::warn!(files = files.len(), %error, "what was deleted is removed here later");
                    }
                    let was = |step: Step| Registered {
                        path: step.path,
                        revision: step.revision,
                        record: step.body,
                    };
                    return Ok((steps.into_iter().map(was).collect(), committed.revision));
                }
            }
        }
        let cause = "other changes of the same names kept coming in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    /// Removes our copies of files that are registered no more, all together. What the disk refuses is answered with the
    /// reason, and keeps nothing from the others. The caller has the lease.
    pub(super) async fn remove(&self, paths: Vec<FilePath>) -> Result<Refused, FileError> {
        let held = self.inner.board.held(&paths);
        let leaving: Vec<Leaving> = paths
            .into_iter()
            .zip(held)
            .filter_map(|(path, held)| {
                let staged = StagedName::new("delete", self.inner.ports.entropy.uuid());
                Some(Leaving { number: self.number(), path, staged, digest: held?.digest })
            })
            .collect();
        if leaving.is_empty() {
            return Ok(Refused::new());
        }
        let _active: Vec<_> = leaving.iter().map(|copy| self.inner.intents.begin(copy.number)).collect();
        let intents: Vec<_> = leaving.iter().map(|copy| (copy.number, copy.intent())).collect();
        let removed = self.remove_intended(leaving).await;
        let error = match removed {
            Ok(refused) => return Ok(refused),
            Err(error) => error,
        };
        // How far it came, is found out when they are settled.
        let paths =
            intents.iter().filter_map(|(_, intent)| intent.paths().pop().cloned()).collect::<Vec<_>>();
        intents.into_iter().for_each(|(number, intent)| self.inner.intents.leave(number, intent));
        let why = error.of_one_path().ok_or(error)?;
        Ok(paths.into_iter().map(|path| (path, why.clone())).collect())
    }

    async fn remove_intended(&self, leaving: Vec<Leaving>) -> Result<Refused, FileError> {
        self.record(leaving.iter().map(|copy| Write::Intend(copy.number, copy.intent())).collect()).await?;
        fail::fail_point!("filesync.delete.intended");
        let moves = leaving.iter().map(|copy| (copy.path.clone(), copy.staged.clone())).collect();
        let withdrawn = self.inner.ports.store.withdraw(moves).await.map_err(|error| self.disk(error))?;
        let (mut writes, mut here, mut refused) = (Vec::new(), Vec::new(), Refused::new());
        for (copy, withdrawn) in leaving.into_iter().zip(withdrawn) {
            match withdrawn {
                Ok(()) => here.push(copy),
                // Somebody removed it, or put something else in its place, which is not ours to touch.
                Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => {
                    writes.append(&mut self.release(&copy.path, copy.digest, &[]));
                    writes.push(Write::Settle(copy.number));
                }
                Err(error) => {
                    writes.push(Write::Settle(copy.number));
                    let error = self.disk(error);
                    match error.of_one_path() {
                        Some(why) => drop(refused.insert(copy.path, why)),
                        None => return Err(error),
                    }
                }
            }
        }
        if !writes.is_empty() {
            self.record(writes).await?;
        }
        fail::fail_point!("filesync.delete.withdrawn");
        if !here.is_empty() {
            refused.append(&mut self.settle_deletes(here).await?);
        }
        Ok(refused)
    }

    /// Whatever the intents moved into staging is unlinked if it is ours, else set aside; the rest is planned again. What
    /// the disk does not even let us read keeps its intent, and is answered.
    pub(super) async fn settle_deletes(&self, leaving: Vec<Leaving>) -> Result<Refused, FileError> {
        let going: Vec<FilePath> = leaving.iter().map(|copy| copy.path.clone()).collect();
        let (mut writes, mut gone) = (Vec::with_capacity(3 * leaving.len()), Vec::new());
        let mut refused = Refused::new();
        for copy in leaving {
            let found = match self.judge_leaving(&copy).await {
                Ok(found) => found,
                Err(error) => {
                    let why = error.of_one_path().ok_or(error)?;
                    self.inner.intents.blame(&copy.path, why.clone());
                    self.inner.intents.leave(copy.number, copy.intent());
                    refused.insert(copy.path, why);
                    continue;
                }
            };
            if found.is_some() {
                writes.append(&mut self.release(&copy.path, copy.digest, &going));
            }
            writes.push(Write::Settle(copy.number));
            gone.push(copy.staged);
        }
        self.record(writes).await?;
        fail::fail_point!("filesync.delete.released");
        self.discard(gone).await;
        fail::fail_point!("filesync.delete.unlinked");
        Ok(refused)
    }

    /// Whether what left its path is ours; somebody else's is set aside. `None` if nothing left it.
    async fn judge_leaving(&self, copy: &Leaving) -> Result<Option<bool>, FileError> {
        let hashed = self.inner.ports.store.hash(vec![copy.staged.clone()], Algorithms::default()).await;
        let found = match hashed {
            Ok(found) => found.into_iter().flatten().next().map(|found| found.digest == copy.digest),
            // A link, or something else that is no file.
            Err(StoreError::Foreign { .. } | StoreError::Changed { .. }) => Some(false),
            Err(error) => return Err(self.disk(error)),
        };
        if found == Some(false) {
            let kept = self.keep_aside(copy.staged.clone(), &copy.path, Reason::Drifted).await;
            kept.map_err(|error| self.disk(error))?;
        }
        Ok(found)
    }
}

/// The files that these tombstones ended, as they were.
fn deleted(
    files: &[(FilePath, Revision)],
    tombstones: Vec<Option<Record>>,
) -> Result<Vec<Registered>, FileError> {
    let was = |((path, expected), tombstone): (&(FilePath, Revision), Option<Record>)| {
        let tombstone = tombstone.ok_or_else(|| FileError::NotFound { path: path.clone() })?;
        Ok(Registered { path: path.clone(), revision: *expected, record: living(decode(&tombstone)?) })
    };
    files.iter().zip(tombstones).map(was).collect()
}

/// A file as it was before its tombstone.
pub(super) fn living(tombstone: FileRecord) -> FileRecord {
    FileRecord { deleted_by: None, moved_to: None, registered_revision: None, ..tombstone }
}
