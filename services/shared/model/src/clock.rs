//! Time and chance as ports, so that a simulation can own both.

use std::time::Duration;

/// What a process may ask about time. Durations and timers use the monotonic clock of the runtime; the wall clock is
/// for stamps that people read. No decision ever compares the wall clocks of two servers (R63).
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now, in UTC, for display only (R66).
    fn now(&self) -> jiff::Timestamp;
}

/// Both clocks of a machine, for the time guard, which judges the wall clock by the other one.
pub trait Readings: Clone + Send + Sync + 'static {
    /// Both, read as closely together as can be.
    fn reading(&self) -> Reading;
}

/// Monotonic time since the machine started, with the time that it slept.
pub type Uptime = Duration;

/// Both clocks of a machine at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reading {
    /// The wall clock, in nanoseconds since 1970.
    pub wall_ns: i128,
    /// The monotonic clock of the same machine.
    pub since: Uptime,
}

/// Where random bytes come from. A simulation draws them from its seed.
pub trait Entropy: Clone + Send + Sync + 'static {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// A random version 4 UUID.
    fn uuid(&self) -> uuid::Uuid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// `base`, changed by up to a quarter in either direction, so that many waiters do not come back together.
    fn jitter(&self, base: Duration) -> Duration {
        let mut byte = [0; 1];
        self.fill(&mut byte);
        base.mul_f64(0.75 + f64::from(byte[0]) / 510.0)
    }
}

/// The clock and the random source of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> jiff::Timestamp {
        let now = jiff::Timestamp::now();
        #[cfg(feature = "shift")]
        let now = now.saturating_add(shift::current()).unwrap_or(now);
        now
    }
}

/// A wall clock that is wrong on purpose: for tests of real processes, and compiled in for them alone.
#[cfg(feature = "shift")]
pub mod shift {
    use std::sync::atomic::{AtomicI64, Ordering};

    static SHIFT_NS: AtomicI64 = AtomicI64::new(0);

    /// From now on the wall clock of this process is ahead by so many nanoseconds; 292 years at most, either way.
    pub fn set(shift_ns: i64) {
        SHIFT_NS.store(shift_ns, Ordering::SeqCst);
    }

    pub(super) fn current() -> jiff::SignedDuration {
        jiff::SignedDuration::from_nanos(SHIFT_NS.load(Ordering::SeqCst))
    }
}

/// Randomness from the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(16) {
            chunk.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..chunk.len()]);
        }
    }
}
