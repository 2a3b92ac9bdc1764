//! The call graph is written down once, in services/README.md, and everything else is compared with it.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::identity::SERVICES;

use crate::{
    contract::{methods, rights, service_word, services, snake},
    repository::{assert_none, rust_files, text},
    source,
};

const DOCUMENT: &str = "services/README.md";
const HEADING: &str = "## Call graph";

/// Caller and callee, by their words.
type Edges = BTreeSet<(String, String)>;

/// The edges of the document: the lines `` - `caller` → `callee`, `callee` `` below the heading.
fn stated() -> Edges {
    let document = text(DOCUMENT);
    let (_, section) = document.split_once(HEADING).unwrap_or_else(|| panic!("{DOCUMENT} has no {HEADING}"));
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut edges = Edges::new();
    for line in section.lines().filter_map(|line| line.trim().strip_prefix("- ")) {
        let Some((caller, callees)) = line.split_once('→') else { continue };
        let words = |text: &str| -> Vec<String> {
            text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
        };
        for caller in words(caller) {
            edges.extend(words(callees).into_iter().map(|callee| (caller.clone(), callee)));
        }
    }
    edges
}

fn allows(edges: &Edges, caller: &str, callee: &str) -> bool {
    edges.contains(&(caller.to_owned(), callee.to_owned()))
}

/// H4: the stated graph names services only, and nobody calls up: it has no cycle between different services.
#[test]
fn calls_go_down_or_sideways() {
    let edges = stated();
    assert!(!edges.is_empty(), "{DOCUMENT} states no edge");
    let mut problems: Vec<String> = edges
        .iter()
        .flat_map(|(caller, callee)| [caller, callee])
        .filter(|word| !SERVICES.contains(&word.as_str()))
        .map(|word| format!("{word} is no service"))
        .collect();
    // Take away whoever calls nobody that is left; what cannot be taken away is in a cycle. Peers do not count.
    let mut left: BTreeSet<&str> = SERVICES.into_iter().collect();
    loop {
        let leaf = left.iter().copied().find(|caller| {
            !edges.iter().any(|(from, to)| from == caller && to != caller && left.contains(to.as_str()))
        });
        let Some(leaf) = leaf else { break };
        left.remove(leaf);
    }
    problems.extend(left.iter().map(|service| format!("{service} is part of a cycle")));
    assert_none("the stated call graph", &problems);
}

/// What services share, by folder.
const SHARED: [&str; 5] = [
    "services/shared/model",
    "services/shared/chassis",
    "services/shared/registry",
    "services/shared/replicas",
    "services/shared/clocks",
];

/// Where code calls on behalf of which services: in their own folders, and in what they share.
fn callers() -> Vec<(String, Vec<&'static str>)> {
    let own = SERVICES.into_iter().map(|word| (format!("services/{word}"), vec![word]));
    let shared = SHARED.into_iter().map(|folder| {
        let name = format!("lockstep-{}", folder.rsplit('/').next().unwrap_or(folder));
        let users = SERVICES.into_iter();
        let users = users.filter(|word| dependencies(&format!("services/{word}")).contains(&name));
        (folder.to_owned(), users.collect())
    });
    own.chain(shared).collect()
}

/// H4: a service crate uses generated clients along the stated edges only, and so does what it shares with others.
#[test]
fn code_calls_along_the_stated_edges() {
    let edges = stated();
    let mut owners = BTreeMap::new();
    for service in services() {
        let word = service_word(service.package_name()).to_owned();
        owners.insert(format!("{}_client", snake(service.name())), word.clone());
        owners.insert(format!("{}Client", service.name()), word);
    }
    let mut problems = Vec::new();
    for (folder, callers) in callers() {
        for file in rust_files(&format!("{folder}/src")).iter().filter(|file| !file.is_within("tests")) {
            let code = source::production_code(&file.text);
            for (at, word) in source::identifiers(&code) {
                let Some(callee) = owners.get(word) else { continue };
                for caller in callers.iter().filter(|caller| !allows(&edges, caller, callee)) {
                    let line = source::line(&code, at);
                    problems
                        .push(format!("{}:{line} uses {word}: {caller} may not call {callee}", file.path));
                }
            }
        }
    }
    assert_none("calls", &problems);
}

/// H4: no service is linked into another; only the binary knows all of them, and what is shared knows none.
#[test]
fn service_crates_do_not_depend_on_each_other() {
    let services = SERVICES.into_iter().map(|word| format!("services/{word}"));
    let folders = services.chain(SHARED.into_iter().chain(["proto"]).map(ToOwned::to_owned));
    let mut problems = Vec::new();
    for folder in folders {
        for dependency in dependencies(&folder) {
            if SERVICES.contains(&dependency.as_str()) || dependency == "lockstep" {
                problems.push(format!("{folder} depends on {dependency}"));
            }
        }
    }
    let binary = dependencies("services/lockstep");
    let missing = SERVICES.iter().filter(|service| !binary.contains(**service));
    problems.extend(missing.map(|service| format!("services/lockstep does not contain {service}")));
    assert_none("dependencies between services", &problems);
}

/// The dependencies of a crate for all purposes, by package name.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest: toml::Table = text(&format!("{folder}/Cargo.toml")).parse().expect("a manifest");
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let tables = std::iter::once(&manifest)
        .chain(targets.into_iter().flat_map(|targets| targets.values().filter_map(toml::Value::as_table)));
    tables
        .flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()))
        .flat_map(|table| table.iter())
        .map(|(name, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned())
        .collect()
}

/// H4, R67: who is given a right to call may call according to the graph.
#[test]
fn rights_follow_the_stated_edges() {
    let edges = stated();
    let mut problems = Vec::new();
    for method in methods() {
        let callee = service_word(method.parent_service().package_name()).to_owned();
        for right in rights(&method).unwrap_or_default().services {
            let caller = right.strip_prefix("own/").unwrap_or(&right);
            if !allows(&edges, caller, &callee) {
                problems.push(format!("{}: {caller} may not call {callee}", method.full_name()));
            }
        }
    }
    assert_none("rights", &problems);
}
