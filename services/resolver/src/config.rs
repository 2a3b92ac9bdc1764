//! What the service is told at its start.

use std::path::PathBuf;

use lockstep_chassis::Settings;
use lockstep_registry::Location;

/// The settings of this service, beside those that every service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The registry.
    pub registry: Location,
    /// The file with the key of the passwords that are stored with firmware updates; without it, updates that have one
    /// cannot be offered here.
    pub password_key: Option<PathBuf>,
}

impl Config {
    /// Reads the settings; `None` if one is missing or invalid, which `settings` tells.
    pub fn read(settings: &mut Settings) -> Option<Self> {
        // Every setting is read before any is missed, so that all mistakes are told.
        let registry = settings.required("registry", "the registry, sqlite:/path/to/registry.sqlite");
        let key =
            settings.optional("password-key", "the file with the key of stored passwords, as catalog has it");
        Some(Self { registry: registry?, password_key: key? })
    }
}
