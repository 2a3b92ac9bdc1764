//! Who may call what: every RPC of the contract with every identity, at a server and through the one door.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_chassis::{PRINCIPAL_KEY, SERVER_KEY, pki::DevelopmentCa, status};
use lockstep_model::{
    Identity, Reason, Role,
    firmware::{FirmwareOrigin, FirmwareRecord, FirmwareState, Protocol, firmware_key},
};
use lockstep_proto::{
    catalog::v1 as catalog, filesync::v1 as filesync, gateway::v1 as gateway, resolver::v1 as resolver,
    timeguard::v1 as timeguard,
};
use lockstep_registry::{Commit, Registry as _};
use lockstep_tests::harness::{
    Vendor,
    vendor::{feed, offer, zip_of},
};
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor, Value};
use tokio::time::timeout;
use tonic::Status;

use crate::{
    calls::{Stranger, Wire, call, framed},
    mesh::{Caller, Mesh, OPERATORS, SOON, chunk, header, new_file, of_server, operator, uuid},
};

/// What an identity gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Anything but a refusal of who it is.
    Allowed,
    /// `PERMISSION_DENIED`.
    Denied,
    /// `UNAUTHENTICATED`: a good certificate of nobody who is known.
    Unknown,
}

/// An RPC, and the right that stands next to it.
struct Rpc {
    name: String,
    /// Health and reflection: for whoever has a certificate of the installation.
    open: bool,
    role: i32,
    services: Vec<String>,
    changes: bool,
}

impl Rpc {
    fn service(&self) -> &str {
        self.name.split('.').nth(1).unwrap_or_default()
    }

    /// What the contract gives to `identity` on the server `s1`.
    fn outcome(&self, identity: &Identity) -> Outcome {
        let given = |service: &str| self.services.iter().any(|known| known == service);
        let allowed = match identity {
            _ if self.open => true,
            Identity::Operator(name) => match OPERATORS.iter().find(|(known, _)| known == name) {
                None => return Outcome::Unknown,
                Some((_, role)) => self.role > 0 && number(*role) >= self.role,
            },
            Identity::Server { server_id, service } => match server_id.as_str() {
                "s1" => given(service) || given(&format!("own/{service}")),
                "s2" => given(service),
                _ => return Outcome::Unknown,
            },
            Identity::Service(service) => given(service),
        };
        if allowed { Outcome::Allowed } else { Outcome::Denied }
    }
}

/// The number of a role in the contract.
fn number(role: Role) -> i32 {
    match role {
        Role::Viewer => 1,
        Role::Publisher => 2,
        Role::Operator => 3,
        Role::Admin => 4,
    }
}

/// Every RPC, read from the descriptors and not by the code that enforces them.
fn rpcs() -> Vec<Rpc> {
    let ours = DescriptorPool::decode(lockstep_proto::DESCRIPTOR_SET).expect("a whole set");
    let extension = ours.get_extension_by_name("lockstep.shared.v1.rights").expect("the option is ours");
    let read = |method: MethodDescriptor| {
        let options = method.options();
        let value = options.get_extension(&extension);
        let rights = value.as_message().expect("a message");
        let list = rights.get_field_by_name("services").expect("a field");
        let level = options.get_field_by_name("idempotency_level").and_then(|level| level.as_enum_number());
        Rpc {
            name: format!("{}/{}", method.parent_service().full_name(), method.name()),
            open: false,
            role: rights.get_field_by_name("role").and_then(|role| role.as_enum_number()).expect("a number"),
            services: list
                .as_list()
                .expect("a list")
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            changes: level != Some(1),
        }
    };
    let mut rpcs: Vec<Rpc> =
        ours.services().flat_map(|service| service.methods().collect::<Vec<_>>()).map(read).collect();
    let foreign = ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"].into_iter().chain([
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ]);
    rpcs.extend(foreign.map(|name| Rpc {
        name: name.to_owned(),
        open: true,
        role: 0,
        services: Vec::new(),
        changes: false,
    }));
    assert!(rpcs.len() > 10, "the contract was read");
    rpcs
}

fn bytes(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// Files that are registered before anything is called.
#[derive(Clone, Debug)]
struct Known {
    existing: filesync::File,
    kept: filesync::File,
    /// Goes together with others.
    doomed: filesync::File,
    run_id: String,
    /// Updates: one to cancel, one to try again, one to edit, one to delete.
    updates: [catalog::Firmware; 4],
}

impl Known {
    /// Registers them, and sets bytes aside on s1 for whoever may restore or delete them.
    async fn make(mesh: &Mesh) -> Self {
        let admin = mesh.operator("local");
        let doomed = admin.register("s1", "right/with-others", b"kept").await.expect("registered");
        let updates = updates(mesh).await;
        let existing = admin.register("s1", "right/existing", b"wanted").await.expect("registered");
        let kept = admin.register("s1", "right/kept", b"kept").await.expect("registered");
        for name in ["restored", "deleted"] {
            let aside = mesh.root("s1").join(".lockstep/aside").join(name);
            std::fs::write(aside, b"set aside").expect("written");
        }
        let request = gateway::StartSyncRunRequest { request_id: uuid(), ..Default::default() };
        let run = admin.runs().start_sync_run(request).await.expect("started").into_inner().run;
        Self { existing, kept, doomed, run_id: run.expect("a run").run_id, updates }
    }
}

/// Updates without files, as the registry has them, and one more that nobody uses.
async fn updates(mesh: &Mesh) -> [catalog::Firmware; 4] {
    let record = |state: FirmwareState| FirmwareRecord {
        model: "UD3".to_owned(),
        version: "1".to_owned(),
        state,
        failure: None,
        origin: FirmwareOrigin::Feed { source_id: "gone".to_owned(), offer_id: uuid() },
        server_id: "s1".parse().expect("an id"),
        target: None,
        protocol: Protocol::Https,
        host: String::new(),
        port: None,
        path: String::new(),
        user: String::new(),
        sealed_password: String::new(),
        // What is tried again becomes published, and must not count as unused then.
        in_use: state == FirmwareState::Failed,
        release_notes: String::new(),
        added_time: "2026-01-01T00:00:00Z".parse().expect("a time"),
        files: Vec::new(),
        requested_by: "operator/local seed".to_owned(),
    };
    let states =
        [FirmwareState::Failed, FirmwareState::Failed, FirmwareState::Published, FirmwareState::Published];
    let mut made = Vec::new();
    for state in states.into_iter().chain([FirmwareState::Published]) {
        let firmware_id = uuid();
        let key = firmware_key(&firmware_id.parse().expect("an id"));
        let puts = vec![(key, serde_json::to_string(&record(state)).expect("JSON"))];
        let done = mesh.registry.commit(Commit { puts, ..Commit::default() }).await.expect("commits");
        let revision = i64::try_from(done.revision.0).expect("small");
        made.push(catalog::Firmware { firmware_id, revision, ..catalog::Firmware::default() });
    }
    made.pop();
    made.try_into().expect("four")
}

fn mask(field: &str) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: vec![field.to_owned()] })
}

/// The same for what is called of firmware, settings and servers.
fn effective_elsewhere(method: &str, known: &Known) -> Option<Vec<Bytes>> {
    let [cancelled, restored, edited, deleted] = &known.updates;
    let firmware_id = |update: &catalog::Firmware| update.firmware_id.clone();
    let message = match method {
        "RefreshOffers" => {
            bytes(&catalog::RefreshOffersRequest { source_id: String::new(), request_id: uuid() })
        }
        "SampleClock" | "GetClockReport" | "WatchClockReports" => Bytes::new(),
        "StartClockOverride" => bytes(&timeguard::StartClockOverrideRequest {
            justification: "a test of rights".to_owned(),
            request_id: uuid(),
        }),
        "CancelClockOverride" => bytes(&timeguard::CancelClockOverrideRequest { request_id: uuid() }),
        "ListOffers" | "ListFirmware" | "WatchFirmware" | "GetSettings" | "ListFirmwareRows" => Bytes::new(),
        "StartDownload" => bytes(&catalog::StartDownloadRequest {
            source_id: "acme".to_owned(),
            offer_id: "os".to_owned(),
            server_id: "s1".to_owned(),
            target_path: "right/fw".to_owned(),
            protocol: 0,
            request_id: uuid(),
        }),
        "CancelDownload" => {
            bytes(&catalog::CancelDownloadRequest { firmware_id: firmware_id(cancelled), request_id: uuid() })
        }
        "RestoreDownload" => {
            bytes(&catalog::RestoreDownloadRequest { firmware_id: firmware_id(restored), request_id: uuid() })
        }
        "WriteFirmware" => return Some(archive()),
        "GetFirmware" => bytes(&catalog::GetFirmwareRequest { firmware_id: firmware_id(edited) }),
        "UpdateFirmware" => bytes(&catalog::UpdateFirmwareRequest {
            firmware: Some(catalog::Firmware { use_state: 2, ..edited.clone() }),
            update_mask: mask("use_state"),
            password: String::new(),
            expected_revision: edited.revision,
            request_id: uuid(),
        }),
        "DeleteFirmware" => bytes(&catalog::DeleteFirmwareRequest {
            firmware_id: firmware_id(deleted),
            expected_revision: deleted.revision,
            request_id: uuid(),
        }),
        // The one that is left when one is edited to be used and one is deleted.
        "DeleteUnusedFirmware" => bytes(&catalog::DeleteUnusedFirmwareRequest {
            dry_run: false,
            expected_count: 1,
            request_id: uuid(),
        }),
        "UpdateSettings" => bytes(&catalog::UpdateSettingsRequest {
            settings: Some(catalog::Settings { firmware_synchronization: 2, ..catalog::Settings::default() }),
            update_mask: mask("firmware_synchronization"),
            expected_revision: 0,
            request_id: uuid(),
        }),
        "UpdatePlacement" => bytes(&filesync::UpdatePlacementRequest {
            files: vec![seen(&known.kept)],
            placement: Some(filesync::Placement { scope: 2, reason: "OPTION_OFF".to_owned() }),
            request_id: uuid(),
        }),
        "DeleteFiles" => {
            bytes(&filesync::DeleteFilesRequest { files: vec![seen(&known.doomed)], request_id: uuid() })
        }
        "CancelUpload" => bytes(&filesync::CancelUploadRequest { upload_id: uuid(), request_id: uuid() }),
        "CheckSpace" => bytes(&filesync::CheckSpaceRequest { size_bytes: 1 }),
        "ResolveConnection" => bytes(&resolver::ResolveConnectionRequest {
            subject: Some(resolver::resolve_connection_request::Subject::Path(known.existing.path.clone())),
            current_server_id: "s1".to_owned(),
            device_id: "device".to_owned(),
            ..resolver::ResolveConnectionRequest::default()
        }),
        "UpdateServer" => bytes(&resolver::UpdateServerRequest {
            server: Some(resolver::Server {
                server_id: "s1".to_owned(),
                site: "here".to_owned(),
                ..resolver::Server::default()
            }),
            update_mask: mask("site"),
            expected_revision: 0,
            request_id: uuid(),
        }),
        _ => return None,
    };
    Some(vec![message])
}

fn seen(file: &filesync::File) -> filesync::SeenFile {
    filesync::SeenFile { path: file.path.clone(), expected_revision: file.revision }
}

/// A zip with one stored file, as a stream.
fn archive() -> Vec<Bytes> {
    use catalog::write_firmware_request::Part;
    let archive = zip_of(&[("imported", b"imported")]);
    let header = catalog::FirmwareHeader {
        model: "UD3".to_owned(),
        version: "1".to_owned(),
        server_id: "s1".to_owned(),
        target_path: "right/imported".to_owned(),
        protocol: 0,
        size_bytes: i64::try_from(archive.len()).expect("small"),
        request_id: uuid(),
    };
    let chunk = catalog::FirmwareChunk { offset_bytes: 0, data: archive.into() };
    [Part::Header(header), Part::Chunk(chunk)]
        .map(|part| bytes(&catalog::WriteFirmwareRequest { part: Some(part) }))
        .to_vec()
}

/// Messages with which the RPC would do something: the call of somebody without the right must not.
fn effective(rpc: &Rpc, known: &Known) -> Vec<Bytes> {
    let Known { existing, kept, run_id, .. } = known;
    let (_, method) = rpc.name.split_once('/').expect("a method");
    let digest = existing.digest.clone();
    match method {
        "RegisterFile" => {
            let file = Some(new_file(&format!("right/{}", uuid()), b"unwanted"));
            vec![bytes(&filesync::RegisterFileRequest { file, request_id: uuid() })]
        }
        "RegisterFiles" => {
            let files = vec![new_file(&format!("right/{}", uuid()), b"unwanted")];
            vec![bytes(&filesync::RegisterFilesRequest { files, request_id: uuid() })]
        }
        "DeleteFile" => {
            let (path, expected_revision) = (existing.path.clone(), existing.revision);
            vec![bytes(&filesync::DeleteFileRequest { path, expected_revision, request_id: uuid() })]
        }
        "MoveFile" => {
            let (path, expected_revision) = ("right/moving".to_owned(), kept.revision + 1);
            let new_path = "right/moved".to_owned();
            vec![bytes(&filesync::MoveFileRequest { path, new_path, expected_revision, request_id: uuid() })]
        }
        "MoveDirectory" => vec![bytes(&filesync::MoveDirectoryRequest {
            path: "right/directory".to_owned(),
            new_path: "right/doomed".to_owned(),
            expected_file_count: 1,
            expected_revision: kept.revision + 2,
            dry_run: false,
            request_id: uuid(),
        })],
        "DeleteDirectory" => vec![bytes(&filesync::DeleteDirectoryRequest {
            path: "right/going".to_owned(),
            expected_file_count: 1,
            expected_revision: kept.revision + 3,
            dry_run: false,
            request_id: uuid(),
        })],
        "GetUpload" => vec![bytes(&filesync::GetUploadRequest { upload_id: uuid() })],
        "WriteUpload" => vec![bytes(&header(&uuid(), 8, 0)), bytes(&chunk(0, b"unwanted"))],
        "WriteContent" => {
            use filesync::write_content_request::Part;
            let header = filesync::WriteContentHeader { upload_id: uuid(), size_bytes: 2 << 20 };
            let chunk = filesync::ContentChunk { offset_bytes: 0, data: Bytes::from_static(b"unwanted") };
            [Part::Header(header), Part::Chunk(chunk)]
                .map(|part| bytes(&filesync::WriteContentRequest { part: Some(part) }))
                .to_vec()
        }
        "GetFile" => vec![bytes(&filesync::GetFileRequest { path: existing.path.clone() })],
        "LocateContent" => vec![bytes(&filesync::LocateContentRequest { digests: vec![digest] })],
        "ReadContent" => {
            let range = filesync::ContentRange { digest, ..filesync::ContentRange::default() };
            vec![bytes(&filesync::ReadContentRequest { ranges: vec![range] })]
        }
        // What lists or watches everything when it is asked nothing; a round changes what is held, which is seen too.
        "StartSyncRun" => {
            vec![bytes(&gateway::StartSyncRunRequest {
                path_prefix: "right/existing".to_owned(),
                request_id: uuid(),
                ..gateway::StartSyncRunRequest::default()
            })]
        }
        "GetSyncRun" => vec![bytes(&gateway::GetSyncRunRequest { run_id: run_id.clone() })],
        "CancelSyncRun" => {
            let run_id = run_id.clone();
            vec![bytes(&gateway::CancelSyncRunRequest { run_id, request_id: uuid() })]
        }
        "ExplainFile" => {
            let path = existing.path.clone();
            vec![bytes(&gateway::ExplainFileRequest { path, ..gateway::ExplainFileRequest::default() })]
        }
        "ListFiles" | "Reconcile" | "WatchReplicas" | "ListRows" | "WatchRows" | "ListServers"
        | "ListSyncRuns" | "WatchSyncRuns" => {
            vec![Bytes::new()]
        }
        "ListLooseFiles" | "ListAsideFiles" | "CheckFiles" => vec![Bytes::new()],
        "RestoreAsideFile" => {
            let (aside_id, path) = ("restored".to_owned(), "right/restored".to_owned());
            vec![bytes(&filesync::RestoreAsideFileRequest { aside_id, path, request_id: uuid() })]
        }
        "DeleteAsideFile" => {
            let aside_id = "deleted".to_owned();
            vec![bytes(&filesync::DeleteAsideFileRequest { aside_id, request_id: uuid() })]
        }
        "UpdateFileVersion" => {
            let (path, expected_revision) = (kept.path.clone(), kept.revision);
            vec![bytes(&filesync::UpdateFileVersionRequest { path, expected_revision, request_id: uuid() })]
        }
        "RestoreFile" => {
            let (path, expected_revision) = (kept.path.clone(), kept.revision);
            vec![bytes(&filesync::RestoreFileRequest { path, expected_revision, request_id: uuid() })]
        }
        "Check" | "Watch" | "ServerReflectionInfo" => vec![Bytes::new()],
        other => effective_elsewhere(other, known)
            .unwrap_or_else(|| panic!("{other} is new: say with which messages it does something")),
    }
}

/// The least that can be sent: one empty message.
fn empty() -> Vec<Bytes> {
    vec![Bytes::new()]
}

fn outcome(answer: &Result<Bytes, Status>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Allowed,
        Err(told) => match status::read(told).reason {
            Reason::PermissionDenied => Outcome::Denied,
            Reason::IdentityUnknown => Outcome::Unknown,
            Reason::PeerUnreachable | Reason::Internal => panic!("no answer: {told:?}"),
            _ => Outcome::Allowed,
        },
    }
}

/// Everybody with a good certificate.
fn identities() -> Vec<Identity> {
    let mut all: Vec<Identity> =
        ["gateway", "catalog", "resolver"].into_iter().map(Identity::Service).collect();
    for server in ["s1", "s2", "s9"] {
        all.extend(["filesync", "timeguard"].map(|service| of_server(server, service)));
    }
    all.extend(["local", "operator", "publisher", "viewer", "nobody"].map(operator));
    all
}

struct Bench {
    mesh: Mesh,
    known: Known,
    failed: Vec<String>,
}

impl Bench {
    /// Calls with and without effect, as far as the identity may, and compares what it got.
    async fn check(
        &mut self,
        at: &str,
        caller: &Caller,
        identity: &Identity,
        rpc: &Rpc,
        extra: &[(&'static str, &str)],
    ) {
        let expected = rpc.outcome(identity);
        let messages = match expected {
            Outcome::Allowed if rpc.changes => empty(),
            _ => effective(rpc, &self.known),
        };
        let metadata: Vec<_> = [(SERVER_KEY, "s1")].into_iter().chain(extra.iter().copied()).collect();
        let answer =
            timeout(SOON, call(&caller.channel, &rpc.name, &metadata, messages)).await.expect("an answer");
        let found = outcome(&answer);
        if found != expected {
            self.failed.push(format!(
                "{} by {identity} at {at} {extra:?}: {found:?}, not {expected:?}: {answer:?}",
                rpc.name
            ));
        }
    }

    fn conclude(&mut self, what: &str) {
        assert!(self.failed.is_empty(), "{what}:\n{}", self.failed.join("\n"));
    }
}

/// The sync runs that there are.
async fn run_ids(mesh: &Mesh) -> Vec<String> {
    let request = gateway::ListSyncRunsRequest::default();
    let answer = mesh.operator("viewer").runs().list_sync_runs(request).await.expect("lists");
    answer.into_inner().runs.into_iter().map(|run| run.run_id).collect()
}

/// Who lets s1 originate whatever its clock is said to be.
async fn overrides(mesh: &Mesh) -> Option<String> {
    let admin = mesh.operator("local");
    let name = "lockstep.timeguard.v1.ClockService/GetClockReport";
    let answer = call(&admin.channel, name, &[(SERVER_KEY, "s1")], empty()).await.expect("an answer");
    let report = timeguard::GetClockReportResponse::decode(answer).expect("a message").report;
    Some(report?.fence?.clock_override?.principal)
}

/// R67, R69, I13: an RPC does what its right says for each identity, at a server and through the gateway; whoever lacks
/// the right gets nothing and changes nothing, also with the name of somebody else in the metadata.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_checks_every_identity() {
    let mut mesh = Mesh::new(2).await;
    let vendor = Vendor::start().await;
    let os = offer("os", "UD3", "2", &[("os.bin", &vendor.uri("slow/1/os.bin"), &[7; 10_000])]);
    vendor.put("os.bin", &[7; 10_000]);
    vendor.put("feed.json", &feed(&[os]));
    mesh.start_catalog(Some(vendor.sources_file(&[("acme", "plain/feed.json")]))).await;
    let known = Known::make(&mesh).await;
    for path in ["right/moving", "right/directory/file", "right/going/file"] {
        mesh.operator("local").register("s1", path, b"wanted").await.expect("registered");
        mesh.in_sync(path).await;
    }
    for path in ["right/existing", "right/kept"] {
        mesh.in_sync(path).await;
    }
    let before = (mesh.footprint().await, run_ids(&mesh).await);
    let rpcs = rpcs();
    let mut bench = Bench { mesh, known, failed: Vec::new() };

    for identity in identities() {
        let (at_server, at_door) = (bench.mesh.caller_at("s1", &identity), bench.mesh.caller(&identity));
        let at_guard = bench.mesh.caller_at_guard("s1", &identity);
        for rpc in &rpcs {
            if rpc.service() == "filesync" || rpc.open {
                bench.check("s1", &at_server, &identity, rpc, &[]).await;
            }
            if rpc.service() == "timeguard" {
                bench.check("the timeguard of s1", &at_guard, &identity, rpc, &[]).await;
            }
            bench.check("the gateway", &at_door, &identity, rpc, &[]).await;
            // What others than the gateway say about a principal is not believed, in whichever order it comes.
            if identity != Identity::Service("gateway") && !rpc.open {
                let forged = [(PRINCIPAL_KEY, "operator/local"), (PRINCIPAL_KEY, "server/s2/filesync")];
                if rpc.service() == "filesync" {
                    bench.check("s1", &at_server, &identity, rpc, &forged).await;
                }
                bench.check("the gateway", &at_door, &identity, rpc, &forged).await;
            }
        }
    }
    bench.conclude("identities");

    // The gateway is believed, for somebody who is known; it can lend nobody a right that they do not have.
    let gateway = Identity::Service("gateway");
    let at_server = bench.mesh.caller_at("s1", &gateway);
    for identity in identities() {
        for rpc in rpcs.iter().filter(|rpc| rpc.service() == "filesync") {
            bench
                .check(
                    "s1 for the gateway",
                    &at_server,
                    &identity,
                    rpc,
                    &[(PRINCIPAL_KEY, &identity.to_string())],
                )
                .await;
        }
    }
    for nonsense in ["", "operator/", "admin", "operator/local/x", "server/s1/gateway", "OPERATOR/local"] {
        let nobody = operator("nobody");
        for rpc in rpcs.iter().filter(|rpc| rpc.service() == "filesync") {
            bench.check("s1 for the gateway", &at_server, &nobody, rpc, &[(PRINCIPAL_KEY, nonsense)]).await;
        }
    }
    bench.conclude("principals that the gateway passes on");

    let after = (bench.mesh.footprint().await, run_ids(&bench.mesh).await);
    assert_eq!(after, before, "nobody changed anything");
    assert_eq!(overrides(&bench.mesh).await, None);
    let file = bench.mesh.operator("viewer").get("right/existing").await.expect("still there");
    assert_eq!(file, bench.known.existing);

    // The same messages do something for whoever has the right: the refusals above were about that alone.
    let admin = bench.mesh.operator("local");
    for rpc in rpcs.iter().filter(|rpc| rpc.changes && rpc.role != 0) {
        let answer =
            call(&admin.channel, &rpc.name, &[(SERVER_KEY, "s1")], effective(rpc, &bench.known)).await;
        answer.unwrap_or_else(|told| panic!("{}: {told:?}", rpc.name));
    }
    let after = (bench.mesh.footprint().await, run_ids(&bench.mesh).await);
    assert!(after.0 != before.0 && after.1 != before.1);
}

/// R67, R69, I13: no certificate, a foreign one and one of another trust domain end in the handshake, before any call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_no_answer_to_any_rpc() {
    let mesh = Mesh::new(1).await;
    let known = Known::make(&mesh).await;
    let before = mesh.footprint().await;
    let foreign = DevelopmentCa::open_or_create(&mesh.path("foreign"), crate::mesh::DOMAIN).expect("a CA");
    // The right CA for the wrong trust domain: it signs whatever it is asked to.
    let other = DevelopmentCa::open_or_create(&mesh.path("pki"), "other.test").expect("the same CA");
    let issue = |ca: &DevelopmentCa, identity: &Identity| ca.issue(identity, &[]).expect("issued");
    let mut strangers = BTreeMap::from([
        ("no TLS".to_owned(), Stranger::Plain),
        ("no certificate".to_owned(), Stranger::showing(None)),
    ]);
    for identity in [operator("local"), Identity::Service("gateway"), of_server("s1", "filesync")] {
        let (a, b) = (issue(&foreign, &identity), issue(&other, &identity));
        let foreign = Stranger::showing(Some((&a.cert_pem, &a.key_pem)));
        let other = Stranger::showing(Some((&b.cert_pem, &b.key_pem)));
        strangers.insert(format!("{identity} of a foreign CA"), foreign);
        strangers.insert(format!("{identity} of another trust domain"), other);
    }
    let ports = [("s1", mesh.servers["s1"].port), ("the gateway", mesh.door().port)];
    for (name, stranger) in &strangers {
        for (at, port) in ports {
            for rpc in rpcs() {
                let body: Vec<u8> =
                    effective(&rpc, &known).iter().flat_map(|message| framed(message)).collect();
                let called = async {
                    let mut wire = Wire::connect(stranger.clone(), port).await?;
                    wire.post(&format!("/{}", rpc.name), &[(SERVER_KEY, "s1")], body.into()).await
                };
                let answer = timeout(SOON, called).await;
                let answer = answer.unwrap_or_else(|_| panic!("{} by {name} at {at} hangs", rpc.name));
                assert!(answer.is_err(), "{} by {name} at {at}: {answer:?}", rpc.name);
            }
        }
    }
    // The same way with a good certificate gets an answer.
    let (cert, key) = mesh.certificate(&operator("local"));
    let read = |path| std::fs::read_to_string(path).expect("readable");
    let known = Stranger::showing(Some((&read(cert), &read(key))));
    let request = gateway::ListServersRequest::default();
    for (at, port) in ports {
        let mut wire = Wire::connect(known.clone(), port).await.expect("connected");
        let path = if at == "s1" {
            "/lockstep.filesync.v1.FileService/ListFiles"
        } else {
            "/lockstep.gateway.v1.MatrixService/ListServers"
        };
        let answer = wire.post(path, &[], framed(&request.encode_to_vec())).await.expect("an answer");
        answer.result().expect("allowed");
    }
    assert_eq!(mesh.footprint().await, before, "nobody changed anything");
}
