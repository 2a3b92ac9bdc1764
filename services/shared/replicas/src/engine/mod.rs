//! The loops: one reads the registry, one lets it judge positions, and each server that takes part is watched.
//!
//! ```text
//! registry ──follow──▶ ┌───────┐ ◀──watch── one task a server, WatchReplicas
//!          ◀──judge─── │ board │ ──target──▶ beside it what the service does for each server
//!                      └───────┘ ──changes─▶ whoever looks at the view
//! ```
//!
//! A server is served by tasks of its own, so that a slow or dead one delays no other (R23).

pub mod board;
mod follow;
mod judge;
pub mod roster;
pub mod tasks;
mod watch;

use lockstep_chassis::{drain::Drain, health::Health};
use lockstep_model::clock::Entropy;
use lockstep_registry::Registry;

use crate::{
    domain::live::Live,
    engine::{board::Board, roster::Beside},
    ports::Reports,
};

/// The condition of health that the registry was read lately.
pub const REGISTRY: &str = "registry";

/// What the loops of a process share.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a, E> {
    /// Where [`REGISTRY`] is set.
    pub health: &'a Health,
    /// The end of the process.
    pub drain: &'a Drain,
    /// Jitter.
    pub entropy: &'a E,
}

/// Starts the loops; they end when the process drains.
pub fn start<R, V, P, E, B>(registry: &R, reports: P, board: &Board<V>, process: Process<'_, E>, beside: B)
where
    R: Registry,
    V: Live,
    P: Reports,
    E: Entropy,
    B: Beside,
{
    let Process { health, drain, entropy } = process;
    let follow = follow::Follow {
        registry: registry.clone(),
        board: board.clone(),
        health: health.clone(),
        entropy: entropy.clone(),
    };
    drain.spawn_until("follow the registry", follow.run());
    drain.spawn_until("judge positions", judge::run(registry.clone(), board.clone()));
    let roster = roster::Roster {
        reports,
        board: board.clone(),
        drain: drain.clone(),
        entropy: entropy.clone(),
        beside,
    };
    drain.spawn("serve the servers", roster.run());
}
