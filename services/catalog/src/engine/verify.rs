//! VERIFYING: sizes and digests are compared on the server, and all files are registered in one change.

use std::collections::BTreeMap;

use lockstep_model::{
    FileId, FilePath, Reason,
    firmware::{FirmwareRecord, FirmwareState},
};

use super::{Engine, records::Update, work::Stop};
use crate::{
    domain::{
        error::{CatalogError, Refusal},
        life::{registered_by, registration_of},
    },
    ports::{Ports, Registration, Servers as _},
};

impl<P: Ports> Engine<P> {
    pub(super) async fn verify(&self, update: &Update) -> Result<(), Stop> {
        let record = &update.record;
        fail::fail_point!("catalog.download.verifying");
        // Whoever died here before may have registered them.
        let registered = match self.registered(record).await? {
            Some(registered) => registered,
            None => match self.register(record).await {
                Ok(registered) => registered,
                Err(Stop::Fatal(refusal) | Stop::Passing(refusal)) => {
                    return self.not_registered(update, refusal).await;
                }
            },
        };
        self.publish(update, &registered).await?;
        Ok(())
    }

    /// The ids of the files, if the registration of this update made them all.
    pub(super) async fn registered(
        &self,
        record: &FirmwareRecord,
    ) -> Result<Option<BTreeMap<FilePath, FileId>>, CatalogError> {
        let label = registered_by(record);
        let live = self.live(record.files.iter().map(|file| &file.path)).await?;
        let ours = record.files.iter().zip(live).map(|(file, live)| {
            let live = live.filter(|live| live.record.registered_by == label)?;
            Some((file.path.clone(), live.record.file_id))
        });
        Ok(ours.collect())
    }

    async fn register(&self, record: &FirmwareRecord) -> Result<BTreeMap<FilePath, FileId>, Stop> {
        let server = self.server(&record.server_id).await?;
        let (_, settings) = self.current_settings().await?;
        let placement = settings.placement(record.protocol, record.target.as_ref());
        let file = |file: &lockstep_model::firmware::FirmwareFile| Registration {
            path: file.path.clone(),
            upload_id: file.upload_id,
            sha256: file.sha256.clone(),
        };
        let files = record.files.iter().map(file).collect();
        let request_id = registration_of(record).parse().map_err(|_| {
            Refusal::new(Reason::Internal, "the name of a registration is no name of a request")
        })?;
        let registered = self.servers().register(&server, files, placement, request_id).await?;
        fail::fail_point!("catalog.download.registered");
        Ok(registered.into_iter().map(|file| (file.path, file.file_id)).collect())
    }

    async fn publish(
        &self,
        update: &Update,
        registered: &BTreeMap<FilePath, FileId>,
    ) -> Result<(), CatalogError> {
        let published = self.advance(update.id, FirmwareState::Verifying, |record| {
            record.state = FirmwareState::Published;
            record.failure = None;
            for file in &mut record.files {
                file.file_id = registered.get(&file.path).copied();
            }
        });
        let published = published.await?;
        fail::fail_point!("catalog.download.published");
        if published.is_some() {
            tracing::info!(firmware_id = %update.id, files = update.record.files.len(), "a firmware update is published");
        }
        self.inner.place_now.notify_one();
        Ok(())
    }

    async fn not_registered(&self, update: &Update, refusal: Refusal) -> Result<(), Stop> {
        let record = &update.record;
        match refusal.reason {
            // It may have been this very registration, whose answer was lost.
            Reason::FileExists | Reason::RequestIdReused => {
                if let Some(registered) = self.registered(record).await? {
                    return Ok(self.publish(update, &registered).await?);
                }
            }
            // The server lost them: the download goes on with what is there.
            Reason::UploadNotFound => {
                self.advance(update.id, FirmwareState::Verifying, |record| {
                    record.state = FirmwareState::Downloading;
                })
                .await?;
            }
            // None of these bytes is of use for another try.
            Reason::ContentDigestMismatch => {
                let server = self.server(&record.server_id).await?;
                self.drop_uploads(&server, record.files.iter().map(|file| file.upload_id).collect()).await;
            }
            _ => {}
        }
        Err(refusal.into())
    }
}
