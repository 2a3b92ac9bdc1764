//! Chance and time, drawn from the seed.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use lockstep_model::clock::{Clock, Entropy};

/// A stream of random numbers that a seed and a name determine. Clones share the stream, so that a process that is
/// started again goes on where its last life ended.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    state: Arc<Mutex<u64>>,
}

impl Chance {
    /// The stream of `name` in the world of `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let digest = blake3::hash(format!("{seed} {name}").as_bytes());
        let state = digest.as_bytes().iter().take(8).fold(0, |state, byte| state << 8 | u64::from(*byte));
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The next 64 bits (SplitMix64).
    pub(crate) fn next(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `range`.
    pub(crate) fn between(&self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// True once in `times`.
    pub(crate) fn once_in(&self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    /// A time in milliseconds.
    pub(crate) fn millis(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.between(range))
    }

    /// So many random bytes.
    pub(crate) fn bytes(&self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.fill(&mut bytes);
        bytes
    }

    /// The order in which to go through `count` things.
    pub(crate) fn shuffled(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }
}

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}

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
