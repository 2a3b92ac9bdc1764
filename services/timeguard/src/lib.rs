//! The timeguard: keeps a server whose clock is wrong from doing harm.
//!
//! Owns what is known of the clock of its server. Refuses to own any clock: it never sets one. Nothing is measured yet,
//! so nothing is claimed: the matrix says UNMEASURED, and the fence is off.
//!
//! ```text
//! own filesync ──▶ health, reflection        run: the real adapters
//! ```
//!
//! It is a process with identity, health and reflection; its calls come with the measurement itself. How a clock is judged,
//! and what follows from it, is in [`domain`] already, and nobody asks it yet.
//!
//! Invariants
//! 1. Nobody without a certificate of the installation is answered, and no other server, while it has no registry to
//!    ask who belongs to the installation.

pub mod config;
pub mod domain;

use lockstep_chassis::{App, Connection, Drain, Health, Process, StartError};
use lockstep_model::{
    Role, ServerId,
    identity::{Members, MembersUnavailable},
};
use tokio_stream::Stream;

pub use config::Config;

/// Runs the service until it is told to stop.
///
/// # Errors
/// [`StartError`] if the contract lacks the description of what is served.
pub async fn run(config: Config, process: Process) -> Result<(), StartError> {
    let Process { drain, health, incoming, .. } = process;
    serve(config, health, incoming, drain).await
}

/// Serves over any connections, until the drain.
///
/// # Errors
/// [`StartError`] if the contract lacks the description of what is served.
pub async fn serve(
    config: Config,
    health: Health,
    incoming: impl Stream<Item = impl Connection>,
    drain: Drain,
) -> Result<(), StartError> {
    // It depends on nothing but its runtime, so nothing is waited for.
    health.unmet().into_iter().for_each(|condition| health.set(condition, true));
    let app = App::new("timeguard", OwnServer(config.server_id.clone()), health).own_server(config.server_id);
    app.serve(incoming, &drain).await
}

/// Who belongs to the installation, as far as a process without a registry knows: its own server.
#[derive(Clone, Debug)]
struct OwnServer(ServerId);

impl Members for OwnServer {
    async fn role(&self, _operator: &str) -> Result<Option<Role>, MembersUnavailable> {
        Ok(None)
    }

    async fn knows(&self, server: &ServerId) -> Result<bool, MembersUnavailable> {
        Ok(*server == self.0)
    }
}
