//! The recorded field table: what was promised on the wire, one line each.
//!
//! To add to it: `UPDATE=1 cargo test -p lockstep-tests --test contract recorded`. It only ever adds. A line that
//! changed or went away is a breaking change and fails, with UPDATE too; what was never released may be deleted from the
//! table by hand, in the same change as the reason why.

use std::{collections::BTreeSet, env, fs};

use prost_reflect::{FieldDescriptor, Kind};

use crate::{
    contract::{enums, messages, methods},
    repository::{assert_none, root, text},
};

const TABLE: &str = "tests/contract/fields.txt";
const HEADER: &str = "\
# What the contract promised on the wire: every field with its number and type, every value, every RPC.
# tests/contract/fields.rs compares it. Additions: UPDATE=1 cargo test -p lockstep-tests --test contract recorded
# A line that changed or is missing from the contract breaks callers. Delete one by hand only if it was never released.
";

fn kind(field: &FieldDescriptor) -> String {
    let of = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(found) => found.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    };
    match (field.is_map(), field.is_list(), field.containing_oneof()) {
        (true, ..) => format!("map {of}"),
        (_, true, _) => format!("repeated {of}"),
        (.., Some(part)) if part.is_synthetic() => format!("optional {of}"),
        (.., Some(part)) => format!("{of} in {}", part.name()),
        _ => of,
    }
}

fn current() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for message in messages() {
        lines.insert(format!("message {}", message.full_name()));
        for field in message.fields() {
            lines.insert(format!("field {} = {} {}", field.full_name(), field.number(), kind(&field)));
        }
    }
    for found in enums() {
        for value in found.values() {
            lines.insert(format!("value {}.{} = {}", found.full_name(), value.name(), value.number()));
        }
    }
    for method in methods() {
        let stream = |streams| if streams { "stream " } else { "" };
        lines.insert(format!(
            "rpc {} {}{} -> {}{}",
            method.full_name(),
            stream(method.is_client_streaming()),
            method.input().full_name(),
            stream(method.is_server_streaming()),
            method.output().full_name()
        ));
    }
    lines
}

fn recorded(table: &str) -> BTreeSet<String> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(ToOwned::to_owned).collect()
}

/// H2: nothing that was recorded changed, and nothing is unrecorded.
#[test]
fn recorded_fields_keep_their_meaning() {
    let current = current();
    let recorded = recorded(&text(TABLE));
    let broken: Vec<String> =
        recorded.difference(&current).map(|line| format!("recorded, and no longer so: {line}")).collect();
    assert_none("the recorded contract: this breaks callers", &broken);
    if env::var_os("UPDATE").is_some() {
        let lines: Vec<&str> = current.iter().map(String::as_str).collect();
        fs::write(root().join(TABLE), format!("{HEADER}{}\n", lines.join("\n")))
            .expect("the table can be written");
        return;
    }
    let added: Vec<String> = current
        .difference(&recorded)
        .map(|line| format!("not recorded, run with UPDATE=1: {line}"))
        .collect();
    assert_none("the recorded contract", &added);
}
