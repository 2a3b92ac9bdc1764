//! What the service is told at its start.

use std::path::{Path, PathBuf};

use lockstep_chassis::{Settings, Span};
use lockstep_registry::Location;

use crate::adapters::vendor_https::HttpsVendor;

/// The settings of this service, beside those that every service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The registry.
    pub registry: Location,
    /// The file of sources; none means that there are no offers.
    pub sources: Option<PathBuf>,
    /// The key of stored passwords; none means that none can be set.
    pub password_key: Option<PathBuf>,
    /// After so much silence another instance takes over a download.
    pub takeover_after: Span,
}

impl Config {
    /// Reads the settings; `None` if one is missing or invalid, which `settings` tells.
    pub fn read(settings: &mut Settings) -> Option<Self> {
        // Every setting is read before any is missed, so that all mistakes are told.
        let registry = settings.required("registry", "the registry, sqlite:/path/to/registry.sqlite");
        let sources: Option<Option<String>> =
            settings.optional("sources", "the file of sources of firmware updates, TOML");
        let password_key =
            settings.optional("password-key", "the key of stored passwords: a file of 64 hexadecimal digits");
        let takeover_after =
            settings.or("takeover-after", "after so much silence another instance downloads on", "30s");
        // A file that is wrong now is wrong at the next start: whoever supervises this process must not try for ever.
        if let Some(Some(file)) = &sources
            && let Err(error) = HttpsVendor::open(Path::new(file))
        {
            let advice = "its format is in services/catalog/README.md";
            settings.problem(format!("the file of sources {file}: {error}; {advice}"));
        }
        Some(Self {
            registry: registry?,
            sources: sources?.map(PathBuf::from),
            password_key: password_key?,
            takeover_after: takeover_after?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> (Option<Config>, String) {
        let args = args.iter().map(|arg| (*arg).to_owned());
        let mut settings = Settings::from_sources("catalog", args, []);
        let config = Config::read(&mut settings);
        (config, settings.finish().err().map_or_else(String::new, |error| error.to_string()))
    }

    #[test]
    fn settings_are_read_and_every_mistake_is_told() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let source = "[[source]]\nid = \"acme\"\nfeed = \"https://acme.test/feed.json\"\n";
        std::fs::write(file.path(), source).expect("written");
        let sources = format!("--sources={}", file.path().display());
        let (config, problems) = read(&["--registry=sqlite:/r.sqlite", &sources]);
        assert_eq!(problems, "");
        let config = config.expect("valid");
        assert_eq!((config.sources, config.password_key), (Some(file.path().to_owned()), None));
        assert_eq!(config.takeover_after.0.as_secs(), 30);
        std::fs::write(file.path(), source.replace("feed", "food")).expect("written");
        let (config, problems) = read(&["--takeover-after=soon", &sources]);
        assert!(config.is_none());
        for part in ["registry", "takeover-after", "the file of sources", "\"food\" is no key"] {
            assert!(problems.contains(part), "{problems}");
        }
    }
}
