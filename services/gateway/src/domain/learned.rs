//! When the gateway learned of each revision, by its own monotonic clock.

use std::{collections::VecDeque, time::Duration};

use lockstep_model::Revision;

use crate::domain::Moment;

/// How many readings are remembered: of what is older, only the least age is known.
const READINGS_KEPT: usize = 10_000;

/// The readings, each with the last revision in it. The first one is everything there was.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    readings: VecDeque<(Revision, Moment)>,
}

impl Learned {
    /// Everything up to `through` is known from `now` on.
    pub fn read(&mut self, through: Revision, now: Moment) {
        if self.readings.back().is_none_or(|(known, _)| *known < through) {
            self.readings.push_back((through, now));
        }
        if self.readings.len() > READINGS_KEPT {
            self.readings.pop_front();
        }
    }

    /// How long `revision` is known at least; `None` if it is not.
    pub fn age(&self, revision: Revision, now: Moment) -> Option<Duration> {
        let at = self.readings.partition_point(|(through, _)| *through < revision);
        self.readings.get(at).map(|(_, learned)| now.saturating_sub(*learned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_count_from_the_reading_that_brought_it() {
        let mut learned = Learned::default();
        assert_eq!(learned.age(Revision(1), Duration::from_secs(9)), None);
        for (through, at) in [(5, 10), (7, 20), (7, 30), (9, 40)] {
            learned.read(Revision(through), Duration::from_secs(at));
        }
        let age =
            |revision| learned.age(Revision(revision), Duration::from_secs(50)).map(|age| age.as_secs());
        assert_eq!(
            [1, 5, 6, 7, 8, 9, 10].map(age),
            [Some(40), Some(40), Some(30), Some(30), Some(10), Some(10), None]
        );
    }

    #[test]
    fn what_is_forgotten_has_the_least_age() {
        let mut learned = Learned::default();
        for revision in 1..=READINGS_KEPT as u64 + 10 {
            learned.read(Revision(revision), Duration::from_secs(revision));
        }
        assert_eq!(learned.readings.len(), READINGS_KEPT);
        let now = Duration::from_secs(READINGS_KEPT as u64 + 10);
        assert_eq!(learned.age(Revision(1), now), learned.age(Revision(11), now));
    }
}
