//! Settling drift, both ways: the bytes that are there become the new content, or the registered ones come back (R30, R31).

use lockstep_model::{
    FilePath, Revision,
    path::fold,
    record::{FileRecord, file_key},
};
use lockstep_registry::{Commit, Committed, Precondition, Registry as _, RegistryError, Request};

use super::{
    Ask, Engine, Registered,
    aside::Recalled,
    codec::{decode, decode_text, encode, named},
    in_place::lying,
};
use crate::{
    domain::{
        check::Seen,
        error::FileError,
        exception::Missing,
        held::Wanted,
        intent::{Intent, Staged},
    },
    ports::{Algorithms, Ports, Write},
};

impl<P: Ports> Engine<P> {
    /// Makes the bytes that lie at the path here its new content, everywhere.
    ///
    /// # Errors
    /// As the contract says; after one other than `REGISTRY_UNAVAILABLE` nothing happened.
    pub async fn update_version(
        &self,
        ask: Ask,
        path: FilePath,
        expected: Revision,
    ) -> Result<Registered, FileError> {
        let engine = self.clone();
        self.detached(async move { engine.update_version_now(&ask, &path, expected).await }).await
    }

    async fn update_version_now(
        &self,
        ask: &Ask,
        path: &FilePath,
        expected: Revision,
    ) -> Result<Registered, FileError> {
        self.may_change()?;
        self.verify_store().await?;
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let fingerprint = format!("update version {path} {expected}");
        let request = Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint };
        if let Some(revision) = self.known_request(&request).await? {
            let answer = self.replay(revision, std::slice::from_ref(path), &ask.label()).await?.pop();
            return answer.ok_or_else(|| FileError::NotFound { path: path.clone() });
        }
        if let Some(Recalled::Done(answer)) = self.recall(&request).await? {
            return recalled(path, &answer);
        }
        self.may_originate(ask.deadline).await?;
        let current = self.registered_at(path, expected).await?;
        let paths = std::slice::from_ref(path);
        let wanted = Algorithms { md5: true, sha256: false };
        let hashed = self.hash_in_place(paths, wanted).await?.pop();
        let hashed = hashed.ok_or_else(|| FileError::NotFound { path: path.clone() })?;
        let _lease = self.inner.leases.acquire([path]).await;
        if hashed.digest == current.record.digest {
            // No transaction remembers that there was nothing to do; repeated later, there still is nothing.
            self.remember(&request, Recalled::Done(answer_of(&current)?)).await?;
            return Ok(current);
        }
        let FileRecord { file_id, placement, .. } = current.record;
        let file = lying(self.wanted_in_place(path, file_id, placement, &hashed), hashed);
        let number = self.number();
        let _active = self.inner.intents.begin(number);
        let intent = Intent::InPlace { files: vec![file.wanted.clone()] };
        self.record(vec![Write::Intend(number, intent.clone())]).await?;
        fail::fail_point!("filesync.update.intended");
        let committed = self.commit_version(ask, request, expected, &file).await;
        let committed = self.settle_refused(number, &intent, committed).await?;
        fail::fail_point!("filesync.update.committed");
        let held = self.hold_in_place(ask, number, intent, vec![file], committed.revision).await?.pop();
        held.ok_or_else(|| FileError::NotFound { path: path.clone() })
    }

    async fn commit_version(
        &self,
        ask: &Ask,
        request: Request,
        expected: Revision,
        file: &Staged,
    ) -> Result<Committed, FileError> {
        let key = file_key(&file.wanted.path);
        let record = file.at(expected, "").registered(expected, ask).record;
        let commit = Commit {
            preconditions: vec![Precondition::At(key.clone(), expected)],
            puts: vec![(key, encode(&record)?)],
            request: Some(request),
            traceparent: ask.traceparent.clone(),
            ..Commit::default()
        };
        match self.originate(commit).await? {
            // Somebody changed the file in between: say to what.
            Err(RegistryError::Refused { .. }) => {
                self.registered_at(&file.wanted.path, expected).await?;
                let cause = "the record of the file changed to and fro".to_owned();
                Err(RegistryError::Unavailable { cause }.into())
            }
            other => other.map_err(|error| named(error, ask.request_id.as_str())),
        }
    }

    /// Has the registered bytes fetched again, whatever lies at the path here.
    ///
    /// # Errors
    /// As the contract says.
    pub async fn restore(
        &self,
        ask: Ask,
        path: FilePath,
        expected: Revision,
    ) -> Result<Registered, FileError> {
        let engine = self.clone();
        self.detached(async move { engine.restore_once(&ask, &path, expected).await }).await
    }

    async fn restore_once(
        &self,
        ask: &Ask,
        path: &FilePath,
        expected: Revision,
    ) -> Result<Registered, FileError> {
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let fingerprint = format!("restore {path} {expected}");
        let request = Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint };
        if let Some(Recalled::Done(answer)) = self.recall(&request).await? {
            return recalled(path, &answer);
        }
        // The name may belong to a change of records.
        self.known_request(&request).await?;
        let restored = self.restore_now(path, expected).await?;
        self.remember(&request, Recalled::Done(answer_of(&restored)?)).await?;
        Ok(restored)
    }

    async fn restore_now(&self, path: &FilePath, expected: Revision) -> Result<Registered, FileError> {
        // It makes no transaction: what is registered comes back, whatever the clock says.
        self.may_change()?;
        self.verify_store().await?;
        let current = self.registered_at(path, expected).await?;
        // What changed since the last walk is found now; without it, a file that looks held would be left as it is.
        self.examine(path, super::walk::Depth::Content, None).await?;
        let _lease = self.inner.leases.acquire([path]).await;
        let known = self.inner.board.exceptions(std::slice::from_ref(path)).pop().flatten();
        let Some(known) = known.filter(|known| known.is_drifted() && known.wanted.revision == expected)
        else {
            return Ok(current);
        };
        if let Seen::Foreign("a directory") = self.look_at(path).await? {
            let (path, server) = (path.clone(), self.server().clone());
            return Err(FileError::NotRegular { path, server, what: "a directory" });
        }
        let wanted: Wanted = known.wanted;
        let missing = Missing { displaces: known.displaces, ..Missing::new(wanted) };
        self.record(vec![Write::Miss(missing)]).await?;
        tracing::info!(%path, "a copy that had drifted is fetched again");
        self.inner.fetch.notify_one();
        Ok(current)
    }

    /// The file at a path, if it is at the revision that the caller saw.
    async fn registered_at(&self, path: &FilePath, expected: Revision) -> Result<Registered, FileError> {
        let record = self.registry().get(vec![file_key(path)]).await?.pop().flatten();
        let record = record.ok_or_else(|| FileError::NotFound { path: path.clone() })?;
        let (actual, path) = (record.revision, path.clone());
        if actual != expected {
            let FileRecord { digest, origin, .. } = decode(&record)?;
            return Err(FileError::RevisionChanged { path, expected, actual, digest, origin });
        }
        Ok(Registered { path, revision: actual, record: decode(&record)? })
    }
}

fn answer_of(file: &Registered) -> Result<String, FileError> {
    encode(&(file.revision, &file.record))
}

fn recalled(path: &FilePath, answer: &str) -> Result<Registered, FileError> {
    let (revision, record) = decode_text(answer)?;
    Ok(Registered { path: path.clone(), revision, record })
}
