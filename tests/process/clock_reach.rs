//! What a fence reaches beside its server, and what people and supervisors are told.

use std::process::{Child, Command, Stdio};

use lockstep_proto::timeguard::v1::{clock_report::Verdict, fence};
use lockstep_tests::harness::{
    Clocks, Installation, Ledger, Options, Vendor, binary, content,
    vendor::{feed, offer},
    wait,
};
use serde_json::Value;
use tokio::{net::UnixDatagram, time::timeout};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    clock::{ALARMS, WELL_MAX, attempt, options, report, until_fence, until_well},
    environment::arguments,
};

const SIZE: usize = 2_000;

/// Runs a command that may fail: whether it succeeded, and all that it said.
async fn said(installation: &Installation, args: &[&str]) -> (bool, String) {
    let mut command = installation.command(args);
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Where a device of s2 is sent for a file.
async fn sent_to(installation: &Installation, path: &str) -> String {
    let args = ["resolve", path, "--server", "s2", "--device", "d", "--output", "json"];
    let (is_done, text) = said(installation, &args).await;
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    assert!(is_done, "{text}");
    document["connection"]["server_id"].as_str().unwrap_or_default().to_owned()
}

/// R49, R62, I9: devices are sent elsewhere although their server holds everything, no download into it starts, status and `lockstep
/// clock` say why with figures for every pair, and an admin lets it go on from the command line and ends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_reaches_everybody() {
    let (clocks, vendor) = (Clocks::new(), Vendor::start().await);
    let os = offer("os", "UD3", "2", &[("os.bin", &vendor.uri("plain/os.bin"), &[7; 10_000])]);
    vendor.put("os.bin", &[7; 10_000]);
    vendor.put("feed.json", &feed(&[os]));
    let sources = vendor.sources_file(&[("acme", "plain/feed.json")]);
    let args = vec![format!("--sources={}", sources.display())];
    let installation = Installation::start(Options { args, ..options(&clocks, 3) }).await;
    let (client, mut ledger) = (installation.client("publisher"), Ledger::default());
    ledger.register(&client, "s1", "file.bin", content("file", SIZE)).await.expect("registered");
    installation.in_sync(&ledger, WELL_MAX).await;
    for server in ["s1", "s2", "s3"] {
        until_well(&client, server).await;
    }
    wait::until("each of three agrees with each of the others", WELL_MAX, || async {
        let (_, text) = said(&installation, &["clock"]).await;
        if text.matches("AGREES").count() == 6 { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(sent_to(&installation, "file.bin").await, "s2", "its own server has it");
    clocks.set("s2", -7_200.0);
    wait::until("s2 was restarted and is skewed", WELL_MAX, || async {
        let report = report(&client, "s2").await.map_err(|failure| failure.to_string())?;
        let is_so = report.verdict() == Verdict::Skewed && report.services_to_restart.is_empty();
        if is_so { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;
    wait::until("devices of s2 are sent elsewhere", WELL_MAX, || async {
        let server = sent_to(&installation, "file.bin").await;
        if server == "s1" || server == "s3" { Ok(()) } else { Err(server) }
    })
    .await;
    wait::until("nothing starts into s2", WELL_MAX, || async {
        let args = ["firmware", "download", "os", "--source", "acme", "--server", "s2", "--target", "fw"];
        let (is_done, text) = said(&installation, &args).await;
        assert!(!is_done, "{text}");
        if text.contains("CLOCK_FENCED") { Ok(()) } else { Err(text) }
    })
    .await;
    assert!(!installation.run(&["firmware", "ls"]).await.contains("UD3"), "nothing was recorded");

    wait::until("the status tells the fence once", WELL_MAX, || async {
        let (_, text) = said(&installation, &["status"]).await;
        let is_told = text.contains("SKEWED")
            && text.matches("CLOCK_FENCED").count() == 1
            && text.contains("in sync everywhere");
        if is_told { Ok(()) } else { Err(text) }
    })
    .await;
    let (is_done, text) = said(&installation, &["clock"]).await;
    eprintln!("{text}");
    assert!(is_done && text.contains("SKEWED") && text.contains("FENCED"), "{text}");
    let of_s2 = text.lines().filter(|line| line.starts_with(" s2 ") && line.contains("CONTRADICTS")).count();
    assert_eq!(of_s2, 2, "{text}");

    let justified = ["clock", "override", "--server", "s2", "--justification", "known"];
    let (is_done, text) = said(&installation, &justified).await;
    assert!(is_done && text.contains("operator/local"), "{text}");
    wait::until("s2 originates all the same", WELL_MAX, || attempt(&client, "s2")).await;
    let (is_done, text) = said(&installation, &["clock", "override", "--server", "s2", "--cancel"]).await;
    assert!(is_done, "{text}");
    until_fence(&client, "s2", fence::State::Fenced, WELL_MAX).await;
    let (is_done, text) = said(&installation, &["clock", "--server", "s9"]).await;
    assert!(!is_done && text.contains("SERVER_UNKNOWN"), "{text}");
    installation.assert_no_alarms(&ALARMS);
}

/// A timeguard that no supervisor keeps. It ends with the test.
struct Alone(Child);

impl Drop for Alone {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a message to the supervisor.
async fn until_told(socket: &UnixDatagram, wanted: &str) {
    let mut message = [0; 256];
    let told = timeout(WELL_MAX, async {
        loop {
            let length = socket.recv(&mut message).await.expect("a message");
            if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == wanted) {
                return;
            }
        }
    });
    told.await.unwrap_or_else(|_| panic!("nobody said {wanted}"));
}

async fn health(installation: &Installation, name: &str) -> ServingStatus {
    let channel = installation.client("local").channel("s1.timeguard");
    let asked = HealthClient::new(channel).check(HealthCheckRequest { service: name.to_owned() }).await;
    asked.expect("an answer").into_inner().status()
}

/// R64: systemd is told that a service is ready, that it turns, and that it has to be started again; Kubernetes finds its liveness
/// failing and its readiness not. A service that nobody keeps goes on, fenced, until a person restarts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisors_are_told_of_a_restart() {
    let clocks = Clocks::new();
    let installation = Installation::start(options(&clocks, 1)).await;
    let arguments = arguments(&installation, "s1.timeguard").await;
    installation.take_down("s1.timeguard").await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    let clock =
        clocks.environment(1).into_iter().find(|(_, name, _)| name == "LOCKSTEP_CLOCK").expect("told").2;
    let child = Command::new(binary())
        .args(&arguments[1..])
        .env("LOCKSTEP_CLOCK", clock)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut alone = Alone(child.expect("started"));
    until_told(&socket, "READY=1").await;
    until_told(&socket, "WATCHDOG=1").await;
    let client = installation.client("viewer");
    until_fence(&client, "s1", fence::State::Open, WELL_MAX).await;
    assert_eq!(health(&installation, "liveness").await, ServingStatus::Serving);

    clocks.set("s1", 30.0);
    until_told(&socket, "WATCHDOG=trigger").await;
    assert_eq!(health(&installation, "liveness").await, ServingStatus::NotServing);
    assert_eq!(health(&installation, "").await, ServingStatus::Serving);
    let stuck = until_fence(&client, "s1", fence::State::Fenced, WELL_MAX).await;
    assert_eq!(
        stuck.fence.and_then(|fence| fence.failure).map(|why| why.reason).as_deref(),
        Some("RESTART_REQUIRED")
    );
    assert_eq!(alone.0.try_wait().expect("a child"), None, "nobody would start it again");
    let mut message = [0; 256];
    while let Ok(length) = socket.try_recv(&mut message) {
        let text = String::from_utf8_lossy(&message[..length]);
        assert!(!text.contains("STOPPING"), "it goes on, and does not say that it stops: {text}");
    }
    drop(alone);
    installation.bring_up("s1.timeguard", &[]).await;
    until_fence(&client, "s1", fence::State::Open, WELL_MAX).await;
    let publisher = installation.client("publisher");
    wait::until("s1 works again", WELL_MAX, || attempt(&publisher, "s1")).await;
    installation.assert_no_alarms(&ALARMS);
}
