//! Deleting: the tombstone is committed, then every server removes its copy.

use lockstep_model::{
    Digest, FilePath, Revision,
    clock::Entropy as _,
    path::fold,
    record::{FileRecord, file_key, name_key},
};
use lockstep_registry::{Commit, Committed, ListQuery, Precondition, Registry as _, RegistryError, Request};

use super::{
    Ask, Engine, Registered,
    codec::{decode, encode, named},
};
use crate::{
    domain::{error::FileError, held::StagedName, intent::Intent, naming},
    ports::{Ports, Store as _, StoreError, Write},
};

/// How often names may change under a deletion before it gives up.
const ATTEMPTS_MAX: usize = 16;

impl<P: Ports> Engine<P> {
    /// Deletes a file for good; answers it as it was, and the revision of the deletion.
    ///
    /// # Errors
    /// As the contract says; after one other than `REGISTRY_UNAVAILABLE` nothing happened.
    pub async fn delete(
        &self,
        ask: Ask,
        path: FilePath,
        expected: Revision,
    ) -> Result<(Registered, Revision), FileError> {
        let engine = self.clone();
        self.detached(async move { engine.delete_now(&ask, &path, expected).await }).await
    }

    async fn delete_now(
        &self,
        ask: &Ask,
        path: &FilePath,
        expected: Revision,
    ) -> Result<(Registered, Revision), FileError> {
        self.may_originate()?;
        self.verify_store().await?;
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let fingerprint = format!("delete {path} {expected}");
        let request = Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint };
        let known = self.registry().find_request(request.clone()).await;
        if let Some(revision) = known.map_err(|error| named(error, ask.request_id.as_str()))?
            && let Ok(written) = self.registry().transaction(revision).await
            && let Some(tombstone) = written.iter().find(|record| record.key == file_key(path))
        {
            let again =
                Registered { path: path.clone(), revision: expected, record: living(decode(tombstone)?) };
            return Ok((again, revision));
        }
        for _ in 0..ATTEMPTS_MAX {
            let mut latest = self.registry().get_latest(vec![file_key(path)]).await?;
            let record = latest.pop().flatten().ok_or_else(|| FileError::NotFound { path: path.clone() })?;
            let body = decode(&record)?;
            if record.deleted {
                let mine = body.deleted_by.as_ref() == Some(&ask.label());
                let gone = || FileError::NotFound { path: path.clone() };
                let again = Registered { path: path.clone(), revision: expected, record: living(body) };
                return mine.then_some((again, record.revision)).ok_or_else(gone);
            }
            if record.revision != expected {
                return Err(FileError::RevisionChanged {
                    path: path.clone(),
                    expected,
                    actual: record.revision,
                });
            }
            let tombstone = FileRecord {
                deleted_by: Some(ask.label()),
                registered_revision: Some(record.revision),
                ..body.clone()
            };
            match self.commit_deletion(ask, request.clone(), path, expected, &tombstone).await {
                Err(FileError::Registry(RegistryError::Refused { .. })) => {}
                Err(error) => return Err(error),
                Ok(committed) => {
                    fail::fail_point!("filesync.delete.committed");
                    // The tombstone stands. Whatever keeps this server from removing its copy now, its next round does.
                    if let Err(error) = self.reconcile().await {
                        tracing::warn!(%path, %error, "the deleted file is removed here later");
                    }
                    let file = Registered { path: path.clone(), revision: expected, record: body };
                    return Ok((file, committed.revision));
                }
            }
        }
        let cause = "other changes of the same names kept coming in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    async fn commit_deletion(
        &self,
        ask: &Ask,
        request: Request,
        path: &FilePath,
        expected: Revision,
        tombstone: &FileRecord,
    ) -> Result<Committed, FileError> {
        let key = file_key(path);
        let mut commit = Commit {
            preconditions: vec![Precondition::At(key.clone(), expected)],
            deletes: vec![(key, encode(tombstone)?)],
            request: Some(request),
            traceparent: ask.traceparent.clone(),
            ..Commit::default()
        };
        let emptied = self.emptied_by(path).await?;
        let (name, directories) = naming::release(path, |prefix| emptied.iter().any(|known| known == prefix));
        commit.deletes.push((name, "{}".to_owned()));
        for (key, prefix) in directories {
            commit.preconditions.push(Precondition::PrefixEmpty(prefix));
            commit.deletes.push((key, "{}".to_owned()));
        }
        self.registry().commit(commit).await.map_err(|error| named(error, ask.request_id.as_str()))
    }

    /// The name prefixes of the directories that have nothing else below them than `path` and what leads to it.
    async fn emptied_by(&self, path: &FilePath) -> Result<Vec<String>, FileError> {
        let mut going = vec![name_key(&path.folded())];
        let mut emptied = Vec::new();
        for directory in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            let key = name_key(&fold(directory));
            let prefix = format!("{key}/");
            let query = ListQuery { prefix: prefix.clone(), limit: going.len() + 1, ..ListQuery::default() };
            let below = self.registry().list(query).await?;
            if below.records.iter().any(|record| !going.contains(&record.key)) {
                break;
            }
            emptied.push(prefix);
            going.push(key);
        }
        Ok(emptied)
    }

    /// Removes our copies of files that are registered no more. What cannot be removed is answered with the reason.
    /// The caller has the lease.
    pub(super) async fn remove(&self, path: FilePath) -> Result<(), FileError> {
        let Some(held) = self.inner.board.held(std::slice::from_ref(&path)).pop().flatten() else {
            return Ok(());
        };
        let staged = StagedName::new("delete", self.inner.ports.entropy.uuid());
        let number = self.number();
        let _active = self.inner.intents.begin(number);
        let intent = Intent::Delete { path: path.clone(), staged: staged.clone(), digest: held.digest };
        let removed = self.remove_intended(number, intent.clone(), path, staged, held.digest).await;
        if removed.is_err() {
            // How far it came, the next round finds out.
            self.inner.intents.leave(number, intent);
        }
        removed
    }

    async fn remove_intended(
        &self,
        number: u64,
        intent: Intent,
        path: FilePath,
        staged: StagedName,
        digest: Digest,
    ) -> Result<(), FileError> {
        self.record(vec![Write::Intend(number, intent)]).await?;
        fail::fail_point!("filesync.delete.intended");
        let store = &self.inner.ports.store;
        let withdrawn =
            store.withdraw(vec![(path.clone(), staged.clone())]).await.map_err(|error| self.disk(error))?;
        match withdrawn.into_iter().next() {
            Some(Ok(())) => {}
            // Somebody removed it, or put something else in its place, which is not ours to touch.
            Some(Err(StoreError::Absent { .. } | StoreError::Foreign { .. })) | None => {
                let mut writes = self.release(&path, digest);
                writes.push(Write::Settle(number));
                return self.record(writes).await;
            }
            Some(Err(error)) => {
                self.record(vec![Write::Settle(number)]).await?;
                return Err(self.disk(error));
            }
        }
        fail::fail_point!("filesync.delete.withdrawn");
        self.settle_delete(number, path, staged, digest).await
    }
}

fn living(tombstone: FileRecord) -> FileRecord {
    FileRecord { deleted_by: None, registered_revision: None, ..tombstone }
}
