//! The live view: what should exist, what each server says, and which rows changed.

mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockstep_model::{Position, Revision, ServerId, record::ServerRecord};

use crate::domain::{
    Moment,
    cause::Cause,
    changes::{ChangeLog, RING_PATHS_MAX},
    error::MatrixError,
    learned::Learned,
    records::{Change, Records, Touched},
    report::Batch,
    server::{Reading, Server, Touch},
    summary::{Summary, summary},
};

pub use rows::{EXAMINED_MAX, Expired, Page, Row, Rows};

/// The bytes of running transfers in one answer of servers, at least: no server has more than 64 of them, with paths of
/// 4,095 bytes, so an answer that stops here stays below the 4 MiB of a message.
const TRANSFER_BYTES: usize = 2 << 20;
/// What a server takes in an answer besides its transfers, roughly.
const SUMMARY_BYTES: usize = 2 << 10;

/// The live view. Before the registry was read once it has no position and no rows.
#[derive(Clone, Debug, Default)]
pub struct View {
    records: Option<Records>,
    servers: BTreeMap<ServerId, Server>,
    changes: ChangeLog,
    reading: Option<Reading>,
    learned: Learned,
}

impl View {
    /// Takes over records that were read from the beginning: at start, and when the history that was followed is gone.
    /// What servers said before belongs to the old history.
    pub fn adopt(&mut self, records: Records, now: Moment) {
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
            announce(&mut self.servers, id, record, now);
        }
        self.learned = Learned::default();
        self.learned.read(records.history.position().revision, now);
        self.records = Some(records);
        self.changes.change_all();
    }

    /// The gateway has read the registry from where it was up to `through`. `passed` are positions on the way.
    pub fn advance(
        &mut self,
        changes: Vec<(Revision, Change)>,
        passed: Vec<Position>,
        through: Position,
        now: Moment,
    ) {
        let Some(records) = &mut self.records else { return };
        let mut all = false;
        for (revision, change) in changes {
            match records.apply(revision, change) {
                Some(Touched::File(path)) if records.file(&path).is_some() => self.changes.change(path),
                Some(Touched::File(path)) => self.changes.remove(path),
                Some(Touched::Server(id)) => {
                    all = true;
                    match records.server(&id) {
                        Some(record) => announce(&mut self.servers, &id, record, now),
                        None => drop(self.servers.remove(&id)),
                    }
                }
                None => {}
            }
        }
        passed.into_iter().for_each(|position| records.history.remember(position));
        records.history.advance(through);
        self.learned.read(through.revision, now);
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
        let named = touch.paths.iter().filter_map(|path| records.entry(path)).map(|(path, _)| path);
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

    /// The records, and when each revision was learned of; `None` before the registry was read once.
    pub fn records(&self) -> Option<(&Records, &Learned)> {
        self.records.as_ref().map(|records| (records, &self.learned))
    }

    /// Whether each of `servers` announced itself.
    ///
    /// # Errors
    /// [`MatrixError::UnknownServer`] for the first that did not, [`MatrixError::Unread`] before anything is known.
    pub fn knows(&self, servers: &BTreeSet<ServerId>) -> Result<(), MatrixError> {
        self.position().ok_or(MatrixError::Unread)?;
        match servers.iter().find(|server| !self.servers.contains_key(server)) {
            Some(server) => Err(MatrixError::UnknownServer { server: server.clone() }),
            None => Ok(()),
        }
    }

    /// How many servers take part: with fewer than two nothing is scheduled (R13).
    pub fn member_count(&self) -> usize {
        self.servers.values().filter(|server| server.excluded.is_none()).count()
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
            let summary = summary(records, &self.learned, id, server, now);
            bytes += SUMMARY_BYTES + summary.transfers.iter().map(|(path, ..)| path.len()).sum::<usize>();
            summaries.push(summary);
        }
        (summaries, later.peek().is_some())
    }
}

fn announce(servers: &mut BTreeMap<ServerId, Server>, id: &ServerId, record: &ServerRecord, now: Moment) {
    match servers.get_mut(id) {
        Some(server) => server.announce(record.clone()),
        None => {
            let mut server = Server::new(record.clone());
            server.known_since = now;
            servers.insert(id.clone(), server);
        }
    }
}
