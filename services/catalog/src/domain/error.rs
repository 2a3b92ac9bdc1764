//! Why the catalog does not do what it was asked.

use std::time::Duration;

use lockstep_model::{
    Fault, FilePath, FirmwareId, Metadata, Reason, Revision, ServerId, Violation, firmware::FirmwareState,
};
use lockstep_registry::RegistryError;

use crate::{
    domain::life::word,
    ports::{ArchiveInvalid, VendorError},
};

/// What another service answered instead of doing what it was asked, as data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// One sentence: what, where and why.
    pub message: String,
    /// The values that the text shows.
    pub metadata: Metadata,
    /// How long to wait, where waiting helps.
    pub retry_after: Option<Duration>,
    /// The fields that are wrong.
    pub violations: Vec<Violation>,
    /// What kind of thing is missing or in the way, and its name. Boxed, so that results stay small.
    pub resource: Option<Box<(&'static str, String)>>,
}

impl Refusal {
    /// Without further values.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: Vec::new(),
            retry_after: None,
            violations: Vec::new(),
            resource: None,
        }
    }

    /// What `fault` tells, with another text around its own.
    pub fn of(fault: &dyn Fault, message: impl Into<String>) -> Self {
        Self {
            reason: fault.reason(),
            message: message.into(),
            metadata: fault.metadata(),
            retry_after: fault.retry_after(),
            violations: fault.violations(),
            resource: fault.resource().map(Box::new),
        }
    }

    /// One field that is wrong.
    pub fn field(field: &str, description: impl Into<String>) -> Self {
        let description = description.into();
        let message = format!("{field}: {description}");
        let violations = vec![Violation { field: field.to_owned(), description }];
        Self { violations, ..Self::new(Reason::FieldViolation, message) }
    }
}

impl Fault for Refusal {
    fn reason(&self) -> Reason {
        self.reason
    }

    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn violations(&self) -> Vec<Violation> {
        self.violations.clone()
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        self.resource.as_deref().cloned()
    }
}

/// A call that was refused or failed. Unless it is [`CatalogError::Registry`] from a commit, nothing happened.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CatalogError {
    /// No such update.
    #[error("no firmware update {firmware_id}")]
    NotFound {
        /// What was asked for.
        firmware_id: FirmwareId,
    },
    /// The source does not offer it.
    #[error("the source {source_id} offers no {offer_id}")]
    OfferNotFound {
        /// The source.
        source_id: String,
        /// The offer.
        offer_id: String,
    },
    /// The offer was taken already.
    #[error("the firmware update {firmware_id} was made of {offer_id} of {source_id} already")]
    Exists {
        /// The update.
        firmware_id: FirmwareId,
        /// The source.
        source_id: String,
        /// The offer.
        offer_id: String,
    },
    /// Not possible in this part of its life.
    #[error("the firmware update {firmware_id} is {}: {rule}", word(*.state))]
    Busy {
        /// The update.
        firmware_id: FirmwareId,
        /// Where it is in its life.
        state: FirmwareState,
        /// What is possible when.
        rule: &'static str,
    },
    /// No such server.
    #[error("no server {server} has announced itself")]
    ServerUnknown {
        /// Its id.
        server: ServerId,
    },
    /// The server takes no part.
    #[error("the server {server} takes no part in synchronisation: {reason}")]
    ServerNotEligible {
        /// Its id.
        server: ServerId,
        /// `STANDALONE` or `UNSUPPORTED_VERSION`.
        reason: Reason,
    },
    /// It changed since it was read.
    #[error("{what} is at revision {actual}, not {expected}")]
    RevisionChanged {
        /// What.
        what: String,
        /// What the caller saw.
        expected: Revision,
        /// What is there.
        actual: Revision,
    },
    /// The updates that would be deleted are others than the caller saw.
    #[error("{actual} unused firmware updates would be deleted, not {expected}")]
    CountChanged {
        /// What the caller saw.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// A path of the update is registered already.
    #[error("{path} is registered already, by {origin} with revision {revision}")]
    FileExists {
        /// The path.
        path: FilePath,
        /// The revision of the file.
        revision: Revision,
        /// The server it was registered on.
        origin: ServerId,
    },
    /// Some server could not tell a path of the update from one that is registered.
    #[error("{path} cannot be told from {taken}, which is registered")]
    PathConflict {
        /// The path.
        path: FilePath,
        /// What is in the way.
        taken: String,
    },
    /// More than the documented limit.
    #[error("{what}: at most {limit} are possible, these are {actual}")]
    TooLarge {
        /// What, with the unit.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What was asked.
        actual: u64,
    },
    /// Fields that are wrong, seen with what is known beyond the request.
    #[error("{}", .0.iter().map(|v| format!("{}: {}", v.field, v.description)).collect::<Vec<_>>().join("; "))]
    Fields(Vec<Violation>),
    /// Names that cannot be stored on every server.
    #[error("{}", .0.iter().map(|v| format!("{}: {}", v.field, v.description)).collect::<Vec<_>>().join("; "))]
    Names(Vec<Violation>),
    /// The vendor.
    #[error(transparent)]
    Vendor(#[from] VendorError),
    /// The archive that is imported.
    #[error(transparent)]
    Archive(#[from] ArchiveInvalid),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The server that takes the files, or another one that was asked.
    #[error(transparent)]
    Server(#[from] Refusal),
    /// A record that this program cannot read.
    #[error("the record {key} cannot be read: {cause}")]
    Unreadable {
        /// Its key.
        key: String,
        /// Why.
        cause: String,
    },
    /// The process is about to stop.
    #[error("the catalog is about to stop")]
    Draining,
}

impl CatalogError {
    /// One field that is wrong.
    pub fn field(field: &str, description: impl Into<String>) -> Self {
        Self::Fields(vec![Violation { field: field.to_owned(), description: description.into() }])
    }
}

impl Fault for CatalogError {
    fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } | Self::OfferNotFound { .. } => Reason::FirmwareNotFound,
            Self::Exists { .. } => Reason::FirmwareExists,
            Self::Busy { .. } => Reason::FirmwareBusy,
            Self::ServerUnknown { .. } => Reason::ServerUnknown,
            Self::ServerNotEligible { .. } => Reason::ServerNotEligible,
            Self::RevisionChanged { .. } | Self::CountChanged { .. } => Reason::RevisionChanged,
            Self::FileExists { .. } => Reason::FileExists,
            Self::PathConflict { .. } => Reason::PathConflict,
            Self::TooLarge { .. } => Reason::SizeLimitExceeded,
            Self::Fields(_) => Reason::FieldViolation,
            Self::Names(_) => Reason::PathInvalid,
            Self::Vendor(error) => error.reason(),
            Self::Archive(error) => error.reason(),
            Self::Registry(error) => error.reason(),
            Self::Server(error) => error.reason(),
            Self::Unreadable { .. } => Reason::Internal,
            Self::Draining => Reason::Draining,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::NotFound { firmware_id } => vec![("firmware_id", firmware_id.to_string())],
            Self::OfferNotFound { source_id, offer_id } => {
                vec![("source_id", source_id.clone()), ("offer_id", offer_id.clone())]
            }
            Self::Exists { firmware_id, source_id, offer_id } => vec![
                ("firmware_id", firmware_id.to_string()),
                ("source_id", source_id.clone()),
                ("offer_id", offer_id.clone()),
            ],
            Self::Busy { firmware_id, state, .. } => {
                vec![("firmware_id", firmware_id.to_string()), ("state", word(*state).to_owned())]
            }
            Self::ServerUnknown { server } => vec![("server_id", server.to_string())],
            Self::ServerNotEligible { server, reason } => {
                vec![("server_id", server.to_string()), ("cause", reason.to_string())]
            }
            Self::RevisionChanged { expected, actual, .. } => {
                vec![("expected_revision", expected.to_string()), ("actual_revision", actual.to_string())]
            }
            Self::CountChanged { expected, actual } => {
                vec![("expected_count", expected.to_string()), ("actual_count", actual.to_string())]
            }
            Self::FileExists { path, revision, origin } => vec![
                ("path", path.to_string()),
                ("revision", revision.to_string()),
                ("origin_server_id", origin.to_string()),
            ],
            Self::PathConflict { path, taken } => {
                vec![("path", path.to_string()), ("taken", taken.clone())]
            }
            Self::TooLarge { what, limit, actual } => vec![
                ("what", (*what).to_owned()),
                ("limit", limit.to_string()),
                ("actual", actual.to_string()),
            ],
            Self::Vendor(error) => error.metadata(),
            Self::Archive(error) => error.metadata(),
            Self::Registry(error) => error.metadata(),
            Self::Server(error) => error.metadata(),
            Self::Fields(_) | Self::Names(_) | Self::Unreadable { .. } | Self::Draining => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Vendor(error) => error.retry_after(),
            Self::Registry(error) => error.retry_after(),
            Self::Server(error) => error.retry_after(),
            _ => None,
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Fields(violations) | Self::Names(violations) => violations.clone(),
            Self::Server(error) => error.violations(),
            _ => Vec::new(),
        }
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        match self {
            Self::NotFound { firmware_id }
            | Self::Exists { firmware_id, .. }
            | Self::Busy { firmware_id, .. } => Some(("firmware", firmware_id.to_string())),
            Self::OfferNotFound { source_id, offer_id } => Some(("offer", format!("{source_id}/{offer_id}"))),
            Self::ServerUnknown { server } | Self::ServerNotEligible { server, .. } => {
                Some(("server", server.to_string()))
            }
            Self::Vendor(VendorError::SourceUnknown { source_id }) => Some(("source", source_id.clone())),
            Self::Vendor(error) => error.resource(),
            Self::Archive(error) => error.resource(),
            Self::Server(error) => error.resource(),
            Self::FileExists { path, .. } | Self::PathConflict { path, .. } => {
                Some(("file", path.to_string()))
            }
            _ => None,
        }
    }
}
