//! The ports over real mechanisms.

pub mod clocks_none;
