//! No hand-written file grows beyond what a person reads in one go.

use crate::repository::{assert_none, rust_files};

/// The longest Rust file outside tests.
const LINES_MAX: usize = 400;

/// H5: no file is above 400 lines; only tests may be longer.
#[test]
fn no_file_is_too_long() {
    let problems: Vec<String> = rust_files("")
        .iter()
        .filter(|file| !file.is_within("tests"))
        .map(|file| (file.text.lines().count(), &file.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path} has {lines} lines, more than {LINES_MAX}: split it by idea"))
        .collect();
    assert_none("file length", &problems);
}
