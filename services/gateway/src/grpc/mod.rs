//! What the gateway itself answers: decode, one call, encode.

pub mod matrix_service;
mod row_stream;
pub mod wire;
