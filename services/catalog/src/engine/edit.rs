//! Editing an update (R53).

use lockstep_model::{
    FilePath, FirmwareId, Revision,
    firmware::{FirmwareState, firmware_key},
};

use super::{Ask, Engine, records::Update};
use crate::{
    domain::{
        edit::{Edit, Secret},
        error::CatalogError,
    },
    ports::Ports,
};

/// Which update, as the caller saw it, and what it should be.
#[derive(Clone, Debug)]
pub struct EditAsk {
    /// Which.
    pub id: FirmwareId,
    /// The revision that the caller saw.
    pub expected: Revision,
    /// What to change.
    pub edit: Edit,
}

impl<P: Ports> Engine<P> {
    /// Changes the fields that the edit names.
    ///
    /// # Errors
    /// As `UpdateFirmware` in the contract.
    pub async fn edit(&self, ask: Ask, wanted: EditAsk) -> Result<Update, CatalogError> {
        let EditAsk { id, expected, edit } = wanted;
        let request = ask.request(format!("edit {id} {expected} {}", edit.fingerprint()));
        if let Some(first) = self.remembered(&request, id).await? {
            return Ok(first);
        }
        let Update { revision, mut record, .. } = self.get(id).await?;
        if record.state == FirmwareState::Deleting
            || (edit.target.is_some() && record.state != FirmwareState::Published)
        {
            let rule = "what is deleted cannot be edited, and only files that are registered can be moved";
            return Err(CatalogError::Busy { firmware_id: id, state: record.state, rule });
        }
        if revision != expected {
            let what = format!("the firmware update {id}");
            return Err(CatalogError::RevisionChanged { what, expected, actual: revision });
        }
        let sealed = edit.password.as_ref().map(|secret| self.sealed(secret, id)).transpose()?;
        edit.apply(&mut record, sealed)?;
        if edit.target.is_some() {
            let new: Vec<&FilePath> = record.files.iter().filter_map(|file| file.new_path.as_ref()).collect();
            self.check_paths(new).await?;
        }
        let update = self.write(&ask, request, Some(revision), id, record).await?;
        self.inner.place_now.notify_one();
        Ok(update)
    }

    /// A password as it is stored: for this update only, by everybody who has the key.
    fn sealed(&self, secret: &Secret, id: FirmwareId) -> Result<String, CatalogError> {
        if secret.0.is_empty() {
            return Ok(String::new());
        }
        let key = self.inner.choices.key.as_ref().ok_or_else(|| {
            let rule =
                "cannot be stored: this catalog has no key for passwords; start it with --password-key";
            CatalogError::field("password", rule)
        })?;
        Ok(key.seal(&secret.0, &firmware_key(&id), self.entropy()))
    }
}
