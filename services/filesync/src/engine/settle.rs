//! Settling what was begun before a crash, or before the registry fell silent in the middle of a commit.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{
    FileId, FilePath, Revision, UploadId,
    record::{FILE, file_key},
};
use lockstep_registry::{Record, Registry as _, RegistryError};

use super::{Engine, codec::decode, delete::Leaving};
use crate::{
    domain::{
        error::FileError,
        held::{StagedName, Wanted},
        intent::{Asked, Intent, Staged},
    },
    ports::{Ports, Store as _, Write},
};

/// Whether a live record is what this registration made of the file.
fn is_made_by(
    record: &Record,
    file: &Staged,
    asked: Option<&Asked>,
    made: Option<Revision>,
) -> Result<bool, FileError> {
    let body = decode(record)?;
    let same = body.file_id == file.wanted.file_id && body.digest == file.wanted.digest;
    Ok(same
        && match (asked, made) {
            (_, Some(revision)) => record.revision == revision,
            // Forgotten among a hundred thousand later ones, or never known.
            (Some(asked), None) => body.registered_by == asked.label(),
            (None, None) => true,
        })
}

/// Whether the file that was committed may live under another path by now.
fn is_elsewhere(latest: Option<&Record>, wanted: &Wanted) -> Result<bool, FileError> {
    let Some(record) = latest else { return Ok(false) };
    let body = decode(record)?;
    Ok(body.file_id != wanted.file_id || (record.deleted && body.moved_to.is_some()))
}

impl<P: Ports> Engine<P> {
    /// Removes staged bytes that nobody needs. What the disk does not let go of now is tried again in each round: the
    /// outcome of the work itself does not depend on it.
    pub(super) async fn discard(&self, names: Vec<StagedName>) {
        if let Err(error) = self.inner.ports.store.discard(names.clone()).await {
            tracing::debug!(%error, count = names.len(), "staged bytes are removed later");
            self.inner.intents.abandon(names);
        }
    }

    /// Settles every intent that nobody works on. One that the disk refuses keeps nothing from the others: it is left, and
    /// tried again with the exceptions of its paths, as seldom as they are.
    pub(super) async fn settle(&self) -> Result<(), FileError> {
        let abandoned = self.inner.intents.take_abandoned();
        if !abandoned.is_empty() {
            self.discard(abandoned).await;
        }
        let board = &self.inner.board;
        let rests = |path: &&FilePath| {
            board.exception(path).is_some_and(|known| known.failures > 0 && !known.is_drifted())
        };
        let is_due = |intent: &Intent| intent.paths().is_empty() || !intent.paths().iter().all(rests);
        self.settle_each(self.inner.intents.take(is_due)).await
    }

    /// Settles what stands between this server and a copy.
    pub(super) async fn settle_for(&self, copy: &Wanted) -> Result<(), FileError> {
        self.settle_each(self.inner.intents.take(|intent| intent.concerns(copy))).await
    }

    async fn settle_each(&self, mut intents: BTreeMap<u64, Intent>) -> Result<(), FileError> {
        // Exchanges first: what they leave in staging may be what a registration needs.
        let is_exchange = |intent: &Intent| matches!(intent, Intent::Exchange { .. });
        while let Some(number) = intents
            .iter()
            .find(|(_, intent)| is_exchange(intent))
            .or_else(|| intents.first_key_value())
            .map(|(number, _)| *number)
        {
            let Some(intent) = intents.remove(&number) else { break };
            let result = match intent.clone() {
                Intent::Exchange { wanted, .. } => {
                    let _lease = self.inner.leases.acquire([&wanted.path]).await;
                    self.settle_exchange(number, &intent).await
                }
                Intent::Register { files, asked } => self.settle_register(number, asked, files).await,
                Intent::InPlace { files } => self.settle_in_place(number, files).await,
                Intent::Move { moves } => self.settle_moves(number, moves).await,
                Intent::Delete { path, staged, digest } => {
                    self.settle_deletes(vec![Leaving { number, path, staged, digest }]).await.map(drop)
                }
            };
            let Err(error) = result else {
                self.inner.intents.rest(number);
                continue;
            };
            let why = error.of_one_path();
            if let Some(why) = &why {
                tracing::warn!(%error, "what was begun is settled later");
                intent.paths().into_iter().for_each(|path| self.inner.intents.blame(path, why.clone()));
            }
            self.inner.intents.leave(number, intent);
            self.inner.intents.rest(number);
            if why.is_none() {
                for (number, intent) in intents {
                    self.inner.intents.leave(number, intent);
                    self.inner.intents.rest(number);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The registry says whether the files were committed: it knows the request, or the live record was made by it.
    async fn settle_register(
        &self,
        number: u64,
        asked: Option<Asked>,
        files: Vec<Staged>,
    ) -> Result<(), FileError> {
        let paths: Vec<FilePath> = files.iter().map(|file| file.wanted.path.clone()).collect();
        let ids: BTreeSet<FileId> = files.iter().map(|file| file.wanted.file_id).collect();
        // Where else the files are wanted by now: that has to be ours, too.
        let (_lease, elsewhere) = loop {
            let elsewhere = self.inner.board.missing_files(&ids);
            let lease =
                self.inner.leases.acquire(paths.iter().chain(elsewhere.values().map(|w| &w.path))).await;
            if self.inner.board.missing_files(&ids) == elsewhere {
                break (lease, elsewhere);
            }
        };
        let reached = self.inner.board.position().map_or(Revision::ZERO, |position| position.revision);
        let made = match &asked {
            None => None,
            Some(asked) => self.made_by(asked).await?,
        };
        let latest = self.registry().get_latest(paths.iter().map(file_key).collect()).await?;
        let (mut committed, mut dropped) = (Vec::new(), Vec::new());
        let (mut moved, mut waiting) = (Vec::new(), Vec::new());
        for (mut file, record) in files.into_iter().zip(latest) {
            let made = match &made {
                // The same request may have come twice, and have made the file of the other time.
                Some((revision, files)) => files.contains(&file.wanted.file_id).then_some(*revision),
                // Where the commit is over, the revision is known.
                None => asked.is_none().then_some(file.wanted.revision),
            };
            let is_moved = is_elsewhere(record.as_ref(), &file.wanted)?;
            let is_passed = record.as_ref().is_some_and(|record| record.revision <= reached);
            let new = elsewhere.get(&file.wanted.file_id);
            let new = new.filter(|new| new.digest == file.wanted.digest && new.path != file.wanted.path);
            let live = record.filter(|record| !record.deleted);
            match (live, made) {
                (Some(record), _) if is_made_by(&record, &file, asked.as_ref(), made)? => {
                    file.wanted.revision = record.revision;
                    committed.push(file);
                }
                // The position has come to where the file is now, and this server may be the only one that has the bytes.
                (_, Some(_)) if is_moved && new.is_some() => {
                    file.wanted = new.cloned().unwrap_or(file.wanted);
                    moved.push(file);
                }
                // What follows that revision may need these bytes; unless the path was taken again, they can wait there.
                (_, Some(revision)) if is_moved && !is_passed => {
                    file.wanted.revision = revision;
                    match self.is_held_since(&file.wanted.path, revision) {
                        true => waiting.push(file),
                        false => committed.push(file),
                    }
                }
                (live, _) => {
                    if let Some(revision) = made {
                        file.wanted.revision = revision;
                        self.withdraw_superseded(&file.wanted, live.as_ref()).await?;
                    }
                    // Uploads that were not committed may be committed yet; the others became files.
                    if made.is_some() || self.upload_of(&file.staged).is_none() {
                        dropped.push(file.staged);
                    }
                }
            }
        }
        tracing::info!(
            committed = committed.len(),
            dropped = dropped.len(),
            "settling an interrupted registration"
        );
        let files = || committed.iter().chain(&moved).chain(&waiting).map(|file: &Staged| &file.staged);
        let taken: Vec<UploadId> =
            files().chain(&dropped).filter_map(|staged| self.upload_of(staged)).collect();
        if !taken.is_empty() {
            self.end_uploads(&taken).await?;
        }
        // Their commit is over, and its revision known: from now on they do not depend on the memory of the request.
        for (files, is_waiting) in [(moved, false), (waiting, true)] {
            if files.is_empty() {
                continue;
            }
            let (number, intent) = (self.number(), Intent::Register { files: files.clone(), asked: None });
            self.record(vec![Write::Intend(number, intent.clone())]).await?;
            match is_waiting {
                true => self.inner.intents.leave_waiting(number, intent),
                false => self.publish_settled(number, None, files, &mut dropped).await?,
            }
        }
        self.publish_settled(number, asked, committed, &mut dropped).await?;
        self.discard(dropped).await;
        Ok(())
    }

    /// Publishes what is committed, unless it has its name already. The caller has the lease.
    async fn publish_settled(
        &self,
        number: u64,
        asked: Option<Asked>,
        files: Vec<Staged>,
        dropped: &mut Vec<StagedName>,
    ) -> Result<(), FileError> {
        let names = files.iter().map(|file| file.staged.clone()).collect();
        let there = self.inner.ports.store.look(names).await.map_err(|error| self.disk(error))?;
        let (mut writes, mut unpublished) = (Vec::new(), Vec::new());
        for (file, there) in files.into_iter().zip(there) {
            // After a crash behind the rename the bytes have their final name already.
            match self.adopt(&file.wanted).await {
                Ok(Some(mut held)) => {
                    writes.append(&mut held);
                    // Staged twice, because the request came twice.
                    dropped.push(file.staged);
                }
                // A move that did not even begin: it is planned again.
                Ok(None) if there.is_none() && asked.is_none() => {}
                Err(error) if error.of_one_path().is_none() => return Err(error),
                Ok(None) | Err(_) => unpublished.push(file),
            }
        }
        self.record(writes).await?;
        let left = self.publish_registered(number, asked.as_ref(), unpublished).await?;
        if !left.is_empty() {
            self.inner.intents.leave(number, Intent::Register { files: left, asked });
        }
        Ok(())
    }

    /// The revision that a request made, and the files that it made then; nothing if it was not committed, or so long ago
    /// that nobody knows.
    async fn made_by(&self, asked: &Asked) -> Result<Option<(Revision, BTreeSet<FileId>)>, FileError> {
        let revision = match self.registry().find_request(asked.request()).await {
            Ok(Some(revision)) => revision,
            // The name belongs to another request, so this one was never committed.
            Ok(None) | Err(RegistryError::RequestReused { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let written = match self.registry().transaction(revision).await {
            Err(RegistryError::TooOld { .. }) => return Ok(None),
            written => written?,
        };
        let mut files = BTreeSet::new();
        for record in written.iter().filter(|record| record.key.starts_with(FILE)) {
            files.insert(decode(record)?.file_id);
        }
        Ok(Some((revision, files)))
    }

    fn is_held_since(&self, path: &FilePath, revision: Revision) -> bool {
        let held = self.inner.board.held(std::slice::from_ref(path)).pop().flatten();
        held.is_some_and(|held| held.revision > revision)
    }

    /// A file that was committed and got its name before the crash, and was changed again while this server was away, is
    /// still there: it is held, so that it is replaced or removed as what it is.
    async fn withdraw_superseded(&self, wanted: &Wanted, live: Option<&Record>) -> Result<(), FileError> {
        let (same_file, same_bytes) = match live {
            Some(record) => {
                let body = decode(record)?;
                (body.file_id == wanted.file_id, body.digest == wanted.digest)
            }
            None => (false, false),
        };
        let held = self.inner.board.held(std::slice::from_ref(&wanted.path)).pop().flatten();
        if held.is_some_and(|held| held.digest == wanted.digest || held.revision > wanted.revision)
            || (same_bytes && !same_file)
        {
            return Ok(());
        }
        if let Some(writes) = self.adopt(wanted).await? {
            // An exception of the path is of a later revision: it stays.
            let writes = writes.into_iter().filter(|write| !matches!(write, Write::Clear(_))).collect();
            self.record(writes).await?;
            if !same_file
                && let Some((path, obstacle)) = self.remove(vec![wanted.path.clone()]).await?.pop_first()
            {
                return Err(FileError::Stuck { path, server: self.server().clone(), obstacle });
            }
        }
        Ok(())
    }
}
