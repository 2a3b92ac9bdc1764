//! The loops around the guard: one looks at the own clock, one asks the witnesses, one keeps notes. Whatever they find is judged at once, and
//! whoever watches hears of it.
//!
//! ```text
//!  clock set ─▶ look ─┐
//!  each second ───────┼─▶ Guard (one lock, never held across an await) ─▶ news ─▶ watchers: filesync, gateway, resolver
//!  answers ─▶ ask ────┘         └─▶ notebook: steps, override, peers
//! ```

mod ask;
mod look;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_chassis::{Drain, Health};
use lockstep_model::{Incarnation, ServerId, clock::Readings as _};
use tokio::sync::{Notify, watch};

use crate::{
    adapters::notebook::{Notebook, Notes},
    domain::{
        Reading,
        error::GuardError,
        fence::{Change, OVERRULED_FOR, Override},
        guard::{Beginning, Guard},
        step::Return,
        words,
    },
    ports::{KernelTime, Ports, Witnesses as _},
};

/// What the engine needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub server_id: ServerId,
    /// How far clocks may be apart.
    pub limit: Duration,
    /// A step above this asks for a restart.
    pub step_min: Duration,
    /// Time servers.
    pub ntp: Vec<String>,
    /// Which start of the machine this is.
    pub boot: String,
}

/// The things behind the ports.
#[derive(Clone, Debug)]
pub struct Adapters<P: Ports> {
    /// Both own clocks.
    pub clock: P::Clock,
    /// Other clocks.
    pub witnesses: P::Witnesses,
    /// Who belongs to the installation.
    pub registry: P::Registry,
    /// Chance.
    pub entropy: P::Entropy,
}

/// The guard of one server, at work. Clones share it.
pub struct Engine<P: Ports> {
    inner: Arc<Inner<P>>,
}

impl<P: Ports> Clone for Engine<P> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<P: Ports> {
    settings: Settings,
    ports: Adapters<P>,
    notebook: Notebook,
    health: Health,
    incarnation: Incarnation,
    guard: Mutex<Guard>,
    /// The peers that are asked, with where each answers.
    peers: Mutex<BTreeMap<ServerId, String>>,
    /// Counts what somebody who watches should hear of at once.
    news: watch::Sender<u64>,
    /// The clock was set: to be written down at once.
    stepped: Notify,
    /// One writes at a time, so that what is newer is written last.
    writing: tokio::sync::Mutex<()>,
}

impl<P: Ports> Engine<P> {
    /// Begins where an earlier process ended, and starts the loops; they end when the process drains.
    pub async fn start(
        settings: Settings,
        ports: Adapters<P>,
        signals: P::Signals,
        notebook: Notebook,
        health: Health,
        drain: &Drain,
    ) -> Self {
        let notes = notebook.read();
        let (stored, overruled, known) = match notes {
            Some(Notes { steps, clock_override, peers, .. }) => (Some(steps), clock_override, peers),
            None => (None, None, BTreeMap::new()),
        };
        let peers = ask::peers(&ports.registry, &settings.server_id).await.unwrap_or(known);
        let beginning = Beginning {
            own: settings.server_id.clone(),
            limit: settings.limit,
            step_min: settings.step_min,
            boot: settings.boot.clone(),
            now: ports.clock.reading(),
            sources: ask::sources(&settings, &peers, false, ports.witnesses.kernel().is_some()),
        };
        let (guard, returned) = Guard::begin(beginning, stored.as_ref(), overruled);
        match returned {
            Some(Return::Step(step)) => {
                tracing::warn!(by = %words::seconds(step.by_ns), "the clock was set while nobody looked");
            }
            Some(Return::Back(by_ns)) => {
                tracing::warn!(by = %words::seconds(-by_ns), "the clock shows an earlier time than before the machine was started");
            }
            None => {}
        }
        let engine = Self {
            inner: Arc::new(Inner {
                incarnation: Incarnation::random(&ports.entropy),
                settings,
                ports,
                notebook,
                health,
                guard: Mutex::new(guard),
                peers: Mutex::new(peers),
                news: watch::Sender::default(),
                stepped: Notify::new(),
                writing: tokio::sync::Mutex::default(),
            }),
        };
        drain.spawn_until("look at the clock", engine.clone().look(signals));
        drain.spawn_until("keep notes of the clock", engine.clone().keep_notes());
        drain.spawn_until("ask the witnesses", engine.clone().ask());
        engine
    }

    /// The server.
    pub fn server(&self) -> &ServerId {
        &self.inner.settings.server_id
    }

    /// One life of this process.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// Both own clocks, now.
    pub fn reading(&self) -> Reading {
        self.inner.ports.clock.reading()
    }

    /// The own kernel, where it keeps its clock in time.
    pub fn kernel(&self) -> Option<KernelTime> {
        self.inner.ports.witnesses.kernel()
    }

    /// Looks at what is known, now.
    pub fn read<T>(&self, look: impl FnOnce(&Guard, Reading) -> T) -> T {
        let now = self.reading();
        look(&self.guard(), now)
    }

    /// Changes with each thing that whoever watches should hear of at once.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.inner.news.subscribe()
    }

    /// The own filesync began then, by its own clocks.
    pub fn started(&self, filesync: Reading) {
        self.update(|guard, now| {
            guard.started(filesync);
            guard.judge(now)
        });
    }

    /// Lets the server originate for an hour, whatever its clock is said to be.
    ///
    /// # Errors
    /// [`GuardError::Unwritten`]; then nothing changed.
    pub async fn overrule(
        &self,
        principal: String,
        justification: String,
        request_id: String,
    ) -> Result<(), GuardError> {
        let until = self.reading().since + OVERRULED_FOR;
        let by = Override { until, principal, justification, request_id };
        let known = self.read(|guard, _| guard.fence().overruled().cloned());
        if known.is_some_and(|known| known.request_id == by.request_id) {
            return Ok(());
        }
        self.write_override(Some(by.clone())).await?;
        let Override { principal, justification, request_id, .. } = &by;
        tracing::warn!(
            principal,
            justification,
            request_id,
            "override: this server originates for an hour, whatever its clock is said to be"
        );
        self.update(|guard, now| guard.overrule(now.since, by));
        Ok(())
    }

    /// Ends an override before its time.
    ///
    /// # Errors
    /// [`GuardError::Unwritten`]; then nothing changed.
    pub async fn stand(&self, principal: &str) -> Result<(), GuardError> {
        if self.read(|guard, _| guard.fence().overruled().is_none()) {
            return Ok(());
        }
        self.write_override(None).await?;
        tracing::warn!(principal, "the override was ended");
        self.update(|guard, now| guard.stand(now.since));
        Ok(())
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        // Every change leaves it whole, so a panic of another holder does no harm.
        self.inner.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the guard, logs what the fence does, and tells those who watch.
    fn update(&self, change: impl FnOnce(&mut Guard, Reading) -> Option<Change>) {
        let now = self.reading();
        let (changed, text, is_news) = {
            let mut guard = self.guard();
            let before = salient(&guard);
            let changed = change(&mut guard, now);
            let text = match &changed {
                Some(Change::Entered(why)) => words::fence(&guard, *why),
                _ => String::new(),
            };
            (changed, text, before != salient(&guard))
        };
        match changed {
            Some(Change::Entered(why)) => {
                tracing::warn!(reason = %words::reason(why), why = text, "fenced: this server originates nothing");
            }
            Some(Change::Left { lasted, is_overruled }) => {
                tracing::info!(lasted_seconds = lasted.as_secs_f64(), is_overruled, "the fence is lifted");
            }
            None => {}
        }
        if is_news {
            self.inner.news.send_modify(|count| *count += 1);
        }
    }

    fn peers(&self) -> BTreeMap<ServerId, String> {
        self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes down what is known, with the override that stands.
    async fn write(&self) -> std::io::Result<()> {
        let _turn = self.inner.writing.lock().await;
        let (steps, by) = self.read(|guard, _| (guard.stored(), guard.fence().overruled().cloned()));
        self.inner.notebook.write(Notes::new(steps, by, self.peers())).await
    }

    async fn write_override(&self, by: Option<Override>) -> Result<(), GuardError> {
        let _turn = self.inner.writing.lock().await;
        let steps = self.read(|guard, _| guard.stored());
        let written = self.inner.notebook.write(Notes::new(steps, by, self.peers())).await;
        let server = || self.server().to_string();
        written.map_err(|error| GuardError::Unwritten { server: server(), cause: error.to_string() })
    }
}

/// What somebody who watches should hear of at once.
fn salient(guard: &Guard) -> impl PartialEq + use<> {
    let services: Vec<&str> = guard.services_to_restart().collect();
    (guard.judgement().verdict, guard.fence().state(), services)
}
