//! From exchanges of four times to the offset of another clock, with bounds that are honest as long as no clock runs away
//! faster than it may.
//!
//! A sample says what the other wall clock showed at a moment of the own monotonic clock. So whoever sets the own wall clock
//! does not spoil it: the offset is against what that shows now.

use std::{collections::VecDeque, time::Duration};

use super::{Moment, Reading, drift, interval::Interval, nanos};

/// Samples of one witness that are kept; the one with the closest bounds counts.
pub const SAMPLES_KEPT: usize = 8;
/// A witness that was not heard for so long is away: it may have been set since.
pub const AWAY_AFTER: Duration = Duration::from_secs(30);
/// How far readings of two clocks that belong together may be apart.
const GRAIN_NS: i128 = 20_000;
/// The other clock was set between two readings that are further apart than this, beyond drift.
const SET_MEANWHILE_NS: i128 = 10_000_000;

/// A question and its answer: two readings here and two there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the question left here.
    pub sent: Reading,
    /// When it came there.
    pub received: Reading,
    /// When the answer left there.
    pub replied: Reading,
    /// When it came here.
    pub arrived: Reading,
    /// Which run of the other process answered: its monotonic readings belong together within one.
    pub incarnation: u128,
    /// How far the other clock may be from what it stands for: the distance of a time server from its own source, the error
    /// that a kernel admits. Zero for a clock that stands for itself.
    pub error: Duration,
}

/// Why an exchange says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The other side says that it took longer than question and answer took together.
    #[error("it was answered in less time than the answer took")]
    NegativeDelay,
    /// The monotonic clock here went back, or answers came out of order.
    #[error("the readings of this clock are not in order")]
    OutOfOrder,
    /// The monotonic clock there went back.
    #[error("the readings of the other clock are not in order")]
    RemoteOutOfOrder,
    /// The wall clock there was set between its two readings.
    #[error("the other clock was set in between")]
    RemoteSet,
}

/// What the other wall clock showed, at a moment of the own monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    at: Moment,
    remote_ns: i128,
    half_ns: i128,
}

impl Sample {
    fn of(exchange: &Exchange) -> Result<Self, Invalid> {
        let Exchange { sent, received, replied, arrived, .. } = exchange;
        let taken = arrived.since.checked_sub(sent.since).ok_or(Invalid::OutOfOrder)?;
        let held = replied.since.checked_sub(received.since).ok_or(Invalid::RemoteOutOfOrder)?;
        // Two monotonic clocks run differently, too.
        let run_apart = 2 * drift(taken) + GRAIN_NS;
        let delay = nanos(taken) - nanos(held);
        if delay < -run_apart {
            return Err(Invalid::NegativeDelay);
        }
        if (replied.wall_ns - received.wall_ns - nanos(held)).abs() > drift(held) + SET_MEANWHILE_NS {
            return Err(Invalid::RemoteSet);
        }
        // The answer took no time, or all of it, or anything in between.
        let half = delay.max(0) / 2;
        Ok(Self {
            at: arrived.since,
            remote_ns: replied.wall_ns + half,
            half_ns: half + run_apart + nanos(exchange.error),
        })
    }

    /// What the other clock shows at a moment from then on.
    fn remote(&self, now: Moment) -> Interval {
        let age = now.saturating_sub(self.at);
        Interval::around(self.remote_ns + nanos(age), self.half_ns + 2 * drift(age))
    }
}

/// What is known of one other clock.
#[derive(Clone, Debug, Default)]
pub struct Estimator {
    incarnation: Option<u128>,
    replied: Moment,
    samples: VecDeque<Sample>,
}

impl Estimator {
    /// Takes in an exchange. With the first of another run of the other process, what was known of the one before is forgotten.
    ///
    /// # Errors
    /// [`Invalid`] if it says nothing.
    pub fn note(&mut self, exchange: &Exchange) -> Result<(), Invalid> {
        let known = self.incarnation.replace(exchange.incarnation);
        if known.is_some_and(|known| known != exchange.incarnation) {
            (self.replied, self.samples) = (Moment::ZERO, VecDeque::new());
        }
        let sample = Sample::of(exchange)?;
        if exchange.received.since < self.replied {
            return Err(Invalid::RemoteOutOfOrder);
        }
        if self.samples.back().is_some_and(|last| last.at > sample.at) {
            return Err(Invalid::OutOfOrder);
        }
        self.replied = exchange.replied.since;
        // Bounds that exclude each other: a clock was set, or a machine stood still without knowing. The newest is true.
        let now = sample.remote(sample.at);
        self.samples.retain(|older| older.remote(sample.at).meets(&now));
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES_KEPT {
            self.samples.pop_front();
        }
        Ok(())
    }

    /// What was measured before a step of the own clock is worth nothing: a machine that stood still finds its wall clock set
    /// forward, and nobody tells it that its monotonic clock lacks that time.
    pub fn forget(&mut self) {
        self.samples.clear();
    }

    /// How far the other clock is ahead of this one; `None` if it was not heard for [`AWAY_AFTER`].
    pub fn offset(&self, own: Reading) -> Option<Interval> {
        let last = self.samples.back()?;
        if own.since.saturating_sub(last.at) > AWAY_AFTER {
            return None;
        }
        let all = self.samples.iter().map(|sample| sample.remote(own.since));
        let best = all.min_by_key(Interval::half)?;
        Some(Interval::between(best.low() - own.wall_ns, best.high() - own.wall_ns))
    }
}
