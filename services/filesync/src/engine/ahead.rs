//! Looking ahead of a position that waits, because too much is missing already: what is deleted later goes now, and what
//! waits for bytes that are not wanted any more waits for others, or no longer. So a full disk can empty itself, and nothing
//! waits for content that nobody has any more.
//!
//! The position does not move by it, and whatever is done here is done for good: a file that is deleted never comes back
//! under its id. When the position comes to those changes, it finds them done. What another path will need by then, a file
//! that moves, is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lockstep_model::{
    FileId, FilePath, Position, Revision,
    record::{FILE, file_key},
};
use lockstep_registry::{Record, Registry as _};

use super::{Engine, codec::decode};
use crate::{
    domain::{
        error::FileError,
        exception::Missing,
        held::Wanted,
        plan::{Action, Change},
    },
    ports::{Ports, Write},
};

/// How far ahead this process has looked.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Position>,
    waits: bool,
}

impl Ahead {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the position waits.
    pub(super) fn waits(&self) -> bool {
        self.state().waits
    }

    pub(super) fn set_waits(&self, waits: bool) {
        self.state().waits = waits;
    }

    /// Whether the changes up to a position were looked at before it came to them.
    fn has_passed(&self, through: Position) -> bool {
        self.state()
            .looked
            .is_some_and(|looked| looked.epoch == through.epoch && looked.revision >= through.revision)
    }
}

/// What is about to be written, seen as if it were.
struct Waiting<'a, P: Ports> {
    engine: &'a Engine<P>,
    changed: BTreeMap<FilePath, Option<Missing>>,
}

impl<P: Ports> Waiting<'_, P> {
    /// The copy that waits at a path, if nobody has to decide about it.
    fn at(&self, path: &FilePath) -> Option<Missing> {
        let known = match self.changed.get(path) {
            Some(known) => known.clone(),
            None => self.engine.inner.board.exception(path),
        };
        known.filter(|known| !known.is_left && !known.is_drifted())
    }
}

impl<P: Ports> Engine<P> {
    /// Reads on to the head, from where it looked before.
    pub(super) async fn look_ahead(&self) -> Result<(), FileError> {
        let Some(position) = self.inner.board.position() else { return Ok(()) };
        let looked = self.inner.ahead.state().looked;
        let same = |looked: &Position| looked.epoch == position.epoch && looked.revision > position.revision;
        let mut from = looked.filter(same).unwrap_or(position);
        loop {
            let page = self.registry().changes(from, FILE.to_owned(), super::reconcile::PAGE_CHANGES).await?;
            self.anticipate(page.changes).await?;
            from = page.through;
            self.inner.ahead.state().looked = Some(from);
            if from == page.head {
                self.inner.fetch.notify_one();
                return Ok(());
            }
        }
    }

    async fn anticipate(&self, records: Vec<Record>) -> Result<(), FileError> {
        let mut moved: BTreeMap<FileId, FilePath> = BTreeMap::new();
        for record in records.iter().filter(|record| record.deleted) {
            let body = decode(record)?;
            moved.extend(body.moved_to.map(|to| (body.file_id, to)));
        }
        let mut changes = records
            .into_iter()
            .map(|record| self.change(record))
            .collect::<Result<Vec<Change>, FileError>>()?;
        // Within a transaction what goes before what comes, so that a file that moves is known when it arrives.
        changes.sort_by_key(|change| (change.revision(), change.living().is_some()));
        let paths: Vec<FilePath> = changes.iter().map(|change| change.path().clone()).collect();
        let (_lease, refused) = self.lease_settled(&paths).await?;
        let before = self.inner.board.missing(&paths);
        let held: BTreeMap<FilePath, _> = paths
            .iter()
            .zip(self.inner.board.held(&paths))
            .filter_map(|(path, held)| Some((path.clone(), held?)))
            .collect();
        let mut needed = refused;
        self.refuse_needed(&held.iter().collect(), &mut needed);
        let mut waiting = Waiting { engine: self, changed: BTreeMap::new() };
        let (mut deletes, mut done) = (BTreeSet::new(), Vec::new());
        let mut following: BTreeMap<FileId, FilePath> = BTreeMap::new();
        for change in changes.iter().filter(|change| !needed.contains_key(change.path())) {
            let (path, revision) = (change.path(), change.revision());
            let is_held = held.contains_key(path) && !deletes.contains(path);
            let waits = waiting.at(path).filter(|missing| missing.wanted.revision < revision);
            match change {
                Change::Deleted(ended) => {
                    let to = moved.get(&ended.file_id);
                    let goes = |file_id: &FileId, at: Revision| *file_id == ended.file_id && at < revision;
                    if to.is_none() && held.get(path).is_some_and(|held| goes(&held.file_id, held.revision)) {
                        deletes.insert(path.clone());
                        done.push((path.clone(), revision));
                    }
                    let Some(waits) =
                        waits.filter(|waits| goes(&waits.wanted.file_id, waits.wanted.revision))
                    else {
                        continue;
                    };
                    // A file that waits follows its record to another path, if nothing has to leave that one first.
                    let is_free = |to: &&FilePath| {
                        let held = self.inner.board.held(std::slice::from_ref(*to)).pop().flatten();
                        held.is_none() && !is_held
                    };
                    match to {
                        Some(to) if is_free(&to) => drop(following.insert(waits.wanted.file_id, to.clone())),
                        Some(_) => continue,
                        None => {}
                    }
                    waiting.changed.insert(path.clone(), None);
                    done.push((path.clone(), revision));
                }
                // It is meant for others by then, so that nothing waits for it.
                Change::Elsewhere(wanted) => {
                    if waits.is_some_and(|waits| waits.wanted.file_id == wanted.file_id) {
                        waiting.changed.insert(path.clone(), None);
                        done.push((path.clone(), revision));
                    }
                }
                Change::Active(wanted) => {
                    let is_same = waits.is_some_and(|waits| waits.wanted.file_id == wanted.file_id);
                    let follows = following.get(&wanted.file_id) == Some(path);
                    if is_same || follows {
                        waiting.changed.insert(path.clone(), Some(Missing::new(wanted.clone())));
                    }
                }
            }
        }
        let writes: Vec<Write> = waiting
            .changed
            .into_iter()
            .map(|(path, missing)| missing.map_or(Write::Clear(path), Write::Miss))
            .collect();
        let (count, changed) = (deletes.len(), writes.len());
        // Whoever sees the matrix must not take for held what is about to go.
        self.inner.board.hold_ahead(done.into_iter().map(|(path, at)| (path, at, String::new())));
        self.remove(deletes.into_iter().collect()).await?;
        if !writes.is_empty() {
            self.record(writes).await?;
        }
        if count + changed > 0 {
            tracing::info!(deleted = count, superseded = changed, "looked ahead of a position that waits");
        }
        self.drop_superseded(&before).await
    }

    /// Of changes that were looked at before the position came to them: a copy that is not wanted any more becomes the one
    /// that is, or none.
    pub(super) async fn skip_superseded(
        &self,
        actions: Vec<Action>,
        through: Position,
    ) -> Result<Vec<Action>, FileError> {
        if !self.inner.ahead.has_passed(through) {
            return Ok(actions);
        }
        let paths: Vec<FilePath> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Fetch(wanted) => Some(wanted.path.clone()),
                _ => None,
            })
            .collect();
        let latest = self.registry().get_latest(paths.iter().map(file_key).collect()).await?;
        let mut latest: BTreeMap<FilePath, Option<Record>> = paths.into_iter().zip(latest).collect();
        let mut kept = Vec::with_capacity(actions.len());
        for action in actions {
            let Action::Fetch(wanted) = action else {
                kept.push(action);
                continue;
            };
            let is_held =
                self.inner.board.held(std::slice::from_ref(&wanted.path)).iter().any(Option::is_some);
            let newer =
                latest.remove(&wanted.path).flatten().filter(|record| record.revision > wanted.revision);
            kept.push(match newer {
                None => Action::Fetch(wanted),
                Some(record) => self.superseded(wanted, record, is_held)?,
            });
        }
        Ok(kept)
    }

    fn superseded(&self, wanted: Wanted, record: Record, is_held: bool) -> Result<Action, FileError> {
        let revision = record.revision;
        match self.change(record)? {
            Change::Active(newer) if !is_held || newer.file_id == wanted.file_id => Ok(Action::Fetch(newer)),
            Change::Deleted(_) | Change::Elsewhere(_) if !is_held => {
                self.inner.board.hold_ahead([(wanted.path.clone(), revision, String::new())]);
                Ok(Action::Forget { path: wanted.path })
            }
            _ => Ok(Action::Fetch(wanted)),
        }
    }
}
