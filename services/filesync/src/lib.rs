//! filesync: keeps the registered files of one server what the registry says, verified to the byte.
//!
//! Owns the transfer directory of its server, its index, the records of files in the registry and the announcement of
//! its server. Refuses to own who else holds what (the gateway and the resolver watch), and what firmware is (catalog).
//!
//! ```text
//!   grpc ──▶ engine ──▶ domain (pure: plan, naming, tree)
//!              │
//!              └─▶ ports: Store  Index  Registry  Peers  Guard  Clock  Entropy ◀── adapters (real, simulation)
//! ```
//!
//! Invariants
//! 1. No byte is served or published that does not belong to the announced digest (I2, I7).
//! 2. A final name appears by rename only, after its bytes are durable and verified (I7).
//! 3. The disk is never evidence of what should exist; the registry is (I3).
//! 4. The position passes a revision only when its files are held, gone, or exceptions (I4, I10).
//! 5. One path has one owner from check through rename to index.
//! 6. A server that its time guard fences originates nothing, and drops nothing because of its age (R62, R64, R65).

pub mod adapters;
pub mod config;
pub mod domain;
pub mod engine;
pub mod grpc;
mod metrics;
pub mod ports;
mod run;

pub use config::{Checks, Config, Settings};
pub use domain::exception::EXCEPTIONS_MAX;
pub use run::{Parts, run, serve};
