//! The own time guard over gRPC, against a guard in this process that says what a test says.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use filesync::{
    adapters::guard_grpc::{GrpcGuard, GuardLink},
    domain::guard::{Fence, Standing},
    ports::Guard as _,
};
use jiff::SignedDuration;
use lockstep_chassis::{
    App, Channels, Drain, Health, TlsDial, TlsIdentity, TlsIncoming, pki::DevelopmentCa, watch::BoxStream,
};
use lockstep_model::{
    Identity, Reason, Role, ServerId,
    clock::{Reading, SystemEntropy, shift},
    identity::{Members, MembersUnavailable},
};
use lockstep_proto::{
    shared::v1::Failure,
    timeguard::v1::{
        self as wire, ClockReading, ClockReport, WatchClockReportsRequest, WatchClockReportsResponse,
        clock_service_server::{ClockService, ClockServiceServer},
    },
};
use tokio::{
    sync::{RwLock, mpsc, watch},
    time::{Instant, sleep},
};
use tonic::{Request, Response};

const DOMAIN: &str = "lockstep.test";
/// Nothing here takes longer, unless it hangs.
const SOON: Duration = Duration::from_secs(10);

/// From the last word of a guard to somebody who asks it again.
const SILENCE_NOTICED_MAX: Duration = Duration::from_secs(60);

/// The wall clock of this process: one test sets it, and nobody else wants that.
static CLOCK: RwLock<()> = RwLock::const_new(());

/// Certificates of one server, issued by the clock of the moment.
struct Pki {
    directory: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = DevelopmentCa::open_or_create(&directory.path().join("ca"), DOMAIN).expect("a CA");
        let pki = Self { directory };
        for service in ["filesync", "timeguard"] {
            let [cert, key, authority] = pki.files(service);
            let identity = Identity::Server { server_id: server(), service };
            let issued = ca.issue(&identity, &["localhost".to_owned()]).expect("issued");
            issued.write(&cert, &key).expect("written");
            std::fs::write(authority, ca.cert_pem()).expect("written");
        }
        pki
    }

    fn files(&self, service: &str) -> [PathBuf; 3] {
        ["cert", "key", "ca"].map(|file| self.directory.path().join(format!("{service}.{file}")))
    }

    fn tls(&self, service: &str) -> TlsIdentity {
        let [cert, key, ca] = self.files(service);
        TlsIdentity::load(&cert, &key, &ca, DOMAIN).expect("usable files")
    }
}

fn server() -> ServerId {
    "s1".parse().expect("an id")
}

/// Nobody but servers.
#[derive(Clone)]
struct Nobody;

impl Members for Nobody {
    async fn role(&self, _: &str) -> Result<Option<Role>, MembersUnavailable> {
        Ok(None)
    }

    async fn knows(&self, _: &ServerId) -> Result<bool, MembersUnavailable> {
        Ok(true)
    }
}

/// A guard that says what it is told to, to one watch at a time.
#[derive(Clone)]
struct Saying {
    drain: Drain,
    report: watch::Sender<Option<ClockReport>>,
    opened: Arc<AtomicUsize>,
    started: Arc<Mutex<Option<ClockReading>>>,
}

#[tonic::async_trait]
impl ClockService for Saying {
    type WatchClockReportsStream = BoxStream<WatchClockReportsResponse>;

    async fn watch_clock_reports(
        &self,
        request: Request<WatchClockReportsRequest>,
    ) -> tonic::Result<Response<Self::WatchClockReportsStream>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        *self.started.lock().expect("no panic") = request.into_inner().started;
        let (items, receiver) = mpsc::channel(4);
        let mut reports = self.report.subscribe();
        let drain = self.drain.clone();
        self.drain.spawn("say", async move {
            loop {
                let report = reports.borrow_and_update().clone();
                let message = WatchClockReportsResponse { report, caught_up: true, ..Default::default() };
                let is_over = message.report.as_ref().is_some_and(|report| report.server_id == "over");
                if is_over || items.send(Ok(message)).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = drain.started() => return,
                    changed = reports.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(Response::new(lockstep_chassis::watch::stream(&self.drain, receiver)))
    }

    async fn sample_clock(
        &self,
        _: Request<wire::SampleClockRequest>,
    ) -> tonic::Result<Response<wire::SampleClockResponse>> {
        Ok(Response::new(Default::default()))
    }

    async fn get_clock_report(
        &self,
        _: Request<wire::GetClockReportRequest>,
    ) -> tonic::Result<Response<wire::GetClockReportResponse>> {
        Ok(Response::new(Default::default()))
    }

    async fn start_clock_override(
        &self,
        _: Request<wire::StartClockOverrideRequest>,
    ) -> tonic::Result<Response<wire::StartClockOverrideResponse>> {
        Ok(Response::new(Default::default()))
    }

    async fn cancel_clock_override(
        &self,
        _: Request<wire::CancelClockOverrideRequest>,
    ) -> tonic::Result<Response<wire::CancelClockOverrideResponse>> {
        Ok(Response::new(Default::default()))
    }
}

/// A guard and who listens to it.
struct Pair {
    guard: GrpcGuard,
    saying: Saying,
    health: Health,
    is_current: Arc<AtomicBool>,
    /// The end of the guard.
    drain: Drain,
    /// The end of who listens.
    listening: Drain,
}

impl Pair {
    async fn new(pki: &Pki, first: Option<ClockReport>) -> Self {
        let drain = Drain::new();
        let saying = Saying {
            drain: drain.clone(),
            report: watch::Sender::new(first),
            opened: Arc::default(),
            started: Arc::default(),
        };
        let incoming =
            TlsIncoming::bind("localhost:0", pki.tls("timeguard"), &drain).await.expect("a free port");
        let uri = format!("https://localhost:{}", incoming.address().port());
        let app = App::new("timeguard", Nobody, Health::new(&[])).own_server(server());
        let app = app.add(ClockServiceServer::new(saying.clone()));
        drain.spawn("app", {
            let drain = drain.clone();
            async move { app.serve(incoming, &drain).await.expect("every call has a right") }
        });
        let (listening, health) = (Drain::new(), Health::new(&[]));
        let is_current = Arc::new(AtomicBool::new(true));
        let link = GuardLink {
            server: server(),
            uri,
            channels: Channels::new(TlsDial::new(pki.tls("filesync"))),
            started: Reading { wall_ns: -1_500_000_000, since: Duration::from_millis(2_500) },
            is_current: {
                let is_current = Arc::clone(&is_current);
                Arc::new(move || is_current.load(Ordering::SeqCst))
            },
            entropy: SystemEntropy,
        };
        let guard = GrpcGuard::start(link, &listening, &health);
        Self { guard, saying, health, is_current, drain, listening }
    }

    fn says(&self, report: ClockReport) {
        self.saying.report.send_replace(Some(report));
    }

    /// Waits until the standing is as wanted, by what the port says of changes.
    async fn until(&self, what: &str, is_so: impl Fn(&Standing) -> bool) -> Standing {
        let wait = async {
            loop {
                let changed = self.guard.changed();
                let standing = self.guard.standing();
                if is_so(&standing) {
                    return standing;
                }
                changed.await;
            }
        };
        let Ok(standing) = tokio::time::timeout(SOON, wait).await else {
            panic!("not within {SOON:?}: {what}; it is {:?}", self.guard.standing());
        };
        standing
    }

    async fn ends(self) {
        for drain in [self.listening, self.drain] {
            drain.begin();
            tokio::time::timeout(SOON, drain.finished()).await.expect("it ends");
            assert!(!drain.failed(), "a task panicked");
        }
    }
}

fn report(state: wire::fence::State) -> ClockReport {
    let fence = wire::Fence { state: state.into(), ..Default::default() };
    ClockReport { server_id: "s1".to_owned(), fence: Some(fence), ..Default::default() }
}

fn fenced(reason: &str) -> ClockReport {
    let duration = |millis: i32| {
        Some(prost_types::Duration { seconds: (millis / 1_000).into(), nanos: millis % 1_000 * 1_000_000 })
    };
    let failure = Failure {
        reason: reason.to_owned(),
        message: "the clock of s1 is wrong".to_owned(),
        ..Default::default()
    };
    let fence = wire::Fence {
        state: wire::fence::State::Fenced.into(),
        failure: Some(failure),
        age: duration(90_000),
        clock_override: None,
    };
    ClockReport {
        offset: duration(-72_040),
        uncertainty: duration(250),
        limit: duration(60_000),
        fence: Some(fence),
        ..report(wire::fence::State::Fenced)
    }
}

fn is_open(standing: &Standing) -> bool {
    *standing == Standing::Open
}

/// R62: what the guard says is what holds, each word of it; and who asks says when it began, by both of its clocks.
#[tokio::test]
async fn what_the_guard_says_holds() {
    use wire::fence::State;
    let _clock = CLOCK.read().await;
    let pki = Pki::new();
    let pair = Pair::new(&pki, None).await;
    assert_eq!(pair.guard.standing(), Standing::Starting, "nothing was heard");
    pair.says(report(State::Open));
    pair.until("open", is_open).await;
    let started = pair.saying.started.lock().expect("no panic").take().expect("it says when it began");
    let wall_time = Some(prost_types::Timestamp { seconds: -2, nanos: 500_000_000 });
    let uptime = Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 });
    assert_eq!(started, ClockReading { wall_time, uptime });

    pair.says(fenced("CLOCK_FENCED"));
    let standing = pair.until("fenced", |standing| !is_open(standing)).await;
    let Standing::Fenced(fence) = standing else { panic!("{standing:?}") };
    assert!(fence.age >= Duration::from_secs(90) && fence.age < Duration::from_secs(100), "{fence:?}");
    let expected = Fence {
        reason: Reason::ClockFenced,
        message: "the clock of s1 is wrong".to_owned(),
        offset: Some(SignedDuration::from_millis(-72_040)),
        uncertainty: Some(Duration::from_millis(250)),
        limit: Some(Duration::from_secs(60)),
        age: fence.age,
        is_said: true,
    };
    assert_eq!(fence, expected);
    pair.says(report(State::Overruled));
    pair.until("somebody knows better", is_open).await;
    pair.says(report(State::Starting));
    pair.until("starting", |standing| *standing == Standing::Starting).await;
    pair.says(fenced("RESTART_REQUIRED"));
    let is_restart =
        |standing: &Standing| matches!(standing, Standing::Fenced(f) if f.reason == Reason::RestartRequired);
    pair.until("a restart", is_restart).await;
    pair.says(report(State::Open));
    pair.until("open again", is_open).await;
    pair.says(report(State::Unspecified));
    pair.until("what it does not say is no leave", |standing| matches!(standing, Standing::Fenced(_))).await;
    pair.ends().await;
}

/// R64: where the guard names filesync among what has to be restarted, its liveness fails, and nothing else does that.
#[tokio::test]
async fn a_restart_is_required_when_the_guard_names_filesync() {
    let _clock = CLOCK.read().await;
    let pki = Pki::new();
    let pair = Pair::new(&pki, None).await;
    pair.says(ClockReport {
        services_to_restart: vec!["timeguard".to_owned()],
        ..fenced("RESTART_REQUIRED")
    });
    pair.until("fenced", |standing| matches!(standing, Standing::Fenced(_))).await;
    let health = pair.health.clone();
    let named = health.restart_required();
    tokio::pin!(named);
    assert!(futures::poll!(named.as_mut()).is_pending(), "it is not named");
    let both = ["filesync", "timeguard"].map(ToOwned::to_owned).to_vec();
    pair.says(ClockReport { services_to_restart: both, ..fenced("RESTART_REQUIRED") });
    let why = tokio::time::timeout(SOON, named).await.expect("named");
    assert_eq!(why, "the clock of this server was set");
    pair.ends().await;
}

/// R62: a stream that ends is opened again, and what was said holds meanwhile. The own certificate tells of a wrong clock at
/// once, without any message, until it is valid again.
#[tokio::test]
async fn a_broken_stream_is_opened_again_and_changes_nothing() {
    let _clock = CLOCK.read().await;
    let pki = Pki::new();
    let pair = Pair::new(&pki, Some(report(wire::fence::State::Open))).await;
    pair.until("open", is_open).await;
    let opened = pair.saying.opened.load(Ordering::SeqCst);
    pair.says(ClockReport { server_id: "over".to_owned(), ..report(wire::fence::State::Open) });
    let end = Instant::now() + SOON;
    while pair.saying.opened.load(Ordering::SeqCst) < opened + 3 {
        assert!(Instant::now() < end, "it is not opened again");
        assert_eq!(pair.guard.standing(), Standing::Open);
        sleep(Duration::from_millis(5)).await;
    }
    pair.is_current.store(false, Ordering::SeqCst);
    let Standing::Fenced(fence) = pair.guard.standing() else { panic!("at once") };
    assert_eq!(fence.reason, Reason::ClockFenced);
    assert!(fence.message.contains("by the clock of server s1 the certificate of its filesync"), "{fence}");
    pair.is_current.store(true, Ordering::SeqCst);
    assert_eq!(pair.guard.standing(), Standing::Open);
    pair.ends().await;
}

/// R62: a guard that hangs breaks no connection. Its stream is given up when it has been silent for longer than a guard ever is,
/// and that alone fences nothing.
#[tokio::test]
async fn a_stream_that_says_nothing_is_opened_again() {
    let _clock = CLOCK.read().await;
    let pki = Pki::new();
    let pair = Pair::new(&pki, Some(report(wire::fence::State::Open))).await;
    pair.until("open", is_open).await;
    let opened = pair.saying.opened.load(Ordering::SeqCst);
    let end = Instant::now() + SILENCE_NOTICED_MAX;
    while pair.saying.opened.load(Ordering::SeqCst) == opened {
        assert!(Instant::now() < end, "it is not opened again");
        assert_eq!(pair.guard.standing(), Standing::Open);
        sleep(Duration::from_millis(50)).await;
    }
    pair.ends().await;
}

/// R62: a clock that is so wrong that no certificate is valid by it is told as that at once, without waiting for silence,
/// although nobody can be reached who would say so; and when it is right again, the guard is heard as before.
#[tokio::test]
async fn certificates_that_are_not_valid_now_fence_at_once() {
    const DAY_NS: i64 = 24 * 60 * 60 * 1_000_000_000;
    let _clock = CLOCK.write().await;
    let pki = Pki::new();
    for days in [40, -40] {
        shift::set(days * DAY_NS);
        let pair = Pair::new(&pki, Some(report(wire::fence::State::Open))).await;
        let standing = pair.until("fenced", |standing| *standing != Standing::Starting).await;
        let Standing::Fenced(fence) = standing else { panic!("{standing:?}") };
        assert_eq!(fence.reason, Reason::ClockFenced);
        let text = "by the clock of server s1 the certificate of its timeguard is not valid now, so the clock is wrong, \
                    or the certificates of this installation were not renewed";
        assert_eq!(fence.message, text);
        shift::set(0);
        pair.until("open", is_open).await;
        pair.ends().await;
    }
}
