//! The states of cells as real servers produce them, found by filters, and explained.

use std::{collections::BTreeSet, time::Duration};

use lockstep_chassis::App;
use lockstep_model::Reason;
use lockstep_proto::{
    filesync::v1::{
        CheckFilesRequest, ContentChunk, ContentHeader, LocateContentRequest, LocateContentResponse,
        MoveFileRequest, NewFile, ReadContentRequest, ReadContentResponse, WriteContentRequest,
        WriteContentResponse,
        check_files_request::Depth,
        content_service_server::{ContentService, ContentServiceServer},
        new_file::Source,
        read_content_response::Part,
    },
    gateway::v1::{
        Cell, CopyExplanation, ExplainFileRequest, Explanation, ListRowsRequest, ListServersRequest, Row,
        WatchRowsRequest, cell::State, copy_explanation::Loose, explanation, server_summary::Membership,
    },
};
use lockstep_registry::CachedMembers;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::{
    half_open::Way,
    mesh::{Caller, Mesh, Options, SOON, chunk, eventually, header, on, uuid},
    refusal::refused,
    words::told_in_words,
};

fn of(servers: &[&str]) -> Vec<String> {
    servers.iter().map(|server| (*server).to_owned()).collect()
}

fn states(states: &[State]) -> Vec<i32> {
    states.iter().map(|state| (*state).into()).collect()
}

async fn rows(caller: &Caller, request: ListRowsRequest) -> Result<Vec<Row>, Status> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRowsRequest { page_token, ..request.clone() };
        let page = caller.matrix().list_rows(request).await?.into_inner();
        found.extend(page.rows);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

async fn paths(caller: &Caller, request: ListRowsRequest) -> Vec<String> {
    rows(caller, request).await.expect("lists").into_iter().map(|row| row.path).collect()
}

async fn cell(mesh: &Mesh, path: &str, server: &str) -> (State, String) {
    // Not yet in the matrix: nothing is known of it.
    let cells = mesh.row(path).await.map(|row| row.cells).unwrap_or_default();
    let cell = cells.into_iter().find(|cell| cell.server_id == server).unwrap_or_default();
    (cell.state(), cell.failure.map(|failure| failure.reason).unwrap_or_default())
}

async fn explain(caller: &Caller, path: &str, servers: &[&str]) -> Result<Explanation, Status> {
    let request = ExplainFileRequest { path: path.to_owned(), server_ids: of(servers) };
    let answer = caller.matrix().explain_file(request).await?.into_inner();
    assert!(answer.position.is_some());
    Ok(answer.explanation.expect("the contract says so"))
}

async fn copy(caller: &Caller, path: &str, server: &str) -> CopyExplanation {
    let explained = explain(caller, path, &[server]).await.expect("explained");
    let [copy] = explained.copies.as_slice() else { panic!("one copy: {explained:?}") };
    assert_eq!(copy.server_id, server);
    copy.clone()
}

/// s1 and s2 hold `f/a`, `f/b` and `g`; s3 has a full disk, s4 stands alone, and `f/b` drifted on s2.
async fn troubled() -> Mesh {
    let full = Options { reserve_bytes: 1 << 60, ..Options::default() };
    let alone = Options { mode: "standalone", ..Options::default() };
    let mesh = Mesh::with(vec![Options::default(), Options::default(), full, alone]).await;
    let caller = mesh.operator("publisher");
    for path in ["f/a", "f/b", "g"] {
        caller.register("s1", path, b"some bytes").await.expect("registered");
        eventually("s2 holds it", async || cell(&mesh, path, "s2").await.0 == State::InSync).await;
        let full = (State::Failed, "DISK_FULL".to_owned());
        eventually("s3 has no room", async || cell(&mesh, path, "s3").await == full).await;
    }
    std::fs::write(mesh.transfer("s2").join("f/b"), b"changed by hand").expect("written");
    let check = CheckFilesRequest { depth: Depth::Times.into(), ..CheckFilesRequest::default() };
    mesh.operator("operator").stores().check_files(on("s2", check)).await.expect("compared");
    let drifted = (State::Failed, "DRIFTED".to_owned());
    eventually("it drifted", async || cell(&mesh, "f/b", "s2").await == drifted).await;
    mesh
}

/// R43, R44, H1: rows are found by prefix, path, server and state, in any combination and page by page; filters that name
/// nothing that there is are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_found_by_path_server_and_state() {
    let mesh = troubled().await;
    let caller = mesh.operator("viewer");
    let all = ListRowsRequest::default;
    for page_size in [1, 2, 0] {
        let failed = ListRowsRequest { states: states(&[State::Failed]), page_size, ..all() };
        assert_eq!(paths(&caller, failed.clone()).await, ["f/a", "f/b", "g"]);
        let on_s2 = ListRowsRequest { server_ids: of(&["s2"]), ..failed.clone() };
        assert_eq!(paths(&caller, on_s2.clone()).await, ["f/b"]);
        let below = ListRowsRequest { path_prefix: "f/".to_owned(), ..failed };
        assert_eq!(paths(&caller, below).await, ["f/a", "f/b"]);
        let wrong = ListRowsRequest { path: "f/a".to_owned(), ..on_s2.clone() };
        assert_eq!(paths(&caller, wrong).await, Vec::<String>::new());
        let in_sync = ListRowsRequest { states: states(&[State::InSync, State::Pending]), ..on_s2 };
        assert_eq!(paths(&caller, in_sync).await, ["f/a", "g"]);
        let alone = ListRowsRequest { states: states(&[State::NotEligible]), page_size, ..all() };
        assert_eq!(paths(&caller, alone).await.len(), 3);
    }
    let exact = ListRowsRequest { path: "f/a".to_owned(), server_ids: of(&["s3", "s1"]), ..all() };
    let found = rows(&caller, exact).await.expect("lists");
    let [row] = found.as_slice() else { panic!("one row: {found:?}") };
    let servers: Vec<&str> = row.cells.iter().map(|cell| cell.server_id.as_str()).collect();
    assert_eq!(servers, ["s1", "s3"]);
    let prefix_of_a_name = ListRowsRequest { path: "f/".to_owned(), ..all() };
    assert!(paths(&caller, prefix_of_a_name).await.is_empty(), "a path is no prefix");

    let unknown = ListRowsRequest { server_ids: of(&["s9"]), ..all() };
    refused("unknown", rows(&caller, unknown.clone()).await, Reason::ServerUnknown).says(&["s9"]);
    let wrong = ListRowsRequest {
        path: "a".to_owned(),
        path_prefix: "a".to_owned(),
        states: vec![99, 0],
        server_ids: of(&["S"]),
        ..all()
    };
    refused("wrong", rows(&caller, wrong).await, Reason::FieldViolation).blames(&[
        "path",
        "server_ids[0]",
        "states[0]",
        "states[1]",
    ]);
    let first = ListRowsRequest { page_size: 1, ..all() };
    let token = caller.matrix().list_rows(first).await.expect("lists").into_inner().next_page_token;
    let other = ListRowsRequest { states: states(&[State::Failed]), page_token: token, ..all() };
    refused("another listing", caller.matrix().list_rows(other).await, Reason::PageTokenInvalid);
    let watch = WatchRowsRequest { server_ids: of(&["s9"]), ..WatchRowsRequest::default() };
    refused("unknown", caller.matrix().watch_rows(watch).await.map(drop), Reason::ServerUnknown);
}

/// R41, R43: a watch of what failed has it, hears when it fails no more, and when something else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_a_state_hears_both_ways() {
    let mesh = troubled().await;
    let caller = mesh.operator("viewer");
    let server_ids = of(&["s2"]);
    let request =
        WatchRowsRequest { states: states(&[State::Failed]), server_ids, ..WatchRowsRequest::default() };
    let mut watch = caller.matrix().watch_rows(request).await.expect("watches").into_inner();
    let mut seen = BTreeSet::new();
    let mut next = async |seen: &mut BTreeSet<String>| {
        let batch =
            timeout(SOON, watch.message()).await.expect("in time").expect("no end").expect("a message");
        seen.retain(|path| !batch.removed_paths.contains(path));
        assert!(batch.rows.iter().all(|row| row.cells.iter().all(|cell| cell.state() == State::Failed)));
        seen.extend(batch.rows.into_iter().map(|row| row.path));
    };
    while seen != BTreeSet::from(["f/b".to_owned()]) {
        next(&mut seen).await;
    }
    std::fs::write(mesh.transfer("s2").join("g"), b"changed too").expect("written");
    let check = CheckFilesRequest { depth: Depth::Times.into(), ..CheckFilesRequest::default() };
    mesh.operator("operator").stores().check_files(on("s2", check)).await.expect("compared");
    while seen.len() != 2 {
        next(&mut seen).await;
    }
    let file = caller.get("f/b").await.expect("there");
    let restore = lockstep_proto::filesync::v1::RestoreFileRequest {
        path: "f/b".to_owned(),
        expected_revision: file.revision,
        request_id: uuid(),
    };
    mesh.operator("publisher").stores().restore_file(on("s2", restore)).await.expect("begun");
    while seen != BTreeSet::from(["g".to_owned()]) {
        next(&mut seen).await;
    }
}

/// R42, R43, R26, R31: a file is explained for each server: who holds it and who does not, since when, why, what happens
/// next and when, and what a person can do; and so is a path that was deleted, moved, never registered or lies loose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_explained() {
    let mut mesh = troubled().await;
    let caller = mesh.operator("publisher");
    let file = caller.get("f/b").await.expect("there");
    let whole = explain(&caller, "f/b", &[]).await.expect("explained");
    assert_eq!(whole.state(), explanation::State::Registered);
    assert_eq!((whole.revision, &whole.digest, whole.size_bytes), (file.revision, &file.digest, 10));
    assert_eq!((whole.changed_by.as_str(), whole.origin_server_id.as_str()), ("operator/publisher", "s1"));
    let counted = "verified on 1 of 3 servers; 2 failed";
    assert!(whole.summary.contains(counted), "{}", whole.summary);
    let of_one = explain(&caller, "f/b", &["s1"]).await.expect("explained");
    assert!(
        of_one.summary.contains(counted) && of_one.copies.len() == 1,
        "whoever is asked about: {of_one:?}"
    );
    let states: Vec<State> = whole.copies.iter().filter_map(|c| c.cell.as_ref().map(Cell::state)).collect();
    assert_eq!(states, [State::InSync, State::Failed, State::Failed, State::NotEligible]);

    let drifted = copy(&caller, "f/b", "s2").await;
    assert!(drifted.next.is_empty() && drifted.age.is_some(), "nothing is tried: {drifted:?}");
    assert!(drifted.advice.contains("update-version") && drifted.advice.contains("restore"), "{drifted:?}");
    eventually("the next try is told", async || copy(&caller, "f/a", "s3").await.next_delay.is_some()).await;
    told_in_words(&mesh, "disk_full", "f/a", "s3").await;
    told_in_words(&mesh, "in_sync", "f/a", "s2").await;
    let full = copy(&caller, "f/a", "s3").await;
    assert!(!full.advice.is_empty() && full.next.contains("again") && full.age.is_some(), "{full:?}");
    let held = copy(&caller, "f/a", "s1").await;
    assert!(held.message.contains("verified") && held.advice.is_empty(), "{held:?}");
    let alone = copy(&caller, "f/a", "s4").await;
    assert!(alone.message.contains("takes no part"), "{alone:?}");

    let gone =
        caller.delete("s1", "g", caller.get("g").await.expect("there").revision).await.expect("deleted");
    let deleted = explain(&caller, "g", &[]).await.expect("explained");
    assert_eq!((deleted.state(), deleted.revision), (explanation::State::Deleted, gone));
    assert!(deleted.summary.contains("operator/publisher"), "{deleted:?}");
    let moving = MoveFileRequest {
        path: "f/a".to_owned(),
        new_path: "f/new".to_owned(),
        expected_revision: caller.get("f/a").await.expect("there").revision,
        request_id: uuid(),
    };
    caller.files().move_file(on("s1", moving)).await.expect("moved");
    let moved = explain(&caller, "f/a", &[]).await.expect("explained");
    assert_eq!((moved.state(), moved.moved_path.as_str()), (explanation::State::Moved, "f/new"));
    let never = explain(&caller, "no/such", &[]).await.expect("explained");
    assert_eq!((never.state(), never.copies.len()), (explanation::State::NeverRegistered, 0));
    std::fs::write(mesh.transfer("s2").join("loose"), b"nobody registered it").expect("written");
    std::fs::write(mesh.transfer("s1").join("loose.x"), b"another").expect("written");
    let loose = explain(&caller, "loose", &[]).await.expect("explained");
    let [on_s2] = loose.copies.as_slice() else { panic!("one copy: {loose:?}") };
    assert_eq!((on_s2.server_id.as_str(), on_s2.loose()), ("s2", Loose::Present));
    assert_eq!(loose.state(), explanation::State::NeverRegistered);
    refused("no name", explain(&caller, "../x", &[]).await, Reason::PathInvalid).blames(&["path"]);
    refused("unknown", explain(&caller, "f/b", &["s9"]).await, Reason::ServerUnknown);

    mesh.caught_up("s2").await;
    // One that vanished is told with what was known; by a gateway that never heard of it, that nothing is.
    mesh.servers["s2"].stop().await;
    let vanished = (State::Unreachable, State::Failed);
    let seen = async || {
        let cell = copy(&caller, "f/b", "s2").await.cell.expect("registered");
        (cell.state(), cell.last_known_state())
    };
    eventually("it is told", async || seen().await == vanished).await;
    told_in_words(&mesh, "gone_with_drift", "f/b", "s2").await;
    let lost = copy(&caller, "f/b", "s2").await;
    assert!(lost.age.is_some() && lost.message.contains("failed when it was heard last"), "{lost:?}");
    let answer =
        caller.matrix().list_servers(ListServersRequest::default()).await.expect("lists").into_inner();
    let s2 = answer.servers.iter().find(|server| server.server_id == "s2").expect("known");
    assert_eq!((s2.membership(), s2.failed_count, s2.in_sync_count), (Membership::Current, 1, 0));
    mesh.door().stop().await;
    mesh.start_gateway().await;
    mesh.ready().await;
    let caller = mesh.operator("publisher");
    let unknown = copy(&caller, "f/b", "s2").await;
    assert_eq!(unknown.cell.as_ref().map(Cell::state), Some(State::Unknown), "{unknown:?}");
    let why = unknown.cell.as_ref().and_then(|cell| cell.failure.clone()).map(|failure| failure.reason);
    assert_eq!(why.as_deref(), Some(Reason::PeerUnreachable.as_str()));
    assert!(!unknown.next.is_empty() && !unknown.advice.is_empty(), "{unknown:?}");
    told_in_words(&mesh, "never_heard", "f/b", "s2").await;
}

/// R43: a server that lacks something says what: how many, how many bytes, and the oldest change with its age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_what_it_lacks() {
    let mesh = troubled().await;
    let caller = mesh.operator("viewer");
    let answer =
        caller.matrix().list_servers(ListServersRequest::default()).await.expect("lists").into_inner();
    let s3 = answer.servers.iter().find(|server| server.server_id == "s3").expect("known");
    assert_eq!((s3.failed_count, s3.pending_count, s3.remaining_bytes), (3, 0, 30), "{s3:?}");
    assert_eq!((s3.bytes_per_second, s3.time_left), (0, None), "nothing moves, so no time is claimed");
    let oldest = s3.oldest_missing.as_ref().expect("something is missing");
    let first = caller.get("f/a").await.expect("there");
    assert_eq!((oldest.path.as_str(), oldest.revision), ("f/a", first.revision));
    assert!(oldest.age.is_some());
    let s2 = answer.servers.iter().find(|server| server.server_id == "s2").expect("known");
    assert_eq!((s2.failed_count, s2.remaining_bytes), (1, 0), "nothing is copied over a drifted file");
    let s1 = answer.servers.iter().find(|server| server.server_id == "s1").expect("known");
    assert_eq!((&s1.oldest_missing, s1.remaining_bytes), (&None, 0));
    assert!(s1.compared_age.is_some());
}

/// R44, R45: a server says how fresh its knowledge is: within which time every copy was compared, and within which it was
/// read again; after a restart neither is claimed before the first round through all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_how_fresh_its_knowledge_is() {
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    for number in 0..5 {
        caller.register("s1", &format!("fresh/{number}"), b"x").await.expect("registered");
        mesh.in_sync(&format!("fresh/{number}")).await;
    }
    let s2 = async |mesh: &Mesh| {
        let answer = mesh.operator("viewer").matrix().list_servers(ListServersRequest::default()).await;
        let servers = answer.expect("lists").into_inner().servers;
        servers.into_iter().find(|server| server.server_id == "s2").expect("known")
    };
    mesh.restart("s2").await;
    mesh.ready().await;
    eventually("all were compared", async || s2(&mesh).await.compared_age.is_some()).await;
    let fresh = s2(&mesh).await;
    assert!(fresh.hashed_age.is_none(), "{fresh:?}");
    mesh.servers["s2"].stop().await;
    let checks = filesync::Checks { scrub_every: Duration::from_millis(200), ..filesync::Checks::default() };
    mesh.start("s2", Options { checks, ..Options::default() }).await;
    mesh.ready().await;
    eventually("all were read again", async || s2(&mesh).await.hashed_age.is_some()).await;
}

/// What a cell can say: a name, and the test that has real servers say it, at the moment when the command line and grpcurl
/// are asked as well (`words.rs`). A state that needs no reason has none.
///
/// Other reasons are those of a try that failed, as they are: any reason of the contract may be among them. That a disk refuses
/// a look at a copy it has (DISK_REFUSED, too) needs a bad disk, so the simulation has it (`sim::doubt`). A copy that rotted
/// has STORED_CONTENT_CORRUPT only until the next try, which follows at once; nothing is tried on a disk that became
/// read-only, so that STORE_READ_ONLY is a condition of its server and its cells are pending.
pub(crate) const SAID: [Said; 19] = [
    said("in_sync", State::InSync, None, "states::a_file_is_explained"),
    said("pending", State::Pending, None, "states::every_state_and_reason_of_a_cell_is_said"),
    said("copying", State::Copying, None, "states::a_copy_under_way_is_told"),
    said(
        "standalone",
        State::NotEligible,
        Some(Reason::Standalone),
        "bad_state::servers_that_take_no_part_say_why",
    ),
    said(
        "unsupported_version",
        State::NotEligible,
        Some(Reason::UnsupportedVersion),
        "bad_state::servers_that_take_no_part_say_why",
    ),
    said("never_heard", State::Unknown, Some(Reason::PeerUnreachable), "states::a_file_is_explained"),
    said(
        "history_forked",
        State::Unknown,
        Some(Reason::HistoryForked),
        "bad_state::a_forked_history_is_recognised",
    ),
    said(
        "store_offline",
        State::Unknown,
        Some(Reason::StoreOffline),
        "bad_state::a_store_that_is_not_mounted_is_not_used",
    ),
    said(
        "gone",
        State::Unreachable,
        Some(Reason::PeerUnreachable),
        "bad_state::a_server_that_is_gone_cannot_be_reached",
    ),
    said(
        "half_open",
        State::Unreachable,
        Some(Reason::PeerUnreachable),
        "half_open::a_half_open_server_delays_nobody",
    ),
    said("gone_with_drift", State::Unreachable, Some(Reason::PeerUnreachable), "states::a_file_is_explained"),
    said("disk_full", State::Failed, Some(Reason::DiskFull), "states::a_file_is_explained"),
    said("drifted", State::Failed, Some(Reason::Drifted), "disk::drift_is_shown_and_settled_both_ways"),
    said(
        "disk_refused",
        State::Failed,
        Some(Reason::DiskRefused),
        "stuck::a_directory_that_refuses_is_told_in_the_matrix",
    ),
    said(
        "loose_file",
        State::Failed,
        Some(Reason::LooseFileExists),
        "disk::a_loose_file_in_place_of_a_directory_is_set_aside",
    ),
    said(
        "content_not_found",
        State::Failed,
        Some(Reason::ContentNotFound),
        "states::every_state_and_reason_of_a_cell_is_said",
    ),
    said(
        "no_holder",
        State::Failed,
        Some(Reason::NoHolder),
        "states::every_state_and_reason_of_a_cell_is_said",
    ),
    said(
        "holder_away",
        State::Failed,
        Some(Reason::PeerUnreachable),
        "states::every_state_and_reason_of_a_cell_is_said",
    ),
    said(
        "other_bytes",
        State::Failed,
        Some(Reason::ContentDigestMismatch),
        "states::a_peer_that_gives_other_bytes_is_told",
    ),
];

/// A row of [`SAID`].
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    pub(crate) reason: Option<Reason>,
    test: &'static str,
}

const fn said(name: &'static str, state: State, reason: Option<Reason>, test: &'static str) -> Said {
    Said { name, state, reason, test }
}

/// R43, R44, H3: every state of a cell, and every reason that belongs to one, is said by real servers: the tests of the table
/// are there, no state is left out, and what no other test has a server say is said here, live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_and_reason_of_a_cell_is_said() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("api");
    for Said { name, state, reason, test } in &SAID {
        let (file, function) = test.split_once("::").expect("a file and a name");
        let text = std::fs::read_to_string(folder.join(format!("{file}.rs"))).expect("a file of this folder");
        let (_, body) = text.split_once(&format!("async fn {function}()")).expect(test);
        let body = body.split("\n#[tokio::test").next().unwrap_or_default();
        assert!(body.contains(&format!("told_in_words(&mesh, \"{name}\"")), "{test} does not compare {name}");
        assert_eq!(reason.is_none(), [State::InSync, State::Pending, State::Copying].contains(state));
    }
    let said: BTreeSet<i32> = SAID.iter().map(|said| said.state.into()).collect();
    let known: BTreeSet<i32> = (1..).take_while(|number| State::try_from(*number).is_ok()).collect();
    assert_eq!(said, known, "a state has no test");

    // Beyond so many exceptions the position waits: what comes then is pending, for as long as it does.
    let full = Options { reserve_bytes: 1 << 60, exceptions_max: 1, ..Options::default() };
    let mut mesh = Mesh::with(vec![Options::default(), Options::default(), full]).await;
    let caller = mesh.operator("publisher");
    let failed = |reason: Reason| (State::Failed, reason.as_str().to_owned());
    for (path, expected) in [("first", failed(Reason::DiskFull)), ("second", (State::Pending, String::new()))]
    {
        caller.register("s1", path, path.as_bytes()).await.expect("registered");
        eventually("it is said", async || cell(&mesh, path, "s3").await == expected).await;
    }
    told_in_words(&mesh, "pending", "second", "s3").await;
    // Bytes that nobody has any more, although everybody can be asked.
    for server in ["s1", "s2"] {
        eventually("it is there", async || cell(&mesh, "first", server).await.0 == State::InSync).await;
    }
    for server in ["s1", "s2"] {
        std::fs::remove_file(mesh.transfer(server).join("first")).expect("removed");
    }
    for server in ["s1", "s2"] {
        let check = CheckFilesRequest { depth: Depth::Times.into(), ..CheckFilesRequest::default() };
        mesh.operator("operator").stores().check_files(on(server, check)).await.expect("compared");
    }
    // The origin finds no holder; the others are told so by the origin.
    for (server, reason) in [("s1", Reason::NoHolder), ("s2", Reason::ContentNotFound)] {
        let expected = failed(reason);
        eventually("nobody has it", async || cell(&mesh, "first", server).await == expected).await;
    }
    told_in_words(&mesh, "no_holder", "first", "s1").await;
    told_in_words(&mesh, "content_not_found", "first", "s2").await;
    // Bytes of somebody who is away.
    mesh.servers["s1"].stop().await;
    caller.register("s2", "third", b"on s2 alone").await.expect("registered");
    mesh.caught_up("s2").await;
    mesh.servers["s2"].stop().await;
    mesh.start("s1", Options::default()).await;
    let expected = failed(Reason::PeerUnreachable);
    eventually("who has it is away", async || cell(&mesh, "third", "s1").await == expected).await;
    told_in_words(&mesh, "holder_away", "third", "s1").await;
}

/// R43: of a copy that is under way the command line tells from whom, how much and how fast.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_under_way_is_told() {
    const SIZE: usize = 24 << 20;
    let way = Way::new(512 << 10).await;
    let mut mesh = Mesh::new(1).await;
    let advertise = format!("https://127.0.0.1:{}", way.port);
    mesh.start("s2", Options { advertise, ..Options::default() }).await;
    way.to.send_replace(mesh.servers["s2"].port);
    let caller = mesh.operator("publisher");
    let id = uuid();
    let bytes = vec![7; SIZE];
    let chunks = bytes.chunks(128 << 10).enumerate().map(|(number, data)| chunk(number * (128 << 10), data));
    let parts = std::iter::once(header(&id, SIZE, 0)).chain(chunks).collect();
    eventually("s2 is heard", async || caller.upload("s2", Vec::clone(&parts)).await.is_ok()).await;
    let file =
        NewFile { path: "slow.bin".to_owned(), source: Some(Source::UploadId(id)), ..NewFile::default() };
    caller.register_as("s2", &uuid(), file).await.expect("registered");
    eventually("it moves", async || {
        let row = mesh.row("slow.bin").await.unwrap_or_default();
        row.cells.first().is_some_and(|cell| cell.state() == State::Copying && cell.bytes_per_second > 0)
    })
    .await;
    told_in_words(&mesh, "copying", "slow.bin", "s1").await;
}

/// What a server gives that is not what it should be.
struct OtherBytes;

#[tonic::async_trait]
impl ContentService for OtherBytes {
    async fn locate_content(
        &self,
        request: Request<LocateContentRequest>,
    ) -> tonic::Result<Response<LocateContentResponse>> {
        Ok(Response::new(LocateContentResponse { held_digests: request.into_inner().digests }))
    }

    type ReadContentStream = futures::stream::BoxStream<'static, tonic::Result<ReadContentResponse>>;

    async fn read_content(
        &self,
        request: Request<ReadContentRequest>,
    ) -> tonic::Result<Response<Self::ReadContentStream>> {
        let parts = request.into_inner().ranges.into_iter().flat_map(|range| {
            let data = bytes::Bytes::from_static(b"others");
            let header = ContentHeader { digest: range.digest, size_bytes: 6 };
            [Part::Header(header), Part::Chunk(ContentChunk { offset_bytes: 0, data })]
        });
        let parts: Vec<_> = parts.map(|part| Ok(ReadContentResponse { part: Some(part) })).collect();
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }

    async fn write_content(
        &self,
        _: Request<tonic::Streaming<WriteContentRequest>>,
    ) -> tonic::Result<Response<WriteContentResponse>> {
        std::future::pending().await
    }
}

/// I2, R43, R44: bytes that do not belong to the digest are never taken, whoever gives them, and the cell says so. A Lockstep
/// compares what it sends, so that only something else in its place, with its certificate, gives them; it is played here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_gives_other_bytes_is_told() {
    let mut mesh = Mesh::new(2).await;
    mesh.servers["s1"].stop().await;
    mesh.operator("publisher").register("s2", "given", b"others are given").await.expect("registered");
    mesh.caught_up("s2").await;
    mesh.servers["s2"].stop().await;
    let process = mesh.process_in_place_of("s2").await;
    let played = process.drain.clone();
    played.spawn("played", {
        let app = App::new("filesync", CachedMembers::new(mesh.registry.clone()), process.health);
        let app = app.add(ContentServiceServer::new(OtherBytes));
        async move { app.serve(process.incoming, &process.drain).await.expect("it is served") }
    });
    mesh.start("s1", Options::default()).await;
    let expected = (State::Failed, Reason::ContentDigestMismatch.as_str().to_owned());
    eventually("it is not taken", async || cell(&mesh, "given", "s1").await == expected).await;
    assert!(!mesh.transfer("s1").join("given").exists());
    told_in_words(&mesh, "other_bytes", "given", "s1").await;
    played.begin();
    timeout(SOON, played.finished()).await.expect("it ends");
    mesh.restart("s2").await;
    mesh.in_sync("given").await;
}
