//! What a refusal tells: code, reason, details, text; each as the contract and the house rules say.

use std::collections::BTreeMap;

use lockstep_chassis::status;
use lockstep_model::{Kind, Reason};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

/// Keys of the metadata that are not part of the text.
const BESIDE_THE_TEXT: [&str; 2] = ["advice", "trace_id"];

/// A refusal that keeps the rules that every refusal keeps.
#[derive(Debug)]
pub(crate) struct Refusal {
    what: String,
    message: String,
    metadata: BTreeMap<String, String>,
    details: ErrorDetails,
}

/// The refusal of `answer`, with its code, its reason and the details that belong to the reason.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>, reason: Reason) -> Refusal {
    let told = match answer {
        Ok(answer) => panic!("{what}: expected {reason}, got {answer:?}"),
        Err(told) => told,
    };
    let details = told.get_error_details();
    let info =
        details.error_info().unwrap_or_else(|| panic!("{what}: expected {reason}, no ErrorInfo in {told:?}"));
    assert_eq!(info.reason, reason.as_str(), "{what}: {told:?}");
    assert_eq!(told.code(), status::code(reason.kind()), "{what}: {told:?}");
    assert_eq!(info.domain, "lockstep", "{what}: {told:?}");
    let metadata: BTreeMap<String, String> = info.metadata.clone().into_iter().collect();
    assert_eq!(metadata.get("advice").map(String::as_str), Some(reason.advice()), "{what}: {told:?}");
    let message = told.message().to_owned();
    assert!(
        message.len() >= 8 && (!message.ends_with('.') || message.ends_with("..")),
        "{what}: no sentence: {message:?}"
    );

    let violations =
        details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
    if matches!(reason, Reason::FieldViolation | Reason::PathInvalid) {
        assert!(!violations.is_empty(), "{what}: no BadRequest in {told:?}");
        assert!(violations.iter().all(|violation| !violation.description.is_empty()), "{what}: {told:?}");
    }
    if matches!(reason.kind(), Kind::NotFound | Kind::Exists) {
        let resource =
            details.resource_info().unwrap_or_else(|| panic!("{what}: no ResourceInfo in {told:?}"));
        assert!(!resource.resource_type.is_empty() && !resource.resource_name.is_empty(), "{what}: {told:?}");
    }
    if reason.kind() == Kind::State {
        assert!(details.precondition_failure().is_some(), "{what}: no PreconditionFailure in {told:?}");
    }
    if matches!(
        reason,
        Reason::DiskFull | Reason::Overloaded | Reason::RegistryUnavailable | Reason::StoreReadOnly
    ) {
        let wait = details.retry_info().and_then(|info| info.retry_delay);
        assert!(wait.is_some(), "{what}: no RetryInfo in {told:?}");
    }
    assert!(details.debug_info().is_none(), "{what}: {told:?}");
    for (key, value) in metadata.iter().filter(|(key, _)| !BESIDE_THE_TEXT.contains(&key.as_str())) {
        assert!(
            message.contains(value.as_str()),
            "{what}: the text does not show {key} = {value}: {message:?}"
        );
    }
    Refusal { what: what.to_owned(), message, metadata, details }
}

impl Refusal {
    /// It has these keys in its metadata, with a value each.
    #[track_caller]
    pub(crate) fn with(self, keys: &[&str]) -> Self {
        for key in keys {
            let value =
                self.metadata.get(*key).unwrap_or_else(|| panic!("{}: no {key} in {self:?}", self.what));
            assert!(!value.is_empty(), "{}: {key} is empty in {self:?}", self.what);
        }
        self
    }

    /// Its text has these parts.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.message.contains(part), "{}: {part:?} is not in {:?}", self.what, self.message);
        }
        self
    }

    /// The value of a key.
    #[track_caller]
    pub(crate) fn value(&self, key: &str) -> &str {
        self.metadata.get(key).unwrap_or_else(|| panic!("{}: no {key} in {self:?}", self.what))
    }

    /// The name of what is missing or in the way.
    pub(crate) fn resource(&self) -> &str {
        self.details.resource_info().map_or("", |resource| resource.resource_name.as_str())
    }

    /// The fields that are wrong, each with what is wrong with it.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let violations = self.details.bad_request().map(|request| request.field_violations.clone());
        let pair = |violation: tonic_types::FieldViolation| (violation.field, violation.description);
        violations.unwrap_or_default().into_iter().map(pair).collect()
    }

    /// These fields are wrong, and no other.
    #[track_caller]
    pub(crate) fn blames(self, fields: &[&str]) -> Self {
        let blamed: Vec<String> = self.fields().into_iter().map(|(field, _)| field).collect();
        assert_eq!(blamed, fields, "{}: {self:?}", self.what);
        self
    }
}
