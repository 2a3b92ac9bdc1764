//! Chance and time, drawn from the seed.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use lockstep_model::clock::Clock;
pub(crate) use lockstep_tests::chance::Chance;

/// The wall clock of one server: wrong from the start, and it can be stepped.
#[derive(Clone, Debug)]
pub(crate) struct SimClock {
    offset_seconds: Arc<AtomicI64>,
}

impl SimClock {
    /// Where every simulation begins, in seconds since 1970.
    const BEGIN: i64 = 1_800_000_000;

    /// A clock that is wrong by so many seconds.
    pub(crate) fn new(offset_seconds: i64) -> Self {
        Self { offset_seconds: Arc::new(AtomicI64::new(offset_seconds)) }
    }

    /// Steps the clock.
    pub(crate) fn step(&self, seconds: i64) {
        self.offset_seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> jiff::Timestamp {
        let begin = Self::BEGIN + self.offset_seconds.load(Ordering::Relaxed);
        let begin = jiff::Timestamp::from_second(begin).expect("a time that people live in");
        begin + turmoil::sim_elapsed().unwrap_or_default()
    }
}
