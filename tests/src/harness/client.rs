//! Typed clients with any certificate of an installation.

use std::{path::Path, sync::Arc};

use lockstep_chassis::{
    SERVER_KEY,
    channel::{Channel, Channels, Lane},
    dial::TlsDial,
    tls::TlsIdentity,
};
use lockstep_model::Identity;
use lockstep_proto::{
    filesync::v1::{
        content_service_client::ContentServiceClient, file_service_client::FileServiceClient,
        replica_service_client::ReplicaServiceClient, store_service_client::StoreServiceClient,
        upload_service_client::UploadServiceClient,
    },
    gateway::v1::{
        matrix_service_client::MatrixServiceClient, sync_run_service_client::SyncRunServiceClient,
    },
    resolver::v1::connection_service_client::ConnectionServiceClient,
    timeguard::v1::clock_service_client::ClockServiceClient,
};
use tonic::Request;

use super::installation::Addresses;

/// One identity's way to the services of an installation. A child is named as `lockstep up` names it: `gateway`,
/// `s1.filesync`, …
#[derive(Clone, Debug)]
pub struct Client {
    channels: Channels,
    addresses: Arc<Addresses>,
}

impl Client {
    pub(super) fn new(folder: &Path, ca: &Path, addresses: Arc<Addresses>) -> Self {
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let identity = TlsIdentity::load(&cert, &key, ca, &addresses.trust_domain)
            .expect("a certificate of the installation");
        Self { channels: Channels::new(TlsDial::new(identity)), addresses }
    }

    /// The channel to a child, on a lane.
    pub fn lane(&self, child: &str, lane: Lane) -> Channel {
        self.channels.to(&self.addresses.uri(child), identity(child), lane)
    }

    /// The channel to a child.
    pub fn channel(&self, child: &str) -> Channel {
        self.lane(child, Lane::Control)
    }

    /// Files, by the gateway.
    pub fn files(&self) -> FileServiceClient<Channel> {
        self.files_at("gateway")
    }

    /// Files at a filesync directly.
    pub fn files_at(&self, child: &str) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel(child))
    }

    /// Uploads, by the gateway or directly.
    pub fn uploads_at(&self, child: &str) -> UploadServiceClient<Channel> {
        UploadServiceClient::new(self.lane(child, Lane::Bulk(0)))
    }

    /// Replicas, by the gateway or directly.
    pub fn replicas_at(&self, child: &str) -> ReplicaServiceClient<Channel> {
        ReplicaServiceClient::new(self.channel(child))
    }

    /// The disk of a server, by the gateway.
    pub fn stores(&self) -> StoreServiceClient<Channel> {
        self.stores_at("gateway")
    }

    /// The disk of a server, by the gateway or directly.
    pub fn stores_at(&self, child: &str) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel(child))
    }

    /// Content of a filesync.
    pub fn contents_at(&self, child: &str) -> ContentServiceClient<Channel> {
        ContentServiceClient::new(self.channel(child))
    }

    /// Sync runs.
    pub fn runs(&self) -> SyncRunServiceClient<Channel> {
        SyncRunServiceClient::new(self.channel("gateway"))
    }

    /// Connection data, by a resolver or the gateway.
    pub fn connections_at(&self, child: &str) -> ConnectionServiceClient<Channel> {
        ConnectionServiceClient::new(self.channel(child))
    }

    /// The clock of a server, by its timeguard or the gateway.
    pub fn clocks_at(&self, child: &str) -> ClockServiceClient<Channel> {
        ClockServiceClient::new(self.channel(child))
    }

    /// The matrix.
    pub fn matrix(&self) -> MatrixServiceClient<Channel> {
        MatrixServiceClient::new(self.channel("gateway"))
    }
}

/// A request that the gateway passes on to a server.
pub fn addressed<T>(message: T, server: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(SERVER_KEY, server.parse().expect("a server id is valid metadata"));
    request
}

fn identity(child: &str) -> Identity {
    let service = |name: &str| {
        let known = lockstep_model::identity::SERVICES.iter().find(|service| **service == name);
        *known.expect("a service")
    };
    match child.split_once('.') {
        Some((server, name)) => {
            Identity::Server { server_id: server.parse().expect("a server id"), service: service(name) }
        }
        None => Identity::Service(service(child)),
    }
}
