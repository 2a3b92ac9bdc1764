//! Record bodies and registry errors, as the engine reads and writes them.

use lockstep_model::record::FileRecord;
use lockstep_registry::{Record, RegistryError};

use crate::domain::error::FileError;

/// A reused request id, in the words of files.
pub(super) fn named(error: RegistryError, request_id: &str) -> FileError {
    match error {
        RegistryError::RequestReused { .. } => FileError::RequestReused { request_id: request_id.to_owned() },
        other => other.into(),
    }
}

/// The body of a file record.
pub(crate) fn decode(record: &Record) -> Result<FileRecord, FileError> {
    decode_json(record)
}

pub(super) fn decode_json<T: serde::de::DeserializeOwned>(record: &Record) -> Result<T, FileError> {
    serde_json::from_str(&record.body).map_err(|error| {
        let cause =
            format!("the record {} at revision {} cannot be read: {error}", record.key, record.revision);
        RegistryError::Unavailable { cause }.into()
    })
}

/// What [`encode`] made and the index kept.
pub(super) fn decode_text<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, FileError> {
    serde_json::from_str(text).map_err(|error| {
        RegistryError::Unavailable { cause: format!("an answer that was kept cannot be read: {error}") }
            .into()
    })
}

pub(super) fn encode(body: &impl serde::Serialize) -> Result<String, FileError> {
    serde_json::to_string(body).map_err(|error| {
        RegistryError::Unavailable { cause: format!("a record cannot be written: {error}") }.into()
    })
}
