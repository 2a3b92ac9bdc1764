//! Why the resolver does not answer.

use std::time::Duration;

use lockstep_model::{Fault, FilePath, FirmwareId, Metadata, Reason, Revision, ServerId};
use lockstep_registry::RegistryError;

use crate::domain::progress::Progress;

/// How long to wait at least, and at most, before asking again for what nobody holds yet.
const RETRY_LEAST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// The same while nobody can tell how long it takes.
const RETRY_UNKNOWN: Duration = Duration::from_secs(5);

/// Why no connection data is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The registry was not read yet.
    #[error("the registry was not read yet, so nothing is known of files and servers")]
    Unread,
    /// A record cannot be read.
    #[error("the record {key} cannot be read by this version")]
    Unreadable {
        /// Its key.
        key: String,
    },
    /// The current server never announced itself, or was forgotten.
    #[error("no server {server} has announced itself")]
    UnknownServer {
        /// Its id.
        server: ServerId,
    },
    /// No file is registered at the path.
    #[error("no file is registered at {path}")]
    FileNotFound {
        /// The path.
        path: FilePath,
    },
    /// There is no such update.
    #[error("there is no firmware update {id}")]
    FirmwareNotFound {
        /// Its id.
        id: FirmwareId,
    },
    /// No server can be offered (R51).
    #[error("{subject} cannot be offered yet: {progress}")]
    NotYet {
        /// For a person: the file or the update.
        subject: String,
        /// What is known.
        progress: Box<Progress>,
    },
    /// The password cannot be opened here.
    #[error("{subject} cannot be offered here: its password cannot be opened: {cause}")]
    Sealed {
        /// For a person: the update.
        subject: String,
        /// Why.
        cause: String,
    },
}

impl Fault for ResolveError {
    fn reason(&self) -> Reason {
        match self {
            Self::Unread | Self::Unreadable { .. } => Reason::RegistryUnavailable,
            Self::UnknownServer { .. } => Reason::ServerUnknown,
            Self::FileNotFound { .. } => Reason::FileNotFound,
            Self::FirmwareNotFound { .. } => Reason::FirmwareNotFound,
            Self::NotYet { .. } | Self::Sealed { .. } => Reason::NotAvailableYet,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::UnknownServer { server } => vec![("server_id", server.to_string())],
            Self::FileNotFound { path } => vec![("path", path.to_string())],
            Self::FirmwareNotFound { id } => vec![("firmware_id", id.to_string())],
            Self::NotYet { progress, .. } => progress.metadata(),
            Self::Unread | Self::Unreadable { .. } | Self::Sealed { .. } => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unread | Self::Unreadable { .. } => Some(RETRY_LEAST),
            Self::NotYet { progress, .. } => {
                Some(progress.time_left.map_or(RETRY_UNKNOWN, |left| left.clamp(RETRY_LEAST, RETRY_MOST)))
            }
            _ => None,
        }
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        match self {
            Self::UnknownServer { server } => Some(("server", server.to_string())),
            Self::FileNotFound { path } => Some(("file", path.to_string())),
            Self::FirmwareNotFound { id } => Some(("firmware update", id.to_string())),
            _ => None,
        }
    }
}

/// Why what people say of a server is not changed, or not listed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServerError {
    /// The registry was not read yet.
    #[error("the registry was not read yet, so nothing is known of servers")]
    Unread,
    /// The server never announced itself, or was forgotten.
    #[error("no server {server} has announced itself")]
    Unknown {
        /// Its id.
        server: ServerId,
    },
    /// Somebody changed it since.
    #[error("what is said of {server} is at revision {actual}, not {expected}")]
    RevisionChanged {
        /// The server.
        server: ServerId,
        /// What the caller saw.
        expected: Revision,
        /// What is there.
        actual: Revision,
    },
    /// It was changed, but this resolver has not read so far.
    #[error("{server} was changed at revision {revision}, which this resolver has not read yet")]
    NotSeen {
        /// The server.
        server: ServerId,
        /// The revision of the change.
        revision: Revision,
    },
    /// A record cannot be read.
    #[error("the record {key} cannot be read by this version")]
    Unreadable {
        /// Its key.
        key: String,
    },
    /// The registry does not answer.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Fault for ServerError {
    fn reason(&self) -> Reason {
        match self {
            Self::Unread | Self::NotSeen { .. } | Self::Unreadable { .. } => Reason::RegistryUnavailable,
            Self::Unknown { .. } => Reason::ServerUnknown,
            Self::RevisionChanged { .. } => Reason::RevisionChanged,
            Self::Registry(error) => error.reason(),
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::Unknown { server } => vec![("server_id", server.to_string())],
            Self::RevisionChanged { server, expected, actual } => vec![
                ("server_id", server.to_string()),
                ("expected_revision", expected.to_string()),
                ("actual_revision", actual.to_string()),
            ],
            Self::Registry(error) => error.metadata(),
            Self::Unread | Self::NotSeen { .. } | Self::Unreadable { .. } => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unread | Self::NotSeen { .. } | Self::Unreadable { .. } => Some(RETRY_LEAST),
            Self::Registry(error) => error.retry_after(),
            _ => None,
        }
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Unknown { server } => Some(("server", server.to_string())),
            Self::Registry(error) => error.resource(),
            _ => None,
        }
    }
}
