use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use lockstep_chassis::drain::Drain;
use lockstep_model::{Reason, ServerId, clock::SystemEntropy};
use lockstep_replicas::{Address, Members, domain::cause::Cause};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{board::ClockBoard, start};
use crate::{
    domain::{
        heard::FORGOTTEN_AFTER,
        report::{Fence, Report, Verdict},
    },
    ports::{ClockReports, Reports},
};

type Voice = mpsc::Sender<Result<Report, Cause>>;
type Ear = mpsc::Receiver<Result<Report, Cause>>;

/// Timeguards that say what a test says: each watch takes the voice that lies ready at the address, and is refused without.
#[derive(Clone, Default)]
struct Guards {
    ready: Arc<Mutex<BTreeMap<String, Ear>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Guards {
    fn ready(&self, uri: &str) -> Voice {
        let (voice, ear) = mpsc::channel(8);
        self.ready.lock().expect("not poisoned").insert(uri.to_owned(), ear);
        voice
    }

    fn asked(&self) -> Vec<Instant> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl ClockReports for Guards {
    async fn watch(&self, guard: &Address) -> Result<Reports, Cause> {
        self.asked.lock().expect("not poisoned").push(Instant::now());
        let ear = self.ready.lock().expect("not poisoned").remove(&guard.uri);
        let ear = ear.ok_or_else(|| Cause::new(Reason::PeerUnreachable, "nobody listens"))?;
        Ok(ReceiverStream::new(ear).boxed())
    }
}

fn id(text: &str) -> ServerId {
    text.parse().expect("a server id")
}

fn report(verdict: Verdict) -> Report {
    let fence = match verdict {
        Verdict::Skewed => Fence::Fenced(Cause::new(Reason::ClockFenced, "its clock is proven wrong")),
        _ => Fence::Open,
    };
    Report { verdict, offset: None, uncertainty: None, fence }
}

fn members(guards: &[(&str, &str)]) -> Members {
    let guards = guards.iter().map(|(server, uri)| (id(server), (*uri).to_owned())).collect();
    Members { guards, ..Members::default() }
}

struct World {
    guards: Guards,
    board: ClockBoard,
    drain: Drain,
    members: watch::Sender<Members>,
}

impl World {
    fn new(guards: &[(&str, &str)]) -> Self {
        let world = Self {
            guards: Guards::default(),
            board: ClockBoard::new(),
            drain: Drain::new(),
            members: watch::Sender::new(members(guards)),
        };
        let reports = world.guards.clone();
        start(world.members.subscribe(), reports, &world.board, &world.drain, SystemEntropy);
        world
    }

    /// Waits until this is what is known of the clock.
    async fn known(&self, server: &str, verdict: Option<Verdict>) {
        let known = async {
            while self.board.report(&id(server)).map(|report| report.verdict) != verdict {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), known).await.expect("known in time");
    }
}

/// R62: a timeguard that says that its server is fenced is believed at once, and at once when it says that it is not any more.
#[tokio::test(start_paused = true)]
async fn a_fence_is_known_while_the_timeguard_says_so() {
    let world = World::new(&[("s1", "a"), ("s2", "b")]);
    let (one, two) = (world.guards.ready("a"), world.guards.ready("b"));
    one.send(Ok(report(Verdict::Trusted))).await.expect("heard");
    two.send(Ok(report(Verdict::Skewed))).await.expect("heard");
    world.known("s1", Some(Verdict::Trusted)).await;
    world.known("s2", Some(Verdict::Skewed)).await;
    assert_eq!(world.board.fence(&id("s1")), None);
    assert!(world.board.fence(&id("s2")).is_some_and(|cause| cause.is(Reason::ClockFenced)));
    two.send(Ok(report(Verdict::Trusted))).await.expect("heard");
    world.known("s2", Some(Verdict::Trusted)).await;
    assert_eq!(world.board.fence(&id("s2")), None);
}

/// R62, R65: the last words of a timeguard that falls silent count for 30 s, with a fence in them; then nothing is known, and
/// one that speaks again is heard again.
#[tokio::test(start_paused = true)]
async fn a_silent_timeguard_is_forgotten_and_heard_again() {
    let world = World::new(&[("s1", "a")]);
    let voice = world.guards.ready("a");
    voice.send(Ok(report(Verdict::Skewed))).await.expect("heard");
    world.known("s1", Some(Verdict::Skewed)).await;
    let heard = Instant::now();
    // It hangs: its stream stays open, and nothing comes.
    world.known("s1", None).await;
    let took = heard.elapsed();
    assert!(took <= FORGOTTEN_AFTER && took > FORGOTTEN_AFTER - Duration::from_secs(1), "{took:?}");
    assert_eq!(world.board.fence(&id("s1")), None);
    assert!(voice.is_closed(), "a stream that hangs is given up");

    let voice = world.guards.ready("a");
    voice.send(Ok(report(Verdict::Trusted))).await.expect("heard");
    world.known("s1", Some(Verdict::Trusted)).await;
}

/// R23: a timeguard that is not there is asked again and again, no more often than every three seconds, and holds up no other.
#[tokio::test(start_paused = true)]
async fn a_timeguard_that_is_away_delays_no_other() {
    let world = World::new(&[("s1", "a")]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = world.guards.asked();
    assert!((15..40).contains(&asked.len()), "{}", asked.len());
    world.members.send_replace(members(&[("s1", "a"), ("s2", "b")]));
    let voice = world.guards.ready("b");
    voice.send(Ok(report(Verdict::Trusted))).await.expect("heard");
    let begun = Instant::now();
    world.known("s2", Some(Verdict::Trusted)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// R14: a server that takes part no more is not watched and not known; one whose timeguard moved is watched where it is now.
#[tokio::test(start_paused = true)]
async fn only_servers_that_take_part_are_watched() {
    let world = World::new(&[("s1", "a"), ("s2", "b")]);
    let voices = [world.guards.ready("a"), world.guards.ready("b"), world.guards.ready("c")];
    for voice in &voices[..2] {
        voice.send(Ok(report(Verdict::Trusted))).await.expect("heard");
    }
    world.known("s1", Some(Verdict::Trusted)).await;
    world.known("s2", Some(Verdict::Trusted)).await;
    world.members.send_replace(members(&[("s2", "c")]));
    world.known("s1", None).await;
    voices[0].closed().await;
    voices[2].send(Ok(report(Verdict::Doubtful))).await.expect("heard");
    world.known("s2", Some(Verdict::Doubtful)).await;

    world.drain.begin();
    tokio::time::timeout(Duration::from_secs(60), world.drain.finished()).await.expect("everything ends");
    assert!(!world.drain.failed());
}
