//! Frozen servers and several gateways: whoever hangs is told and waited for by nobody, and goes on when it wakes.

use std::{fs, time::Duration};

use lockstep_proto::gateway::v1::{
    Cell, GetSyncRunRequest, ListRowsRequest, ListServersRequest, StartSyncRunRequest, SyncRun, cell,
    server_summary, sync_run,
};
use lockstep_tests::harness::{Client, Gateway, Hold, Installation, Ledger, Options, content, wait};
use nix::sys::signal::Signal;

/// Within this a server that vanished is told, and one that is back.
const NOTICED_MAX: Duration = Duration::from_secs(10);
/// Within this a copy that stands still goes on from another holder.
const MOVED_MAX: Duration = Duration::from_secs(30);
/// The longest wait for the work itself, on a machine that does other things too.
const WORK_MAX: Duration = Duration::from_secs(120);

async fn cell_of(client: &Client, path: &str, server: &str) -> Cell {
    let (path, server_ids) = (path.to_owned(), vec![server.to_owned()]);
    let request = ListRowsRequest { path, server_ids, ..ListRowsRequest::default() };
    let rows = client.matrix().list_rows(request).await.map(|answer| answer.into_inner().rows);
    rows.ok().and_then(|mut rows| rows.pop()?.cells.pop()).unwrap_or_default()
}

async fn until_server_is(client: &Client, server: &str, wanted: server_summary::State, limit: Duration) {
    wait::until(format!("{server} is {wanted:?}"), limit, || async {
        let answer = client.matrix().list_servers(ListServersRequest::default()).await;
        let servers = answer.map_err(|status| status.to_string())?.into_inner().servers;
        let state = servers.iter().find(|known| known.server_id == server).map(|known| known.state());
        if state == Some(wanted) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
}

async fn until_cell_is(client: &Client, path: &str, server: &str, wanted: cell::State, limit: Duration) {
    wait::until(format!("{path} on {server} is {wanted:?}"), limit, || async {
        let cell = cell_of(client, path, server).await;
        if cell.state() == wanted { Ok(()) } else { Err(format!("{cell:?}")) }
    })
    .await;
}

async fn start_run(client: &Client, id: &str) -> SyncRun {
    let request = StartSyncRunRequest { request_id: id.to_owned(), ..StartSyncRunRequest::default() };
    client.runs().start_sync_run(request).await.expect("started").into_inner().run.expect("a run")
}

async fn until_run_is(client: &Client, run_id: &str, wanted: sync_run::State) -> SyncRun {
    wait::until(format!("the run is {wanted:?}"), WORK_MAX, || async {
        let request = GetSyncRunRequest { run_id: run_id.to_owned() };
        let answer = client.runs().get_sync_run(request).await.map_err(|status| status.to_string())?;
        let run = answer.into_inner().run.expect("the contract says so");
        if run.state() == wanted { Ok(run) } else { Err(format!("{run:?}")) }
    })
    .await
}

/// R23, R28, R43, R44: with one of three servers frozen the other two are served as if it were not there; it is told as
/// unreachable within ten seconds, with what was known of it, and a run says that it keeps it; within ten seconds after it
/// wakes it is back, and catches up, and the run is complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_delays_nobody() {
    let installation = Installation::start(Options::every("1h")).await;
    let (publisher, operator) = (installation.client("publisher"), installation.client("operator"));
    let mut ledger = Ledger::default();
    ledger.register(&publisher, "s1", "before.bin", content("before.bin", 999)).await.expect("registered");
    installation.in_sync(&ledger, WORK_MAX).await;

    installation.pause("s3.filesync").await;
    let told = until_server_is(&operator, "s3", server_summary::State::Unreachable, NOTICED_MAX);
    let worked = async {
        for number in 0..20 {
            let (server, path) = (["s1", "s2"][number % 2], format!("frozen/{number}.bin"));
            ledger.register(&publisher, server, &path, content(&path, 4_096)).await.expect("registered");
        }
        wait::until("s1 and s2 have all of them", NOTICED_MAX, || async {
            let count = |server| {
                fs::read_dir(installation.transfer(server).join("frozen")).map_or(0, Iterator::count)
            };
            let counts = (count("s1"), count("s2"));
            if counts == (20, 20) { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    };
    tokio::join!(told, worked);
    for number in 0..20 {
        let path = format!("frozen/{number}.bin");
        for server in ["s1", "s2"] {
            until_cell_is(&operator, &path, server, cell::State::InSync, NOTICED_MAX).await;
        }
    }
    let frozen = cell_of(&operator, "before.bin", "s3").await;
    assert_eq!((frozen.state(), frozen.last_known_state()), (cell::State::Unreachable, cell::State::InSync));
    assert!(frozen.age.is_some());
    let later = cell_of(&operator, "frozen/0.bin", "s3").await;
    assert_eq!((later.state(), later.last_known_state()), (cell::State::Unreachable, cell::State::Pending));
    let run = start_run(&operator, "frozen").await;
    let waiting = until_run_is(&operator, &run.run_id, sync_run::State::Waiting).await;
    let told: Vec<_> = waiting
        .obstacles
        .iter()
        .map(|o| (o.server_id.as_str(), o.failure.as_ref().map(|failure| failure.reason.as_str())))
        .collect();
    assert_eq!(told, [("s3", Some("PEER_UNREACHABLE"))]);

    installation.signal("s3.filesync", Signal::SIGCONT).await;
    until_server_is(&operator, "s3", server_summary::State::Ready, NOTICED_MAX).await;
    installation.in_sync(&ledger, WORK_MAX).await;
    ledger.check_disks(&installation);
    until_run_is(&operator, &run.run_id, sync_run::State::Completed).await;
}

/// R23, R25, R43: a copy whose source freezes in the middle goes on from another holder within half a minute, with what it
/// has; while it stands still no time is claimed for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_copy_moves_to_another_holder() {
    const PATH: &str = "large.bin";
    let installation = Installation::start(Options::every("1h")).await;
    let viewer = installation.client("viewer");
    installation.take_down("s3.filesync").await;
    let source = installation.directory().join(PATH);
    fs::write(&source, content(PATH, 160 << 20)).expect("written");
    let text = source.to_str().expect("UTF-8").to_owned();
    installation.run(&["file", "register", &text, PATH, "--server", "s1"]).await;
    until_cell_is(&viewer, PATH, "s2", cell::State::InSync, WORK_MAX).await;

    // s3 begins to copy from the origin, and pauses at the first note of its journal.
    let hold = Hold::new(&installation, "fetch", "filesync.fetch.journaled");
    installation.bring_up("s3.filesync", &hold.variables()).await;
    hold.reached().await;
    installation.pause("s1.filesync").await;
    hold.release();
    wait::until("the copy moves to s2", MOVED_MAX, || async {
        let cell = cell_of(&viewer, PATH, "s3").await;
        let standing = cell.state() == cell::State::Copying && cell.bytes_per_second == 0;
        assert!(!standing || cell.time_left.is_none(), "no time is claimed while nothing moves: {cell:?}");
        if cell.state() == cell::State::InSync || cell.source_server_id == "s2" {
            return Ok(());
        }
        Err(format!("{cell:?}"))
    })
    .await;
    until_cell_is(&viewer, PATH, "s3", cell::State::InSync, WORK_MAX).await;
    assert!(fs::read(installation.transfer("s3").join(PATH)).expect("there") == content(PATH, 160 << 20));
    let lines = installation.log_of("s3.filesync");
    let copied = lines.iter().find(|line| line.contains("result=\"copied\"") && line.contains(PATH));
    assert!(copied.is_some_and(|line| line.contains("source=s2")), "{copied:?}");
    installation.signal("s1.filesync", Signal::SIGCONT).await;
}

/// R28, R41, I11: a second gateway on the same registry shows the same and starts runs; it goes on when the first one is
/// gone, and the first one, when it is back, knows what was done meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_come_and_go() {
    let installation = Installation::start(Options::every("1h")).await;
    let second = Gateway::start(&installation).await;
    let (first_client, second_client) = (installation.client("operator"), second.client("operator"));
    for server in ["s1", "s2", "s3"] {
        until_server_is(&second_client, server, server_summary::State::Ready, WORK_MAX).await;
    }
    let mut ledger = Ledger::default();
    let begun = start_run(&first_client, "first").await;
    until_run_is(&second_client, &begun.run_id, sync_run::State::Completed).await;
    for number in 0..10 {
        let (client, path) = ([&first_client, &second_client][number % 2], format!("both/{number}.bin"));
        ledger.register(client, "s1", &path, content(&path, 2_000)).await.expect("registered");
    }
    installation.in_sync(&ledger, WORK_MAX).await;

    installation.take_down("gateway").await;
    ledger.register(&second_client, "s2", "alone.bin", content("alone.bin", 5)).await.expect("registered");
    let run = start_run(&second_client, "second").await;
    until_run_is(&second_client, &run.run_id, sync_run::State::Completed).await;
    for server in ["s1", "s2", "s3"] {
        until_cell_is(&second_client, "alone.bin", server, cell::State::InSync, WORK_MAX).await;
    }
    installation.bring_up("gateway", &[]).await;
    let same = until_run_is(&first_client, &run.run_id, sync_run::State::Completed).await;
    assert_eq!((&same.run_id, same.target_revision), (&run.run_id, run.target_revision));
    assert_eq!(start_run(&first_client, "second").await.run_id, run.run_id);
    installation.in_sync(&ledger, WORK_MAX).await;
    ledger.check_disks(&installation);
}
