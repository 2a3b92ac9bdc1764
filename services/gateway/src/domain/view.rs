//! The live view: what should exist, what each server says, and which rows changed.

mod rows;

use std::{collections::BTreeSet, sync::Arc};

use lockstep_clocks::Report as ClockReport;
use lockstep_model::{FirmwareId, Position, Revision, ServerId, firmware::FIRMWARE};
use lockstep_replicas::{Copies, Further, Live, Touched};

use crate::domain::{
    Moment,
    changes::{ChangeLog, RING_PATHS_MAX},
    error::MatrixError,
    firmware::{FirmwareRow, Updates},
    learned::Learned,
    records::Records,
    server::{Server, Touch},
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
    copies: Copies,
    updates: Updates,
    changes: ChangeLog,
    learned: Learned,
}

impl Live for View {
    const FURTHER: &'static [&'static str] = &[FIRMWARE];

    fn further(&mut self, record: Further) {
        self.updates.apply(&record);
    }

    fn copies(&self) -> &Copies {
        &self.copies
    }

    fn copies_mut(&mut self) -> &mut Copies {
        &mut self.copies
    }

    fn touched(&mut self, touched: Vec<Touched>) {
        for touched in touched {
            match touched {
                Touched::Anew(gone) => {
                    gone.into_iter().for_each(|path| self.changes.remove(path));
                    self.learned = Learned::default();
                    self.updates.clear();
                    self.changes.change_all();
                }
                Touched::File(path) => {
                    match self.copies.records().is_some_and(|records| records.file(&path).is_some()) {
                        true => self.changes.change(path),
                        false => self.changes.remove(path),
                    }
                }
                Touched::Server(_) => self.changes.change_all(),
                Touched::Report(_, touch) => self.mark(touch),
            }
        }
    }

    fn reached(&mut self, revision: Revision, now: Moment) {
        self.learned.read(revision, now);
    }

    fn sequence(&self) -> u64 {
        self.changes.sequence()
    }
}

impl View {
    fn mark(&mut self, touch: Touch) {
        let Some(records) = self.copies.records() else { return };
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
        self.copies.position()
    }

    /// The servers, ordered by id.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerId, &Server)> {
        self.copies.servers().iter()
    }

    /// One server.
    pub fn server(&self, id: &ServerId) -> Option<&Server> {
        self.copies.servers().get(id)
    }

    /// The records, and when each revision was learned of; `None` before the registry was read once.
    pub fn records(&self) -> Option<(&Records, &Learned)> {
        self.copies.records().map(|records| (records, &self.learned))
    }

    /// Whether each of `servers` announced itself.
    ///
    /// # Errors
    /// [`MatrixError::UnknownServer`] for the first that did not, [`MatrixError::Unread`] before anything is known.
    pub fn knows(&self, servers: &BTreeSet<ServerId>) -> Result<(), MatrixError> {
        self.position().ok_or(MatrixError::Unread)?;
        match servers.iter().find(|server| !self.copies.servers().contains_key(server)) {
            Some(server) => Err(MatrixError::UnknownServer { server: server.clone() }),
            None => Ok(()),
        }
    }

    /// Rows of firmware updates after the id `after`, or only that of `only`, `wanted` at most; and whether there are more.
    ///
    /// # Errors
    /// [`MatrixError::UnknownFirmware`], [`MatrixError::Unread`] before anything is known.
    pub fn firmware_rows(
        &self,
        only: Option<FirmwareId>,
        after: Option<FirmwareId>,
        wanted: usize,
        now: Moment,
    ) -> Result<(Vec<FirmwareRow>, bool), MatrixError> {
        self.position().ok_or(MatrixError::Unread)?;
        match only.filter(|only| !self.updates.knows(only)) {
            Some(firmware) => Err(MatrixError::UnknownFirmware { firmware }),
            None => Ok(self.updates.rows(&self.copies, only, after, wanted, now)),
        }
    }

    /// How many servers take part: with fewer than two nothing is scheduled (R13).
    pub fn member_count(&self) -> usize {
        self.copies.servers().values().filter(|server| server.excluded.is_none()).count()
    }

    /// Servers in short after the id `after`, `wanted` at most, ordered by id, and whether there are more. `clock` tells what is
    /// known of the clock of a server.
    pub fn summaries(
        &self,
        after: &str,
        wanted: usize,
        clock: impl Fn(&ServerId) -> Option<Arc<ClockReport>>,
        now: Moment,
    ) -> (Vec<Summary>, bool) {
        let Some(records) = self.copies.records() else { return (Vec::new(), false) };
        let mut later = self.copies.servers().iter().filter(|(id, _)| id.as_str() > after).peekable();
        let (mut summaries, mut bytes) = (Vec::new(), 0);
        while summaries.len() < wanted
            && bytes < TRANSFER_BYTES
            && let Some((id, server)) = later.next()
        {
            let summary = summary((records, &self.learned), (id, server), clock(id), now);
            bytes += SUMMARY_BYTES + summary.transfers.iter().map(|(path, ..)| path.len()).sum::<usize>();
            summaries.push(summary);
        }
        (summaries, later.peek().is_some())
    }
}
