//! Every element of the contract says something that its name does not.

use std::collections::BTreeSet;

use lockstep_model::Reason;
use prost_reflect::FileDescriptor;

use crate::{
    contract::{ROOT, enums, files, messages, methods, pool, services, words},
    repository::{assert_none, files as repository_files},
};

/// Words that say nothing by themselves.
const FILLERS: [&str; 20] = [
    "the", "a", "an", "of", "this", "that", "is", "for", "to", "in", "and", "or", "one", "which", "what",
    "its", "it", "request", "response", "message",
];

/// The tag of `syntax` in a file descriptor: the comment above it is the comment of the file.
const SYNTAX: i32 = 12;

fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let locations = info.map(|info| info.location.as_slice()).unwrap_or_default();
    let found = locations.iter().find(|location| location.path == path);
    found.and_then(|location| location.leading_comments.clone()).unwrap_or_default().trim().to_owned()
}

/// An element with its comment.
struct Element {
    name: String,
    comment: String,
}

fn elements() -> Vec<Element> {
    let mut elements = Vec::new();
    let mut add = |file: FileDescriptor, path: &[i32], name: &str| {
        elements.push(Element { name: name.to_owned(), comment: comment(&file, path) });
    };
    for file in files() {
        for extension in file.extensions() {
            add(file.clone(), extension.path(), extension.full_name());
        }
    }
    for message in messages() {
        add(message.parent_file(), message.path(), message.full_name());
        for field in message.fields() {
            add(message.parent_file(), field.path(), field.full_name());
        }
        for part in message.oneofs().filter(|part| !part.is_synthetic()) {
            add(message.parent_file(), part.path(), part.full_name());
        }
    }
    for found in enums() {
        add(found.parent_file(), found.path(), found.full_name());
        for value in found.values() {
            add(found.parent_file(), value.path(), value.full_name());
        }
    }
    for service in services() {
        add(service.parent_file(), service.path(), service.full_name());
    }
    for method in methods() {
        add(method.parent_service().parent_file(), method.path(), method.full_name());
    }
    elements
}

/// H1: nothing is without a comment, and no comment only repeats the name.
#[test]
fn everything_has_a_comment_that_says_something() {
    let mut problems = Vec::new();
    for Element { name, comment } in elements() {
        if comment.is_empty() {
            problems.push(format!("{name}: no comment"));
            continue;
        }
        let known: BTreeSet<String> = words(name.rsplit('.').next().unwrap_or(&name)).into_iter().collect();
        let says = |word: &String| !FILLERS.contains(&word.as_str()) && !known.contains(word);
        if !words(&comment).iter().any(says) {
            problems.push(format!("{name}: {comment:?} only repeats the name"));
        }
        if !comment.contains(['.', ':']) {
            problems.push(format!("{name}: {comment:?} is no sentence"));
        }
    }
    assert_none("comments", &problems);
}

/// H1: the header of each file says its purpose; that of a service also shows a command, whose RPC exists.
#[test]
fn files_say_how_to_try_them() {
    let mut problems = Vec::new();
    for file in files() {
        let header = comment(&file, &[SYNTAX]);
        if header.is_empty() {
            problems.push(format!("{}: no comment above syntax", file.name()));
        }
        let commands: Vec<&str> = header
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("grpcurl ") || line.starts_with("lockstep "))
            .collect();
        if file.services().len() > 0 && commands.is_empty() {
            problems.push(format!("{}: no line with a command", file.name()));
        }
        for symbol in commands.iter().flat_map(|command| command.split_whitespace()) {
            let dotted = symbol.replace('/', ".");
            let known = pool().get_service_by_name(&dotted).is_some()
                || methods().iter().any(|method| method.full_name() == dotted)
                || messages().iter().any(|message| message.full_name() == dotted);
            if symbol.starts_with(&format!("{ROOT}.")) && !known {
                problems.push(format!("{}: the command names {symbol}, which does not exist", file.name()));
            }
        }
    }
    let known = files().len();
    let on_disk = repository_files("proto", "proto").len();
    assert_eq!(known, on_disk, "every proto file of the repository is in the descriptor set");
    assert_none("headers", &problems);
}

/// H1, H3: each RPC lists the reasons it can fail with, and each is one.
#[test]
fn rpcs_list_their_reasons() {
    let mut problems = Vec::new();
    for method in methods() {
        let text = comment(&method.parent_service().parent_file(), method.path());
        let like_another = methods().iter().any(|other| text.contains(&format!("like {}", other.name())));
        if !text.contains("Reasons:") && !like_another {
            problems.push(format!("{}: no Reasons", method.full_name()));
        }
        let listed = text.split_once("Reasons:").map_or("", |(_, listed)| listed);
        for word in listed.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| word.contains('_'))
        {
            if Reason::parse(word).is_none() {
                problems.push(format!("{}: {word} is no reason", method.full_name()));
            }
        }
        if method.name().starts_with("List") && !text.to_lowercase().contains("ordered by") {
            problems.push(format!("{}: the order is not stated", method.full_name()));
        }
    }
    assert_none("reasons of RPCs", &problems);
}

/// H1: readers of an enum are told that it grows.
#[test]
fn enums_say_that_they_grow() {
    let mut problems = Vec::new();
    for found in enums() {
        let text = comment(&found.parent_file(), found.path()).to_lowercase();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let grows =
            text.contains("tolerate new values") || text.contains("new ") && text.contains("may be added");
        if !grows {
            problems
                .push(format!("{}: does not say that clients must tolerate new values", found.full_name()));
        }
    }
    assert_none("enums", &problems);
}
