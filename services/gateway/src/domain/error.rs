//! Why the matrix and the runs do not answer.

use std::time::Duration;

use lockstep_model::{Fault, FirmwareId, Metadata, Reason, ServerId};
use lockstep_registry::RegistryError;

use crate::domain::view::Expired;

/// Why the matrix does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// The registry was not read yet.
    #[error("the registry was not read yet, so nothing is known of files and servers")]
    Unread,
    /// The registry does not tell what is asked.
    #[error("the registry does not tell it: {cause}")]
    Unavailable {
        /// Why.
        cause: String,
    },
    /// The token is from another life of the gateway or another call, or what came after it is forgotten.
    #[error("the watch cannot go on from this token")]
    Expired,
    /// There is no such firmware update.
    #[error("no firmware update {firmware}")]
    UnknownFirmware {
        /// Its id.
        firmware: FirmwareId,
    },
    /// A filter names a server that never announced itself.
    #[error("no server {server} has announced itself")]
    UnknownServer {
        /// Its id.
        server: ServerId,
    },
}

impl Fault for MatrixError {
    fn reason(&self) -> Reason {
        match self {
            Self::Unread | Self::Unavailable { .. } => Reason::RegistryUnavailable,
            Self::Expired => Reason::ResumeTokenExpired,
            Self::UnknownFirmware { .. } => Reason::FirmwareNotFound,
            Self::UnknownServer { .. } => Reason::ServerUnknown,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::UnknownFirmware { firmware } => vec![("firmware_id", firmware.to_string())],
            Self::UnknownServer { server } => vec![("server_id", server.to_string())],
            _ => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Unread | Self::Unavailable { .. }).then_some(Duration::from_secs(1))
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        match self {
            Self::UnknownFirmware { firmware } => Some(("firmware update", firmware.to_string())),
            Self::UnknownServer { server } => Some(("server", server.to_string())),
            _ => None,
        }
    }
}

impl From<Expired> for MatrixError {
    fn from(_: Expired) -> Self {
        Self::Expired
    }
}

/// Why a run is not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// It is not kept.
    #[error("no sync run {run_id} is kept")]
    NotFound {
        /// Its name.
        run_id: String,
    },
    /// The view does not answer.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// The registry does not.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Fault for RunError {
    fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } => Reason::SyncRunNotFound,
            Self::Matrix(error) => error.reason(),
            Self::Registry(error) => error.reason(),
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::NotFound { run_id } => vec![("run_id", run_id.clone())],
            Self::Matrix(error) => error.metadata(),
            Self::Registry(error) => error.metadata(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotFound { .. } => None,
            Self::Matrix(error) => error.retry_after(),
            Self::Registry(error) => error.retry_after(),
        }
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        match self {
            Self::NotFound { run_id } => Some(("sync run", run_id.clone())),
            Self::Matrix(error) => error.resource(),
            Self::Registry(error) => error.resource(),
        }
    }
}
