//! Cancelling, trying again, deleting, cleaning up.

use std::time::Duration;

use lockstep_model::{
    FirmwareId, Revision,
    firmware::{FIRMWARE, FirmwareOrigin, FirmwareState, firmware_key},
};
use lockstep_registry::{Commit, Precondition, Registry as _, RegistryError};
use tokio::time::Instant;

use super::{
    Ask, Engine,
    records::{Update, encode, update},
};
use crate::{
    domain::{
        error::CatalogError,
        life::{is_unregistered, is_working},
    },
    ports::Ports,
};

/// How long a call waits until what it asked for is gone; after that it goes by itself.
const GONE_MAX: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl<P: Ports> Engine<P> {
    /// Ends a download, or forgets one that failed. Nothing was registered, and nothing will be.
    ///
    /// # Errors
    /// As `CancelDownload` in the contract.
    pub async fn cancel(&self, ask: Ask, id: FirmwareId) -> Result<Update, CatalogError> {
        let request = ask.request(format!("cancel {id}"));
        if let Some(first) = self.remembered(&request, id).await? {
            return Ok(first);
        }
        let Update { revision, mut record, .. } = self.get(id).await?;
        match record.state {
            FirmwareState::Published => {
                return Err(busy(id, record.state, "it can be deleted, not cancelled"));
            }
            FirmwareState::Deleting if !is_unregistered(&record) => {
                return Err(busy(id, record.state, "it goes by itself"));
            }
            _ => record.state = FirmwareState::Deleting,
        }
        record.failure = None;
        let update = self.write(&ask, request, Some(revision), id, record).await?;
        fail::fail_point!("catalog.cancel.begun");
        self.begin_work(&update);
        self.wait_until_gone(&[id]).await;
        Ok(update)
    }

    /// Tries a download again now, from where it was.
    ///
    /// # Errors
    /// As `RestoreDownload` in the contract.
    pub async fn restore(&self, ask: Ask, id: FirmwareId) -> Result<Update, CatalogError> {
        let request = ask.request(format!("restore {id}"));
        if let Some(first) = self.remembered(&request, id).await? {
            return Ok(first);
        }
        let Update { revision, mut record, .. } = self.get(id).await?;
        match record.state {
            // One that waits for its next try does not wait any longer.
            FirmwareState::Failed | FirmwareState::Downloading => {}
            state => return Err(busy(id, state, "only a download that failed is tried again")),
        }
        record.state = FirmwareState::Downloading;
        record.failure = None;
        let update = self.write(&ask, request, Some(revision), id, record).await?;
        self.begin_work(&update);
        Ok(update)
    }

    /// Deletes an update and its own files.
    ///
    /// # Errors
    /// As `DeleteFirmware` in the contract.
    pub async fn delete(&self, ask: Ask, id: FirmwareId, expected: Revision) -> Result<Update, CatalogError> {
        let request = ask.request(format!("delete {id} {expected}"));
        if let Some(first) = self.remembered(&request, id).await? {
            return Ok(first);
        }
        let Update { revision, mut record, .. } = self.get(id).await?;
        if is_working(record.state) {
            return Err(busy(id, record.state, "cancel the download, or wait for it"));
        }
        if revision != expected {
            let what = format!("the firmware update {id}");
            return Err(CatalogError::RevisionChanged { what, expected, actual: revision });
        }
        record.state = FirmwareState::Deleting;
        record.failure = None;
        let update = self.write(&ask, request, Some(revision), id, record).await?;
        fail::fail_point!("catalog.delete.begun");
        self.begin_work(&update);
        self.wait_until_gone(&[id]).await;
        Ok(update)
    }

    /// What a clean-up would delete: published updates from a feed that no device is meant to get (R60).
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`.
    pub async fn unused(&self) -> Result<Vec<Update>, CatalogError> {
        let mut all = self.all().await?;
        all.retain(|Update { record, .. }| {
            record.state == FirmwareState::Published
                && matches!(record.origin, FirmwareOrigin::Feed { .. })
                && !record.in_use
        });
        Ok(all)
    }

    /// Deletes all that [`unused`](Self::unused) tells, in one change.
    ///
    /// # Errors
    /// As `DeleteUnusedFirmware` in the contract.
    pub async fn delete_unused(&self, ask: Ask, expected: u64) -> Result<Vec<Update>, CatalogError> {
        let request = ask.request(format!("delete unused {expected}"));
        if let Some(revision) = self.registry().find_request(request.clone()).await? {
            let changes = match self.registry().transaction(revision).await {
                Ok(changes) => changes,
                Err(RegistryError::TooOld { .. }) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            return changes
                .iter()
                .filter(|record| record.key.starts_with(FIRMWARE))
                .filter_map(update)
                .collect();
        }
        let mut unused = self.unused().await?;
        let actual = unused.len() as u64;
        if actual != expected {
            return Err(CatalogError::CountChanged { expected, actual });
        }
        let mut commit =
            Commit { request: Some(request), traceparent: ask.traceparent.clone(), ..Commit::default() };
        for Update { id, revision, record } in &mut unused {
            record.state = FirmwareState::Deleting;
            let key = firmware_key(id);
            commit.puts.push((key.clone(), encode(&key, record)?));
            commit.preconditions.push(Precondition::At(key, *revision));
        }
        let done = match self.registry().commit(commit).await {
            // One of them is used now, or changed: whoever asks looks again.
            Err(RegistryError::Refused { .. }) => {
                let actual = self.unused().await?.len() as u64;
                return Err(CatalogError::CountChanged { expected, actual });
            }
            other => other?,
        };
        for update in &mut unused {
            update.revision = done.revision;
            self.begin_work(update);
        }
        let ids: Vec<FirmwareId> = unused.iter().map(|update| update.id).collect();
        self.wait_until_gone(&ids).await;
        Ok(unused)
    }

    /// Waits a little until updates are gone: mostly they are at once, and then whoever looks next sees it.
    pub(super) async fn wait_until_gone(&self, ids: &[FirmwareId]) {
        let until = Instant::now() + GONE_MAX;
        while Instant::now() < until {
            let found = self.registry().get(ids.iter().map(firmware_key).collect()).await;
            if found.is_ok_and(|found| found.iter().all(Option::is_none)) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn busy(firmware_id: FirmwareId, state: FirmwareState, rule: &'static str) -> CatalogError {
    CatalogError::Busy { firmware_id, state, rule }
}
