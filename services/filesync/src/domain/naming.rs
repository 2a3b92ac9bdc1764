//! Who may have which name: what a registration and a deletion assert about names, so that two servers cannot register
//! names that some server could not keep apart.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{
    FilePath, Revision,
    path::fold,
    record::{NameKind, NameRecord, name_key},
};

/// A live name record with the revision that made it.
pub type Names = BTreeMap<String, (Revision, NameRecord)>;

/// What a registration has to assert and write about names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Names that must not exist yet: they are written.
    pub new: Vec<(String, NameRecord)>,
    /// Directories that exist with this spelling and must not go away meanwhile.
    pub kept: Vec<(String, Revision)>,
}

/// Two names that some server could not keep apart, or a file where a directory is needed.
#[derive(Debug, PartialEq, Eq)]
pub struct Clash {
    /// The path that is refused.
    pub path: FilePath,
    /// The path that is in the way.
    pub other: String,
}

/// The keys of all name records that registering `paths` depends on.
pub fn keys_of<'a>(paths: impl IntoIterator<Item = &'a FilePath>) -> Vec<String> {
    let keys: BTreeSet<String> = paths
        .into_iter()
        .flat_map(|path| path.ancestors().map(fold).chain([path.folded()]))
        .map(|folded| name_key(&folded))
        .collect();
    keys.into_iter().collect()
}

/// What registering `paths` claims, given the names that exist.
///
/// # Errors
/// The first [`Clash`], with an existing name or within `paths`.
pub fn claim(paths: &[FilePath], names: &Names) -> Result<Claims, Clash> {
    let mut claims: BTreeMap<String, (Option<Revision>, NameRecord)> = BTreeMap::new();
    for path in paths {
        let directories = path.ancestors().map(|directory| (directory, NameKind::Directory));
        for (exact, kind) in directories.chain([(path.as_str(), NameKind::File)]) {
            let key = name_key(&fold(exact));
            let record = NameRecord { path: exact.to_owned(), kind: kind.clone() };
            let existing = names.get(&key).map(|(revision, record)| (Some(*revision), record.clone()));
            let existing = claims.get(&key).cloned().or(existing);
            match existing {
                Some((_, other)) if other != record || kind == NameKind::File => {
                    return Err(Clash { path: path.clone(), other: other.path });
                }
                Some(shared) => claims.insert(key, shared),
                None => claims.insert(key, (None, record)),
            };
        }
    }
    let mut result = Claims::default();
    for (key, (revision, record)) in claims {
        match revision {
            Some(revision) => result.kept.push((key, revision)),
            None => result.new.push((key, record)),
        }
    }
    Ok(result)
}

/// The names that go when the file at `path` goes, innermost first: its own, then each directory that `is_last` says has
/// nothing else below it. The prefix is what must be empty for that.
pub fn release(path: &FilePath, mut is_last: impl FnMut(&str) -> bool) -> (String, Vec<(String, String)>) {
    let mut directories = Vec::new();
    for directory in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
        let key = name_key(&fold(directory));
        let prefix = format!("{key}/");
        if !is_last(&prefix) {
            break;
        }
        directories.push((key, prefix));
    }
    (name_key(&path.folded()), directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(texts: &[&str]) -> Vec<FilePath> {
        texts.iter().map(|text| text.parse().expect("valid")).collect()
    }

    fn names(claims: &Claims) -> Names {
        claims.new.iter().map(|(key, record)| (key.clone(), (Revision(1), record.clone()))).collect()
    }

    /// R37: clashing names have one winner, whichever server asks.
    #[test]
    fn clashing_names_are_refused() {
        let taken = names(&claim(&paths(&["A/x", "b"]), &Names::new()).expect("free"));
        for (path, other) in [("a/y", "A"), ("A/X", "A/x"), ("B", "b"), ("b/c", "b"), ("A", "A"), ("b", "b")]
        {
            let clash = claim(&paths(&[path]), &taken).expect_err(path);
            assert_eq!(clash.other, other, "{path}");
        }
        for free in [&["A/y"][..], &["c/d/e"], &["A/z", "A/w/q"]] {
            claim(&paths(free), &taken).unwrap_or_else(|clash| panic!("{clash:?}"));
        }
        for within in [["q", "Q"], ["q", "q/r"], ["q/r", "q"], ["q", "q"]] {
            assert!(claim(&paths(&within), &taken).is_err(), "{within:?}");
        }
    }

    #[test]
    fn a_directory_goes_with_its_last_file() {
        let path: FilePath = "a/b/c".parse().expect("valid");
        let (own, gone) = release(&path, |prefix| prefix == "name/a/b/");
        assert_eq!(own, "name/a/b/c");
        assert_eq!(gone, [("name/a/b".to_owned(), "name/a/b/".to_owned())]);
        assert_eq!(release(&path, |_| true).1.len(), 2);
    }
}
