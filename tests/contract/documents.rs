//! The documents name only commands and tests that exist.

use std::collections::BTreeSet;

use lockstep_model::identity::SERVICES;

use crate::{
    repository::{assert_none, files, rust_files, text},
    source,
};

/// The targets of the Makefile.
fn targets() -> BTreeSet<String> {
    let makefile = text("Makefile");
    let rules = makefile.lines().filter(|line| !line.starts_with(['\t', ' ', '#', '.']));
    rules
        .filter_map(|line| line.split_once(':').filter(|(_, after)| !after.starts_with('=')))
        .flat_map(|(names, _)| names.split_whitespace())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)))
        .map(ToOwned::to_owned)
        .collect()
}

/// The code of a Markdown text: what stands in backticks and in fenced blocks.
fn commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            commands.push(line.to_owned());
        } else {
            commands.extend(line.split('`').skip(1).step_by(2).map(ToOwned::to_owned));
        }
    }
    commands
}

/// The target of `make target`, with variables before or after it, wherever it stands in a command.
fn make_targets(command: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut words = command.split(|c: char| c.is_whitespace() || "();&|".contains(c)).peekable();
    while let Some(word) = words.next() {
        if word != "make" {
            continue;
        }
        let named = words.find(|word| !word.is_empty() && !word.contains('=') && !word.starts_with('-'));
        targets.extend(named.map(ToOwned::to_owned));
    }
    targets
}

/// H7: every `make` command of every document is a target.
#[test]
fn documented_commands_exist() {
    let targets = targets();
    let mut problems = Vec::new();
    let mut found = 0;
    for document in files("", "md") {
        for target in commands(&document.text).iter().flat_map(|command| make_targets(command)) {
            found += 1;
            if !targets.contains(&target) {
                problems.push(format!("{}: make {target} is no target", document.path));
            }
        }
    }
    assert_none("documented commands", &problems);
    assert!(text("README.md").contains("make run"), "README.md shows the first command");
    assert!(found > 0, "no document shows a command");
}

/// H7: each thing that is to be shown names the test, benchmark or command that shows it, and that exists.
#[test]
fn what_is_shown_exists() {
    let document = text("tests/README.md");
    let (_, section) = document.split_once("## What is shown").expect("tests/README.md has the section");
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(!rows.is_empty(), "the section has a table");
    let targets = targets();
    let mut problems = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let proofs = cells.last().map(|cell| commands(cell)).unwrap_or_default();
        if proofs.is_empty() {
            problems.push(format!("nothing shows: {}", cells[0].trim()));
        }
        for proof in proofs {
            let made = make_targets(&proof);
            let exists =
                if made.is_empty() { exists(&proof) } else { made.iter().all(|made| targets.contains(made)) };
            if !exists {
                problems.push(format!("{proof} does not exist; it should show: {}", cells[0].trim()));
            }
        }
    }
    assert_none("what is shown", &problems);
}

/// Whether `tier::…::function` is in the folder of its tier or crate, or a path is a file of the repository.
fn exists(proof: &str) -> bool {
    let Some((tier, _)) = proof.split_once("::") else {
        return crate::repository::root().join(proof).exists();
    };
    let folder = match tier {
        "contract" | "api" | "sim" | "process" | "bench" => format!("tests/{tier}"),
        "model" | "chassis" | "registry" | "replicas" | "clocks" => format!("services/shared/{tier}"),
        word if word == "lockstep" || SERVICES.contains(&word) => format!("services/{word}"),
        _ => return false,
    };
    let function = proof.rsplit("::").next().unwrap_or_default();
    rust_files(&folder)
        .iter()
        .any(|file| source::functions(&file.text).iter().any(|found| found.name == function))
}

/// H7: commands are found where a reader would copy them.
#[test]
fn commands_are_taken_from_code_only() {
    let text = "We make mistakes. `make run ONCE=1` and `FILE=x make test`\n```sh\nmake -j2 V=1 check && make doc\n```\n";
    let found: Vec<String> = commands(text).iter().flat_map(|command| make_targets(command)).collect();
    assert_eq!(found, ["run", "test", "check", "doc"]);
}
