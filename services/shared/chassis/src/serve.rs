//! A gRPC server: services behind authentication, rights, deadlines, traces, health and reflection.
//!
//! ```text
//! connection ─▶ span ─▶ panics ─▶ deadline ─▶ authentication ─▶ rights ─▶ handler
//!                                                    └─▶ fallback (gateway: any other service)
//! ```

use std::{collections::BTreeMap, convert::Infallible};

use futures::{Stream, StreamExt as _};
use http::{Request, Response};
use lockstep_model::{ServerId, identity::Members};
use tokio_util::task::TaskTracker;
use tonic::{body::Body, server::NamedService};
use tower::{Service, util::BoxCloneSyncService};

use crate::{
    auth::Gate,
    connection,
    drain::Drain,
    health::{Health, HealthRpc},
    layer::Layers,
    rights::Methods,
};
pub use crate::{
    auth::{PRINCIPAL_KEY, SERVER_KEY, caller},
    connection::Connection,
    start::StartError,
};

/// What a request is handed to.
pub(crate) type Handler = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The most connections at once. 200 servers with a control and eight bulk connections each fit.
pub const CONNECTIONS_MAX: usize = 4_096;

/// The services of one process, on their way to being served.
pub struct App<M: Members> {
    service: &'static str,
    gate: Gate<M>,
    health: Health,
    handlers: BTreeMap<String, Handler>,
    fallback: Option<Handler>,
    descriptors: Vec<&'static [u8]>,
}

impl<M: Members> App<M> {
    /// An app that serves nothing but health and reflection yet. `members` says who belongs to the installation.
    pub fn new(service: &'static str, members: M, health: Health) -> Self {
        Self {
            service,
            gate: Gate { members, own_server: None },
            health,
            handlers: BTreeMap::new(),
            fallback: None,
            descriptors: vec![lockstep_proto::DESCRIPTOR_SET],
        }
    }

    /// Adds a generated service.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "the word that tonic uses for it")]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.handlers.insert(S::NAME.to_owned(), BoxCloneSyncService::new(service));
        self
    }

    /// The server that the process belongs to: its own services need not be in the registry, and have the rights
    /// that the contract gives to `own/<service>`.
    #[must_use]
    pub fn own_server(mut self, server: ServerId) -> Self {
        self.gate.own_server = Some(server);
        self
    }

    /// Hands every call of another service to `service`, authenticated but without a check of rights: who answers it
    /// authorises the principal itself.
    #[must_use]
    pub fn fallback<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.fallback = Some(BoxCloneSyncService::new(service));
        self
    }

    /// Describes services that are not in the contract of Lockstep.
    #[must_use]
    pub fn descriptors(mut self, descriptor_set: &'static [u8]) -> Self {
        self.descriptors.push(descriptor_set);
        self
    }

    /// Serves `incoming` until the process drains and every connection ended.
    ///
    /// # Errors
    /// [`StartError`] if a service lacks its description, or one of its RPCs its right.
    pub async fn serve(
        self,
        incoming: impl Stream<Item = impl Connection>,
        drain: &Drain,
    ) -> Result<(), StartError> {
        let health = self.health.clone();
        let layers = self.into_layers(drain)?;
        health.beat(drain);
        let connections = TaskTracker::new();
        let mut incoming = std::pin::pin!(incoming);
        loop {
            let next = tokio::select! {
                biased;
                () = drain.started() => break,
                next = incoming.next() => next,
            };
            let Some(connection) = next else { break };
            if connections.len() >= CONNECTIONS_MAX {
                tracing::info!(limit = CONNECTIONS_MAX, "connection refused, there are too many");
                continue;
            }
            let served = connection::serve(connection, layers.clone(), drain.clone());
            drain.spawn_for_client("connection", connections.track_future(served));
        }
        connections.close();
        connections.wait().await;
        Ok(())
    }

    fn into_layers(mut self, drain: &Drain) -> Result<Layers<M>, StartError> {
        let cannot = |why: String| {
            StartError::new(
                format!("{} cannot serve", self.service),
                why,
                "this is a defect of the build, report it",
            )
        };
        let mut methods = Methods::contract().clone();
        for set in self.descriptors.iter().skip(1) {
            methods.extend(Methods::read(set).map_err(|error| cannot(error.to_string()))?);
        }
        let served: Vec<String> = self.handlers.keys().cloned().collect();
        let missing = methods.missing_rights(&served);
        if !missing.is_empty() {
            return Err(cannot(missing.join("; ")));
        }
        let health = HealthRpc::new(self.health.clone(), &served, drain);
        // Behind a fallback every service of the contract answers, so all are listed.
        let listed = if self.fallback.is_some() { None } else { Some(served) };
        let reflection = |error: tonic_reflection::server::Error| cannot(error.to_string());
        let v1 = reflect(&self.descriptors, listed.as_deref()).build_v1().map_err(reflection)?;
        let v1alpha = reflect(&self.descriptors, listed.as_deref()).build_v1alpha().map_err(reflection)?;
        self = self.add(tonic_health::pb::health_server::HealthServer::new(health)).add(v1).add(v1alpha);
        Ok(Layers::new(self.gate, methods, self.handlers, self.fallback, drain))
    }
}

/// Every builder gets every set: one that lacks a set hides its services from some clients.
fn reflect<'a>(sets: &[&'a [u8]], listed: Option<&[String]>) -> tonic_reflection::server::Builder<'a> {
    use tonic_reflection::pb;
    let foreign = [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_types::pb::FILE_DESCRIPTOR_SET,
        pb::v1::FILE_DESCRIPTOR_SET,
        pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut builder = tonic_reflection::server::Builder::configure().include_reflection_service(false);
    for set in sets.iter().copied().chain(foreign) {
        builder = builder.register_encoded_file_descriptor_set(set);
    }
    let built_in = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    for name in listed.into_iter().flat_map(|names| names.iter().map(String::as_str).chain(built_in)) {
        builder = builder.with_service_name(name);
    }
    builder
}
