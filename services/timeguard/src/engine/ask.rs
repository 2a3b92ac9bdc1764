//! Asking the witnesses, all at once, every five seconds.

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use lockstep_model::{
    Fault as _, Reason, ServerId,
    clock::Entropy as _,
    record::{SERVER, ServerRecord},
    version::excluded,
};
use lockstep_registry::{ListQuery, Registry};
use tokio::time::{Instant, sleep, timeout};

use super::{Engine, Settings};
use crate::{
    domain::{
        Reading, choose::choose, estimate::Exchange, fence::STARTING_MAX, guard::Missed, verdict::Verdict,
        witness::Source,
    },
    ports::{Answer, NtpAnswer, Ports, Witnesses as _},
};

/// Between two rounds, give or take a quarter.
const EVERY: Duration = Duration::from_secs(5);
/// While the process is young and its clock is not trusted yet.
const EVERY_YOUNG: Duration = Duration::from_millis(500);
/// The registry is not waited for longer: its clock would say too little, and the peers are known from before.
const REGISTRY_MAX: Duration = Duration::from_secs(2);
/// More servers than an installation is made for.
const SERVERS_MAX: usize = 1_000;

/// What one witness said, and whether its kernel keeps its clock in time.
type Said = (Source, Result<(Exchange, bool), Missed>);

impl<P: Ports> Engine<P> {
    pub(super) async fn ask(self) {
        let (mut has_registry_clock, begun) = (false, Instant::now());
        loop {
            let peers =
                peers(&self.inner.ports.registry, self.server()).await.unwrap_or_else(|| self.peers());
            self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&peers);
            let registry = self.ask_registry(has_registry_clock).await;
            has_registry_clock |= registry.is_some();
            let kernel = self.ask_kernel();
            let sources = sources(&self.inner.settings, &peers, has_registry_clock, kernel.is_some());
            self.update(|guard, now| {
                guard.expect(sources.clone());
                guard.judge(now)
            });
            registry.into_iter().chain(kernel).for_each(|said| self.hear(said));
            let asked = sources.iter().filter_map(|source| match source {
                Source::Peer(peer) => {
                    Some(futures::future::Either::Left(self.ask_peer(peer, peers.get(peer)?)))
                }
                Source::Ntp(server) => Some(futures::future::Either::Right(self.ask_time_server(server))),
                Source::Registry | Source::Kernel => None,
            });
            let mut answers: FuturesUnordered<_> = asked.collect();
            while let Some(said) = answers.next().await {
                self.hear(said);
            }
            // The first of an installation find out about each other only now.
            let is_trusted = self.read(|guard, _| guard.judgement().verdict == Verdict::Trusted);
            let is_young = begun.elapsed() < STARTING_MAX && !is_trusted;
            let every = if is_young { EVERY_YOUNG } else { EVERY };
            sleep(self.inner.ports.entropy.jitter(every)).await;
        }
    }

    fn hear(&self, (source, said): Said) {
        self.update(|guard, now| {
            match said {
                Ok((exchange, is_kept_in_time)) => {
                    if let Err(error) = guard.note(&source, &exchange, is_kept_in_time) {
                        guard.miss(
                            &source,
                            missed(Reason::PeerUnreachable, format!("its answer says nothing: {error}")),
                        );
                    }
                }
                Err(missed) => guard.miss(&source, missed),
            }
            guard.judge(now)
        });
    }

    async fn ask_peer(&self, peer: &ServerId, uri: &str) -> Said {
        let sent = self.reading();
        let answered = self.inner.ports.witnesses.sample(peer, uri).await;
        let arrived = self.reading();
        let exchange = |answer: Answer| {
            let Answer { received, replied, incarnation, kernel_error } = answer;
            let exchange = Exchange { sent, received, replied, arrived, incarnation, error: Duration::ZERO };
            (exchange, kernel_error.is_some())
        };
        (Source::Peer(peer.clone()), answered.map(exchange))
    }

    async fn ask_time_server(&self, server: &str) -> Said {
        let sent = self.reading();
        let answered = self.inner.ports.witnesses.ask_time_server(server, sent.wall_ns).await;
        let arrived = self.reading();
        let exchange = |answer: NtpAnswer| {
            // It tells no monotonic time: its two times are as far apart as its wall clock says.
            let held_ns = u64::try_from(answer.replied_ns - answer.received_ns).unwrap_or(0);
            let received = Reading { wall_ns: answer.received_ns, since: sent.since };
            let replied =
                Reading { wall_ns: answer.replied_ns, since: sent.since + Duration::from_nanos(held_ns) };
            (Exchange { sent, received, replied, arrived, incarnation: 0, error: answer.error }, false)
        };
        (Source::Ntp(server.to_owned()), answered.map(exchange))
    }

    /// `None` if the registry has no clock of its own; where it was never heard, nobody knows while it is away.
    async fn ask_registry(&self, has_clock: bool) -> Option<Said> {
        let sent = self.reading();
        let told = match timeout(REGISTRY_MAX, self.inner.ports.registry.time()).await {
            Ok(Ok(told)) => told?,
            _ if !has_clock => return None,
            Ok(Err(error)) => {
                return Some((Source::Registry, Err(missed(error.reason(), error.to_string()))));
            }
            Err(_) => {
                let why = format!("the registry did not answer within {} s", REGISTRY_MAX.as_secs());
                return Some((Source::Registry, Err(missed(Reason::RegistryUnavailable, why))));
            }
        };
        let arrived = self.reading();
        let there = Reading { wall_ns: told, since: sent.since };
        Some((Source::Registry, Ok((at_once(sent, there, arrived, Duration::ZERO), false))))
    }

    fn ask_kernel(&self) -> Option<Said> {
        let sent = self.reading();
        let told = self.inner.ports.witnesses.kernel()?;
        let arrived = self.reading();
        let there = Reading { wall_ns: told.wall_ns, since: sent.since };
        Some((Source::Kernel, Ok((at_once(sent, there, arrived, told.error), false))))
    }
}

fn missed(reason: Reason, message: String) -> Missed {
    Missed { reason, message, is_out_of_date: false }
}

/// Of a clock that tells one time: at any moment between question and answer.
fn at_once(sent: Reading, there: Reading, arrived: Reading, error: Duration) -> Exchange {
    Exchange { sent, received: there, replied: there, arrived, incarnation: 0, error }
}

/// Everybody who should be heard.
pub(super) fn sources(
    settings: &Settings,
    peers: &BTreeMap<ServerId, String>,
    has_registry_clock: bool,
    has_kernel: bool,
) -> Vec<Source> {
    let all: Vec<ServerId> = peers.keys().cloned().collect();
    let peers = choose(&settings.server_id, &all).into_iter().map(Source::Peer);
    let registry = has_registry_clock.then_some(Source::Registry);
    let ntp = settings.ntp.iter().cloned().map(Source::Ntp);
    peers.chain(registry).chain(ntp).chain(has_kernel.then_some(Source::Kernel)).collect()
}

/// The other servers that take part and have a time guard, with where it answers; `None` while the registry does not tell.
pub(super) async fn peers<R: Registry>(registry: &R, own: &ServerId) -> Option<BTreeMap<ServerId, String>> {
    let query = ListQuery { prefix: SERVER.to_owned(), limit: SERVERS_MAX, ..ListQuery::default() };
    let listed = timeout(REGISTRY_MAX, registry.list(query)).await.ok()?;
    let records =
        listed.inspect_err(|error| tracing::debug!(%error, "the peers are those from before")).ok()?.records;
    let peer = |record: lockstep_registry::Record| {
        let server: ServerId = record.key.strip_prefix(SERVER)?.parse().ok()?;
        let body: ServerRecord = serde_json::from_str(&record.body).ok()?;
        let takes_part = server != *own && excluded(body.mode, &body.version).is_none();
        (takes_part && !body.timeguard.is_empty()).then_some((server, body.timeguard))
    };
    Some(records.into_iter().filter_map(peer).collect())
}
