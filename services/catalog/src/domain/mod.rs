//! The rules of firmware updates, without time, network or database.

pub mod address;
pub mod archive;
pub mod draft;
pub mod edit;
pub mod error;
pub mod feed;
pub mod life;
pub mod names;
pub mod note;
pub mod offers;
pub mod pace;
pub mod sources;
pub mod vigil;

#[cfg(test)]
mod placement_table;

use std::time::Duration;

/// A point in the monotonic time of this process.
pub type Moment = Duration;
