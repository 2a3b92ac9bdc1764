//! The contract: decode, call, encode.

pub mod connection_service;
pub mod server_service;
mod wire;
