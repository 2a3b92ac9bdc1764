//! A bench with one guard on it: everything outside of it is made up, and time is that of the test.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lockstep_chassis::{Drain, Health};
use lockstep_model::{
    Epoch, Reason, ServerId,
    clock::{Reading, Readings, SystemEntropy},
    record::{ServerRecord, server_key},
};
use lockstep_registry::{Commit, MemoryRegistry, Registry as _};
use tempfile::TempDir;
use tokio::{sync::watch, time::Instant};

use super::super::{Adapters, Engine, Settings};
use crate::{
    adapters::notebook::Notebook,
    domain::{
        fence::State,
        guard::Missed,
        interval::Interval,
        step::STEP_MIN,
        verdict::{LIMIT, Verdict},
        witness::Source,
        words,
    },
    ports::{Answer, KernelTime, NtpAnswer, Signals, Witnesses},
    run::Parts,
};

pub(super) const SECOND: i128 = 1_000_000_000;
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
/// One way of an exchange.
const WAY: Duration = Duration::from_millis(3);
/// What the wall clock shows when the machine starts.
const BEGIN_NS: i128 = 1_780_000_000 * SECOND;

pub(super) type Guarded = Engine<Parts<FakeClock, FakeWitnesses, FakeSignals, MemoryRegistry, SystemEntropy>>;

/// The clock of the server: true time, and how far it is ahead.
#[derive(Clone)]
pub(super) struct FakeClock {
    started: Instant,
    ahead_ns: Arc<Mutex<i128>>,
}

impl FakeClock {
    pub(super) fn step(&self, by_ns: i128) {
        *self.ahead_ns.lock().expect("held") += by_ns;
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(1_000) + self.started.elapsed()
    }

    fn true_ns(&self) -> i128 {
        BEGIN_NS + i128::try_from(self.uptime().as_nanos()).expect("small")
    }
}

impl Readings for FakeClock {
    fn reading(&self) -> Reading {
        Reading { wall_ns: self.true_ns() + *self.ahead_ns.lock().expect("held"), since: self.uptime() }
    }
}

/// A peer: how far it is ahead of true time, whether its kernel keeps it in time, why it is away.
#[derive(Clone, Default)]
struct Peer {
    ahead_ns: i128,
    is_kept_in_time: bool,
    missed: Option<Missed>,
}

#[derive(Clone)]
pub(super) struct FakeWitnesses {
    clock: FakeClock,
    peers: Arc<Mutex<BTreeMap<String, Peer>>>,
    time_server_ns: Arc<Mutex<Option<i128>>>,
    kernel: Arc<Mutex<Option<Duration>>>,
    is_certified: Arc<Mutex<bool>>,
}

impl FakeWitnesses {
    fn change(&self, peer: &str, change: impl FnOnce(&mut Peer)) {
        change(self.peers.lock().expect("held").entry(peer.to_owned()).or_default());
    }

    /// From now on a peer is ahead by so much.
    pub(super) fn ahead(&self, peer: &str, ahead_ns: i128) {
        self.change(peer, |peer| peer.ahead_ns = ahead_ns);
    }

    pub(super) fn keep_in_time(&self, peer: &str) {
        self.change(peer, |peer| peer.is_kept_in_time = true);
    }

    pub(super) fn fail(&self, peer: &str, missed: Missed) {
        self.change(peer, |peer| peer.missed = Some(missed));
    }

    pub(super) fn lose_time_server(&self) {
        *self.time_server_ns.lock().expect("held") = None;
    }

    pub(super) fn kernel(&self, error: Option<Duration>) {
        *self.kernel.lock().expect("held") = error;
    }

    pub(super) fn certify(&self, is_current: bool) {
        *self.is_certified.lock().expect("held") = is_current;
    }
}

impl Witnesses for FakeWitnesses {
    async fn sample(&self, peer: &ServerId, uri: &str) -> Result<Answer, Missed> {
        assert_eq!(uri, format!("https://{peer}:1"));
        tokio::time::sleep(WAY).await;
        let peer = self.peers.lock().expect("held")[peer.as_str()].clone();
        if let Some(missed) = peer.missed {
            return Err(missed);
        }
        let there = Reading { wall_ns: self.clock.true_ns() + peer.ahead_ns, since: self.clock.uptime() };
        tokio::time::sleep(WAY).await;
        let kernel_error = peer.is_kept_in_time.then_some(WAY);
        Ok(Answer { received: there, replied: there, incarnation: 1, kernel_error })
    }

    async fn ask_time_server(&self, _: &str, _: i128) -> Result<NtpAnswer, Missed> {
        tokio::time::sleep(WAY).await;
        let ahead = *self.time_server_ns.lock().expect("held");
        let away =
            || Missed { reason: Reason::PeerUnreachable, message: "m".to_owned(), is_out_of_date: false };
        let wall_ns = self.clock.true_ns() + ahead.ok_or_else(away)?;
        tokio::time::sleep(WAY).await;
        Ok(NtpAnswer { received_ns: wall_ns, replied_ns: wall_ns, error: WAY })
    }

    fn kernel(&self) -> Option<KernelTime> {
        let error = (*self.kernel.lock().expect("held"))?;
        Some(KernelTime { wall_ns: self.clock.reading().wall_ns, error })
    }

    fn is_certified(&self) -> bool {
        *self.is_certified.lock().expect("held")
    }
}

pub(super) struct FakeSignals(watch::Receiver<u64>);

impl Signals for FakeSignals {
    async fn clock_set(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn is_told(&self) -> bool {
        true
    }
}

/// One server with what is around it.
pub(super) struct Bench {
    pub(super) clock: FakeClock,
    pub(super) witnesses: FakeWitnesses,
    pub(super) registry: MemoryRegistry,
    pub(super) health: Health,
    /// When the own filesync began.
    pub(super) filesync: Mutex<Option<Reading>>,
    peers: Vec<String>,
    ntp: Vec<String>,
    set: watch::Sender<u64>,
    drain: Mutex<Drain>,
    state: TempDir,
}

impl Bench {
    /// With peers that are so far ahead.
    pub(super) fn new(peers: &[(&str, i128)]) -> Self {
        let clock = FakeClock { started: Instant::now(), ahead_ns: Arc::default() };
        let witnesses = FakeWitnesses {
            clock: clock.clone(),
            peers: Arc::default(),
            time_server_ns: Arc::default(),
            kernel: Arc::default(),
            is_certified: Arc::new(Mutex::new(true)),
        };
        peers.iter().for_each(|(peer, ahead_ns)| witnesses.ahead(peer, *ahead_ns));
        Self {
            clock,
            witnesses,
            registry: MemoryRegistry::new(Epoch(uuid::Uuid::new_v4())),
            health: Health::new(&[]),
            filesync: Mutex::default(),
            peers: peers.iter().map(|(peer, _)| (*peer).to_owned()).collect(),
            ntp: Vec::new(),
            set: watch::Sender::default(),
            drain: Mutex::default(),
            state: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(super) fn with_time_server(mut self, ahead_ns: i128) -> Self {
        self.ntp = vec!["time.example:123".to_owned()];
        *self.witnesses.time_server_ns.lock().expect("held") = Some(ahead_ns);
        self
    }

    /// The kernel says that the clock was set.
    pub(super) fn tell(&self) {
        self.set.send_modify(|count| *count += 1);
    }

    pub(super) async fn start(&self) -> Guarded {
        let records = self.peers.iter().map(|peer| {
            let record = ServerRecord {
                mode: "distributed".parse().expect("a mode"),
                version: "12.04.100".parse().expect("a version"),
                filesync: String::new(),
                timeguard: format!("https://{peer}:1"),
                store_id: lockstep_model::StoreId::random(&SystemEntropy),
            };
            let key = server_key(&peer.parse().expect("an id"));
            (key, serde_json::to_string(&record).expect("JSON"))
        });
        let commit = Commit { puts: records.collect(), ..Commit::default() };
        if !commit.puts.is_empty() {
            self.registry.commit(commit).await.expect("committed");
        }
        self.restart().await
    }

    /// Its filesync begins at the same time.
    pub(super) async fn start_with_filesync(&self) -> Guarded {
        let engine = self.start().await;
        let now = self.clock.reading();
        *self.filesync.lock().expect("held") = Some(now);
        engine.started(now);
        engine
    }

    pub(super) async fn stop(&self) {
        let drain = std::mem::take(&mut *self.drain.lock().expect("held"));
        drain.begin();
        drain.finished().await;
    }

    /// Another process begins where the last one ended.
    pub(super) async fn restart(&self) -> Guarded {
        self.stop().await;
        let drain = self.drain.lock().expect("held").clone();
        let settings = Settings {
            server_id: "s1".parse().expect("an id"),
            limit: LIMIT,
            step_min: STEP_MIN,
            ntp: self.ntp.clone(),
            boot: "one start".to_owned(),
        };
        let ports = Adapters {
            clock: self.clock.clone(),
            witnesses: self.witnesses.clone(),
            registry: self.registry.clone(),
            entropy: SystemEntropy,
        };
        let notebook = Notebook::open(self.state.path()).expect("opened");
        let signals = FakeSignals(self.set.subscribe());
        Engine::start(settings, ports, signals, notebook, self.health.clone(), &drain).await
    }
}

pub(super) fn verdict(engine: &Guarded) -> Verdict {
    engine.read(|guard, _| guard.judgement().verdict)
}

pub(super) fn state(engine: &Guarded) -> State {
    engine.read(|guard, _| guard.fence().state())
}

pub(super) fn to_restart(engine: &Guarded) -> Vec<&'static str> {
    engine.read(|guard, _| guard.services_to_restart().collect())
}

pub(super) fn offset(engine: &Guarded, of: &Source) -> Option<Interval> {
    engine.read(|guard, now| guard.known(now).find(|(source, ..)| *source == of)?.2)
}

pub(super) fn fence_text(engine: &Guarded) -> String {
    engine.read(|guard, _| match guard.fence().state() {
        State::Fenced { why, .. } => words::fence(guard, why),
        other => format!("{other:?}"),
    })
}
