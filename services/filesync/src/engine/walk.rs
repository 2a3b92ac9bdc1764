//! The walk compares all copies with what was verified, by size and times, again and again; the scrub reads them all, in
//! weeks. Both are paced, so that whoever uses the disk does not notice.

use std::time::Duration;

use lockstep_model::FilePath;
use tokio::time::{Instant, sleep_until};

use super::Engine;
use crate::{
    domain::{
        check::{Finding, Look, Seen, compare},
        error::FileError,
        exception::Obstacle,
        held::Held,
    },
    ports::{Ports, Store as _, StoreError, Write},
};

/// Copies that are compared at once.
const BATCH: usize = 250;
/// A copy counts at least as this much for the scrub: opening it costs something too.
const FILE_BYTES_MIN: u64 = 64 << 10;
/// How long the scrub rests when there is nothing to read.
const SCRUB_IDLE: Duration = Duration::from_secs(60);
/// The scrub never rests longer than this, so that new copies are seen.
const SCRUB_REST_MAX: Duration = Duration::from_secs(60 * 60);

/// How thoroughly copies are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// By size and times; what differs is read.
    Times,
    /// Everything is read.
    Content,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Copies that were compared.
    pub compared: u64,
    /// Changed by somebody.
    pub drifted: u64,
    /// Vanished.
    pub lost: u64,
    /// Changed by the disk.
    pub corrupt: u64,
    /// Right again.
    pub recovered: u64,
    /// The disk refused the look, so that nothing is known of them.
    pub unreadable: u64,
}

impl Checked {
    fn count(&mut self, finding: Finding) {
        self.compared += 1;
        match finding {
            Finding::Right | Finding::Unsettled => {}
            Finding::Drifted => self.drifted += 1,
            Finding::Lost => self.lost += 1,
            Finding::Corrupt => self.corrupt += 1,
            Finding::Recovered => self.recovered += 1,
        }
    }
}

/// How fast a walk may be.
#[derive(Clone, Copy, Debug)]
struct Pace {
    objects: u32,
    bytes: u64,
}

impl<P: Ports> Engine<P> {
    /// Walks until the process drains.
    pub(super) async fn run_walk(self) {
        let checks = self.inner.settings.checks;
        let pace = Pace { objects: checks.walk_objects, bytes: checks.scrub_bytes };
        loop {
            let begun = Instant::now();
            match self.walk("", Depth::Times, Some(pace)).await {
                Ok(Some(checked)) => {
                    // Nothing is claimed of all copies where one was not looked at (R44).
                    match checked.unreadable {
                        0 => self.inner.board.compared(begun),
                        copies => tracing::warn!(copies, "the disk refuses a look at copies that are held"),
                    }
                    if checked.compared > 0 {
                        tracing::debug!(?checked, took = ?begun.elapsed(), "walked");
                    }
                }
                Ok(None) => tracing::debug!("too much is missing already; the walk begins again later"),
                Err(error) => tracing::debug!(%error, "the walk begins again later"),
            }
            if !self.pause(Instant::now() + checks.walk_every).await {
                return;
            }
        }
    }

    /// Waits; false if the process drains.
    pub(super) async fn pause(&self, until: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.inner.drain.started() => false,
            () = sleep_until(until) => true,
        }
    }

    /// Compares copies now, as fast as it goes.
    ///
    /// # Errors
    /// `STORE_OFFLINE`, `REGISTRY_UNAVAILABLE`, `DRAINING`, or a disk that fails.
    pub async fn check_files(&self, prefix: String, depth: Depth) -> Result<Checked, FileError> {
        let engine = self.clone();
        self.detached(async move { Ok(engine.walk(&prefix, depth, None).await?.unwrap_or_default()) }).await
    }

    /// `None` if it ended early, because the server has as many exceptions as it may.
    async fn walk(
        &self,
        prefix: &str,
        depth: Depth,
        pace: Option<Pace>,
    ) -> Result<Option<Checked>, FileError> {
        self.verify_store().await?;
        let mut checked = Checked::default();
        let bytes = pace.map(|pace| pace.bytes);
        for missing in self.inner.board.drifted(prefix) {
            checked.count(self.examine(&missing.wanted.path, depth, bytes).await?);
        }
        let mut after: Option<FilePath> = None;
        loop {
            let begun = Instant::now();
            let batch = self.inner.board.held_after(after.as_ref(), BATCH);
            let Some((last, _)) = batch.last() else { return Ok(Some(checked)) };
            after = Some(last.clone());
            let mut mine: Vec<(FilePath, Held)> = batch;
            mine.retain(|(path, _)| path.as_str().starts_with(prefix));
            if self.inner.drain.is_draining() {
                return Err(FileError::Draining { server: self.server().clone() });
            }
            let count = u32::try_from(mine.len()).unwrap_or(u32::MAX);
            for path in self.suspicious(mine, depth, &mut checked).await? {
                if self.inner.board.exception_count() >= self.inner.settings.exceptions_max {
                    return Ok(None);
                }
                match self.examine_alone(&path, depth, bytes).await? {
                    Some(finding) => checked.count(finding),
                    None => checked.unreadable += 1,
                }
            }
            if let Some(pace) = pace {
                let due = begun + Duration::from_secs(1) * count / pace.objects.max(1);
                if !self.pause(due).await {
                    return Err(FileError::Draining { server: self.server().clone() });
                }
            }
        }
    }

    /// Those of a batch that need a closer look; the others are counted as compared.
    async fn suspicious(
        &self,
        batch: Vec<(FilePath, Held)>,
        depth: Depth,
        checked: &mut Checked,
    ) -> Result<Vec<FilePath>, FileError> {
        if depth == Depth::Content || batch.is_empty() {
            return Ok(batch.into_iter().map(|(path, _)| path).collect());
        }
        let paths = batch.iter().map(|(path, _)| path.clone()).collect();
        let found = self.inner.ports.store.stat(paths).await.map_err(|error| self.disk(error))?;
        let (mut suspicious, mut unseen) = (Vec::new(), Vec::new());
        for ((path, held), found) in batch.into_iter().zip(found) {
            let seen = match found {
                Ok(Some(stat)) => Seen::File(stat),
                Ok(None) => Seen::Absent,
                Err(StoreError::Foreign { what, .. }) => Seen::Foreign(what),
                Err(error) => {
                    checked.unreadable += 1;
                    unseen.push((path, held, Obstacle::of(&self.disk(error))));
                    continue;
                }
            };
            match compare(&held, seen) {
                Look::Same => checked.count(Finding::Right),
                _ => suspicious.push(path),
            }
        }
        self.doubt(unseen).await?;
        Ok(suspicious)
    }

    /// One copy that cannot be looked at must not keep the walk from the others: it is doubted, and nothing is found.
    async fn examine_alone(
        &self,
        path: &FilePath,
        depth: Depth,
        bytes: Option<u64>,
    ) -> Result<Option<Finding>, FileError> {
        match self.examine(path, depth, bytes).await {
            Err(error @ FileError::Store { .. }) => {
                if let Some(why) = error.of_one_path() {
                    let held = self.inner.board.held(std::slice::from_ref(path)).pop().flatten();
                    self.doubt(held.map(|held| (path.clone(), held, why)).into_iter().collect()).await?;
                }
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Reads one copy after the other, each once in the time that the settings say, from where the last process ended.
    pub(super) async fn run_scrub(self, mut after: Option<FilePath>) {
        let checks = self.inner.settings.checks;
        // Since when this process is at it, if it began with the first copy.
        let mut pass = after.is_none().then(Instant::now);
        loop {
            let next = self.inner.board.held_after(after.as_ref(), 1).pop();
            let Some((path, held)) = next else {
                let is_wrapped = after.take().is_some();
                let begun = Instant::now();
                if let Some(since) = pass.replace(begun) {
                    self.inner.board.hashed(since);
                }
                if !is_wrapped && !self.pause(begun + SCRUB_IDLE).await {
                    return;
                }
                continue;
            };
            if !self.pause(Instant::now() + self.scrub_rest(&held)).await {
                return;
            }
            let found = match self.verify_store().await {
                Ok(()) => self.examine_alone(&path, Depth::Content, Some(checks.scrub_bytes)).await,
                Err(error) => Err(error),
            };
            if matches!(found, Ok(None)) {
                // This pass does not come to all of them.
                pass = None;
            }
            let noted = match found {
                Ok(_) => self.record(vec![Write::Scrubbed(path.clone())]).await,
                Err(error) => Err(error),
            };
            if let Err(error) = noted {
                tracing::debug!(%error, "the scrub goes on later");
                if !self.pause(Instant::now() + SCRUB_IDLE).await {
                    return;
                }
                continue;
            }
            after = Some(path);
        }
    }

    /// The share of a copy in the time of a whole scrub.
    fn scrub_rest(&self, held: &Held) -> Duration {
        let size = held.stat.size_bytes.max(FILE_BYTES_MIN) as f64;
        // Counted alike, or small files would take longer than their time.
        let all = (self.inner.board.held_bytes(FILE_BYTES_MIN) as f64).max(size);
        self.inner.settings.checks.scrub_every.mul_f64((size / all).min(1.0)).min(SCRUB_REST_MAX)
    }
}
