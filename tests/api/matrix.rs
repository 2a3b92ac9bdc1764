//! Listing, paging, the matrix and its watch; reflection and health of the one door.

use std::{collections::BTreeMap, time::Duration};

use lockstep_model::Reason;
use lockstep_proto::{
    filesync::v1::{File, ListFilesRequest, RegisterFilesRequest},
    gateway::v1::{
        Cell, ListRowsRequest, ListServersRequest, Row, WatchRowsRequest, WatchRowsResponse, cell,
        server_summary,
    },
};
use lockstep_registry::Registry as _;
use tokio::time::{Instant, timeout};
use tonic::Streaming;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb;

use crate::{
    mesh::{Mesh, SOON, eventually, new_file, on, uuid},
    refusal::refused,
};

/// R41: whoever watches sees a registration within a second.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

async fn next(watch: &mut Streaming<WatchRowsResponse>) -> WatchRowsResponse {
    timeout(SOON, watch.message()).await.expect("in time").expect("no end").expect("a message")
}

/// What a watcher knows, put together from the batches.
#[derive(Default)]
struct Seen {
    rows: BTreeMap<String, Row>,
    token: String,
}

impl Seen {
    fn take(&mut self, batch: WatchRowsResponse) {
        batch.removed_paths.iter().for_each(|path| drop(self.rows.remove(path)));
        self.rows.extend(batch.rows.into_iter().map(|row| (row.path.clone(), row)));
        self.token = batch.resume_token;
    }

    fn states(&self, path: &str) -> Vec<cell::State> {
        self.rows.get(path).map(|row| row.cells.iter().map(Cell::state).collect()).unwrap_or_default()
    }
}

fn watch_request(prefix: &str, token: &str) -> WatchRowsRequest {
    let (path_prefix, resume_token) = (prefix.to_owned(), token.to_owned());
    WatchRowsRequest { path_prefix, resume_token, ..WatchRowsRequest::default() }
}

/// H1: pages of files and rows are in order, bytewise, without gap or repetition, whatever their size; what is
/// registered or deleted meanwhile disturbs none of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_are_complete_and_in_order() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let mut paths: Vec<String> = (0..120).map(|number| format!("p/{number:03}")).collect();
    paths.extend(["p/Zz", "p/a b", "p/z/1", "p/z/2", "p/é", "p/日本"].map(str::to_owned));
    let files = paths.iter().map(|path| new_file(path, path.as_bytes())).collect();
    let request = RegisterFilesRequest { files, request_id: uuid() };
    caller.files().register_files(on("s1", request)).await.expect("registered");
    for other in ["o", "q", "pp"] {
        caller.register("s2", other, b"x").await.expect("registered");
    }
    paths.sort();
    mesh.in_sync("p/Zz").await;
    mesh.in_sync("pp").await;

    for (page_size, expected) in [(1, 1), (7, 7), (0, 50), (500, 126), (i32::MAX, 126)] {
        let (mut found, mut rows): (Vec<File>, Vec<Row>) = (Vec::new(), Vec::new());
        let mut page_token = String::new();
        for page in 0.. {
            let request = ListFilesRequest { path_prefix: "p/".to_owned(), page_size, page_token };
            let answer = caller.files().list_files(request).await.expect("lists").into_inner();
            assert!(page > 0 || answer.files.len() == expected, "{page_size}: {}", answer.files.len());
            found.extend(answer.files);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                break;
            }
            if page_size == 7 && page == 2 {
                // Behind the listing, and before it.
                let gone = found[1].clone();
                caller.delete("s1", &gone.path, gone.revision).await.expect("deleted");
                caller.register("s1", &gone.path, gone.path.as_bytes()).await.expect("registered");
            }
        }
        let listed: Vec<_> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(listed, paths, "{page_size}");
        mesh.in_sync("p/001").await;
        let mut page_token = String::new();
        loop {
            let path_prefix = "p/".to_owned();
            let request =
                ListRowsRequest { path_prefix, page_size, page_token, ..ListRowsRequest::default() };
            let answer = caller.matrix().list_rows(request).await.expect("lists").into_inner();
            assert!(answer.position.is_some() && answer.rows.len() <= expected.max(1));
            rows.extend(answer.rows);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let listed: Vec<_> = rows.iter().map(|row| row.path.as_str()).collect();
        assert_eq!(listed, paths, "{page_size}");
        let row = rows.iter().find(|row| row.path == "p/Zz").expect("a row");
        let file = caller.get("p/Zz").await.expect("there");
        assert_eq!((row.revision, row.size_bytes, row.origin_server_id.as_str()), (file.revision, 4, "s1"));
    }
    let none = ListFilesRequest { path_prefix: "nothing".to_owned(), ..ListFilesRequest::default() };
    let answer = caller.files().list_files(none).await.expect("lists").into_inner();
    assert!(answer.files.is_empty() && answer.next_page_token.is_empty());
}

/// R20, R41, R44: a watcher has the snapshot, then each registration within a second on whichever server it was made,
/// until all hold it; then the deletion; it goes on where it ended; and the end of the gateway ends it, as UNAVAILABLE.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_has_every_change_in_time() {
    let mut mesh = Mesh::new(3).await;
    let caller = mesh.operator("publisher");
    for number in 0..5 {
        caller.register("s1", &format!("w/{number}"), b"x").await.expect("registered");
    }
    caller.register("s1", "elsewhere", b"x").await.expect("registered");
    let mut matrix = mesh.operator("viewer").matrix();
    let mut watch = matrix.watch_rows(watch_request("w/", "")).await.expect("watches").into_inner();
    let mut seen = Seen::default();
    loop {
        let batch = next(&mut watch).await;
        let caught_up = batch.caught_up;
        seen.take(batch);
        if caught_up {
            break;
        }
    }
    assert_eq!(seen.rows.keys().map(String::as_str).collect::<Vec<_>>(), ["w/0", "w/1", "w/2", "w/3", "w/4"]);

    for server in ["s1", "s2", "s3"] {
        let path = format!("w/from {server}");
        let file = caller.register(server, &path, server.as_bytes()).await.expect("registered");
        // Since the answer: what is on its way longer has not been registered.
        let begun = Instant::now();
        while !seen.rows.contains_key(&path) {
            seen.take(next(&mut watch).await);
        }
        assert!(begun.elapsed() < SEEN_WITHIN, "{path}: {:?}", begun.elapsed());
        assert_eq!(seen.rows[&path].revision, file.revision);
        while seen.states(&path) != [cell::State::InSync; 3] {
            seen.take(next(&mut watch).await);
        }
        // What is told is true.
        for holder in ["s1", "s2", "s3"] {
            assert_eq!(std::fs::read(mesh.transfer(holder).join(&path)).expect("there"), server.as_bytes());
        }
    }
    let token = seen.token.clone();
    drop(watch);

    let gone = caller.get("w/0").await.expect("there");
    caller.delete("s2", "w/0", gone.revision).await.expect("deleted");
    caller.register("s3", "w/later", b"later").await.expect("registered");
    let mut watch = matrix.watch_rows(watch_request("w/", &token)).await.expect("watches").into_inner();
    let begun = Instant::now();
    let mut told = BTreeMap::new();
    while seen.rows.contains_key("w/0") || seen.states("w/later") != [cell::State::InSync; 3] {
        let batch = next(&mut watch).await;
        told.extend(batch.rows.iter().map(|row| (row.path.clone(), row.revision)));
        seen.take(batch);
    }
    assert!(begun.elapsed() < SOON);
    assert!(!told.contains_key("w/1") && !told.contains_key("elsewhere"), "only what changed: {told:?}");
    let other = matrix.watch_rows(watch_request("", &seen.token)).await.map(drop);
    refused("a token of another watch", other, Reason::ResumeTokenExpired);

    mesh.door().drain.begin();
    let end = loop {
        match timeout(SOON, watch.message()).await.expect("in time") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a watch ends with a status"),
            Err(told) => break told,
        }
    };
    refused("the end", Err::<(), _>(end), Reason::Draining);
    mesh.door().stop().await;
    mesh.start_gateway().await;
    mesh.ready().await;
    let mut matrix = mesh.operator("viewer").matrix();
    let expired = matrix.watch_rows(watch_request("w/", &seen.token)).await.map(drop);
    refused("a token of another life", expired, Reason::ResumeTokenExpired);
}

/// R13, H10: with one server nothing is scheduled, its own copy is in sync, and the status says that it is alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_is_in_sync_by_itself() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    caller.register("s1", "a", b"x").await.expect("registered");
    mesh.in_sync("a").await;
    let row = mesh.row("a").await.expect("a row");
    assert_eq!(row.cells.len(), 1);
    eventually("the summary says so", async || {
        let answer =
            caller.matrix().list_servers(ListServersRequest::default()).await.expect("lists").into_inner();
        let [only] = answer.servers.as_slice() else { panic!("one server: {answer:?}") };
        let counts = (only.lag_count, only.exception_count, only.in_sync_count, only.file_count);
        only.state() == server_summary::State::Ready && only.transfers.is_empty() && counts == (0, 0, 1, 1)
    })
    .await;
    let head = mesh.registry.head().await.expect("the registry answers");
    let answer =
        caller.matrix().list_servers(ListServersRequest::default()).await.expect("lists").into_inner();
    assert_eq!(answer.position.map(|position| position.revision), i64::try_from(head.revision.0).ok());
}

/// H10: reflection, in both versions, lists every service of the contract at the one door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_describes_the_whole_contract() {
    let mesh = Mesh::new(1).await;
    let channel = mesh.operator("viewer").channel;
    let mut expected: Vec<String> = prost_reflect::DescriptorPool::decode(lockstep_proto::DESCRIPTOR_SET)
        .expect("a whole set")
        .services()
        .map(|service| service.full_name().to_owned())
        .collect();
    expected.push("grpc.health.v1.Health".to_owned());
    macro_rules! list {
        ($version:ident) => {{
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let ask =
                |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            let mut asked = vec![ask(MessageRequest::ListServices(String::new()))];
            asked.extend(expected.iter().map(|name| ask(MessageRequest::FileContainingSymbol(name.clone()))));
            let mut client = ServerReflectionClient::new(channel.clone());
            let answers = client.server_reflection_info(futures::stream::iter(asked)).await.expect("answers");
            let mut answers = answers.into_inner();
            let mut listed = Vec::new();
            while let Some(answer) = answers.message().await.expect("a message") {
                match answer.message_response {
                    Some(MessageResponse::ListServicesResponse(list)) => {
                        listed = list.service.into_iter().map(|service| service.name).collect();
                    }
                    Some(MessageResponse::FileDescriptorResponse(found)) => {
                        assert!(!found.file_descriptor_proto.is_empty());
                    }
                    other => panic!("{other:?}"),
                }
            }
            listed
        }};
    }
    for listed in [list!(v1), list!(v1alpha)] {
        for name in &expected {
            assert!(listed.contains(name), "{name} is not in {listed:?}");
        }
    }
}

/// H10: the door is not ready before it read the registry, then it is; a drain ends that, and whoever watches hears of
/// each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_is_not_ready_at_first() {
    let mut mesh = Mesh::new(1).await;
    let client = |mesh: &Mesh| HealthClient::new(mesh.operator("viewer").channel);
    let request = |service: &str| HealthCheckRequest { service: service.to_owned() };
    eventually("ready", async || mesh.door().health.is_ready()).await;
    let mut health = client(&mesh);
    let mut check =
        async |service: &str| health.check(request(service)).await.map(|answer| answer.into_inner().status());
    for service in ["", "liveness", "lockstep.gateway.v1.MatrixService"] {
        assert_eq!(check(service).await.expect("answers"), ServingStatus::Serving, "{service}");
    }
    assert_eq!(check("nothing").await.expect_err("unknown").code(), tonic::Code::NotFound);
    let mut watch = client(&mesh).watch(request("")).await.expect("watches").into_inner();
    let mut told = async || watch.message().await.map(|message| message.expect("a message").status());
    assert_eq!(told().await.expect("a message"), ServingStatus::Serving);
    mesh.door().drain.begin();
    let told = told().await;
    let ended =
        told.as_ref().is_err_and(|told| lockstep_chassis::status::read(told).reason == Reason::Draining);
    assert!(ended || told.as_ref().is_ok_and(|status| *status == ServingStatus::NotServing), "{told:?}");
    mesh.door().stop().await;

    // It starts without a registry that answers: it says so, and is not ready.
    mesh.start_gateway_without_registry().await;
    let mut health = client(&mesh);
    let mut check =
        async |service: &str| health.check(request(service)).await.map(|answer| answer.into_inner().status());
    assert_eq!(mesh.door().health.unmet(), ["registry"]);
    assert_eq!(check("").await.expect("answers"), ServingStatus::NotServing);
    assert_eq!(check("lockstep.gateway.v1.MatrixService").await.expect("answers"), ServingStatus::NotServing);
    let list = mesh.operator("viewer").matrix().list_rows(ListRowsRequest::default()).await;
    refused("nothing was read", list, Reason::RegistryUnavailable);
    let get = mesh.operator("viewer").get("a").await;
    refused("nothing was read", get, Reason::RegistryUnavailable);
    mesh.door().stop().await;
    mesh.start_gateway().await;
    eventually("ready", async || {
        client(&mesh)
            .check(request(""))
            .await
            .is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
    })
    .await;
}
