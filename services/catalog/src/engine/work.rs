//! The work on one update: one task, from the state that it is in to one that needs no work.

use std::{
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lockstep_model::{FirmwareId, clock::Entropy as _, firmware::FirmwareState};
use tokio::sync::Notify;

use super::{
    Engine,
    beat::{Left, Rivals},
    progress::{Progress, failure},
    records::Update,
};
use crate::{
    domain::{
        error::{CatalogError, Refusal},
        life::{is_working, passes, word},
        note::{DownloadNote, download_key},
    },
    ports::Ports,
};
use lockstep_registry::Registry as _;

/// The first wait before something is tried again.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest wait: a server that came back is noticed within it.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// One update that this instance works on.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// How often somebody said that there is something new.
    wakes: AtomicU64,
    woken: Notify,
}

/// Why a step ended without its goal.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is tried again.
    Passing(Refusal),
    /// It would be the same again.
    Fatal(Refusal),
}

impl From<CatalogError> for Stop {
    fn from(error: CatalogError) -> Self {
        let refusal = Refusal::of(&error, error.to_string());
        refusal.into()
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        if passes(refusal.reason) { Self::Passing(refusal) } else { Self::Fatal(refusal) }
    }
}

impl<P: Ports> Engine<P> {
    pub(super) fn working(&self) -> MutexGuard<'_, std::collections::BTreeMap<FirmwareId, Arc<Work>>> {
        self.inner.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on an update, unless this instance does; then it looks at it anew, without waiting for its next try.
    pub(super) fn work_on(&self, id: FirmwareId) {
        let work = {
            let mut working = self.working();
            if let Some(work) = working.get(&id) {
                work.wakes.fetch_add(1, Ordering::Relaxed);
                work.woken.notify_one();
                return;
            }
            let work = Arc::new(Work::default());
            working.insert(id, Arc::clone(&work));
            work
        };
        let engine = self.clone();
        self.inner.drain.spawn("work on a firmware update", async move {
            loop {
                let wakes = work.wakes.load(Ordering::Relaxed);
                Box::pin(engine.work(id, &work)).await;
                let mut working = engine.working();
                // Who asked for it after the last look would wait for nobody.
                if work.wakes.load(Ordering::Relaxed) == wakes || engine.inner.drain.is_draining() {
                    working.remove(&id);
                    return;
                }
            }
        });
    }

    async fn work(&self, id: FirmwareId, work: &Work) {
        let last = self.note_of(id).await.unwrap_or_default();
        let progress = Progress::new(&self.inner.instance, last.as_ref());
        let mut rivals = Rivals::of(last.as_ref());
        let mut pause = PAUSE_FIRST;
        while !self.inner.drain.is_draining() {
            let update = match self.find(id).await {
                Ok(Some(update)) if is_working(update.record.state) => update,
                Ok(_) => return self.drop_note(id).await,
                Err(error) => {
                    tracing::debug!(%error, firmware_id = %id, "a firmware update cannot be read");
                    if self.rest(work, PAUSE_FIRST).await { continue } else { return }
                }
            };
            let before = progress.bytes(&update.record.files);
            let stop = tokio::select! {
                biased;
                () = self.inner.drain.started() => return,
                // Somebody cancelled it, or wants it tried now: what it is now decides.
                () = work.woken.notified() => None,
                ended = self.step(&update, &progress) => ended.err(),
                left = self.beat(&update, &progress, &mut rivals) => match left {
                    Left::Moved => None,
                    Left::ToAnother => return,
                },
            };
            match stop {
                None => pause = PAUSE_FIRST,
                Some(Stop::Fatal(refusal)) => self.fail(&update, &refusal).await,
                Some(Stop::Passing(refusal)) => {
                    if progress.bytes(&update.record.files) > before {
                        pause = PAUSE_FIRST;
                    }
                    tracing::info!(
                        firmware_id = %id, reason = %refusal.reason, error = %refusal,
                        "work on a firmware update waits"
                    );
                    progress.troubled(Some(&refusal));
                    let wait = self.entropy().jitter(pause);
                    tokio::select! {
                        biased;
                        is_on = self.rest(work, wait) => if !is_on { return },
                        left = self.beat(&update, &progress, &mut rivals) => if left == Left::ToAnother { return },
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                    progress.troubled(None);
                }
            }
        }
    }

    async fn step(&self, update: &Update, progress: &Progress) -> Result<(), Stop> {
        match update.record.state {
            FirmwareState::Downloading => Box::pin(self.download(update, progress)).await,
            FirmwareState::Verifying => Box::pin(self.verify(update)).await,
            FirmwareState::Deleting => Box::pin(self.remove(update)).await,
            FirmwareState::Published | FirmwareState::Failed => Ok(()),
        }
    }

    /// Waits, unless somebody has news; false if the process drains.
    async fn rest(&self, work: &Work, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.inner.drain.started() => false,
            () = work.woken.notified() => true,
            () = tokio::time::sleep(wait) => true,
        }
    }

    async fn fail(&self, update: &Update, refusal: &Refusal) {
        let Update { id, record, .. } = update;
        if record.state == FirmwareState::Deleting {
            // A deletion is never given up: whatever refused it is asked again.
            tracing::warn!(firmware_id = %id, reason = %refusal.reason, error = %refusal, "a deletion is refused");
            tokio::time::sleep(PAUSE_FIRST).await;
            return;
        }
        tracing::info!(firmware_id = %id, reason = %refusal.reason, error = %refusal, "a download failed");
        let failed = self.advance(*id, record.state, |record| {
            record.state = FirmwareState::Failed;
            record.failure = Some(failure(refusal));
        });
        if let Err(error) = failed.await {
            tracing::debug!(%error, firmware_id = %id, state = word(record.state), "a failure is not written down");
            tokio::time::sleep(PAUSE_FIRST).await;
        }
    }

    pub(super) async fn note_of(&self, id: FirmwareId) -> Result<Option<DownloadNote>, CatalogError> {
        let key = download_key(id);
        let notes = self.registry().notes(key.clone()).await?;
        let note = notes.into_iter().find(|note| note.key == key);
        Ok(note.and_then(|note| serde_json::from_str(&note.body).ok()))
    }

    pub(super) async fn drop_note(&self, id: FirmwareId) {
        if let Err(error) = self.registry().drop_note(download_key(id)).await {
            tracing::debug!(%error, firmware_id = %id, "the note of a download is left over");
        }
    }
}
