//! The gateway: the one door for people, the fan-out, and the live matrix.
//!
//! Owns the view of who has what, in memory only: every entry is fed by a watch and has an age. Refuses to own any record,
//! any byte of content and any decision about what should exist; what it asks for is idempotent, so any number of
//! gateways may run, and without one the cycle of each server does the work.
//!
//! ```text
//! people ─▶ proxy ─────────────────────────────▶ filesync, timeguard (by lockstep-server), catalog, resolver
//!        ─▶ grpc::matrix_service ─▶ board ◀── lockstep-replicas: follow (registry), watch (each server)
//!        ─▶ grpc::sync_run_service   │       engine: fan-out (each server), runs
//!                                    │  ◀── lockstep-clocks: what each timeguard says of its clock
//!                                    └─ domain: view, standing, explain, run, cursor, route                    (pure)
//! ```
//!
//! Invariants
//! 1. IN_SYNC is shown only for bytes verified on that server at that revision; what is not known is UNKNOWN, and what is
//!    old has its age (R44, I10).
//! 2. A slow or dead server delays no other: each has its own tasks, calls and deadlines (R23).
//! 3. A watcher never has a gap: it gets the latest of each row, or is told to start over (R41).
//! 4. With one server nothing is scheduled (R13); a server that takes no part is not asked, and says why (R14).
//! 5. What is said of a clock are the words of its own timeguard; one that is not heard is UNMEASURED, and its server not
//!    called fenced for it.
//! 6. The principal that a backend sees is the one that was authenticated here.

pub mod adapters;
pub mod config;
pub mod domain;
pub mod engine;
pub mod grpc;
pub mod ports;
pub mod proxy;

use lockstep_chassis::{App, Channels, Connection, Drain, Health, Process, StartError};
use lockstep_clocks::{ClockBoard, GrpcClockReports};
use lockstep_model::{
    Incarnation,
    clock::{Entropy, SystemClock, SystemEntropy},
};
use lockstep_proto::gateway::v1::{
    matrix_service_server::MatrixServiceServer, sync_run_service_server::SyncRunServiceServer,
};
use lockstep_registry::{CachedMembers, Registry};
use tokio_stream::Stream;

pub use config::Config;

use crate::{
    adapters::replicas_grpc::GrpcReplicas,
    engine::{Board, runs::Runs},
    grpc::{matrix_service::Matrix, sync_run_service::SyncRuns},
    proxy::{Backends, Proxy},
};

/// What the gateway is made of, besides its incoming connections.
#[derive(Clone, Debug)]
pub struct Parts<R, E> {
    /// What should exist.
    pub registry: R,
    /// Ways to the other services.
    pub channels: Channels,
    /// Where catalog and resolver answer.
    pub backends: Backends,
    /// The health of the process; the condition `registry` is set here.
    pub health: Health,
    /// The end of the process.
    pub drain: Drain,
    /// Chance: incarnation and jitter.
    pub entropy: E,
}

/// Runs the gateway with the real adapters until it is told to stop.
///
/// # Errors
/// [`StartError`] if the registry cannot be opened.
pub async fn run(config: Config, process: Process) -> Result<(), StartError> {
    let registry = config.registry.open().map_err(|error| {
        StartError::of(format!("could not open the registry {}", config.registry), &error)
    })?;
    let Process { drain, health, incoming, channels, .. } = process;
    let backends = Backends { catalog: config.catalog, resolver: config.resolver };
    let parts = Parts { registry, channels, backends, health, drain, entropy: SystemEntropy };
    serve(parts, incoming).await
}

/// Serves over any registry, channels and connections, until the drain.
///
/// # Errors
/// [`StartError`] if the contract lacks the description of what is served.
pub async fn serve<R: Registry, E: Entropy>(
    parts: Parts<R, E>,
    incoming: impl Stream<Item = impl Connection>,
) -> Result<(), StartError> {
    let Parts { registry, channels, backends, health, drain, entropy } = parts;
    let (board, clocks) = (Board::new(), ClockBoard::new());
    let replicas = GrpcReplicas::new(channels.clone());
    let incarnation = Incarnation::random(&entropy);
    let boards = (board.clone(), clocks.clone());
    let matrix = Matrix::new(boards, drain.clone(), incarnation, registry.clone(), replicas.clone());
    let runs = Runs::new(registry.clone(), replicas.clone(), board.clone(), SystemClock);
    let clock_reports = GrpcClockReports::new(channels.clone());
    lockstep_clocks::start(board.members(), clock_reports, &clocks, &drain, entropy.clone());
    engine::start(&registry, replicas, &board, &health, &drain, entropy);
    engine::start_runs(runs.clone(), &drain);
    App::new("gateway", CachedMembers::new(registry), health)
        .add(MatrixServiceServer::new(matrix))
        .add(SyncRunServiceServer::new(SyncRuns::new(runs, drain.clone())))
        .fallback(Proxy::new(board, channels, backends))
        .serve(incoming, &drain)
        .await
}
