//! What a call failed with, as its caller sees it, and as one result within an answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use lockstep_model::{Fault, Kind, Metadata, Reason, Violation};
use lockstep_proto::shared::v1 as wire;
use tonic::Code;

/// A failure that was read from a status or a message, or is about to become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The stable reason; it determines the kind.
    pub reason: Reason,
    /// One sentence for a person.
    pub message: String,
    /// What a person can do.
    pub advice: String,
    /// The values that the text shows.
    pub metadata: BTreeMap<String, String>,
    /// How long to wait, where waiting helps.
    pub retry_after: Option<Duration>,
    /// The fields that are wrong.
    pub violations: Vec<Violation>,
    /// What kind of thing is missing or in the way, and its name.
    pub resource: Option<(String, String)>,
}

impl Failure {
    /// A failure with the usual advice of its reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            advice: reason.advice().to_owned(),
            metadata: BTreeMap::new(),
            retry_after: None,
            violations: Vec::new(),
            resource: None,
        }
    }

    /// The same as the caller of `fault` would read.
    pub fn of(fault: &dyn Fault) -> Self {
        let mut failure = Self::new(fault.reason(), fault.to_string());
        failure.metadata = fault.metadata().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        failure.retry_after = fault.retry_after();
        failure.violations = fault.violations();
        failure.resource = fault.resource().map(|(kind, name)| (kind.to_owned(), name));
        failure
    }

    /// What the caller has to do.
    pub fn kind(&self) -> Kind {
        self.reason.kind()
    }

    /// As one result within an answer.
    pub fn into_wire(self) -> wire::Failure {
        wire::Failure {
            reason: self.reason.as_str().to_owned(),
            message: self.message,
            advice: self.advice,
            retry_delay: self.retry_after.and_then(|wait| wait.try_into().ok()),
        }
    }

    /// From one result within an answer. A reason that this version does not know is read as a defect of the peer,
    /// and kept in the metadata.
    pub fn from_wire(failure: wire::Failure) -> Self {
        let reason = Reason::parse(&failure.reason);
        let mut read = Self::new(reason.unwrap_or(Reason::Internal), failure.message);
        if reason.is_none() {
            read.metadata.insert("reason".to_owned(), failure.reason);
        }
        read.advice = failure.advice;
        read.retry_after = failure.retry_delay.and_then(|wait| wait.try_into().ok());
        read
    }
}

impl Fault for Failure {
    fn reason(&self) -> Reason {
        self.reason
    }

    fn metadata(&self) -> Metadata {
        self.metadata.iter().filter_map(|(key, value)| Some((known_key(key)?, value.clone()))).collect()
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn violations(&self) -> Vec<Violation> {
        self.violations.clone()
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        self.resource.as_ref().and_then(|(kind, name)| Some((known_key(kind)?, name.clone())))
    }
}

/// How many different keys are remembered, and how long one may be: the contract has a few dozen short ones.
const KEYS_MAX: usize = 256;
const KEY_BYTES_MAX: usize = 32;

/// The words of metadata are static in the vocabulary; those that came over the wire are remembered here, within
/// bounds, so that a failure can be passed on with all its values.
fn known_key(key: &str) -> Option<&'static str> {
    static KEYS: LazyLock<Mutex<BTreeSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = keys.get(key) {
        return Some(known);
    }
    if keys.len() >= KEYS_MAX || key.len() > KEY_BYTES_MAX {
        return None;
    }
    let kept: &'static str = Box::leak(key.to_owned().into_boxed_str());
    keys.insert(kept);
    Some(kept)
}

/// The least wrong reason of a code that came without one. It is of the kind of the code wherever a kind has one
/// that claims nothing more.
pub(crate) const fn fallback_reason(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::FieldViolation,
        Code::Unauthenticated => Reason::IdentityUnknown,
        Code::PermissionDenied => Reason::PermissionDenied,
        Code::NotFound => Reason::ContentNotFound,
        Code::AlreadyExists => Reason::FileExists,
        Code::FailedPrecondition => Reason::ServerNotEligible,
        Code::OutOfRange => Reason::SizeLimitExceeded,
        Code::Aborted => Reason::ContentChanged,
        Code::ResourceExhausted => Reason::Overloaded,
        Code::Unavailable => Reason::PeerUnreachable,
        Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExpired,
        Code::Unimplemented => Reason::Unimplemented,
        Code::DataLoss => Reason::StoredContentCorrupt,
        Code::Ok | Code::Unknown | Code::Internal => Reason::Internal,
    }
}
