//! What should exist and what each server says of it, at one position of the registry.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_model::{Position, Revision, ServerId, record::ServerRecord};

use crate::domain::{
    Moment,
    cause::Cause,
    records::{self, Change, Records},
    report::Batch,
    server::{Reading, Server, Touch},
};

/// What a change of the copies was about. More may be named than really changed, never less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Everything: the records were read from the beginning. These paths are registered no more.
    Anew(Vec<Arc<str>>),
    /// A file was registered or replaced, or is no more.
    File(Arc<str>),
    /// A server announced itself, or was forgotten.
    Server(ServerId),
    /// What a server says of its copies.
    Report(ServerId, Touch),
}

/// The records and the servers. Before the registry was read once there is no position.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    records: Option<Records>,
    servers: BTreeMap<ServerId, Server>,
    reading: Option<Reading>,
}

impl Copies {
    /// Takes over records that were read from the beginning: at start, and when the history that was followed is gone.
    /// What servers said before belongs to the old history.
    pub fn adopt(&mut self, records: Records, now: Moment) -> Touched {
        let gone = self
            .records
            .iter()
            .flat_map(|old| old.files_after("", ""))
            .map(|(p, _)| p.clone())
            .filter(|path| records.file(path).is_none())
            .collect();
        self.servers.retain(|id, _| records.server(id).is_some());
        self.servers.values_mut().for_each(Server::forget);
        for (id, record) in records.servers() {
            announce(&mut self.servers, id, record, now);
        }
        self.records = Some(records);
        Touched::Anew(gone)
    }

    /// The registry was read from where it was up to `through`. `passed` are positions on the way.
    pub fn advance(
        &mut self,
        changes: Vec<(Revision, Change)>,
        passed: Vec<Position>,
        through: Position,
        now: Moment,
    ) -> Vec<Touched> {
        let Some(records) = &mut self.records else { return Vec::new() };
        let mut touched = Vec::new();
        for (revision, change) in changes {
            match records.apply(revision, change) {
                Some(records::Touched::File(path)) => touched.push(Touched::File(path)),
                Some(records::Touched::Server(id)) => {
                    match records.server(&id) {
                        Some(record) => announce(&mut self.servers, &id, record, now),
                        None => drop(self.servers.remove(&id)),
                    }
                    touched.push(Touched::Server(id));
                }
                None => {}
            }
        }
        passed.into_iter().for_each(|position| records.history.remember(position));
        records.history.advance(through);
        touched.extend(self.settle_all());
        touched
    }

    /// The head of the registry was read.
    pub fn read(&mut self, reading: Reading) -> Vec<Touched> {
        self.reading = Some(reading);
        self.settle_all()
    }

    /// A server reported.
    pub fn receive(&mut self, id: &ServerId, batch: Batch) -> Option<Touched> {
        self.servers.get_mut(id)?.receive(batch);
        self.settle(id)
    }

    /// A server said that it lives.
    pub fn beat(&mut self, id: &ServerId, now: Moment) {
        if let Some(server) = self.servers.get_mut(id) {
            server.beat(now);
        }
    }

    /// A server is not heard any more.
    pub fn lose(&mut self, id: &ServerId, cause: Cause) -> Option<Touched> {
        let touch = self.servers.get_mut(id)?.lose(cause);
        Some(Touched::Report(id.clone(), touch))
    }

    /// The registry said that `position` is in its history (`None`), or why not.
    pub fn rule(&mut self, id: &ServerId, position: Position, foreign: Option<Cause>) -> Option<Touched> {
        self.servers.get_mut(id)?.rule(position, foreign);
        self.settle(id)
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

    fn settle_all(&mut self) -> Vec<Touched> {
        let ids: Vec<ServerId> = self.servers.keys().cloned().collect();
        ids.iter().filter_map(|id| self.settle(id)).collect()
    }

    fn settle(&mut self, id: &ServerId) -> Option<Touched> {
        let (records, server) = (self.records.as_ref()?, self.servers.get_mut(id)?);
        let touch = server.settle(&records.history, self.reading);
        (touch != Touch::default()).then(|| Touched::Report(id.clone(), touch))
    }

    /// Where it is in the registry; `None` before that was read once.
    pub fn position(&self) -> Option<Position> {
        self.records.as_ref().map(|records| records.history.position())
    }

    /// The records; `None` before the registry was read once.
    pub fn records(&self) -> Option<&Records> {
        self.records.as_ref()
    }

    /// The servers, ordered by id.
    pub fn servers(&self) -> &BTreeMap<ServerId, Server> {
        &self.servers
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
