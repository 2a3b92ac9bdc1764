//! A round: read what changed, plan, act. Level-triggered and idempotent; one at a time, shared by all who ask meanwhile.

use std::collections::BTreeMap;

use lockstep_model::{FilePath, Position, Reason, Revision, record::FILE};
use lockstep_registry::{ListQuery, Record, Registry as _, RegistryError};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use tracing::Instrument as _;

use super::{Engine, codec::decode, delete::Refused, stuck::ended};
use crate::{
    domain::{
        error::FileError,
        exception::{Missing, Obstacle},
        held::Wanted,
        plan::{Action, Change, plan},
    },
    ports::{Ports, Store as _, StoreError, Write},
};

/// Changes that are read, planned and written to the index at once.
pub(super) const PAGE_CHANGES: usize = 1_000;
/// Revisions that are kept for whoever falls behind.
const HISTORY_KEPT: u64 = 1_000_000;
/// Everything that waits for one round.
type Callers = Vec<oneshot::Sender<Result<Round, FileError>>>;

/// What a round led to.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// How far the registry was followed.
    pub position: Position,
    /// How many files are not held.
    pub exceptions: usize,
}

impl<P: Ports> Engine<P> {
    /// Waits for a round that begins after this call.
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`, `HISTORY_FORKED`, `STORE_OFFLINE`, `DRAINING`, `OVERLOADED`.
    pub async fn reconcile(&self) -> Result<Round, FileError> {
        let (answer, answered) = oneshot::channel();
        self.inner.rounds.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => FileError::Overloaded {
                server: self.server().clone(),
                what: "callers that wait for a round",
                limit: super::ROUND_CALLERS_MAX,
            },
            mpsc::error::TrySendError::Closed(_) => FileError::Draining { server: self.server().clone() },
        })?;
        answered.await.unwrap_or_else(|_| Err(FileError::Draining { server: self.server().clone() }))
    }

    /// Asks for a round without waiting for it.
    pub(super) fn request_round(&self) {
        let (answer, _) = oneshot::channel();
        // Full means that a round is about to begin anyway.
        let _ = self.inner.rounds.try_send(answer);
    }

    /// Runs rounds until the process drains: when asked, at start (R22), and every cycle (R21, R65: monotonic).
    pub(super) async fn run_rounds(
        self,
        mut asked: mpsc::Receiver<oneshot::Sender<Result<Round, FileError>>>,
    ) {
        let mut cycle = interval(self.cycle());
        cycle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut callers = Callers::new();
            tokio::select! {
                biased;
                () = self.inner.drain.started() => return,
                _ = cycle.tick() => {
                    self.inner.board.hurry(tokio::time::Instant::now());
                    self.compact().await;
                }
                Some(caller) = asked.recv() => callers.push(caller),
            }
            while let Ok(caller) = asked.try_recv() {
                callers.push(caller);
            }
            let span = tracing::info_span!("reconcile", server_id = %self.server());
            let result = self.round().instrument(span).await;
            if let Err(error) = &result {
                tracing::debug!(%error, "round failed");
            }
            self.inner.health.set("registry", !matches!(result, Err(FileError::Registry(_))));
            callers.into_iter().for_each(|caller| drop(caller.send(result.clone())));
        }
    }

    /// Bounds the history; the registry keeps what a server has not acknowledged, however long that takes.
    async fn compact(&self) {
        let below =
            self.inner.board.position().and_then(|position| position.revision.0.checked_sub(HISTORY_KEPT));
        if let Some(below) = below
            && let Err(error) = self.registry().compact(Revision(below)).await
        {
            tracing::debug!(%error, "the history is compacted later");
        }
    }

    async fn round(&self) -> Result<Round, FileError> {
        self.verify_store().await?;
        self.settle().await?;
        loop {
            let head = self.registry().head().await?;
            let position = match self.inner.board.position() {
                Some(position) => position,
                None => Position::start(head.epoch),
            };
            let limit = PAGE_CHANGES.min(self.inner.settings.exceptions_max);
            let page = self.registry().changes(position, FILE.to_owned(), limit).await;
            let page = match page {
                Ok(page) => page,
                Err(RegistryError::TooOld { .. }) => return self.snapshot().await,
                Err(error @ RegistryError::Forked { .. }) => {
                    if self.inner.board.begin_condition(Obstacle::of(&error)) {
                        tracing::error!(%error, "the history of the registry was forked; nothing is deleted or originated");
                    }
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            };
            self.inner.board.end_condition(Reason::HistoryForked);
            let done = page.through == page.head;
            let moved = self.follow(page.changes, page.through).await?;
            self.inner.ahead.set_waits(!moved);
            if !moved {
                self.look_ahead().await?;
            }
            if done || !moved {
                return self.finish().await;
            }
        }
    }

    async fn finish(&self) -> Result<Round, FileError> {
        let position = match self.inner.board.position() {
            Some(position) => position,
            None => Position::start(self.registry().head().await?.epoch),
        };
        self.registry().acknowledge(self.server().clone(), position).await?;
        Ok(Round { position, exceptions: self.inner.board.exception_count() })
    }

    /// Carries out changes and moves the position past them; false if it has to wait because too much is missing.
    async fn follow(&self, records: Vec<Record>, through: Position) -> Result<bool, FileError> {
        let mut changes = self.changes(records)?;
        let paths: Vec<FilePath> = changes.iter().map(|change| change.path().clone()).collect();
        // From the look at what is held to the index: a copy that lands in between would be held after its deletion.
        let (_lease, mut refused) = self.lease_settled(&paths).await?;
        // What is known to be missing at this revision or a later one stays what it is: a copy that drifted above all.
        let known = self.inner.board.exceptions(&paths);
        let mut known = known.iter().map(|missing| missing.as_ref().map(|missing| missing.wanted.revision));
        changes.retain(|change| known.next().flatten().is_none_or(|known| known < change.revision()));
        let before = self.inner.board.missing(&paths);
        refused.append(&mut self.set_aside_drifted(&changes).await?);
        refused.append(&mut self.hold_unheld(&changes, &before).await?);
        let held = self.inner.board.held(&paths);
        let held: BTreeMap<_, _> =
            paths.iter().zip(&held).filter_map(|(path, held)| Some((path, held.as_ref()?))).collect();
        self.refuse_needed(&held, &mut refused);
        let ended = ended(&changes);
        let (mut writes, changes) = self.defer(changes, &refused, &held);
        let actions = plan(changes, |path| held.get(path).copied());
        let actions = self.skip_superseded(actions, through).await?;
        let fetches = actions.iter().filter(|action| matches!(action, Action::Fetch(_))).count();
        let known = self.inner.board.exception_count();
        // A single page is let through even if it is more than the bound, so that a position can always move.
        if known > 0 && known + fetches > self.inner.settings.exceptions_max {
            return Ok(false);
        }
        let (mut deletes, mut moves) = (Vec::new(), Vec::new());
        for action in &actions {
            match action {
                Action::Delete { path, .. } => deletes.push(path.clone()),
                Action::Move { from, wanted } => moves.push((from.clone(), wanted.clone())),
                _ => {}
            }
        }
        let mut left = self.remove(deletes).await?;
        for (from, wanted, why) in self.relocate(moves).await? {
            writes.push(Write::Miss(Missing::refused(wanted, why.clone())));
            left.insert(from, why);
        }
        for action in actions {
            match action {
                Action::Delete { .. } | Action::Move { .. } => {}
                Action::Adopt { path, revision } => writes.extend(self.note_revision(path, revision)),
                Action::Keep(wanted) => writes.extend(self.keep_copy(wanted)),
                Action::Fetch(wanted) => writes.push(Write::Miss(Missing::new(wanted))),
                Action::Forget { path } => writes.push(match (left.get(&path), ended.get(&path)) {
                    (Some(why), Some(ended)) => self.leave_behind(ended, why),
                    _ => Write::Clear(path),
                }),
            }
        }
        writes.push(Write::Position(through));
        self.record(writes).await?;
        fail::fail_point!("filesync.reconcile.recorded");
        self.drop_superseded(&before).await?;
        self.inner.fetch.notify_one();
        Ok(true)
    }

    /// A copy that got its name and then could not be held, because the process or its disk failed, is ours: it has to
    /// be held to be removed with its record.
    async fn hold_unheld(&self, changes: &[Change], missing: &[Wanted]) -> Result<Refused, FileError> {
        let mut refused = Refused::new();
        let same = |wanted: &Wanted| changes.iter().any(|change| change.living() == Some(wanted));
        // What only could not be looked at is held as it is.
        let is_unheld = |wanted: &&Wanted| !same(wanted) && !self.inner.board.is_doubted(wanted);
        let superseded: Vec<&Wanted> = missing.iter().filter(is_unheld).collect();
        let paths = superseded.iter().map(|wanted| wanted.path.clone()).collect();
        let found = self.inner.ports.store.stat(paths).await.map_err(|error| self.disk(error))?;
        for (wanted, found) in superseded.into_iter().zip(found) {
            if !matches!(found, Ok(Some(_))) {
                continue;
            }
            match self.adopt(wanted).await {
                Ok(Some(writes)) => self.record(writes).await?,
                Ok(None) => {}
                Err(error) => {
                    let why = error.of_one_path().ok_or(error)?;
                    refused.insert(wanted.path.clone(), why);
                }
            }
        }
        Ok(refused)
    }

    fn note_revision(&self, path: FilePath, revision: Revision) -> Vec<Write> {
        let held = self.inner.board.held(std::slice::from_ref(&path)).pop().flatten();
        let clear = Write::Clear(path.clone());
        held.filter(|held| held.revision != revision)
            .map(|held| Write::Hold(path, crate::domain::held::Held { revision, ..held }))
            .into_iter()
            .chain([clear])
            .collect()
    }

    /// What to write for a copy that is meant for another server only, if it is here.
    fn keep_copy(&self, wanted: Wanted) -> Vec<Write> {
        let held = self.inner.board.held(std::slice::from_ref(&wanted.path)).pop().flatten();
        if held.is_none_or(|held| held.digest != wanted.digest) {
            return Vec::new();
        }
        let mut writes = self.note_revision(wanted.path.clone(), wanted.revision);
        writes.push(Write::Miss(Missing::kept(wanted)));
        writes
    }

    fn changes(&self, records: Vec<Record>) -> Result<Vec<Change>, FileError> {
        records.into_iter().map(|record| self.change(record)).collect()
    }

    /// What a record means for this server.
    pub(super) fn change(&self, record: Record) -> Result<Change, FileError> {
        let text = &record.key[FILE.len()..];
        let path: FilePath =
            text.parse().map_err(|rule| FileError::InvalidPath { text: text.to_owned(), rule })?;
        let body = decode(&record)?;
        let wanted = Wanted::of(path, record.revision, body, record.traceparent);
        Ok(match (record.deleted, wanted.is_elsewhere(self.server())) {
            (true, _) => Change::Deleted(wanted),
            (false, true) => Change::Elsewhere(wanted),
            (false, false) => Change::Active(wanted),
        })
    }

    /// Follows the registry from a listing, because the changes after our position are no longer kept.
    async fn snapshot(&self) -> Result<Round, FileError> {
        tracing::info!("the position is too old; comparing everything with the registry");
        let mut query = ListQuery {
            prefix: FILE.to_owned(),
            limit: PAGE_CHANGES.min(self.inner.settings.exceptions_max),
            tombstones: true,
            ..ListQuery::default()
        };
        let (mut first, mut moved) = (None, Vec::new());
        let mut unknown: std::collections::BTreeSet<FilePath> =
            self.inner.board.held_paths().into_iter().collect();
        loop {
            let page = self.registry().list(query.clone()).await?;
            // The position of the first page: what changed since is read again as changes, which does no harm.
            first.get_or_insert(page.position);
            query.after_key = page.records.last().map(|record| record.key.clone()).unwrap_or_default();
            for change in self.changes(page.records.clone())? {
                unknown.remove(change.path());
            }
            // A file that moved goes from its old path last, when its new one is known: its bytes are renamed, and this
            // server may be the only one that has them.
            let mut now = Vec::with_capacity(page.records.len());
            for record in page.records {
                match record.deleted && decode(&record)?.moved_to.is_some() {
                    true => moved.push(record),
                    false => now.push(record),
                }
            }
            self.follow_listed(now, page.position).await?;
            if !page.more {
                break;
            }
        }
        let reached = first.unwrap_or(Position::start(self.registry().head().await?.epoch));
        for records in moved.chunks(PAGE_CHANGES) {
            self.follow_listed(records.to_vec(), reached).await?;
        }
        // Held once, and neither a record nor a tombstone is left: it was deleted long ago (R33). Kept aside all the same.
        for path in unknown {
            let _lease = self.inner.leases.acquire([&path]).await;
            let Some(held) = self.inner.board.held(std::slice::from_ref(&path)).pop().flatten() else {
                continue;
            };
            let refused = match self.needed_elsewhere(&path) {
                Some(wanted) => {
                    let message = format!("what is at {path} has not got its new name {} yet", wanted.path);
                    Some((Obstacle { reason: Reason::DiskRefused, message }, None))
                }
                None => match self.set_aside(&path).await {
                    Ok(()) | Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => None,
                    Err(error) => {
                        let error = self.disk(error);
                        Some((error.of_one_path().ok_or(error)?, Some(Reason::LooseFileExists)))
                    }
                },
            };
            let writes = match refused {
                None => {
                    let released = self.release(&path, held.digest, &[]);
                    released.into_iter().chain([Write::Clear(path)]).collect()
                }
                Some((why, displaces)) => {
                    let ended = self.last_known(path, &held, reached.revision);
                    vec![Write::Miss(Missing::left(ended, why, displaces))]
                }
            };
            self.record(writes).await?;
        }
        if let Some(position) = first {
            self.record(vec![Write::Position(position)]).await?;
        }
        self.request_round();
        self.finish().await
    }

    /// Follows a part of a listing, which moves no position; waits while too much is missing.
    async fn follow_listed(&self, records: Vec<Record>, listed: Position) -> Result<(), FileError> {
        let position = self.inner.board.position().unwrap_or_else(|| Position::start(listed.epoch));
        while !self.follow(records.clone(), position).await? {
            self.inner.fetch.notify_one();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Ok(())
    }
}
