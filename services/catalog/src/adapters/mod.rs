//! The ports over real mechanisms.

pub mod servers_grpc;
pub mod vendor_none;
