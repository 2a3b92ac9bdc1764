//! From configuration to a serving process.

use std::{convert::Infallible, marker::PhantomData};

use lockstep_chassis::{App, Connection, Drain, Health, Process, StartError, Switch, SystemReadings};
use lockstep_model::clock::{Entropy, Readings, SystemEntropy};
use lockstep_proto::timeguard::v1::clock_service_server::ClockServiceServer;
use lockstep_registry::{CachedMembers, Registry, SqliteRegistry};
use tokio_stream::Stream;

use crate::{
    adapters::{notebook::Notebook, signals_timerfd::TimerfdSignals, witnesses::RealWitnesses},
    config::Config,
    engine::{Adapters, Engine, Settings},
    grpc::clock_service::Clocks,
    metrics,
    ports::{Ports, Signals, Witnesses},
};

/// Which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The ports of a process, by the types of their adapters.
pub struct Parts<C, W, S, R, E>(PhantomData<(C, W, S, R, E, Infallible)>);

impl<C, W, S, R, E> Clone for Parts<C, W, S, R, E> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<C: Readings, W: Witnesses, S: Signals + Sync, R: Registry, E: Entropy> Ports for Parts<C, W, S, R, E> {
    type Clock = C;
    type Witnesses = W;
    type Signals = S;
    type Registry = R;
    type Entropy = E;
}

/// What a process uses.
type Real = Parts<SystemReadings, RealWitnesses, TimerfdSignals, SqliteRegistry, SystemEntropy>;

/// Runs the service until it is told to stop.
///
/// # Errors
/// [`StartError`] if something that it needs is not there: the state directory, the registry.
pub async fn run(config: Config, process: Process) -> Result<(), StartError> {
    let Config { server_id, registry, state, limit, step_min, ntp, kernel } = config;
    let opened = registry.open();
    let opened = opened
        .map_err(|error| StartError::of(format!("the registry {registry} cannot be opened"), &error))?;
    let notebook = Notebook::open(&state).map_err(|error| {
        let what = format!("the directory {} cannot be used", state.display());
        StartError::new(what, error, "give this process a directory that it may write, with --state")
    })?;
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_else(|error| {
        tracing::warn!(%error, "which start of the machine this is cannot be told, so steps while nobody looks go unnoticed");
        SystemEntropy.uuid().to_string()
    });
    let settings = Settings { server_id, limit, step_min, ntp, boot: boot.trim().to_owned() };
    let Process { drain, health, incoming, channels, tls, .. } = process;
    let ports: Adapters<Real> = Adapters {
        clock: SystemReadings,
        witnesses: RealWitnesses::new(channels, tls, kernel == Switch::On),
        registry: opened,
        entropy: SystemEntropy,
    };
    serve(settings, ports, TimerfdSignals::new(), notebook, incoming, drain, health).await
}

/// Serves over any ports and any connections.
///
/// # Errors
/// [`StartError`] if the contract lacks the description of what is served.
pub async fn serve<P: Ports, C: Connection>(
    settings: Settings,
    ports: Adapters<P>,
    signals: P::Signals,
    notebook: Notebook,
    incoming: impl Stream<Item = C>,
    drain: Drain,
    health: Health,
) -> Result<(), StartError> {
    let (server, registry) = (settings.server_id.clone(), ports.registry.clone());
    let engine = Engine::start(settings, ports, signals, notebook, health.clone(), &drain).await;
    metrics::observe(&engine);
    // It serves whatever the registry does: a clock is judged by those who were known before, too.
    health.unmet().into_iter().for_each(|condition| health.set(condition, true));
    App::new("timeguard", CachedMembers::new(registry), health)
        .own_server(server)
        .add(ClockServiceServer::new(Clocks::new(engine, drain.clone())))
        .serve(incoming, &drain)
        .await
}
