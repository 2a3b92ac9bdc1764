//! The resolver: tells each device which server to download from.
//!
//! Owns the choice (R47 to R54), and what people say of a server: display name, site, host name, ports and their public
//! counterparts. Refuses to own who holds what: it watches the servers, as the gateway does, through the same library. It
//! keeps nothing on disk, so any number of instances may run anywhere, and each answers alike.
//!
//! ```text
//! filesync ──reports──▶ ┌─────────────────────┐ ──view──▶ domain::resolve ──▶ grpc::connection_service ──▶ devices' servers
//! registry ──records──▶ │ lockstep-replicas   │
//! timeguard ─reports──▶ │ lockstep-clocks     │
//!          ◀──commit─── └─ engine::servers ◀──┘◀────────── grpc::server_service ◀── people
//!
//! domain: holders (who holds all of it) · choose (which of them) · reach (its addresses) · connection (the data)  (pure)
//! ```
//!
//! Invariants
//! 1. A server is offered only for bytes that it holds, verified, at the registered revision; else nobody is (R48, R51).
//! 2. Host and ports of an answer are of one server, at one position of the registry, which the answer names (R49, R54).
//! 3. The same question at the same state has the same answer on every instance (R50).
//! 4. A server that its timeguard fences is offered last; one whose timeguard is not heard is not taken for fenced.
//! 5. An answer waits for nobody: it comes from memory, also while servers or the registry are away.
//! 6. Ready only when the registry was read.

pub mod adapters;
pub mod config;
pub mod domain;
pub mod engine;
pub mod grpc;
pub mod ports;

use lockstep_chassis::{App, Connection, Drain, Health, Process, SealKey, StartError};
use lockstep_clocks::{ClockBoard, ClockReports, GrpcClockReports};
use lockstep_model::clock::{Entropy, SystemEntropy};
use lockstep_proto::resolver::v1::{
    connection_service_server::ConnectionServiceServer, server_service_server::ServerServiceServer,
};
use lockstep_registry::{CachedMembers, Registry};
use lockstep_replicas::{GrpcReports, OnlyWatch, Reports};
use tokio_stream::Stream;

pub use config::Config;

use crate::{
    engine::{Board, resolver::Resolver, servers::Servers},
    grpc::{connection_service::Connections, server_service::ServerDescriptions},
};

/// What the resolver is made of, besides its incoming connections.
#[derive(Clone, Debug)]
pub struct Parts<R, P, C, E> {
    /// What should exist.
    pub registry: R,
    /// What the servers say of their copies.
    pub reports: P,
    /// What the timeguards of the servers say of their clocks.
    pub clock_reports: C,
    /// The key of stored passwords.
    pub password_key: Option<SealKey>,
    /// The health of the process; the condition `registry` is set here.
    pub health: Health,
    /// The end of the process.
    pub drain: Drain,
    /// Jitter.
    pub entropy: E,
}

/// Runs the service with the real adapters until it is told to stop.
///
/// # Errors
/// [`StartError`] if the registry cannot be opened, or the key of stored passwords cannot be used.
pub async fn run(config: Config, process: Process) -> Result<(), StartError> {
    let password_key = config.password_key.as_deref().map(SealKey::read).transpose()?;
    let opened = config.registry.open();
    let registry = opened.map_err(|error| {
        StartError::of(format!("the registry {} cannot be opened", config.registry), &error)
    })?;
    let Process { drain, health, incoming, channels, .. } = process;
    let (reports, clock_reports) = (GrpcReports::new(channels.clone()), GrpcClockReports::new(channels));
    let entropy = SystemEntropy;
    let parts = Parts { registry, reports, clock_reports, password_key, health, drain, entropy };
    serve(parts, incoming).await
}

/// Serves over any registry, reports and connections, until the drain.
///
/// # Errors
/// [`StartError`] if the contract lacks the description of what is served.
pub async fn serve<R: Registry, P: Reports, C: ClockReports, E: Entropy>(
    parts: Parts<R, P, C, E>,
    incoming: impl Stream<Item = impl Connection>,
) -> Result<(), StartError> {
    let Parts { registry, reports, clock_reports, password_key, health, drain, entropy } = parts;
    let (board, clocks) = (Board::new(), ClockBoard::new());
    let process = lockstep_replicas::Process { health: &health, drain: &drain, entropy: &entropy };
    lockstep_replicas::start(&registry, reports, &board, process, OnlyWatch);
    lockstep_clocks::start(board.members(), clock_reports, &clocks, &drain, entropy.clone());
    let resolver = Resolver::new(board.clone(), clocks, password_key);
    let servers = Servers::new(registry.clone(), board);
    App::new("resolver", CachedMembers::new(registry), health)
        .add(ConnectionServiceServer::new(Connections::new(resolver)))
        .add(ServerServiceServer::new(ServerDescriptions::new(servers)))
        .serve(incoming, &drain)
        .await
}
