//! How fast, and for how long still.

use std::{collections::VecDeque, time::Duration};

use crate::domain::Moment;

/// Over how long a rate is measured.
const WINDOW: Duration = Duration::from_secs(5);
/// Less than this tells nothing.
const LEAST: Duration = Duration::from_millis(500);
/// Measurements that are kept: one a second, and room.
const MARKS_MAX: usize = 16;

/// Measures bytes in a second over the last seconds.
#[derive(Debug, Default)]
pub struct Pace {
    marks: VecDeque<(Moment, u64)>,
}

impl Pace {
    /// So many bytes are there now.
    pub fn mark(&mut self, now: Moment, bytes: u64) {
        // A file that begins anew takes bytes away; then the measurement begins anew, too.
        if self.marks.back().is_some_and(|(_, last)| *last > bytes) {
            self.marks.clear();
        }
        self.marks.push_back((now, bytes));
        while self.marks.len() > MARKS_MAX
            || self.marks.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW)
        {
            self.marks.pop_front();
        }
    }

    /// Bytes in a second; 0 while it stands still or is not measured.
    pub fn bytes_per_second(&self) -> u64 {
        let (Some((since, before)), Some((now, bytes))) = (self.marks.front(), self.marks.back()) else {
            return 0;
        };
        let took = now.saturating_sub(*since);
        if took < LEAST {
            return 0;
        }
        let rate = u128::from(bytes - before) * 1_000 / took.as_millis().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// How long `left` bytes take at this rate; `None` while nobody can tell.
pub fn time_left(left: u64, bytes_per_second: u64) -> Option<Duration> {
    (bytes_per_second > 0).then(|| Duration::from_secs(left.div_ceil(bytes_per_second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R58: the rate is that of the last seconds, and a standstill is 0.
    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        assert_eq!(pace.bytes_per_second(), 0);
        for second in 0..=10 {
            pace.mark(Duration::from_secs(second), second * 1_000);
        }
        assert_eq!(pace.bytes_per_second(), 1_000);
        assert_eq!(time_left(2_500, 1_000), Some(Duration::from_secs(3)));
        for second in 11..=20 {
            pace.mark(Duration::from_secs(second), 10_000);
        }
        assert_eq!((pace.bytes_per_second(), time_left(1, 0)), (0, None));
        pace.mark(Duration::from_secs(21), 500);
        assert_eq!(pace.bytes_per_second(), 0, "it began anew");
    }
}
