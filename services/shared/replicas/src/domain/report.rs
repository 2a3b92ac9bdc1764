//! What one server says of its copies: parts that make a batch, batches that make a report.

use std::{collections::BTreeMap, time::Duration};

use lockstep_model::{Position, Reason, Revision};

use crate::domain::{Moment, cause::Cause, cell::Copying, pace::Pace};

/// The most exceptions and clearances of one batch. A server has at most 10,000 files that are missing, and a change may
/// clear all and bring as many; copies that are kept although they are meant for others come on top.
const BATCH_ENTRIES_MAX: usize = 200_000;

/// How far a missing copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Waits for its turn.
    Pending,
    /// Bytes are on their way.
    Copying,
    /// The last try failed.
    Failed,
    /// It is not missing: it is held, and meant for another server only.
    Kept,
}

/// A file that the server does not hold although its position has passed the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The revision that should be held.
    pub revision: Revision,
    /// How far it is.
    pub progress: Progress,
    /// Why it is not held.
    pub cause: Option<Cause>,
    /// How long until the next try, when it was said.
    pub retry_delay: Option<Duration>,
    /// How long it had been so, when it was said.
    pub age: Duration,
}

/// A file that the server holds although its position has not reached the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldAhead {
    /// The path.
    pub path: String,
    /// The revision that is held.
    pub revision: Revision,
    /// Trace context of the registration; may be empty.
    pub traceparent: String,
}

/// A copy that is running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The server the bytes come from.
    pub source: String,
    /// Verified and written so far.
    pub copied_bytes: u64,
    /// Size of the content.
    pub total_bytes: u64,
    /// Bytes in a second.
    pub bytes_per_second: u64,
}

/// Something that concerns the whole server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What and why.
    pub cause: Cause,
    /// How long it had been so, when it was said.
    pub age: Duration,
}

/// What ends a batch; complete each time.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Everything up to here is held or an exception.
    pub position: Position,
    /// What concerns the whole server.
    pub conditions: Vec<Condition>,
    /// Copies that are running, by path.
    pub transfers: BTreeMap<String, Transfer>,
    /// What is held ahead of the position.
    pub held_ahead: Vec<HeldAhead>,
    /// How long ago every copy had been compared with its record, when it was said.
    pub compared_age: Option<Duration>,
    /// How long ago every copy had been read and hashed again, when it was said.
    pub hashed_age: Option<Duration>,
    /// How long the stream had been open for the server, when it was said; `None` from a server that does not say it.
    pub stream_age: Option<Duration>,
}

impl Summary {
    /// Adds to the ages what the message was on its way at most: it was said no earlier than `stream_age` after `opened`,
    /// when the call was made. Who was stopped, or cut off, reads old messages late, and must not take them for new (I10).
    fn arrive(&mut self, opened: Moment, now: Moment) {
        let on_its_way = self.stream_age.map_or(Duration::ZERO, |age| now.saturating_sub(opened + age));
        for age in [&mut self.compared_age, &mut self.hashed_age].into_iter().flatten() {
            *age += on_its_way;
        }
    }
}

/// One message of the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// One life of the process.
    pub incarnation: String,
    /// Whether the part belongs to a snapshot.
    pub snapshot: bool,
    /// New or changed exceptions.
    pub exceptions: Vec<(String, Exception)>,
    /// Paths that are no exceptions any more.
    pub cleared: Vec<String>,
    /// Present in the last part of a batch.
    pub end: Option<Summary>,
}

/// A complete change of a report: the exceptions that a position stepped over are in the batch that moves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Whether what is not in it is no exception.
    pub snapshot: bool,
    /// What became or changed (`Some`), and what is cleared (`None`).
    pub exceptions: BTreeMap<String, Option<Exception>>,
    /// The rest, complete.
    pub summary: Summary,
    /// When its last part came.
    pub received: Moment,
}

impl Batch {
    /// The highest revision that it speaks of. It can be shown only when the registry was read that far: before, the
    /// server may hold newer bytes than those that are known of (I10).
    pub fn reaches(&self) -> Revision {
        let held = self.summary.held_ahead.iter().map(|held| held.revision);
        let missing = self.exceptions.values().flatten().map(|exception| exception.revision);
        held.chain(missing).fold(self.summary.position.revision, Revision::max)
    }

    /// Takes over a later batch, as if both had been one.
    pub fn absorb(&mut self, later: Self) {
        if later.snapshot {
            *self = later;
            return;
        }
        self.exceptions.extend(later.exceptions);
        self.summary = later.summary;
        self.received = later.received;
    }
}

/// What breaks the contract of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first batch of a stream is no snapshot.
    #[error("the stream does not begin with a snapshot")]
    NoSnapshot,
    /// The process is another one than at the beginning of the stream.
    #[error("the process changed within one stream")]
    OtherIncarnation,
    /// A batch without an end.
    #[error("a batch carries more than {BATCH_ENTRIES_MAX} exceptions")]
    TooLarge,
}

/// Puts the parts of one stream together.
#[derive(Debug, Default)]
pub struct Assembler {
    opened: Moment,
    incarnation: Option<String>,
    snapshot_seen: bool,
    snapshot: bool,
    exceptions: BTreeMap<String, Option<Exception>>,
}

impl Assembler {
    /// For a stream that was asked for at `opened`.
    pub fn new(opened: Moment) -> Self {
        Self { opened, ..Self::default() }
    }

    /// Takes one part; returns the batch that it completes. An empty part without an end is a heartbeat.
    ///
    /// # Errors
    /// [`Malformed`]: the stream must be ended.
    pub fn push(&mut self, part: Part, now: Moment) -> Result<Option<Batch>, Malformed> {
        if self.incarnation.get_or_insert_with(|| part.incarnation.clone()) != &part.incarnation {
            return Err(Malformed::OtherIncarnation);
        }
        if part.snapshot && !self.snapshot {
            self.exceptions.clear();
        }
        self.snapshot |= part.snapshot;
        self.exceptions.extend(part.cleared.into_iter().map(|path| (path, None)));
        self.exceptions.extend(part.exceptions.into_iter().map(|(path, exception)| (path, Some(exception))));
        if self.exceptions.len() > BATCH_ENTRIES_MAX {
            return Err(Malformed::TooLarge);
        }
        let Some(mut summary) = part.end else { return Ok(None) };
        summary.arrive(self.opened, now);
        if !self.snapshot && !self.snapshot_seen {
            return Err(Malformed::NoSnapshot);
        }
        self.snapshot_seen = true;
        let snapshot = std::mem::take(&mut self.snapshot);
        let exceptions = std::mem::take(&mut self.exceptions);
        Ok(Some(Batch { snapshot, exceptions, summary, received: now }))
    }
}

/// What a server said last, as far as it may be shown.
#[derive(Clone, Debug)]
pub struct Report {
    /// The exceptions, with the moment each was said at.
    pub exceptions: BTreeMap<String, (Exception, Moment)>,
    /// The rest.
    pub summary: Summary,
    /// What is held ahead, by path.
    pub held_ahead: BTreeMap<String, Revision>,
    /// When it was said.
    pub received: Moment,
    /// Why the report is about another history than the one that is followed; `None` if it is about the same.
    pub foreign: Option<Cause>,
    /// How fast the running copies are, by path.
    pub paces: BTreeMap<String, Pace>,
}

impl Report {
    /// Takes over how far the running copies are.
    pub fn measure(&mut self) {
        let (transfers, now) = (&self.summary.transfers, self.received);
        self.paces.retain(|path, _| transfers.contains_key(path));
        for (path, transfer) in transfers {
            let pace = self.paces.entry(path.clone()).or_default();
            pace.observe(now, transfer.copied_bytes, transfer.bytes_per_second);
        }
    }

    /// A running copy, as it is now.
    pub fn copying(&self, path: &str, transfer: &Transfer, now: Moment) -> Copying {
        let pace = self.paces.get(path);
        Copying {
            source: transfer.source.clone(),
            bytes_per_second: pace.map_or(0, |pace| pace.rate(now)),
            time_left: pace.and_then(|pace| pace.time_left(now, transfer.total_bytes)),
        }
    }

    /// Why nothing is known of the server's copies although it reports: it follows another history, or its store is not
    /// the one that was verified (R44).
    pub fn unverifiable(&self) -> Option<&Cause> {
        let of_the_whole = |cause: &&Cause| cause.is(Reason::StoreOffline) || cause.is(Reason::HistoryForked);
        self.foreign.as_ref().or_else(|| self.summary.conditions.iter().map(|c| &c.cause).find(of_the_whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::samples::position;

    fn part(snapshot: bool, paths: &[&str], end: Option<u64>) -> Part {
        let exception = Exception {
            revision: Revision(1),
            progress: Progress::Pending,
            cause: None,
            retry_delay: None,
            age: Duration::ZERO,
        };
        Part {
            incarnation: "one".to_owned(),
            snapshot,
            exceptions: paths.iter().map(|path| ((*path).to_owned(), exception.clone())).collect(),
            cleared: Vec::new(),
            end: end.map(|revision| Summary {
                position: position(revision),
                conditions: Vec::new(),
                transfers: BTreeMap::new(),
                held_ahead: Vec::new(),
                compared_age: None,
                hashed_age: None,
                stream_age: None,
            }),
        }
    }

    #[test]
    fn a_batch_is_complete_with_its_position() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(part(true, &["a"], None), Moment::ZERO), Ok(None));
        let batch =
            assembler.push(part(true, &["b"], Some(3)), Moment::ZERO).expect("valid").expect("complete");
        assert!(batch.snapshot && batch.exceptions.len() == 2);
        assert_eq!(assembler.push(part(false, &[], None), Moment::ZERO), Ok(None));
        let batch =
            assembler.push(part(false, &["c"], Some(4)), Moment::ZERO).expect("valid").expect("complete");
        assert!(!batch.snapshot && batch.exceptions.len() == 1);
        assert_eq!(batch.reaches(), Revision(4));
    }

    /// R44, I10: a message that was on its way for long is not younger for that; one whose clock runs ahead is not older.
    #[test]
    fn what_arrives_late_is_as_old_as_it_is() {
        let seconds = Duration::from_secs;
        let mut assembler = Assembler::new(seconds(10));
        let mut age = |stream_age: Option<u64>, now: u64| {
            let mut late = part(true, &[], Some(3));
            let end = late.end.as_mut().expect("complete");
            (end.compared_age, end.stream_age) = (Some(seconds(1)), stream_age.map(seconds));
            let batch = assembler.push(late, seconds(now)).expect("valid").expect("complete");
            batch.summary.compared_age
        };
        assert_eq!(age(Some(5), 15), Some(seconds(1)));
        assert_eq!(age(Some(6), 23), Some(seconds(8)));
        assert_eq!(age(Some(20), 23), Some(seconds(1)));
        assert_eq!(age(None, 23), Some(seconds(1)));
    }

    #[test]
    fn a_stream_that_breaks_the_contract_is_refused() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(part(false, &[], Some(3)), Moment::ZERO), Err(Malformed::NoSnapshot));
        let mut assembler = Assembler::default();
        assembler.push(part(true, &[], Some(3)), Moment::ZERO).expect("valid");
        let other = Part { incarnation: "two".to_owned(), ..part(true, &[], Some(3)) };
        assert_eq!(assembler.push(other, Moment::ZERO), Err(Malformed::OtherIncarnation));
        let paths: Vec<String> = (0..=BATCH_ENTRIES_MAX).map(|n| n.to_string()).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(part(true, &paths, None), Moment::ZERO), Err(Malformed::TooLarge));
    }
}
