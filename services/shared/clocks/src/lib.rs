//! The clocks: what is known of the clock of each server, for every service that has to know it.
//!
//! Owns the last report of each timeguard, how old it is, and the loops that keep it fresh. Refuses to own any judgement:
//! whether a clock is wrong, and whether its server is fenced, is said by the timeguard of that server and only told here.
//!
//! ```text
//! lockstep-replicas ──members──▶ engine::roster ─▶ engine::watch ─▶ board ─▶ summaries of gateway, choice of resolver
//!                                timeguards ◀───── one task each    (domain::heard)                              (pure)
//! ```
//!
//! Invariants
//! 1. What was not heard for [`FORGOTTEN_AFTER`](domain::heard::FORGOTTEN_AFTER) is not known: the clock is UNMEASURED, and
//!    nobody is called fenced for it.
//! 2. A slow or dead timeguard delays no other (R23).
//! 3. Ages are monotonic time of this process; no clock is compared here (R63, R65).

pub mod adapters;
pub mod domain;
pub mod engine;
pub mod ports;
pub mod wire;

pub use adapters::clock_reports_grpc::GrpcClockReports;
pub use domain::report::{Fence, Report, Verdict};
pub use engine::{board::ClockBoard, start};
pub use ports::{ClockReports, Reports};
