//! The only place that builds a status, and the place that reads one.
//!
//! ```text
//! Fault ──of──▶ Status + ErrorInfo, BadRequest, ResourceInfo, PreconditionFailure, RetryInfo ──read──▶ Failure
//! ```

#![allow(clippy::disallowed_methods, reason = "this is the one place that builds a status")]

use std::{collections::HashMap, error::Error};

use http::{HeaderMap, header::CONTENT_TYPE};
use lockstep_model::{Fault, Kind, Reason};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

pub use crate::failure::Failure;
use crate::{details, failure::fallback_reason, text::cut};

/// The domain of every reason.
pub const DOMAIN: &str = "lockstep";

/// The longest message. A status travels in headers, which both ends bound.
const MESSAGE_BYTES_MAX: usize = 2_048;
/// The longest value in the metadata of a reason: a whole path fits.
const VALUE_BYTES_MAX: usize = 4_096;
/// The bytes of metadata and violations together; with base64 they stay below the 64 KiB our clients accept.
const DETAILS_BYTES_MAX: usize = 24 * 1_024;
/// The metadata keys that the chassis itself sets.
const ADVICE: &str = "advice";
const TRACE_ID: &str = "trace_id";

/// The gRPC code of a kind.
pub const fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Denied => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::State => Code::FailedPrecondition,
        Kind::Range => Code::OutOfRange,
        Kind::Conflict => Code::Aborted,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Late => Code::DeadlineExceeded,
        Kind::Unbuilt => Code::Unimplemented,
        Kind::Corrupt => Code::DataLoss,
        Kind::Bug => Code::Internal,
    }
}

/// Makes the status that tells `fault` to a caller.
///
/// A defect is told without its detail, which is logged here, once, with the trace id that the caller gets.
pub fn of(fault: &dyn Fault) -> Status {
    let reason = fault.reason();
    let mut room = DETAILS_BYTES_MAX;
    let mut metadata = HashMap::new();
    metadata.insert(ADVICE.to_owned(), reason.advice().to_owned());
    let message = if reason.kind() == Kind::Bug {
        let trace_id = crate::trace::trace_id();
        tracing::error!(error = %chain(fault), trace_id, "internal error");
        metadata.insert(TRACE_ID.to_owned(), trace_id);
        "internal error, the detail is in the log of the server".to_owned()
    } else {
        for (key, value) in fault.metadata() {
            let value = cut(&value, VALUE_BYTES_MAX.min(room));
            room -= value.len();
            metadata.insert(key.to_owned(), value);
        }
        cut(&fault.to_string(), MESSAGE_BYTES_MAX)
    };
    let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    let mut violations = Vec::new();
    for violation in fault.violations() {
        let bytes = violation.field.len() + violation.description.len() + 16;
        if bytes > room {
            break; // the rest is told once these are corrected
        }
        room -= bytes;
        violations.push(FieldViolation::new(violation.field, violation.description));
    }
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    if let Some((kind, name)) = fault.resource() {
        details.set_resource_info(kind, cut(&name, VALUE_BYTES_MAX), "", cut(&message, VALUE_BYTES_MAX));
    }
    if reason.kind() == Kind::State {
        let subject = fault.resource().map_or_else(String::new, |(_, name)| cut(&name, VALUE_BYTES_MAX));
        details.add_precondition_failure_violation(
            reason.as_str(),
            subject,
            cut(&message, MESSAGE_BYTES_MAX),
        );
    }
    if let Some(wait) = fault.retry_after() {
        details.set_retry_info(Some(wait));
    }
    let status = Status::with_error_details(code(reason.kind()), message, details);
    Status::with_details(status.code(), status.message(), details::ordered(status.details()))
}

/// An error and its sources in one line.
fn chain(fault: &dyn Fault) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// `?` for faults in handlers.
pub trait OrStatus<T> {
    /// The value, or the status that tells the fault.
    ///
    /// # Errors
    /// The status of the fault.
    #[allow(clippy::result_large_err, reason = "the type that tonic wants")]
    fn or_status(self) -> Result<T, Status>;
}

impl<T, E: Fault> OrStatus<T> for Result<T, E> {
    fn or_status(self) -> Result<T, Status> {
        self.map_err(|fault| of(&fault))
    }
}

/// Reads what a call failed with. A status that carries no reason of ours was made by the transport or by another
/// program; then the code decides, and a broken connection is [`Reason::PeerUnreachable`].
pub fn read(status: &Status) -> Failure {
    let mut failure = Failure::new(fallback(status), status.message().to_owned());
    let details = status.get_error_details();
    if let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) {
        failure.metadata = info.metadata.clone().into_iter().collect();
        match Reason::parse(&info.reason) {
            Some(reason) => failure.reason = reason,
            // A newer peer: the kind is known from the code, the word is kept for people.
            None => {
                failure.reason = fallback_reason(status.code());
                failure.metadata.insert("reason".to_owned(), info.reason.clone());
            }
        }
        failure.advice =
            failure.metadata.remove(ADVICE).unwrap_or_else(|| failure.reason.advice().to_owned());
    }
    if let Some(request) = details.bad_request() {
        let violation = |v: &FieldViolation| lockstep_model::Violation {
            field: v.field.clone(),
            description: v.description.clone(),
        };
        failure.violations = request.field_violations.iter().map(violation).collect();
    }
    if let Some(resource) = details.resource_info() {
        failure.resource = Some((resource.resource_type.clone(), resource.resource_name.clone()));
    }
    if is_transport(failure.message.as_str()) {
        // What its layers say of it helps nobody who reads this at night; it is kept for who looks closer.
        let cause = std::mem::replace(&mut failure.message, "the connection broke".to_owned());
        failure.metadata.insert("cause".to_owned(), cause);
    }
    failure.retry_after = details.retry_info().and_then(|info| info.retry_delay);
    failure
}

/// Whether this is what the transport says of a connection that ended in the middle of something.
fn is_transport(message: &str) -> bool {
    message.contains("h2 protocol error") || message == "transport error"
}

/// The reason of a status that names none.
fn fallback(status: &Status) -> Reason {
    let mut source = status.source();
    let mut transport = is_transport(status.message());
    while let Some(error) = source {
        if error.is::<tonic::TimeoutExpired>() {
            return Reason::DeadlineExpired;
        }
        transport |= error.is::<tonic::transport::Error>() || error.is::<hyper::Error>();
        transport |= error.is::<std::io::Error>() || error.is::<tonic::ConnectError>();
        source = error.source();
    }
    match status.code() {
        Code::Unknown | Code::Internal | Code::Cancelled if transport => Reason::PeerUnreachable,
        code => fallback_reason(code),
    }
}

/// The key of what was wrong with the certificate of a peer that could not be reached.
pub const CERTIFICATE_KEY: &str = "certificate";
/// The certificate of the peer is not valid now, by the wall clock of this process.
pub const OUT_OF_DATE: &str = "out_of_date";

/// The status of a call that failed before it reached a peer, or on the way.
pub(crate) fn unreachable(peer: &str, error: &(dyn Error + 'static)) -> Status {
    let mut source = Some(error);
    while let Some(cause) = source {
        if cause.is::<tonic::TimeoutExpired>() {
            return of(&crate::deadline::Expired);
        }
        source = cause.source();
    }
    let message = format!("{peer} cannot be reached: {}", describe(error));
    let mut failure = Failure::new(Reason::PeerUnreachable, message);
    failure.metadata.insert("peer".to_owned(), peer.to_owned());
    if crate::dial::is_out_of_date(error) {
        failure.metadata.insert(CERTIFICATE_KEY.to_owned(), OUT_OF_DATE.to_owned());
    }
    of(&failure)
}

/// The innermost cause says most; the layers of the transport above it all say "transport error".
fn describe(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The answer of `grpc.health.v1` for a name that is not served. It is another protocol, so there is no reason.
pub(crate) fn health_unknown(service: &str) -> Status {
    Status::not_found(format!("no service {}", cut(service, 256)))
}

/// The status in the headers of an answer or in its trailers; `None` if they carry none.
pub(crate) fn in_headers(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

/// Gives a status that tonic itself made on the server the reason it lacks; `None` if nothing needs to be changed.
pub(crate) fn complete(status: &Status) -> Option<Status> {
    if status.code() == Code::Ok || !status.details().is_empty() {
        return None;
    }
    let message = status.message();
    let reason = match status.code() {
        Code::Internal if is_broken_request(message) => Reason::FieldViolation,
        Code::OutOfRange if message.contains("message length too large") => Reason::SizeLimitExceeded,
        Code::ResourceExhausted => Reason::Overloaded,
        Code::Unimplemented => Reason::Unimplemented,
        Code::Unknown | Code::Internal => Reason::Internal,
        Code::Cancelled => Reason::DeadlineExpired,
        _ => return None,
    };
    let mut failure = Failure::new(reason, message.to_owned());
    if reason == Reason::FieldViolation {
        failure.message = format!("the request cannot be decoded: {}", message.trim_end_matches('.'));
        failure.violations = vec![lockstep_model::Violation {
            field: String::new(),
            description: "must be a message of the contract".to_owned(),
        }];
    }
    Some(of(&failure))
}

/// What tonic's decoder says about a request that is no valid message.
fn is_broken_request(message: &str) -> bool {
    const DECODER: [&str; 4] =
        ["failed to decode Protobuf", "Missing request message", "Unexpected EOF decoding", "protocol error"];
    DECODER.iter().any(|text| message.contains(text))
}

/// A whole answer that carries nothing but a status.
pub(crate) fn response(status: &Status) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    // Both the message and the details are encoded to printable ASCII, so this cannot fail; without it the client
    // still gets a status from the missing one.
    let _ = status.add_header(response.headers_mut());
    response
}

/// The trailers that carry a status.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let _ = status.add_header(&mut trailers);
    trailers
}

/// The name of a code as in the specification, such as `NOT_FOUND`.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// tonic's reader panics on details that are no base64. Peers are authenticated, but a broken one must not take a task
/// of ours with it.
pub(crate) fn drop_broken_details(headers: &mut HeaderMap) {
    const DETAILS: &str = "grpc-status-details-bin";
    if headers.get(DETAILS).is_some_and(|value| !is_base64(value.as_bytes())) {
        headers.remove(DETAILS);
    }
}

/// Canonical base64, with or without padding.
fn is_base64(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let unused_bits = match digits.len() % 4 {
        0 => 0,
        2 => 0b1111,
        3 => 0b11,
        _ => return false,
    };
    let padded = padding == 0 || (padding <= 2 && text.len().is_multiple_of(4));
    let last = digits.last().and_then(|byte| value(*byte)).unwrap_or(0);
    padded && last & unused_bits == 0 && digits.iter().all(|byte| value(*byte).is_some())
}

#[cfg(test)]
mod tests;
