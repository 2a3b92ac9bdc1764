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

pub mod adapters;
pub mod config;
pub mod domain;
pub mod ports;

use lockstep_chassis::{App, Connection, Drain, Health, Process, StartError};
use lockstep_registry::{CachedMembers, Registry};
use tokio_stream::Stream;

pub use config::Config;

/// Met while the registry answers.
const REGISTRY: &str = "registry";
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
    let (told, ended) = (health.clone(), drain.clone());
    drain.spawn("registry", async move {
        tokio::select! {
            biased;
            () = lockstep_registry::probe(registry, |answers| told.set(REGISTRY, answers)) => {}
            () = ended.started() => {}
        }
    });
    App::new("catalog", members, health).serve(incoming, &drain).await
}
