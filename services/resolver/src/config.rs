//! What the service is told at its start.

use lockstep_chassis::Settings;
use lockstep_registry::Location;

/// The settings of this service, beside those that every service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The registry.
    pub registry: Location,
}

impl Config {
    /// Reads the settings; `None` if one is missing or invalid, which `settings` tells.
    pub fn read(settings: &mut Settings) -> Option<Self> {
        let registry = settings.required("registry", "the registry, sqlite:/path/to/registry.sqlite")?;
        Some(Self { registry })
    }
}
