//! The catalog: firmware updates, from the vendor's feed to the registered files of an update.
//!
//! Owns the records of firmware updates and of the settings that govern them. Refuses to own bytes: what it downloads
//! streams into the filesync of one server. It keeps nothing on disk, so any number of instances may run anywhere.
//!
//! ```text
//! registry ──head──▶ watch ──▶ condition "registry" ──▶ health        run: the real adapters
//! ```
//!
//! It is a process with identity, health and reflection; its calls come with the firmware updates themselves.
//!
//! Invariants
//! 1. Ready only while the registry answers.
//! 2. Nobody without a certificate of the installation is answered.

pub mod config;

use std::time::Duration;

use lockstep_chassis::{App, Connection, Drain, Health, Process, StartError};
use lockstep_registry::{CachedMembers, Registry};
use tokio_stream::Stream;

pub use config::Config;

/// Met while the registry answers.
const REGISTRY: &str = "registry";
/// How often the registry is asked.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Runs the service with the real adapters until it is told to stop.
///
/// # Errors
/// [`StartError`] if the registry cannot be opened.
pub async fn run(config: Config, process: Process) -> Result<(), StartError> {
    let opened = config.registry.open();
    let registry = opened.map_err(|error| {
        StartError::of(format!("the registry {} cannot be opened", config.registry), &error)
    })?;
    let Process { drain, health, incoming, .. } = process;
    serve(registry, health, incoming, drain).await
}

/// Serves over any registry and any connections, until the drain.
///
/// # Errors
/// [`StartError`] if the contract lacks the description of what is served.
pub async fn serve<R: Registry>(
    registry: R,
    health: Health,
    incoming: impl Stream<Item = impl Connection>,
    drain: Drain,
) -> Result<(), StartError> {
    health.set(REGISTRY, false);
    let members = CachedMembers::new(registry.clone());
    drain.spawn("registry", watch(registry, health.clone(), drain.clone()));
    App::new("catalog", members, health).serve(incoming, &drain).await
}

async fn watch<R: Registry>(registry: R, health: Health, drain: Drain) {
    loop {
        tokio::select! {
            answer = registry.head() => health.set(REGISTRY, answer.is_ok()),
            () = drain.started() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(CHECK_EVERY) => {}
            () = drain.started() => return,
        }
    }
}
