//! What callers of the guard are refused.

use lockstep_model::{Fault, Metadata, Reason};

/// Why a call did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The override could not be written down, so it does not hold.
    #[error("the override of the clock of server {server} could not be noted, so it does not hold: {cause}")]
    Unwritten {
        /// The server.
        server: String,
        /// What the disk says.
        cause: String,
    },
}

impl Fault for GuardError {
    fn reason(&self) -> Reason {
        Reason::DiskRefused
    }

    fn metadata(&self) -> Metadata {
        let Self::Unwritten { server, cause } = self;
        vec![("server_id", server.clone()), ("cause", cause.clone())]
    }
}
