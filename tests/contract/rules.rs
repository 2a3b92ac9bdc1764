//! Every rule of tests/RULES.md has a test, and every test of the tests folder names a rule.
//!
//! A test names a rule in its documentation (`R17`, also in lists and ranges: `R20–R24`) or in its name (`r17_…`).
//! The properties of a conformance suite count as tests: the suites call them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    repository::{File, assert_none, rust_files, text},
    source,
};

const DOCUMENT: &str = "tests/RULES.md";

/// A letter and a number, such as `R17`.
type Rule = (char, u32);

/// Rules, invariants, house rules.
const LETTERS: [char; 3] = ['R', 'I', 'H'];

/// The lines of the table: `- **R17** text`.
fn table() -> Vec<(Rule, String)> {
    let document = text(DOCUMENT);
    let mut lines: Vec<(Rule, String)> = Vec::new();
    for line in document.lines().filter_map(|line| line.strip_prefix("- **")) {
        let (name, statement) = line.split_once("**").unwrap_or_else(|| panic!("{DOCUMENT}: {line}"));
        let rules = mentions(name);
        assert_eq!(rules.len(), 1, "{DOCUMENT}: {name} is not one rule");
        lines.extend(rules.into_iter().map(|rule| (rule, statement.trim().to_owned())));
    }
    lines
}

/// The rules that a text mentions; `R20–R24` mentions five.
fn mentions(text: &str) -> BTreeSet<Rule> {
    let mut found = BTreeSet::new();
    let mut range_from: Option<Rule> = None;
    let mut end_of_last = 0;
    for (at, word) in source::identifiers(text) {
        let Some(rule) = rule(word) else { continue };
        let between = &text[end_of_last..at];
        match range_from.filter(|(letter, _)| *letter == rule.0 && matches!(between.trim(), "–" | "-" | "to"))
        {
            Some((letter, first)) => found.extend((first..=rule.1).map(|number| (letter, number))),
            None => {
                found.insert(rule);
            }
        }
        range_from = Some(rule);
        end_of_last = at + word.len();
    }
    found
}

fn rule(word: &str) -> Option<Rule> {
    let letter = LETTERS.into_iter().find(|letter| word.starts_with(*letter))?;
    let digits = &word[1..];
    let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().map(|number| (letter, number))
}

/// The rules in a function's name: `r17_…` and `i3_…`, not the types `i8`, `i16`, `i32`, `i64`.
fn named(function: &str) -> BTreeSet<Rule> {
    let parts = function
        .split('_')
        .filter(|part| part.starts_with(['r', 'i']) && !["i8", "i16", "i32", "i64"].contains(part));
    parts.filter_map(|part| rule(&part.to_uppercase())).collect()
}

/// A test with the rules it names.
struct Test {
    path: String,
    name: String,
    rules: BTreeSet<Rule>,
}

impl Test {
    fn place(&self) -> String {
        format!("{} {}", self.path, self.name)
    }
}

fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for file in rust_files("") {
        let properties = in_conformance_suite(&file);
        for function in source::functions(&file.text) {
            let rules: BTreeSet<Rule> =
                mentions(&function.docs).into_iter().chain(named(&function.name)).collect();
            if function.is_test() || properties && !rules.is_empty() {
                tests.push(Test { path: file.path.clone(), name: function.name, rules });
            }
        }
    }
    tests
}

fn in_conformance_suite(file: &File) -> bool {
    file.is_within("conformance")
}

/// H6: no rule without a test, no test that names a rule which is not kept, and no test in the tests folder without a
/// rule. Prints the whole table: `make check` shows it.
#[test]
#[allow(clippy::print_stdout, reason = "printing the table is what this test is for")]
fn every_rule_has_a_test_and_every_test_a_rule() {
    let table = table();
    let tests = tests();
    let mut problems = Vec::new();
    let mut by_rule: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for test in &tests {
        for rule in &test.rules {
            by_rule.entry(*rule).or_default().push(test.place());
        }
    }
    let mut printed = String::new();
    for (rule, statement) in &table {
        let (letter, number) = rule;
        let proofs = by_rule.get(rule).map(Vec::as_slice).unwrap_or_default();
        printed += &format!("\n{letter}{number:<3} {statement}\n");
        for proof in proofs {
            printed += &format!("       {proof}\n");
        }
        if proofs.is_empty() {
            printed += "       NO TEST\n";
            problems.push(format!("{letter}{number} has no test: {statement}"));
        }
    }
    println!("Rules and their tests\n{printed}");
    let lines: BTreeSet<Rule> = table.iter().map(|(rule, _)| *rule).collect();
    if lines.len() != table.len() {
        problems.push(format!("{DOCUMENT} states a rule twice"));
    }
    for test in &tests {
        let unknown: Vec<String> =
            test.rules.difference(&lines).map(|(letter, number)| format!("{letter}{number}")).collect();
        if !unknown.is_empty() {
            problems.push(format!("{} names {}, no line of {DOCUMENT}", test.place(), unknown.join(", ")));
        }
        if test.rules.is_empty() && test.path.starts_with("tests/") {
            problems.push(format!("{} names no line of {DOCUMENT}", test.place()));
        }
    }
    assert_none("the rules", &problems);
}

/// H6: a mention is a whole word, and a range is all that is in it.
#[test]
fn mentions_are_words_and_ranges() {
    let rules =
        |text: &str| mentions(text).into_iter().map(|(l, n)| format!("{l}{n}")).collect::<Vec<_>>().join(" ");
    assert_eq!(rules("R20–R22, (R5) and I1 to I3; R13-x"), "I1 I2 I3 R5 R13 R20 R21 R22");
    assert_eq!(rules("FR5 R5x R1000 r5 R"), "");
    assert_eq!(named("r17_is_kept_for_i64").into_iter().collect::<Vec<_>>(), [('R', 17)]);
}
