//! What the engine needs of others, besides the registry and the reports of the servers.

use lockstep_model::ServerId;
use lockstep_replicas::domain::cause::Cause;

/// What is known of the clocks of the servers, from memory: it is asked for each answer.
pub trait Clocks: Clone + Send + Sync + 'static {
    /// Why the time guard bars a server from originating changes; `None` if it does not, or nothing is known.
    fn fence(&self, server: &ServerId) -> Option<Cause>;
}
