//! The real things behind the ports.

pub mod archive_zip;
pub mod vendor_https;
