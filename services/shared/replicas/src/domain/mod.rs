//! What is known of each server's copies, pure and synchronous: nothing here can see tonic, prost, a database or tokio.
//!
//! Time is a [`Moment`] that the caller passes in: the monotonic time since the process started (R65).

pub mod backoff;
pub mod cause;
pub mod cell;
pub mod copies;
pub mod history;
pub mod live;
pub mod pace;
pub mod records;
pub mod report;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod server;
pub mod tally;

/// Monotonic time since the process started.
pub type Moment = std::time::Duration;
