//! What is known of clocks, pure and synchronous.

pub mod heard;
pub mod report;

pub use lockstep_replicas::domain::Moment;
