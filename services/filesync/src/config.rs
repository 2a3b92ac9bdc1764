//! Configuration of a filesync: read completely before any side effect.

use std::{path::PathBuf, time::Duration};

use lockstep_chassis::{Settings as Source, Switch, config::Span};
use lockstep_model::{
    ServerId, StoreId,
    version::{Mode, ProductVersion},
};

/// What a process needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the engine needs to know.
    pub settings: Settings,
    /// The directory that holds the transfer directory.
    pub root: PathBuf,
    /// The directory of the index; not below the root.
    pub state: PathBuf,
    /// Where the registry is: `sqlite:/path/to/file`.
    pub registry: lockstep_registry::Location,
    /// Space on the disk that copies leave free, in bytes.
    pub reserve_bytes: u64,
    /// Whether the own time guard may fence this server.
    pub fence: Switch,
}

/// What the engine needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server that it belongs to.
    pub server_id: ServerId,
    /// How the server takes part (R14).
    pub mode: Mode,
    /// The version of the product it runs in.
    pub version: ProductVersion,
    /// Where others reach this filesync; empty until the listener has a port.
    pub advertise: String,
    /// Where this process and others reach the timeguard of this server; may be empty where nothing is fenced.
    pub timeguard: String,
    /// Everything is compared with the registry this often, whatever else happens (R21).
    pub reconcile_every: Duration,
    /// Uploads from this size on are sent on to the other servers while they arrive.
    pub relay_bytes_min: u64,
    /// The most exceptions; beyond that the position waits. At least 1.
    pub exceptions_max: usize,
    /// The store that is lost for good: an empty root may take its place, even though the registry knows the lost one.
    pub lost_store: Option<StoreId>,
    /// How copies are compared with what was verified.
    pub checks: Checks,
}

/// How often, and how gently, copies are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    /// Between the end of one walk, which compares sizes and times of all copies, and the begin of the next.
    pub walk_every: Duration,
    /// Copies that a walk compares in a second, at most.
    pub walk_objects: u32,
    /// Every copy is read and hashed once in this time.
    pub scrub_every: Duration,
    /// Bytes that walk and scrub read in a second, at most, each.
    pub scrub_bytes: u64,
}

impl Default for Checks {
    /// 10,000 copies are compared within 40 s, at some thousandth of a processor.
    fn default() -> Self {
        Self {
            walk_every: Duration::from_secs(30),
            walk_objects: 1_000,
            scrub_every: Duration::from_secs(28 * 24 * 60 * 60),
            scrub_bytes: 20 << 20,
        }
    }
}

impl Config {
    /// Reads the settings; `None` if one is wrong, which the source tells at the end.
    pub fn read(source: &mut Source) -> Option<Self> {
        let server_id = source.required("server-id", "the id of the server, a DNS label");
        let root = source.required("root", "the directory that holds ums_filetransfer, on one file system");
        let state = source.required("state", "the directory of this server's index, outside the root");
        let registry = source.required("registry", "the registry, sqlite:/path/to/registry.sqlite");
        let mode = source.or("mode", "high-availability, distributed or standalone", "distributed");
        let version = source.or("version", "the version of the product, such as 12.04.100", "12.04.100");
        let advertise = source.or(
            "advertise",
            "where others reach this process, https://host:port; the listener if empty",
            "",
        );
        let timeguard =
            source.or("timeguard", "where others reach the timeguard of this server, https://host:port", "");
        let fence =
            source.or("fence", "on, or off to let this server change files whatever its clock says", "on");
        let every =
            source.or::<Span>("reconcile-every", "how often everything is compared with the registry", "5m");
        let reserve_bytes =
            source.or("reserve-bytes", "space that copies leave free on the disk", "67108864");
        let relay_bytes_min = source.or(
            "relay-bytes-min",
            "uploads from this size on are sent on while they arrive",
            "33554432",
        );
        let exceptions_max =
            source.or("exceptions-max", "files that may be missing before the position waits", "10000");
        let lost_store: Option<String> = source.or(
            "lost-store",
            "the id of the store of this server that is lost for good: an empty root takes its place",
            "",
        );
        let lost_store =
            lost_store.map(|text| (!text.is_empty()).then(|| text.parse::<StoreId>()).transpose());
        if matches!(lost_store, Some(Err(_))) {
            source.problem("lost-store must be the id of a store, a UUID, or empty");
        }
        let walk_every = source.or::<Span>(
            "walk-every",
            "the rest between two comparisons of all copies by size and times",
            "30s",
        );
        let walk_objects = source.or("walk-objects", "copies compared in a second, at most", "1000");
        let scrub_every =
            source.or::<Span>("scrub-every", "every copy is read and hashed once in this time", "672h");
        let scrub_bytes = source.or("scrub-bytes", "bytes that comparing may read in a second", "20971520");
        let settings = Settings {
            server_id: server_id?,
            mode: mode?,
            version: version?,
            advertise: advertise?,
            timeguard: timeguard?,
            reconcile_every: every?.0,
            relay_bytes_min: relay_bytes_min?,
            exceptions_max: exceptions_max?,
            lost_store: lost_store?.ok().flatten(),
            checks: Checks {
                walk_every: walk_every?.0,
                walk_objects: walk_objects?,
                scrub_every: scrub_every?.0,
                scrub_bytes: scrub_bytes?,
            },
        };
        let fence: Switch = fence?;
        if fence == Switch::On && settings.timeguard.is_empty() {
            source.problem("timeguard must be given, or fence must be off");
        }
        let (root, state): (PathBuf, PathBuf) = (root?, state?);
        if state.starts_with(&root) {
            source.problem("state must not be below root: a root that is not mounted would take it along");
        }
        if settings.reconcile_every < Duration::from_millis(100) {
            source.problem("reconcile-every must be at least 100ms");
        }
        if settings.exceptions_max == 0 {
            source.problem("exceptions-max must be at least 1");
        }
        let checks = &settings.checks;
        if checks.walk_every < Duration::from_millis(100)
            || checks.walk_objects == 0
            || checks.scrub_bytes == 0
        {
            source.problem("walk-every must be at least 100ms, walk-objects and scrub-bytes at least 1");
        }
        if checks.scrub_every < Duration::from_secs(1) {
            source.problem("scrub-every must be at least 1s");
        }
        Some(Self { settings, root, state, registry: registry?, reserve_bytes: reserve_bytes?, fence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R62: a server without a guard is one by decision, not by oversight.
    #[test]
    fn a_guard_is_missing_only_where_somebody_said_so() {
        let read = |args: &[&str]| {
            let all = ["--server-id=s1", "--root=/r", "--state=/s", "--registry=sqlite:/registry"];
            let args = all.iter().chain(args).map(|arg| (*arg).to_owned());
            let mut source = Source::from_sources("filesync", args, []);
            let config = Config::read(&mut source);
            source.finish().map_err(|error| format!("{error:?}")).map(|()| config.map(|config| config.fence))
        };
        let guard = "--timeguard=https://localhost:1";
        assert_eq!(read(&[guard]), Ok(Some(Switch::On)));
        assert_eq!(read(&[guard, "--fence=off"]), Ok(Some(Switch::Off)));
        assert_eq!(read(&["--fence=off"]), Ok(Some(Switch::Off)));
        for args in [&[][..], &["--fence=on"]] {
            let problem = read(args).expect_err("a mistake");
            assert!(problem.contains("timeguard must be given, or fence must be off"), "{problem}");
        }
        let problem = read(&[guard, "--fence=maybe"]).expect_err("a mistake");
        assert!(problem.contains("expected on or off"), "{problem}");
    }
}
