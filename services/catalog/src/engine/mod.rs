//! What the catalog does, over its ports.
//!
//! ```text
//! calls ──▶ start, import, change, edit, settings ───commit──▶ registry ◀──┬── keep: who works on what, takes over
//!                                                                       └── place: placement and moves
//! keep ──▶ work(id) ──▶ download ─▶ transfer × 4 ─▶ one server     one task an update, one note a second
//!                  └──▶ verify   ─▶ one registration
//!                  └──▶ remove   ─▶ uploads, its own files, then the record
//! ```
//!
//! A record says where an update should be; the loops bring it there, whoever died in between. Nothing here relies on being
//! the only instance: each step can be done twice.

mod beat;
mod change;
mod download;
mod edit;
mod follow;
mod import;
mod keep;
mod offers;
mod place;
mod progress;
mod records;
mod remove;
mod settings;
mod show;
mod start;
#[cfg(test)]
mod tests;
mod transfer;
mod verify;
mod work;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lockstep_chassis::{Drain, SealKey, trace};
use lockstep_model::{FirmwareId, RequestId, clock::Entropy as _};
use lockstep_registry::Request;
use tokio::{sync::Notify, time::Instant};

use crate::{
    domain::{Moment, offers::Offers},
    engine::work::Work,
    ports::Ports,
};

pub use self::{
    edit::EditAsk,
    import::Import,
    records::Update,
    settings::{CurrentSettings, SettingsEdit},
    show::Shown,
    start::Start,
};

/// What the engine is made of.
#[derive(Clone)]
pub struct Outside<P: Ports> {
    /// The authority.
    pub registry: P::Registry,
    /// Where offers come from.
    pub vendor: P::Vendor,
    /// Where files go.
    pub servers: P::Servers,
    /// Time, for stamps.
    pub clock: P::Clock,
    /// Chance.
    pub entropy: P::Entropy,
}

/// What is chosen at the start.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Seals passwords; without one, none can be set.
    pub key: Option<SealKey>,
    /// After so much silence another instance takes over.
    pub takeover_after: Duration,
}

/// The catalog. Clones share it.
#[derive(Clone)]
pub struct Engine<P: Ports> {
    inner: Arc<Inner<P>>,
}

struct Inner<P: Ports> {
    outside: Outside<P>,
    choices: Choices,
    /// Who writes notes: drawn at random.
    instance: String,
    offers: Mutex<Offers>,
    /// What this instance works on.
    working: Mutex<BTreeMap<FirmwareId, Arc<Work>>>,
    /// Something changed here that the loops should look at before the registry tells them.
    keep_now: Notify,
    place_now: Notify,
    drain: Drain,
    begun: Instant,
}

/// Who asks, and under which name.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The principal.
    pub caller: String,
    /// Their name for the request.
    pub request_id: RequestId,
    /// Trace context of the call.
    pub traceparent: String,
}

impl Ask {
    /// Within the span of the call.
    pub fn new(caller: String, request_id: RequestId) -> Self {
        Self { caller, request_id, traceparent: trace::traceparent() }
    }

    fn label(&self) -> String {
        format!("{} {}", self.caller, self.request_id)
    }

    fn request(&self, fingerprint: String) -> Request {
        Request { caller: self.caller.clone(), id: self.request_id.to_string(), fingerprint }
    }
}

impl<P: Ports> Engine<P> {
    /// An engine that does nothing by itself yet.
    pub fn new(outside: Outside<P>, choices: Choices, drain: Drain) -> Self {
        let instance = outside.entropy.uuid().to_string();
        let inner = Inner {
            outside,
            choices,
            instance,
            offers: Mutex::default(),
            working: Mutex::default(),
            keep_now: Notify::new(),
            place_now: Notify::new(),
            drain,
            begun: Instant::now(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts the loops; they end when the process drains.
    pub fn run(&self) {
        self.inner.drain.spawn("keep downloads going", self.clone().keep());
        self.inner.drain.spawn("keep placements", self.clone().keep_placements());
    }

    /// How many updates this instance works on.
    pub fn working_count(&self) -> usize {
        self.working().len()
    }

    fn registry(&self) -> &P::Registry {
        &self.inner.outside.registry
    }

    fn servers(&self) -> &P::Servers {
        &self.inner.outside.servers
    }

    fn entropy(&self) -> &P::Entropy {
        &self.inner.outside.entropy
    }

    fn now(&self) -> Moment {
        self.inner.begun.elapsed()
    }

    /// A name for a request that is safe to repeat under another one.
    fn fresh_request(&self) -> Option<RequestId> {
        self.entropy().uuid().to_string().parse().ok()
    }
}
