//! The rules of firmware updates, without time, network or database.

pub mod draft;
pub mod edit;
pub mod error;
pub mod life;
pub mod note;
pub mod offers;
pub mod pace;
pub mod vigil;

#[cfg(test)]
mod placement_table;

use std::time::Duration;

/// A point in the monotonic time of this process.
pub type Moment = Duration;
