//! What the gateway itself answers: decode, one call, encode.

mod filter_fields;
pub mod matrix_service;
mod row_stream;
mod run_stream;
pub mod sync_run_service;
pub mod wire;
