//! What the service is told at its start.

use std::{path::PathBuf, str::FromStr, time::Duration};

use lockstep_chassis::{Settings, Switch, config::Span};
use lockstep_model::ServerId;
use lockstep_registry::Location;

/// Beyond this a limit or a step proves nothing.
const LIMITS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
/// More time servers than make anything surer.
const TIME_SERVERS_MAX: usize = 8;

/// The settings of this service, beside those that every service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The server whose clock it guards.
    pub server_id: ServerId,
    /// The registry, which names the other servers.
    pub registry: Location,
    /// The directory of what is known across restarts.
    pub state: PathBuf,
    /// How far clocks may be apart (R61).
    pub limit: Duration,
    /// A step above this asks for a restart (R64).
    pub step_min: Duration,
    /// Time servers that are asked, `host:port`.
    pub ntp: Vec<String>,
    /// Whether the kernel is asked whether its clock is kept in time.
    pub kernel: Switch,
}

impl Config {
    /// Reads the settings; `None` if one is missing or invalid, which `settings` tells.
    pub fn read(settings: &mut Settings) -> Option<Self> {
        // Every setting is read before any is missed, so that all mistakes are told.
        let server_id = settings.required("server-id", "the server that this process belongs to");
        let registry = settings.required("registry", "the registry, sqlite:/path/to/registry.sqlite");
        let state = settings.required("state", "the directory of what is known of the clock across restarts");
        let limit = settings.or::<Span>("limit", "how far clocks may be apart, 1s to 1h", "60s");
        let step =
            settings.or::<Span>("step-min", "setting the clock by more asks for a restart, 1s to 1h", "1s");
        let ntp = settings.or::<TimeServers>(
            "ntp",
            "time servers to ask as well, host or host:port, separated by commas",
            "",
        );
        let kernel = settings.or::<Switch>(
            "kernel",
            "whether a kernel that keeps its clock in time is a witness, on or off",
            "on",
        );
        let (limit, step_min) = (limit?.0, step?.0);
        if !LIMITS.contains(&limit) || !LIMITS.contains(&step_min) {
            settings.problem("limit and step-min must be 1s to 1h");
        }
        Some(Self {
            server_id: server_id?,
            registry: registry?,
            state: state?,
            limit,
            step_min,
            ntp: ntp?.0,
            kernel: kernel?,
        })
    }
}

#[derive(Debug)]
struct TimeServers(Vec<String>);

impl FromStr for TimeServers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let servers: Vec<String> = names
            .map(|name| match name.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => name.to_owned(),
                _ => format!("{name}:123"),
            })
            .collect();
        if servers.len() > TIME_SERVERS_MAX {
            Err("expected at most 8 time servers")
        } else {
            Ok(Self(servers))
        }
    }
}
