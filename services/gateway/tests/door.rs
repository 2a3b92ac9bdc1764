//! The one door and the matrix over gRPC, between processes that are tasks and connections that are memory.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use gateway::{Parts, proxy::Backends};
use lockstep_chassis::{
    App, Channel, Channels, Connection, Dial, Drain, Health, Lane, caller, status,
    watch::{self, BoxStream},
};
use lockstep_model::{
    Digest, Epoch, Identity, Md5, Position, Reason, ServerId,
    clock::SystemEntropy,
    record::{FileRecord, FileState, OPERATOR, SERVER, ServerRecord},
};
use lockstep_proto::{
    filesync::v1::{
        content_service_client::ContentServiceClient,
        content_service_server::{ContentService, ContentServiceServer},
        file_service_client::FileServiceClient,
        file_service_server::{FileService, FileServiceServer},
        replica_service_server::{ReplicaService, ReplicaServiceServer},
        upload_service_client::UploadServiceClient,
        upload_service_server::{UploadService, UploadServiceServer},
        write_upload_request::Part,
        *,
    },
    gateway::v1::{matrix_service_client::MatrixServiceClient, *},
    shared::v1 as shared,
    timeguard::v1::{
        self as timeguard,
        clock_service_server::{ClockService, ClockServiceServer},
    },
};
use lockstep_registry::{CachedMembers, Commit, MemoryRegistry, Registry};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

const GATEWAY: &str = "http://gateway:1";

/// One end of a connection, and who is at the other.
struct Wire {
    io: DuplexStream,
    identity: Identity,
}

impl Connection for Wire {
    fn identity(&self) -> Option<Identity> {
        Some(self.identity.clone())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[derive(Clone, Default)]
struct Network {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<Wire>>>>,
}

impl Network {
    fn listen(&self, uri: &str) -> ReceiverStream<Wire> {
        let (wires, receiver) = mpsc::channel(16);
        self.listeners.lock().expect("not poisoned").insert(uri.to_owned(), wires);
        ReceiverStream::new(receiver)
    }

    fn channels(&self, identity: Identity) -> Channels {
        Channels::new(Dialler { network: self.clone(), identity })
    }
}

#[derive(Clone)]
struct Dialler {
    network: Network,
    identity: Identity,
}

impl Dial for Dialler {
    type Io = DuplexStream;

    async fn dial(&self, uri: http::Uri, _: Option<Identity>) -> io::Result<DuplexStream> {
        let uri = uri.to_string();
        let listener =
            self.network.listeners.lock().expect("not poisoned").get(uri.trim_end_matches('/')).cloned();
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens");
        let listener = listener.ok_or_else(refused)?;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        listener.send(Wire { io: theirs, identity: self.identity.clone() }).await.map_err(|_| refused())?;
        Ok(ours)
    }
}

/// A filesync that answers with who asked it, and whom.
#[derive(Clone)]
struct Echo {
    id: ServerId,
    registry: MemoryRegistry,
    drain: Drain,
}

impl Echo {
    fn file<T>(&self, request: &Request<T>) -> File {
        let path = caller(request).principal.to_string();
        File { path, origin_server_id: self.id.to_string(), ..File::default() }
    }
}

#[tonic::async_trait]
impl FileService for Echo {
    async fn get_file(&self, request: Request<GetFileRequest>) -> tonic::Result<Response<GetFileResponse>> {
        let left = lockstep_chassis::deadline::remaining().expect("unary calls have a deadline");
        assert!(left < Duration::from_secs(30));
        Ok(Response::new(GetFileResponse { file: Some(self.file(&request)) }))
    }

    async fn list_files(&self, _: Request<ListFilesRequest>) -> tonic::Result<Response<ListFilesResponse>> {
        Ok(Response::new(ListFilesResponse::default()))
    }

    async fn register_file(
        &self,
        request: Request<RegisterFileRequest>,
    ) -> tonic::Result<Response<RegisterFileResponse>> {
        Ok(Response::new(RegisterFileResponse { file: Some(self.file(&request)) }))
    }

    async fn register_files(
        &self,
        _: Request<RegisterFilesRequest>,
    ) -> tonic::Result<Response<RegisterFilesResponse>> {
        Ok(Response::new(RegisterFilesResponse::default()))
    }

    async fn delete_file(
        &self,
        _: Request<DeleteFileRequest>,
    ) -> tonic::Result<Response<DeleteFileResponse>> {
        Ok(Response::new(DeleteFileResponse::default()))
    }

    async fn move_file(&self, _: Request<MoveFileRequest>) -> tonic::Result<Response<MoveFileResponse>> {
        Ok(Response::new(MoveFileResponse::default()))
    }

    async fn move_directory(
        &self,
        _: Request<MoveDirectoryRequest>,
    ) -> tonic::Result<Response<MoveDirectoryResponse>> {
        Ok(Response::new(MoveDirectoryResponse::default()))
    }

    async fn delete_directory(
        &self,
        _: Request<DeleteDirectoryRequest>,
    ) -> tonic::Result<Response<DeleteDirectoryResponse>> {
        Ok(Response::new(DeleteDirectoryResponse::default()))
    }

    async fn update_placement(
        &self,
        _: Request<UpdatePlacementRequest>,
    ) -> tonic::Result<Response<UpdatePlacementResponse>> {
        Ok(Response::new(UpdatePlacementResponse::default()))
    }

    async fn delete_files(
        &self,
        _: Request<DeleteFilesRequest>,
    ) -> tonic::Result<Response<DeleteFilesResponse>> {
        Ok(Response::new(DeleteFilesResponse::default()))
    }
}

#[tonic::async_trait]
impl UploadService for Echo {
    async fn write_upload(
        &self,
        request: Request<Streaming<WriteUploadRequest>>,
    ) -> tonic::Result<Response<WriteUploadResponse>> {
        let (mut parts, mut committed_bytes) = (request.into_inner(), 0);
        while let Some(message) = parts.next().await {
            if let Some(Part::Chunk(chunk)) = message?.part {
                committed_bytes += i64::try_from(chunk.data.len()).expect("small");
            }
        }
        Ok(Response::new(WriteUploadResponse { committed_bytes, ..WriteUploadResponse::default() }))
    }

    async fn get_upload(&self, _: Request<GetUploadRequest>) -> tonic::Result<Response<GetUploadResponse>> {
        Ok(Response::new(GetUploadResponse::default()))
    }

    async fn cancel_upload(
        &self,
        _: Request<CancelUploadRequest>,
    ) -> tonic::Result<Response<CancelUploadResponse>> {
        Ok(Response::new(CancelUploadResponse::default()))
    }

    async fn check_space(
        &self,
        _: Request<CheckSpaceRequest>,
    ) -> tonic::Result<Response<CheckSpaceResponse>> {
        Ok(Response::new(CheckSpaceResponse::default()))
    }
}

#[tonic::async_trait]
impl ContentService for Echo {
    async fn locate_content(
        &self,
        _: Request<LocateContentRequest>,
    ) -> tonic::Result<Response<LocateContentResponse>> {
        Ok(Response::new(LocateContentResponse::default()))
    }

    type ReadContentStream = BoxStream<ReadContentResponse>;

    async fn read_content(
        &self,
        _: Request<ReadContentRequest>,
    ) -> tonic::Result<Response<Self::ReadContentStream>> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn write_content(
        &self,
        _: Request<Streaming<WriteContentRequest>>,
    ) -> tonic::Result<Response<WriteContentResponse>> {
        Ok(Response::new(WriteContentResponse::default()))
    }
}

fn wire(position: Position) -> shared::Position {
    gateway::grpc::wire::position(position)
}

#[tonic::async_trait]
impl ReplicaService for Echo {
    async fn reconcile(&self, _: Request<ReconcileRequest>) -> tonic::Result<Response<ReconcileResponse>> {
        let head = self.registry.head().await.expect("the registry answers");
        Ok(Response::new(ReconcileResponse { position: Some(wire(head)), exception_count: 0 }))
    }

    type WatchReplicasStream = BoxStream<WatchReplicasResponse>;

    /// Says every second where the registry is, as if it held everything.
    async fn watch_replicas(
        &self,
        _: Request<WatchReplicasRequest>,
    ) -> tonic::Result<Response<Self::WatchReplicasStream>> {
        let (messages, receiver) = mpsc::channel(1);
        let registry = self.registry.clone();
        self.drain.spawn("report", async move {
            loop {
                let head = registry.head().await.expect("the registry answers");
                let message = WatchReplicasResponse {
                    incarnation: "one".to_owned(),
                    snapshot: true,
                    caught_up: true,
                    position: Some(wire(head)),
                    ..WatchReplicasResponse::default()
                };
                if messages.send(Ok(message)).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = messages.closed() => return,
                    _ = registry.wait_past(head.revision) => {}
                }
            }
        });
        Ok(Response::new(watch::stream(&self.drain, receiver)))
    }
}

/// A timeguard that says what the test says, as long as there is something to say.
#[derive(Clone)]
struct Guard {
    said: tokio::sync::watch::Receiver<timeguard::ClockReport>,
    drain: Drain,
}

#[tonic::async_trait]
impl ClockService for Guard {
    async fn sample_clock(
        &self,
        _: Request<timeguard::SampleClockRequest>,
    ) -> tonic::Result<Response<timeguard::SampleClockResponse>> {
        Ok(Response::new(timeguard::SampleClockResponse::default()))
    }

    async fn get_clock_report(
        &self,
        _: Request<timeguard::GetClockReportRequest>,
    ) -> tonic::Result<Response<timeguard::GetClockReportResponse>> {
        let report = Some(self.said.borrow().clone());
        Ok(Response::new(timeguard::GetClockReportResponse { report }))
    }

    type WatchClockReportsStream = BoxStream<timeguard::WatchClockReportsResponse>;

    async fn watch_clock_reports(
        &self,
        _: Request<timeguard::WatchClockReportsRequest>,
    ) -> tonic::Result<Response<Self::WatchClockReportsStream>> {
        let (messages, receiver) = mpsc::channel(1);
        let mut said = self.said.clone();
        self.drain.spawn("speak", async move {
            loop {
                let report = Some(said.borrow_and_update().clone());
                let message = timeguard::WatchClockReportsResponse { report, ..Default::default() };
                if messages.send(Ok(message)).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = messages.closed() => return,
                    changed = said.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(Duration::from_secs(5)) => {}
                }
            }
        });
        Ok(Response::new(watch::stream(&self.drain, receiver)))
    }

    async fn start_clock_override(
        &self,
        _: Request<timeguard::StartClockOverrideRequest>,
    ) -> tonic::Result<Response<timeguard::StartClockOverrideResponse>> {
        Ok(Response::new(timeguard::StartClockOverrideResponse::default()))
    }

    async fn cancel_clock_override(
        &self,
        _: Request<timeguard::CancelClockOverrideRequest>,
    ) -> tonic::Result<Response<timeguard::CancelClockOverrideResponse>> {
        Ok(Response::new(timeguard::CancelClockOverrideResponse::default()))
    }
}

struct Mesh {
    network: Network,
    registry: MemoryRegistry,
    drain: Drain,
}

impl Mesh {
    /// Server s1 runs; s2 announced itself and is gone. anna publishes, victor views.
    async fn new() -> Self {
        let epoch = Epoch("0e37df36-f698-11e6-8dd4-cb9ced3df976".parse().expect("a UUID"));
        let (network, registry, drain) = (Network::default(), MemoryRegistry::new(epoch), Drain::new());
        let mesh = Self { network, registry, drain };
        mesh.put(&format!("{OPERATOR}anna"), "{\"role\":\"publisher\"}").await;
        mesh.put(&format!("{OPERATOR}victor"), "{\"role\":\"viewer\"}").await;
        for id in ["s1", "s2"] {
            let record = ServerRecord {
                mode: "distributed".parse().expect("a mode"),
                version: "12.04.100".parse().expect("a version"),
                filesync: format!("http://{id}:1"),
                timeguard: format!("http://{id}-guard:1"),
                store_id: serde_json::from_str("\"0e37df36-f698-11e6-8dd4-cb9ced3df976\"").expect("an id"),
            };
            mesh.put(&format!("{SERVER}{id}"), &serde_json::to_string(&record).expect("serialises")).await;
        }
        mesh.filesync("s1", mesh.drain.clone());
        mesh.gateway(mesh.drain.clone());
        mesh
    }

    async fn put(&self, key: &str, body: &str) {
        let puts = vec![(key.to_owned(), body.to_owned())];
        self.registry.commit(Commit { puts, ..Commit::default() }).await.expect("commits");
    }

    async fn register(&self, path: &str) {
        let record = FileRecord {
            file_id: "0e37df36-f698-11e6-8dd4-cb9ced3df976".parse().expect("an id"),
            digest: Digest::of(b""),
            md5: Md5::from_bytes([0; 16]),
            size_bytes: 1,
            registered_time: Default::default(),
            origin: "s1".parse().expect("an id"),
            state: FileState::Active,
            placement: lockstep_model::record::Placement::All,
            registered_by: "operator/anna 1".to_owned(),
            instead_of: None,
            moved_to: None,
            deleted_by: None,
            registered_revision: None,
        };
        self.put(&format!("file/{path}"), &serde_json::to_string(&record).expect("serialises")).await;
    }

    fn filesync(&self, id: &str, drain: Drain) {
        let incoming = self.network.listen(&format!("http://{id}:1"));
        let echo =
            Echo { id: id.parse().expect("an id"), registry: self.registry.clone(), drain: drain.clone() };
        let app = App::new("filesync", CachedMembers::new(self.registry.clone()), Health::new(&[]))
            .add(FileServiceServer::new(echo.clone()))
            .add(UploadServiceServer::new(echo.clone()))
            .add(ContentServiceServer::new(echo.clone()))
            .add(ReplicaServiceServer::new(echo));
        self.drain.spawn("filesync", async move { app.serve(incoming, &drain).await.expect("serves") });
    }

    /// The timeguard of a server; it says what is sent to it, until its drain.
    fn timeguard(
        &self,
        id: &str,
        report: timeguard::ClockReport,
    ) -> (tokio::sync::watch::Sender<timeguard::ClockReport>, Drain) {
        let incoming = self.network.listen(&format!("http://{id}-guard:1"));
        let (say, said) = tokio::sync::watch::channel(report);
        let drain = Drain::new();
        let guard = Guard { said, drain: drain.clone() };
        let app = App::new("timeguard", CachedMembers::new(self.registry.clone()), Health::new(&[]))
            .add(ClockServiceServer::new(guard));
        let ended = drain.clone();
        drain.spawn("timeguard", async move { app.serve(incoming, &ended).await.expect("serves") });
        (say, drain)
    }

    fn gateway(&self, drain: Drain) {
        let incoming = self.network.listen(GATEWAY);
        let parts = Parts {
            registry: self.registry.clone(),
            channels: self.network.channels(Identity::Service("gateway")),
            backends: Backends::default(),
            health: Health::new(&[gateway::engine::REGISTRY]),
            drain: drain.clone(),
            entropy: SystemEntropy,
        };
        drain.spawn("gateway", async move { gateway::serve(parts, incoming).await.expect("serves") });
    }

    fn as_operator(&self, name: &str) -> Channel {
        let channels = self.network.channels(Identity::Operator(name.to_owned()));
        channels.to(GATEWAY, Identity::Service("gateway"), Lane::Control)
    }

    async fn ready(&self) -> MatrixServiceClient<Channel> {
        let mut matrix = MatrixServiceClient::new(self.as_operator("victor"));
        let ready = async {
            loop {
                let servers = matrix.list_servers(ListServersRequest::default()).await;
                let states =
                    servers.map(|s| s.into_inner().servers.iter().map(|s| s.state()).collect::<Vec<_>>());
                if states.is_ok_and(|s| s == [server_summary::State::Ready, server_summary::State::Unknown]) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.expect("ready in time");
        matrix
    }
}

fn with_server<T>(message: T, server: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("lockstep-server", server.parse().expect("metadata"));
    request
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, Reason) {
    let status = answer.expect_err("refused");
    (status.code(), status::read(&status).reason)
}

/// The door hands calls on by their package, with the principal that it authenticated and no other.
#[tokio::test(start_paused = true)]
async fn the_door_hands_calls_on_for_the_caller() {
    let mesh = Mesh::new().await;
    mesh.ready().await;
    let mut files = FileServiceClient::new(mesh.as_operator("anna"));

    // A read goes to a server that is there, again and again, whoever the caller says to be.
    for _ in 0..6 {
        let mut request = Request::new(GetFileRequest { path: "a".to_owned() });
        request.metadata_mut().insert("lockstep-principal", "operator/root".parse().expect("metadata"));
        let file = files.get_file(request).await.expect("answered").into_inner().file.expect("a file");
        assert_eq!((file.path.as_str(), file.origin_server_id.as_str()), ("operator/anna", "s1"));
    }
    let answer = files.register_file(with_server(RegisterFileRequest::default(), "s1")).await;
    assert_eq!(answer.expect("answered").into_inner().file.expect("a file").path, "operator/anna");

    // Everything else names its server.
    let status = files.register_file(RegisterFileRequest::default()).await.expect_err("no server is named");
    let failure = status::read(&status);
    assert_eq!((status.code(), failure.reason), (Code::InvalidArgument, Reason::ServerRequired));
    assert_eq!(failure.metadata.get("servers").map(String::as_str), Some("s1,s2"));
    assert!(failure.message.contains("s1,s2"), "{failure}");
    let answer = files.register_file(with_server(RegisterFileRequest::default(), "s9")).await;
    assert_eq!(reason(answer), (Code::NotFound, Reason::ServerUnknown));
    let answer = files.register_file(with_server(RegisterFileRequest::default(), "s2")).await;
    assert_eq!(reason(answer), (Code::Unavailable, Reason::PeerUnreachable));

    // The backend authorises the principal itself.
    let mut viewer = FileServiceClient::new(mesh.as_operator("victor"));
    let answer = viewer.register_file(with_server(RegisterFileRequest::default(), "s1")).await;
    assert_eq!(reason(answer), (Code::PermissionDenied, Reason::PermissionDenied));
    let mut content = ContentServiceClient::new(mesh.as_operator("anna"));
    let answer = content.locate_content(with_server(LocateContentRequest::default(), "s1")).await;
    assert_eq!(reason(answer), (Code::PermissionDenied, Reason::PermissionDenied));
    let mut stranger = FileServiceClient::new(mesh.as_operator("nobody"));
    let answer = stranger.get_file(GetFileRequest { path: "a".to_owned() }).await;
    assert_eq!(reason(answer), (Code::Unauthenticated, Reason::IdentityUnknown));
}

/// A read that any server can answer is answered while there is any.
#[tokio::test(start_paused = true)]
async fn a_read_goes_on_to_the_next_server() {
    let mesh = Mesh::new().await;
    mesh.ready().await;
    let second = Drain::new();
    mesh.filesync("s2", second.clone());
    let mut files = FileServiceClient::new(mesh.as_operator("anna"));
    let mut ask = async || {
        let answer = files.get_file(GetFileRequest { path: "a".to_owned() }).await;
        answer.expect("answered").into_inner().file.expect("a file").origin_server_id
    };
    // Virtual time stands still while there is work, so the gateway needs a pause to notice s2.
    let both = async {
        while ask().await != "s2" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("s2 answers in its turn");
    second.begin();
    second.finished().await;
    for _ in 0..6 {
        assert_eq!(ask().await, "s1");
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_stream_through_the_door() {
    let mesh = Mesh::new().await;
    mesh.ready().await;
    let mut uploads = UploadServiceClient::new(mesh.as_operator("anna"));
    let chunk = |n: i64| WriteUploadRequest {
        part: Some(Part::Chunk(UploadChunk { offset_bytes: n << 20, data: vec![7; 1 << 20].into() })),
    };
    let answer =
        uploads.write_upload(with_server(stream::iter((0..40).map(chunk)), "s1")).await.expect("answered");
    assert_eq!(answer.into_inner().committed_bytes, 40 << 20);
}

/// R41, R43: whoever watches sees each change within a second, a heartbeat when there is none, and can go on where the
/// stream ended, within one life of the gateway.
#[tokio::test(start_paused = true)]
async fn rows_are_watched_and_resumed() {
    let mesh = Mesh::new().await;
    mesh.register("os/a").await;
    let mut matrix = mesh.ready().await;
    let request = WatchRowsRequest { path_prefix: "os/".to_owned(), ..WatchRowsRequest::default() };
    let mut rows = matrix.watch_rows(request.clone()).await.expect("answered").into_inner();
    let first = rows.message().await.expect("a message").expect("a message");
    assert!(first.caught_up && first.rows.len() == 1 && first.position.is_some());
    let states = |row: &Row| row.cells.iter().map(Cell::state).collect::<Vec<_>>();
    assert_eq!(states(&first.rows[0]), [cell::State::InSync, cell::State::Unknown]);
    assert!(first.rows[0].cells[1].failure.is_some());

    let before = tokio::time::Instant::now();
    mesh.register("other").await;
    mesh.register("os/b").await;
    let token = loop {
        let message = rows.message().await.expect("a message").expect("a message");
        assert!(message.rows.iter().all(|row| row.path.starts_with("os/")));
        if message.rows.iter().any(|row| row.path == "os/b" && states(row)[0] == cell::State::InSync) {
            break message.resume_token;
        }
    };
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    loop {
        let message = rows.message().await.expect("a message").expect("a message");
        if message.rows.is_empty() && message.removed_paths.is_empty() {
            break;
        }
    }
    assert!(before.elapsed() < Duration::from_secs(17), "{:?}", before.elapsed());
    drop(rows);

    mesh.register("os/c").await;
    let resumed = WatchRowsRequest { resume_token: token.clone(), ..request.clone() };
    let mut rows = matrix.watch_rows(resumed.clone()).await.expect("answered").into_inner();
    let message = rows.message().await.expect("a message").expect("a message");
    assert!(message.caught_up && message.rows.iter().any(|row| row.path == "os/c"));
    assert!(message.rows.iter().all(|row| row.path != "os/a"), "what did not change is not told again");
    for (prefix, resume_token) in [("", token.as_str()), ("os/", "nonsense")] {
        let request = WatchRowsRequest {
            path_prefix: prefix.to_owned(),
            resume_token: resume_token.to_owned(),
            ..WatchRowsRequest::default()
        };
        assert_eq!(reason(matrix.watch_rows(request).await), (Code::OutOfRange, Reason::ResumeTokenExpired));
    }

    // Another life of the gateway does not know what this one counted.
    mesh.gateway(mesh.drain.clone());
    let mut second = mesh.ready().await;
    assert_eq!(reason(second.watch_rows(resumed).await), (Code::OutOfRange, Reason::ResumeTokenExpired));
    mesh.drain.begin();
    let end = loop {
        match rows.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a watch ends with a status"),
            Err(status) => break status,
        }
    };
    assert_eq!((end.code(), status::read(&end).reason), (Code::Unavailable, Reason::Draining));
    tokio::time::timeout(Duration::from_secs(60), mesh.drain.finished()).await.expect("everything ends");
    assert!(!mesh.drain.failed());
}

#[tokio::test(start_paused = true)]
async fn rows_and_servers_are_listed_in_pages() {
    let mesh = Mesh::new().await;
    for name in 0..7 {
        mesh.register(&format!("os/{name}")).await;
    }
    mesh.register("zz").await;
    let mut matrix = mesh.ready().await;
    let (mut paths, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRowsRequest {
            path_prefix: "os/".to_owned(),
            page_size: 3,
            page_token,
            ..ListRowsRequest::default()
        };
        let page = matrix.list_rows(request).await.expect("answered").into_inner();
        assert!(page.rows.len() <= 3);
        paths.extend(page.rows.into_iter().map(|row| row.path));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paths, (0..7).map(|name| format!("os/{name}")).collect::<Vec<_>>());
    let request = ListRowsRequest { page_size: -1, ..ListRowsRequest::default() };
    assert_eq!(reason(matrix.list_rows(request).await), (Code::InvalidArgument, Reason::FieldViolation));
    let request = ListRowsRequest { page_token: "00".to_owned(), ..ListRowsRequest::default() };
    assert_eq!(reason(matrix.list_rows(request).await), (Code::InvalidArgument, Reason::PageTokenInvalid));

    let page = matrix.list_servers(ListServersRequest { page_size: 1, page_token: String::new() }).await;
    let page = page.expect("answered").into_inner();
    assert_eq!(page.servers.iter().map(|s| s.server_id.as_str()).collect::<Vec<_>>(), ["s1"]);
    assert_eq!(page.servers[0].clock_state(), server_summary::ClockState::Unmeasured);
    let next = ListServersRequest { page_size: 1, page_token: page.next_page_token };
    let page = matrix.list_servers(next).await.expect("answered").into_inner();
    assert_eq!(page.servers.iter().map(|s| s.server_id.as_str()).collect::<Vec<_>>(), ["s2"]);
    assert_eq!(page.next_page_token, "");
}

/// R62: what a timeguard says of the clock of its server is in the summary of that server, with the fence and why; the summary
/// of one whose timeguard is not heard claims nothing, also when it was heard until 30 s ago.
#[tokio::test(start_paused = true)]
async fn a_summary_says_what_the_timeguard_says() {
    use server_summary::ClockState;

    let mesh = Mesh::new().await;
    let failure = shared::Failure {
        reason: "CLOCK_FENCED".to_owned(),
        message: "its clock is proven wrong".to_owned(),
        advice: "set it".to_owned(),
        retry_delay: None,
    };
    let fence = timeguard::Fence {
        state: timeguard::fence::State::Fenced.into(),
        failure: Some(failure.clone()),
        ..timeguard::Fence::default()
    };
    let offset = Some(prost_types::Duration { seconds: -61, nanos: -3_000_000 });
    let uncertainty = Some(prost_types::Duration { seconds: 0, nanos: 400_000 });
    let skewed = timeguard::ClockReport {
        server_id: "s1".to_owned(),
        verdict: timeguard::clock_report::Verdict::Skewed.into(),
        offset,
        uncertainty,
        fence: Some(fence),
        ..timeguard::ClockReport::default()
    };
    let (say, guard) = mesh.timeguard("s1", skewed);
    let matrix = mesh.ready().await;
    let until = async |state: ClockState| {
        let mut matrix = matrix.clone();
        let told = async {
            loop {
                let answer = matrix.list_servers(ListServersRequest::default()).await.expect("answered");
                let servers = answer.into_inner().servers;
                if servers[0].clock_state() == state {
                    return servers;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.expect("told in time")
    };
    let servers = until(ClockState::Skewed).await;
    let s1 = &servers[0];
    assert_eq!((s1.clock_offset, s1.clock_uncertainty), (offset, uncertainty));
    assert_eq!(s1.fence.as_ref(), Some(&failure));
    assert_eq!(servers[1].clock_state(), ClockState::Unmeasured);
    assert_eq!((servers[1].clock_offset, servers[1].fence.as_ref()), (None, None));

    say.send_modify(|report| {
        report.verdict = timeguard::clock_report::Verdict::Trusted.into();
        report.fence = Some(timeguard::Fence {
            state: timeguard::fence::State::Open.into(),
            ..timeguard::Fence::default()
        });
    });
    assert_eq!(until(ClockState::Trusted).await[0].fence, None);

    guard.begin();
    guard.finished().await;
    let gone = tokio::time::Instant::now();
    until(ClockState::Unmeasured).await;
    let took = gone.elapsed();
    assert!(took > Duration::from_secs(20) && took < Duration::from_secs(31), "{took:?}");
}
