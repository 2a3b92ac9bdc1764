//! A small installation on the loopback: a CA, identities, and a server with handlers that show what reaches them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lockstep_chassis::{
    App, Channels, Drain, Fields, Health, Lane, TlsDial, TlsIdentity, TlsIncoming, caller, deadline,
    pki::DevelopmentCa, status, watch,
};
use lockstep_model::{
    FilePath, Identity, Role, ServerId,
    identity::{Members, MembersUnavailable},
};
use lockstep_proto::filesync::v1::{
    DeleteDirectoryRequest, DeleteDirectoryResponse, DeleteFileRequest, DeleteFileResponse, File,
    GetFileRequest, GetFileResponse, ListFilesRequest, ListFilesResponse, MoveDirectoryRequest,
    MoveDirectoryResponse, MoveFileRequest, MoveFileResponse, ReconcileRequest, ReconcileResponse,
    RegisterFileRequest, RegisterFileResponse, RegisterFilesRequest, RegisterFilesResponse,
    WatchReplicasRequest, WatchReplicasResponse,
    file_service_client::FileServiceClient,
    file_service_server::{FileService, FileServiceServer},
    replica_service_client::ReplicaServiceClient,
    replica_service_server::{ReplicaService, ReplicaServiceServer},
};
use tokio::sync::mpsc;
use tonic::{Request, Response};

pub(crate) const DOMAIN: &str = "lockstep.test";

/// Nothing in these tests takes longer, unless it hangs.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn server(id: &str, service: &'static str) -> Identity {
    Identity::Server { server_id: id.parse().expect("an id"), service }
}

pub(crate) fn operator(name: &str) -> Identity {
    Identity::Operator(name.to_owned())
}

/// A CA and a directory for what it issues.
pub(crate) struct Pki {
    directory: tempfile::TempDir,
    pub(crate) ca: DevelopmentCa,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::of_domain(DOMAIN)
    }

    pub(crate) fn of_domain(domain: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = DevelopmentCa::open_or_create(&directory.path().join("ca"), domain).expect("a CA");
        Self { directory, ca }
    }

    /// The files of a certificate for `identity`.
    pub(crate) fn files(&self, identity: &Identity) -> Files {
        let directory = self.directory.path().join(identity.to_string().replace('/', "-"));
        std::fs::create_dir_all(&directory).expect("a directory");
        let files = Files {
            cert: directory.join("tls.pem"),
            key: directory.join("tls.key"),
            ca: directory.join("ca.pem"),
        };
        std::fs::write(&files.ca, self.ca.cert_pem()).expect("written");
        self.issue(identity, &files);
        files
    }

    pub(crate) fn issue(&self, identity: &Identity, files: &Files) {
        let issued =
            self.ca.issue(identity, &["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("issued");
        issued.write(&files.cert, &files.key).expect("written");
    }

    pub(crate) fn tls(&self, identity: &Identity) -> TlsIdentity {
        self.files(identity).load()
    }

    pub(crate) fn channels(&self, identity: &Identity) -> Channels {
        Channels::new(TlsDial::new(self.tls(identity)))
    }
}

#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
}

impl Files {
    pub(crate) fn load(&self) -> TlsIdentity {
        load(&self.cert, &self.key, &self.ca)
    }
}

fn load(cert: &Path, key: &Path, ca: &Path) -> TlsIdentity {
    TlsIdentity::load(cert, key, ca, DOMAIN).expect("usable files")
}

/// What the registry would say.
#[derive(Clone, Default)]
pub(crate) struct People {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    roles: BTreeMap<String, Role>,
    servers: BTreeSet<ServerId>,
    unavailable: bool,
}

impl People {
    pub(crate) fn usual() -> Self {
        let people = Self::default();
        {
            let mut state = people.state.lock().expect("not poisoned");
            for (name, role) in [
                ("viewer", Role::Viewer),
                ("publisher", Role::Publisher),
                ("operator", Role::Operator),
                ("local", Role::Admin),
            ] {
                state.roles.insert(name.to_owned(), role);
            }
            state.servers.extend(["s1", "s2", "s3"].map(|id| id.parse::<ServerId>().expect("an id")));
        }
        people
    }

    pub(crate) fn set_unavailable(&self) {
        self.state.lock().expect("not poisoned").unavailable = true;
    }

    fn ask<T>(&self, answer: impl FnOnce(&State) -> T) -> Result<T, MembersUnavailable> {
        let state = self.state.lock().expect("not poisoned");
        if state.unavailable {
            return Err(MembersUnavailable { cause: "on purpose".to_owned() });
        }
        Ok(answer(&state))
    }
}

impl Members for People {
    async fn role(&self, operator: &str) -> Result<Option<Role>, MembersUnavailable> {
        self.ask(|state| state.roles.get(operator).copied())
    }

    async fn knows(&self, server: &ServerId) -> Result<bool, MembersUnavailable> {
        self.ask(|state| state.servers.contains(server))
    }
}

/// Handlers that do what the path of the request says.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) drain: Drain,
    /// How many calls reached a handler.
    pub(crate) reached: Arc<AtomicUsize>,
    /// Where `forward` goes.
    pub(crate) next: Option<(Channels, String, Identity)>,
}

#[tonic::async_trait]
impl FileService for Handlers {
    async fn get_file(&self, request: Request<GetFileRequest>) -> tonic::Result<Response<GetFileResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        let caller = caller(&request);
        let mut fields = Fields::of(request.into_inner());
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let path = fields.finish(path)?;
        let told = match path.as_str() {
            "who" => format!("{} for {}", caller.peer, caller.principal),
            "left" => {
                deadline::remaining().map_or_else(|| "none".to_owned(), |left| left.as_millis().to_string())
            }
            "sleep" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                "slept".to_owned()
            }
            "panic" => panic!("on purpose"),
            "forward" | "forward left" => {
                let (channels, uri, identity) = self.next.clone().expect("a next hop");
                let path = if path.as_str() == "forward" { "sleep" } else { "left" };
                let mut client = FileServiceClient::new(channels.to(&uri, identity, Lane::Control));
                let answer = client.get_file(GetFileRequest { path: path.to_owned() }).await;
                let answer = answer.map_err(|error| status::of(&status::read(&error)))?;
                answer.into_inner().file.map(|file| file.path).unwrap_or_default()
            }
            path => path.to_owned(),
        };
        Ok(Response::new(GetFileResponse { file: Some(File { path: told, ..File::default() }) }))
    }

    async fn list_files(&self, _: Request<ListFilesRequest>) -> tonic::Result<Response<ListFilesResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(ListFilesResponse::default()))
    }

    async fn register_file(
        &self,
        _: Request<RegisterFileRequest>,
    ) -> tonic::Result<Response<RegisterFileResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(RegisterFileResponse::default()))
    }

    async fn register_files(
        &self,
        _: Request<RegisterFilesRequest>,
    ) -> tonic::Result<Response<RegisterFilesResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(RegisterFilesResponse::default()))
    }

    async fn delete_file(
        &self,
        _: Request<DeleteFileRequest>,
    ) -> tonic::Result<Response<DeleteFileResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(DeleteFileResponse::default()))
    }

    async fn move_file(&self, _: Request<MoveFileRequest>) -> tonic::Result<Response<MoveFileResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(MoveFileResponse::default()))
    }

    async fn move_directory(
        &self,
        _: Request<MoveDirectoryRequest>,
    ) -> tonic::Result<Response<MoveDirectoryResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(MoveDirectoryResponse::default()))
    }

    async fn delete_directory(
        &self,
        _: Request<DeleteDirectoryRequest>,
    ) -> tonic::Result<Response<DeleteDirectoryResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(DeleteDirectoryResponse::default()))
    }

    async fn update_placement(
        &self,
        _: Request<lockstep_proto::filesync::v1::UpdatePlacementRequest>,
    ) -> tonic::Result<Response<lockstep_proto::filesync::v1::UpdatePlacementResponse>> {
        Ok(Response::new(lockstep_proto::filesync::v1::UpdatePlacementResponse::default()))
    }

    async fn delete_files(
        &self,
        _: Request<lockstep_proto::filesync::v1::DeleteFilesRequest>,
    ) -> tonic::Result<Response<lockstep_proto::filesync::v1::DeleteFilesResponse>> {
        Ok(Response::new(lockstep_proto::filesync::v1::DeleteFilesResponse::default()))
    }
}

#[tonic::async_trait]
impl ReplicaService for Handlers {
    type WatchReplicasStream = watch::BoxStream<WatchReplicasResponse>;

    async fn reconcile(&self, _: Request<ReconcileRequest>) -> tonic::Result<Response<ReconcileResponse>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(ReconcileResponse::default()))
    }

    /// Counts, every 20 ms.
    async fn watch_replicas(
        &self,
        _: Request<WatchReplicasRequest>,
    ) -> tonic::Result<Response<Self::WatchReplicasStream>> {
        self.reached.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = mpsc::channel(4);
        self.drain.spawn("count", async move {
            for n in 0_u64.. {
                let message = WatchReplicasResponse { resume_token: n.to_string(), ..Default::default() };
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Ok(Response::new(watch::stream(&self.drain, receiver)))
    }
}

/// A served process.
pub(crate) struct Served {
    pub(crate) uri: String,
    pub(crate) port: u16,
    pub(crate) identity: Identity,
    pub(crate) drain: Drain,
    pub(crate) health: Health,
    pub(crate) people: People,
    pub(crate) reached: Arc<AtomicUsize>,
}

impl Served {
    pub(crate) async fn start(tls: TlsIdentity, people: People) -> Self {
        Self::with(tls, people, None).await
    }

    pub(crate) async fn with(
        tls: TlsIdentity,
        people: People,
        next: Option<(Channels, String, Identity)>,
    ) -> Self {
        let (drain, health) = (Drain::new(), Health::new(&["registry"]));
        let identity = tls.identity();
        let incoming = TlsIncoming::bind("127.0.0.1:0", tls, &drain).await.expect("a free port");
        let handlers = Handlers { drain: drain.clone(), reached: Arc::default(), next };
        let reached = handlers.reached.clone();
        let mut app = App::new("filesync", people.clone(), health.clone())
            .add(FileServiceServer::new(handlers.clone()))
            .add(ReplicaServiceServer::new(handlers));
        if let Identity::Server { server_id, .. } = &identity {
            app = app.own_server(server_id.clone());
        }
        let port = incoming.address().port();
        drain.spawn("app", {
            let drain = drain.clone();
            async move { app.serve(incoming, &drain).await.expect("every call has a right") }
        });
        Self { uri: format!("https://localhost:{port}"), port, identity, drain, health, people, reached }
    }

    pub(crate) fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }

    pub(crate) fn files(&self, channels: &Channels) -> FileServiceClient<lockstep_chassis::Channel> {
        FileServiceClient::new(channels.to(&self.uri, self.identity.clone(), Lane::Control))
    }

    pub(crate) fn replicas(&self, channels: &Channels) -> ReplicaServiceClient<lockstep_chassis::Channel> {
        ReplicaServiceClient::new(channels.to(&self.uri, self.identity.clone(), Lane::Control))
    }

    /// Drains and waits.
    pub(crate) async fn end(self) {
        self.drain.begin();
        tokio::time::timeout(SOON, self.drain.finished()).await.expect("the drain ends");
        assert!(!self.drain.failed());
    }
}

/// What `GetFile` of this path answers with.
pub(crate) async fn get(
    client: &mut FileServiceClient<lockstep_chassis::Channel>,
    request: impl tonic::IntoRequest<GetFileRequest>,
) -> Result<String, lockstep_chassis::Failure> {
    let answer = tokio::time::timeout(SOON, client.get_file(request)).await.expect("an answer");
    match answer {
        Ok(answer) => Ok(answer.into_inner().file.expect("a file").path),
        Err(error) => Err(status::read(&error)),
    }
}

pub(crate) fn path(path: &str) -> GetFileRequest {
    GetFileRequest { path: path.to_owned() }
}
