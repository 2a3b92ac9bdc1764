//! Sync runs: started, seen, waited for and cancelled, on any gateway.

use lockstep_model::Reason;
use lockstep_proto::gateway::v1::{
    CancelSyncRunRequest, GetSyncRunRequest, ListServersRequest, ListSyncRunsRequest, StartSyncRunRequest,
    StartSyncRunResponse, SyncObstacle, SyncRun, WatchRowsRequest, WatchSyncRunsRequest,
    list_servers_response::Scheduling, sync_run::State,
};
use tokio::time::timeout;
use tonic::Status;

use crate::{
    mesh::{Caller, Mesh, Options, SOON, eventually, uuid},
    refusal::refused,
};

fn full() -> Options {
    Options { reserve_bytes: 1 << 60, ..Options::default() }
}

async fn start(
    caller: &Caller,
    id: &str,
    prefix: &str,
    servers: &[&str],
) -> Result<StartSyncRunResponse, Status> {
    let request = StartSyncRunRequest {
        path_prefix: prefix.to_owned(),
        server_ids: servers.iter().map(|server| (*server).to_owned()).collect(),
        request_id: id.to_owned(),
    };
    Ok(caller.runs().start_sync_run(request).await?.into_inner())
}

async fn get(caller: &Caller, run_id: &str) -> Result<SyncRun, Status> {
    let request = GetSyncRunRequest { run_id: run_id.to_owned() };
    Ok(caller.runs().get_sync_run(request).await?.into_inner().run.expect("the contract says so"))
}

async fn list(caller: &Caller, page_size: i32) -> Vec<String> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListSyncRunsRequest { page_size, page_token };
        let page = caller.runs().list_sync_runs(request).await.expect("lists").into_inner();
        ids.extend(page.runs.into_iter().map(|run| run.run_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return ids;
        }
    }
}

async fn cancel(caller: &Caller, run_id: &str) -> Result<SyncRun, Status> {
    let request = CancelSyncRunRequest { run_id: run_id.to_owned(), request_id: uuid() };
    Ok(caller.runs().cancel_sync_run(request).await?.into_inner().run.expect("the contract says so"))
}

async fn until(caller: &Caller, run_id: &str, state: State) {
    let is_so = async || get(caller, run_id).await.is_ok_and(|run| run.state() == state);
    eventually(&format!("{run_id} is {state:?}"), is_so).await;
}

/// R26, R28, I11: "synchronise now" asks all servers in scope, one result each; a run that cannot end says what keeps it,
/// with reason and next try; a repetition is the same run; one whose scope is verified is complete; a cancelled one stays
/// so, while the servers go on; when the disk has room again the other one ends by itself, and whoever watches hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_when_everything_in_its_scope_is_verified() {
    let mut mesh = Mesh::with(vec![Options::default(), Options::default(), full()]).await;
    let caller = mesh.operator("operator");
    let file = caller.register("s1", "run/a", b"some bytes").await.expect("registered");
    caller.register("s1", "elsewhere", b"").await.expect("registered");
    eventually("they are there", async || {
        mesh.transfer("s2").join("run/a").exists() && mesh.transfer("s3").join("elsewhere").exists()
    })
    .await;

    let begun = start(&caller, "one", "", &[]).await.expect("started");
    let run = begun.run.clone().expect("a run");
    let answers: Vec<_> =
        begun.answers.iter().map(|answer| (answer.server_id.as_str(), answer.failure.is_none())).collect();
    assert_eq!(answers, [("s1", true), ("s2", true), ("s3", true)]);
    assert_eq!(begun.answers[2].exception_count, 1, "{begun:?}");
    assert_eq!((run.target_revision, run.started_by.as_str()), (file.revision + 1, "operator/operator"));
    until(&caller, &run.run_id, State::Waiting).await;
    eventually("its obstacle has a next try", async || {
        let run = get(&caller, &run.run_id).await.expect("kept");
        let reason =
            |o: &SyncObstacle| o.failure.as_ref().map(|failure| failure.reason.clone()).unwrap_or_default();
        let told: Vec<_> =
            run.obstacles.iter().map(|o| (o.server_id.as_str(), o.path.as_str(), reason(o))).collect();
        // The disk as a whole, and the file that it has no room for.
        let full = "DISK_FULL".to_owned();
        told == [("s3", "", full.clone()), ("s3", "run/a", full)] && run.obstacles[1].retry_delay.is_some()
    })
    .await;
    let seen = get(&caller, &run.run_id).await.expect("kept");
    assert_eq!((seen.copy_count, seen.in_sync_count, seen.remaining_bytes), (6, 5, 10));
    let shares: Vec<_> =
        seen.shares.iter().map(|share| (share.server_id.as_str(), share.in_sync_count)).collect();
    assert_eq!(shares, [("s1", 2), ("s2", 2), ("s3", 1)]);

    let again = start(&caller, "one", "", &[]).await.expect("repeated").run.expect("a run");
    assert_eq!((&again.run_id, again.target_revision), (&run.run_id, run.target_revision));
    refused("reused", start(&caller, "one", "run/", &[]).await, Reason::RequestIdReused);
    refused("unknown server", start(&caller, "x", "", &["s9"]).await, Reason::ServerUnknown).says(&["s9"]);
    refused("no name", start(&caller, "", "", &["S9"]).await, Reason::FieldViolation)
        .blames(&["server_ids[0]", "request_id"]);
    refused("unknown run", get(&caller, &uuid()).await, Reason::SyncRunNotFound).with(&["run_id"]);
    refused("unknown run", cancel(&caller, &uuid()).await, Reason::SyncRunNotFound);
    refused("no run", get(&caller, "").await, Reason::FieldViolation).blames(&["run_id"]);

    // What is in scope is verified.
    let part = start(&caller, "two", "run/", &["s1", "s2"]).await.expect("started").run.expect("a run");
    until(&caller, &part.run_id, State::Completed).await;
    let empty = start(&caller, "three", "elsewhere", &[]).await.expect("started").run.expect("a run");
    until(&caller, &empty.run_id, State::Completed).await;
    let gone = start(&caller, "four", "", &["s3"]).await.expect("started").run.expect("a run");
    assert_eq!(cancel(&caller, &gone.run_id).await.expect("cancelled").state(), State::Cancelled);
    let ids: Vec<String> = [&gone, &empty, &part, &run].map(|run| run.run_id.clone()).into();
    for page_size in [0, 1, 3] {
        assert_eq!(list(&caller, page_size).await, ids, "latest first");
    }

    let request = WatchSyncRunsRequest { run_id: run.run_id.clone(), ..WatchSyncRunsRequest::default() };
    let mut watch = caller.runs().watch_sync_runs(request).await.expect("watches").into_inner();
    let first = timeout(SOON, watch.message()).await.expect("in time").expect("no end").expect("a message");
    assert!(first.caught_up && first.runs.len() == 1, "{first:?}");
    mesh.servers["s3"].stop().await;
    mesh.start("s3", Options::default()).await;
    let mut last = first.runs.first().expect("one").state();
    while let Some(batch) = timeout(SOON, watch.message()).await.expect("in time").expect("a message") {
        last = batch.runs.last().map_or(last, SyncRun::state);
    }
    assert_eq!(last, State::Completed, "the watch of one run ends with it");
    assert_eq!(get(&caller, &gone.run_id).await.expect("kept").state(), State::Cancelled);
    assert_eq!(cancel(&caller, &run.run_id).await.expect("ended").state(), State::Completed);
    // What happens later does not change it.
    std::fs::remove_file(mesh.transfer("s3").join("run/a")).expect("removed");
    until(&caller, &run.run_id, State::Completed).await;
    let token = WatchSyncRunsRequest { resume_token: "00".to_owned(), ..WatchSyncRunsRequest::default() };
    refused("no token", caller.runs().watch_sync_runs(token).await.map(drop), Reason::ResumeTokenExpired);
}

/// R13: with one server a run asks nobody, and is complete when its own copies are verified; the status says that nothing
/// is scheduled, and with two that something is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_one_server_asks_nobody() {
    let mut mesh = Mesh::new(1).await;
    let caller = mesh.operator("operator");
    caller.register("s1", "a", b"x").await.expect("registered");
    mesh.in_sync("a").await;
    let begun = start(&caller, "one", "", &[]).await.expect("started");
    assert!(begun.answers.is_empty(), "{begun:?}");
    until(&caller, &begun.run.expect("a run").run_id, State::Completed).await;
    let scheduling = async || {
        let answer = caller.matrix().list_servers(ListServersRequest::default()).await;
        answer.expect("lists").into_inner().scheduling()
    };
    assert_eq!(scheduling().await, Scheduling::Alone);
    mesh.start("s2", Options::default()).await;
    eventually("something is scheduled", async || scheduling().await == Scheduling::Active).await;
    mesh.in_sync("a").await;
}

/// R28, R41, I11: two gateways at once show the same rows and the same runs, whichever was asked; what both ask for does
/// no harm; a run goes on when the gateway that started it is gone; a token of one means nothing to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_gateway_answers_for_every_run() {
    let mesh = Mesh::with(vec![Options::default(), Options::default(), full()]).await;
    let other = mesh.another_gateway().await;
    let (first, second) = (mesh.operator("operator"), mesh.operator_at(&other, "operator"));
    eventually("the other is ready", async || other.health.is_ready()).await;
    for number in 0..10 {
        let (at, server) = if number % 2 == 0 { (&first, "s1") } else { (&second, "s2") };
        at.register(server, &format!("both/{number}"), b"x").await.expect("registered");
    }
    let rows = async |caller: &Caller| {
        let answer = caller.matrix().list_rows(lockstep_proto::gateway::v1::ListRowsRequest::default()).await;
        let rows = answer.expect("lists").into_inner().rows;
        let cells =
            |row: &lockstep_proto::gateway::v1::Row| row.cells.iter().map(|c| c.state()).collect::<Vec<_>>();
        rows.iter().map(|row| (row.path.clone(), row.revision, cells(row))).collect::<Vec<_>>()
    };
    use lockstep_proto::gateway::v1::cell::State as Cell;
    let settled = [Cell::InSync, Cell::InSync, Cell::Failed];
    eventually("both show the same", async || {
        let (one, two) = (rows(&first).await, rows(&second).await);
        one == two && one.len() == 10 && one.iter().all(|(_, _, cells)| *cells == settled)
    })
    .await;

    let run = start(&first, "one", "", &["s1", "s2"]).await.expect("started").run.expect("a run");
    until(&second, &run.run_id, State::Completed).await;
    let stuck = start(&first, "two", "", &[]).await.expect("started").run.expect("a run");
    until(&second, &stuck.run_id, State::Waiting).await;
    assert_eq!(list(&first, 0).await, list(&second, 0).await);
    let again = start(&second, "two", "", &[]).await.expect("repeated").run.expect("a run");
    assert_eq!(again.run_id, stuck.run_id);

    let mut watch =
        first.matrix().watch_rows(WatchRowsRequest::default()).await.expect("watches").into_inner();
    let batch = timeout(SOON, watch.message()).await.expect("in time").expect("no end").expect("a message");
    let resume = WatchRowsRequest { resume_token: batch.resume_token, ..WatchRowsRequest::default() };
    first.matrix().watch_rows(resume.clone()).await.expect("its own token");
    let foreign = second.matrix().watch_rows(resume).await.map(drop);
    refused("a token of another gateway", foreign, Reason::ResumeTokenExpired);

    mesh.door().stop().await;
    assert_eq!(cancel(&second, &stuck.run_id).await.expect("cancelled").state(), State::Cancelled);
    second.register("s1", "both/later", b"x").await.expect("registered");
    eventually("the other goes on", async || mesh.transfer("s2").join("both/later").exists()).await;
    other.stop().await;
}
