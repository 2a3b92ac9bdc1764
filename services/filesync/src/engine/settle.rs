//! Settling what was begun before a crash, or before the registry fell silent in the middle of a commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

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

/// Intents that nobody works on, and the numbers of those that somebody does.
#[derive(Debug, Default)]
pub(super) struct Intents {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    left: BTreeMap<u64, Intent>,
    active: BTreeSet<u64>,
    abandoned: BTreeSet<StagedName>,
}

/// Somebody works on an intent, until this is dropped.
#[derive(Debug)]
pub(super) struct Active<'a> {
    intents: &'a Intents,
    number: u64,
}

impl Intents {
    pub(super) fn new(left: impl IntoIterator<Item = (u64, Intent)>) -> Self {
        let state = State { left: left.into_iter().collect(), ..State::default() };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, number: u64) -> Active<'_> {
        self.state().active.insert(number);
        Active { intents: self, number }
    }

    /// Leaves it to the next round.
    pub(super) fn leave(&self, number: u64, intent: Intent) {
        self.state().left.insert(number, intent);
    }

    /// Whether something that was begun at one of `paths` is left.
    pub(super) fn is_left_at(&self, paths: &[FilePath]) -> bool {
        let touches = |intent: &Intent| match intent {
            // What is in staging is no concern of the path.
            Intent::Exchange { .. } => false,
            Intent::Register { files, .. } => files.iter().any(|file| paths.contains(&file.wanted.path)),
            Intent::InPlace { files } => files.iter().any(|wanted| paths.contains(&wanted.path)),
            Intent::Delete { path, .. } => paths.contains(path),
        };
        let state = self.state();
        state.left.iter().any(|(number, intent)| !state.active.contains(number) && touches(intent))
    }

    /// The exchanges that are left.
    pub(super) fn exchanges(&self) -> Vec<Intent> {
        let is_exchange = |intent: &&Intent| matches!(intent, Intent::Exchange { .. });
        self.state().left.values().filter(is_exchange).cloned().collect()
    }

    /// Takes the exchanges at these paths, or all.
    pub(super) fn take_exchanges(&self, paths: Option<&[FilePath]>) -> BTreeMap<u64, Intent> {
        let mut state = self.state();
        let is_there = |intent: &Intent| match intent {
            Intent::Exchange { wanted, .. } => paths.is_none_or(|paths| paths.contains(&wanted.path)),
            _ => false,
        };
        let (taken, left) = std::mem::take(&mut state.left).into_iter().partition(|(_, i)| is_there(i));
        state.left = left;
        taken
    }

    /// Takes what nobody works on; what is not settled has to be left again.
    fn take(&self) -> BTreeMap<u64, Intent> {
        let mut state = self.state();
        let State { left, active, .. } = &mut *state;
        let (busy, free) = std::mem::take(left).into_iter().partition(|(number, _)| active.contains(number));
        *left = busy;
        free
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.intents.state().active.remove(&self.number);
    }
}

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
            self.inner.intents.state().abandoned.extend(names);
        }
    }

    /// Settles every intent that nobody works on.
    pub(super) async fn settle(&self) -> Result<(), FileError> {
        let abandoned = std::mem::take(&mut self.inner.intents.state().abandoned);
        if !abandoned.is_empty() {
            self.discard(abandoned.into_iter().collect()).await;
        }
        let mut intents = self.inner.intents.take();
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
                Intent::Delete { path, staged, digest } => {
                    self.settle_deletes(vec![Leaving { number, path, staged, digest }]).await
                }
            };
            if let Err(error) = result {
                self.inner.intents.leave(number, intent);
                intents.into_iter().for_each(|(number, intent)| self.inner.intents.leave(number, intent));
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
        let _lease = self.inner.leases.acquire(&paths).await;
        let made = match &asked {
            None => None,
            Some(asked) => self.made_by(asked).await?,
        };
        let latest = self.registry().get_latest(paths.iter().map(file_key).collect()).await?;
        let (mut committed, mut dropped) = (Vec::new(), Vec::new());
        for (mut file, record) in files.into_iter().zip(latest) {
            let made = match &made {
                // The same request may have come twice, and have made the file of the other time.
                Some((revision, files)) => files.contains(&file.wanted.file_id).then_some(*revision),
                // Where the commit is over, the revision is known.
                None => asked.is_none().then_some(file.wanted.revision),
            };
            let is_moved = is_elsewhere(record.as_ref(), &file.wanted)?;
            let live = record.filter(|record| !record.deleted);
            match (live, made) {
                (Some(record), _) if is_made_by(&record, &file, asked.as_ref(), made)? => {
                    file.wanted.revision = record.revision;
                    committed.push(file);
                }
                // What follows that revision may need these bytes, and this server may be the only one that has them.
                (_, Some(revision)) if is_moved && !self.is_held_since(&file.wanted.path, revision) => {
                    file.wanted.revision = revision;
                    committed.push(file);
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
        let taken: Vec<UploadId> = committed
            .iter()
            .map(|file| &file.staged)
            .chain(&dropped)
            .filter_map(|staged| self.upload_of(staged))
            .collect();
        if !taken.is_empty() {
            self.end_uploads(&taken).await?;
        }
        let mut writes = Vec::new();
        let mut unpublished = Vec::new();
        for file in committed {
            // After a crash behind the rename the bytes have their final name already.
            match self.adopt(&file.wanted).await? {
                Some(mut held) => {
                    writes.append(&mut held);
                    // Staged twice, because the request came twice.
                    dropped.push(file.staged);
                }
                None => unpublished.push(file),
            }
        }
        self.record(writes).await?;
        let left = self.publish_registered(number, asked.as_ref(), unpublished).await?;
        if !left.is_empty() {
            self.inner.intents.leave(number, Intent::Register { files: left, asked });
        }
        self.discard(dropped).await;
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
            if !same_file {
                self.remove(vec![wanted.path.clone()]).await?;
            }
        }
        Ok(())
    }
}
