//! The shape of RPCs: idempotency, rights, paging, watches, streams, and numbers that are never used again.

use lockstep_model::identity::SERVICES;
use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};

use crate::{
    contract::{idempotency, messages, methods, rights},
    repository::assert_none,
};

/// Mutations that need no request id: they bring about a state that does not depend on how often they are called.
const LEVEL_TRIGGERED: [&str; 3] = ["Reconcile", "CheckFiles", "CheckSpace"];

fn has(message: &MessageDescriptor, name: &str, kind: &Kind) -> bool {
    message.get_field_by_name(name).is_some_and(|field| field.kind() == *kind && !field.is_list())
}

fn check(rule: &str, keeps: impl Fn(&MethodDescriptor) -> bool) -> Vec<String> {
    methods()
        .iter()
        .filter(|method| !keeps(method))
        .map(|method| format!("{}: {rule}", method.full_name()))
        .collect()
}

/// H1, I11: every RPC declares whether it may be repeated, and a mutation is told apart from its repetition.
#[test]
fn rpcs_declare_what_a_repetition_does() {
    let mut problems = check("no idempotency_level", |method| idempotency(method).is_some());
    problems.extend(check("a mutation without request_id", |method| {
        let reads = idempotency(method).as_deref() == Some("NO_SIDE_EFFECTS");
        let streams = method.is_client_streaming();
        reads
            || streams
            || LEVEL_TRIGGERED.contains(&method.name())
            || has(&method.input(), "request_id", &Kind::String)
    }));
    problems.extend(check("IDEMPOTENT for a read, or the other way round", |method| {
        let reads = ["Get", "List", "Watch", "Read", "Locate", "Explain", "Resolve", "Sample"];
        let named_read = reads.iter().any(|verb| method.name().starts_with(verb));
        named_read == (idempotency(method).as_deref() == Some("NO_SIDE_EFFECTS"))
    }));
    assert_none("idempotency", &problems);
}

/// H1, R67: every RPC says who may call it; nothing is open by omission.
#[test]
fn rpcs_declare_who_may_call_them() {
    let mut problems = check("no rights", |method| rights(method).is_some());
    problems.extend(check("rights that nobody has", |method| {
        rights(method).is_none_or(|rights| rights.role > 0 || !rights.services.is_empty())
    }));
    problems.extend(check("a service that does not exist in rights", |method| {
        let services = rights(method).unwrap_or_default().services;
        services.iter().all(|service| SERVICES.contains(&service.strip_prefix("own/").unwrap_or(service)))
    }));
    assert_none("rights", &problems);
}

/// H1: every list is paged in the same way, and nothing else is.
#[test]
fn lists_are_paged_alike() {
    let mut problems =
        check("a List has page_size and page_token, and its answer next_page_token", |method| {
            let (input, output) = (method.input(), method.output());
            let paged = has(&input, "page_size", &Kind::Int32)
                && has(&input, "page_token", &Kind::String)
                && has(&output, "next_page_token", &Kind::String);
            paged == method.name().starts_with("List")
        });
    problems.extend(check("the answer of a List begins with what is listed", |method| {
        let first = method.output().get_field(1);
        !method.name().starts_with("List")
            || first.is_some_and(|field| field.is_list() && matches!(field.kind(), Kind::Message(_)))
    }));
    problems.extend(check("a List is no stream", |method| {
        !method.name().starts_with("List") || !method.is_server_streaming() && !method.is_client_streaming()
    }));
    assert_none("paging", &problems);
}

/// H1: every watch can be resumed, says when its snapshot is complete, and is a stream.
#[test]
fn watches_can_be_resumed() {
    let problems =
        check("a Watch is a server stream with resume_token in both directions, and caught_up", |method| {
            let (input, output) = (method.input(), method.output());
            let resumed = has(&input, "resume_token", &Kind::String)
                && has(&output, "resume_token", &Kind::String)
                && has(&output, "caught_up", &Kind::Bool)
                && method.is_server_streaming()
                && !method.is_client_streaming();
            resumed == method.name().starts_with("Watch")
        });
    assert_none("watches", &problems);
}

/// H1: a stream of bytes is a header, then chunks, in a oneof; each chunk says where it belongs.
#[test]
fn byte_streams_begin_with_a_header() {
    let mut problems = Vec::new();
    for method in methods() {
        let verb_streams = [("Write", method.input()), ("Read", method.output())];
        for (_, message) in verb_streams.into_iter().filter(|(verb, _)| method.name().starts_with(verb)) {
            let parts: Vec<_> = message.oneofs().flat_map(|part| part.fields().collect::<Vec<_>>()).collect();
            let kind_of = |name: &str| {
                parts.iter().find(|field| field.name() == name).and_then(|field| match field.kind() {
                    Kind::Message(message) => Some(message),
                    _ => None,
                })
            };
            if kind_of("header").is_none()
                || !kind_of("chunk").is_some_and(|c| has(&c, "offset_bytes", &Kind::Int64))
            {
                problems
                    .push(format!("{}: no oneof of header and chunk with offset_bytes", method.full_name()));
            }
        }
    }
    assert_none("byte streams", &problems);
}

/// H1, H2: a number that is not used is reserved, with the name it had, so that it is never used again.
#[test]
fn gaps_are_reserved() {
    let mut problems = Vec::new();
    for message in messages() {
        let last = message.fields().map(|field| field.number()).max().unwrap_or(0);
        for number in 1..=last {
            let reserved = message.reserved_ranges().any(|range| range.contains(&number));
            if message.get_field(number).is_none() && !reserved {
                problems.push(format!("{}: {number} is neither used nor reserved", message.full_name()));
            }
        }
        let ranges: u32 = message.reserved_ranges().map(|range| range.end - range.start).sum();
        if ranges as usize != message.reserved_names().count() {
            problems.push(format!("{}: reserve as many names as numbers", message.full_name()));
        }
    }
    assert_none("reserved numbers", &problems);
}
