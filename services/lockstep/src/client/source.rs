//! What is to be registered: found on this machine, named, and cut into the parts that one request may carry.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lockstep_model::{FilePath, Reason};

use crate::{
    out,
    problem::{Exit, Problem, Result},
};

/// A file up to this size travels inside the request that registers it.
pub(crate) const INLINE_BYTES_MAX: u64 = 256 << 10;
/// Files in one request, as the contract allows.
const PART_FILES_MAX: usize = 1_000;
/// Bytes in one request: contents, names and what is around them. Requests and answers stay below 4 MiB.
const PART_BYTES_MAX: u64 = 3 << 20;
/// Counted for each file beside its name and content: digests and ids, in the request and in the answer.
const ENTRY_BYTES: u64 = 320;
/// The most files of one command; more are registered directory by directory.
const ENTRIES_MAX: usize = 1_000_000;
/// The deepest directory that is followed.
const DEPTH_MAX: usize = 100;
/// The most mistakes that are listed.
const LISTED_MAX: usize = 10;

/// A file of this machine and the path it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where it is.
    pub(crate) file: PathBuf,
    /// What it will be called.
    pub(crate) path: FilePath,
    /// How large it was when it was found.
    pub(crate) size_bytes: u64,
}

impl Entry {
    /// Whether it travels inside the request.
    pub(crate) fn is_inline(&self) -> bool {
        self.size_bytes <= INLINE_BYTES_MAX
    }

    /// What it adds to a request.
    fn cost(&self) -> u64 {
        let content = if self.is_inline() { self.size_bytes } else { 0 };
        content + self.path.as_str().len() as u64 + ENTRY_BYTES
    }
}

/// Finds every file of `source`, a file or a directory, ordered by path. Every name is checked before anything is sent.
pub(crate) fn collect(source: &Path, path: Option<&str>) -> Result<Vec<Entry>> {
    let what = format!("could not register {}", source.display());
    let metadata = fs::metadata(source).map_err(|error| Problem::io(&what, source.display(), &error))?;
    let own_name = || {
        let real = source.canonicalize().map_err(|error| Problem::io(&what, source.display(), &error))?;
        let name = real.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        name.ok_or_else(|| {
            Problem::new(Exit::Usage, &what, "the source has no name of its own")
                .advise("say which path it is to have")
        })
    };
    let target = match path {
        None => own_name()?,
        Some("/") if metadata.is_dir() => String::new(),
        Some(below) if below.ends_with('/') => format!("{below}{}", own_name()?),
        Some(exact) => exact.to_owned(),
    };
    let mut found = Found::default();
    if metadata.is_dir() {
        found.directory(source, &target, 0).map_err(|error| Problem::io(&what, source.display(), &error))?;
    } else if metadata.is_file() {
        found.file(source.to_owned(), &target, metadata.len());
    } else {
        found.refuse(source.display().to_string(), "is neither a file nor a directory".to_owned());
    }
    found.finish(&what, source)
}

/// Cuts files, in order, into parts that one request may carry.
pub(crate) fn parts(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut parts: Vec<Vec<Entry>> = Vec::new();
    let mut room = 0;
    for entry in entries {
        let cost = entry.cost();
        match parts.last_mut() {
            Some(part) if part.len() < PART_FILES_MAX && cost <= room => {
                room -= cost;
                part.push(entry);
            }
            _ => {
                room = PART_BYTES_MAX.saturating_sub(cost);
                parts.push(vec![entry]);
            }
        }
    }
    parts
}

#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    refused: Vec<String>,
    refused_count: usize,
}

impl Found {
    fn directory(&mut self, directory: &Path, target: &str, depth: usize) -> io::Result<()> {
        if depth >= DEPTH_MAX {
            self.refuse(directory.display().to_string(), "is too deep".to_owned());
            return Ok(());
        }
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let file = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                self.refuse(file.display().to_string(), "has a name that is not UTF-8".to_owned());
                continue;
            };
            let path = if target.is_empty() { name.to_owned() } else { format!("{target}/{name}") };
            if kind.is_dir() {
                self.directory(&file, &path, depth + 1)?;
            } else if kind.is_file() {
                self.file(file, &path, entry.metadata()?.len());
            } else {
                self.refuse(file.display().to_string(), "is a link or a special file".to_owned());
            }
        }
        Ok(())
    }

    fn file(&mut self, file: PathBuf, path: &str, size_bytes: u64) {
        match path.parse() {
            _ if self.entries.len() >= ENTRIES_MAX => {
                self.refuse(
                    file.display().to_string(),
                    format!("is beyond the {ENTRIES_MAX} files of one command"),
                );
            }
            Ok(path) => self.entries.push(Entry { file, path, size_bytes }),
            Err(error) => self.refuse(path.to_owned(), format!("{error} ({})", Reason::PathInvalid)),
        }
    }

    fn refuse(&mut self, name: String, why: String) {
        self.refused_count += 1;
        if self.refused.len() < LISTED_MAX {
            self.refused.push(format!("{}: {why}", out::escaped(&name)));
        }
    }

    fn finish(mut self, what: &str, source: &Path) -> Result<Vec<Entry>> {
        if self.refused_count > 0 {
            if self.refused_count > self.refused.len() {
                self.refused.push(format!("and {} more", self.refused_count - self.refused.len()));
            }
            return Err(Problem::new(Exit::Failed, what, self.refused.join("\n"))
                .at(source.display())
                .advise("rename or move away what is named; nothing was registered"));
        }
        if self.entries.is_empty() {
            return Err(Problem::new(Exit::Failed, what, "the directory holds no files").at(source.display()));
        }
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, size_bytes: u64) -> Entry {
        Entry { file: PathBuf::from(path), path: path.parse().expect("valid"), size_bytes }
    }

    fn tree() -> PathBuf {
        let directory = std::env::temp_dir().join(format!("lockstep-source-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(directory.join("a/b")).expect("created");
        fs::write(directory.join("a/b/two"), b"22").expect("written");
        fs::write(directory.join("one"), b"1").expect("written");
        directory
    }

    fn paths(source: &Path, path: Option<&str>) -> Vec<String> {
        collect(source, path).expect("collected").into_iter().map(|entry| entry.path.to_string()).collect()
    }

    #[test]
    fn a_tree_is_named_below_its_target() {
        let tree = tree();
        let name = tree.file_name().and_then(|name| name.to_str()).expect("named").to_owned();
        assert_eq!(paths(&tree, Some("x/y")), ["x/y/a/b/two", "x/y/one"]);
        assert_eq!(paths(&tree, Some("/")), ["a/b/two", "one"]);
        assert_eq!(paths(&tree, None), [format!("{name}/a/b/two"), format!("{name}/one")]);
        assert_eq!(paths(&tree.join("one"), Some("x/")), ["x/one"]);
        assert_eq!(paths(&tree.join("one"), None), ["one"]);
        fs::remove_dir_all(tree).expect("removed");
    }

    #[test]
    fn every_bad_name_of_a_tree_is_told_at_once() {
        let tree = tree();
        fs::write(tree.join("con"), b"").expect("written");
        std::os::unix::fs::symlink("one", tree.join("link")).expect("linked");
        let problem = collect(&tree, Some("x")).expect_err("refused").render(crate::cli::Format::Text);
        assert!(problem.contains("x/con: ") && problem.contains("link: is a link"), "{problem}");
        fs::remove_dir_all(tree).expect("removed");
    }

    #[test]
    fn a_part_is_bounded_in_files_and_bytes() {
        let small: Vec<Entry> = (0..2_500).map(|n| entry(&format!("f{n}"), 0)).collect();
        assert_eq!(parts(small).iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        let inline: Vec<Entry> = (0..24).map(|n| entry(&format!("f{n}"), INLINE_BYTES_MAX)).collect();
        assert!(parts(inline).iter().all(|part| part.iter().map(Entry::cost).sum::<u64>() <= PART_BYTES_MAX));
        let large: Vec<Entry> = (0..24).map(|n| entry(&format!("f{n}"), 1 << 40)).collect();
        assert_eq!(parts(large).len(), 1);
    }
}
