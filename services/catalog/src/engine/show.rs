//! What people see of updates: the record, and how far its download is.

use std::collections::BTreeMap;

use lockstep_model::{
    FirmwareId, Reason,
    firmware::{FirmwareState, SettingsRecord},
    record::Placement,
};
use lockstep_registry::Registry as _;

use super::{Engine, records::Update};
use crate::{
    domain::{
        error::CatalogError,
        life::is_working,
        note::{DOWNLOAD, DownloadNote},
    },
    ports::Ports,
};

/// An update with all that is shown of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The update.
    pub update: Update,
    /// How far its download is, while somebody works on it, or what keeps its files from where they should be.
    pub note: Option<DownloadNote>,
    /// Why its files are not copied to all servers.
    pub not_copied: Option<Reason>,
}

impl Shown {
    fn new(update: Update, note: Option<DownloadNote>, settings: &SettingsRecord) -> Self {
        let placement = settings.placement(update.record.protocol, update.record.target.as_ref());
        let not_copied = match placement {
            Placement::All => None,
            Placement::OriginOnly { reason } => Some(reason),
        };
        // Of a published update a note tells only what keeps its files from where they should be.
        let note = note.filter(|note| is_working(update.record.state) || note.failure.is_some());
        Self { update, note, not_copied }
    }
}

impl<P: Ports> Engine<P> {
    /// All updates, ordered by model, version and id.
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`.
    pub async fn updates(&self) -> Result<Vec<Update>, CatalogError> {
        self.all().await
    }

    /// Where each update is in its life.
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`.
    pub async fn states(&self) -> Result<BTreeMap<FirmwareId, FirmwareState>, CatalogError> {
        Ok(self.all().await?.into_iter().map(|update| (update.id, update.record.state)).collect())
    }

    /// One update as it is shown.
    ///
    /// # Errors
    /// `FIRMWARE_NOT_FOUND`, `REGISTRY_UNAVAILABLE`.
    pub async fn shown(&self, id: FirmwareId) -> Result<Shown, CatalogError> {
        let update = self.get(id).await?;
        self.show(update).await
    }

    /// An update that was just written, as it is shown.
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`.
    pub async fn show(&self, update: Update) -> Result<Shown, CatalogError> {
        let (_, settings) = self.current_settings().await?;
        let note = self.note_of(update.id).await?;
        Ok(Shown::new(update, note, &settings))
    }

    /// Updates as they are shown, in their order.
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`.
    pub async fn show_all(&self, updates: Vec<Update>) -> Result<Vec<Shown>, CatalogError> {
        let (_, settings) = self.current_settings().await?;
        let mut notes: BTreeMap<String, DownloadNote> = BTreeMap::new();
        for note in self.registry().notes(DOWNLOAD.to_owned()).await? {
            if let (Some(id), Ok(body)) = (note.key.strip_prefix(DOWNLOAD), serde_json::from_str(&note.body))
            {
                notes.insert(id.to_owned(), body);
            }
        }
        let shown = updates.into_iter().map(|update| {
            let note = notes.remove(&update.id.to_string());
            Shown::new(update, note, &settings)
        });
        Ok(shown.collect())
    }

    /// All updates as they are shown, ordered by model, version and id.
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`.
    pub async fn shown_all(&self) -> Result<Vec<Shown>, CatalogError> {
        let all = self.all().await?;
        self.show_all(all).await
    }
}
