//! What the engine needs of others, besides the registry.

use futures::stream::BoxStream;
use lockstep_model::{FilePath, Position, ServerId};

use crate::domain::{cause::Cause, report::Part};

/// A server and where its filesync answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The server.
    pub id: ServerId,
    /// `https://host:port`.
    pub uri: String,
}

/// What one server reports; ends with an error or without one when nothing more comes.
pub type Parts = BoxStream<'static, Result<Part, Cause>>;

/// Where a server is after it was asked to catch up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Everything up to here is held or an exception.
    pub position: Position,
    /// How many files are not held.
    pub exceptions: u64,
}

/// The replicas on all servers.
pub trait Replicas: Clone + Send + Sync + 'static {
    /// Everything that a server holds, then what changes. A stream always begins with everything: that is at most
    /// 10,000 exceptions, and nothing that was missed can hide.
    fn watch(&self, server: &Address) -> impl Future<Output = Result<Parts, Cause>> + Send;

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
