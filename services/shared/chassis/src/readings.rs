//! Both clocks of this machine.

use std::time::Duration;

use lockstep_model::clock::{Clock as _, Reading, Readings, SystemClock, Uptime};
use rustix::time::{ClockId, clock_gettime};

/// The clocks of the machine: the wall clock, and the one that only runs on, also while the machine sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemReadings;

impl Readings for SystemReadings {
    fn reading(&self) -> Reading {
        let (before, wall, after) = (uptime(), SystemClock.now(), uptime());
        Reading { wall_ns: wall.as_nanosecond(), since: before + (after - before) / 2 }
    }
}

fn uptime() -> Uptime {
    let now = clock_gettime(ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Duration::from_secs(part(now.tv_sec)) + Duration::from_nanos(part(now.tv_nsec))
}
