use std::time::Duration;

use lockstep_model::{Metadata, Violation};

use super::*;

#[derive(Debug, thiserror::Error)]
#[error("{} went wrong with os/base image.img", .0)]
struct Any(Reason);

impl Fault for Any {
    fn reason(&self) -> Reason {
        self.0
    }

    fn metadata(&self) -> Metadata {
        vec![("path", "os/base image.img".to_owned()), ("expected_offset", "7".to_owned())]
    }

    fn retry_after(&self) -> Option<Duration> {
        (self.0.kind() == Kind::Exhausted).then_some(Duration::from_millis(1_500))
    }

    fn violations(&self) -> Vec<Violation> {
        let violation = Violation { field: "path".to_owned(), description: "must be short".to_owned() };
        if self.0.kind() == Kind::Invalid { vec![violation] } else { Vec::new() }
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        matches!(self.0.kind(), Kind::NotFound | Kind::Exists)
            .then(|| ("file", "os/base image.img".to_owned()))
    }
}

#[test]
fn every_reason_is_read_as_it_was_written() {
    for reason in Reason::ALL {
        let fault = Any(*reason);
        let status = of(&fault);
        assert_eq!(status.code(), code(reason.kind()), "{reason}");
        let headers = trailers(&status);
        let failure = read(&in_headers(&headers).expect("a status"));
        assert_eq!(failure.reason, *reason);
        if reason.kind() == Kind::Bug {
            assert!(!failure.message.contains("base image"), "a defect keeps its detail to itself");
            continue;
        }
        let mut written = Failure::of(&fault);
        assert_eq!(failure, written, "{reason}");
        // Passed on by somebody in between, nothing is lost.
        assert_eq!(read(&of(&failure)), failure);
        let wire = Failure::from_wire(failure.into_wire());
        written.metadata.clear();
        written.violations.clear();
        written.resource = None;
        assert_eq!(wire, written, "on the wire");
    }
}

#[test]
fn the_standard_details_are_there() {
    let details = |reason| of(&Any(reason)).get_error_details();
    let info = details(Reason::OffsetMismatch).error_info().cloned().expect("always there");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("lockstep", "OFFSET_MISMATCH"));
    assert_eq!(info.metadata["advice"], Reason::OffsetMismatch.advice());
    assert_eq!(details(Reason::FieldViolation).bad_request().map(|d| d.field_violations.len()), Some(1));
    assert!(details(Reason::FileNotFound).resource_info().is_some());
    assert!(details(Reason::RevisionChanged).precondition_failure().is_some());
    assert!(details(Reason::Overloaded).retry_info().is_some());
    assert!(details(Reason::Internal).debug_info().is_none());
}

#[test]
fn a_reason_of_a_newer_peer_is_read_by_its_code() {
    let details = ErrorDetails::with_error_info("OF_A_NEWER_PEER", DOMAIN, HashMap::new());
    let failure = read(&Status::with_error_details(Code::FailedPrecondition, "fenced", details));
    assert_eq!(failure.kind(), Kind::State);
    assert_eq!(failure.metadata["reason"], "OF_A_NEWER_PEER");
    let foreign = ErrorDetails::with_error_info("FILE_NOT_FOUND", "example.com", HashMap::new());
    let failure = read(&Status::with_error_details(Code::NotFound, "gone", foreign));
    assert_eq!(failure.reason, Reason::ContentNotFound);
}

#[test]
fn what_the_transport_says_is_a_peer_that_cannot_be_reached() {
    let cases = [
        (Status::unavailable("tcp connect error"), Reason::PeerUnreachable),
        (Status::from_error(Box::new(std::io::Error::other("broken pipe"))), Reason::PeerUnreachable),
        (
            Status::internal("h2 protocol error: error reading a body from connection"),
            Reason::PeerUnreachable,
        ),
        (Status::unknown("transport error"), Reason::PeerUnreachable),
        (Status::cancelled("Timeout expired"), Reason::DeadlineExpired),
        (Status::from_error(Box::new(tonic::TimeoutExpired(()))), Reason::DeadlineExpired),
        (Status::deadline_exceeded("late"), Reason::DeadlineExpired),
        (Status::internal("something else"), Reason::Internal),
        (Status::unimplemented(""), Reason::Unimplemented),
    ];
    for (status, reason) in cases {
        assert_eq!(read(&status).reason, reason, "{status}");
    }
    let broken = read(&Status::internal("h2 protocol error: error reading a body from connection"));
    assert_eq!(broken.message, "the connection broke");
    assert!(broken.metadata["cause"].contains("error reading a body"));
}

#[test]
fn every_code_without_a_reason_is_of_its_kind() {
    for number in 1..=16 {
        let status = Status::new(Code::from_i32(number), "x");
        let failure = read(&status);
        let exceptions = [Code::Unknown, Code::Cancelled];
        assert!(code(failure.kind()) == status.code() || exceptions.contains(&status.code()), "{status}");
    }
}

#[test]
fn a_status_fits_into_headers_however_long_its_texts_are() {
    let mut failure = Failure::new(Reason::PathInvalid, "ü".repeat(100_000));
    for n in 0..100 {
        failure.metadata.insert(format!("key{n}"), "x".repeat(10_000));
        failure.violations.push(Violation { field: "y".repeat(100), description: "z".repeat(1_000) });
    }
    let bytes: usize =
        trailers(&of(&failure)).iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(bytes < 60 << 10, "{bytes}");
}

#[test]
fn details_that_are_no_base64_are_dropped_before_they_do_harm() {
    for (text, keeps) in
        [("", true), ("AAAA", true), ("AA==", true), ("AA", true), ("AAA", true), ("A", false), ("AB", false)]
            .into_iter()
            .chain([("A===", false), ("é", false), ("AA=", false), ("AAAA=", false), ("A-_A", false)])
    {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", http::HeaderValue::from_static("5"));
        let value = http::HeaderValue::from_bytes(text.as_bytes()).expect("a header value");
        headers.insert("grpc-status-details-bin", value);
        drop_broken_details(&mut headers);
        assert_eq!(headers.contains_key("grpc-status-details-bin"), keeps, "{text}");
        assert!(in_headers(&headers).is_some());
    }
}

#[test]
fn statuses_of_the_server_library_get_their_reason() {
    let cases = [
        (Status::internal("failed to decode Protobuf message: invalid tag"), Some(Reason::FieldViolation)),
        (Status::internal("Missing request message."), Some(Reason::FieldViolation)),
        (
            Status::out_of_range("Error, decoded message length too large: 5 bytes"),
            Some(Reason::SizeLimitExceeded),
        ),
        (Status::unimplemented(""), Some(Reason::Unimplemented)),
        (Status::internal("boom"), Some(Reason::Internal)),
        (Status::not_found("a name of grpc.health"), None),
        (of(&Any(Reason::DiskFull)), None),
    ];
    for (status, reason) in cases {
        assert_eq!(complete(&status).map(|completed| read(&completed).reason), reason, "{status}");
    }
}
