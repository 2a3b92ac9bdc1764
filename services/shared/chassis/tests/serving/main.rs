//! The chassis over real mutual TLS on the loopback.

#![allow(clippy::unwrap_used, reason = "tests")]

mod certificates;
mod common;
mod deadlines;
mod rights;
mod serving;
