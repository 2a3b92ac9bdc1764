//! Where a page of records or changes ends: the same for every engine.

use lockstep_model::Revision;

use crate::types::{COMMIT_BYTES_MAX, PAGE_RECORDS_MAX, Record};

/// A page of records: at most `limit` of them and 16 MiB, but at least one.
pub(crate) struct RecordPage {
    limit: usize,
    bytes: usize,
    records: Vec<Record>,
}

impl RecordPage {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.clamp(1, PAGE_RECORDS_MAX), bytes: 0, records: Vec::new() }
    }

    /// Takes the next record; false if it no longer fits, and then the page is finished.
    pub(crate) fn push(&mut self, record: Record) -> bool {
        let bytes = self.bytes + size(&record);
        if self.records.len() == self.limit || (bytes > COMMIT_BYTES_MAX && !self.records.is_empty()) {
            return false;
        }
        self.bytes = bytes;
        self.records.push(record);
        true
    }

    pub(crate) fn finish(self) -> Vec<Record> {
        self.records
    }
}

/// A page of changes: whole transactions, at most `limit` changes and 16 MiB, but at least one transaction.
pub(crate) struct ChangePage {
    limit: usize,
    bytes: usize,
    changes: Vec<Record>,
    /// How many of `changes` belong to transactions that are complete.
    complete: usize,
    left_out: Option<Revision>,
}

impl ChangePage {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, PAGE_RECORDS_MAX);
        Self { limit, bytes: 0, changes: Vec::new(), complete: 0, left_out: None }
    }

    /// Takes the next change, in the order of revision and key; false if the page is finished without it.
    pub(crate) fn push(&mut self, change: Record) -> bool {
        if self.changes.last().is_some_and(|last| last.revision != change.revision) {
            self.complete = self.changes.len();
        }
        self.bytes += size(&change);
        let full = self.changes.len() >= self.limit || self.bytes > COMMIT_BYTES_MAX;
        if full && self.complete > 0 {
            self.changes.truncate(self.complete);
            self.left_out = Some(change.revision);
            return false;
        }
        self.changes.push(change);
        true
    }

    /// The changes, and the revision up to which they are everything.
    pub(crate) fn finish(self, head: Revision) -> (Vec<Record>, Revision) {
        // Between the last transaction that is in and the first that is out, none matched.
        let through = self.left_out.map_or(head, |revision| Revision(revision.0 - 1));
        (self.changes, through)
    }
}

fn size(record: &Record) -> usize {
    record.key.len() + record.body.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(revision: u64, key: usize) -> Record {
        let (key, body) = (format!("k{key:04}"), String::new());
        Record { key, revision: Revision(revision), body, deleted: false, traceparent: String::new() }
    }

    proptest! {
        /// R24, I4: pages joined are the history: nothing twice, nothing left out, no transaction split.
        #[test]
        fn pages_join_to_the_whole(sizes in prop::collection::vec(0_usize..6, 0..12), limit in 1_usize..8) {
            let numbered = sizes.iter().enumerate();
            let all: Vec<Record> =
                numbered.flat_map(|(at, count)| (0..*count).map(move |key| change(at as u64 + 1, key))).collect();
            let head = Revision(sizes.len() as u64);
            let (mut read, mut after) = (Vec::new(), Revision::ZERO);
            while after < head {
                let mut page = ChangePage::new(limit);
                for change in all.iter().filter(|change| change.revision > after) {
                    if !page.push(change.clone()) {
                        break;
                    }
                }
                let (changes, through) = page.finish(head);
                prop_assert!(through > after, "a page moves on");
                let transactions = changes.chunk_by(|a, b| a.revision == b.revision).count();
                prop_assert!(changes.len() <= limit || transactions == 1);
                prop_assert!(changes.iter().all(|change| change.revision > after && change.revision <= through));
                read.extend(changes);
                after = through;
            }
            prop_assert_eq!(read, all);
        }
    }
}
