//! What is needed of others.

use futures::stream::BoxStream;
use lockstep_replicas::{Address, domain::cause::Cause};

use crate::domain::report::Report;

/// What one timeguard says; ends with an error or without one when nothing more comes.
pub type Reports = BoxStream<'static, Result<Report, Cause>>;

/// The timeguards of all servers.
pub trait ClockReports: Clone + Send + Sync + 'static {
    /// What is known of the clock of a server, whose timeguard answers at this address: at once, whenever it changes, and every
    /// five seconds. Each report is complete.
    fn watch(&self, guard: &Address) -> impl Future<Output = Result<Reports, Cause>> + Send;
}
