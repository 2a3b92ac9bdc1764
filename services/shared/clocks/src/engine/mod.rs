//! The loops: each server that takes part and has a timeguard is watched by a task of its own.

pub mod board;
mod roster;
#[cfg(test)]
mod tests;
mod watch;

use lockstep_chassis::drain::Drain;
use lockstep_model::clock::Entropy;
use lockstep_replicas::Members;
use tokio::sync::watch::Receiver;

use crate::{engine::board::ClockBoard, ports::ClockReports};

/// Keeps `board` fresh: watches the timeguards of `members` until the process drains.
pub fn start(
    members: Receiver<Members>,
    reports: impl ClockReports,
    board: &ClockBoard,
    drain: &Drain,
    entropy: impl Entropy,
) {
    let roster = roster::Roster { reports, board: board.clone(), drain: drain.clone(), entropy };
    drain.spawn("watch the clocks", roster.run(members));
}
