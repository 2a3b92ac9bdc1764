//! Real processes, real disks, real TLS: what a whole installation does, and what it does when it is hurt.

#![allow(
    clippy::disallowed_methods,
    reason = "a test awaits or aborts the tasks that it starts, and ends with its runtime"
)]

mod away;
mod cli;
mod clock;
mod clock_far;
mod clock_reach;
mod copies;
mod crash;
mod disks;
mod environment;
mod everywhere;
mod fanout;
mod firmware;
mod firmware_text;
mod flips;
mod gateways;
mod metrics;
mod model;
mod resolver;
mod tamper;
mod trace;
mod truth;
mod up;
mod uploads;
