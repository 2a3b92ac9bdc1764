//! Rows of the view: listed page by page, and watched.
//!
//! What an answer costs is bounded by what is looked at, not by what is found: a page of few matches among a million rows
//! ends after [`EXAMINED_MAX`] of them, fewer if there are many servers, and says where to go on. Where only what servers
//! named can match, such as everything that failed, only that is looked at.

use std::{collections::BTreeSet, sync::Arc};

use lockstep_model::{Revision, ServerId};

use super::View;
use crate::domain::{
    Moment,
    cell::{Cell, CellState, cell, state, whole_state},
    cursor::{Cursor, Walk},
    filter::Filter,
    records::{FileEntry, Records},
    server::Server,
};

/// The most rows in one answer.
const ROWS_MAX: usize = 500;
/// The most cells in one answer: with texts of their longest they stay below the 4 MiB of a message.
const CELLS_MAX: usize = 2_500;
/// The most rows that are looked at for one answer.
pub const EXAMINED_MAX: usize = 20_000;
/// The most cells that are looked at for one answer: a few milliseconds, in which nothing else changes the view.
const EXAMINED_CELLS_MAX: usize = 60_000;

/// One file on all servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The path.
    pub path: Arc<str>,
    /// The revision that every server should hold.
    pub revision: Revision,
    /// Size of the content.
    pub size_bytes: u64,
    /// The server it was registered on.
    pub origin: Arc<ServerId>,
    /// One for each server that is shown, ordered by id.
    pub cells: Vec<(ServerId, Cell)>,
}

/// Some rows, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Ordered by path.
    pub rows: Vec<Row>,
    /// The last path that was looked at, if there are more.
    pub next: Option<Arc<str>>,
}

/// What a watcher is told next.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// New or changed rows.
    pub rows: Vec<Row>,
    /// Paths that are not registered any more, or whose rows do not match any more.
    pub removed: Vec<Arc<str>>,
}

/// The place of a watch is not known any more: it has to start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired;

/// What was found on the way through some paths.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    /// Paths that do not match.
    others: Vec<Arc<str>>,
    /// The last path that was looked at, if not all of them were.
    next: Option<Arc<str>>,
}

impl View {
    /// How many rows fit into one answer, `wanted` at most: one answer has a bounded number of cells, and makes headway
    /// with any number of servers.
    fn fitting(&self, wanted: usize, filter: &Filter) -> usize {
        let shown = self.shown(filter).count().max(1);
        wanted.min(ROWS_MAX).min(CELLS_MAX / shown).max(1)
    }

    fn shown<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = (&'a ServerId, &'a Server)> {
        self.copies.servers().iter().filter(|(id, _)| filter.shows(id))
    }

    /// The row, if it is one that the filter admits.
    fn row(&self, filter: &Filter, path: &Arc<str>, file: &FileEntry, now: Moment) -> Option<Row> {
        let admitted =
            |(id, server): (&ServerId, &Server)| filter.admits(state(server, file.asked(path, id)));
        if filter.is_by_state() && !self.shown(filter).any(admitted) {
            return None;
        }
        let cell = |(id, server): (&ServerId, &Server)| (id.clone(), cell(server, file.asked(path, id), now));
        Some(Row {
            path: path.clone(),
            revision: file.revision,
            size_bytes: file.size_bytes,
            origin: file.origin.clone(),
            cells: self.shown(filter).map(cell).collect(),
        })
    }

    /// How many rows may be looked at for one answer.
    fn examined(&self, limit: usize, filter: &Filter) -> usize {
        EXAMINED_MAX.min(EXAMINED_CELLS_MAX / self.shown(filter).count().max(1)).max(limit)
    }

    /// Looks at `most` files until it has found `limit` rows.
    fn look<'a>(
        &self,
        filter: &Filter,
        files: impl Iterator<Item = (&'a Arc<str>, &'a FileEntry)>,
        limit: usize,
        most: usize,
        now: Moment,
    ) -> Found {
        let mut left = most;
        let (mut files, mut found, mut last) = (files.peekable(), Found::default(), None);
        while found.rows.len() < limit
            && left > 0
            && let Some((path, file)) = files.next()
        {
            left -= 1;
            last = Some(path);
            match self.row(filter, path, file, now) {
                Some(row) => found.rows.push(row),
                None => found.others.push(path.clone()),
            }
        }
        found.next = last.filter(|_| files.peek().is_some()).cloned();
        found
    }

    /// Rows that the filter admits after the path `after`, ordered by path.
    pub fn list(&self, filter: &Filter, after: &str, wanted: usize, now: Moment) -> Page {
        let Some(records) = self.copies.records() else { return Page::default() };
        let limit = self.fitting(wanted, filter);
        let most = self.examined(limit, filter);
        let Found { rows, next, .. } = match self.candidates(records, filter, after) {
            Some(paths) => {
                let files = paths.into_iter().filter_map(|path| records.entry(path));
                self.look(filter, files, limit, most, now)
            }
            None => self.look(filter, below(records, filter, after), limit, most, now),
        };
        Page { rows, next }
    }

    /// The only paths that can match, where that are few; `None` if any may.
    fn candidates<'a>(
        &'a self,
        records: &'a Records,
        filter: &'a Filter,
        after: &str,
    ) -> Option<BTreeSet<&'a str>> {
        let mut candidates = BTreeSet::new();
        if !filter.is_by_state() {
            return None;
        }
        let head = records.history.position().revision;
        let mut left = EXAMINED_MAX;
        for (id, server) in self.shown(filter) {
            if server.excluded.is_none() && filter.admits(CellState::NotEligible) {
                for (path, _) in records.elsewhere(id, Revision::ZERO) {
                    left = left.checked_sub(1)?;
                    if filter.names(path) && &**path > after {
                        candidates.insert(&**path);
                    }
                }
            }
            match (whole_state(server), &server.report) {
                (Some(state), _) if filter.admits(state) => return None,
                (None, _) if filter.admits(CellState::InSync) => return None,
                (None, Some(report)) => {
                    let behind = records.between(report.summary.position.revision, head).map(|path| &**path);
                    let named = report.exceptions.keys().chain(report.held_ahead.keys()).map(String::as_str);
                    for path in named.chain(behind) {
                        left = left.checked_sub(1)?;
                        if filter.names(path) && path > after {
                            candidates.insert(path);
                        }
                    }
                }
                _ => {}
            }
        }
        Some(candidates)
    }

    /// The beginning of a watch.
    pub fn watch(&self) -> Cursor {
        Cursor::start(self.changes.sequence())
    }

    /// What a watcher at `cursor` is told next, and moves the cursor behind it. Nothing new is an empty answer.
    ///
    /// # Errors
    /// [`Expired`] if removals that the watcher was not told are forgotten, or the cursor is from another life.
    pub fn next(&self, cursor: &mut Cursor, filter: &Filter, now: Moment) -> Result<Rows, Expired> {
        let now_sequence = self.changes.sequence();
        if cursor.changed > now_sequence || cursor.removed > now_sequence {
            return Err(Expired);
        }
        let removals = self.changes.removed_since(cursor.removed).ok_or(Expired)?;
        let (mut removed, reached) = taken(removals, filter, ROWS_MAX);
        cursor.removed = reached.unwrap_or(now_sequence);
        let Some(records) = self.copies.records() else { return Ok(Rows { rows: Vec::new(), removed }) };
        let limit = self.fitting(ROWS_MAX, filter);
        let rows = match self.changes.changed_since(cursor.changed) {
            Some(changed) if cursor.walk.is_none() => {
                let (paths, reached) = taken(changed, filter, limit);
                cursor.changed = reached.unwrap_or(now_sequence);
                let files = paths.iter().filter_map(|path| records.entry(path));
                let Found { rows, others, .. } = self.look(filter, files, limit, limit, now);
                removed.extend(others);
                rows
            }
            changed => {
                if changed.is_none() {
                    cursor.changed = now_sequence;
                    cursor.walk = Some(cursor.walk.take().map_or_else(Walk::whole, Walk::renewed));
                }
                self.walk(records, cursor, filter, limit, &mut removed, now)
            }
        };
        Ok(Rows { rows, removed })
    }

    fn walk(
        &self,
        records: &Records,
        cursor: &mut Cursor,
        filter: &Filter,
        limit: usize,
        removed: &mut Vec<Arc<str>>,
        now: Moment,
    ) -> Vec<Row> {
        let Some(mut walk) = cursor.walk.take() else { return Vec::new() };
        // What was given before may not match any more.
        let is_again = cursor.caught_up || walk.until.is_some();
        let last = |path: &str| walk.around && walk.until.as_deref().is_some_and(|until| path > until);
        let files = below(records, filter, &walk.after).take_while(|(path, _)| !last(path));
        // So many that all of them could be told to be gone.
        let most = if is_again { limit } else { self.examined(limit, filter) };
        let Found { rows, others, next } = self.look(filter, files, limit, most, now);
        if is_again {
            removed.extend(others);
        }
        if let Some(next) = next {
            walk.after = next.to_string();
            cursor.walk = Some(walk);
            return rows;
        }
        cursor.caught_up = true;
        if walk.until.is_some() && !walk.around {
            cursor.walk = Some(Walk { after: String::new(), around: true, ..walk });
        }
        rows
    }
}

/// The files that the filter names after the path `after`.
fn below<'a>(
    records: &'a Records,
    filter: &'a Filter,
    after: &str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a FileEntry)> {
    records.files_after(filter.prefix(), after).take_while(|(path, _)| filter.names(path))
}

/// At most `limit` paths that the filter names, and where to go on; `None` if nothing is left.
fn taken<'a>(
    changes: impl Iterator<Item = (u64, &'a Arc<str>)>,
    filter: &Filter,
    limit: usize,
) -> (Vec<Arc<str>>, Option<u64>) {
    let mut paths = Vec::new();
    let mut reached = 0;
    for (sequence, path) in changes.filter(|(_, path)| filter.names(path)) {
        if paths.len() == limit {
            return (paths, Some(reached));
        }
        reached = sequence;
        paths.push(path.clone());
    }
    (paths, None)
}
