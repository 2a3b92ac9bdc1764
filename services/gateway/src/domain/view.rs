//! The live view: what should exist, what each server says, and which rows changed.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_model::{Position, Revision, ServerId, record::ServerRecord};

use crate::domain::{
    Moment,
    cause::Cause,
    cell::{Cell, cell},
    changes::{ChangeLog, RING_PATHS_MAX},
    cursor::{Cursor, Walk},
    records::{Change, Records, Touched},
    report::Batch,
    server::{Reading, Server, Touch},
    summary::{Summary, summary},
};

/// The most rows in one answer.
pub const ROWS_MAX: usize = 500;
/// The most cells in one answer: with texts of their longest they stay below the 4 MiB of a message.
pub const CELLS_MAX: usize = 2_500;
/// The bytes of running transfers in one answer of servers, at least: no server has more than 64 of them, with paths of
/// 4,095 bytes, so an answer that stops here stays below the 4 MiB of a message.
const TRANSFER_BYTES: usize = 2 << 20;
/// What a server takes in an answer besides its transfers, roughly.
const SUMMARY_BYTES: usize = 2 << 10;

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
    /// One for each server, ordered by id.
    pub cells: Vec<(ServerId, Cell)>,
}

/// What a watcher is told next.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// New or changed rows.
    pub rows: Vec<Row>,
    /// Paths that are not registered any more.
    pub removed: Vec<Arc<str>>,
}

/// The place of a watch is not known any more: it has to start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired;

/// The live view. Before the registry was read once it has no position and no rows.
#[derive(Clone, Debug, Default)]
pub struct View {
    records: Option<Records>,
    servers: BTreeMap<ServerId, Server>,
    changes: ChangeLog,
    reading: Option<Reading>,
}

impl View {
    /// Takes over records that were read from the beginning: at start, and when the history that was followed is gone.
    /// What servers said before belongs to the old history.
    pub fn adopt(&mut self, records: Records) {
        let gone: Vec<Arc<str>> = self
            .records
            .iter()
            .flat_map(|old| old.files_after("", ""))
            .map(|(p, _)| p.clone())
            .filter(|path| records.file(path).is_none())
            .collect();
        gone.into_iter().for_each(|path| self.changes.remove(path));
        self.servers.retain(|id, _| records.server(id).is_some());
        self.servers.values_mut().for_each(Server::forget);
        for (id, record) in records.servers() {
            announce(&mut self.servers, id, record);
        }
        self.records = Some(records);
        self.changes.change_all();
    }

    /// The gateway has read the registry from where it was up to `through`. `passed` are positions on the way.
    pub fn advance(&mut self, changes: Vec<(Revision, Change)>, passed: Vec<Position>, through: Position) {
        let Some(records) = &mut self.records else { return };
        let mut all = false;
        for (revision, change) in changes {
            match records.apply(revision, change) {
                Some(Touched::File(path)) if records.file(&path).is_some() => self.changes.change(path),
                Some(Touched::File(path)) => self.changes.remove(path),
                Some(Touched::Server(id)) => {
                    all = true;
                    match records.server(&id) {
                        Some(record) => announce(&mut self.servers, &id, record),
                        None => drop(self.servers.remove(&id)),
                    }
                }
                None => {}
            }
        }
        passed.into_iter().for_each(|position| records.history.remember(position));
        records.history.advance(through);
        if all {
            self.changes.change_all();
        }
        self.settle_all();
    }

    /// The head of the registry was read.
    pub fn read(&mut self, reading: Reading) {
        self.reading = Some(reading);
        self.settle_all();
    }

    /// A server reported.
    pub fn receive(&mut self, id: &ServerId, batch: Batch) {
        if let Some(server) = self.servers.get_mut(id) {
            server.receive(batch);
            self.settle(id);
        }
    }

    /// A server said that it lives.
    pub fn beat(&mut self, id: &ServerId, now: Moment) {
        if let Some(server) = self.servers.get_mut(id) {
            server.beat(now);
        }
    }

    /// A server is not heard any more.
    pub fn lose(&mut self, id: &ServerId, cause: Cause) {
        if let Some(touch) = self.servers.get_mut(id).map(|server| server.lose(cause)) {
            self.mark(touch);
        }
    }

    /// The registry said that `position` is in its history (`None`), or why not.
    pub fn rule(&mut self, id: &ServerId, position: Position, foreign: Option<Cause>) {
        if let Some(server) = self.servers.get_mut(id) {
            server.rule(position, foreign);
            self.settle(id);
        }
    }

    fn doubtful(&self, id: &ServerId) -> Option<Position> {
        self.servers.get(id)?.doubtful(&self.records.as_ref()?.history)
    }

    /// Whether any report waits for the registry to judge its position.
    pub fn any_doubt(&self) -> bool {
        let Some(records) = &self.records else { return false };
        self.servers.values().any(|server| server.doubtful(&records.history).is_some())
    }

    /// The servers whose reports wait for the registry to judge their positions.
    pub fn doubts(&self) -> Vec<(ServerId, Position)> {
        self.servers.keys().filter_map(|id| Some((id.clone(), self.doubtful(id)?))).collect()
    }

    fn settle_all(&mut self) {
        let ids: Vec<ServerId> = self.servers.keys().cloned().collect();
        ids.iter().for_each(|id| self.settle(id));
    }

    fn settle(&mut self, id: &ServerId) {
        let (Some(records), Some(server)) = (&self.records, self.servers.get_mut(id)) else { return };
        let touch = server.settle(&records.history, self.reading);
        self.mark(touch);
    }

    fn mark(&mut self, touch: Touch) {
        let Some(records) = &self.records else { return };
        let moved = || touch.moved.iter().flat_map(|(from, to)| records.between(*from, *to));
        // Counting stops where the ring would overflow: a move over a million revisions costs no more than that.
        if touch.all || touch.paths.len() + moved().take(RING_PATHS_MAX + 1).count() > RING_PATHS_MAX {
            return self.changes.change_all();
        }
        let named = touch.paths.iter().filter_map(|path| records.file_key(path));
        moved().chain(named).for_each(|path| self.changes.change(path.clone()));
    }

    /// Where the gateway is in the registry; `None` before it was read once.
    pub fn position(&self) -> Option<Position> {
        self.records.as_ref().map(|records| records.history.position())
    }

    /// The number of the last change.
    pub fn sequence(&self) -> u64 {
        self.changes.sequence()
    }

    /// The servers, ordered by id.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerId, &Server)> {
        self.servers.iter()
    }

    /// One server.
    pub fn server(&self, id: &ServerId) -> Option<&Server> {
        self.servers.get(id)
    }

    /// Servers in short after the id `after`, `wanted` at most, ordered by id, and whether there are more.
    pub fn summaries(&self, after: &str, wanted: usize, now: Moment) -> (Vec<Summary>, bool) {
        let Some(records) = &self.records else { return (Vec::new(), false) };
        let mut later = self.servers.iter().filter(|(id, _)| id.as_str() > after).peekable();
        let (mut summaries, mut bytes) = (Vec::new(), 0);
        while summaries.len() < wanted
            && bytes < TRANSFER_BYTES
            && let Some((id, server)) = later.next()
        {
            let summary = summary(records, id, server, now);
            bytes += SUMMARY_BYTES + summary.transfers.iter().map(|(path, _)| path.len()).sum::<usize>();
            summaries.push(summary);
        }
        (summaries, later.peek().is_some())
    }

    /// How many rows fit into one answer, `wanted` at most: one answer has a bounded number of cells, and makes headway
    /// with any number of servers.
    fn fitting(&self, wanted: usize) -> usize {
        wanted.min(ROWS_MAX).min(CELLS_MAX / self.servers.len().max(1)).max(1)
    }

    fn row(&self, records: &Records, path: &Arc<str>, now: Moment) -> Option<Row> {
        let file = records.file(path)?;
        let cell = |(id, server): (&ServerId, &Server)| (id.clone(), cell(server, path, file.revision, now));
        Some(Row {
            path: path.clone(),
            revision: file.revision,
            size_bytes: file.size_bytes,
            origin: file.origin.clone(),
            cells: self.servers.iter().map(cell).collect(),
        })
    }

    /// Rows below `prefix` after `after`, ordered by path, and whether there are more.
    pub fn list(&self, prefix: &str, after: &str, wanted: usize, now: Moment) -> (Vec<Row>, bool) {
        let Some(records) = &self.records else { return (Vec::new(), false) };
        let mut paths = records.files_after(prefix, after).map(|(path, _)| path);
        let rows = paths
            .by_ref()
            .take(self.fitting(wanted))
            .filter_map(|path| self.row(records, path, now))
            .collect();
        (rows, paths.next().is_some())
    }

    /// The beginning of a watch.
    pub fn watch(&self) -> Cursor {
        Cursor::start(self.changes.sequence())
    }

    /// What a watcher at `cursor` is told next, and moves the cursor behind it. Nothing new is an empty answer.
    ///
    /// # Errors
    /// [`Expired`] if removals that the watcher was not told are forgotten, or the cursor is from another life.
    pub fn next(&self, cursor: &mut Cursor, prefix: &str, now: Moment) -> Result<Rows, Expired> {
        let now_sequence = self.changes.sequence();
        if cursor.changed > now_sequence || cursor.removed > now_sequence {
            return Err(Expired);
        }
        let removals = self.changes.removed_since(cursor.removed).ok_or(Expired)?;
        let (removed, reached) = taken(removals, prefix, ROWS_MAX);
        cursor.removed = reached.unwrap_or(now_sequence);
        let Some(records) = &self.records else { return Ok(Rows { rows: Vec::new(), removed }) };
        let limit = self.fitting(ROWS_MAX);
        let Some(changed) = self.changes.changed_since(cursor.changed) else {
            cursor.changed = now_sequence;
            cursor.walk = Some(cursor.walk.take().map_or_else(Walk::whole, Walk::renewed));
            return Ok(Rows { rows: self.walk(records, cursor, prefix, limit, now), removed });
        };
        if cursor.walk.is_some() {
            return Ok(Rows { rows: self.walk(records, cursor, prefix, limit, now), removed });
        }
        let (paths, reached) = taken(changed, prefix, limit);
        cursor.changed = reached.unwrap_or(now_sequence);
        Ok(Rows { rows: paths.iter().filter_map(|path| self.row(records, path, now)).collect(), removed })
    }

    fn walk(
        &self,
        records: &Records,
        cursor: &mut Cursor,
        prefix: &str,
        limit: usize,
        now: Moment,
    ) -> Vec<Row> {
        let Some(mut walk) = cursor.walk.take() else { return Vec::new() };
        let last = |path: &str| walk.around && walk.until.as_deref().is_some_and(|until| path > until);
        let mut paths =
            records.files_after(prefix, &walk.after).map(|(path, _)| path).take_while(|path| !last(path));
        let rows: Vec<Row> =
            paths.by_ref().take(limit).filter_map(|path| self.row(records, path, now)).collect();
        let more = paths.next().is_some();
        drop(paths);
        if more {
            walk.after = rows.last().map_or_else(String::new, |row| row.path.to_string());
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

fn announce(servers: &mut BTreeMap<ServerId, Server>, id: &ServerId, record: &ServerRecord) {
    match servers.get_mut(id) {
        Some(server) => server.announce(record.clone()),
        None => drop(servers.insert(id.clone(), Server::new(record.clone()))),
    }
}

/// At most `limit` paths below `prefix`, and where to go on; `None` if nothing is left.
fn taken<'a>(
    changes: impl Iterator<Item = (u64, &'a Arc<str>)>,
    prefix: &str,
    limit: usize,
) -> (Vec<Arc<str>>, Option<u64>) {
    let mut paths = Vec::new();
    let mut reached = 0;
    for (sequence, path) in changes.filter(|(_, path)| path.starts_with(prefix)) {
        if paths.len() == limit {
            return (paths, Some(reached));
        }
        reached = sequence;
        paths.push(path.clone());
    }
    (paths, None)
}
