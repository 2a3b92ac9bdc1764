//! What the tests of Lockstep share.
//!
//! Owns no product code and no test: the tiers are the test binaries beside it (see the README of this crate).

pub mod chance;
pub mod harness;
pub mod names;
pub mod normal;
pub mod planted;
