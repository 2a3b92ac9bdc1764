//! The settings that govern firmware.

use lockstep_model::{
    Revision,
    firmware::{SETTINGS_KEY, SettingsRecord},
};
use lockstep_registry::{Commit, Precondition, Registry as _, RegistryError};

use super::{
    Ask, Engine,
    records::{decode, encode},
};
use crate::{domain::error::CatalogError, ports::Ports};

/// The settings and the revision that made them; zero while nobody changed any.
pub type CurrentSettings = (Revision, SettingsRecord);

/// What to change.
#[derive(Clone, Debug, Default)]
pub struct SettingsEdit {
    /// The option.
    pub synchronize_firmware: Option<bool>,
    /// The WebDAV directories, valid paths or empty.
    pub webdav_directories: Option<Vec<String>>,
    /// The revision that the caller saw; zero for none.
    pub expected: Revision,
}

impl<P: Ports> Engine<P> {
    /// The settings as they are.
    ///
    /// # Errors
    /// `REGISTRY_UNAVAILABLE`.
    pub async fn current_settings(&self) -> Result<CurrentSettings, CatalogError> {
        let found = self.registry().get(vec![SETTINGS_KEY.to_owned()]).await?.into_iter().next().flatten();
        match found {
            Some(found) => Ok((found.revision, decode(&found)?)),
            None => Ok((Revision::ZERO, SettingsRecord::default())),
        }
    }

    /// Changes the settings; where files should be follows.
    ///
    /// # Errors
    /// As `UpdateSettings` in the contract.
    pub async fn edit_settings(&self, ask: Ask, edit: SettingsEdit) -> Result<CurrentSettings, CatalogError> {
        let request = ask.request(format!("settings {edit:?}"));
        if let Some(revision) = self.registry().find_request(request.clone()).await? {
            return self.written_settings(revision).await;
        }
        let (actual, mut record) = self.current_settings().await?;
        let what = || "the settings of firmware".to_owned();
        let expected = edit.expected;
        if actual != expected {
            return Err(CatalogError::RevisionChanged { what: what(), expected, actual });
        }
        if let Some(on) = edit.synchronize_firmware {
            record.synchronize_firmware = on;
        }
        if let Some(directories) = edit.webdav_directories {
            record.webdav_directories = directories;
        }
        let key = SETTINGS_KEY.to_owned();
        let precondition = match actual {
            Revision::ZERO => Precondition::Absent(key.clone()),
            revision => Precondition::At(key.clone(), revision),
        };
        let commit = Commit {
            preconditions: vec![precondition],
            puts: vec![(key.clone(), encode(&key, &record)?)],
            request: Some(request),
            traceparent: ask.traceparent.clone(),
            ..Commit::default()
        };
        let done = match self.registry().commit(commit).await {
            Err(RegistryError::Refused { actual, .. }) => {
                let actual = actual.unwrap_or(Revision::ZERO);
                return Err(CatalogError::RevisionChanged { what: what(), expected, actual });
            }
            other => other?,
        };
        self.inner.place_now.notify_one();
        if done.replayed { self.written_settings(done.revision).await } else { Ok((done.revision, record)) }
    }

    async fn written_settings(&self, revision: Revision) -> Result<CurrentSettings, CatalogError> {
        match self.registry().transaction(revision).await {
            Ok(changes) => match changes.iter().find(|record| record.key == SETTINGS_KEY) {
                Some(found) => Ok((revision, decode(found)?)),
                None => self.current_settings().await,
            },
            Err(RegistryError::TooOld { .. }) => self.current_settings().await,
            Err(error) => Err(error.into()),
        }
    }
}
