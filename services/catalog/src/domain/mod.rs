//! The rules of firmware updates, without time, network or database.

pub mod address;
pub mod archive;
pub mod feed;
pub mod names;
pub mod sources;
