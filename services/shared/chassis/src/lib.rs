//! How to be a gRPC process of Lockstep.
//!
//! Owns everything that every service does alike: settings, certificates, connections, rights, deadlines, traces,
//! statuses, health, and an orderly end. Refuses to own any rule of a service, any store, and any contract.
//!
//! ```text
//! launch ── config ── telemetry ── tls (verify, reload, pki) ── listener ── run(config, process) ── drain
//!
//! serve::App   connection ─▶ call (span, metric) ─▶ layer (deadline, auth, rights) ─▶ handler ─▶ status
//! channel      client ─▶ call (span, metric) ─▶ deadline ─▶ dial ─▶ status::read
//! in handlers  fields · paging · watch · deadline · status
//! ```
//!
//! Invariants
//! 1. Nothing is read from a peer that did not prove an identity of the trust domain (R67, R69).
//! 2. An RPC whose right the contract does not state is not served; a call without the right has no effect (I13).
//! 3. Every status carries a reason; only [`status`] builds one.
//! 4. Certificates are replaced whole or not at all (R68).
//! 5. Everything ends when the [`drain::Drain`] begins, and is bounded until then.

pub mod auth;
mod call;
pub mod channel;
pub mod config;
pub mod connection;
pub mod crash;
pub mod deadline;
mod details;
pub mod dial;
pub mod drain;
pub mod failure;
pub mod fields;
pub mod health;
pub mod launch;
mod layer;
pub mod listener;
mod metrics;
pub mod paging;
pub mod pki;
mod probe;
mod readings;
mod reload;
mod request;
pub mod rights;
pub mod seal;
pub mod serve;
pub mod start;
pub mod status;
pub mod supervisor;
pub mod telemetry;
mod text;
pub mod tls;
pub mod trace;
mod verify;
pub mod watch;

pub use auth::{PRINCIPAL_KEY, SERVER_KEY, caller};
pub use channel::{Channel, Channels, Dial, Lane};
pub use config::{EXIT_USAGE, Settings, Span, Switch, UsageError};
pub use connection::Connection;
pub use dial::TlsDial;
pub use drain::Drain;
pub use failure::Failure;
pub use fields::Fields;
pub use health::Health;
pub use launch::{Process, launch};
pub use listener::{TlsConnection, TlsIncoming};
pub use readings::SystemReadings;
pub use seal::SealKey;
pub use serve::App;
pub use start::StartError;
pub use status::OrStatus;
pub use tls::{TlsError, TlsIdentity};
