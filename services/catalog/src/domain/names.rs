//! Names that come together, in one entry of a feed or one archive: each valid, and all of them storable side by side.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{FilePath, Folded, path::fold};

/// The longest piece of foreign text in a message, in characters.
const SHOWN_CHARS_MAX: usize = 200;
/// The most bytes that names take in memory, directories above them included.
pub const NAMES_BYTES_MAX: usize = 32 << 20;

/// The names so far.
#[derive(Debug, Default)]
pub struct Names {
    /// Files and all directories above them, by what some server takes them for.
    taken: BTreeMap<Folded, Taken>,
    /// The exact names of all directories: what is below one of them needs no look at those above it.
    directories: BTreeSet<String>,
    bytes: usize,
}

#[derive(Debug)]
struct Taken {
    exact: String,
    is_directory: bool,
}

/// Why a name cannot stand beside the others; foreign text is escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// Twice the same.
    #[error("the name is there twice")]
    Twice,
    /// Some server could not tell them apart.
    #[error("some server could not tell the name from {0}")]
    Alike(String),
    /// A file and a directory of one name.
    #[error("{0} is a file and a directory")]
    FileAndDirectory(String),
    /// All of them together.
    #[error("the names take more than 32 MiB")]
    TooMany,
}

impl Names {
    /// Adds a file.
    ///
    /// # Errors
    /// Why it cannot stand beside the others; then nothing more should be added.
    pub fn add_file(&mut self, path: &FilePath) -> Result<(), Clash> {
        self.add_above(path)?;
        self.take(path.as_str(), false)
    }

    /// Adds a directory; it may be there already.
    ///
    /// # Errors
    /// Why it cannot stand beside the others; then nothing more should be added.
    pub fn add_directory(&mut self, path: &FilePath) -> Result<(), Clash> {
        self.add_above(path)?;
        self.take(path.as_str(), true)
    }

    fn add_above(&mut self, path: &FilePath) -> Result<(), Clash> {
        let above: Vec<&str> = path.ancestors().collect();
        let known = above.iter().rposition(|directory| self.directories.contains(*directory));
        above[known.map_or(0, |known| known + 1)..]
            .iter()
            .try_for_each(|directory| self.take(directory, true))
    }

    fn take(&mut self, exact: &str, is_directory: bool) -> Result<(), Clash> {
        let folded = fold(exact);
        if let Some(there) = self.taken.get(&folded) {
            return match () {
                () if there.is_directory != is_directory => Err(Clash::FileAndDirectory(shown(exact))),
                () if there.exact != exact => Err(Clash::Alike(shown(&there.exact))),
                () if !is_directory => Err(Clash::Twice),
                () => Ok(()),
            };
        }
        self.bytes += folded.as_str().len() + exact.len() * if is_directory { 2 } else { 1 };
        if self.bytes > NAMES_BYTES_MAX {
            return Err(Clash::TooMany);
        }
        if is_directory {
            self.directories.insert(exact.to_owned());
        }
        self.taken.insert(folded, Taken { exact: exact.to_owned(), is_directory });
        Ok(())
    }
}

/// Foreign text for a message: quoted, with everything written out that a terminal would obey or hide, and cut.
pub fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let mark = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(names: &[&str]) -> Result<(), Clash> {
        let mut taken = Names::default();
        names.iter().try_for_each(|name| match name.strip_suffix('/') {
            Some(directory) => taken.add_directory(&directory.parse().expect(name)),
            None => taken.add_file(&name.parse().expect(name)),
        })
    }

    /// R59: what some server could not store side by side does not come in together.
    #[test]
    fn names_that_clash_are_refused() {
        for fine in [&["a/b", "a/c", "d"][..], &["a/", "a/b", "a/"], &["a", "ab", "b"]] {
            assert_eq!(add(fine), Ok(()), "{fine:?}");
        }
        let alike = |text: &str| Err(Clash::Alike(shown(text)));
        let both = |text: &str| Err(Clash::FileAndDirectory(shown(text)));
        for (names, outcome) in [
            (&["a", "a"][..], Err(Clash::Twice)),
            (&["a", "A"], alike("a")),
            (&["A/x", "a/y"], alike("A")),
            (&["é", "e\u{301}"], alike("é")),
            (&["straße/x", "STRASSE/y"], alike("straße")),
            (&["a/b", "a"], both("a")),
            (&["a", "a/b"], both("a")),
            (&["a", "A/b"], both("A")),
            (&["a", "a/"], both("a")),
            (&["A/", "a/"], alike("A")),
        ] {
            assert_eq!(add(names), outcome, "{names:?}");
        }
    }

    /// R59: names are bounded, whatever their number, and cost no more than they are long.
    #[test]
    fn names_are_bounded() {
        let directory = vec!["d".repeat(200); 10].join("/");
        let mut taken = Names { bytes: NAMES_BYTES_MAX - 1_000_000, ..Names::default() };
        let add = |index: usize| taken.add_file(&format!("{directory}/{index}").parse().expect("valid"));
        let fitting = (0..1_000).map(add).take_while(Result::is_ok).count();
        assert!((200..300).contains(&fitting), "{fitting}");
        assert_eq!(taken.add_file(&format!("{directory}/last").parse().expect("valid")), Err(Clash::TooMany));
    }

    #[test]
    fn foreign_text_is_escaped_and_cut() {
        assert_eq!(shown("a\u{202e}\n\u{1b}[m"), r#""a\u{202e}\n\u{1b}[m""#);
        assert_eq!(shown(&"ä".repeat(300)).chars().count(), SHOWN_CHARS_MAX + 3);
    }
}
