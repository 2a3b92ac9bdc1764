//! Where a registry is, as a setting says it.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{error::RegistryError, sqlite::SqliteRegistry};

/// `sqlite:` and the path of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(PathBuf);

/// The text names no registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected sqlite:/path/to/registry.sqlite")]
pub struct InvalidLocation;

impl Location {
    /// Opens the registry, or makes it where there is none.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] with the file and the cause.
    pub fn open(&self) -> Result<SqliteRegistry, RegistryError> {
        SqliteRegistry::open(&self.0)
    }
}

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let path = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()).ok_or(InvalidLocation)?;
        Ok(Self(PathBuf::from(path)))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.0.display())
    }
}
