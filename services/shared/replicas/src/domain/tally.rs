//! How many files, and how many bytes, have a revision above some revision: without looking at each of a million files.
//!
//! Revisions are divided into spans of some thousand files, each with its sums. A span that grows too large is halved.

use std::collections::BTreeMap;

use lockstep_model::Revision;

/// A span with more files is halved, if they are of more than one revision.
const SPAN_FILES_MAX: usize = 4_096;

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many files.
    pub files: usize,
    /// How many bytes.
    pub bytes: u64,
}

impl Sum {
    /// With one file more.
    pub fn and(self, bytes: u64) -> Self {
        Self { files: self.files + 1, bytes: self.bytes.saturating_add(bytes) }
    }

    fn plus(self, other: Self) -> Self {
        Self { files: self.files + other.files, bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// Without what `other` has, which is part of it.
    pub fn without(self, other: Self) -> Self {
        Self { files: self.files.saturating_sub(other.files), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// The sums of spans of revisions, each under its first revision.
#[derive(Clone, Debug)]
pub struct Tally {
    spans: BTreeMap<Revision, Sum>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { spans: BTreeMap::from([(Revision::ZERO, Sum::default())]) }
    }
}

impl Tally {
    /// A file has this revision now. Returns the span, first revision and the one after its last, if it is too large.
    pub fn add(&mut self, revision: Revision, bytes: u64) -> Option<(Revision, Option<Revision>)> {
        let start = self.start(revision);
        let sum = self.spans.entry(start).or_default();
        *sum = sum.and(bytes);
        // At powers of two only: a span of one revision cannot be halved, and must not be tried with each file.
        (sum.files > SPAN_FILES_MAX && sum.files.is_power_of_two()).then(|| (start, self.after(start)))
    }

    /// A file has this revision no more.
    pub fn remove(&mut self, revision: Revision, bytes: u64) {
        let start = self.start(revision);
        if let Some(sum) = self.spans.get_mut(&start) {
            *sum = Sum { files: sum.files.saturating_sub(1), bytes: sum.bytes.saturating_sub(bytes) };
        }
    }

    /// Halves the span that begins at `start`: `files` are those in it, in the order of their revisions.
    pub fn halve(&mut self, start: Revision, files: &[(Revision, u64)]) {
        // The first revision of the second half; all files of one revision stay together.
        let middle = files.get(files.len() / 2).map(|(revision, _)| *revision);
        let first = files.first().map(|(revision, _)| *revision);
        let later = files.iter().map(|(revision, _)| *revision);
        let Some(cut) = middle
            .filter(|middle| Some(*middle) != first)
            .or_else(|| later.into_iter().find(|revision| Some(*revision) != first))
        else {
            return;
        };
        let sum =
            |part: &[(Revision, u64)]| part.iter().fold(Sum::default(), |sum, (_, bytes)| sum.and(*bytes));
        let at = files.partition_point(|(revision, _)| *revision < cut);
        let (lower, upper) = files.split_at(at);
        self.spans.insert(start, sum(lower));
        self.spans.insert(cut, sum(upper));
    }

    /// The sum of all spans that begin above `revision`, and where they begin: what lies between is to be added.
    pub fn above(&self, revision: Revision) -> (Sum, Option<Revision>) {
        let mut spans = self.spans.range(revision.next()..).peekable();
        let begin = spans.peek().map(|(start, _)| **start);
        (spans.fold(Sum::default(), |all, (_, sum)| all.plus(*sum)), begin)
    }

    fn start(&self, revision: Revision) -> Revision {
        self.spans.range(..=revision).next_back().map_or(Revision::ZERO, |(start, _)| *start)
    }

    fn after(&self, start: Revision) -> Option<Revision> {
        self.spans.range(start.next()..).next().map(|(start, _)| *start)
    }
}
