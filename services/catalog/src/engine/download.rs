//! DOWNLOADING: every byte of every file goes into staging of one server.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lockstep_model::{
    Reason, UploadId,
    firmware::{FirmwareFile, FirmwareOrigin, FirmwareRecord, FirmwareState},
};

use super::{Engine, progress::Progress, records::Update, work::Stop};
use crate::{
    domain::error::Refusal,
    ports::{Ports, Server, Servers as _, Upload},
};

/// Files that are downloaded at the same time.
const FILES_AT_ONCE: usize = 4;
/// How often a server is asked to drop an upload that somebody still writes to, and when again.
const DROP_TRIES_MAX: usize = 10;
const DROP_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Questions that are asked at the same time.
const QUESTIONS_AT_ONCE: usize = 8;

pub(super) fn upload(file: &FirmwareFile) -> Upload {
    Upload { id: file.upload_id, size_bytes: file.size_bytes }
}

impl<P: Ports> Engine<P> {
    /// Downloads what is missing, then says that all is there.
    pub(super) async fn download(&self, update: &Update, progress: &Progress) -> Result<(), Stop> {
        let record = &update.record;
        let server = self.server(&record.server_id).await?;
        self.survey(record, &server, progress).await?;
        let files = || record.files.iter().enumerate();
        let left = files().map(|(place, file)| file.size_bytes - progress.bytes_of(place, file)).sum();
        match &record.origin {
            FirmwareOrigin::Feed { source_id, .. } => {
                // Before the first byte, and before each try: what is there already needs no room.
                self.servers().check_space(&server, left).await?;
                let server = &server;
                let one = |(place, file)| Box::pin(self.transfer(source_id, server, place, file, progress));
                let transfers: Vec<_> = files().map(one).collect();
                stream::iter(transfers).buffer_unordered(FILES_AT_ONCE).try_collect::<()>().await?;
            }
            FirmwareOrigin::Import if files().all(|(place, _)| progress.is_done(place)) => {}
            FirmwareOrigin::Import => {
                let message = "the server lost what was imported; import the archive anew";
                return Err(Stop::Fatal(Refusal::new(Reason::UploadNotFound, message)));
            }
        }
        fail::fail_point!("catalog.download.staged");
        self.advance(update.id, FirmwareState::Downloading, |record| record.state = FirmwareState::Verifying)
            .await?;
        Ok(())
    }

    /// Asks how far each file is.
    async fn survey(
        &self,
        record: &FirmwareRecord,
        server: &Server,
        progress: &Progress,
    ) -> Result<(), Stop> {
        let questions = record.files.iter().enumerate().map(|(place, file)| async move {
            let committed = self.servers().committed(server, upload(file)).await?;
            progress.reached(place, file.size_bytes, committed);
            Ok::<(), Refusal>(())
        });
        stream::iter(questions.collect::<Vec<_>>())
            .buffer_unordered(QUESTIONS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(())
    }

    /// Drops uploads. One that cannot be dropped now is removed by its server when nobody continues it.
    pub(super) async fn drop_uploads(&self, server: &Server, uploads: Vec<UploadId>) {
        stream::iter(uploads)
            .for_each_concurrent(QUESTIONS_AT_ONCE, |id| async move {
                if let Err(error) = self.drop_upload(server, id).await {
                    tracing::debug!(%error, upload_id = %id, "an upload is left over");
                }
            })
            .await;
    }

    /// Drops one upload. While its last writer ends, its server says that it is busy.
    pub(super) async fn drop_upload(&self, server: &Server, id: UploadId) -> Result<(), Refusal> {
        let mut tries = 0;
        loop {
            let no_name = || Refusal::new(Reason::Internal, "no name for a request");
            let request_id = self.fresh_request().ok_or_else(no_name)?;
            match self.servers().cancel(server, id, request_id).await {
                Err(refusal) if refusal.reason == Reason::Overloaded && tries < DROP_TRIES_MAX => tries += 1,
                other => return other,
            }
            tokio::time::sleep(DROP_AGAIN_AFTER).await;
        }
    }
}
