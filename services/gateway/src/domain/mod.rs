//! The rules of the matrix, pure and synchronous: nothing here can see tonic, prost, a database or tokio.
//!
//! Time is a [`Moment`] that the caller passes in: the monotonic time since the gateway started (R65).

pub mod backoff;
pub mod cause;
pub mod cell;
pub mod changes;
pub mod cursor;
pub mod error;
pub mod explain;
pub mod filter;
pub mod history;
pub mod learned;
pub mod pace;
pub mod records;
pub mod report;
pub mod route;
pub mod run;
pub mod server;
pub mod standing;
pub mod summary;
pub mod tally;
pub mod view;

/// Monotonic time since the gateway started.
pub type Moment = std::time::Duration;

#[cfg(test)]
mod tests;
