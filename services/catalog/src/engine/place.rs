//! Where the files of published updates should be: on which servers (R7 to R12, R36), and at which paths.
//!
//! Level-triggered: after each change of an update or of the settings, and each minute, what is wanted is compared with what
//! is there. It does not matter who else does the same: a file that changed in between is looked at again.

use std::time::Duration;

use lockstep_model::{
    FilePath,
    firmware::{FirmwareFile, FirmwareState, SettingsRecord},
};
use tokio::time::Instant;

use super::{
    Engine,
    follow::Follow,
    records::{Live, Update},
};
use crate::{
    domain::{draft::FILES_MAX, error::CatalogError},
    ports::{Ports, Seen, Servers as _},
};

/// How often everything is compared though nothing was heard.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How soon what did not succeed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

impl<P: Ports> Engine<P> {
    /// Compares until the process drains.
    pub(super) async fn keep_placements(self) {
        let drain = self.inner.drain.clone();
        tokio::select! {
            biased;
            () = drain.started() => {}
            () = self.compare() => {}
        }
    }

    async fn compare(&self) {
        let mut follow = Follow::default();
        let mut due = Instant::now();
        loop {
            match follow.changed(self.registry()).await {
                Ok(changed) if changed || Instant::now() >= due => {
                    let wait = if self.place_all().await { LOOK_EVERY } else { AGAIN_AFTER };
                    due = Instant::now() + wait;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "placements cannot be compared"),
            }
            tokio::select! {
                biased;
                () = self.inner.place_now.notified() => {}
                () = follow.wait(self.registry()) => {}
            }
        }
    }

    /// Compares all updates once; false if something is left to do.
    async fn place_all(&self) -> bool {
        let read = async { Ok::<_, CatalogError>((self.all().await?, self.current_settings().await?.1)) };
        let (updates, settings) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(%error, "placements cannot be compared");
                return false;
            }
        };
        let mut is_done = true;
        for update in updates.into_iter().filter(|update| update.record.state == FirmwareState::Published) {
            if let Err(error) = self.place_one(&update, &settings).await {
                tracing::info!(firmware_id = %update.id, %error, "the files of a firmware update are not where they should be yet");
                is_done = false;
            }
        }
        is_done
    }

    async fn place_one(&self, update: &Update, settings: &SettingsRecord) -> Result<(), CatalogError> {
        let moved = self.move_files(update).await?;
        let record = moved.as_ref().map_or(&update.record, |moved| &moved.record);
        let wanted = settings.placement(record.protocol, record.target.as_ref());
        let live = self.live(record.files.iter().map(|file| &file.path)).await?;
        let astray: Vec<Seen> = record
            .files
            .iter()
            .zip(live)
            .filter_map(|(file, live)| {
                let live = live.filter(|live| is_of(live, file) && live.record.placement != wanted)?;
                Some(Seen { path: file.path.clone(), revision: live.revision })
            })
            .collect();
        for part in astray.chunks(FILES_MAX) {
            self.ask_servers(&record.server_id, |engine, server, request_id| {
                let part = part.to_vec();
                async move { engine.servers().place(&server, part, wanted, request_id).await }
            })
            .await?;
            tracing::info!(firmware_id = %update.id, files = part.len(), "files of a firmware update are placed anew");
        }
        Ok(())
    }

    /// Moves files that are not where the update has them, and notes where they are. Answers the update if it changed.
    async fn move_files(&self, update: &Update) -> Result<Option<Update>, CatalogError> {
        let pending: Vec<(&FirmwareFile, &FilePath)> =
            update.record.files.iter().filter_map(|file| Some((file, file.new_path.as_ref()?))).collect();
        if pending.is_empty() {
            return Ok(None);
        }
        let here = self.live(pending.iter().map(|(file, _)| &file.path)).await?;
        let there = self.live(pending.iter().map(|(_, path)| *path)).await?;
        let (mut moved, mut refused) = (Vec::new(), None);
        for (((file, path), here), there) in pending.into_iter().zip(here).zip(there) {
            let is_there = there.is_some_and(|live| is_of(&live, file));
            let here = here.filter(|live| is_of(live, file));
            // What is at neither place was moved or deleted by somebody, and is no longer looked for.
            if let (false, Some(live)) = (is_there, here) {
                let seen = Seen { path: file.path.clone(), revision: live.revision };
                let asked = self.ask_servers(&update.record.server_id, |engine, server, request_id| {
                    let (seen, path) = (seen.clone(), path.clone());
                    async move { engine.servers().move_file(&server, seen, path, request_id).await }
                });
                if let Err(error) = asked.await {
                    refused = Some(error);
                    continue;
                }
            }
            moved.push((file.path.clone(), path.clone()));
        }
        let noted = self.advance(update.id, FirmwareState::Published, |record| {
            for file in &mut record.files {
                let Some((_, to)) = moved.iter().find(|(from, _)| *from == file.path) else { continue };
                // Its target may have changed again since: then it goes on from where it is now.
                let wanted = file.new_path.take().unwrap_or_else(|| file.path.clone());
                file.path = to.clone();
                file.new_path = (wanted != *to).then_some(wanted);
            }
            record.files.sort_by(|a, b| a.path.cmp(&b.path));
        });
        fail::fail_point!("catalog.move.moved");
        let noted = if moved.is_empty() { None } else { noted.await? };
        refused.map_or(Ok(noted), Err)
    }
}

/// Whether what is registered there is this file: a replaced one keeps its id, one that was registered anew has another.
fn is_of(live: &Live, file: &FirmwareFile) -> bool {
    file.file_id == Some(live.record.file_id)
}
