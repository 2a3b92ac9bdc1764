//! Time and chance as ports, so that a simulation can own both.

use std::time::Duration;

/// What a process may ask about time. Durations and timers use the monotonic clock of the runtime; the wall clock is
/// for stamps that people read. No decision ever compares the wall clocks of two servers (R63).
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now, in UTC, for display only (R66).
    fn now(&self) -> jiff::Timestamp;
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
        jiff::Timestamp::now()
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
