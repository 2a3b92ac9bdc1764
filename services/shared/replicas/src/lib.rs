//! The copies: what is known of each server's files, for every service that has to know it.
//!
//! Owns the records of files and servers as the registry has them, the report of each server, the cell rule that says from
//! both whether a server holds a file, and the loops that keep all of it fresh. Refuses to own what one service makes of
//! it: rows, filters, watchers, runs and summaries are the gateway's, the choice of a server is the resolver's.
//!
//! ```text
//! registry ─▶ engine::follow ─▶ ┌───────────────────────────────┐
//! filesync ─▶ engine::watch  ─▶ │ board: domain::copies, in the │ ─touched─▶ Live: the view of the service
//!             engine::roster    │ view of the service           │
//!                               └───────────────────────────────┘
//! domain: records, report, server, history, cell: who holds what                                        (pure)
//! ```
//!
//! Invariants
//! 1. A copy counts as held only if it was verified on that server at that revision (R44, I10).
//! 2. A report counts only when the registry was read as far as it speaks of, and its position is in the same history.
//! 3. A slow or dead server delays no other (R23).
//! 4. Whoever keeps a view is told of each change of the copies, more rather than less.

pub mod adapters;
pub mod domain;
pub mod engine;
pub mod ports;
pub mod wire;

pub use adapters::reports_grpc::GrpcReports;
pub use domain::{
    copies::{Copies, Touched},
    live::{Further, Live},
};
pub use engine::{
    Process, REGISTRY,
    board::{Board, Members, Target},
    roster::{Beside, Link, OnlyWatch},
    start,
    tasks::Tasks,
};
pub use ports::{Address, Parts, Reports};
