//! How fast a copy is, and how long it still takes.
//!
//! Measured here, by this process's own clock, from what arrives: a server that stands still says nothing, so its last word
//! about its rate would stay for ever. The rate is the mean over the last ten seconds: a copy that comes in bursts of a
//! mebibyte is shown at its mean, and a copy that became slower is shown slower within as long. A copy that has not moved
//! for three times as long as it ever did within the window, and for 5 s at least, stands still: then no time is told.

use std::{collections::VecDeque, time::Duration};

use crate::domain::Moment;

/// What the mean is taken over.
const WINDOW: Duration = Duration::from_secs(10);
/// Progress within this is one sample, so that a copy has at most a few dozen.
const SPACING: Duration = Duration::from_millis(250);
/// Samples that are kept even if they are older than the window: a copy of one mebibyte each 10 s still has a rate.
const SAMPLES_MIN: usize = 4;
/// A shorter history gives no rate of its own.
const HISTORY_MIN: Duration = Duration::from_secs(1);
/// A copy that did not move for less than this is not called still.
const STILL_MIN: Duration = Duration::from_secs(5);

/// The progress of one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When it had how many bytes; both rise.
    samples: VecDeque<(Moment, u64)>,
    /// When it last had more bytes than before, and how many.
    last: (Moment, u64),
    /// Bytes in a second as the server said it: all there is in the first second.
    said: u64,
}

impl Pace {
    /// The copy has so many bytes now; the server says that it is so fast.
    pub fn observe(&mut self, now: Moment, copied_bytes: u64, said: u64) {
        self.said = said;
        match self.samples.back() {
            // It began anew.
            Some((_, before)) if copied_bytes < *before => self.samples.clear(),
            Some(_) if copied_bytes == self.last.1 => return,
            _ => {}
        }
        self.last = (now, copied_bytes);
        if self.samples.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= SPACING) {
            self.samples.push_back((now, copied_bytes));
        }
        while self.samples.len() > SAMPLES_MIN
            && self.samples.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Bytes in a second; 0 while it stands still.
    pub fn rate(&self, now: Moment) -> u64 {
        let Some((begun, had)) = self.samples.front().copied() else { return 0 };
        let (moved, has) = self.last;
        if now.saturating_sub(moved) > self.patience() {
            return 0;
        }
        // From one arrival to another: the pause since the last one belongs to bytes that are still to come, unless it is
        // longer than it should be.
        let mean = |until: Moment| {
            let millis = u64::try_from(until.saturating_sub(begun).as_millis()).unwrap_or(u64::MAX);
            (has - had).saturating_mul(1_000) / millis.max(1)
        };
        if moved.saturating_sub(begun) < HISTORY_MIN {
            return self.said;
        }
        let longest = self.longest_pause();
        let late = now.saturating_sub(moved).saturating_sub(longest);
        mean(moved + late)
    }

    /// How long until it has `total_bytes`; `None` while nobody can tell.
    pub fn time_left(&self, now: Moment, total_bytes: u64) -> Option<Duration> {
        time_left(total_bytes.saturating_sub(self.last.1), self.rate(now))
    }

    fn longest_pause(&self) -> Duration {
        let pauses = self.samples.iter().zip(self.samples.iter().skip(1));
        pauses.map(|((before, _), (after, _))| after.saturating_sub(*before)).max().unwrap_or_default()
    }

    fn patience(&self) -> Duration {
        STILL_MIN.max(self.longest_pause().saturating_mul(3))
    }
}

/// How long so many bytes take at this rate; `None` if they do not move.
pub fn time_left(bytes: u64, bytes_per_second: u64) -> Option<Duration> {
    match (bytes, bytes_per_second) {
        (0, _) => Some(Duration::ZERO),
        (_, 0) => None,
        (bytes, rate) => Some(Duration::from_millis(
            u64::try_from(u128::from(bytes) * 1_000 / u128::from(rate)).unwrap_or(u64::MAX),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(millis: u64) -> Moment {
        Duration::from_millis(millis)
    }

    /// Whether the told time is within a factor of two of the true one.
    fn near(told: Option<Duration>, truth: f64) -> bool {
        told.is_some_and(|told| (0.5..=2.0).contains(&(told.as_secs_f64() / truth)))
    }

    /// R43: a copy at a constant rate tells the time it takes, from its first second on.
    #[test]
    fn a_constant_copy_tells_its_time() {
        let (mut pace, total) = (Pace::default(), 1_000 * MIB);
        for tick in 0..240_u64 {
            let copied = tick * 10 * MIB / 4;
            pace.observe(at(tick * 250), copied, 10 * MIB);
            let truth = (total - copied) as f64 / (10 * MIB) as f64;
            assert!(near(pace.time_left(at(tick * 250), total), truth), "{tick}: {pace:?}");
        }
        assert!(pace.samples.len() < 50);
    }

    /// R43: bursts of a mebibyte, each two seconds, are told at their mean at any moment between them.
    #[test]
    fn bursts_are_told_at_their_mean() {
        let (mut pace, total) = (Pace::default(), 200 * MIB);
        let mut copied = 0;
        for tick in 0..600_u64 {
            if tick % 20 == 0 {
                copied += MIB;
                pace.observe(at(tick * 100), copied, 40 * MIB);
            }
            if tick > 40 {
                let truth = (total - copied) as f64 / (MIB / 2) as f64;
                assert!(near(pace.time_left(at(tick * 100), total), truth), "{tick}: {pace:?}");
            }
        }
    }

    /// R43: a copy that is throttled to a tenth is told as slow within ten seconds, one with a mebibyte each ten seconds
    /// has a rate all the same.
    #[test]
    fn a_throttled_copy_is_told_as_slow() {
        let (mut pace, total) = (Pace::default(), 2_000 * MIB);
        let mut copied = 0;
        for tick in 0..80_u64 {
            copied += 25 * MIB;
            pace.observe(at(tick * 250), copied, 100 * MIB);
            if tick == 39 {
                break;
            }
        }
        for tick in 40..100_u64 {
            copied += 5 * MIB / 2;
            pace.observe(at(tick * 250), copied, 10 * MIB);
        }
        let truth = (total - copied) as f64 / (10 * MIB) as f64;
        assert!(near(pace.time_left(at(99 * 250), total), truth), "{pace:?}");

        let mut slow = Pace::default();
        for burst in 0..20_u64 {
            slow.observe(at(burst * 10_000), burst * MIB, 0);
        }
        let truth = (100 - 19) as f64 * 10.0;
        assert!(near(slow.time_left(at(195_000), 100 * MIB), truth), "{slow:?}");
    }

    /// R44: of a copy that stands still no time is claimed; when it goes on, or begins anew, there is one again.
    #[test]
    fn a_copy_that_stands_still_claims_no_time() {
        let mut pace = Pace::default();
        assert_eq!((pace.rate(at(0)), pace.time_left(at(0), MIB)), (0, None));
        for tick in 0..40_u64 {
            pace.observe(at(tick * 250), tick * MIB, 4 * MIB);
        }
        assert!(pace.time_left(at(14_000), 100 * MIB).is_some());
        // The server repeats what it said: that is no progress.
        for tick in 40..100_u64 {
            pace.observe(at(tick * 250), 39 * MIB, 4 * MIB);
        }
        assert_eq!((pace.rate(at(25_000)), pace.time_left(at(25_000), 100 * MIB)), (0, None));
        assert_eq!(pace.time_left(at(25_000), 39 * MIB), Some(Duration::ZERO));
        for tick in 100..160_u64 {
            pace.observe(at(tick * 250), (tick - 60) * MIB, 4 * MIB);
        }
        assert!(near(pace.time_left(at(39_750), 200 * MIB), (200 - 99) as f64 / 4.0), "{pace:?}");
        pace.observe(at(40_000), 0, 4 * MIB);
        assert_eq!(pace.rate(at(40_000)), 4 * MIB);
    }
}
