//! Comparing one copy with what was verified, and acting on what is found.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_model::{
    FilePath, Reason,
    clock::{Clock as _, Entropy as _},
    record::file_key,
};
use lockstep_registry::Registry as _;
use tokio::time::{Instant, sleep_until};

use super::{Engine, codec::decode, delete::Refused, walk::Depth};
use crate::{
    domain::{
        aside::AsideNote,
        check::{Finding, Look, Seen, compare, judge},
        error::FileError,
        exception::{Missing, Obstacle},
        hasher::ContentHasher,
        held::{Held, StagedName, Stat, Wanted},
        plan::Change,
    },
    ports::{Algorithms, Hashed, Place, Ports, Store as _, StoreError, Tree as _, Write},
};

/// How much is read at once.
const READ_BYTES: u64 = 1 << 20;

/// What drifted copies looked like when their bytes were read last, so that they are not read again for nothing.
#[derive(Debug, Default)]
pub(super) struct Drifts(Mutex<BTreeMap<FilePath, Stat>>);

impl Drifts {
    fn map(&self) -> MutexGuard<'_, BTreeMap<FilePath, Stat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why what a round or a fetch finds in its way is there, unless more is known.
fn loose(path: &FilePath) -> Obstacle {
    Obstacle {
        reason: Reason::LooseFileExists,
        message: format!("nobody had registered these bytes at {path}, and other bytes were"),
    }
}

impl<P: Ports> Engine<P> {
    /// Holds the disk to its marker: a root that lost it, or is another one by now, bars everything.
    pub(super) async fn verify_store(&self) -> Result<(), FileError> {
        let board = &self.inner.board;
        let is_offline = || board.barred().filter(|obstacle| obstacle.reason == Reason::StoreOffline);
        match self.inner.ports.store.verify().await {
            Ok(()) => {
                if is_offline().is_some() && board.end_condition(Reason::StoreOffline) {
                    tracing::info!("the store is back");
                    self.inner.health.set("store", true);
                    self.request_round();
                }
                Ok(())
            }
            Err(error) if error_is_offline(&error) => {
                if is_offline().is_none() && board.begin_condition(Obstacle::of(&error)) {
                    tracing::error!(%error, "the store is not used; nothing is served, copied or deleted");
                    self.inner.health.set("store", false);
                }
                let obstacle = is_offline().unwrap_or_else(|| Obstacle::of(&error));
                Err(FileError::Barred { server: self.server().clone(), obstacle })
            }
            Err(error) => Err(self.disk(error)),
        }
    }

    /// Compares the copy at a path. Reads it only if it looks otherwise, or if `depth` says so; at most `pace` bytes a
    /// second.
    pub(super) async fn examine(
        &self,
        path: &FilePath,
        depth: Depth,
        pace: Option<u64>,
    ) -> Result<Finding, FileError> {
        let held = self.inner.board.held(std::slice::from_ref(path)).pop().flatten();
        let Some(held) = held else { return self.examine_given_up(path, depth).await };
        match compare(&held, self.look_at(path).await?) {
            Look::Same if depth == Depth::Times => Ok(Finding::Right),
            Look::Lost => self.give_up(path, &held, Finding::Lost, "it vanished from the disk").await,
            Look::Replaced(what) => {
                self.give_up(path, &held, Finding::Drifted, &format!("{what} is in its place")).await
            }
            Look::Same | Look::Changed => {
                let Some(hashed) = self.hash_gently(path, pace).await? else { return Ok(Finding::Unsettled) };
                match judge(&held, hashed.digest, &hashed.stat) {
                    Finding::Right => self.keep_up(path, held, hashed.stat).await,
                    Finding::Corrupt => {
                        tracing::error!(%path, digest = %held.digest, rotten = true, "the bytes on the disk are not the ones that were verified");
                        let why = "the bytes on the disk are not the ones that were verified";
                        self.give_up(path, &held, Finding::Corrupt, why).await
                    }
                    finding => self.give_up(path, &held, finding, "somebody changed its bytes").await,
                }
            }
        }
    }

    pub(super) async fn look_at(&self, path: &FilePath) -> Result<Seen, FileError> {
        let found =
            self.inner.ports.store.stat(vec![path.clone()]).await.map_err(|error| self.disk(error))?;
        match found.into_iter().next() {
            Some(Ok(Some(stat))) => Ok(Seen::File(stat)),
            Some(Ok(None)) | None => Ok(Seen::Absent),
            Some(Err(StoreError::Foreign { what, .. })) => Ok(Seen::Foreign(what)),
            // One file that cannot be looked at is no reason to bar the server.
            Some(Err(error)) => Err(FileError::Store { server: self.server().clone(), error }),
        }
    }

    /// Reads and hashes a copy, slowly if told so; `None` if it changed meanwhile.
    async fn hash_gently(&self, path: &FilePath, pace: Option<u64>) -> Result<Option<Hashed>, FileError> {
        let store = &self.inner.ports.store;
        let Some(pace) = pace else {
            return match store.hash_published(path.clone()).await {
                Ok(hashed) => Ok(hashed),
                Err(StoreError::Changed { .. } | StoreError::Foreign { .. }) => Ok(None),
                Err(error) => Err(self.disk(error)),
            };
        };
        let Seen::File(before) = self.look_at(path).await? else { return Ok(None) };
        let (mut hasher, mut offset, begun) = (ContentHasher::new(Algorithms::default()), 0, Instant::now());
        while offset < before.size_bytes {
            let length = READ_BYTES.min(before.size_bytes - offset);
            let read = store.read(
                Place::Published(path.clone()),
                offset,
                usize::try_from(length).unwrap_or(usize::MAX),
            );
            let data = match read.await {
                Ok(data) if data.len() as u64 == length => data,
                Ok(_) | Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => return Ok(None),
                Err(error) => return Err(self.disk(error)),
            };
            hasher.update(&data);
            offset += length;
            let due = begun + Duration::from_secs_f64(offset as f64 / pace.max(1) as f64);
            tokio::select! {
                biased;
                () = self.inner.drain.started() => {
                    return Err(FileError::Draining { server: self.server().clone() });
                }
                () = sleep_until(due) => {}
            }
        }
        let unchanged = self.look_at(path).await? == Seen::File(before);
        Ok(unchanged.then(|| hasher.finish(before)))
    }

    /// The bytes are right and look otherwise: notes how.
    async fn keep_up(&self, path: &FilePath, held: Held, stat: Stat) -> Result<Finding, FileError> {
        if held.stat == stat {
            return Ok(Finding::Right);
        }
        let _lease = self.inner.leases.acquire([path]).await;
        let same = self.is_held(path, &held) && self.look_at(path).await? == Seen::File(stat);
        if same {
            self.record(vec![Write::Hold(path.clone(), Held { stat, ..held })]).await?;
        }
        Ok(if same { Finding::Right } else { Finding::Unsettled })
    }

    fn is_held(&self, path: &FilePath, held: &Held) -> bool {
        self.inner.board.held(std::slice::from_ref(path)).pop().flatten().as_ref() == Some(held)
    }

    /// Stops holding a copy; the exception that takes its place has it fetched again, unless somebody changed it: then it
    /// is left alone until somebody decides.
    pub(super) async fn give_up(
        &self,
        path: &FilePath,
        held: &Held,
        finding: Finding,
        why: &str,
    ) -> Result<Finding, FileError> {
        let _lease = self.inner.leases.acquire([path]).await;
        if !self.is_held(path, held) {
            return Ok(Finding::Unsettled);
        }
        let is_gone = self.look_at(path).await? == Seen::Absent;
        if is_gone != (finding == Finding::Lost) {
            return Ok(Finding::Unsettled);
        }
        let record = self.registry().get(vec![file_key(path)]).await?.pop().flatten();
        // Deleted, or another object by now: a round does what is to be done.
        let Some(record) = record else { return Ok(Finding::Unsettled) };
        let body = decode(&record)?;
        if body.file_id != held.file_id || body.digest != held.digest {
            return Ok(Finding::Unsettled);
        }
        let wanted = Wanted::of(path.clone(), record.revision, body, record.traceparent);
        let obstacle = obstacle(path, self.server().as_str(), finding, why);
        match finding {
            Finding::Drifted => tracing::warn!(%path, %obstacle, "a copy drifted; it is left alone"),
            _ => tracing::warn!(%path, %obstacle, "a copy is given up and fetched again"),
        }
        let mut writes = self.release(path, held.digest, &[]);
        writes.push(Write::Miss(Missing::given_up(wanted, obstacle)));
        self.record(writes).await?;
        if finding != Finding::Drifted {
            self.inner.fetch.notify_one();
        }
        Ok(finding)
    }

    /// A copy that drifted may be right again, or gone.
    async fn examine_given_up(&self, path: &FilePath, depth: Depth) -> Result<Finding, FileError> {
        let drifted = || {
            let known = self.inner.board.exceptions(std::slice::from_ref(path)).pop().flatten();
            known.filter(Missing::is_drifted)
        };
        let Some(missing) = drifted() else { return Ok(Finding::Unsettled) };
        let stat = match self.look_at(path).await? {
            Seen::Foreign(_) => return Ok(Finding::Drifted),
            Seen::File(stat) => Some(stat),
            Seen::Absent => None,
        };
        if stat.is_some() && depth == Depth::Times && self.inner.drifts.map().get(path) == stat.as_ref() {
            return Ok(Finding::Drifted);
        }
        let _lease = self.inner.leases.acquire([path]).await;
        if drifted().as_ref() != Some(&missing) {
            return Ok(Finding::Unsettled);
        }
        let wanted = missing.wanted;
        let Some(stat) = stat else {
            let obstacle = obstacle(path, self.server().as_str(), Finding::Lost, "it vanished from the disk");
            tracing::warn!(%path, %obstacle, "a copy is given up and fetched again");
            // The old one is of the same revision: without clearing it, it would count as drifted still.
            let again = Missing::given_up(wanted, obstacle);
            self.record(vec![Write::Clear(path.clone()), Write::Miss(again)]).await?;
            self.inner.fetch.notify_one();
            return Ok(Finding::Lost);
        };
        match self.adopt(&wanted).await? {
            Some(writes) => {
                self.record(writes).await?;
                self.inner.drifts.map().remove(path);
                tracing::info!(%path, "a copy that had drifted is right again");
                Ok(Finding::Recovered)
            }
            None => {
                self.inner.drifts.map().insert(path.clone(), stat);
                Ok(Finding::Drifted)
            }
        }
    }

    /// Bytes that drifted are not ours to unlink when their file is deleted (R32): they make room, and are kept aside.
    pub(super) async fn set_aside_drifted(&self, changes: &[Change]) -> Result<Refused, FileError> {
        let mut refused = Refused::new();
        for change in changes.iter().filter(|change| matches!(change, Change::Deleted(_))) {
            let path = change.path();
            let known = self.inner.board.exceptions(std::slice::from_ref(path)).pop().flatten();
            if !known.is_some_and(|known| known.is_drifted()) {
                continue;
            }
            match self.set_aside(path).await {
                Ok(()) | Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => {}
                Err(error) => {
                    let error = self.disk(error);
                    let why = error.of_one_path().ok_or(error)?;
                    refused.insert(path.clone(), why);
                }
            }
        }
        Ok(refused)
    }

    /// Sets aside whatever is at a path, with the reason that is known. The caller has the lease.
    pub(super) async fn set_aside(&self, path: &FilePath) -> Result<(), StoreError> {
        let known = self.inner.board.exceptions(std::slice::from_ref(path)).pop().flatten();
        let why = known.and_then(|known| known.displaces).map(|reason| Obstacle {
            reason,
            message: format!("these bytes were at {path} in place of the registered ones"),
        });
        let id = StagedName::new("aside", self.inner.ports.entropy.uuid());
        let note = self.note(path, why.unwrap_or_else(|| loose(path)));
        self.inner.ports.store.displace(id.clone(), note).await?;
        tracing::warn!(%path, kept = %id, "set aside bytes that nobody registered");
        Ok(())
    }

    /// Keeps staged bytes that turned out not to be ours.
    pub(super) async fn keep_aside(
        &self,
        staged: StagedName,
        path: &FilePath,
        reason: Reason,
    ) -> Result<(), StoreError> {
        let message = format!("these bytes were at {path} in place of the registered ones");
        let note = self.note(path, Obstacle { reason, message });
        let kept = self.inner.ports.store.set_aside(staged, note).await?;
        tracing::warn!(%path, %kept, "set aside bytes that were not the registered ones");
        Ok(())
    }

    fn note(&self, path: &FilePath, why: Obstacle) -> AsideNote {
        AsideNote { path: path.clone(), why, time: self.inner.ports.clock.now(), digest: None }
    }
}

fn error_is_offline(error: &StoreError) -> bool {
    matches!(error, StoreError::Offline { .. })
}

pub(super) fn obstacle(path: &FilePath, server: &str, finding: Finding, why: &str) -> Obstacle {
    let reason = match finding {
        Finding::Drifted => Reason::Drifted,
        Finding::Lost => Reason::ContentNotFound,
        _ => Reason::StoredContentCorrupt,
    };
    Obstacle { reason, message: format!("{path} on server {server}: {why}") }
}
