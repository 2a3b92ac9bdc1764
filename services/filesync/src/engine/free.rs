//! Whether paths are free to be registered: neither registered, nor held from an earlier life, nor taken by a loose file.

use std::collections::BTreeSet;

use lockstep_model::{
    FilePath, Folded, Revision,
    record::{file_key, name_key},
};
use lockstep_registry::{Record, Registry as _, RegistryError};

use super::{
    Ask, Engine,
    codec::{decode, decode_json},
    lease::Lease,
};
use crate::{
    domain::{error::FileError, naming},
    ports::{Ports, Store as _, StoreError},
};

/// How often the same paths may be fetched again while a registration waits for them.
const ATTEMPTS_MAX: usize = 16;
/// Names that are read at once.
const KEYS_MAX: usize = 10_000;
/// Numbered names that are tried at once.
const NUMBERS_AT_ONCE: usize = 32;

impl<P: Ports> Engine<P> {
    fn holds_any(&self, paths: &[FilePath]) -> bool {
        self.inner.board.held(paths).iter().any(Option::is_some)
    }

    /// A path that is held here but registered no more has to be given up first; our position is behind.
    pub(super) async fn catch_up_with(&self, paths: &[FilePath], ask: &Ask) -> Result<(), FileError> {
        if self.holds_any(paths) {
            self.check_free(paths, &ask.label()).await?;
            self.reconcile().await?;
            self.refuse_stuck(paths)?;
        }
        Ok(())
    }

    /// The lease of `paths` with nothing in their way, or with what this very request put there; and of `taken`, whose
    /// files are about to be replaced.
    ///
    /// What is in the way may be left of an object that was deleted elsewhere, or was just fetched while this waited: a
    /// round gives it up, which needs the lease. What is still there then is loose (decision 10).
    pub(super) async fn acquire_free(
        &self,
        paths: &[FilePath],
        taken: &[FilePath],
        ask: &Ask,
    ) -> Result<Lease, FileError> {
        let (label, mut loose_before) = (ask.label(), false);
        for _ in 0..ATTEMPTS_MAX {
            let lease = self.inner.leases.acquire(paths.iter().chain(taken)).await;
            if !self.inner.intents.left_at(taken).is_empty() {
                drop(lease);
                self.settle().await?;
                self.inner.intents.rested_at(taken).await;
                self.refuse_stuck(taken)?;
                continue;
            }
            let loose = if self.holds_any(paths) { None } else { self.find_loose(paths).await? };
            if loose.is_none() && !self.holds_any(paths) {
                return Ok(lease);
            }
            // What is registered is not loose, nor is a directory that leads to it: both are refused as what they are.
            if let Standing::Mine(_) = self.standing(paths, &label).await? {
                return Ok(lease);
            }
            if let Some(path) = loose.filter(|_| loose_before) {
                return Err(FileError::LooseFile { path, server: self.server().clone() });
            }
            loose_before = true;
            drop(lease);
            self.reconcile().await?;
            self.refuse_stuck(paths)?;
        }
        let cause = "the same names were registered and deleted again and again in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    /// Something at one of `paths`, or a file where one of them needs a directory.
    async fn find_loose(&self, paths: &[FilePath]) -> Result<Option<FilePath>, FileError> {
        let above: BTreeSet<FilePath> = paths
            .iter()
            .flat_map(FilePath::ancestors)
            .filter_map(|directory| directory.parse().ok())
            .collect();
        let all: Vec<FilePath> = above.into_iter().chain(paths.iter().cloned()).collect();
        let directories = all.len() - paths.len();
        let found = self.inner.ports.store.stat(all.clone()).await.map_err(|error| self.disk(error))?;
        for (index, (path, found)) in all.into_iter().zip(found).enumerate() {
            match found {
                Ok(None) => {}
                // Whatever is in place of a directory is told by the path below it too, but a file is not.
                Err(StoreError::Foreign { .. }) if index < directories => {}
                // Something that is no file is loose too.
                Ok(Some(_)) | Err(StoreError::Foreign { .. }) => return Ok(Some(path)),
                Err(error) => return Err(self.disk(error)),
            }
        }
        Ok(None)
    }

    /// Refuses paths that are registered; with which revision, tells the error.
    async fn check_free(&self, paths: &[FilePath], label: &str) -> Result<(), FileError> {
        let latest = self.registry().get_latest(paths.iter().map(file_key).collect()).await?;
        refuse_taken(paths, latest, label)
    }

    /// What the registry says about registering `paths`; refuses paths that are taken, and names that some server could
    /// not keep.
    pub(super) async fn standing(&self, paths: &[FilePath], label: &str) -> Result<Standing, FileError> {
        // Names first: whoever sees a name that was just claimed then sees the file, too, for which it was.
        let names = self.names(paths).await?;
        let latest = self.registry().get_latest(paths.iter().map(file_key).collect()).await?;
        if let Some(revision) = recognise(&latest, label)? {
            return Ok(Standing::Mine(revision));
        }
        refuse_taken(paths, latest, label)?;
        naming::claim(paths, &names)
            .map(Standing::Free)
            .map_err(|clash| FileError::PathConflict { path: clash.path, other: clash.other })
    }

    /// The names that exist, of those that registering `paths` depends on.
    pub(super) async fn names(&self, paths: &[FilePath]) -> Result<naming::Names, FileError> {
        let mut names = naming::Names::new();
        for keys in naming::keys_of(paths).chunks(KEYS_MAX) {
            let records = self.registry().get(keys.to_vec()).await?;
            for (key, record) in keys.iter().zip(records) {
                if let Some(record) = record {
                    names.insert(key.clone(), (record.revision, decode_json(&record)?));
                }
            }
        }
        Ok(names)
    }

    /// Chooses a free path for a file that may have a number: none that a name, or a file on this disk, stands for.
    pub(super) async fn choose(
        &self,
        wish: &FilePath,
        chosen: &BTreeSet<Folded>,
    ) -> Result<FilePath, FileError> {
        for first in (0..=naming::NUMBERS_MAX).step_by(NUMBERS_AT_ONCE) {
            let mut candidates = Vec::with_capacity(NUMBERS_AT_ONCE);
            for number in (first..=naming::NUMBERS_MAX).take(NUMBERS_AT_ONCE) {
                let path = if number == 0 { Ok(wish.clone()) } else { naming::numbered(wish, number) };
                match path {
                    Ok(path) => candidates.push(path),
                    // Longer than a name may be: there are no more.
                    Err(_) => break,
                }
            }
            if candidates.is_empty() {
                break;
            }
            let keys = candidates.iter().map(|path| name_key(&path.folded())).collect();
            let names = self.registry().get(keys).await?;
            let held = self.inner.board.held(&candidates);
            let found = self.inner.ports.store.stat(candidates.clone()).await;
            let found = found.map_err(|error| self.disk(error))?;
            for (((path, name), held), found) in candidates.into_iter().zip(names).zip(held).zip(found) {
                let is_free = name.is_none() && held.is_none() && matches!(found, Ok(None));
                if is_free && !chosen.contains(&path.folded()) {
                    return Ok(path);
                }
            }
        }
        self.check_free(std::slice::from_ref(wish), "").await?;
        Err(FileError::PathConflict { path: wish.clone(), other: wish.to_string() })
    }
}

/// What the registry says about paths that somebody asks to register.
pub(super) enum Standing {
    /// This very request registered them, at this revision.
    Mine(Revision),
    /// They are free; what to assert and write about names.
    Free(naming::Claims),
}

pub(super) fn refuse_taken(
    paths: &[FilePath],
    latest: Vec<Option<Record>>,
    label: &str,
) -> Result<(), FileError> {
    for (path, record) in paths.iter().zip(latest) {
        let Some(record) = record.filter(|record| !record.deleted) else { continue };
        let body = decode(&record)?;
        if body.registered_by != label {
            let (revision, digest, origin) = (record.revision, body.digest, body.origin);
            return Err(FileError::Exists { path: path.clone(), revision, digest, origin });
        }
    }
    Ok(())
}

/// The revision of this very request, if a record or a tombstone at one of its paths was made by it.
fn recognise(latest: &[Option<Record>], label: &str) -> Result<Option<Revision>, FileError> {
    for record in latest.iter().flatten() {
        let body = decode(record)?;
        if body.registered_by == label {
            return Ok(Some(body.registered_revision.unwrap_or(record.revision)));
        }
    }
    Ok(None)
}
