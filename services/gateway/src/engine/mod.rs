//! The loops: one reads the registry, and for every server that takes part one watches it and one asks it to catch up.
//!
//! ```text
//! registry ──follow──▶ ┌───────┐ ◀──watch── one task a server, WatchReplicas
//!          ◀──judge─── │ board │ ◀──────── sync runs: notes in the registry, progress from the view
//!                      └───┬───┘ ──target──▶ one task a server, Reconcile
//!                          └─────changes───▶ watchers of rows
//! ```
//!
//! A server is served by tasks of its own, so that a slow or dead one delays no other (R23).

pub mod explain;
mod fanout;
pub mod runs;

use lockstep_chassis::{drain::Drain, health::Health};
use lockstep_model::clock::{Clock, Entropy};
use lockstep_registry::Registry;
use lockstep_replicas::Process;

use crate::{domain::view::View, engine::fanout::FanOuts, ports::Replicas};

pub use lockstep_replicas::REGISTRY;

/// The view and its signals.
pub type Board = lockstep_replicas::Board<View>;

/// Looks after the sync runs until the process drains.
pub fn start_runs<R: Registry, P: Replicas, C: Clock>(runs: runs::Runs<R, P, C>, drain: &Drain) {
    drain.spawn_until("look after sync runs", runs.run());
}

/// Starts the loops; they end when the process drains.
pub fn start<R, P, E>(registry: &R, replicas: P, board: &Board, health: &Health, drain: &Drain, entropy: E)
where
    R: Registry,
    P: Replicas,
    E: Entropy,
{
    let fan_outs = FanOuts { replicas: replicas.clone(), board: board.clone(), entropy: entropy.clone() };
    lockstep_replicas::start(
        registry,
        replicas,
        board,
        Process { health, drain, entropy: &entropy },
        fan_outs,
    );
}

#[cfg(test)]
mod tests;
