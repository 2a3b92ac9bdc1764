//! What the kernel says of its own clock.

use std::time::Duration;

use rtime_clock::adjtime::{Timex, adjtimex};

use crate::ports::KernelTime;

/// The clock is not kept in time by anybody: `STA_UNSYNC`.
const UNSYNCHRONIZED: i32 = 0x40;
/// The time is in nanoseconds, not in microseconds: `STA_NANO`.
const NANOSECONDS: i32 = 0x2000;
/// What the kernel says when it does not know any more, in microseconds. A clock that was set by hand says so at once.
const ERROR_MAX_MICROS: i64 = 16_000_000;

/// The time of the kernel with the error that it admits; `None` where nobody keeps its clock in time.
pub fn read() -> Option<KernelTime> {
    // All zero is a question that changes nothing.
    let mut asked = Timex::new();
    adjtimex(&mut asked).ok()?;
    let told = asked.0;
    if told.status & UNSYNCHRONIZED != 0 || told.maxerror >= ERROR_MAX_MICROS {
        return None;
    }
    let unit = if told.status & NANOSECONDS != 0 { 1 } else { 1_000 };
    let wall_ns = i128::from(told.time.tv_sec) * 1_000_000_000 + i128::from(told.time.tv_usec) * unit;
    Some(KernelTime { wall_ns, error: Duration::from_micros(u64::try_from(told.maxerror).ok()?) })
}
