//! What the disk refuses at one path is an exception of that path: the position moves on, and nobody waits for it. Here it
//! is put off, and tried again, as seldom as a copy that fails.
//!
//! A file that should be gone stays held, so that its bytes stay known, and are served, until they are. Trying again looks
//! at what is there by then, under the lease: nothing newer goes (I3), and bytes that another path still needs move there.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{FilePath, Md5, Reason, Revision, clock::Clock as _, record::Placement};
use tokio::time::Instant;

use super::{Engine, delete::Refused, lease::Lease};
use crate::{
    domain::{
        error::FileError,
        exception::{Missing, Obstacle},
        held::{Held, Wanted},
        plan::Change,
        tree::GROUP_BYTES,
    },
    ports::{Ports, StoreError, Write},
};

/// How often a round settles what is left at the paths of one page before it puts them off.
const SETTLE_TRIES_MAX: usize = 3;

/// What was deleted or moved away, by path.
pub(super) fn ended(changes: &[Change]) -> BTreeMap<FilePath, Wanted> {
    let ended = changes.iter().filter_map(|change| match change {
        Change::Deleted(ended) => Some((ended.path.clone(), ended.clone())),
        Change::Active(_) | Change::Elsewhere(_) => None,
    });
    ended.collect()
}

impl<P: Ports> Engine<P> {
    /// The lease of `paths`; and at which of them something that was begun cannot be settled, and why.
    pub(super) async fn lease_settled(&self, paths: &[FilePath]) -> Result<(Lease, Refused), FileError> {
        for _ in 0..SETTLE_TRIES_MAX {
            let lease = self.inner.leases.acquire(paths).await;
            if self.inner.intents.left_at(paths).is_empty() {
                return Ok((lease, Refused::new()));
            }
            drop(lease);
            self.settle().await?;
            self.inner.intents.rested_at(paths).await;
        }
        let lease = self.inner.leases.acquire(paths).await;
        let left = self.inner.intents.left_at(paths);
        Ok((lease, left.into_iter().map(|path| (path.clone(), self.inner.intents.why(&path))).collect()))
    }

    /// Bytes that are missing at another path since a move was refused are not removed here: this server may be the only one
    /// that has them.
    pub(super) fn refuse_needed(&self, held: &BTreeMap<&FilePath, &Held>, refused: &mut Refused) {
        let ids: BTreeSet<_> = held.values().map(|held| held.file_id).collect();
        let needed = self.inner.board.missing_files(&ids);
        for (path, held) in held {
            let Some(wanted) = needed.get(&held.file_id).filter(|wanted| wanted.path != **path) else {
                continue;
            };
            if wanted.digest == held.digest {
                let message = format!("what is at {path} has not got its new name {} yet", wanted.path);
                let why = Obstacle { reason: Reason::DiskRefused, message };
                refused.entry((*path).clone()).or_insert(why);
            }
        }
    }

    /// Takes out what cannot be carried out now, as exceptions. Where a file moves to a path that is put off, so is what
    /// becomes of its old path: the bytes stay where they are.
    pub(super) fn defer(
        &self,
        changes: Vec<Change>,
        refused: &Refused,
        held: &BTreeMap<&FilePath, &Held>,
    ) -> (Vec<Write>, Vec<Change>) {
        let mut refused = refused.clone();
        for change in &changes {
            let Some(wanted) = change.living() else { continue };
            let Some(why) = refused.get(&wanted.path).cloned() else { continue };
            let is_source = |held: &Held| held.file_id == wanted.file_id && held.digest == wanted.digest;
            for (path, _) in held.iter().filter(|(_, held)| is_source(held)) {
                refused.entry((*path).clone()).or_insert_with(|| why.clone());
            }
        }
        let (mut writes, mut rest) = (Vec::new(), Vec::with_capacity(changes.len()));
        for change in changes {
            let is_ahead = |held: &&Held| held.revision >= change.revision();
            match (refused.get(change.path()), held.get(change.path())) {
                (Some(why), held) if !held.is_some_and(is_ahead) => writes.push(match change {
                    Change::Active(wanted) | Change::Elsewhere(wanted) => {
                        Write::Miss(Missing::refused(wanted, why.clone()))
                    }
                    Change::Deleted(ended) => self.leave_behind(&ended, why),
                }),
                _ => rest.push(change),
            }
        }
        (writes, rest)
    }

    /// What to write for a file that should be gone and is not.
    pub(super) fn leave_behind(&self, ended: &Wanted, why: &Obstacle) -> Write {
        let known = self.inner.board.exception(&ended.path);
        // What drifted is not ours to unlink, later no more than now.
        let displaces =
            known.filter(|known| known.is_drifted() || known.is_left).and_then(|known| known.displaces);
        tracing::warn!(path = %ended.path, %why, "a file that should be gone stays for now");
        Write::Miss(Missing::left(ended.clone(), why.clone(), displaces))
    }

    /// Refuses work at paths that wait for the disk; with what it says, tells the error.
    pub(super) fn refuse_stuck(&self, paths: &[FilePath]) -> Result<(), FileError> {
        let left = self.inner.intents.left_at(paths);
        for path in paths {
            let known = self.inner.board.exception(path).filter(|known| known.is_left || left.contains(path));
            if let Some(obstacle) = known.and_then(|known| known.obstacle) {
                return Err(FileError::Stuck { path: path.clone(), server: self.server().clone(), obstacle });
            }
        }
        Ok(())
    }

    /// Tries again, one after the other, whatever is not merely a copy from elsewhere.
    pub(super) async fn retry_stuck(&self, batch: Vec<Missing>) {
        for missing in batch {
            if let Err(error) = self.retry_one(&missing).await {
                let why = error.of_one_path().unwrap_or_else(|| Obstacle::of(&error));
                self.fail_fetch(&missing.wanted, why).await;
            }
        }
    }

    async fn retry_one(&self, missing: &Missing) -> Result<(), FileError> {
        let wanted = &missing.wanted;
        self.settle_for(wanted).await?;
        if missing.is_left {
            return self.retry_leaving(wanted).await;
        }
        if self.inner.board.is_doubted(wanted) {
            return self.look_again(wanted).await;
        }
        let moved = match self.inner.board.stale_path(wanted) {
            Some(from) => self.retry_move(from, wanted).await,
            None => Ok(()),
        };
        if !self.inner.board.is_missing(wanted) {
            return Ok(());
        }
        self.refuse_stuck(std::slice::from_ref(&wanted.path))?;
        if wanted.is_elsewhere(self.server()) {
            return self.abandon(wanted).await;
        }
        // The disk refuses the rename, but another server may give the bytes.
        self.inner.board.copying(std::slice::from_ref(wanted), Instant::now());
        match wanted.size_bytes <= GROUP_BYTES {
            true => self.fetch_small(vec![wanted.clone()]).await,
            false => self.fetch_large(wanted.clone()).await,
        }
        match moved {
            // What the disk says is nearer to the cause than that nobody else has the bytes.
            Err(error) if self.inner.board.is_missing(wanted) => Err(error),
            _ => Ok(()),
        }
    }

    /// A copy that is not here any more, or not right, and is meant for another server only: none is made again.
    async fn abandon(&self, wanted: &Wanted) -> Result<(), FileError> {
        let path = &wanted.path;
        let _lease = self.inner.leases.acquire([path]).await;
        let known = self.inner.board.exception(path);
        let Some(known) = known.filter(|known| known.wanted == *wanted && !known.is_left && !known.is_kept)
        else {
            return Ok(());
        };
        if let Some(writes) = self.adopt(wanted).await? {
            return self.record(writes).await;
        }
        // What was ours, or drifted from it, is kept aside; what nobody registered stays where it is.
        if known.displaces.is_some() {
            match self.set_aside(path).await {
                Ok(()) | Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => {}
                Err(error) => return Err(self.disk(error)),
            }
        }
        tracing::info!(%path, "a copy that is meant for another server only is gone from here");
        self.record(vec![Write::Clear(path.clone())]).await
    }

    /// Renames a copy whose move was refused before.
    async fn retry_move(&self, from: FilePath, wanted: &Wanted) -> Result<(), FileError> {
        let _lease = self.inner.leases.acquire([&from, &wanted.path]).await;
        if self.inner.board.stale_path(wanted).as_ref() != Some(&from) || !self.inner.board.is_missing(wanted)
        {
            return Ok(());
        }
        self.move_stale(from, wanted.clone()).await
    }

    async fn move_stale(&self, from: FilePath, wanted: Wanted) -> Result<(), FileError> {
        match self.relocate(vec![(from.clone(), wanted)]).await?.pop() {
            None => {
                // It has left; what is missing at the old path by now is another file.
                let is_left = self.inner.board.exception(&from).is_some_and(|known| known.is_left);
                self.record(is_left.then_some(Write::Clear(from)).into_iter().collect()).await
            }
            Some((path, _, obstacle)) => {
                Err(FileError::Stuck { path, server: self.server().clone(), obstacle })
            }
        }
    }

    /// Removes what should be gone since a revision, or moves it to where it is needed.
    async fn retry_leaving(&self, ended: &Wanted) -> Result<(), FileError> {
        let path = &ended.path;
        let (_lease, needed) = loop {
            let needed = self.needed_elsewhere(path);
            let lease =
                self.inner.leases.acquire([path].into_iter().chain(needed.as_ref().map(|w| &w.path))).await;
            if self.needed_elsewhere(path) == needed {
                break (lease, needed);
            }
        };
        let known = self.inner.board.exception(path);
        let Some(known) = known.filter(|k| k.is_left && k.wanted.revision == ended.revision) else {
            return Ok(());
        };
        let stuck =
            |obstacle| FileError::Stuck { path: path.clone(), server: self.server().clone(), obstacle };
        if self.inner.intents.left_at(std::slice::from_ref(path)).contains(path) {
            return Err(stuck(self.inner.intents.why(path)));
        }
        if known.displaces.is_some() {
            match self.set_aside(path).await {
                Ok(()) | Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => {}
                Err(error) => return Err(self.disk(error)),
            }
        } else if self.inner.board.held(std::slice::from_ref(path)).pop().flatten().is_none()
            && let Some(writes) = self.adopt(ended).await?
        {
            // It got its name before a crash, and could not be held then.
            let writes = writes.into_iter().filter(|write| !is_about_missing(write)).collect();
            self.record(writes).await?;
        }
        let held = self.inner.board.held(std::slice::from_ref(path)).pop().flatten();
        match (held.filter(|held| held.revision <= ended.revision), needed) {
            (Some(_), Some(wanted)) => self.move_stale(path.clone(), wanted).await?,
            (Some(_), None) => {
                if let Some((_, why)) = self.remove(vec![path.clone()]).await?.pop_first() {
                    return Err(stuck(why));
                }
            }
            (None, _) => {}
        }
        tracing::info!(%path, "a file that should have been gone is gone");
        self.record(vec![Write::Clear(path.clone())]).await
    }

    /// What is left to say of a file that no record tells of any more.
    pub(super) fn last_known(&self, path: FilePath, held: &Held, ended: Revision) -> Wanted {
        let Held { file_id, digest, stat, .. } = held.clone();
        Wanted {
            path,
            file_id,
            revision: ended,
            digest,
            md5: Md5::from_bytes([0; 16]),
            size_bytes: stat.size_bytes,
            registered_time: self.inner.ports.clock.now(),
            origin: self.server().clone(),
            placement: Placement::All,
            traceparent: String::new(),
        }
    }

    /// Where what is held at a path should be by now.
    pub(super) fn needed_elsewhere(&self, path: &FilePath) -> Option<Wanted> {
        let held = self.inner.board.held(std::slice::from_ref(path)).pop().flatten()?;
        let wanted = self.inner.board.missing_files(&[held.file_id].into()).remove(&held.file_id)?;
        (wanted.path != *path && wanted.digest == held.digest).then_some(wanted)
    }
}

/// Whether a write changes what is known to be missing.
pub(super) fn is_about_missing(write: &Write) -> bool {
    matches!(write, Write::Clear(_) | Write::Miss(_))
}
