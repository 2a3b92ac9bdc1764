//! Which rows changed, in order, for those who watch.
//!
//! A path is remembered once, at its latest change: a slow reader gets the latest of each row. At most 10,000 changed
//! and 10,000 removed paths are remembered. Whoever is further behind walks all rows again; whoever missed a removal
//! that was forgotten has to start over. So there never is a gap.

use std::{collections::BTreeMap, sync::Arc};

/// How many paths each ring remembers.
pub const RING_PATHS_MAX: usize = 10_000;

/// The number of a change within one life of the gateway; 0 before the first.
pub type Sequence = u64;

#[derive(Clone, Debug, Default)]
struct Ring {
    by_sequence: BTreeMap<Sequence, Arc<str>>,
    latest: BTreeMap<Arc<str>, Sequence>,
    /// The last change that was forgotten.
    floor: Sequence,
}

impl Ring {
    fn insert(&mut self, sequence: Sequence, path: Arc<str>) {
        self.remove(&path);
        self.by_sequence.insert(sequence, path.clone());
        self.latest.insert(path, sequence);
        while self.by_sequence.len() > RING_PATHS_MAX
            && let Some((sequence, path)) = self.by_sequence.pop_first()
        {
            self.latest.remove(&path);
            self.floor = sequence;
        }
    }

    fn remove(&mut self, path: &str) {
        if let Some(sequence) = self.latest.remove(path) {
            self.by_sequence.remove(&sequence);
        }
    }

    fn since(&self, sequence: Sequence) -> impl Iterator<Item = (Sequence, &Arc<str>)> {
        self.by_sequence.range(sequence + 1..).map(|(sequence, path)| (*sequence, path))
    }
}

/// The changes of one life of the gateway.
#[derive(Clone, Debug, Default)]
pub struct ChangeLog {
    sequence: Sequence,
    changed: Ring,
    removed: Ring,
}

impl ChangeLog {
    /// The row of `path` may have changed.
    pub fn change(&mut self, path: Arc<str>) {
        self.sequence += 1;
        self.removed.remove(&path);
        self.changed.insert(self.sequence, path);
    }

    /// The row of `path` is gone.
    pub fn remove(&mut self, path: Arc<str>) {
        self.sequence += 1;
        self.changed.remove(&path);
        self.removed.insert(self.sequence, path);
    }

    /// Any row may have changed.
    pub fn change_all(&mut self) {
        self.sequence += 1;
        self.changed = Ring { floor: self.sequence, ..Ring::default() };
    }

    /// The last change.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The changed rows after `sequence`, oldest first; `None` if some are forgotten.
    pub fn changed_since(&self, sequence: Sequence) -> Option<impl Iterator<Item = (Sequence, &Arc<str>)>> {
        (sequence >= self.changed.floor).then(|| self.changed.since(sequence))
    }

    /// The removed rows after `sequence`, oldest first; `None` if some are forgotten.
    pub fn removed_since(&self, sequence: Sequence) -> Option<impl Iterator<Item = (Sequence, &Arc<str>)>> {
        (sequence >= self.removed.floor).then(|| self.removed.since(sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(log: &ChangeLog, since: Sequence) -> Option<Vec<String>> {
        log.changed_since(since).map(|changes| changes.map(|(_, path)| path.to_string()).collect())
    }

    #[test]
    fn a_path_is_remembered_once_at_its_latest_change() {
        let mut log = ChangeLog::default();
        for path in ["a", "b", "a"] {
            log.change(path.into());
        }
        assert_eq!(changed(&log, 0), Some(vec!["b".to_owned(), "a".to_owned()]));
        assert_eq!(changed(&log, 2), Some(vec!["a".to_owned()]));
        log.remove("a".into());
        assert_eq!(changed(&log, 0), Some(vec!["b".to_owned()]));
        log.change("a".into());
        assert_eq!(log.removed_since(0).map(Iterator::count), Some(0));
    }

    #[test]
    fn what_is_forgotten_is_told() {
        let mut log = ChangeLog::default();
        for path in 0..=RING_PATHS_MAX {
            log.change(path.to_string().into());
        }
        assert_eq!(changed(&log, 0), None);
        assert_eq!(changed(&log, 1).map(|paths| paths.len()), Some(RING_PATHS_MAX));
        let before = log.sequence();
        log.change_all();
        assert_eq!(changed(&log, before), None);
        assert_eq!(changed(&log, log.sequence()), Some(Vec::new()));
    }
}
