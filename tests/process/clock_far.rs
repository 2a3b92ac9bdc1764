//! Clocks that are wrong by years, that were set while nobody looked, and guards that are away.

use std::time::Duration;

use lockstep_proto::timeguard::v1::fence;
use lockstep_tests::harness::{Clocks, Installation, Ledger, Options, content, wait};
use nix::sys::signal::Signal;

use crate::clock::{ALARMS, FENCED_MAX, WELL_MAX, attempt, options, report, until_fence, until_well};

const SIZE: usize = 2_000;
/// Seconds from this test to 1970 and to 2106, within some years.
const FAR: [f64; 3] = [-1_780_000_000.0, 365.0 * 86_400.0, 2_514_000_000.0];

/// R62, R64: a clock that is years off makes every certificate invalid: whoever is asked says that it is the clock, the others are
/// not delayed, and put right the server works again without anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_years_off_is_told_as_such() {
    let clocks = Clocks::new();
    let installation = Installation::start(options(&clocks, 3)).await;
    let (client, mut ledger) = (installation.client("publisher"), Ledger::default());
    for server in ["s1", "s2", "s3"] {
        until_well(&client, server).await;
    }
    for (round, far) in FAR.into_iter().enumerate() {
        clocks.set("s3", far);
        wait::until("s3 is refused, and the clock is named", WELL_MAX, || async {
            let Err(failure) = attempt(&client, "s3").await else { return Err("it registers".to_owned()) };
            let is_told = failure.message.contains("clock") || failure.message.contains("certificate");
            if is_told { Ok(()) } else { Err(format!("{failure:?}")) }
        })
        .await;
        wait::until("s3 says in its log that it is the clock", WELL_MAX, || async {
            let log = installation.log_of("s3.filesync");
            let is_told =
                log.iter().any(|line| line.contains("by the clock of") && line.contains("certificate"));
            if is_told { Ok(()) } else { Err(log.last().cloned().unwrap_or_default()) }
        })
        .await;
        ledger = Ledger::listed(&installation).await;
        let path = format!("round/{round}");
        ledger.register(&client, "s1", &path, content(&path, SIZE)).await.expect("registered");
        clocks.set("s3", 0.0);
        until_well(&client, "s3").await;
        installation.in_sync(&ledger, WELL_MAX).await;
        wait::until("s3 originates again", WELL_MAX, || attempt(&client, "s3")).await;
        ledger = Ledger::listed(&installation).await;
        installation.in_sync(&ledger, WELL_MAX).await;
    }
    ledger.check_disks(&installation);
}

/// R64: a clock that is set while its guard is away is noticed when it comes back, and the service that ran all the time is
/// restarted; one that is set while the whole server is away asks for nothing, since everything was started after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_while_nobody_looks_is_noticed() {
    let clocks = Clocks::new();
    let mut installation = Installation::start(options(&clocks, 2)).await;
    let client = installation.client("publisher");
    until_well(&client, "s2").await;
    let filesync = installation.process("s2.filesync").await;
    installation.take_down("s2.timeguard").await;
    clocks.set("s2", 30.0);
    installation.bring_up("s2.timeguard", &[]).await;
    installation.reborn("s2.filesync", filesync).await;
    until_well(&client, "s2").await;
    let report_after = report(&client, "s2").await.expect("a report");
    assert!(report_after.services_to_restart.is_empty(), "{report_after:?}");

    installation.stop(Signal::SIGTERM).await;
    clocks.set("s2", -20.0);
    installation.start_again().await;
    let client = installation.client("publisher");
    until_well(&client, "s2").await;
    let log = installation.log_of("s2.timeguard");
    assert!(log.iter().any(|line| line.contains("the clock was set while nobody looked")), "{log:#?}");
    assert!(report(&client, "s2").await.expect("a report").services_to_restart.is_empty());
    installation.assert_no_alarms(&ALARMS);
}

/// R62: without a guard for half a minute a server originates nothing, and says why; it receives all the same. With the guard
/// back it works again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_guard_originates_nothing() {
    let clocks = Clocks::new();
    let installation = Installation::start(options(&clocks, 2)).await;
    let (client, mut ledger) = (installation.client("publisher"), Ledger::default());
    until_well(&client, "s1").await;
    until_well(&client, "s2").await;
    // The filesync of s2 has heard from its guard as well.
    attempt(&client, "s2").await.expect("registered");
    installation.take_down("s2.timeguard").await;
    ledger.register(&client, "s2", "at-once.bin", content("at-once", SIZE)).await.expect("not yet refused");
    let failure = wait::until("s2 stops", Duration::from_secs(60), || async {
        attempt(&client, "s2").await.err().ok_or("it registers")
    })
    .await;
    assert_eq!(failure.reason.as_str(), "CLOCK_FENCED");
    assert!(failure.message.contains("guard") && failure.message.contains("s2"), "{failure:?}");
    let mut ledger = Ledger::listed(&installation).await;
    ledger.register(&client, "s1", "from-s1.bin", content("from", SIZE)).await.expect("registered");
    installation.in_sync(&ledger, WELL_MAX).await;
    installation.bring_up("s2.timeguard", &[]).await;
    until_well(&client, "s2").await;
    wait::until("s2 originates again", WELL_MAX, || async { attempt(&client, "s2").await }).await;
    installation.assert_no_alarms(&ALARMS);
}

/// R64: the boot clock counts what the wall clock does not: in a time namespace whose boot clock is an hour ahead, as after the
/// restore of a snapshot, the wall clock has gone back an hour while nobody looked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_clock_of_its_own_is_read() {
    let clocks = Clocks::new();
    let options = Options { servers: 1, ..options(&clocks, 1) };
    let mut installation = Installation::start(options).await;
    until_fence(&installation.client("viewer"), "s1", fence::State::Open, FENCED_MAX).await;
    installation.stop(Signal::SIGTERM).await;
    installation.options().boot_clock_ahead = 3_600;
    installation.start_again().await;
    let log = installation.log_of("s1.timeguard");
    let told = log
        .iter()
        .find_map(|line| line.split_once("the clock was set while nobody looked by=")?.1.split_once(' '));
    let seconds: f64 =
        told.and_then(|(seconds, _)| seconds.parse().ok()).unwrap_or_else(|| panic!("{log:#?}"));
    assert!((seconds + 3_600.0).abs() < 1.0, "{seconds} s");
    let mut ledger = Ledger::default();
    let client = installation.client("publisher");
    ledger.register(&client, "s1", "a.bin", content("a", SIZE)).await.expect("everything began after it");
    installation.assert_no_alarms(&ALARMS);
}
