//! An installation in one thread: servers, a gateway, people, and the network between them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use filesync::{
    Parts, Settings,
    adapters::{guard_none::NoGuard, peers_grpc::GrpcPeers},
    engine::Adapters,
};
use futures::FutureExt as _;
use gateway::proxy::Backends;
use lockstep_chassis::{Channels, Drain, Health};
use lockstep_model::{
    Epoch, Role, ServerId,
    clock::Entropy as _,
    record::{OperatorRecord, operator_key},
    version::Mode,
};
use lockstep_registry::{Commit, MemoryRegistry, Registry as _};

use crate::{
    chance::{Chance, SimClock},
    judge::Judge,
    net::{GATEWAY, Net, SimDial, Sockets, listen, uri},
    operator::{Book, Operator},
    ports::{SimIndex, SimRegistry, SimStore},
    trace::Trace,
};

/// How much virtual time one step takes; messages and judgements are no finer.
const STEP: Duration = Duration::from_millis(10);
/// The usual time of a scrub, so that no other test meets it.
pub(crate) const SCRUB_EVERY: Duration = Duration::from_secs(28 * 24 * 60 * 60);
/// No test runs longer, in virtual time.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The filesync of the simulation: nothing but its ports differs from the real one.
type Simulated = Parts<SimStore, SimIndex, SimRegistry, GrpcPeers, NoGuard, SimClock, Chance>;

/// What outlives the process of a server: its disk, its index, its way to the registry, its clock.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) store: SimStore,
    pub(crate) index: SimIndex,
    pub(crate) registry: SimRegistry,
    pub(crate) clock: SimClock,
    /// Its network, where bits may flip in what it fetches from others.
    pub(crate) net: Net,
    entropy: Chance,
}

/// What differs between simulations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) servers: usize,
    /// The cycle of the servers.
    pub(crate) cycle: Duration,
    /// Whether there is a gateway.
    pub(crate) gateway: bool,
    /// Whether the trace is kept.
    pub(crate) traced: bool,
    /// Uploads from this size on are sent on while they arrive.
    pub(crate) relay_bytes_min: u64,
    /// Beyond so many exceptions a position waits.
    pub(crate) exceptions_max: usize,
    /// Every copy is read once in this time.
    pub(crate) scrub_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let cycle = Duration::from_secs(300);
        Self {
            servers: 3,
            cycle,
            gateway: true,
            traced: false,
            relay_bytes_min: 1 << 20,
            exceptions_max: filesync::EXCEPTIONS_MAX,
            scrub_every: SCRUB_EVERY,
        }
    }
}

/// The installation.
pub(crate) struct Mesh {
    sim: turmoil::Sim<'static>,
    pub(crate) seed: u64,
    /// What happens in it, for whoever reads of its failure.
    pub(crate) about: String,
    pub(crate) servers: Vec<Server>,
    pub(crate) judge: Judge,
    pub(crate) chance: Chance,
    pub(crate) book: Book,
    pub(crate) trace: Trace,
    pub(crate) gateway_registry: SimRegistry,
    hosts: Vec<String>,
    sockets: BTreeMap<String, Arc<Sockets>>,
    down: Vec<String>,
}

/// An answer that is on its way.
pub(crate) struct Asked<T> {
    answer: Rc<RefCell<Option<T>>>,
}

impl<T> Asked<T> {
    /// Whether it is there.
    pub(crate) fn is_there(&self) -> bool {
        self.answer.borrow().is_some()
    }

    /// Takes it.
    pub(crate) fn take(self) -> T {
        self.answer.take().expect("the answer is there")
    }
}

impl Mesh {
    /// Builds and starts everything.
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let chance = Chance::new(seed, "mesh");
        let trace = if options.traced { Trace::kept() } else { Trace::default() };
        let sim = turmoil::Builder::new()
            .rng_seed(chance.next())
            .tick_duration(STEP)
            .simulation_duration(LONGEST)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(1_024)
            .build();
        let registry = MemoryRegistry::new(Epoch(chance.uuid()));
        let body = serde_json::to_string(&OperatorRecord { role: Role::Operator }).expect("JSON");
        let commit = Commit { puts: vec![(operator_key("sim"), body)], ..Commit::default() };
        registry.commit(commit).now_or_never().expect("at once").expect("an empty registry");
        let gateway_registry =
            SimRegistry::new(&registry, GATEWAY, Chance::new(seed, "gateway registry"), &trace);
        let mut mesh = Self {
            sim,
            seed,
            about: format!("seed {seed}"),
            servers: Vec::new(),
            judge: Judge::new(&registry, options.servers),
            chance,
            book: Book::default(),
            trace,
            gateway_registry,
            hosts: Vec::new(),
            sockets: BTreeMap::new(),
            down: Vec::new(),
        };
        for number in 1..=options.servers {
            mesh.add_server(number, &registry, options);
        }
        if options.gateway {
            mesh.add_gateway();
        }
        mesh
    }

    fn net(&self) -> Net {
        Net { trace: self.trace.clone(), ..Net::default() }
    }

    fn add_server(&mut self, number: usize, registry: &MemoryRegistry, options: Options) {
        let Options { cycle, relay_bytes_min, exceptions_max, scrub_every, .. } = options;
        let name = format!("s{number}");
        let id: ServerId = name.parse().expect("a DNS label");
        let chance = |part: &str| Chance::new(self.seed, &format!("{name} {part}"));
        let store = SimStore::new(&id, chance("disk"), &self.trace);
        // No two clocks agree: up to a day apart.
        let offset = i64::try_from(self.chance.between(0..=172_800)).expect("a day") - 86_400;
        let server = Server {
            id: id.clone(),
            index: SimIndex::new(&store.device),
            store,
            registry: SimRegistry::new(registry, &name, chance("registry"), &self.trace),
            clock: SimClock::new(offset),
            net: self.net(),
            entropy: chance("entropy"),
        };
        self.servers.push(server.clone());
        let settings = Settings {
            server_id: id,
            mode: Mode::Distributed,
            version: "12.04.100".parse().expect("a version"),
            advertise: uri(&name),
            timeguard: String::new(),
            reconcile_every: cycle,
            relay_bytes_min,
            exceptions_max,
            lost_store: None,
            checks: filesync::Checks { scrub_every, ..filesync::Checks::default() },
        };
        self.sockets.insert(name.clone(), Arc::clone(&server.net.sockets));
        self.sim.host(name.as_str(), move || {
            let (server, settings) = (server.clone(), settings.clone());
            async move {
                let _last = server.net.sockets.live();
                let (drain, health) = (Drain::new(), Health::new(&["registry", "store"]));
                let ports: Adapters<Simulated> = Adapters {
                    store: server.store,
                    index: server.index,
                    registry: server.registry,
                    peers: GrpcPeers::new(Channels::new(SimDial(server.net.clone()))),
                    guard: NoGuard,
                    clock: server.clock,
                    entropy: server.entropy,
                };
                filesync::serve(settings, ports, listen(server.net.clone()).await?, drain, health).await?;
                Err("filesync ended by itself".into())
            }
        });
        self.hosts.push(name);
    }

    fn add_gateway(&mut self) {
        let (net, registry) = (self.net(), self.gateway_registry.clone());
        self.sockets.insert(GATEWAY.to_owned(), Arc::clone(&net.sockets));
        let entropy = Chance::new(self.seed, "gateway entropy");
        self.sim.host(GATEWAY, move || {
            let (net, registry, entropy) = (net.clone(), registry.clone(), entropy.clone());
            async move {
                let _last = net.sockets.live();
                let parts = gateway::Parts {
                    registry,
                    channels: Channels::new(SimDial(net.clone())),
                    backends: Backends::default(),
                    health: Health::new(&["registry"]),
                    drain: Drain::new(),
                    entropy,
                };
                gateway::serve(parts, listen(net).await?).await?;
                Err("the gateway ended by itself".into())
            }
        });
        self.hosts.push(GATEWAY.to_owned());
    }

    /// One step, and a look at everything.
    pub(crate) fn step(&mut self) {
        if let Err(error) = self.sim.step() {
            panic!("{}, after {:?}: {error}", self.about, self.sim.elapsed());
        }
        if let Err(broken) = self.judge.look(&self.servers) {
            panic!("{}, after {:?}: {broken}", self.about, self.sim.elapsed());
        }
    }

    /// Virtual time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.elapsed() + time;
        while self.elapsed() < end {
            self.step();
        }
    }

    /// Steps until there is no reason left why not; fails with the last one after `bound`. Answers how long it took.
    pub(crate) fn until(
        &mut self,
        bound: Duration,
        mut why_not: impl FnMut(&mut Self) -> Option<String>,
    ) -> Duration {
        let begun = self.elapsed();
        while let Some(why) = why_not(self) {
            let waited = self.elapsed() - begun;
            assert!(waited < bound, "{}: after {bound:?}, at {:?}, still: {why}", self.about, self.elapsed());
            self.step();
        }
        self.elapsed() - begun
    }

    /// I6: steps until all servers are equal to the registry.
    pub(crate) fn converge(&mut self, bound: Duration) -> Duration {
        self.until(bound, |mesh| mesh.judge.unequal(&mesh.servers))
    }

    /// Somebody does something, meanwhile.
    pub(crate) fn begin<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        work: impl FnOnce(Operator) -> F + 'static,
    ) -> Asked<T> {
        let name = format!("operator-{}", self.hosts.len());
        let dial = SimDial(self.net());
        let (chance, book) = (Chance::new(self.seed, &name), self.book.clone());
        let answer = Rc::new(RefCell::new(None));
        let given = Rc::clone(&answer);
        self.sim.client(name.as_str(), async move {
            let done = work(Operator::new(dial, chance, &book)).await;
            given.replace(Some(done));
            Ok(())
        });
        self.hosts.push(name);
        Asked { answer }
    }

    /// Somebody does something, and we wait for the end of it.
    pub(crate) fn ask<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        bound: Duration,
        work: impl FnOnce(Operator) -> F + 'static,
    ) -> T {
        let asked = self.begin(work);
        self.until(bound, |_| (!asked.is_there()).then(|| "no answer".to_owned()));
        asked.take()
    }

    /// The ids of all servers, beginning with the given one.
    pub(crate) fn from(&self, first: usize) -> Vec<String> {
        let count = self.servers.len();
        (0..count).map(|at| self.servers[(first + at) % count].id.to_string()).collect()
    }

    fn others(&self, host: &str) -> Vec<String> {
        self.hosts.iter().filter(|other| *other != host).cloned().collect()
    }

    /// Cuts a host off: what is on the wire is lost.
    pub(crate) fn cut(&mut self, host: &str) {
        self.note(host, "is cut off");
        self.others(host).iter().for_each(|other| self.sim.partition(host, other.as_str()));
    }

    /// Cuts off what a host says; it still hears.
    pub(crate) fn mute(&mut self, host: &str) {
        self.note(host, "is muted");
        self.others(host).iter().for_each(|other| self.sim.partition_oneway(host, other.as_str()));
    }

    /// Holds back everything to and from a host.
    pub(crate) fn hold(&mut self, host: &str) {
        self.note(host, "is held");
        self.others(host).iter().for_each(|other| self.sim.hold(host, other.as_str()));
    }

    /// Ends whatever keeps a host from the others.
    pub(crate) fn reconnect(&mut self, host: &str) {
        self.note(host, "is back");
        for other in self.others(host) {
            self.sim.release(host, other.as_str());
            self.sim.repair(host, other.as_str());
        }
    }

    /// Makes every message to and from a host take so long.
    pub(crate) fn slow(&mut self, host: &str, latency: Duration) {
        self.note(host, "is slow");
        self.set_latency(host, latency);
    }

    fn set_latency(&mut self, host: &str, latency: Duration) {
        self.others(host).iter().for_each(|other| self.sim.set_link_latency(host, other.as_str(), latency));
    }

    /// Ends a process without a word; its disk stays as it is.
    pub(crate) fn kill(&mut self, host: &str) {
        if !self.down.iter().any(|down| down == host) {
            self.note(host, "is killed");
            self.sockets[host].die();
            self.sim.crash(host);
            self.down.push(host.to_owned());
        }
    }

    /// Ends a process, and forgets what its disk had not made durable.
    pub(crate) fn cut_power(&mut self, host: &str) {
        self.kill(host);
        self.servers
            .iter()
            .filter(|server| server.id.as_str() == host)
            .for_each(|server| server.store.crash());
    }

    /// Starts a process again.
    pub(crate) fn start(&mut self, host: &str) {
        if let Some(at) = self.down.iter().position(|down| down == host) {
            self.note(host, "is started");
            self.down.remove(at);
            self.sim.bounce(host);
        }
    }

    /// Ends every fault.
    pub(crate) fn heal(&mut self) {
        for host in self.hosts.clone() {
            self.reconnect(&host);
            self.set_latency(&host, Duration::from_millis(10));
            self.start(&host);
        }
        for server in &self.servers {
            server.registry.reachable.store(true, Ordering::Relaxed);
            server.store.device.set_slowest(Duration::from_millis(2));
            server.store.device.set_flaky(false);
            server.registry.device.set_flaky(false);
        }
        self.gateway_registry.reachable.store(true, Ordering::Relaxed);
    }

    /// How many rounds a server ended.
    pub(crate) fn rounds(&self, server: usize) -> u64 {
        self.servers[server].registry.rounds.load(Ordering::Relaxed)
    }

    fn note(&self, host: &str, what: &'static str) {
        self.trace.note(host, || format!("{what} after {:?}", self.elapsed()));
    }

    /// Whether a server has these bytes under this name.
    pub(crate) fn has(&self, server: usize, path: &str, content: &[u8]) -> bool {
        let path = path.parse().expect("paths of tests are valid");
        self.servers[server].store.inner.published().get(&path).is_some_and(|found| ***found == *content)
    }

    /// Flips a bit of a published file, behind unchanged times.
    pub(crate) fn rot(&mut self, server: usize, path: &str) {
        let path: lockstep_model::FilePath = path.parse().expect("paths of tests are valid");
        let store = &self.servers[server].store;
        store.inner.rot(&path);
        store.changes.fetch_add(1, Ordering::Relaxed);
        self.judge.excuse(server, path);
    }

    /// Everything that a server has under final names.
    pub(crate) fn published(&self, server: usize) -> Vec<(String, Arc<Vec<u8>>)> {
        let published = self.servers[server].store.inner.published();
        published.into_iter().map(|(path, bytes)| (path.to_string(), bytes)).collect()
    }
}
