//! An installation within this process: the real services, certificates, sockets, files and databases.

mod guards;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use bytes::Bytes;
use lockstep_chassis::{
    Channel, Channels, Drain, Health, Lane, Process, SERVER_KEY, StartError, TlsDial, TlsIdentity,
    TlsIncoming, pki::DevelopmentCa,
};
use lockstep_model::{
    Identity, Position, Revision, Role, ServerId, StoreId,
    record::{OperatorRecord, operator_key},
};
use lockstep_proto::{
    catalog::v1::{
        firmware_service_client::FirmwareServiceClient, settings_service_client::SettingsServiceClient,
    },
    filesync::v1::{
        File, NewFile, RegisterFileRequest, UploadChunk, UploadHeader, WriteUploadRequest,
        WriteUploadResponse, content_service_client::ContentServiceClient,
        file_service_client::FileServiceClient, new_file::Source,
        replica_service_client::ReplicaServiceClient, store_service_client::StoreServiceClient,
        upload_service_client::UploadServiceClient, write_upload_request::Part,
    },
    gateway::v1::{
        ListRowsRequest, ListServersRequest, Row, cell, matrix_service_client::MatrixServiceClient,
        server_summary, sync_run_service_client::SyncRunServiceClient,
    },
    resolver::v1::{
        connection_service_client::ConnectionServiceClient, server_service_client::ServerServiceClient,
    },
};
use lockstep_registry::{
    Changes, Commit, Committed, ListQuery, Listing, Note, Record, Registry as _, RegistryError,
    Request as RegistryRequest, SqliteRegistry,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Response, Status};

/// The key of the passwords that are stored with firmware updates.
pub(crate) const PASSWORD_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// The trust domain of the tests.
pub(crate) const DOMAIN: &str = "lockstep.test";
/// Nothing in these tests takes longer, unless it hangs.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Operators and their roles, as `lockstep up` seeds them.
pub(crate) const OPERATORS: [(&str, Role); 4] = [
    ("local", Role::Admin),
    ("operator", Role::Operator),
    ("publisher", Role::Publisher),
    ("viewer", Role::Viewer),
];

pub(crate) fn operator(name: &str) -> Identity {
    Identity::Operator(name.to_owned())
}

pub(crate) fn of_server(id: &str, service: &'static str) -> Identity {
    Identity::Server { server_id: id.parse().expect("a server id"), service }
}

/// What one server is told beside the usual.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) cycle: Duration,
    pub(crate) reserve_bytes: u64,
    pub(crate) mode: &'static str,
    pub(crate) version: &'static str,
    pub(crate) relay_bytes_min: u64,
    pub(crate) exceptions_max: usize,
    pub(crate) lost_store: Option<StoreId>,
    /// Where others find it; empty for where it listens.
    pub(crate) advertise: String,
    pub(crate) checks: filesync::Checks,
}

impl Default for Options {
    /// The cycle is so long that nothing waits for it.
    fn default() -> Self {
        Self {
            cycle: Duration::from_secs(3_600),
            reserve_bytes: 1 << 20,
            mode: "distributed",
            version: "12.04.100",
            relay_bytes_min: 32 << 20,
            exceptions_max: filesync::EXCEPTIONS_MAX,
            lost_store: None,
            advertise: String::new(),
            checks: filesync::Checks::default(),
        }
    }
}

/// A running service.
pub(crate) struct Running {
    pub(crate) identity: Identity,
    pub(crate) port: u16,
    pub(crate) drain: Drain,
    pub(crate) health: Health,
}

impl Running {
    pub(crate) fn uri(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Drains and waits.
    pub(crate) async fn stop(&self) {
        self.drain.begin();
        timeout(SOON, self.drain.finished()).await.expect("the drain ends");
        assert!(!self.drain.failed(), "{} failed", self.identity);
    }
}

/// The installation.
pub(crate) struct Mesh {
    directory: TempDir,
    ca: DevelopmentCa,
    channels: Mutex<BTreeMap<String, Channels>>,
    options: BTreeMap<String, Options>,
    pub(crate) servers: BTreeMap<String, Running>,
    pub(crate) guards: BTreeMap<String, Running>,
    pub(crate) gateway: Option<Running>,
    pub(crate) catalog: Option<Running>,
    pub(crate) resolver: Option<Running>,
    pub(crate) registry: SqliteRegistry,
}

/// What an installation has on its disks and in its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(crate) head: Position,
    pub(crate) published: BTreeMap<String, Vec<PathBuf>>,
    pub(crate) staged: BTreeMap<String, Vec<String>>,
    pub(crate) aside: BTreeMap<String, Vec<PathBuf>>,
}

impl Mesh {
    /// A gateway and so many servers, `s1` first, all ready.
    pub(crate) async fn new(servers: usize) -> Self {
        Self::with((1..=servers).map(|_| Options::default()).collect()).await
    }

    /// A gateway and servers that are told this, `s1` first, all started.
    pub(crate) async fn with(options: Vec<Options>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = DevelopmentCa::open_or_create(&directory.path().join("pki"), DOMAIN).expect("a CA");
        let registry =
            SqliteRegistry::open(&directory.path().join("registry/registry.sqlite")).expect("opens");
        let mut puts = Vec::new();
        for (name, role) in OPERATORS {
            puts.push((operator_key(name), serde_json::to_string(&OperatorRecord { role }).expect("JSON")));
        }
        registry.commit(Commit { puts, ..Commit::default() }).await.expect("commits");
        let mut mesh = Self {
            directory,
            ca,
            channels: Mutex::default(),
            options: BTreeMap::new(),
            servers: BTreeMap::new(),
            guards: BTreeMap::new(),
            gateway: None,
            catalog: None,
            resolver: None,
            registry,
        };
        for (number, options) in options.into_iter().enumerate() {
            mesh.start(&format!("s{}", number + 1), options).await;
        }
        mesh.start_catalog(None).await;
        mesh.resolver = Some(mesh.another_resolver(Some(PASSWORD_KEY)).await);
        mesh.start_gateway().await;
        mesh.ready().await;
        mesh
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn registry_file(&self) -> PathBuf {
        self.path("registry/registry.sqlite")
    }

    pub(crate) fn root(&self, server: &str) -> PathBuf {
        self.path(&format!("{server}/root"))
    }

    pub(crate) fn transfer(&self, server: &str) -> PathBuf {
        self.root(server).join("ums_filetransfer")
    }

    /// The certificate and key of `identity`, issued by the CA of this installation.
    pub(crate) fn certificate(&self, identity: &Identity) -> (PathBuf, PathBuf) {
        let folder = self.path("certificates").join(identity.to_string().replace('/', "."));
        fs::create_dir_all(&folder).expect("a directory");
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        if !cert.exists() {
            self.ca.issue(identity, &names).expect("issued").write(&cert, &key).expect("written");
        }
        (cert, key)
    }

    pub(crate) fn tls(&self, identity: &Identity) -> TlsIdentity {
        let (cert, key) = self.certificate(identity);
        TlsIdentity::load(&cert, &key, &self.path("pki/ca.pem"), DOMAIN).expect("usable")
    }

    async fn process(&self, identity: Identity, conditions: &[&'static str], port: u16) -> Process {
        let (drain, tls) = (Drain::new(), self.tls(&identity));
        let address = format!("127.0.0.1:{port}");
        let incoming = TlsIncoming::bind(&address, tls.clone(), &drain).await.expect("a free port");
        Process {
            service: identity.service().expect("a service"),
            identity,
            health: Health::new(conditions),
            address: incoming.address(),
            incoming,
            channels: Channels::new(TlsDial::new(tls.clone())),
            tls,
            trust_domain: DOMAIN.to_owned(),
            drain,
        }
    }

    /// A process with the certificate and at the address of a server that stopped, for something else to serve there.
    pub(crate) async fn process_in_place_of(&self, server: &str) -> Process {
        self.process(of_server(server, "filesync"), &[], self.servers[server].port).await
    }

    /// Starts a server, or starts it again on the directories that it left.
    pub(crate) async fn start(&mut self, server: &str, options: Options) {
        self.options.insert(server.to_owned(), options.clone());
        let timeguard = self.guard_uri(server).await;
        // A server keeps its address: others look for it there.
        let port = self.servers.get(server).map_or(0, |before| before.port);
        let process = self.process(of_server(server, "filesync"), &["registry", "store"], port).await;
        fs::create_dir_all(self.path(&format!("{server}/state"))).expect("a directory");
        fs::create_dir_all(self.root(server)).expect("a directory");
        let config = filesync::Config {
            settings: filesync::Settings {
                server_id: server.parse().expect("a server id"),
                mode: options.mode.parse().expect("a mode"),
                version: options.version.parse().expect("a version"),
                advertise: options.advertise,
                timeguard,
                reconcile_every: options.cycle,
                relay_bytes_min: options.relay_bytes_min,
                exceptions_max: options.exceptions_max,
                lost_store: options.lost_store,
                checks: options.checks,
            },
            root: self.root(server),
            state: self.path(&format!("{server}/state")),
            registry: format!("sqlite:{}", self.registry_file().display()).parse().expect("a location"),
            reserve_bytes: options.reserve_bytes,
            fence: lockstep_chassis::Switch::On,
        };
        let running = keep(&process);
        let work = filesync::run(config, process);
        run(&running.drain, work);
        self.servers.insert(server.to_owned(), running);
    }

    /// Starts it again with the options that it had.
    pub(crate) async fn restart(&mut self, server: &str) {
        self.servers[server].stop().await;
        let options = self.options[server].clone();
        self.start(server, options).await;
    }

    pub(crate) async fn start_gateway(&mut self) {
        let port = self.gateway.as_ref().map_or(0, |before| before.port);
        let process = self.process(Identity::Service("gateway"), &["registry"], port).await;
        let config = gateway::Config {
            registry: format!("sqlite:{}", self.registry_file().display()).parse().expect("a location"),
            catalog: gateway::config::Uris(self.catalog.iter().map(Running::uri).collect()),
            resolver: gateway::config::Uris(self.resolver.iter().map(Running::uri).collect()),
        };
        let running = keep(&process);
        let work = gateway::run(config, process);
        run(&running.drain, work);
        self.gateway = Some(running);
    }

    /// Starts the catalog, or starts it again at its address, with another file of sources.
    pub(crate) async fn start_catalog(&mut self, sources: Option<PathBuf>) {
        let port = match self.catalog.take() {
            Some(before) => {
                before.stop().await;
                before.port
            }
            None => 0,
        };
        self.catalog = Some(self.catalog_at(port, sources).await);
    }

    fn location(&self) -> lockstep_registry::Location {
        format!("sqlite:{}", self.registry_file().display()).parse().expect("a location")
    }

    /// The key that catalog and resolver share.
    fn password_key(&self) -> PathBuf {
        let key = self.path("passwords.key");
        fs::write(&key, PASSWORD_KEY).expect("written");
        key
    }

    /// One more catalog, beside the first if there is one.
    pub(crate) async fn catalog_at(&self, port: u16, sources: Option<PathBuf>) -> Running {
        let process = self.process(Identity::Service("catalog"), &["registry"], port).await;
        let config = catalog::Config {
            registry: self.location(),
            sources,
            password_key: Some(self.password_key()),
            takeover_after: lockstep_chassis::Span(Duration::from_secs(3)),
        };
        let running = keep(&process);
        run(&running.drain, catalog::run(config, process));
        running
    }

    /// One more gateway, beside the first.
    pub(crate) async fn another_gateway(&self) -> Running {
        let process = self.process(Identity::Service("gateway"), &["registry"], 0).await;
        let config = gateway::Config {
            registry: format!("sqlite:{}", self.registry_file().display()).parse().expect("a location"),
            catalog: gateway::config::Uris(self.catalog.iter().map(Running::uri).collect()),
            resolver: gateway::config::Uris(self.resolver.iter().map(Running::uri).collect()),
        };
        let running = keep(&process);
        run(&running.drain, gateway::run(config, process));
        running
    }

    /// One more resolver, with this key of stored passwords.
    pub(crate) async fn another_resolver(&self, password_key: Option<&str>) -> Running {
        let process = self.process(Identity::Service("resolver"), &["registry"], 0).await;
        let config = resolver::Config {
            registry: self.location(),
            password_key: password_key.map(|key| {
                let path = self.path("password.key");
                fs::write(&path, key).expect("written");
                path
            }),
        };
        let running = keep(&process);
        run(&running.drain, resolver::run(config, process));
        running
    }

    /// A resolver whose registry does not answer.
    pub(crate) async fn resolver_without_registry(&self) -> Running {
        let process = self.process(Identity::Service("resolver"), &["registry"], 0).await;
        let running = keep(&process);
        let parts = resolver::Parts {
            registry: Silent,
            reports: lockstep_replicas::GrpcReports::new(process.channels.clone()),
            clock_reports: lockstep_clocks::GrpcClockReports::new(process.channels),
            password_key: None,
            health: process.health,
            drain: process.drain,
            entropy: lockstep_model::clock::SystemEntropy,
        };
        run(&running.drain, resolver::serve(parts, process.incoming));
        running
    }

    /// An operator in front of another service than the first gateway.
    pub(crate) fn operator_at(&self, door: &Running, name: &str) -> Caller {
        let channels = self.channels(&operator(name));
        Caller { channel: channels.to(&door.uri(), door.identity.clone(), Lane::Control) }
    }

    /// A gateway whose registry does not answer.
    pub(crate) async fn start_gateway_without_registry(&mut self) {
        let port = self.gateway.as_ref().map_or(0, |before| before.port);
        let process = self.process(Identity::Service("gateway"), &["registry"], port).await;
        let running = keep(&process);
        let parts = gateway::Parts {
            registry: Silent,
            channels: process.channels,
            backends: gateway::proxy::Backends::default(),
            health: process.health,
            drain: process.drain,
            entropy: lockstep_model::clock::SystemEntropy,
        };
        run(&running.drain, gateway::serve(parts, process.incoming));
        self.gateway = Some(running);
    }

    pub(crate) fn door(&self) -> &Running {
        self.gateway.as_ref().expect("the gateway runs")
    }

    /// Waits until every server that runs reports to the gateway from where it is now.
    pub(crate) async fn ready(&self) {
        let mut matrix = self.operator("local").matrix();
        let ready = async || {
            let answer = matrix.list_servers(ListServersRequest::default()).await.map(Response::into_inner);
            let Ok(answer) = answer else { return false };
            self.servers.iter().filter(|(_, running)| !running.drain.is_draining()).all(|(id, running)| {
                let known = answer.servers.iter().find(|known| known.server_id == *id);
                known.is_some_and(|known| {
                    let state = known.state();
                    known.filesync_uri == running.uri()
                        && (state == server_summary::State::Ready
                            || state == server_summary::State::NotEligible)
                })
            })
        };
        eventually("every server reports", ready).await;
    }

    /// Ways of `identity` to the services. Connections are kept.
    pub(crate) fn channels(&self, identity: &Identity) -> Channels {
        let mut kept = self.channels.lock().expect("not poisoned");
        let make = || Channels::new(TlsDial::new(self.tls(identity)));
        kept.entry(identity.to_string()).or_insert_with(make).clone()
    }

    /// `identity` in front of the gateway.
    pub(crate) fn caller(&self, identity: &Identity) -> Caller {
        let door = self.door();
        Caller { channel: self.channels(identity).to(&door.uri(), door.identity.clone(), Lane::Control) }
    }

    /// `identity` in front of one server.
    pub(crate) fn caller_at(&self, server: &str, identity: &Identity) -> Caller {
        let server = &self.servers[server];
        Caller { channel: self.channels(identity).to(&server.uri(), server.identity.clone(), Lane::Control) }
    }

    /// An operator in front of the gateway.
    pub(crate) fn operator(&self, name: &str) -> Caller {
        self.caller(&operator(name))
    }

    /// What there is now, on all servers.
    pub(crate) async fn footprint(&self) -> Footprint {
        let head = self.registry.head().await.expect("the registry answers");
        let of_all = |list: &dyn Fn(&str) -> Vec<PathBuf>| {
            self.servers.keys().map(|id| (id.clone(), list(id))).collect::<BTreeMap<_, _>>()
        };
        let published = of_all(&|id| tree(&self.transfer(id)));
        let staged = of_all(&|id| tree(&self.root(id).join(".lockstep/staging")));
        let aside = of_all(&|id| tree(&self.root(id).join(".lockstep/aside")));
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let staged =
            staged.into_iter().map(|(id, list)| (id, list.into_iter().map(text).collect())).collect();
        Footprint { head, published, staged, aside }
    }

    /// The row of a file, as the matrix has it now.
    pub(crate) async fn row(&self, path: &str) -> Option<Row> {
        let request = ListRowsRequest { path_prefix: path.to_owned(), ..ListRowsRequest::default() };
        let rows =
            self.operator("viewer").matrix().list_rows(request).await.expect("lists").into_inner().rows;
        rows.into_iter().find(|row| row.path == path)
    }

    /// Waits until the gateway has heard that a server came to the end of the history.
    pub(crate) async fn caught_up(&self, server: &str) {
        let mut matrix = self.operator("viewer").matrix();
        eventually("it has caught up", async || {
            let answer =
                matrix.list_servers(ListServersRequest::default()).await.expect("lists").into_inner();
            let known = answer.servers.iter().find(|known| known.server_id == server);
            known.is_some_and(|known| known.lag_count == 0 && known.position == answer.position)
        })
        .await;
    }

    /// Waits until every server that runs holds the file.
    pub(crate) async fn in_sync(&self, path: &str) {
        eventually(&format!("{path} is in sync"), async || {
            self.row(path)
                .await
                .is_some_and(|row| row.cells.iter().all(|cell| cell.state() == cell::State::InSync))
        })
        .await;
    }
}

/// A registry that does not answer.
#[derive(Clone, Copy, Debug)]
struct Silent;

/// What it does not answer.
async fn unavailable<T>() -> Result<T, RegistryError> {
    Err(RegistryError::Unavailable { cause: "on purpose".to_owned() })
}

impl lockstep_registry::Registry for Silent {
    async fn head(&self) -> Result<Position, RegistryError> {
        unavailable().await
    }

    async fn get(&self, _: Vec<String>) -> Result<Vec<Option<Record>>, RegistryError> {
        unavailable().await
    }

    async fn get_latest(&self, _: Vec<String>) -> Result<Vec<Option<Record>>, RegistryError> {
        unavailable().await
    }

    async fn list(&self, _: ListQuery) -> Result<Listing, RegistryError> {
        unavailable().await
    }

    async fn commit(&self, _: Commit) -> Result<Committed, RegistryError> {
        unavailable().await
    }

    async fn find_request(&self, _: RegistryRequest) -> Result<Option<Revision>, RegistryError> {
        unavailable().await
    }

    async fn transaction(&self, _: Revision) -> Result<Vec<Record>, RegistryError> {
        unavailable().await
    }

    async fn changes(&self, _: Position, _: String, _: usize) -> Result<Changes, RegistryError> {
        unavailable().await
    }

    async fn wait_past(&self, _: Revision) -> Result<Position, RegistryError> {
        unavailable().await
    }

    async fn put_note(&self, _: String, _: String) -> Result<(), RegistryError> {
        unavailable().await
    }

    async fn drop_note(&self, _: String) -> Result<(), RegistryError> {
        unavailable().await
    }

    async fn notes(&self, _: String) -> Result<Vec<Note>, RegistryError> {
        unavailable().await
    }

    async fn acknowledge(&self, _: ServerId, _: Position) -> Result<(), RegistryError> {
        unavailable().await
    }

    async fn compact(&self, _: Revision) -> Result<Revision, RegistryError> {
        unavailable().await
    }
}

fn keep(process: &Process) -> Running {
    Running {
        identity: process.identity.clone(),
        port: process.address.port(),
        drain: process.drain.clone(),
        health: process.health.clone(),
    }
}

/// As `launch` does it: whatever ends the service drains the process.
fn run(drain: &Drain, work: impl Future<Output = Result<(), StartError>> + Send + 'static) {
    let ended = drain.clone();
    drain.spawn("service", async move {
        let result = Box::pin(work).await;
        ended.begin();
        result.expect("the service starts");
    });
}

/// Every file and directory below `directory`, sorted.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
            found.push(entry.path().strip_prefix(directory).expect("below").to_owned());
        }
    }
    found.sort();
    found
}

/// Waits until `holds`, which is asked again and again.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < SOON, "it is not so within {SOON:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Somebody in front of a service.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) channel: Channel,
}

impl Caller {
    pub(crate) fn files(&self) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel.clone())
    }

    pub(crate) fn uploads(&self) -> UploadServiceClient<Channel> {
        UploadServiceClient::new(self.channel.clone())
    }

    pub(crate) fn replicas(&self) -> ReplicaServiceClient<Channel> {
        ReplicaServiceClient::new(self.channel.clone())
    }

    pub(crate) fn stores(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel.clone())
    }

    pub(crate) fn contents(&self) -> ContentServiceClient<Channel> {
        ContentServiceClient::new(self.channel.clone())
    }

    pub(crate) fn matrix(&self) -> MatrixServiceClient<Channel> {
        MatrixServiceClient::new(self.channel.clone())
    }

    pub(crate) fn connections(&self) -> ConnectionServiceClient<Channel> {
        ConnectionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn described(&self) -> ServerServiceClient<Channel> {
        ServerServiceClient::new(self.channel.clone())
    }

    pub(crate) fn firmware(&self) -> FirmwareServiceClient<Channel> {
        FirmwareServiceClient::new(self.channel.clone())
    }

    pub(crate) fn settings(&self) -> SettingsServiceClient<Channel> {
        SettingsServiceClient::new(self.channel.clone())
    }

    pub(crate) fn runs(&self) -> SyncRunServiceClient<Channel> {
        SyncRunServiceClient::new(self.channel.clone())
    }

    /// Registers a small file.
    pub(crate) async fn register(&self, server: &str, path: &str, content: &[u8]) -> Result<File, Status> {
        self.register_as(server, &uuid(), new_file(path, content)).await
    }

    /// Registers a file under this request id.
    pub(crate) async fn register_as(&self, server: &str, id: &str, file: NewFile) -> Result<File, Status> {
        let request = RegisterFileRequest { file: Some(file), request_id: id.to_owned() };
        let answer = self.files().register_file(on(server, request)).await?;
        Ok(answer.into_inner().file.expect("a file"))
    }

    /// The file at a path.
    pub(crate) async fn get(&self, path: &str) -> Result<File, Status> {
        let request = lockstep_proto::filesync::v1::GetFileRequest { path: path.to_owned() };
        Ok(self.files().get_file(request).await?.into_inner().file.expect("a file"))
    }

    /// Deletes a file; answers the revision of the deletion.
    pub(crate) async fn delete(&self, server: &str, path: &str, revision: i64) -> Result<i64, Status> {
        let request = lockstep_proto::filesync::v1::DeleteFileRequest {
            path: path.to_owned(),
            expected_revision: revision,
            request_id: uuid(),
        };
        Ok(self.files().delete_file(on(server, request)).await?.into_inner().delete_revision)
    }

    /// Sends the parts of an upload.
    pub(crate) async fn upload(
        &self,
        server: &str,
        parts: Vec<WriteUploadRequest>,
    ) -> Result<WriteUploadResponse, Status> {
        let request = on(server, futures::stream::iter(parts));
        Ok(self.uploads().write_upload(request).await?.into_inner())
    }
}

/// A message with the server that it is meant for.
pub(crate) fn on<T>(server: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(SERVER_KEY, server.parse().expect("a server id is ASCII"));
    request.set_timeout(SOON);
    request
}

pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(crate) fn new_file(path: &str, content: &[u8]) -> NewFile {
    let source = Some(Source::Content(Bytes::copy_from_slice(content)));
    NewFile { path: path.to_owned(), source, ..NewFile::default() }
}

pub(crate) fn header(upload_id: &str, size_bytes: usize, offset_bytes: usize) -> WriteUploadRequest {
    let (size_bytes, offset_bytes) = (size_bytes as i64, offset_bytes as i64);
    let header = UploadHeader { upload_id: upload_id.to_owned(), size_bytes, offset_bytes, scope: 0 };
    WriteUploadRequest { part: Some(Part::Header(header)) }
}

pub(crate) fn chunk(offset_bytes: usize, data: &[u8]) -> WriteUploadRequest {
    let chunk = UploadChunk { offset_bytes: offset_bytes as i64, data: Bytes::copy_from_slice(data) };
    WriteUploadRequest { part: Some(Part::Chunk(chunk)) }
}
