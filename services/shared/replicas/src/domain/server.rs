//! One server as it is seen from here: what it announced, whether it is heard, and its report.
//!
//! ```text
//!            batch            settled               lost
//! (unseen) ────────▶ waiting ─────────▶ reachable ────────▶ unreachable (last report kept, with its age)
//!                       ▲                   │                    │
//!                       └──── batch ────────┴──── snapshot ──────┘
//! ```
//!
//! A batch waits until the registry was read as far as the batch speaks of, and until its position is known
//! to be in the history that is followed: only then "applied ≥ the object's revision" means what it says (I10).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_model::{Position, Reason, Revision, record::ServerRecord};

use crate::domain::{
    Moment,
    cause::Cause,
    history::{History, Standing},
    records::exclusion,
    report::{Batch, Report},
};

/// How many batches may wait one by one; beyond that the newest are joined, so that nothing is lost and nothing grows.
const WAITING_MAX: usize = 64;

/// Which rows an event may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// All of them.
    pub all: bool,
    /// These.
    pub paths: BTreeSet<String>,
    /// Those with revisions above the first and not above the second.
    pub moved: Vec<(Revision, Revision)>,
}

/// A reading of the head of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// When the reading began: what was committed before is in it.
    pub began: Moment,
    /// The head.
    pub head: Revision,
}

/// One server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its announcement.
    pub record: ServerRecord,
    /// Why it takes no part (R14).
    pub excluded: Option<Cause>,
    /// Why it is not heard; meaningful while it is not.
    pub silence: Cause,
    /// When it was last heard.
    pub heard: Option<Moment>,
    /// Since when it is known that there is such a server.
    pub known_since: Moment,
    /// What it said last, as far as it may be shown.
    pub report: Option<Report>,
    streaming: bool,
    fresh: bool,
    /// Whether the silence is one that was met, not the one that a server begins with.
    is_told: bool,
    waiting: VecDeque<Batch>,
    /// What the registry said of a position that could not be judged here.
    ruling: Option<(Position, Option<Cause>)>,
}

impl Server {
    /// A server that was not heard yet.
    pub fn new(record: ServerRecord) -> Self {
        Self {
            excluded: exclusion(&record),
            record,
            silence: Cause::new(
                Reason::PeerUnreachable,
                "the server was not heard since this process started",
            ),
            heard: None,
            known_since: Moment::ZERO,
            report: None,
            streaming: false,
            fresh: false,
            is_told: false,
            waiting: VecDeque::new(),
            ruling: None,
        }
    }

    /// Whether its report is live.
    pub fn reachable(&self) -> bool {
        self.streaming && self.fresh
    }

    /// The server announced itself again.
    pub fn announce(&mut self, record: ServerRecord) {
        self.excluded = exclusion(&record);
        self.record = record;
    }

    /// A batch arrived; it waits for [`Server::settle`].
    pub fn receive(&mut self, batch: Batch) {
        self.heard = Some(batch.received);
        self.streaming = true;
        if batch.snapshot {
            self.waiting.clear();
        }
        let full = self.waiting.len() >= WAITING_MAX;
        match self.waiting.back_mut() {
            Some(back) if full => back.absorb(batch),
            _ => self.waiting.push_back(batch),
        }
    }

    /// A message without a batch arrived.
    pub fn beat(&mut self, now: Moment) {
        self.heard = Some(now);
    }

    /// The stream ended, or could not be opened. While it stays so for the same reason the first text stays too: each try
    /// may fail in other words, and every row would change with them.
    pub fn lose(&mut self, cause: Cause) -> Touch {
        let changed = self.reachable() || self.silence.reason != cause.reason || !self.is_told;
        if changed {
            self.silence = cause;
            self.is_told = true;
        }
        self.streaming = false;
        self.fresh = false;
        Touch { all: changed, ..Touch::default() }
    }

    /// What was said belongs to a history that is not followed any more.
    pub fn forget(&mut self) {
        self.report = None;
        self.fresh = false;
        self.waiting.clear();
        self.ruling = None;
    }

    /// The position that only the registry can judge, if the next batch waits for that.
    pub fn doubtful(&self, history: &History) -> Option<Position> {
        let position = self.waiting.front()?.summary.position;
        let ruled = self.ruling.as_ref().is_some_and(|(ruled, _)| *ruled == position);
        (!ruled && history.judge(&position) == Standing::Unknown).then_some(position)
    }

    /// The registry said that `position` is in its history (`None`) or why it is not.
    pub fn rule(&mut self, position: Position, foreign: Option<Cause>) {
        self.ruling = Some((position, foreign));
    }

    /// Takes over the batches that need not wait any more.
    pub fn settle(&mut self, history: &History, reading: Option<Reading>) -> Touch {
        let mut touch = Touch::default();
        while let Some(foreign) = self.waiting.front().and_then(|batch| self.settled(batch, history, reading))
        {
            if let Some(batch) = self.waiting.pop_front() {
                self.adopt(batch, foreign, &mut touch);
            }
        }
        touch
    }

    /// `None` while the batch has to wait; else why it is about another history, if it is.
    fn settled(&self, batch: &Batch, history: &History, reading: Option<Reading>) -> Option<Option<Cause>> {
        let forked = |text: String| Some(Some(Cause::new(Reason::HistoryForked, text)));
        let position = batch.summary.position;
        let ruling = self.ruling.as_ref().filter(|(ruled, _)| *ruled == position);
        match (history.judge(&position), ruling) {
            (Standing::Foreign, _) => {
                return forked(format!(
                    "the server is at {position}, which is not in the history of the registry"
                ));
            }
            (Standing::Unknown, None) => return None,
            (Standing::Unknown, Some((_, Some(cause)))) => return Some(Some(cause.clone())),
            (Standing::Unknown, Some((_, None))) | (Standing::Known | Standing::Ahead, _) => {}
        }
        if batch.reaches() <= history.position().revision {
            return Some(None);
        }
        // A reading that began after the batch came includes all that the server can have seen.
        match reading.filter(|reading| reading.began >= batch.received && reading.head < batch.reaches()) {
            Some(Reading { head, .. }) => forked(format!(
                "the server speaks of revision {}, the registry is at {head}",
                batch.reaches()
            )),
            None => None,
        }
    }

    fn adopt(&mut self, batch: Batch, foreign: Option<Cause>, touch: &mut Touch) {
        let held_ahead: BTreeMap<String, Revision> =
            batch.summary.held_ahead.iter().map(|held| (held.path.clone(), held.revision)).collect();
        let report = match self.report.take() {
            None => {
                touch.all = true;
                let exceptions = BTreeMap::new();
                let (summary, received) = (batch.summary, batch.received);
                Report { exceptions, summary, held_ahead, received, foreign, paces: BTreeMap::new() }
            }
            Some(old) => {
                touch_differences(&old, &batch, &held_ahead, touch);
                let unverifiable = old.unverifiable().cloned();
                let exceptions = if batch.snapshot { BTreeMap::new() } else { old.exceptions };
                let new = Report {
                    exceptions,
                    summary: batch.summary,
                    held_ahead,
                    received: batch.received,
                    foreign,
                    paces: old.paces,
                };
                touch.all |= new.unverifiable() != unverifiable.as_ref();
                new
            }
        };
        let report = self.report.insert(report);
        report.measure();
        for (path, exception) in batch.exceptions {
            match exception {
                Some(exception) => drop(report.exceptions.insert(path, (exception, batch.received))),
                None => drop(report.exceptions.remove(&path)),
            }
        }
        touch.all |= self.streaming && !self.fresh;
        self.fresh = self.streaming;
    }
}

fn touch_differences(
    old: &Report,
    batch: &Batch,
    held_ahead: &BTreeMap<String, Revision>,
    touch: &mut Touch,
) {
    let (from, to) = (old.summary.position.revision, batch.summary.position.revision);
    if from != to {
        touch.moved.push((from.min(to), from.max(to)));
    }
    if batch.snapshot {
        touch.paths.extend(old.exceptions.keys().cloned());
    }
    touch.paths.extend(batch.exceptions.keys().cloned());
    differences(&old.held_ahead, held_ahead, &mut touch.paths);
    differences(&old.summary.transfers, &batch.summary.transfers, &mut touch.paths);
}

fn differences<V: PartialEq>(
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
    paths: &mut BTreeSet<String>,
) {
    paths.extend(
        old.iter().filter(|(path, value)| new.get(*path) != Some(value)).map(|(path, _)| path.clone()),
    );
    paths.extend(new.keys().filter(|path| !old.contains_key(*path)).cloned());
}
