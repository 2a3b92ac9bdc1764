//! Three rings: the domain is pure, the engine sees ports, only the edges see the network and the database.

use crate::{
    repository::{assert_none, rust_files, text},
    source,
};

/// What the inner rings cannot see: crates by the word they begin with, modules by their path.
const TRANSPORT: [&str; 5] = ["tonic", "prost", "hyper", "h2", "lockstep_proto"];
const DATABASE: [&str; 2] = ["rusqlite", "refinery"];
const RUNTIME: [&str; 2] = ["tokio", "lockstep_chassis"];
const WORLD: [&str; 4] = ["std::fs", "std::net", "std::process", "rustix"];

fn sees(path: &str, forbidden: &str) -> bool {
    if forbidden.contains("::") {
        return path == forbidden || path.strip_prefix(forbidden).is_some_and(|rest| rest.starts_with("::"));
    }
    let first = path.trim_start_matches("::").split("::").next().unwrap_or_default();
    first == forbidden || first.strip_prefix(forbidden).is_some_and(|rest| rest.starts_with('_'))
}

fn violations(file: &crate::repository::File, forbidden: &[&str]) -> Vec<String> {
    let code = source::production_code(&file.text);
    let mut problems = Vec::new();
    for (line, path) in source::paths(&code) {
        if let Some(what) = forbidden.iter().find(|what| sees(&path, what)) {
            problems.push(format!("{}:{line} names {path}: this ring cannot see {what}", file.path));
        }
    }
    problems
}

/// H5: the vocabulary and every domain folder see no transport, no database, no runtime and no I/O, and do not wait.
#[test]
fn domain_code_is_pure() {
    let forbidden = [&TRANSPORT[..], &DATABASE[..], &RUNTIME[..], &WORLD[..]].concat();
    let mut problems = Vec::new();
    for file in rust_files("services").iter().filter(|file| !file.is_within("tests")) {
        let domain = file.path.contains("/src/domain/") || file.path.ends_with("/src/domain.rs");
        if !domain && !file.path.starts_with("services/shared/model/") {
            continue;
        }
        problems.extend(violations(file, &forbidden));
        if domain {
            let code = source::production_code(&file.text);
            let waiting = source::identifiers(&code).filter(|(_, word)| matches!(*word, "async" | "await"));
            problems.extend(waiting.map(|(at, word)| {
                format!("{}:{} says {word}: domain code is synchronous", file.path, source::line(&code, at))
            }));
        }
    }
    assert_none("the domain ring", &problems);
}

/// H5: ports and the engine's loop over them see no transport and no database: those are adapters.
#[test]
fn ports_and_engines_see_no_adapter() {
    let forbidden = [&TRANSPORT[..], &DATABASE[..]].concat();
    let mut problems = Vec::new();
    for file in rust_files("services").iter().filter(|file| !file.is_within("tests")) {
        let inner = file.path.split_once("/src/").map_or("", |(_, inner)| inner);
        if ["ports", "engine"]
            .iter()
            .any(|ring| inner == format!("{ring}.rs") || inner.starts_with(&format!("{ring}/")))
        {
            problems.extend(violations(file, &forbidden));
        }
    }
    assert_none("the engine ring", &problems);
}

/// H5: the manifest of the vocabulary offers nothing that it must not see.
#[test]
fn the_vocabulary_depends_on_no_transport() {
    let manifest: toml::Table = text("services/shared/model/Cargo.toml").parse().expect("a manifest");
    let dependencies = manifest["dependencies"].as_table().expect("a table");
    let forbidden = [&TRANSPORT[..], &DATABASE[..], &RUNTIME[..], &["rustix"]].concat();
    let problems: Vec<String> = dependencies
        .keys()
        .map(|name| name.replace('-', "_"))
        .filter(|name| forbidden.iter().any(|what| sees(name, what)))
        .map(|name| format!("lockstep-model depends on {name}"))
        .collect();
    assert_none("the vocabulary", &problems);
}
