//! The timeguard: keeps a server whose clock is wrong from doing harm.
//!
//! Owns the judgement of the clock of its server: what it was compared with, how far it is away, whether it was set, and
//! whether the server may originate changes. Refuses to own any clock: it never sets one.
//!
//! ```text
//! peers, registry, NTP, kernel ─▶ engine::ask  ─┐
//! timerfd, each second ─────────▶ engine::look ─┴▶ domain::guard ─▶ grpc: own filesync, gateway, resolver, people
//!                                                       └─▶ adapters::notebook, across restarts
//! ```
//!
//! Invariants
//! 1. Nothing is compared but the own clock with others, and that only to judge it: no order of changes follows (R63).
//! 2. Only what is proven, or contradicted without anybody to decide, fences; what is not known does not (R62).
//! 3. After a step the server is fenced until its services began after it, across restarts of the guard (R64).
//! 4. All lengths are measured with the clock that only runs on (R65).
//! 5. It answers while the registry is away: to its own server, and to whoever was known before.

pub mod adapters;
pub mod config;
pub mod domain;
pub mod engine;
pub mod grpc;
mod metrics;
pub mod ports;
mod run;

pub use config::Config;
pub use run::{Parts, run, serve};
