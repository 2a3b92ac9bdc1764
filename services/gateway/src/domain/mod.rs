//! The rules of the matrix, pure and synchronous: nothing here can see tonic, prost, a database or tokio.
//!
//! Time is a [`Moment`] that the caller passes in: the monotonic time since the gateway started (R65).

pub mod changes;
pub mod cursor;
pub mod error;
pub mod explain;
pub mod filter;
pub mod firmware;
pub mod learned;
pub mod route;
pub mod run;
pub mod standing;
pub mod summary;
pub mod view;

#[cfg(test)]
pub(crate) use lockstep_replicas::domain::samples;
/// What is known of each server's copies: shared with the resolver, so that both say the same.
pub use lockstep_replicas::domain::{Moment, backoff, cause, cell, pace, records, report, server, tally};

#[cfg(test)]
mod tests;
