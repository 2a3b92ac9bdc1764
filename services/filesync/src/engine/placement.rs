//! Saying anew which servers should hold files. Nothing is deleted by it: what is missing is copied, what is not meant to be
//! there any more stays (R12, R36).

use lockstep_model::{
    FilePath, Revision,
    path::fold,
    record::{FileRecord, Placement, file_key},
};
use lockstep_registry::{Commit, Precondition, Registry as _, RegistryError, Request};

use super::{
    Ask, Engine, Registered,
    change::Step,
    codec::{decode, encode, named},
};
use crate::{domain::error::FileError, ports::Ports};

impl<P: Ports> Engine<P> {
    /// Places files, all or none; those that are placed so already keep their revision.
    ///
    /// # Errors
    /// As the contract says; after one other than `REGISTRY_UNAVAILABLE` nothing happened.
    pub async fn place(
        &self,
        ask: Ask,
        files: Vec<(FilePath, Revision)>,
        placement: Placement,
    ) -> Result<Vec<Registered>, FileError> {
        let engine = self.clone();
        self.detached(async move { engine.place_now(&ask, &files, placement).await }).await
    }

    async fn place_now(
        &self,
        ask: &Ask,
        files: &[(FilePath, Revision)],
        placement: Placement,
    ) -> Result<Vec<Registered>, FileError> {
        self.may_change()?;
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let fingerprint = format!("place {placement:?} {files:?}");
        let request = Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint };
        let is_known = self.known_request(&request).await?.is_some();
        if !is_known {
            self.may_originate(ask.deadline).await?;
        }
        let keys: Vec<String> = files.iter().map(|(path, _)| file_key(path)).collect();
        let records = self.registry().get(keys).await?;
        let mut commit =
            Commit { request: Some(request), traceparent: ask.traceparent.clone(), ..Commit::default() };
        let mut placed = Vec::with_capacity(files.len());
        for ((path, expected), record) in files.iter().zip(records) {
            let record = record.ok_or_else(|| FileError::NotFound { path: path.clone() })?;
            if is_known {
                let (path, revision) = (path.clone(), record.revision);
                placed.push(Registered { path, revision, record: decode(&record)? });
                continue;
            }
            let Step { path, revision, body, .. } = Step::at(path, &record, *expected, None)?;
            let key = file_key(&path);
            commit.preconditions.push(Precondition::At(key.clone(), revision));
            let body = FileRecord { placement, ..body };
            let body_text = encode(&body)?;
            if body_text != record.body {
                commit.puts.push((key, body_text));
            }
            placed.push(Registered { path, revision, record: body });
        }
        if is_known {
            return Ok(placed);
        }
        let changed: Vec<String> = commit.puts.iter().map(|(key, _)| key.clone()).collect();
        let committed = match self.originate(commit).await? {
            Err(RegistryError::Refused { .. }) => return Err(self.changed_since(files).await?),
            other => other.map_err(|error| named(error, ask.request_id.as_str()))?,
        };
        self.request_round();
        for file in placed.iter_mut().filter(|file| changed.contains(&file_key(&file.path))) {
            file.revision = committed.revision;
        }
        Ok(placed)
    }

    /// Which of the files is not what the caller saw.
    async fn changed_since(&self, files: &[(FilePath, Revision)]) -> Result<FileError, FileError> {
        let keys = files.iter().map(|(path, _)| file_key(path)).collect();
        for ((path, expected), record) in files.iter().zip(self.registry().get(keys).await?) {
            let Some(record) = record else { return Ok(FileError::NotFound { path: path.clone() }) };
            if let Err(changed) = Step::at(path, &record, *expected, None) {
                return Ok(changed);
            }
        }
        let cause = "the records of the files changed to and fro".to_owned();
        Ok(RegistryError::Unavailable { cause }.into())
    }
}
