//! What the engine needs from the outside, as traits it owns. Each has a real adapter and one for the simulation, and one
//! suite that both pass.

mod guard;
mod index;
mod peers;
mod store;
mod tree;

use lockstep_model::clock::{Clock, Entropy};
use lockstep_registry::Registry;

pub use self::{
    guard::Guard,
    index::{Index, IndexError, Loaded, REQUESTS_KEPT, Remembered, Upload, Write},
    peers::{EarlyPart, Part, Parts, Peer, PeerError, Peers, Range},
    store::{Algorithms, Hashed, Place, Store, StoreError},
    tree::{Entry, EntryKind, Tree},
};

/// Everything outside the engine, chosen once: the real things, or those of the simulation.
pub trait Ports: Clone + Send + Sync + 'static {
    /// Files.
    type Store: Store;
    /// What is known of them.
    type Index: Index;
    /// The authority.
    type Registry: Registry;
    /// Other servers.
    type Peers: Peers;
    /// The time guard of the own server.
    type Guard: Guard;
    /// Time.
    type Clock: Clock;
    /// Chance.
    type Entropy: Entropy;
}
