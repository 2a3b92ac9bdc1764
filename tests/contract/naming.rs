//! The names of the contract: packages, files, services, RPCs, fields, enums.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::identity::SERVICES;
use prost_reflect::Kind;

use crate::{
    contract::{ROOT, enums, fields, files, messages, methods, service_word, services, snake, words},
    repository::assert_none,
};

/// What an RPC may do. Never Process, Handle, Do or Manage: they say nothing.
const VERBS: [&str; 25] = [
    "Get",
    "List",
    "Watch",
    "Read",
    "Locate",
    "Explain",
    "Register",
    "Update",
    "Replace",
    "Move",
    "Delete",
    "Restore",
    "Write",
    "Start",
    "Cancel",
    "Refresh",
    "Reconcile",
    "Exchange",
    "Resolve",
    "Sample",
    "Adopt",
    "Forget",
    "Approve",
    "Accept",
    "Check",
];

/// Verbs that name the whole act; the others need a noun.
const WHOLE_VERBS: [&str; 1] = ["Reconcile"];

/// Words that the product says differently, or leaves to gRPC.
///
/// `host` is one: it is what the documented product calls the part of an address, beside `port`.
const BANNED_WORDS: [&str; 6] = ["status", "node", "artifact", "blob", "task", "job"];

/// Units: a duration is a `google.protobuf.Duration`, which needs none.
const UNITS: [&str; 14] = [
    "nanos", "micros", "millis", "ms", "us", "ns", "sec", "secs", "seconds", "min", "mins", "minutes",
    "hours", "days",
];

/// What an integer can mean: a name or the end of one. Another meaning enters here first.
const INTEGERS: [&str; 6] = ["page_size", "revision", "bytes", "count", "index", "port"];

/// Fields that carry content; all other values are text, which grpcurl shows.
const CONTENT: [&str; 5] = [
    "lockstep.catalog.v1.FirmwareChunk.data",
    "lockstep.filesync.v1.NewFile.content",
    "lockstep.filesync.v1.UploadChunk.data",
    "lockstep.filesync.v1.ContentChunk.data",
    "lockstep.filesync.v1.GroupHashes.hashes",
];

/// Facts that can never grow a third value.
const FACTS: [&str; 3] = ["caught_up", "snapshot", "dry_run"];

/// Enums that stay at the top although one message uses them: the layer that enforces rights reads them.
const SHARED_ENUMS: [&str; 2] = ["lockstep.shared.v1.Role", "lockstep.shared.v1.Routing"];

/// H1: a package is `lockstep.<service>.v<n>`, its folder says the same, and a noun has a file.
#[test]
fn packages_folders_and_files_agree() {
    let mut problems = Vec::new();
    for file in files() {
        let (name, package) = (file.name(), file.package_name());
        let parts: Vec<&str> = package.split('.').collect();
        let known = |word: &str| word == "shared" || SERVICES.contains(&word);
        let version =
            |text: &str| text.strip_prefix('v').is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n > 0));
        if !matches!(parts.as_slice(), [ROOT, word, v] if known(word) && version(v)) {
            problems.push(format!("{name}: package {package} is not {ROOT}.<service>.v<n>"));
        }
        let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
        if folder != package.replace('.', "/") {
            problems.push(format!("{name}: the folder is not that of package {package}"));
        }
        let base = base.trim_end_matches(".proto");
        if snake(base) != base {
            problems.push(format!("{name}: the file name is not in snake_case"));
        }
        let services: Vec<_> = file.services().map(|service| snake(service.name())).collect();
        if !(services.is_empty() && !base.ends_with("_service") || services == [base]) {
            problems.push(format!(
                "{name}: one service to a file of its name, <noun>_service.proto; found {services:?}"
            ));
        }
        if services.is_empty() && file.messages().len() + file.enums().len() == 0 {
            problems.push(format!("{name}: declares nothing"));
        }
    }
    assert_none("packages and files", &problems);
}

/// H1: services end in Service and are named once; RPCs are a verb and a noun; each has a request and a response of
/// its own.
#[test]
fn services_and_rpcs_are_named_alike() {
    let mut problems = Vec::new();
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for service in services() {
        if !service.name().ends_with("Service") {
            problems.push(format!("{}: the name does not end in Service", service.full_name()));
        }
        if !names.insert(service.name().to_owned()) {
            problems.push(format!("{}: another package has a service of this name", service.full_name()));
        }
    }
    for method in methods() {
        let (name, full) = (method.name(), method.full_name());
        let verb = VERBS.iter().find(|verb| {
            let noun = name.strip_prefix(**verb);
            noun.is_some_and(|noun| {
                noun.starts_with(char::is_uppercase) || noun.is_empty() && WHOLE_VERBS.contains(verb)
            })
        });
        if verb.is_none() {
            problems.push(format!("{full}: not a verb of the list and a noun"));
        }
        for (message, suffix) in [(method.input(), "Request"), (method.output(), "Response")] {
            if message.name() != format!("{name}{suffix}")
                || message.package_name() != method.parent_service().package_name()
            {
                problems.push(format!(
                    "{full}: takes or gives {}, not its own {name}{suffix}",
                    message.full_name()
                ));
            }
            users.entry(message.full_name().to_owned()).or_default().push(full.to_owned());
        }
    }
    for message in messages() {
        let wrapper = message.name().ends_with("Request") || message.name().ends_with("Response");
        match users.get(message.full_name()).map_or(0, Vec::len) {
            0 if wrapper => problems.push(format!("{}: a wrapper that no RPC uses", message.full_name())),
            0 | 1 => {}
            _ => {
                problems.push(format!("{}: shared by {:?}", message.full_name(), users[message.full_name()]))
            }
        }
    }
    for field in fields() {
        if let Kind::Message(of) = field.kind()
            && users.contains_key(of.full_name())
        {
            problems.push(format!("{}: a wrapper inside a message", field.full_name()));
        }
    }
    assert_none("services and RPCs", &problems);
}

/// H1: a field's name says its type and unit, and its type is one that can grow.
#[test]
fn fields_say_their_type_and_unit() {
    let mut problems = Vec::new();
    for field in fields() {
        let (name, full, kind) = (field.name(), field.full_name(), field.kind());
        let mut require = |holds: bool, rule: &str| {
            if !holds {
                problems.push(format!("{full}: {rule}"));
            }
        };
        let message = match &kind {
            Kind::Message(message) => message.full_name().to_owned(),
            _ => String::new(),
        };
        let last = words(name).pop().unwrap_or_default();
        require(snake(name) == name, "not in snake_case");
        require(!field.is_map() || name.ends_with("labels"), "maps are for labels only");
        require(
            name.ends_with("_time") == (message == "google.protobuf.Timestamp"),
            "_time if and only if a Timestamp",
        );
        require(!UNITS.contains(&last.as_str()), "a duration is a Duration and has no unit in its name");
        require(!last.ends_with("duration") && !last.ends_with("timestamp"), "the name repeats the type");
        require(
            !message.starts_with("google.") || TYPES.contains(&message.as_str()),
            "no other google type, no Empty, no Any",
        );
        require(last != "bytes" || kind == Kind::Int64, "byte sizes are int64");
        require(last != "size" || name == "page_size", "a size of content ends in _bytes");
        require(last != "id" && last != "ids" || kind == Kind::String, "ids are text");
        require(last != "path" && last != "paths" || kind == Kind::String, "paths are text");
        require(last != "ids" && last != "paths" || field.is_list(), "a plural is repeated");
        let integer = INTEGERS.iter().any(|meaning| name == *meaning || last == *meaning)
            || name.ends_with("bytes_per_second");
        match kind {
            Kind::Int32 | Kind::Int64 => {
                require(integer, "an integer is a size, count, revision, index or rate")
            }
            Kind::Bytes => require(CONTENT.contains(&full), "bytes are for content only"),
            Kind::Bool => {
                require(FACTS.contains(&name), "a boolean is a fact that can never grow a third value")
            }
            Kind::String | Kind::Message(_) | Kind::Enum(_) => {
                require(last != "count", "counts are integers")
            }
            _ => require(false, "neither text, int32, int64, bool, bytes, enum nor message"),
        }
    }
    assert_none("fields", &problems);
}

/// The only foreign messages.
const TYPES: [&str; 3] =
    ["google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"];

/// H1: zero is unspecified, values carry the name of their enum, and what one message uses is nested in it.
#[test]
fn enums_are_prefixed_and_start_unspecified() {
    let mut problems = Vec::new();
    for found in enums() {
        let full = found.full_name();
        let prefix = snake(found.name()).to_uppercase();
        for value in found.values() {
            let name = value.name();
            if !name.starts_with(&format!("{prefix}_")) || name != name.to_uppercase() {
                problems.push(format!("{full}.{name}: not {prefix}_…"));
            }
            if (value.number() == 0) != (name == format!("{prefix}_UNSPECIFIED")) {
                problems
                    .push(format!("{full}.{name}: the zero value, and no other, is {prefix}_UNSPECIFIED"));
            }
        }
        let users: BTreeSet<String> = fields()
            .iter()
            .filter(|field| matches!(field.kind(), Kind::Enum(of) if of == found))
            .map(|field| field.parent_message().full_name().to_owned())
            .collect();
        if users.len() == 1 && found.parent_message().is_none() && !SHARED_ENUMS.contains(&full) {
            problems.push(format!("{full}: only {users:?} uses it, so it belongs inside"));
        }
    }
    assert_none("enums", &problems);
}

/// H1: one word for one thing, and the words that mean something else elsewhere are not used.
#[test]
fn banned_words_do_not_appear() {
    let mut names: Vec<String> = fields().iter().map(|field| field.full_name().to_owned()).collect();
    names.extend(messages().iter().map(|message| message.full_name().to_owned()));
    names.extend(enums().iter().map(|found| found.full_name().to_owned()));
    names.extend(methods().iter().map(|method| method.full_name().to_owned()));
    let problems: Vec<String> = names
        .into_iter()
        .filter(|name| {
            words(name.rsplit('.').next().unwrap_or(name)).iter().any(|w| BANNED_WORDS.contains(&w.as_str()))
        })
        .map(|name| format!("{name}: has a word of {BANNED_WORDS:?}"))
        .collect();
    assert_none("words", &problems);
}

/// H1: everything of a service is in the package of that service.
#[test]
fn services_live_in_the_package_of_their_word() {
    let problems: Vec<String> = services()
        .iter()
        .filter(|service| !SERVICES.contains(&service_word(service.package_name())))
        .map(|service| format!("{}: its package is no service", service.full_name()))
        .collect();
    assert_none("packages of services", &problems);
}
