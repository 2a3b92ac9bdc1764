//! The contract over the engine: decode, call, encode.

pub mod firmware_service;
mod firmware_stream;
pub mod settings_service;
mod wire;
