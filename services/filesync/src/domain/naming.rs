//! Who may have which name: what a registration, a move and a deletion assert about names, so that two servers cannot
//! register names that some server could not keep apart.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{
    FilePath, Revision,
    path::{InvalidPath, fold},
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

/// What files that go, and files that come instead of them, do to names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names that must not exist yet.
    pub absent: Vec<String>,
    /// Names that must be what they are.
    pub kept: Vec<(String, Revision)>,
    /// Prefixes below which there must be nothing but what is changed with them.
    pub empty: Vec<String>,
    /// Names to write.
    pub puts: Vec<(String, NameRecord)>,
    /// Names to delete.
    pub deletes: Vec<String>,
}

/// What happens to names when the files at `gone` go, the directories `emptied` with them, and files at `new` come.
///
/// # Errors
/// The first [`Clash`]. A name that goes may be taken in another spelling, but a file by a directory or the other way
/// round may not: no server could change both in one step.
pub fn relocate(
    gone: &[FilePath],
    emptied: &BTreeSet<String>,
    new: &[FilePath],
    names: &Names,
) -> Result<Changes, Clash> {
    let files = gone.iter().map(|path| (name_key(&path.folded()), false));
    let going: BTreeMap<String, bool> =
        files.chain(emptied.iter().map(|directory| (name_key(&fold(directory)), true))).collect();
    let mut remaining = names.clone();
    remaining.retain(|key, _| !going.contains_key(key));
    let claims = claim(new, &remaining)?;
    let mut changes = Changes { kept: claims.kept, ..Changes::default() };
    for (key, record) in claims.new {
        match names.get(&key) {
            None => changes.absent.push(key.clone()),
            Some((_, old)) if old.kind != record.kind => {
                let below = format!("{key}/");
                let claims_it = |path: &&FilePath| {
                    let own = name_key(&path.folded());
                    own == key || own.starts_with(&below)
                };
                let path = new.iter().find(claims_it).or_else(|| new.first()).cloned();
                return Err(path.map_or_else(
                    || unreachable!("a claim belongs to a path"),
                    |path| Clash { path, other: old.path.clone() },
                ));
            }
            Some((revision, old)) => {
                changes.kept.push((key.clone(), *revision));
                if *old == record {
                    continue;
                }
                if record.kind == NameKind::Directory {
                    changes.empty.push(format!("{key}/"));
                }
            }
        }
        changes.puts.push((key, record));
    }
    let kept: BTreeSet<&String> =
        changes.kept.iter().map(|(key, _)| key).chain(changes.puts.iter().map(|(key, _)| key)).collect();
    for (key, is_directory) in going.into_iter().filter(|(key, _)| !kept.contains(key)) {
        if is_directory {
            changes.empty.push(format!("{key}/"));
        }
        changes.deletes.push(key);
    }
    Ok(changes)
}

/// The most names that are tried for a path that is taken.
pub const NUMBERS_MAX: u32 = 10_000;

/// The path with a number before its extension: `name(1).ext`.
///
/// # Errors
/// The rule that the name would break: it grew too long.
pub fn numbered(path: &FilePath, number: u32) -> Result<FilePath, InvalidPath> {
    let name = path.name();
    // A dot at the beginning hides a file; it begins no extension.
    let at = name.char_indices().skip(1).filter(|(_, c)| *c == '.').last().map_or(name.len(), |(at, _)| at);
    let (stem, extension) = name.split_at(at);
    let above = path.parent().map_or_else(String::new, |parent| format!("{parent}/"));
    format!("{above}{stem}({number}){extension}").parse()
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

    fn emptied(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_directory_goes_with_its_last_file() {
        let taken = names(&claim(&paths(&["a/b/c"]), &Names::new()).expect("free"));
        let gone = |directories: &[&str]| {
            relocate(&paths(&["a/b/c"]), &emptied(directories), &[], &taken).expect("nothing comes")
        };
        assert_eq!(gone(&[]).deletes, ["name/a/b/c"]);
        assert_eq!(gone(&["a/b"]).deletes, ["name/a/b", "name/a/b/c"]);
        assert_eq!(gone(&["a/b"]).empty, ["name/a/b/"]);
        assert_eq!(gone(&["a", "a/b"]).empty, ["name/a/", "name/a/b/"]);
    }

    /// R37, R38: what a move takes is asserted, what it leaves goes, what both share stays as it is.
    #[test]
    fn a_move_takes_and_leaves_names() {
        let taken = names(&claim(&paths(&["a/b/c", "k"]), &Names::new()).expect("free"));
        let to = |new: &str, directories: &[&str]| {
            relocate(&paths(&["a/b/c"]), &emptied(directories), &paths(&[new]), &taken)
        };
        let down = to("x/c", &["a", "a/b"]).expect("free");
        assert_eq!(down.absent, ["name/x", "name/x/c"]);
        assert_eq!(down.deletes, ["name/a", "name/a/b", "name/a/b/c"]);
        let beside = to("a/b/d", &["a", "a/b"]).expect("free");
        assert_eq!((beside.absent, beside.deletes), (vec!["name/a/b/d".into()], vec!["name/a/b/c".into()]));
        assert_eq!(beside.kept.len(), 2, "the directories stay");
        // Another spelling: nobody may have come into the directory meanwhile.
        let respelled = to("A/b/C", &["a", "a/b"]).expect("its own names");
        assert_eq!(respelled.empty, ["name/a/", "name/a/b/"]);
        assert_eq!((respelled.puts.len(), respelled.deletes.len(), respelled.absent.len()), (3, 0, 0));
        let only_name = to("a/b/C", &[]).expect("its own name");
        assert_eq!(only_name.puts.len(), 1);
        for (new, other) in [("k", "k"), ("K/x", "k"), ("a/b", "a/b"), ("a/b/c/d", "a/b/c"), ("A/b/d", "a")] {
            let directories: &[&str] = if new == "A/b/d" { &[] } else { &["a", "a/b"] };
            assert_eq!(to(new, directories).expect_err(new).other, other, "{new}");
        }
    }

    /// R37: the number goes before the extension, and a name that grows too long is refused.
    #[test]
    fn numbers_go_before_the_extension() {
        for (path, expected) in [
            ("os/base.img", "os/base(1).img"),
            ("a.tar.gz", "a.tar(1).gz"),
            ("a.b/noext", "a.b/noext(1)"),
            (".hidden", ".hidden(1)"),
            ("é.ü", "é(1).ü"),
        ] {
            let path: FilePath = path.parse().expect("valid");
            assert_eq!(numbered(&path, 1).expect("valid").as_str(), expected);
        }
        let longest: FilePath = "x".repeat(255).parse().expect("valid");
        assert!(numbered(&longest, 1).is_err());
    }
}
