//! How busy each server is, as far as the reports tell: copies that it receives, and copies that others receive from it.
//!
//! In coarse steps, so that a device is not sent elsewhere for every file that is copied.

use std::collections::BTreeMap;

use lockstep_model::ServerId;
use lockstep_replicas::domain::report::Report;

/// A step of load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// At most two transfers.
    #[default]
    Light,
    /// Three to six.
    Busy,
    /// More than that.
    Heavy,
}

impl Load {
    /// The step of so many transfers.
    pub const fn of(transfers: usize) -> Self {
        match transfers {
            0..=2 => Self::Light,
            3..=6 => Self::Busy,
            _ => Self::Heavy,
        }
    }

    /// For a person.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Busy => "busy",
            Self::Heavy => "heavy",
        }
    }
}

/// The transfers of all servers.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    /// What each server receives, counted by the server that it comes from.
    received: BTreeMap<ServerId, BTreeMap<String, usize>>,
}

impl Loads {
    /// What `server` receives now; nothing, if it is not heard. Returns whose load may have changed.
    pub fn report(&mut self, server: &ServerId, report: Option<&Report>) -> Vec<String> {
        let mut sources = BTreeMap::new();
        for transfer in report.iter().flat_map(|report| report.summary.transfers.values()) {
            *sources.entry(transfer.source.clone()).or_insert(0) += 1;
        }
        let old = match sources.is_empty() {
            true => self.received.remove(server),
            false => self.received.insert(server.clone(), sources.clone()),
        };
        let old = old.unwrap_or_default();
        if old == sources {
            return Vec::new();
        }
        old.into_keys().chain(sources.into_keys()).chain([server.to_string()]).collect()
    }

    /// How busy `server` is.
    pub fn of(&self, server: &ServerId) -> Load {
        let receives = self.received.get(server).map_or(0, |sources| sources.values().sum());
        let sends: usize = self.received.values().filter_map(|sources| sources.get(server.as_str())).sum();
        Load::of(receives + sends)
    }
}
