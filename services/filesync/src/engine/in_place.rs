//! Registering files where they lie: hashed, written down, committed, held; no byte is moved, and nothing about the file is
//! changed, its times included: setting them could hide what somebody writes at the same moment.

use lockstep_model::{
    Digest, FileId, FilePath, Md5, Revision,
    clock::Clock as _,
    record::{Placement, file_key},
};
use lockstep_registry::{Committed, Registry as _, RegistryError, Request};

use super::{
    Ask, Engine, Registered, codec::decode, declared::check_declared, free::Standing, lease::Lease,
    register::NewFile, uploads::UPLOAD_BYTES_MAX,
};
use crate::{
    domain::{
        error::FileError,
        exception::{Missing, Obstacle},
        held::{StagedName, Wanted},
        intent::{Intent, Staged},
    },
    ports::{Algorithms, Hashed, Ports, Store as _, StoreError, Tree as _, Write},
};

/// How often the same paths may be fetched again while a registration waits for them.
const ATTEMPTS_MAX: usize = 16;

impl<P: Ports> Engine<P> {
    /// Registers files in place, all in one transaction.
    pub(super) async fn register_in_place(
        &self,
        ask: &Ask,
        request: Request,
        files: Vec<NewFile>,
    ) -> Result<Vec<Registered>, FileError> {
        let paths: Vec<FilePath> = files.iter().map(|file| file.path.clone()).collect();
        // What is registered already is told as that, before anything is read.
        if let Standing::Mine(revision) = self.standing(&paths, &ask.label()).await? {
            return self.replay(revision, &paths, &ask.label()).await;
        }
        let sha256 = files.iter().any(|file| file.declared.sha256.is_some());
        let hashed = self.hash_in_place(&paths, Algorithms { md5: true, sha256 }).await?;
        let mut staged = Vec::with_capacity(files.len());
        for (file, hashed) in files.iter().zip(hashed) {
            let (file_id, placement) =
                (FileId::random(&self.inner.ports.entropy), file.placement.unwrap_or_default());
            let wanted = self.wanted_in_place(&file.path, file_id, placement, &hashed);
            check_declared(file, &hashed, wanted.md5)?;
            staged.push(lying(wanted, hashed));
        }
        fail::fail_point!("filesync.in_place.hashed");
        let _lease = self.acquire_unheld(&paths, ask).await?;
        let number = self.number();
        let _active = self.inner.intents.begin(number);
        let intent = Intent::InPlace { files: staged.iter().map(|file| file.wanted.clone()).collect() };
        self.record(vec![Write::Intend(number, intent.clone())]).await?;
        fail::fail_point!("filesync.in_place.intended");
        let committed = self.commit(ask, &request, &staged).await;
        let committed = self.settle_refused(number, &intent, committed).await?;
        fail::fail_point!("filesync.in_place.committed");
        if committed.replayed {
            self.record(vec![Write::Settle(number)]).await?;
            return self.replay(committed.revision, &paths, &ask.label()).await;
        }
        self.hold_in_place(ask, number, intent, staged, committed.revision).await
    }

    /// The answer of a commit that was written down: after a refusal nothing is left to do; where the registry fell
    /// silent, the next round asks it what became of it.
    pub(super) async fn settle_refused(
        &self,
        number: u64,
        intent: &Intent,
        committed: Result<Committed, FileError>,
    ) -> Result<Committed, FileError> {
        match &committed {
            Ok(_) => {}
            Err(FileError::Registry(RegistryError::Unavailable { .. })) => {
                self.inner.intents.leave(number, intent.clone());
            }
            Err(_) => self.record(vec![Write::Settle(number)]).await?,
        }
        committed
    }

    /// What a file that lies at `path` will be as a registered one of now.
    pub(super) fn wanted_in_place(
        &self,
        path: &FilePath,
        file_id: FileId,
        placement: Placement,
        hashed: &Hashed,
    ) -> Wanted {
        let registered_time = self.inner.ports.clock.now();
        Wanted {
            path: path.clone(),
            file_id,
            revision: Revision::ZERO,
            digest: hashed.digest,
            md5: hashed.md5.unwrap_or(Md5::from_bytes([0; 16])),
            size_bytes: hashed.stat.size_bytes,
            registered_time: registered_time.round(jiff::Unit::Microsecond).unwrap_or(registered_time),
            origin: self.server().clone(),
            placement,
            traceparent: String::new(),
        }
    }

    /// Reads files where they lie; the first that cannot be registered is told.
    pub(super) async fn hash_in_place(
        &self,
        paths: &[FilePath],
        wanted: Algorithms,
    ) -> Result<Vec<Hashed>, FileError> {
        let store = &self.inner.ports.store;
        let stats = store.inspect(paths.to_vec()).await.map_err(|error| self.disk(error))?;
        for (path, stat) in paths.iter().zip(stats) {
            let stat = stat.map_err(|error| self.lying_wrong(path, error))?;
            if stat.size_bytes > UPLOAD_BYTES_MAX {
                let (what, limit, actual) = (path.to_string(), UPLOAD_BYTES_MAX, stat.size_bytes);
                return Err(FileError::TooLarge { what, limit, actual });
            }
        }
        let hashed = store.hash_in_place(paths.to_vec(), wanted).await.map_err(|error| self.disk(error))?;
        paths.iter().zip(hashed).map(|(path, hashed)| hashed.map_err(|e| self.lying_wrong(path, e))).collect()
    }

    /// Why what lies at a path cannot be registered there.
    fn lying_wrong(&self, path: &FilePath, error: StoreError) -> FileError {
        let server = self.server().clone();
        match error {
            StoreError::Absent { .. } => FileError::NothingThere { path: path.clone(), server },
            StoreError::Foreign { what, .. } => FileError::NotRegular { path: path.clone(), server, what },
            error @ StoreError::Changed { .. } => FileError::Store { server, error },
            other => self.disk(other),
        }
    }

    /// The lease of `paths`, none of which is held; what is held of an earlier object there is given up by a round first.
    async fn acquire_unheld(&self, paths: &[FilePath], ask: &Ask) -> Result<Lease, FileError> {
        for _ in 0..ATTEMPTS_MAX {
            let lease = self.inner.leases.acquire(paths).await;
            if self.inner.board.held(paths).iter().all(Option::is_none) {
                return Ok(lease);
            }
            if let Standing::Mine(_) = self.standing(paths, &ask.label()).await? {
                return Ok(lease);
            }
            drop(lease);
            self.reconcile().await?;
            self.refuse_stuck(paths)?;
        }
        let cause = "the same names were registered and deleted again and again in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    /// Holds what was committed where it lies; what changed since it was read has drifted. The caller has the lease.
    pub(super) async fn hold_in_place(
        &self,
        ask: &Ask,
        number: u64,
        intent: Intent,
        staged: Vec<Staged>,
        revision: Revision,
    ) -> Result<Vec<Registered>, FileError> {
        let files: Vec<Staged> = staged.iter().map(|file| file.at(revision, &ask.traceparent)).collect();
        // The commit stands: whatever fails now, a later round does it.
        match self.write_in_place(number, &files).await {
            Ok(held) => {
                let ahead = held.into_iter().map(|path| (path, revision, ask.traceparent.clone()));
                self.inner.board.hold_ahead(ahead);
            }
            Err(error) => {
                tracing::error!(%error, "files that were registered in place are not held yet");
                self.inner.intents.leave(number, intent);
            }
        }
        fail::fail_point!("filesync.in_place.held");
        self.request_round();
        Ok(files.into_iter().map(|file| file.registered(revision, ask)).collect())
    }

    /// Answers the paths that are held now.
    async fn write_in_place(&self, number: u64, files: &[Staged]) -> Result<Vec<FilePath>, FileError> {
        let store = &self.inner.ports.store;
        let paths: Vec<FilePath> = files.iter().map(|file| file.wanted.path.clone()).collect();
        let found = store.stat(paths.clone()).await.map_err(|error| self.disk(error))?;
        let before = self.inner.board.held(&paths);
        let (mut writes, mut held) = (Vec::new(), Vec::new());
        for ((file, found), before) in files.iter().zip(found).zip(before) {
            let wanted = &file.wanted;
            if let Some(before) = before.filter(|before| before.digest != wanted.digest) {
                writes.extend(self.release(&wanted.path, before.digest, &[]));
            }
            match (&file.checked, found) {
                (Some((stat, groups)), Ok(Some(found))) if found == *stat => {
                    writes.extend(self.hold(wanted, found, groups.clone()));
                    held.push(wanted.path.clone());
                }
                _ => writes.push(Write::Miss(changed_after(wanted, self.server().as_str()))),
            }
        }
        writes.push(Write::Settle(number));
        self.record(writes).await?;
        Ok(held)
    }

    /// After a crash: the live record is ours or it is not; if it is, the bytes are read again.
    pub(super) async fn settle_in_place(&self, number: u64, files: Vec<Wanted>) -> Result<(), FileError> {
        let paths: Vec<FilePath> = files.iter().map(|wanted| wanted.path.clone()).collect();
        let _lease = self.inner.leases.acquire(&paths).await;
        let latest = self.registry().get_latest(paths.iter().map(file_key).collect()).await?;
        let before = self.inner.board.held(&paths);
        let mut writes = Vec::new();
        for ((mut wanted, record), before) in files.into_iter().zip(latest).zip(before) {
            let Some(record) = record.filter(|record| !record.deleted) else { continue };
            let body = decode(&record)?;
            let committed = body.file_id == wanted.file_id && body.digest == wanted.digest;
            // What the position has passed already was seen by a round.
            if !committed || before.as_ref().is_some_and(|before| before.revision >= record.revision) {
                continue;
            }
            wanted.revision = record.revision;
            if let Some(before) = before.filter(|before| before.digest != wanted.digest) {
                writes.extend(self.release(&wanted.path, before.digest, &[]));
            }
            match self.adopt(&wanted).await? {
                Some(held) => writes.extend(held),
                None => writes.push(Write::Miss(changed_after(&wanted, self.server().as_str()))),
            }
        }
        writes.push(Write::Settle(number));
        self.record(writes).await?;
        Ok(())
    }
}

/// A file that lies where it belongs, as the commit of staged files takes it; there is nothing in staging.
pub(super) fn lying(wanted: Wanted, hashed: Hashed) -> Staged {
    let staged = StagedName::new("in-place", Digest::of(wanted.path.as_str().as_bytes()));
    let checked = Some((hashed.stat, hashed.groups));
    Staged { wanted, staged, checked, replaces: None, instead_of: None }
}

/// Somebody wrote to the file between its hash and its commit.
fn changed_after(wanted: &Wanted, server: &str) -> Missing {
    let message = format!("somebody changed {} on server {server} while it was registered", wanted.path);
    let reason = lockstep_model::Reason::Drifted;
    Missing::given_up(wanted.clone(), Obstacle { reason, message })
}
