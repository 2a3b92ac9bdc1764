//! From configuration to a serving process.

use std::{marker::PhantomData, sync::Arc};

use lockstep_chassis::{App, Connection, Drain, Health, Process, StartError, Switch, SystemReadings};
use lockstep_model::{
    Incarnation,
    clock::{Clock, Entropy, Readings as _, SystemClock, SystemEntropy},
};
use lockstep_proto::filesync::v1::{
    content_service_server::ContentServiceServer, file_service_server::FileServiceServer,
    replica_service_server::ReplicaServiceServer, store_service_server::StoreServiceServer,
    upload_service_server::UploadServiceServer,
};
use lockstep_registry::{CachedMembers, Registry, SqliteRegistry};
use tokio_stream::Stream;

use crate::{
    adapters::{
        guard_grpc::{GrpcGuard, GuardLink},
        index_sqlite::SqliteIndex,
        peers_grpc::GrpcPeers,
        store_fs::FsStore,
    },
    config::{Config, Settings},
    engine::{Adapters, Engine},
    grpc::{
        content_service::Contents, file_service::Files, replica_service::Replicas, store_service::Stores,
        upload_service::Uploads,
    },
    metrics,
    ports::{Guard, Index, Peers, Ports, Store},
};

/// The largest message a call may carry, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The ports of a process, by the types of their adapters.
pub struct Parts<S, I, R, N, G, C, E>(PhantomData<(S, I, R, N, G, C, E)>);

impl<S, I, R, N, G, C, E> Clone for Parts<S, I, R, N, G, C, E> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<S: Store, I: Index, R: Registry, N: Peers, G: Guard, C: Clock, E: Entropy> Ports
    for Parts<S, I, R, N, G, C, E>
{
    type Store = S;
    type Index = I;
    type Registry = R;
    type Peers = N;
    type Guard = G;
    type Clock = C;
    type Entropy = E;
}

/// What a process uses.
type Real =
    Parts<FsStore, SqliteIndex, SqliteRegistry, GrpcPeers, Option<GrpcGuard>, SystemClock, SystemEntropy>;

/// Runs a filesync until it drains.
///
/// # Errors
/// [`StartError`] if something that it needs is not there: the state directory, the index, the registry.
pub async fn run(mut config: Config, process: Process) -> Result<(), StartError> {
    // Whether the clock was set before or after this process began, the guard tells by it.
    let started = SystemReadings.reading();
    let _state = crate::adapters::state_lock::lock(&config.state)?;
    let index = SqliteIndex::open(&config.state.join("index.sqlite")).map_err(|error| {
        let advice =
            "restore the state directory, or remove the file: it is rebuilt from the disk and the registry";
        StartError::new("the index cannot be opened", error, advice)
    })?;
    let registry =
        config.registry.open().map_err(|error| StartError::of("the registry cannot be opened", &error))?;
    if config.settings.advertise.is_empty() {
        config.settings.advertise = format!("https://{}", process.address);
    }
    let guard = (config.fence == Switch::On).then(|| {
        let tls = process.tls.clone();
        let link = GuardLink {
            server: config.settings.server_id.clone(),
            uri: config.settings.timeguard.clone(),
            channels: process.channels.clone(),
            started,
            is_current: Arc::new(move || tls.is_current()),
            entropy: SystemEntropy,
        };
        GrpcGuard::start(link, &process.drain, &process.health)
    });
    let ports: Adapters<Real> = Adapters {
        store: FsStore::of(&config.settings.server_id, &config.root, config.reserve_bytes),
        index,
        registry,
        peers: GrpcPeers::new(process.channels.clone()),
        guard,
        clock: SystemClock,
        entropy: SystemEntropy,
    };
    serve(config.settings, ports, process.incoming, process.drain, process.health).await
}

/// Serves over any ports and any connections; the simulation uses this too.
///
/// # Errors
/// [`StartError`] if the index cannot be read or the contract is not complete.
pub async fn serve<P: Ports, C: Connection>(
    settings: Settings,
    ports: Adapters<P>,
    incoming: impl Stream<Item = C> + Send,
    drain: Drain,
    health: Health,
) -> Result<(), StartError> {
    let (registry, entropy, server) =
        (ports.registry.clone(), ports.entropy.clone(), settings.server_id.clone());
    let engine = Engine::start(settings, ports, drain.clone(), health.clone()).await.map_err(|error| {
        StartError::new("the index cannot be read", error, "restore the state directory of this server")
    })?;
    metrics::observe(&engine);
    let replicas = Replicas::new(engine.clone(), Incarnation::random(&entropy), drain.clone());
    let files =
        FileServiceServer::new(Files::new(engine.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let app = App::new("filesync", CachedMembers::new(registry), health)
        .own_server(server)
        .add(files)
        .add(
            UploadServiceServer::new(Uploads::new(engine.clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add(StoreServiceServer::new(Stores::new(engine.clone())))
        .add(ContentServiceServer::new(Contents::new(engine)))
        .add(ReplicaServiceServer::new(replicas));
    app.serve(incoming, &drain).await
}
