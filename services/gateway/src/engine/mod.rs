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

pub mod board;
pub mod explain;
mod fanout;
mod follow;
mod judge;
mod roster;
pub mod runs;
mod watch;

use lockstep_chassis::{drain::Drain, health::Health};
use lockstep_model::clock::{Clock, Entropy};
use lockstep_registry::Registry;

use crate::{engine::board::Board, ports::Replicas};

/// The condition of health that the registry was read lately.
pub const REGISTRY: &str = "registry";

/// Looks after the sync runs until the process drains.
pub fn start_runs<R: Registry, P: Replicas, C: Clock>(runs: runs::Runs<R, P, C>, drain: &Drain) {
    spawn(drain, "look after sync runs", runs.run());
}

/// Starts the loops; they end when the process drains.
pub fn start<R, P, E>(registry: &R, replicas: P, board: &Board, health: &Health, drain: &Drain, entropy: E)
where
    R: Registry,
    P: Replicas,
    E: Entropy,
{
    let follow = follow::Follow {
        registry: registry.clone(),
        board: board.clone(),
        health: health.clone(),
        entropy: entropy.clone(),
    };
    spawn(drain, "follow the registry", follow.run());
    spawn(drain, "judge positions", judge::run(registry.clone(), board.clone()));
    let roster = roster::Roster { replicas, board: board.clone(), drain: drain.clone(), entropy };
    drain.spawn("serve the servers", roster.run());
}

fn spawn(drain: &Drain, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let begun = drain.clone();
    drain.spawn(name, async move {
        tokio::select! {
            biased;
            () = begun.started() => {}
            () = work => {}
        }
    });
}

#[cfg(test)]
mod tests;
