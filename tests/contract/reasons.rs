//! The list of reasons exists in the contract and in the vocabulary; both are the same list.

use std::collections::BTreeSet;

use lockstep_model::{Reason, fault::Kind};

use crate::{
    contract::pool,
    repository::{assert_none, rust_files},
    source,
};

const PREFIX: &str = "ERROR_REASON_";

/// Reasons that no test outside the process can provoke, each with why and where it is tested instead.
const NOT_PROVOKED: [(Reason, &str); 1] = [(
    Reason::PositionTooOld,
    "a server that is told so takes a snapshot and tells nobody: the properties of the registry have it",
)];

fn code(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "INVALID_ARGUMENT",
        Kind::Unauthenticated => "UNAUTHENTICATED",
        Kind::Denied => "PERMISSION_DENIED",
        Kind::NotFound => "NOT_FOUND",
        Kind::Exists => "ALREADY_EXISTS",
        Kind::State => "FAILED_PRECONDITION",
        Kind::Range => "OUT_OF_RANGE",
        Kind::Conflict => "ABORTED",
        Kind::Exhausted => "RESOURCE_EXHAUSTED",
        Kind::Unavailable => "UNAVAILABLE",
        Kind::Late => "DEADLINE_EXCEEDED",
        Kind::Unbuilt => "UNIMPLEMENTED",
        Kind::Corrupt => "DATA_LOSS",
        Kind::Bug => "INTERNAL",
    }
}

/// H3: the reasons of the contract are those of the vocabulary, in one order, each with the code of its kind.
#[test]
fn the_contract_and_the_vocabulary_have_one_list_of_reasons() {
    let list = pool().get_enum_by_name("lockstep.shared.v1.ErrorReason").expect("the list of reasons");
    let wire: Vec<String> = list.values().skip(1).map(|value| value.name().replace(PREFIX, "")).collect();
    let model: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(wire, model, "error.proto and lockstep_model::Reason list the same reasons in the same order");

    let file = list.parent_file();
    let info = file.file_descriptor_proto().source_code_info.as_ref().expect("comments are included");
    let mut problems = Vec::new();
    for (value, reason) in list.values().skip(1).zip(Reason::ALL) {
        let location = info.location.iter().find(|location| location.path == value.path());
        let comment = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
        let expected = code(reason.kind());
        let sentence = comment.trim().strip_suffix('.').unwrap_or_default();
        if sentence.rsplit(' ').next() != Some(expected) {
            problems.push(format!("{}: the comment does not end with {expected}.", value.name()));
        }
        if reason.advice().is_empty() {
            problems.push(format!("{reason}: no advice"));
        }
    }
    assert_none("reasons", &problems);
}

/// H3: each reason is met by a test that drives the services from outside.
#[test]
fn every_reason_is_provoked_by_a_test() {
    let mut seen = String::new();
    for tier in ["api", "sim", "process"] {
        for file in rust_files(&format!("tests/{tier}")) {
            // Literals count: an answer of the command line or of grpcurl is compared as text.
            seen.push_str(&source::without_comments(&file.text));
        }
    }
    let words: BTreeSet<&str> = source::identifiers(&seen).map(|(_, word)| word).collect();
    let mut problems = Vec::new();
    for reason in Reason::ALL {
        let met = words.contains(reason.as_str()) || words.contains(format!("{reason:?}").as_str());
        let excused = NOT_PROVOKED.iter().any(|(excused, _)| excused == reason);
        if met && excused {
            problems.push(format!("{reason}: provoked by a test, so it needs no excuse"));
        }
        if !met && !excused {
            problems.push(format!("{reason}: no test in tests/api, tests/sim or tests/process names it"));
        }
    }
    assert_none("provoked reasons", &problems);
}
