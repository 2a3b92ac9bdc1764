//! A server that was away.

use std::time::Duration;

use lockstep_proto::filesync::v1::MoveFileRequest;
use lockstep_tests::harness::{Hold, Installation, Ledger, Monitor, Options, addressed, content, wait};
use nix::sys::signal::Signal;

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

/// I3, R32, R38: a server that dies between renaming a copy and writing that down, and finds after its start that the file was
/// deleted meanwhile, removes the copy from where it is by now; it is no loose file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_moved_just_before_a_crash_goes_with_its_file() {
    let installation = Installation::start(Options::every("1h")).await;
    let (client, mut ledger) = (installation.client("publisher"), Ledger::default());
    let file = ledger.register(&client, "s1", "old", content("old", 2_000)).await.expect("registered");
    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    let hold = Hold::new(&installation, "move", "filesync.move.renamed");
    installation.restart("s2.filesync", &hold.variables()).await;
    let process = installation.process("s2.filesync").await;
    let request = MoveFileRequest {
        path: "old".to_owned(),
        new_path: "new".to_owned(),
        expected_revision: file.revision,
        request_id: "move".to_owned(),
    };
    let moved = client.files().move_file(addressed(request, "s1")).await.expect("moved").into_inner();
    hold.reached().await;
    assert!(installation.transfer("s2").join("new").exists());
    ledger.note_deleted("old");
    ledger.note(&moved.file.expect("the contract says so"));
    ledger.delete(&client, "s1", "new").await.expect("deleted");
    installation.signal("s2.filesync", Signal::SIGKILL).await;
    installation.reborn("s2.filesync", process).await;
    let index = installation.state("s2").join("index.sqlite");
    wait::until("the copy is gone, and s2 has written that down", Duration::from_secs(60), || async {
        let index = rusqlite::Connection::open(&index).map_err(|error| error.to_string())?;
        let left = "SELECT (SELECT count(*) FROM held) + (SELECT count(*) FROM intents)";
        match index.query_row(left, [], |row| row.get::<_, i64>(0)) {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    ledger.check_disks(&installation);
    ledger.check_indexes(&installation);
}
