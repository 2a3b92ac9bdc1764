//! A server that was away.

use std::time::Duration;

use lockstep_tests::harness::{Installation, Ledger, Monitor, Options, content};

/// R22, R32, R33, I1, I3, I6, I10: 100 files are registered and 50 deleted while a server is down; after its start it is in
/// sync without waiting for its cycle, and nothing deleted came back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_away_catches_up() {
    let installation = Installation::start(Options::every("1h")).await;
    let client = installation.client("publisher");
    let monitor =
        Monitor::start(&installation, |path| Some(blake3::hash(&content(path, 2_000)).to_hex().to_string()));
    let mut ledger = Ledger::default();
    let path = |number: usize| format!("away/{}/{number:03}.bin", number % 7);
    for number in 0..40 {
        ledger
            .register(&client, "s1", &path(number), content(&path(number), 2_000))
            .await
            .expect("registered");
    }
    installation.in_sync(&ledger, Duration::from_secs(30)).await;

    installation.take_down("s3.filesync").await;
    // 40 of the deleted files are on the disk of the server that is away, 10 it never had.
    for number in 40..140 {
        let server = if number % 2 == 0 { "s1" } else { "s2" };
        ledger
            .register(&client, server, &path(number), content(&path(number), 2_000))
            .await
            .expect("registered");
    }
    for number in 0..50 {
        monitor.going(&path(number));
        ledger.delete(&client, "s2", &path(number)).await.expect("deleted");
    }
    installation.bring_up("s3.filesync", &[]).await;
    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    ledger.check_disks(&installation);
    assert!(monitor.end() > 140);
    installation.assert_no_alarms(&["server lost server_id=s3"]);
}
