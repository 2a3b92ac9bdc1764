//! The edge: decode, call, encode.

pub mod content_service;
pub mod file_service;
pub mod replica_service;
pub mod store_service;
pub mod upload_service;
mod wire;
