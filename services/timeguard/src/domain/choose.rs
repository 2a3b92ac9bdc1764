//! Which peers are asked for their time: all of a small installation, and of a large one as many as prove something.

use lockstep_model::{Digest, ServerId};

/// The most peers that are asked.
pub const PEERS_MAX: usize = 16;

/// The peers that `own` asks, in the order of their ids. Beyond [`PEERS_MAX`] each server draws its own by rendezvous hashing: the
/// same ones each time, and one that comes or goes changes one at most.
pub fn choose(own: &ServerId, peers: &[ServerId]) -> Vec<ServerId> {
    let mut drawn: Vec<(Digest, &ServerId)> = peers
        .iter()
        .filter(|peer| *peer != own)
        .map(|peer| (Digest::of(format!("{own} {peer}").as_bytes()), peer))
        .collect();
    drawn.sort_unstable();
    drawn.dedup();
    drawn.truncate(PEERS_MAX);
    let mut chosen: Vec<ServerId> = drawn.into_iter().map(|(_, peer)| peer.clone()).collect();
    chosen.sort_unstable();
    chosen
}
