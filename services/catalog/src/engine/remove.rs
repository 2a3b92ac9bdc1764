//! DELETING: an update goes with its own files, and nothing else (R35).
//!
//! The record goes last, so that whoever dies in between leaves somebody to go on. A registration that is still on its way
//! is kept from happening by the registry itself: the commit that ends the record takes the name of its request.

use lockstep_model::{
    FilePath, Identity,
    firmware::{FirmwareFile, FirmwareRecord, firmware_key},
};
use lockstep_registry::{Commit, Precondition, Registry as _, RegistryError, Request};

use super::{Engine, records::Update, records::encode, work::Stop};
use crate::{
    domain::{
        error::CatalogError,
        life::{is_unregistered, registered_by, registration_of},
    },
    ports::{Ports, Seen, Servers as _},
};

/// How often files may change under a deletion before it waits.
const ATTEMPTS_MAX: usize = 8;

impl<P: Ports> Engine<P> {
    pub(super) async fn remove(&self, update: &Update) -> Result<(), Stop> {
        let record = &update.record;
        let is_unregistered = is_unregistered(record);
        if is_unregistered && let Ok(server) = self.server(&record.server_id).await {
            self.drop_uploads(&server, record.files.iter().map(|file| file.upload_id).collect()).await;
        }
        // Taken for as long as no registration took it.
        let mut fence = is_unregistered;
        for _ in 0..ATTEMPTS_MAX {
            let own = self.own_files(record).await?;
            if !own.is_empty() {
                let deleted = self.ask_servers(&record.server_id, |engine, server, request_id| {
                    let own = own.clone();
                    async move { engine.servers().delete(&server, own, request_id).await }
                });
                match deleted.await {
                    // Some changed or went meanwhile: the next look tells.
                    Err(CatalogError::Server(refusal)) if is_news(refusal.reason) => continue,
                    other => other?,
                }
            }
            fail::fail_point!("catalog.delete.files");
            match self.end_record(update, fence).await {
                Ok(()) => {
                    fail::fail_point!("catalog.delete.ended");
                    tracing::info!(firmware_id = %update.id, files = own.len(), "a firmware update is deleted");
                    self.drop_note(update.id).await;
                    return Ok(());
                }
                // The registration was quicker: its files are there, and go now.
                Err(RegistryError::RequestReused { .. }) if fence => fence = false,
                // Somebody else was quicker, or edited it: the next look tells.
                Err(RegistryError::Refused { .. }) => return Ok(()),
                Err(error) => return Err(CatalogError::from(error).into()),
            }
        }
        let cause = format!("files of the firmware update {} kept changing while it was deleted", update.id);
        Err(CatalogError::from(RegistryError::Unavailable { cause }).into())
    }

    /// The files of the update that are registered now, as they are now: by their id, or by the registration that made them
    /// where the record does not know their ids yet. What was moved elsewhere or replaced by another file is not among them.
    async fn own_files(&self, record: &FirmwareRecord) -> Result<Vec<Seen>, CatalogError> {
        let label = registered_by(record);
        let places: Vec<(&FirmwareFile, &FilePath)> = record
            .files
            .iter()
            .flat_map(|file| std::iter::once(&file.path).chain(&file.new_path).map(move |path| (file, path)))
            .collect();
        let live = self.live(places.iter().map(|(_, path)| *path)).await?;
        let own = places.into_iter().zip(live).filter_map(|((file, path), live)| {
            let live = live?;
            let is_own = match file.file_id {
                Some(id) => live.record.file_id == id,
                None => live.record.registered_by == label,
            };
            is_own.then(|| Seen { path: path.clone(), revision: live.revision })
        });
        Ok(own.take(crate::domain::draft::FILES_MAX).collect())
    }

    async fn end_record(&self, update: &Update, fence: bool) -> Result<(), RegistryError> {
        let Update { id, revision, record } = update;
        let key = firmware_key(id);
        let body = encode(&key, record).unwrap_or_default();
        let request = fence.then(|| Request {
            caller: Identity::Service("catalog").to_string(),
            id: registration_of(record),
            fingerprint: format!("the firmware update {id} was cancelled"),
        });
        let commit = Commit {
            preconditions: vec![Precondition::At(key.clone(), *revision)],
            deletes: vec![(key, body)],
            request,
            ..Commit::default()
        };
        self.registry().commit(commit).await.map(drop)
    }
}

const fn is_news(reason: lockstep_model::Reason) -> bool {
    use lockstep_model::Reason;
    matches!(reason, Reason::RevisionChanged | Reason::FileNotFound)
}
