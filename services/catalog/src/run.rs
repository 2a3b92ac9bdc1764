//! From configuration to a serving process.

use std::marker::PhantomData;

use lockstep_chassis::{App, Connection, Drain, Health, Process, SealKey, StartError};
use lockstep_model::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use lockstep_proto::catalog::v1::{
    firmware_service_server::FirmwareServiceServer, settings_service_server::SettingsServiceServer,
};
use lockstep_registry::{CachedMembers, Registry, SqliteRegistry};
use tokio_stream::Stream;

use crate::{
    adapters::{servers_grpc::GrpcServers, vendor_https::HttpsVendor},
    config::Config,
    engine::{Choices, Engine, Outside},
    grpc::{firmware_service::FirmwareOf, settings_service::SettingsOf},
    metrics,
    ports::{Ports, Servers, Vendor},
};

/// Met while the registry answers.
const REGISTRY: &str = "registry";
/// The largest message a call may carry, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The ports of a process, by the types of their adapters.
pub struct Parts<R, V, S, C, E>(PhantomData<(R, V, S, C, E)>);

impl<R, V, S, C, E> Clone for Parts<R, V, S, C, E> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<R: Registry, V: Vendor, S: Servers, C: Clock, E: Entropy> Ports for Parts<R, V, S, C, E> {
    type Registry = R;
    type Vendor = V;
    type Servers = S;
    type Clock = C;
    type Entropy = E;
}

/// What a process uses.
pub type Real = Parts<SqliteRegistry, HttpsVendor, GrpcServers, SystemClock, SystemEntropy>;

/// Runs the service with the real adapters until it is told to stop.
///
/// # Errors
/// [`StartError`] if the registry cannot be opened, or a file that it is told to use is not what it should be.
pub async fn run(config: Config, process: Process) -> Result<(), StartError> {
    let opened = config.registry.open();
    let registry = opened.map_err(|error| {
        StartError::of(format!("the registry {} cannot be opened", config.registry), &error)
    })?;
    let vendor = match &config.sources {
        None => HttpsVendor::none(),
        Some(file) => HttpsVendor::open(file).map_err(|error| {
            let what = format!("the file of sources {} cannot be used", file.display());
            StartError::new(
                what,
                error,
                "correct all that is named; its format is in services/catalog/README.md",
            )
        })?,
    };
    let key = config.password_key.as_deref().map(SealKey::read).transpose()?;
    let Process { drain, health, incoming, channels, .. } = process;
    let outside = Outside::<Real> {
        registry,
        vendor,
        servers: GrpcServers::new(channels),
        clock: SystemClock,
        entropy: SystemEntropy,
    };
    let choices = Choices { key, takeover_after: config.takeover_after.0 };
    serve(outside, choices, health, incoming, drain).await
}

/// Serves over any ports and any connections, until the drain.
///
/// # Errors
/// [`StartError`] if the contract lacks the description of what is served.
pub async fn serve<P: Ports>(
    outside: Outside<P>,
    choices: Choices,
    health: Health,
    incoming: impl Stream<Item = impl Connection>,
    drain: Drain,
) -> Result<(), StartError> {
    health.set(REGISTRY, false);
    let registry = outside.registry.clone();
    let members = CachedMembers::new(registry.clone());
    let engine = Engine::new(outside, choices, drain.clone());
    metrics::observe(&engine);
    let (told, ended) = (health.clone(), drain.clone());
    drain.spawn("registry", async move {
        tokio::select! {
            biased;
            () = lockstep_registry::probe(registry, |answers| told.set(REGISTRY, answers)) => {}
            () = ended.started() => {}
        }
    });
    engine.run();
    let firmware = FirmwareServiceServer::new(FirmwareOf::new(engine.clone(), drain.clone()));
    App::new("catalog", members, health)
        .add(
            firmware
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add(SettingsServiceServer::new(SettingsOf::new(engine)))
        .serve(incoming, &drain)
        .await
}
