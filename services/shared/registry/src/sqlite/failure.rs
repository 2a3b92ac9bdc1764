//! What can go wrong in a statement, until the worker knows what to tell the caller.

use crate::RegistryError;

/// An answer that is an error, or a database that gave none.
#[derive(Debug)]
pub(super) enum Failure {
    Answer(RegistryError),
    Database(rusqlite::Error),
}

impl Failure {
    /// Whether another process holds a lock.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Database(error) if is_busy(error))
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Answer(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}
