//! What the engine needs of others, besides the registry.

use lockstep_model::{FilePath, Position, ServerId};
pub use lockstep_replicas::{Address, Parts, Reports};

use crate::domain::cause::Cause;

/// Where a server is after it was asked to catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Everything up to here is held or an exception.
    pub position: Position,
    /// How many files are not held.
    pub exceptions: u64,
}

/// The replicas on all servers: what they report, and what they can be asked.
pub trait Replicas: Reports {
    /// Asks a server to catch up; `holders` are known to have what is new. Answers with where the server is then.
    fn reconcile(
        &self,
        server: &Address,
        holders: Vec<ServerId>,
    ) -> impl Future<Output = Result<Answered, Cause>> + Send;

    /// Whether something lies at `path` on a server that nobody registered.
    fn has_loose(
        &self,
        server: &Address,
        path: &FilePath,
    ) -> impl Future<Output = Result<bool, Cause>> + Send;
}
