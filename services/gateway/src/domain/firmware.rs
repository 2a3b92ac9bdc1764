//! The Synchronization Status of firmware updates: which servers hold every file of one, and what the others lack (R42, R43).

use std::{collections::BTreeMap, time::Duration};

use lockstep_model::{
    FileId, FirmwareId, Reason, Revision, ServerId,
    firmware::{FIRMWARE, FirmwareRecord, FirmwareState},
};
use lockstep_replicas::{Copies, Further};

use crate::domain::{
    Moment,
    cause::Cause,
    cell::{Cell, CellState, cell, holds},
    pace::time_left,
    records::Records,
    server::Server,
};

/// The most cells in one answer, as for rows of files.
const CELLS_MAX: usize = 2_500;
/// The most copies that are looked at for one answer, beyond those of its first update.
const EXAMINED_MAX: usize = 60_000;

/// The updates, as the registry has them.
#[derive(Clone, Debug, Default)]
pub struct Updates(BTreeMap<FirmwareId, (Revision, Update)>);

/// What is kept of one update.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Update {
    model: String,
    version: String,
    total_bytes: u64,
    /// The paths of its files, with which files they are; none until it is published.
    files: Vec<(String, Option<FileId>)>,
}

/// One update on all servers.
#[derive(Clone, Debug)]
pub struct FirmwareRow {
    /// The update.
    pub id: FirmwareId,
    /// The model of the devices that it is for.
    pub model: String,
    /// Its version.
    pub version: String,
    /// How many files it has; 0 until it is published.
    pub file_count: usize,
    /// The sizes of its files together.
    pub total_bytes: u64,
    /// One for each server, ordered by id; none until it is published.
    pub cells: Vec<(ServerId, FirmwareCell)>,
}

/// One update on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareCell {
    /// The worst of its files.
    pub state: CellState,
    /// Why, for the file that decided, and how long until its next try.
    pub cause: Option<(Cause, Option<Duration>)>,
    /// How many of its files are verified there, kept ones included.
    pub verified_count: usize,
    /// Bytes of its files that are verified or on their way there.
    pub copied_bytes: u64,
    /// How long until all bytes are there; `None` while nobody can tell.
    pub time_left: Option<Duration>,
}

impl FirmwareRow {
    /// The servers on which every file of it is verified.
    pub fn complete(&self) -> impl Iterator<Item = &ServerId> {
        let whole = self.cells.iter().filter(|(_, cell)| cell.verified_count == self.file_count);
        whole.map(|(id, _)| id)
    }
}

impl Updates {
    /// What begins with another registry, or a history that was read anew.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes over a record of an update.
    pub fn apply(&mut self, record: &Further) {
        let Some(id) = record.key.strip_prefix(FIRMWARE).and_then(|id| id.parse::<FirmwareId>().ok()) else {
            return;
        };
        if self.0.get(&id).is_some_and(|(known, _)| *known > record.revision) {
            return;
        }
        let Some(body) = &record.body else { return drop(self.0.remove(&id)) };
        match serde_json::from_str::<FirmwareRecord>(body) {
            Ok(body) => drop(self.0.insert(id, (record.revision, Update::of(body)))),
            Err(error) => tracing::error!(key = record.key, %error, "a record cannot be read"),
        }
    }

    /// Whether there is such an update.
    pub fn knows(&self, id: &FirmwareId) -> bool {
        self.0.contains_key(id)
    }

    /// Rows after the id `after`, or only that of `only`, `wanted` at most; and whether there are more.
    pub fn rows(
        &self,
        copies: &Copies,
        only: Option<FirmwareId>,
        after: Option<FirmwareId>,
        wanted: usize,
        now: Moment,
    ) -> (Vec<FirmwareRow>, bool) {
        let Some(records) = copies.records() else { return (Vec::new(), false) };
        let servers = copies.servers();
        let limit = wanted.min(CELLS_MAX / servers.len().max(1)).max(1);
        let chosen =
            |id: &FirmwareId| only.is_none_or(|only| only == *id) && after.is_none_or(|after| *id > after);
        let mut left = self.0.iter().filter(|(id, _)| chosen(id)).peekable();
        let (mut rows, mut examined) = (Vec::new(), 0);
        while rows.len() < limit
            && examined < EXAMINED_MAX
            && let Some((id, (_, update))) = left.next()
        {
            examined += update.files.len() * servers.len();
            rows.push(update.row(*id, records, servers, now));
        }
        (rows, left.peek().is_some())
    }
}

impl Update {
    fn of(record: FirmwareRecord) -> Self {
        let total_bytes = record.files.iter().map(|file| file.size_bytes).sum();
        let is_published = record.state == FirmwareState::Published;
        let files = record.files.into_iter().filter(|_| is_published);
        Self {
            model: record.model,
            version: record.version,
            total_bytes,
            files: files.map(|file| (file.path.to_string(), file.file_id)).collect(),
        }
    }

    fn row(
        &self,
        id: FirmwareId,
        records: &Records,
        servers: &BTreeMap<ServerId, Server>,
        now: Moment,
    ) -> FirmwareRow {
        let shown = servers.iter().filter(|_| !self.files.is_empty());
        FirmwareRow {
            id,
            model: self.model.clone(),
            version: self.version.clone(),
            file_count: self.files.len(),
            total_bytes: self.total_bytes,
            cells: shown.map(|(id, server)| (id.clone(), self.cell(records, id, server, now))).collect(),
        }
    }

    fn cell(&self, records: &Records, id: &ServerId, server: &Server, now: Moment) -> FirmwareCell {
        let mut whole = FirmwareCell {
            state: CellState::InSync,
            cause: None,
            verified_count: 0,
            copied_bytes: 0,
            time_left: None,
        };
        let (mut rate, mut remaining_bytes) = (0, 0_u64);
        for (path, file_id) in &self.files {
            let Some(file) = records.same_file(path, *file_id) else {
                let text = format!("{path} is not the file of the update any more");
                whole.worsen(CellState::Unknown, Some((Cause::new(Reason::FileNotFound, text), None)));
                continue;
            };
            let asked = file.asked(path, id);
            let Cell { state, cause, retry_delay, copied_bytes, copying, .. } = cell(server, asked, now);
            if holds(server, asked) {
                whole.verified_count += 1;
                whole.copied_bytes += file.size_bytes;
            } else {
                whole.copied_bytes += copied_bytes;
                remaining_bytes =
                    remaining_bytes.saturating_add(file.size_bytes.saturating_sub(copied_bytes));
            }
            rate += copying.map_or(0, |copying| copying.bytes_per_second);
            whole.worsen(state, cause.map(|cause| (cause, retry_delay)));
        }
        let is_moving = matches!(whole.state, CellState::Copying | CellState::Pending);
        whole.time_left = time_left(remaining_bytes, rate).filter(|_| is_moving);
        whole
    }
}

impl FirmwareCell {
    fn worsen(&mut self, state: CellState, cause: Option<(Cause, Option<Duration>)>) {
        if badness(state) > badness(self.state) {
            (self.state, self.cause) = (state, cause);
        }
    }
}

/// What a person has to look at first.
fn badness(state: CellState) -> u8 {
    match state {
        CellState::InSync => 0,
        CellState::NotEligible => 1,
        CellState::Pending => 2,
        CellState::Copying => 3,
        CellState::Unknown => 4,
        CellState::Unreachable => 5,
        CellState::Failed => 6,
    }
}
