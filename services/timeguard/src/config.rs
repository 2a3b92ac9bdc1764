//! What the service is told at its start.

use lockstep_chassis::Settings;
use lockstep_model::ServerId;

/// The settings of this service, beside those that every service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server whose clock it guards.
    pub server_id: ServerId,
}

impl Config {
    /// Reads the settings; `None` if one is missing or invalid, which `settings` tells.
    pub fn read(settings: &mut Settings) -> Option<Self> {
        let server_id = settings.required("server-id", "the server that this process belongs to")?;
        Some(Self { server_id })
    }
}
