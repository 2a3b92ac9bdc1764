//! The table of names against the vocabulary. The API tests run the same table through register and get.

use std::{collections::BTreeMap, collections::BTreeSet};

use lockstep_model::{FilePath, Folded, path::fold};
use lockstep_tests::names::{self, Outcome};

use crate::{
    repository::{assert_none, text},
    source,
};

/// R6, R70: each name is stored exactly, or refused with the rule that the table says.
#[test]
fn names_are_stored_exactly_or_refused_as_the_table_says() {
    let mut problems = Vec::new();
    for case in names::table() {
        let found = match case.text().map(str::parse::<FilePath>) {
            None => Outcome::NotText,
            Some(Err(rule)) => Outcome::Refused(rule),
            Some(Ok(path)) if Some(path.as_str()) == case.text() => Outcome::Stored,
            Some(Ok(path)) => panic!("{case}: altered silently to {path:?}"),
        };
        if found != case.outcome {
            problems.push(format!("{case}: {found:?}"));
        }
    }
    assert_none("names", &problems);
}

/// R6: the table has a case for every rule that a name can break, and no case twice.
#[test]
fn every_rule_of_names_has_a_case() {
    let model = text("services/shared/model/src/path.rs");
    let model = source::code(&model);
    let (_, variants) = model.split_once("enum InvalidPath {").expect("the rules of names");
    let variants = variants.split('}').next().unwrap_or(variants);
    let mut missing: BTreeSet<&str> =
        variants.split(',').map(|variant| variant.rsplit(' ').next().unwrap_or("").trim()).collect();
    missing.retain(|variant| variant.starts_with(char::is_uppercase));
    assert!(missing.len() >= 12, "the rules were found: {missing:?}");
    let mut seen = BTreeSet::new();
    for case in names::table() {
        if let Outcome::Refused(rule) = case.outcome {
            missing.remove(format!("{rule:?}").as_str());
        }
        assert!(seen.insert(case.name.clone()), "{case}: twice in the table");
    }
    assert!(missing.is_empty(), "no case breaks {missing:?}");
}

/// What a path claims: each ancestor as a directory and itself as a file, by folded name.
fn claims(path: &FilePath) -> BTreeMap<Folded, (&str, bool)> {
    let directories = path.ancestors().map(|ancestor| (fold(ancestor), (ancestor, false)));
    directories.chain([(path.folded(), (path.as_str(), true))]).collect()
}

/// R6: two names clash if some server could not keep both: equal after folding in any component, or a file where the
/// other needs a directory.
#[test]
fn pairs_clash_as_the_table_says() {
    let mut problems = Vec::new();
    for pair in names::pairs() {
        let [first, second] = [&pair.first, &pair.second].map(|name| name.parse::<FilePath>().expect(name));
        let (of_first, of_second) = (claims(&first), claims(&second));
        let clash =
            of_first.iter().any(|(folded, claim)| of_second.get(folded).is_some_and(|other| other != claim));
        if clash != pair.clash {
            problems.push(format!("{pair}: clash is {clash}"));
        }
        assert_ne!(first, second, "{pair}: one name");
    }
    assert_none("pairs of names", &problems);
}
