//! Committing staged files: the names they have, the transaction, and the answer to whoever asks again.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{
    FilePath, Folded, Revision,
    record::{FILE, FileRecord, file_key, name_key},
};
use lockstep_registry::{Commit, Committed, Precondition, Registry as _, RegistryError, Request};

use super::{
    Ask, Engine, Registered,
    codec::{decode, encode, named},
    free::Standing,
    register::Replaced,
};
use crate::{
    domain::{
        error::FileError,
        intent::{Asked, Intent, Staged},
        naming,
    },
    ports::{Ports, Write},
};

/// How often names may change under a change before it gives up.
pub(super) const ATTEMPTS_MAX: usize = 16;
/// How often somebody else may be quicker with a number.
const NUMBER_TRIES_MAX: usize = 256;

impl<P: Ports> Engine<P> {
    /// Commits and publishes; `kept` says whether the bytes belong to an intent from now on.
    pub(super) async fn commit_staged(
        &self,
        ask: &Ask,
        request: Request,
        staged: &mut [Staged],
        numbered: &[bool],
        kept: &mut bool,
    ) -> Result<Vec<Registered>, FileError> {
        let mut tries = 0;
        loop {
            let before: Vec<FilePath> = staged.iter().map(|file| file.wanted.path.clone()).collect();
            self.choose_numbers(staged, numbered).await?;
            let is_same = staged.iter().map(|file| &file.wanted.path).eq(&before);
            match self.commit_chosen(ask, request.clone(), staged, kept).await {
                // Somebody was quicker with one of the names that were chosen here.
                Err(error) if !*kept && is_taken(&error, staged, numbered) => {
                    tries += 1;
                    if tries >= NUMBER_TRIES_MAX || (is_same && tries > 1) {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    /// Gives files that may have a number the first free name.
    async fn choose_numbers(&self, staged: &mut [Staged], numbered: &[bool]) -> Result<(), FileError> {
        let others = staged.iter().zip(numbered).filter(|(_, numbered)| !**numbered);
        let mut chosen: BTreeSet<Folded> = others.map(|(file, _)| file.wanted.path.folded()).collect();
        for (file, _) in staged.iter_mut().zip(numbered).filter(|(_, numbered)| **numbered) {
            let wish = file.asked_path().clone();
            let path = self.choose(&wish, &chosen).await?;
            chosen.insert(path.folded());
            file.instead_of = (path != wish).then_some(wish);
            file.wanted.path = path;
        }
        Ok(())
    }

    async fn commit_chosen(
        &self,
        ask: &Ask,
        request: Request,
        staged: &[Staged],
        kept: &mut bool,
    ) -> Result<Vec<Registered>, FileError> {
        let _lease = self.acquire_free(&free(staged), &taken(staged), ask).await?;
        let number = self.number();
        let _active = self.inner.intents.begin(number);
        *kept = true;
        let done = self.commit_intended(ask, &request, staged, number, kept).await;
        if done.is_err() && *kept {
            // The next round asks the registry what became of it.
            let asked = Some(Asked::of(&request));
            self.inner.intents.leave(number, Intent::Register { files: staged.to_vec(), asked });
        }
        done
    }

    async fn commit_intended(
        &self,
        ask: &Ask,
        request: &Request,
        staged: &[Staged],
        number: u64,
        kept: &mut bool,
    ) -> Result<Vec<Registered>, FileError> {
        let asked = Some(Asked::of(request));
        let intent = Intent::Register { files: staged.to_vec(), asked: asked.clone() };
        self.record(vec![Write::Intend(number, intent)]).await?;
        staged.iter().for_each(|file| self.inner.board.stage(file.wanted.digest, Some(file.staged.clone())));
        fail::fail_point!("filesync.register.intended");
        let committed = match self.commit(ask, request, staged).await {
            Ok(committed) => committed,
            Err(error @ FileError::Registry(RegistryError::Unavailable { .. })) => return Err(error),
            Err(error) => {
                self.record(vec![Write::Settle(number)]).await?;
                *kept = false;
                staged.iter().for_each(|file| self.inner.board.stage(file.wanted.digest, None));
                return Err(error);
            }
        };
        fail::fail_point!("filesync.register.committed");
        if committed.replayed {
            self.record(vec![Write::Settle(number)]).await?;
            staged.iter().for_each(|file| self.inner.board.stage(file.wanted.digest, None));
            let names = staged.iter().map(|file| file.staged.clone()).collect();
            self.discard(names).await;
            let paths: Vec<FilePath> = staged.iter().map(|file| file.asked_path().clone()).collect();
            return self.replay(committed.revision, &paths, &ask.label()).await;
        }
        let files: Vec<Staged> =
            staged.iter().map(|file| file.at(committed.revision, &ask.traceparent)).collect();
        // The commit stands: whatever keeps the bytes from their names now, a later round does it.
        let superseded = self.inner.board.missing(&taken(staged));
        let published = self.publish_registered(number, asked.as_ref(), files.clone()).await;
        let left = published.unwrap_or_else(|error| {
            tracing::error!(%error, "registered files are not published yet");
            files.clone()
        });
        // Only what has its name is held (I10).
        let paths: Vec<FilePath> = files.iter().map(|file| file.wanted.path.clone()).collect();
        let held = paths.iter().zip(self.inner.board.held(&paths));
        let ahead = held.filter(|(_, held)| held.as_ref().is_some_and(|h| h.revision == committed.revision));
        let ahead = ahead.map(|(path, _)| (path.clone(), committed.revision, ask.traceparent.clone()));
        self.inner.board.hold_ahead(ahead);
        if !left.is_empty() {
            self.inner.intents.leave(number, Intent::Register { files: left, asked });
        }
        // Copies of older bytes that were on their way.
        if let Err(error) = self.drop_superseded(&superseded).await {
            tracing::warn!(%error, "what was staged of older bytes is removed later");
        }
        self.request_round();
        Ok(files.into_iter().map(|file| file.registered(committed.revision, ask)).collect())
    }

    pub(super) async fn commit(
        &self,
        ask: &Ask,
        request: &Request,
        staged: &[Staged],
    ) -> Result<Committed, FileError> {
        let (free, label) = (free(staged), ask.label());
        let replacing = staged.iter().filter_map(|file| Some((file.wanted.path.clone(), file.replaces?)));
        let replacing: Vec<(FilePath, Revision)> = replacing.collect();
        for _ in 0..ATTEMPTS_MAX {
            let mine = match self.replaced(&replacing, &label).await? {
                Replaced::Already(revision) => Standing::Mine(revision),
                Replaced::Files(_) => self.standing(&free, &label).await?,
            };
            let claims = match mine {
                Standing::Free(claims) => claims,
                Standing::Mine(revision) => {
                    return Ok(Committed { revision, head: self.registry().head().await?, replayed: true });
                }
            };
            let commit = transaction(ask, request.clone(), staged, claims)?;
            match self.originate(commit).await? {
                // Somebody changed a name in between: decide again.
                Err(RegistryError::Refused { .. }) => {}
                other => return other.map_err(|error| named(error, ask.request_id.as_str())),
            }
        }
        let cause = "other changes of the same names kept coming in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    /// The first answer of a request that is known: what its transaction wrote. Where that is compacted, the record or
    /// tombstone that it made still tells. `paths` are those that were asked for.
    pub(super) async fn replay(
        &self,
        revision: Revision,
        paths: &[FilePath],
        label: &str,
    ) -> Result<Vec<Registered>, FileError> {
        let keys: Vec<String> = paths.iter().map(file_key).collect();
        let written = match self.registry().transaction(revision).await {
            Ok(written) => written,
            Err(RegistryError::TooOld { .. }) => {
                self.registry().get_latest(keys.clone()).await?.into_iter().flatten().collect()
            }
            Err(error) => return Err(error.into()),
        };
        // By the path that was asked for; where it was asked for more than once, in the order of the numbers.
        let mut made: BTreeMap<FilePath, Vec<Registered>> = BTreeMap::new();
        for record in written.iter().filter(|record| record.key.starts_with(FILE)) {
            let body = decode(record)?;
            let Ok(path) = record.key[FILE.len()..].parse::<FilePath>() else { continue };
            if body.registered_by == label {
                let record =
                    FileRecord { deleted_by: None, moved_to: None, registered_revision: None, ..body };
                let asked = record.instead_of.clone().unwrap_or_else(|| path.clone());
                made.entry(asked).or_default().push(Registered { path, revision, record });
            }
        }
        for files in made.values_mut() {
            files.sort_by_key(|file| std::cmp::Reverse((file.path.as_str().len(), file.path.clone())));
        }
        let mut answer = Vec::with_capacity(paths.len());
        for path in paths {
            let file = made.get_mut(path).and_then(Vec::pop);
            answer.push(file.ok_or_else(|| FileError::NotFound { path: path.clone() })?);
        }
        Ok(answer)
    }
}

/// The paths that have to be free.
fn free(staged: &[Staged]) -> Vec<FilePath> {
    let free = staged.iter().filter(|file| file.replaces.is_none());
    free.map(|file| file.wanted.path.clone()).collect()
}

/// The paths whose files are replaced.
fn taken(staged: &[Staged]) -> Vec<FilePath> {
    let taken = staged.iter().filter(|file| file.replaces.is_some());
    taken.map(|file| file.wanted.path.clone()).collect()
}

/// Whether the refusal is about a name that was chosen here.
fn is_taken(error: &FileError, staged: &[Staged], numbered: &[bool]) -> bool {
    let (FileError::Exists { path, .. }
    | FileError::PathConflict { path, .. }
    | FileError::LooseFile { path, .. }) = error
    else {
        return false;
    };
    staged.iter().zip(numbered).any(|(file, numbered)| *numbered && file.wanted.path == *path)
}

fn transaction(
    ask: &Ask,
    request: Request,
    staged: &[Staged],
    claims: naming::Claims,
) -> Result<Commit, FileError> {
    let mut commit =
        Commit { request: Some(request), traceparent: ask.traceparent.clone(), ..Commit::default() };
    for file in staged {
        let key = file_key(&file.wanted.path);
        commit.preconditions.push(match file.replaces {
            Some(revision) => Precondition::At(key.clone(), revision),
            None => Precondition::Absent(key.clone()),
        });
        commit.puts.push((key, encode(&file.record(ask))?));
    }
    for (key, record) in claims.new {
        commit.preconditions.push(Precondition::Absent(key.clone()));
        commit.puts.push((key, encode(&record)?));
    }
    commit
        .preconditions
        .extend(claims.kept.into_iter().map(|(key, revision)| Precondition::At(key, revision)));
    debug_assert!({
        // Folded once for each file: a batch has a thousand.
        let written: BTreeSet<&str> = commit.puts.iter().map(|(key, _)| key.as_str()).collect();
        free(staged).iter().all(|path| written.contains(name_key(&path.folded()).as_str()))
    });
    Ok(commit)
}
