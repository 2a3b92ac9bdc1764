//! The contract over the engine: decode, call, encode.

pub mod firmware_service;
mod firmware_stream;
mod firmware_upload;
pub mod settings_service;
mod wire;
