//! An offer becomes an update (R55, R57, R58).

use lockstep_model::{
    FilePath, Folded, UploadId,
    clock::Clock as _,
    firmware::FirmwareState,
    path::fold,
    record::{NameKind, NameRecord, name_key},
};
use lockstep_registry::Registry as _;

use super::{
    Ask, Engine,
    records::{Update, decode},
};
use crate::{
    domain::{
        draft::{self, New, Part, Wish},
        error::CatalogError,
    },
    ports::{Ports, Servers as _},
};

/// Keys of one read.
const KEYS: usize = 10_000;

/// What to download, and where to.
#[derive(Clone, Debug)]
pub struct Start {
    /// The source.
    pub source_id: String,
    /// The offer.
    pub offer_id: String,
    /// Where somebody wants it.
    pub wish: Wish,
}

impl<P: Ports> Engine<P> {
    /// Writes down that an offer is to be downloaded. Nothing is asked of the vendor beyond its feed.
    ///
    /// # Errors
    /// As `StartDownload` in the contract.
    pub async fn start(&self, ask: Ask, start: Start) -> Result<Update, CatalogError> {
        let Start { source_id, offer_id, wish } = start;
        let target = wish.target.as_ref().map_or("", FilePath::as_str);
        let request = ask.request(format!(
            "download {source_id} {offer_id} {} {} {target}",
            wish.server_id,
            wish.protocol.word()
        ));
        let missing =
            || CatalogError::OfferNotFound { source_id: source_id.clone(), offer_id: offer_id.clone() };
        let id = draft::offered_id(&source_id, &offer_id).ok_or_else(missing)?;
        if let Some(first) = self.remembered(&request, id).await? {
            return Ok(first);
        }
        let entry = self.offer(&source_id, &offer_id).await?.ok_or_else(missing)?;
        let exists = || CatalogError::Exists {
            firmware_id: id,
            source_id: source_id.clone(),
            offer_id: offer_id.clone(),
        };
        if self.find(id).await?.is_some() {
            return Err(exists());
        }
        let server = self.server(&wish.server_id).await?;
        let new = New::offered(&source_id, &entry, self.inner.outside.clock.now(), ask.label());
        let part = |file: crate::ports::FeedFile| Part {
            name: file.name,
            size_bytes: file.size_bytes,
            sha256: file.sha256,
            uri: file.uri,
            upload_id: UploadId::random(self.entropy()),
        };
        let parts = entry.files.into_iter().map(part).collect();
        let record = draft::record(new, &wish, parts, FirmwareState::Downloading)?;
        self.check_paths(record.files.iter().map(|file| &file.path)).await?;
        let total = record.files.iter().map(|file| file.size_bytes).sum();
        self.servers().check_space(&server, total).await?;
        let written = self.write(&ask, request, None, id, record).await;
        let update = written.map_err(|error| match error {
            CatalogError::Registry(lockstep_registry::RegistryError::Refused { .. }) => exists(),
            other => other,
        })?;
        tracing::info!(firmware_id = %id, server_id = %update.record.server_id, bytes = total, "a download begins");
        fail::fail_point!("catalog.download.started");
        self.begin_work(&update);
        Ok(update)
    }

    /// Works on an update here, and has the others watched.
    pub(super) fn begin_work(&self, update: &Update) {
        self.work_on(update.id);
        self.inner.keep_now.notify_one();
    }

    /// That nothing is registered where files would go. It is asked again by the commit that registers them: this one is so
    /// that nobody waits for gigabytes to hear it.
    ///
    /// # Errors
    /// `FILE_EXISTS`, `PATH_CONFLICT`.
    pub(super) async fn check_paths<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a FilePath>,
    ) -> Result<(), CatalogError> {
        let paths: Vec<&FilePath> = paths.into_iter().collect();
        for (path, live) in paths.iter().zip(self.live(paths.iter().copied()).await?) {
            if let Some(live) = live {
                let (revision, origin) = (live.revision, live.record.origin);
                return Err(CatalogError::FileExists { path: (*path).clone(), revision, origin });
            }
        }
        let names: Vec<(&FilePath, &str, NameKind)> = paths
            .iter()
            .flat_map(|path| {
                let above = path.ancestors().map(|above| (*path, above, NameKind::Directory));
                above.chain(std::iter::once((*path, path.as_str(), NameKind::File)))
            })
            .collect();
        for names in names.chunks(KEYS) {
            let key = |(_, text, _): &(&FilePath, &str, NameKind)| {
                let folded: Folded = fold(text);
                name_key(&folded)
            };
            let found = self.registry().get(names.iter().map(key).collect()).await?;
            for ((path, text, kind), found) in names.iter().zip(found) {
                let Some(found) = found else { continue };
                let taken: NameRecord = decode(&found)?;
                if taken.path != *text || taken.kind != *kind {
                    return Err(CatalogError::PathConflict { path: (*path).clone(), taken: taken.path });
                }
            }
        }
        Ok(())
    }
}
