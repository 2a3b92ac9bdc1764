//! Connection data for devices, from real servers; and what people say of servers.

use std::collections::BTreeSet;

use lockstep_chassis::SealKey;
use lockstep_model::{
    FirmwareId, Reason,
    clock::SystemEntropy,
    firmware::{FirmwareFile, FirmwareOrigin, FirmwareRecord, FirmwareState, Protocol, firmware_key},
};
use lockstep_proto::{
    filesync::v1::{CheckFilesRequest, check_files_request::Depth},
    gateway::v1::cell::State,
    resolver::v1::{
        Connection, ListServersRequest, ResolveConnectionRequest, ResolveConnectionResponse, Server,
        UpdateServerRequest,
        resolve_connection_request::{Detail, Subject},
        verdict,
    },
};
use lockstep_registry::{Commit, Registry as _};
use prost_types::FieldMask;
use tonic::Status;

use crate::{
    mesh::{Caller, Mesh, Options, PASSWORD_KEY, Running, eventually, on, uuid},
    refusal::refused,
};

const UPDATE: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

fn of_path(path: &str, current: &str) -> ResolveConnectionRequest {
    ResolveConnectionRequest {
        subject: Some(Subject::Path(path.to_owned())),
        current_server_id: current.to_owned(),
        device_id: "device-1".to_owned(),
        ..ResolveConnectionRequest::default()
    }
}

fn of_update(id: &str, current: &str) -> ResolveConnectionRequest {
    ResolveConnectionRequest { subject: Some(Subject::FirmwareId(id.to_owned())), ..of_path("", current) }
}

async fn resolve(
    caller: &Caller,
    request: ResolveConnectionRequest,
) -> Result<ResolveConnectionResponse, Status> {
    caller.connections().resolve_connection(request).await.map(tonic::Response::into_inner)
}

async fn connection(caller: &Caller, request: ResolveConnectionRequest) -> Result<Connection, Status> {
    Ok(resolve(caller, request).await?.connection.expect("the contract says so"))
}

async fn chosen(caller: &Caller, request: ResolveConnectionRequest) -> String {
    connection(caller, request).await.map_or_else(|told| told.message().to_owned(), |found| found.server_id)
}

async fn state(mesh: &Mesh, path: &str, server: &str) -> State {
    let cells = mesh.row(path).await.map(|row| row.cells).unwrap_or_default();
    cells.into_iter().find(|cell| cell.server_id == server).unwrap_or_default().state()
}

/// An update of these files; the tests are its catalog.
async fn publish(mesh: &Mesh, id: &str, files: &[&str], change: impl FnOnce(&mut FirmwareRecord)) {
    let file = |path: &&str| FirmwareFile {
        path: path.parse().expect("a path"),
        size_bytes: 10,
        sha256: "00".repeat(32),
        uri: String::new(),
        upload_id: UPDATE.parse().expect("an id"),
        file_id: None,
        new_path: None,
    };
    let mut record = FirmwareRecord {
        model: "M1".to_owned(),
        version: "1.0".to_owned(),
        state: FirmwareState::Published,
        failure: None,
        origin: FirmwareOrigin::Import,
        server_id: "s1".parse().expect("a server id"),
        target: Some("fw/m 1".parse().expect("a path")),
        protocol: Protocol::HttpsWebdav,
        host: String::new(),
        port: None,
        path: String::new(),
        user: String::new(),
        sealed_password: String::new(),
        in_use: false,
        release_notes: String::new(),
        added_time: jiff::Timestamp::UNIX_EPOCH,
        files: files.iter().map(file).collect(),
        requested_by: "operator/local 1".to_owned(),
    };
    change(&mut record);
    let id: FirmwareId = id.parse().expect("an id");
    let puts = vec![(firmware_key(&id), serde_json::to_string(&record).expect("serialises"))];
    mesh.registry.commit(Commit { puts, ..Commit::default() }).await.expect("commits");
}

/// A change of one server, as far as the mask goes.
fn change(server: Server, mask: &[&str], revision: i64) -> UpdateServerRequest {
    let paths = mask.iter().map(|path| (*path).to_owned()).collect();
    UpdateServerRequest {
        server: Some(server),
        update_mask: Some(FieldMask { paths }),
        expected_revision: revision,
        request_id: uuid(),
    }
}

fn named(id: &str) -> Server {
    Server { server_id: id.to_owned(), ..Server::default() }
}

async fn update(caller: &Caller, request: UpdateServerRequest) -> Result<Server, Status> {
    let answer = caller.described().update_server(request).await?.into_inner();
    Ok(answer.server.expect("the contract says so"))
}

/// s1 and s2 hold `fw/m 1/a` and `fw/m 1/b`; s3 has no room for them.
async fn mesh() -> Mesh {
    let full = Options { reserve_bytes: 1 << 60, ..Options::default() };
    let mesh = Mesh::with(vec![Options::default(), Options::default(), full]).await;
    let caller = mesh.operator("publisher");
    for path in ["fw/m 1/a", "fw/m 1/b"] {
        caller.register("s1", path, b"some bytes").await.expect("registered");
        eventually("s2 holds it", async || state(&mesh, path, "s2").await == State::InSync).await;
        eventually("s3 has no room", async || state(&mesh, path, "s3").await == State::Failed).await;
    }
    publish(&mesh, UPDATE, &["fw/m 1/a", "fw/m 1/b"], |_| {}).await;
    mesh
}

/// R47, R48, R51, R69: the current server if it holds every byte, else another that does; one that lost or changed a byte, or
/// cannot be reached, is not sent; when nobody is left it is "not yet", with why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_sent_to_a_server_that_holds_all_of_it() {
    let mesh = mesh().await;
    let caller = mesh.operator("viewer");
    for server in ["s1", "s2"] {
        for request in [of_update(UPDATE, server), of_path("fw/m 1/a", server)] {
            eventually("its own data", async || chosen(&caller, request.clone()).await == server).await;
        }
    }
    let found = connection(&caller, of_update(UPDATE, "s1")).await.expect("found");
    assert_eq!(
        (found.protocol.as_str(), found.host.as_str(), found.port, found.path.as_str(), found.uri.as_str()),
        (
            "https",
            "127.0.0.1",
            8443,
            "/ums_filetransfer/fw/m%201",
            "https://127.0.0.1:8443/ums_filetransfer/fw/m%201"
        )
    );

    let explained = ResolveConnectionRequest { detail: Detail::Explained.into(), ..of_update(UPDATE, "s3") };
    let answer = resolve(&caller, explained).await.expect("found");
    let sent = answer.connection.expect("the contract says so").server_id;
    assert!(["s1", "s2"].contains(&sent.as_str()), "{sent}");
    let states: Vec<verdict::State> = answer.verdicts.iter().map(|verdict| verdict.state()).collect();
    use verdict::State::{Chosen, Excluded, PassedOver};
    assert_eq!(states, [Chosen, PassedOver, Excluded], "{:?}", answer.verdicts);
    assert_eq!(answer.verdicts[0].server_id, sent);
    let s3 = answer.verdicts.last().expect("three");
    let reason = s3.failure.as_ref().map_or("", |failure| failure.reason.as_str());
    assert_eq!((s3.server_id.as_str(), reason, s3.rank_index), ("s3", "DISK_FULL", 0), "{s3:?}");
    let head = mesh.registry.head().await.expect("answers");
    assert_eq!(answer.position.map(|position| position.revision), Some(head.revision.0 as i64));

    // One byte is another: that server does not hold the update any more, but the other file all the same.
    std::fs::write(mesh.transfer("s2").join("fw/m 1/b"), b"other bytes").expect("written");
    let check = CheckFilesRequest { depth: Depth::Times.into(), ..CheckFilesRequest::default() };
    mesh.operator("operator").stores().check_files(on("s2", check)).await.expect("compared");
    eventually("s2 is passed over", async || chosen(&caller, of_update(UPDATE, "s2")).await == "s1").await;
    assert_eq!(chosen(&caller, of_path("fw/m 1/a", "s2")).await, "s2");
    assert_eq!(chosen(&caller, of_path("fw/m 1/b", "s2")).await, "s1");

    mesh.servers["s1"].stop().await;
    let refusal = async || match resolve(&caller, of_update(UPDATE, "s1")).await {
        Ok(answer) => Ok(answer),
        Err(told) => Err(told),
    };
    eventually("nobody is left", async || refusal().await.is_err()).await;
    let told =
        refused("nobody", refusal().await, Reason::NotAvailableYet).says(&["s1", "s2", "s3", "M1 1.0"]);
    assert_eq!(told.value("copied_bytes"), "10");
    let told = refused("nobody", resolve(&caller, of_path("fw/m 1/b", "s2")).await, Reason::NotAvailableYet);
    told.says(&["no server holds all of it"]);
}

/// R51, R52, R53: before it is published an update is "not yet"; each protocol has its own port; what was entered for others
/// is sent as it was entered, with the password in plain text, from whoever has the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_sent_as_its_protocol_says() {
    let mesh = mesh().await;
    let caller = mesh.operator("viewer");
    let files = ["fw/m 1/a", "fw/m 1/b"];
    let asked = || of_update(UPDATE, "s1");
    let answered = async |what: &str| {
        let head = mesh.registry.head().await.expect("answers").revision.0 as i64;
        eventually(what, async || {
            // Whatever is not known yet: a refusal has no position.
            let answer = resolve(&caller, of_path("fw/m 1/a", "s1")).await.expect("found");
            answer.position.is_some_and(|position| position.revision >= head)
        })
        .await;
    };
    for (state, says) in [
        (FirmwareState::Downloading, "being downloaded to s1"),
        (FirmwareState::Verifying, "being verified"),
        (FirmwareState::Failed, "failed"),
        (FirmwareState::Deleting, "being deleted"),
    ] {
        publish(&mesh, UPDATE, &files, |record| record.state = state).await;
        answered("the state is known").await;
        refused(says, resolve(&caller, asked()).await, Reason::NotAvailableYet).says(&[says]);
    }
    publish(&mesh, UPDATE, &files, |record| record.protocol = Protocol::HttpWebdav).await;
    answered("the protocol is known").await;
    let found = connection(&caller, asked()).await.expect("found");
    assert_eq!(found.uri, "http://127.0.0.1:9080/ums_filetransfer/fw/m%201");

    let key = SealKey::parse(PASSWORD_KEY).expect("a key");
    let owner = firmware_key(&UPDATE.parse().expect("an id"));
    publish(&mesh, UPDATE, &files, |record| {
        record.protocol = Protocol::Sftp;
        (record.host, record.path) = ("fd00::7".to_owned(), "/m1".to_owned());
        record.user = "device".to_owned();
        record.sealed_password = key.seal("canary", &owner, &SystemEntropy);
    })
    .await;
    answered("what was entered is known").await;
    let found = connection(&caller, asked()).await.expect("found");
    assert_eq!((found.host.as_str(), found.port, found.server_id.as_str()), ("fd00::7", 22, ""));
    assert_eq!((found.uri.as_str(), found.user.as_str()), ("sftp://[fd00::7]:22/m1", "device"));
    assert_eq!(found.password, "canary");

    let without = mesh.another_resolver(None).await;
    let caller = mesh.operator_at(&without, "viewer");
    eventually("it has read the registry", async || {
        connection(&caller, of_path("fw/m 1/a", "s1")).await.is_ok()
    })
    .await;
    let told = refused("no key", resolve(&caller, asked()).await, Reason::NotAvailableYet);
    told.says(&["--password-key"]);
}

/// R49, R54, decision 11: a changed address is in the very next answer of the resolver that changed it, and of every other that
/// says a position that has it; of two changes at once one wins; a repetition is answered as the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_address_is_in_the_very_next_answer() {
    let mesh = mesh().await;
    let other = mesh.another_resolver(None).await;
    let (here, there) = (mesh.operator("operator"), mesh.operator_at(&other, "operator"));
    for caller in [&here, &there] {
        eventually("it knows", async || chosen(caller, of_path("fw/m 1/a", "s1")).await == "s1").await;
    }
    let mut revision = 0;
    for turn in 0..20 {
        let public_address = if turn % 5 == 4 { String::new() } else { format!("cdn{turn}.test") };
        let public_https_port = 1_000 + turn;
        let server = Server {
            public_address: public_address.clone(),
            public_https_port: Some(public_https_port),
            ..named("s1")
        };
        let request = change(server, &["public_address", "public_https_port"], revision);
        let described = update(&here, request.clone()).await.expect("changed");
        let expected = if public_address.is_empty() { "127.0.0.1".to_owned() } else { public_address };
        let found = connection(&here, of_path("fw/m 1/a", "s1")).await.expect("found");
        assert_eq!((found.host, found.port), (expected.clone(), public_https_port), "the very next answer");
        loop {
            let answer = resolve(&there, of_path("fw/m 1/a", "s1")).await.expect("found");
            let found = answer.connection.expect("the contract says so");
            if answer.position.is_some_and(|position| position.revision >= described.revision) {
                assert_eq!((found.host, found.port), (expected, public_https_port), "at that position");
                break;
            }
        }
        let again = update(&there, request.clone()).await.expect("a repetition");
        assert_eq!(again, described);
        let another = UpdateServerRequest { expected_revision: 99, ..request };
        refused("reused", update(&here, another).await, Reason::RequestIdReused);
        let stale = change(named("s1"), &["public_address"], revision);
        let told = refused("stale", update(&there, stale).await, Reason::RevisionChanged);
        assert_eq!(told.with(&["server_id"]).value("actual_revision"), described.revision.to_string());
        revision = described.revision;
    }
    let twice = change(Server { site: "twice".to_owned(), ..named("s3") }, &["site"], 0);
    let (a, b) = tokio::join!(update(&here, twice.clone()), update(&there, twice.clone()));
    assert_eq!(a.expect("changed"), b.expect("the same"), "one request on two resolvers at once");
    let undo = change(named("s3"), &["site"], update(&here, twice).await.expect("again").revision);
    update(&here, undo).await.expect("changed");
    let race = |site: &str| change(Server { site: site.to_owned(), ..named("s2") }, &["site"], 0);
    let (a, b) = tokio::join!(update(&here, race("north")), update(&there, race("south")));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let winner = a.or(b).expect("one won");
    // The site decides who comes first for a device of another server (R50).
    let request = ResolveConnectionRequest { device_site: winner.site.clone(), ..of_path("fw/m 1/a", "s3") };
    eventually("the site counts", async || chosen(&here, request.clone()).await == "s2").await;

    let first = ListServersRequest { page_size: 2, ..Default::default() };
    let listed = here.described().list_servers(first).await.expect("lists").into_inner();
    assert_eq!((listed.servers[1].clone(), listed.next_page_token.is_empty()), (winner, false));
    let (page_size, page_token) = (2, listed.next_page_token);
    let rest = ListServersRequest { page_size, page_token };
    let rest = here.described().list_servers(rest).await.expect("lists").into_inner();
    assert_eq!((rest.servers.len(), rest.next_page_token.as_str()), (1, ""));
    let s3 = &rest.servers[0];
    assert_eq!(
        (s3.site.as_str(), s3.host_name.as_str(), s3.https_port, s3.http_port),
        ("", "127.0.0.1", Some(8443), Some(9080))
    );
}

/// R49, R69: bad input gets its reason, the field and the rule, all at once; and nothing is half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_questions_and_addresses_are_refused_by_name() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("operator");
    caller.register("s1", "a", b"x").await.expect("registered");
    eventually("it is known", async || chosen(&caller, of_path("a", "s1")).await == "s1").await;
    let before = mesh.registry.head().await.expect("answers");

    let nothing = resolve(&caller, ResolveConnectionRequest::default()).await;
    refused("nothing", nothing, Reason::FieldViolation).blames(&[
        "subject",
        "current_server_id",
        "device_id",
    ]);
    let asked = |change: fn(&mut ResolveConnectionRequest)| {
        let mut request = of_path("a", "s1");
        change(&mut request);
        resolve(&caller, request)
    };
    refused("path", asked(|r| r.subject = Some(Subject::Path("../a".into()))).await, Reason::PathInvalid);
    let id = asked(|r| r.subject = Some(Subject::FirmwareId("M1".into()))).await;
    refused("id", id, Reason::FieldViolation).blames(&["firmware_id"]);
    refused("device", asked(|r| r.device_id = "a b".into()).await, Reason::FieldViolation)
        .blames(&["device_id"]);
    let long = asked(|r| r.device_id = "d".repeat(129)).await;
    refused("device", long, Reason::FieldViolation).blames(&["device_id"]);
    let site = asked(|r| r.device_site = "s".repeat(65)).await;
    refused("site", site, Reason::FieldViolation).blames(&["device_site"]);
    refused("detail", asked(|r| r.detail = 99).await, Reason::FieldViolation).blames(&["detail"]);
    let server = asked(|r| r.current_server_id = "s9".into()).await;
    assert_eq!(refused("server", server, Reason::ServerUnknown).with(&["server_id"]).resource(), "s9");
    refused("file", resolve(&caller, of_path("b", "s1")).await, Reason::FileNotFound).with(&["path"]);
    let none = resolve(&caller, of_update(UPDATE, "s1")).await;
    refused("update", none, Reason::FirmwareNotFound).with(&["firmware_id"]);

    let hosts = [
        ("https://cdn.test", "scheme"),
        ("cdn.test/path", "path"),
        ("cdn.test:443", "port"),
        ("[fd00::1]", "brackets"),
        ("user@cdn.test", "user"),
        ("cdn_test", "DNS host name"),
        ("10.0.0.999", "IPv4"),
    ];
    for (public_address, rule) in hosts {
        let server = Server { public_address: public_address.to_owned(), ..named("s1") };
        let told = update(&caller, change(server, &["public_address"], 0)).await;
        let told = refused(public_address, told, Reason::FieldViolation).blames(&["server.public_address"]);
        told.says(&[rule]);
    }
    for port in [-1, 0, 65_536, i32::MAX].map(Some) {
        let server =
            Server { https_port: port, public_http_port: port, host_name: "a b".into(), ..named("s1") };
        let request = change(server, &["https_port", "public_http_port", "host_name"], 0);
        refused("port", update(&caller, request).await, Reason::FieldViolation)
            .says(&["1 to 65535"])
            .blames(&["server.host_name", "server.https_port", "server.public_http_port"]);
    }
    let long = Server { display_name: "d".repeat(129), site: "\u{1b}[31m".into(), ..named("s1") };
    let request = change(long, &["display_name", "site"], 0);
    refused("texts", update(&caller, request).await, Reason::FieldViolation)
        .blames(&["server.display_name", "server.site"]);
    for mask in [&[][..], &["server_id"], &["revision"], &["nonsense"]] {
        let request = change(named("s1"), mask, 0);
        refused("mask", update(&caller, request).await, Reason::FieldViolation).blames(&["update_mask"]);
    }
    let request = UpdateServerRequest { server: None, ..change(named("s1"), &["site"], 0) };
    refused("server", update(&caller, request).await, Reason::FieldViolation).blames(&["server"]);
    let request = UpdateServerRequest { request_id: String::new(), ..change(named("s1"), &["site"], -1) };
    refused("id", update(&caller, request).await, Reason::FieldViolation)
        .blames(&["request_id", "expected_revision"]);
    let unknown = update(&caller, change(named("s9"), &["site"], 0)).await;
    refused("server", unknown, Reason::ServerUnknown).with(&["server_id"]);
    let early = update(&caller, change(named("s1"), &["site"], 7)).await;
    refused("revision", early, Reason::RevisionChanged).with(&["actual_revision"]);
    let viewer = mesh.operator("publisher");
    let denied = update(&viewer, change(named("s1"), &["site"], 0)).await;
    refused("right", denied, Reason::PermissionDenied);
    let listed = |page_size, page_token: &str| {
        let (mut described, page_token) = (caller.described(), page_token.to_owned());
        async move { described.list_servers(ListServersRequest { page_size, page_token }).await }
    };
    refused("size", listed(-1, "").await, Reason::FieldViolation).blames(&["page_size"]);
    refused("token", listed(0, "zz").await, Reason::PageTokenInvalid);
    assert_eq!(mesh.registry.head().await.expect("answers"), before, "nothing is half done");
}

/// R51, decision 3: a resolver that starts while all servers are away offers nobody; one that knew them and loses the registry
/// goes on answering from what it knows; one that never read it says so, and is not ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_says_what_it_knows_or_not_yet() {
    let mesh = mesh().await;
    for server in ["s1", "s2", "s3"] {
        mesh.servers[server].stop().await;
    }
    let late = mesh.another_resolver(None).await;
    let caller = mesh.operator_at(&late, "viewer");
    eventually("it has read the registry", async || late.health.is_ready()).await;
    for current in ["s1", "s2", "s3"] {
        let told = resolve(&caller, of_update(UPDATE, current)).await;
        refused("away", told, Reason::NotAvailableYet).says(&["cannot be reached"]);
    }
    let unread: Running = mesh.resolver_without_registry().await;
    // Its members cannot be asked either, so only a service of the installation gets as far as the answer.
    let caller = mesh.operator_at(&unread, "viewer");
    let told = resolve(&caller, of_update(UPDATE, "s1")).await;
    refused("unread", told, Reason::RegistryUnavailable);
    assert!(!unread.health.is_ready());
}

/// R50: the same device has the same answer from every resolver and through the door; devices spread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_resolver_gives_a_device_the_same_answer() {
    let mesh = mesh().await;
    let other = mesh.another_resolver(None).await;
    let (here, there) = (mesh.operator("viewer"), mesh.operator_at(&other, "viewer"));
    for caller in [&here, &there] {
        for server in ["s1", "s2"] {
            eventually("it knows", async || chosen(caller, of_update(UPDATE, server)).await == server).await;
        }
    }
    let mut servers = BTreeSet::new();
    for number in 0..40 {
        let request =
            ResolveConnectionRequest { device_id: format!("device-{number}"), ..of_update(UPDATE, "s3") };
        let (a, b) = (chosen(&here, request.clone()).await, chosen(&there, request).await);
        assert_eq!(a, b);
        servers.insert(a);
    }
    assert_eq!(servers.into_iter().collect::<Vec<_>>(), ["s1", "s2"]);
}
