//! The ports over real mechanisms.

pub mod archive_zip;
pub mod servers_grpc;
pub mod vendor_https;
