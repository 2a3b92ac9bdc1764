//! What one server lacks of a part of the files, without looking at each: what its position has not reached, corrected by
//! what it named one by one.

use std::{collections::BTreeSet, sync::Arc};

use lockstep_model::{Reason, Revision, ServerId};

use crate::domain::{
    cell::{CellState, last_said},
    records::{FileEntry, Records},
    report::Report,
    server::Server,
    tally::Sum,
};

/// A part of the files: those below a prefix that were registered up to a revision.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// What paths begin with.
    pub prefix: &'a str,
    /// The last revision that belongs to it.
    pub through: Revision,
}

impl Scope<'_> {
    /// Whether a file belongs to it.
    pub fn holds(&self, path: &str, file: &FileEntry) -> bool {
        file.revision <= self.through && path.starts_with(self.prefix)
    }

    /// How many files of it are meant for a server. With a prefix each of them is looked at.
    pub fn meant_count(&self, records: &Records, id: &ServerId) -> usize {
        if self.prefix.is_empty() {
            return records.meant_count(id).saturating_sub(records.meant_above(id, self.through).files);
        }
        let below = records.files_after(self.prefix, "").filter(|(_, file)| file.revision <= self.through);
        below.filter(|(_, file)| file.is_meant_for(id)).count()
    }

    /// The files of it above `applied` that are meant for a server.
    fn beyond(&self, records: &Records, id: &ServerId, applied: Revision) -> Sum {
        if self.prefix.is_empty() {
            return records
                .meant_above(id, applied)
                .without(records.meant_above(id, self.through.max(applied)));
        }
        let later = records.between(applied, self.through).filter(|path| path.starts_with(self.prefix));
        let meant = later.filter_map(|path| records.file(path)).filter(|file| file.is_meant_for(id));
        meant.fold(Sum::default(), |sum, file| sum.and(file.size_bytes))
    }
}

/// What a server lacks, as it was known last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// Files that it has not come to.
    pub pending: usize,
    /// Files whose bytes are on their way.
    pub copying: usize,
    /// Files whose last try failed, or that drifted.
    pub failed: usize,
    /// Bytes to be copied, without those of files that drifted.
    pub remaining_bytes: u64,
    /// The oldest change that is not there.
    pub oldest: Option<(Revision, Arc<str>)>,
}

impl Lack {
    /// Files that are not there.
    pub fn files(&self) -> usize {
        self.pending + self.copying + self.failed
    }
}

/// What `server` lacks of `scope`; `None` if nothing is known of its copies.
pub fn lack(records: &Records, (id, server): (&ServerId, &Server), scope: Scope<'_>) -> Option<Lack> {
    let report = server.report.as_ref().filter(|report| report.unverifiable().is_none())?;
    let applied = report.summary.position.revision;
    let beyond = scope.beyond(records, id, applied);
    let mut lack = Lack { pending: beyond.files, remaining_bytes: beyond.bytes, ..Lack::default() };
    let mut oldest: Option<(Revision, &Arc<str>)> = None;
    for (path, file) in
        named(records, report).filter(|(path, file)| scope.holds(path, file) && file.is_meant_for(id))
    {
        if file.revision > applied {
            lack.pending = lack.pending.saturating_sub(1);
            lack.remaining_bytes = lack.remaining_bytes.saturating_sub(file.size_bytes);
        }
        let copied = report.summary.transfers.get(&**path).map_or(0, |transfer| transfer.copied_bytes);
        let bytes = match last_said(server, file.asked(path, id)) {
            Some(CellState::Copying) => {
                lack.copying += 1;
                file.size_bytes.saturating_sub(copied)
            }
            Some(CellState::Failed) => {
                lack.failed += 1;
                if is_drifted(report, path) { 0 } else { file.size_bytes }
            }
            Some(CellState::Pending) => {
                lack.pending += 1;
                file.size_bytes
            }
            _ => continue,
        };
        lack.remaining_bytes = lack.remaining_bytes.saturating_add(bytes);
        oldest = oldest.into_iter().chain([(file.revision, path)]).min();
    }
    let first = records.between(applied, scope.through).find_map(|path| {
        let file =
            records.file(path).filter(|file| path.starts_with(scope.prefix) && file.is_meant_for(id))?;
        (last_said(server, file.asked(path, id)) != Some(CellState::InSync)).then_some((file.revision, path))
    });
    oldest = oldest.into_iter().chain(first).min();
    lack.oldest = oldest.map(|(revision, path)| (revision, path.clone()));
    Some(lack)
}

/// The registered files that the server named one by one.
pub fn named<'a>(
    records: &'a Records,
    report: &'a Report,
) -> impl Iterator<Item = (&'a Arc<str>, &'a FileEntry)> {
    let names: BTreeSet<&str> =
        report.exceptions.keys().chain(report.held_ahead.keys()).map(String::as_str).collect();
    names.into_iter().filter_map(|path| records.entry(path))
}

fn is_drifted(report: &Report, path: &str) -> bool {
    let cause = report.exceptions.get(path).and_then(|(exception, _)| exception.cause.as_ref());
    cause.is_some_and(|cause| cause.is(Reason::Drifted))
}
