//! The contract: decode, call, encode.

pub mod clock_service;
pub(crate) mod wire;
