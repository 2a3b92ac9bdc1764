//! What is needed of others, besides the registry.

use futures::stream::BoxStream;
use lockstep_model::ServerId;

use crate::domain::{cause::Cause, report::Part};

/// A server, and where that service of it answers which is asked: its filesync, or its timeguard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The server.
    pub id: ServerId,
    /// `https://host:port`.
    pub uri: String,
}

/// What one server reports; ends with an error or without one when nothing more comes.
pub type Parts = BoxStream<'static, Result<Part, Cause>>;

/// The reports of all servers.
pub trait Reports: Clone + Send + Sync + 'static {
    /// Everything that a server holds, then what changes. A stream always begins with everything: that is at most
    /// 10,000 exceptions, and nothing that was missed can hide.
    fn watch(&self, server: &Address) -> impl Future<Output = Result<Parts, Cause>> + Send;
}
