//! What the gateway is told at its start.

use std::str::FromStr;

use lockstep_chassis::Settings;
use lockstep_registry::Location;

/// The settings of the gateway, beside those that every service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The registry.
    pub registry: Location,
    /// Where instances of catalog answer.
    pub catalog: Uris,
    /// Where instances of resolver answer.
    pub resolver: Uris,
}

impl Config {
    /// Reads the settings; `None` if one is missing or invalid, which `settings` tells.
    pub fn read(settings: &mut Settings) -> Option<Self> {
        // Every setting is read before any is missed, so that all mistakes are told.
        let registry = settings.required("registry", "the registry, sqlite:/path/to/registry.sqlite");
        let catalog =
            settings.optional("catalog", "where catalog answers: https://host:port, more after commas");
        let resolver =
            settings.optional("resolver", "where resolver answers: https://host:port, more after commas");
        Some(Self {
            registry: registry?,
            catalog: catalog?.unwrap_or_default(),
            resolver: resolver?.unwrap_or_default(),
        })
    }
}

/// Addresses of the instances of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uris(pub Vec<String>);

/// The text holds something that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected https://host:port, with commas between several; {0:?} is none")]
pub struct InvalidUri(String);

impl FromStr for Uris {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let one = |text: &str| {
            let text = text.trim();
            let uri: Option<http::Uri> = text.parse().ok();
            let valid = uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.port_u16().is_some());
            if valid { Ok(text.to_owned()) } else { Err(InvalidUri(text.to_owned())) }
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> (Option<Config>, String) {
        let args = args.iter().map(|arg| (*arg).to_owned());
        let mut settings = Settings::from_sources("gateway", args, []);
        let config = Config::read(&mut settings);
        (config, settings.finish().err().map_or_else(String::new, |error| error.to_string()))
    }

    #[test]
    fn settings_are_read_and_every_mistake_is_told() {
        let (config, problems) = read(&["--registry=sqlite:/r.sqlite", "--catalog=https://a:1, https://b:2"]);
        assert_eq!(problems, "");
        let config = config.expect("valid");
        assert_eq!((config.registry.to_string().as_str(), config.catalog.0.len()), ("sqlite:/r.sqlite", 2));
        assert!(config.resolver.0.is_empty());
        let (config, problems) = read(&["--catalog=http://a:1", "--resolver=b"]);
        assert!(config.is_none());
        for part in ["registry", "catalog", "resolver"] {
            assert!(problems.contains(part), "{problems}");
        }
    }
}
