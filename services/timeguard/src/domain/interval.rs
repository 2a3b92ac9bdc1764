//! A quantity of which only bounds are known, and whether it is beyond a limit.

use std::time::Duration;

use super::nanos;

/// From its lowest to its highest possible value, in nanoseconds; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    low: i128,
    high: i128,
}

/// Where an offset lies, as seen from a limit around zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Certainly not beyond the limit.
    Within,
    /// Perhaps beyond it.
    Across,
    /// Certainly beyond it: the other clock is behind.
    Below,
    /// Certainly beyond it: the other clock is ahead.
    Above,
}

impl Place {
    /// Whether it is certainly beyond the limit.
    pub fn is_beyond(self) -> bool {
        matches!(self, Self::Below | Self::Above)
    }
}

impl Interval {
    /// Between two values, in either order.
    pub fn between(one: i128, other: i128) -> Self {
        Self { low: one.min(other), high: one.max(other) }
    }

    /// A value that is known up to `half`.
    pub fn around(middle: i128, half: i128) -> Self {
        Self::between(middle.saturating_sub(half), middle.saturating_add(half))
    }

    /// The lowest possible value.
    pub fn low(&self) -> i128 {
        self.low
    }

    /// The highest possible value.
    pub fn high(&self) -> i128 {
        self.high
    }

    /// The best guess.
    pub fn middle(&self) -> i128 {
        self.low + (self.high - self.low) / 2
    }

    /// How far the truth may be from the best guess.
    pub fn half(&self) -> i128 {
        self.high - self.middle()
    }

    /// Whether both can be true of one quantity.
    pub fn meets(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// With both bounds further out.
    #[must_use]
    pub fn widened(&self, by: i128) -> Self {
        Self { low: self.low.saturating_sub(by), high: self.high.saturating_add(by) }
    }

    /// Where it lies. What is exactly at the limit is not beyond it.
    pub fn place(&self, limit: Duration) -> Place {
        let limit = nanos(limit);
        if self.low > limit {
            Place::Above
        } else if self.high < -limit {
            Place::Below
        } else if self.low >= -limit && self.high <= limit {
            Place::Within
        } else {
            Place::Across
        }
    }
}
