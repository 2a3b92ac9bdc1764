//! How long a call may take, from its first caller to its last callee.
//!
//! The server layer gives the task of a handler its deadline, the client layer forwards what is left of it less a
//! reserve to answer with. A handler need not do anything; for work of its own it uses [`within`].

use std::time::Duration;

use lockstep_model::{Fault, Reason};
use tokio::time::Instant;

/// The deadline of a unary call whose caller states none, as the server sees it.
pub const SERVER_DEFAULT: Duration = Duration::from_secs(30);
/// The deadline of a unary call whose task has none, as the client sends it.
pub const CLIENT_DEFAULT: Duration = Duration::from_secs(10);
/// Less than this is too short for useful work: the caller hears which hop was late.
pub const USEFUL_MIN: Duration = Duration::from_millis(5);
/// What a hop keeps to answer with, at most; below 200 ms a tenth of what is left.
pub const RESERVE_MAX: Duration = Duration::from_millis(20);

tokio::task_local! {
    static DEADLINE: Option<Instant>;
}

/// The deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed before the work was done")]
pub struct Expired;

impl Fault for Expired {
    fn reason(&self) -> Reason {
        Reason::DeadlineExpired
    }
}

/// So little time is left that nothing was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} ms are left, which is too short for useful work", .left.as_millis())]
pub struct TooShort {
    /// What was left.
    pub left: Duration,
}

impl Fault for TooShort {
    fn reason(&self) -> Reason {
        Reason::DeadlineTooShort
    }
}

/// The deadline of the current task.
pub fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

/// What is left of the deadline of the current task; `None` if it has none.
pub fn remaining() -> Option<Duration> {
    current().map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Runs `work` for at most `limit`, and not longer than the deadline that the task has already. Calls made by `work`
/// get what is left.
///
/// # Errors
/// [`Expired`] if it takes longer.
pub async fn within<F: Future>(limit: Duration, work: F) -> Result<F::Output, Expired> {
    until(Some(Instant::now() + limit), work).await
}

/// Runs `work` until `deadline`, and not longer than the deadline that the task has already. Used to hand the deadline
/// of a call to a task of its own.
///
/// # Errors
/// [`Expired`] if it takes longer.
pub async fn until<F: Future>(deadline: Option<Instant>, work: F) -> Result<F::Output, Expired> {
    let deadline = [current(), deadline].into_iter().flatten().min();
    let work = DEADLINE.scope(deadline, work);
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.map_err(|_| Expired),
        None => Ok(work.await),
    }
}

/// Runs `work` without any deadline: what must be finished whoever waits for it.
pub async fn without<F: Future>(work: F) -> F::Output {
    DEADLINE.scope(None, work).await
}

/// Runs synchronous code, such as one poll of a body, with a deadline set.
pub(crate) fn sync_scope<R>(deadline: Option<Instant>, work: impl FnOnce() -> R) -> R {
    DEADLINE.sync_scope(deadline, work)
}

/// What may be passed on to a callee when `left` is left.
pub fn forwarded(left: Duration) -> Duration {
    left - (left / 10).min(RESERVE_MAX)
}

/// The name of the header.
pub(crate) const HEADER: &str = "grpc-timeout";

/// Reads `grpc-timeout`: at most eight digits and a unit. Anything else is no deadline.
pub(crate) fn read(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Writes `grpc-timeout` in the finest unit that fits eight digits.
pub(crate) fn write(headers: &mut http::HeaderMap, left: Duration) {
    const DIGITS_MAX: u128 = 99_999_999;
    let units = [(left.as_micros(), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')];
    let fits = units.into_iter().find(|(number, _)| *number <= DIGITS_MAX);
    let (number, unit) = fits.unwrap_or((DIGITS_MAX, 'S'));
    if let Ok(value) = http::HeaderValue::from_str(&format!("{number}{unit}")) {
        headers.insert(HEADER, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_reads_what_it_wrote() {
        for millis in [1, 5, 99, 1_000, 30_000, 86_400_000, 40 * 86_400_000] {
            let mut headers = http::HeaderMap::new();
            write(&mut headers, Duration::from_millis(millis));
            assert_eq!(read(&headers), Some(Duration::from_millis(millis)), "{headers:?}");
        }
        for bad in ["", "S", "1", "1x", "123456789S", "-1S", "+1S", "1 S", "é"] {
            let mut headers = http::HeaderMap::new();
            headers.insert(HEADER, http::HeaderValue::from_bytes(bad.as_bytes()).expect("a header value"));
            assert_eq!(read(&headers), None, "{bad}");
        }
    }

    #[test]
    fn each_hop_keeps_a_reserve() {
        assert_eq!(forwarded(Duration::from_secs(10)), Duration::from_millis(9_980));
        assert_eq!(forwarded(Duration::from_millis(100)), Duration::from_millis(90));
    }

    #[tokio::test(start_paused = true)]
    async fn the_nearest_deadline_counts() {
        let inner = within(Duration::from_secs(1), async {
            assert_eq!(remaining(), Some(Duration::from_secs(1)));
            within(Duration::from_secs(9), std::future::pending::<()>()).await
        });
        let start = Instant::now();
        assert_eq!(inner.await, Ok(Err(Expired)));
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(remaining(), None);
    }
}
