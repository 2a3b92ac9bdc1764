//! What can be said of a clock and what follows from it, pure and synchronous: nothing here reads a clock, waits or sees
//! the network.
//!
//! ```text
//!   exchanges ─▶ estimate ─▶ witness ─▶ verdict ─┐
//!                                  readings ─▶ step ─┴─▶ fence ─▶ may originate, or not, and why
//!   guard: all of it together, for one clock
//! ```
//! Wall clocks are numbers of nanoseconds since 1970. All lengths are measured with the own monotonic clock (R65); an offset is
//! how much the other clock is ahead of this one.

pub use lockstep_model::clock::Reading;

pub mod choose;
pub mod error;
pub mod estimate;
pub mod fence;
pub mod guard;
pub mod interval;
pub mod step;
pub mod verdict;
pub mod witness;
pub mod words;

/// Monotonic time since the machine started, with the time that it slept.
pub type Moment = lockstep_model::clock::Uptime;

/// How far a clock runs away from the true time while it is slewed, in millionths: what the kernel allows at most. Smearing
/// a leap second over a day is a fortieth of it.
pub const DRIFT_PPM: i128 = 500;

/// A length in nanoseconds.
pub fn nanos(length: std::time::Duration) -> i128 {
    // A u128 of nanoseconds that a `Duration` can have fits.
    i128::try_from(length.as_nanos()).unwrap_or(i128::MAX)
}

/// How far one clock may have run away within this time.
pub fn drift(length: std::time::Duration) -> i128 {
    nanos(length) * DRIFT_PPM / 1_000_000
}

#[cfg(test)]
mod tests;
