//! Clocks that are wrong, on real servers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use lockstep_chassis::{Failure, status};
use lockstep_proto::{
    gateway::v1::{ListServersRequest, ServerSummary, server_summary::ClockState},
    timeguard::v1::{
        CancelClockOverrideRequest, ClockReport, GetClockReportRequest, StartClockOverrideRequest,
        WatchClockReportsRequest, clock_report::Verdict, fence,
    },
};
use lockstep_tests::harness::{
    Client, Clocks, Installation, Ledger, Options, SERVERS, TimeServer, addressed, content, wait,
};
use nix::sys::signal::Signal;

/// From a clock that goes wrong to the fence, whatever the machine does beside.
pub(crate) const FENCED_MAX: Duration = Duration::from_secs(15);
/// What a server needs to be restarted, measured and trusted again.
pub(crate) const WELL_MAX: Duration = Duration::from_secs(60);
/// Files of a test.
const SIZE: usize = 2_000;

/// Every alarm that a clock raises, on the server that has it and on those that lose it for a moment.
pub(crate) const ALARMS: [&str; 6] =
    ["fenced", "the clock was set", "has to be started again", "server lost", "override", "clock"];

pub(crate) fn options(clocks: &Clocks, servers: u8) -> Options {
    Options { servers, environment: clocks.environment(servers), ..Options::every("1h") }
}

/// What is known of the clock of a server, by the gateway.
pub(crate) async fn report(client: &Client, server: &str) -> Result<ClockReport, Failure> {
    let asked =
        client.clocks_at("gateway").get_clock_report(addressed(GetClockReportRequest {}, server)).await;
    let answered = asked.map_err(|status| status::read(&status))?.into_inner();
    Ok(answered.report.expect("the contract says so"))
}

/// Waits until the fence of a server is in a state, and gives the report.
pub(crate) async fn until_fence(
    client: &Client,
    server: &str,
    wanted: fence::State,
    limit: Duration,
) -> ClockReport {
    wait::until(format!("the fence of {server} is {wanted:?}"), limit, || async {
        let report = report(client, server).await.map_err(|failure| failure.to_string())?;
        let state = report.fence.as_ref().map(fence_state);
        if state == Some(wanted) { Ok(report) } else { Err(format!("{report:?}")) }
    })
    .await
}

fn fence_state(fence: &lockstep_proto::timeguard::v1::Fence) -> fence::State {
    fence.state()
}

/// Waits until a server is trusted, and its fence is open.
pub(crate) async fn until_well(client: &Client, server: &str) {
    wait::until(format!("the clock of {server} is trusted"), WELL_MAX, || async {
        let report = report(client, server).await.map_err(|failure| failure.to_string())?;
        let is_open = report.fence.as_ref().map(fence_state) == Some(fence::State::Open);
        if is_open && report.verdict() == Verdict::Trusted { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;
}

/// Tries to register a file that no other try is about, since a request that is repeated is answered as the first time.
pub(crate) async fn attempt(client: &Client, server: &str) -> Result<(), Failure> {
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    let path = format!("attempt/{}", ATTEMPTS.fetch_add(1, Ordering::Relaxed));
    let answered = Ledger::default().register(client, server, &path, content(&path, SIZE)).await;
    answered.map(drop).map_err(|status| status::read(&status))
}

async fn summary(client: &Client, server: &str) -> ServerSummary {
    let listed =
        client.matrix().list_servers(ListServersRequest::default()).await.expect("listed").into_inner();
    listed.servers.into_iter().find(|summary| summary.server_id == server).expect("a server")
}

/// How often a child was started.
fn lives(installation: &Installation, child: &str) -> usize {
    let log = installation.log_of(child);
    log.iter().filter(|line| line.contains(" listening address=")).count()
}

/// R62, R63, R64, R65, R66, I9: a clock that is set 61 s off is told at once; `lockstep up` restarts both services of that server once; then
/// it is proven wrong: the server originates nothing, and says so with figures, while it receives and serves, and nobody else is
/// delayed. Set right, it works again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_wrong_does_no_harm() {
    let clocks = Clocks::new();
    let installation = Installation::start(options(&clocks, 3)).await;
    let (client, mut ledger) = (installation.client("publisher"), Ledger::default());
    for server in SERVERS {
        until_well(&client, server).await;
        ledger
            .register(&client, server, &format!("{server}.bin"), content(server, SIZE))
            .await
            .expect("registered");
    }
    installation.in_sync(&ledger, WELL_MAX).await;

    let begun = Instant::now();
    clocks.set("s2", 61.0);
    let skewed = wait::until("s2 is fenced for its skew", FENCED_MAX, || async {
        let report = report(&client, "s2").await.map_err(|failure| failure.to_string())?;
        if report.verdict() == Verdict::Skewed { Ok(report) } else { Err(format!("{report:?}")) }
    })
    .await;
    eprintln!("61 s: proven after {:?}", begun.elapsed());
    let offset = Duration::try_from(skewed.offset.map_or_else(Default::default, |offset| {
        prost_types::Duration { seconds: -offset.seconds, nanos: -offset.nanos }
    }));
    assert!((60.0..62.0).contains(&offset.expect("s2 is ahead, so others are behind").as_secs_f64()));
    until_fence(&client, "s2", fence::State::Fenced, FENCED_MAX).await;
    wait::until("both services of s2 were restarted", WELL_MAX, || async {
        let report = report(&client, "s2").await.map_err(|failure| failure.to_string())?;
        if report.services_to_restart.is_empty() { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;

    let failure = wait::until("s2 refuses for its clock", WELL_MAX, || async {
        let Err(failure) = attempt(&client, "s2").await else { return Err("it registers".to_owned()) };
        if failure.reason.as_str() == "CLOCK_FENCED" { Ok(failure) } else { Err(format!("{failure:?}")) }
    })
    .await;
    assert!(
        failure.message.contains("s2")
            && (failure.message.contains("+61.") || failure.message.contains("+60.9")),
        "{failure:?}"
    );
    assert!(failure.advice.contains("lockstep clock"), "{failure:?}");
    let shown: f64 = failure.metadata["offset_seconds"].parse().expect("a number");
    assert!((60.0..62.0).contains(&shown.abs()), "{failure:?}");
    // Everybody else works, and the fenced server receives what they register.
    for server in ["s1", "s3"] {
        ledger
            .register(&client, server, &format!("after/{server}"), content(server, SIZE))
            .await
            .expect("registered");
    }
    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    ledger.check_disks(&installation);
    wait::until("the status says it", WELL_MAX, || async {
        let summary = summary(&client, "s2").await;
        let reason = summary.fence.as_ref().map(|failure| failure.reason.clone());
        let is_told =
            summary.clock_state() == ClockState::Skewed && reason.as_deref() == Some("CLOCK_FENCED");
        if is_told { Ok(()) } else { Err(format!("{summary:?}")) }
    })
    .await;
    for child in ["s2.filesync", "s2.timeguard"] {
        assert_eq!(lives(&installation, child), 2, "{child} is restarted once, and not again and again");
    }

    clocks.set("s2", 0.0);
    until_well(&client, "s2").await;
    wait::until("s2 originates again", WELL_MAX, || async { attempt(&client, "s2").await }).await;
    let mut ledger = Ledger::listed(&installation).await;
    installation.in_sync(&ledger, WELL_MAX).await;
    for child in ["s2.filesync", "s2.timeguard"] {
        assert_eq!(lives(&installation, child), 3, "{child}: that was the second step");
    }
    for server in ["s1", "s3"] {
        assert_eq!(lives(&installation, &format!("{server}.timeguard")), 1, "{server} is not concerned");
    }
    ledger.delete(&client, "s2", "s2.bin").await.expect("deleted");
    installation.in_sync(&ledger, WELL_MAX).await;
    let fences =
        |words: &str| installation.log_of("s2.timeguard").iter().filter(|line| line.contains(words)).count();
    assert!(fences("fenced: this server originates nothing") >= 2 && fences("the fence is lifted") >= 1);
    installation.assert_no_alarms(&ALARMS);
}

/// R64: whoever watches hears of a step within the time that a person takes to notice, and before anything is restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_heard_by_whoever_watches() {
    let clocks = Clocks::new();
    let installation = Installation::start(options(&clocks, 1)).await;
    let client = installation.client("viewer");
    let opened =
        client.clocks_at("s1.timeguard").watch_clock_reports(WatchClockReportsRequest::default()).await;
    let mut stream = opened.expect("watched").into_inner();
    let first = stream.message().await.expect("alive").and_then(|message| message.report).expect("complete");
    assert_eq!(
        (first.verdict(), first.fence.map(|fence| fence.state())),
        (Verdict::Unconfirmed, Some(fence::State::Open))
    );
    let begun = Instant::now();
    clocks.set("s1", -3_600.0);
    let told = loop {
        let message = stream.message().await.expect("it is told before the process ends").expect("a message");
        let fence = message.report.and_then(|report| report.fence).expect("complete");
        if fence.state() == fence::State::Fenced {
            break fence.failure.expect("why");
        }
        assert!(begun.elapsed() < FENCED_MAX, "{fence:?}");
    };
    eprintln!("a step was told after {:?}", begun.elapsed());
    assert_eq!(told.reason, "RESTART_REQUIRED");
    assert!(told.message.contains("-3600.0") || told.message.contains("-3599.9"), "{told:?}");
    wait::until("s1 works again", WELL_MAX, || async {
        let report = report(&client, "s1").await.map_err(|failure| failure.to_string())?;
        let is_open = report.fence.as_ref().map(fence_state) == Some(fence::State::Open);
        // Nobody can say whether its clock is right now: it is the only server.
        if is_open && report.services_to_restart.is_empty() { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;
    let mut ledger = Ledger::default();
    let client = installation.client("publisher");
    ledger.register(&client, "s1", "alone.bin", content("alone", SIZE)).await.expect("registered");
    installation.assert_no_alarms(&ALARMS);
}

/// R62: of two servers that disagree nobody knows who is right: both stop originating, both serve, and say so; an admin who knows
/// lets one go on, is named in the log, and can end it; a viewer cannot. A time server decides it for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_disagree_both_stop() {
    let (clocks, time_server) = (Clocks::new(), TimeServer::bind().await);
    let mut installation = Installation::start(options(&clocks, 2)).await;
    let (client, admin) = (installation.client("publisher"), installation.client("local"));
    let mut ledger = Ledger::default();
    for server in ["s1", "s2"] {
        until_well(&client, server).await;
    }
    ledger.register(&client, "s1", "first.bin", content("first", SIZE)).await.expect("registered");
    installation.in_sync(&ledger, WELL_MAX).await;
    clocks.set("s2", 90.0);
    for server in ["s1", "s2"] {
        let failure = wait::until(format!("{server} stops"), WELL_MAX, || async {
            let Err(failure) = attempt(&client, server).await else { return Err("it registers".to_owned()) };
            let is_meant =
                failure.reason.as_str() == "CLOCK_FENCED" && failure.message.contains("nobody can say");
            if is_meant { Ok(failure) } else { Err(format!("{failure:?}")) }
        })
        .await;
        assert!(failure.message.contains("90") || failure.message.contains("89."), "{failure:?}");
    }
    let ledger = Ledger::listed(&installation).await;
    installation.in_sync(&ledger, WELL_MAX).await;
    ledger.check_disks(&installation);

    let request = StartClockOverrideRequest {
        justification: "s2 was set by hand".to_owned(),
        request_id: "o1".to_owned(),
    };
    let denied = client.clocks_at("gateway").start_clock_override(addressed(request.clone(), "s1")).await;
    assert_eq!(status::read(&denied.expect_err("no admin")).reason.as_str(), "PERMISSION_DENIED");
    let started = admin.clocks_at("gateway").start_clock_override(addressed(request, "s1")).await;
    let fence =
        started.expect("an admin").into_inner().report.and_then(|report| report.fence).expect("complete");
    assert_eq!(fence.state(), fence::State::Overruled);
    let by = fence.clock_override.expect("who");
    assert_eq!((by.principal.as_str(), by.justification.as_str()), ("operator/local", "s2 was set by hand"));
    wait::until("s1 originates", WELL_MAX, || async { attempt(&client, "s1").await }).await;
    let audited = installation.log_of("s1.timeguard");
    assert!(
        audited.iter().any(|line| line.contains("operator/local") && line.contains("s2 was set by hand"))
    );
    let cancel = CancelClockOverrideRequest { request_id: "o2".to_owned() };
    admin.clocks_at("gateway").cancel_clock_override(addressed(cancel, "s1")).await.expect("an admin");
    until_fence(&client, "s1", fence::State::Fenced, FENCED_MAX).await;

    // With a third witness it is clear who is wrong.
    installation.stop(Signal::SIGTERM).await;
    let address = time_server.address.to_string();
    let told = |server| (format!("{server}.timeguard"), "TIMEGUARD_NTP".to_owned(), address.clone());
    installation.options().environment.extend(["s1", "s2"].map(told));
    let decided = async {
        installation.start_again().await;
        until_well(&installation.client("publisher"), "s1").await;
        let report =
            until_fence(&installation.client("publisher"), "s2", fence::State::Fenced, WELL_MAX).await;
        assert_eq!(report.verdict(), Verdict::Skewed, "{report:?}");
    };
    tokio::select! {
        () = decided => {}
        () = time_server.serve(0) => {}
    }
    installation.assert_no_alarms(&ALARMS);
}
