//! What a wait is for: some files, verified on every server. Pure: rows go in, a verdict comes out.

use std::collections::BTreeMap;

use lockstep_proto::{
    filesync::v1::File,
    gateway::v1::{Cell, Row, cell::State},
};

use super::shape;

/// Files that are to be in sync everywhere, and what is missing.
pub(crate) struct Goal {
    prefix: String,
    missing: BTreeMap<String, Missing>,
}

/// A file that is not in sync everywhere yet.
struct Missing {
    revision: i64,
    /// What the matrix says; empty until it has come to this revision.
    cells: Vec<Cell>,
    /// Somebody deleted it meanwhile.
    removed: bool,
}

/// How far the goal is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every file is verified on every server that takes part.
    Reached,
    /// Some copy is on its way.
    Waiting,
    /// Whatever is missing is on servers that are unreachable or failing, or was deleted.
    Stuck,
}

impl Goal {
    /// These files at these revisions.
    pub(crate) fn of(files: &[File]) -> Self {
        let missing = files.iter().map(|file| {
            let missing = Missing { revision: file.revision, cells: Vec::new(), removed: false };
            (file.path.clone(), missing)
        });
        Self {
            prefix: common_prefix(files.iter().map(|file| file.path.as_str())),
            missing: missing.collect(),
        }
    }

    /// The text that all paths begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How many files are not in sync.
    pub(crate) fn missing_count(&self) -> usize {
        self.missing.len()
    }

    /// Takes in what the matrix says of one file.
    pub(crate) fn row(&mut self, row: Row) {
        let Some(missing) = self.missing.get_mut(&row.path) else { return };
        if row.revision < missing.revision {
            return;
        }
        let settled = |cell: &Cell| matches!(cell.state(), State::InSync | State::NotEligible);
        if !row.cells.is_empty() && row.cells.iter().all(settled) {
            self.missing.remove(&row.path);
        } else {
            missing.cells = row.cells;
            missing.removed = false;
        }
    }

    /// Takes in that a file is not registered any more.
    pub(crate) fn removed(&mut self, path: &str) {
        if let Some(missing) = self.missing.get_mut(path) {
            missing.removed = true;
            missing.cells.clear();
        }
    }

    /// How far it is.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.missing.is_empty() {
            return Verdict::Reached;
        }
        let hopeless = |cell: &Cell| {
            matches!(cell.state(), State::InSync | State::NotEligible | State::Unreachable | State::Failed)
        };
        let stuck = |missing: &Missing| {
            missing.removed || (!missing.cells.is_empty() && missing.cells.iter().all(hopeless))
        };
        if self.missing.values().all(stuck) { Verdict::Stuck } else { Verdict::Waiting }
    }

    /// The first few of what is missing, one a line.
    pub(crate) fn describe(&self, limit: usize) -> String {
        let mut lines: Vec<String> =
            self.missing.iter().take(limit).map(|(path, missing)| missing.describe(path)).collect();
        if self.missing.len() > limit {
            lines.push(format!("and {} more", self.missing.len() - limit));
        }
        lines.join("\n")
    }
}

impl Missing {
    fn describe(&self, path: &str) -> String {
        if self.removed {
            return format!("{path} was deleted meanwhile");
        }
        if self.cells.is_empty() {
            return format!("{path} at revision {} is not in the matrix yet", self.revision);
        }
        let open =
            self.cells.iter().filter(|cell| !matches!(cell.state(), State::InSync | State::NotEligible));
        let words: Vec<String> =
            open.map(|cell| format!("on {}: {}", cell.server_id, shape::cell_words(cell))).collect();
        format!("{path} {}", words.join("; "))
    }
}

fn common_prefix<'a>(mut paths: impl Iterator<Item = &'a str>) -> String {
    let Some(first) = paths.next() else { return String::new() };
    let mut length = first.len();
    for path in paths {
        let same = first.chars().zip(path.chars()).take_while(|(a, b)| a == b);
        length = length.min(same.map(|(a, _)| a.len_utf8()).sum());
    }
    first[..length].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, revision: i64) -> File {
        File { path: path.to_owned(), revision, ..File::default() }
    }

    fn row(path: &str, revision: i64, states: &[State]) -> Row {
        let cell = |(number, state): (usize, &State)| Cell {
            server_id: format!("s{}", number + 1),
            state: *state as i32,
            ..Cell::default()
        };
        Row {
            path: path.to_owned(),
            revision,
            cells: states.iter().enumerate().map(cell).collect(),
            ..Row::default()
        }
    }

    #[test]
    fn a_goal_is_reached_when_every_copy_is_verified_at_its_revision() {
        let mut goal = Goal::of(&[file("a/x", 3), file("a/y", 4)]);
        assert_eq!(goal.prefix(), "a/");
        goal.row(row("a/x", 2, &[State::InSync, State::InSync]));
        assert_eq!((goal.missing_count(), goal.verdict()), (2, Verdict::Waiting));
        goal.row(row("a/x", 3, &[State::InSync, State::NotEligible]));
        goal.row(row("a/y", 4, &[State::InSync, State::Copying]));
        assert_eq!((goal.missing_count(), goal.verdict()), (1, Verdict::Waiting));
        goal.row(row("a/y", 5, &[State::InSync, State::InSync]));
        assert_eq!(goal.verdict(), Verdict::Reached);
    }

    #[test]
    fn a_goal_is_stuck_when_only_bad_servers_are_left() {
        let mut goal = Goal::of(&[file("a", 1), file("b", 2)]);
        goal.row(row("a", 1, &[State::InSync, State::Unreachable]));
        assert_eq!(goal.verdict(), Verdict::Waiting);
        goal.removed("b");
        assert_eq!(goal.verdict(), Verdict::Stuck);
        assert_eq!(goal.describe(1), "a on s2: UNREACHABLE\nand 1 more");
        goal.row(row("a", 1, &[State::Pending, State::Unreachable]));
        assert_eq!(goal.verdict(), Verdict::Waiting);
    }

    #[test]
    fn no_servers_are_not_every_server() {
        let mut goal = Goal::of(&[file("a", 1)]);
        goal.row(row("a", 1, &[]));
        assert_eq!(goal.verdict(), Verdict::Waiting);
    }
}
