//! The files of this repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that hold nothing written by hand.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate is a folder of the repository")
        .to_owned()
}

/// The text of the file at a path relative to the root.
pub(crate) fn text(relative: &str) -> String {
    fs::read_to_string(root().join(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// A file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl File {
    /// Whether a component of the path, or its file name without the extension, is `name`.
    pub(crate) fn is_within(&self, name: &str) -> bool {
        self.path.split('/').any(|part| part == name || part.strip_suffix(".rs") == Some(name))
    }
}

/// Every Rust file below `folder`, ordered by path.
pub(crate) fn rust_files(folder: &str) -> Vec<File> {
    files(folder, "rs")
}

/// Every file with this extension below `folder`, ordered by path. A folder that does not exist has none.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<File> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut |path| {
        if path.extension().is_some_and(|found| found == extension) {
            let relative = path.strip_prefix(root()).expect("below the root");
            found.push(relative.to_str().expect("our own paths are text").to_owned());
        }
    });
    found.sort();
    found.into_iter().map(|path| File { text: text(&path), path }).collect()
}

fn walk(folder: &Path, each: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("readable").path()) {
        if SKIPPED.iter().any(|skipped| path.ends_with(skipped)) {
            continue;
        }
        if path.is_dir() { walk(&path, each) } else { each(&path) }
    }
}

/// Panics with one line for each problem, if there are any: all of them are told at once.
pub(crate) fn assert_none(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{} problem(s) with {what}:\n  {}\n", problems.len(), problems.join("\n  "));
}
