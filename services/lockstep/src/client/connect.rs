//! The connection of a command to the gateway. Who the gateway is, is decided by its certificate, never by its address.

use std::{path::PathBuf, time::Duration};

use lockstep_chassis::{
    SERVER_KEY,
    channel::{Channel, Channels, Lane},
    deadline,
    dial::TlsDial,
    status::{self, Failure},
    tls::TlsIdentity,
};
use lockstep_model::{Identity, Kind, Metadata, Reason, ServerId};
use lockstep_proto::{
    catalog::v1::{
        firmware_service_client::FirmwareServiceClient, settings_service_client::SettingsServiceClient,
    },
    filesync::v1::{
        file_service_client::FileServiceClient, store_service_client::StoreServiceClient,
        upload_service_client::UploadServiceClient,
    },
    gateway::v1::{
        ListServersRequest, ServerSummary, matrix_service_client::MatrixServiceClient,
        sync_run_service_client::SyncRunServiceClient,
    },
    resolver::v1::{
        connection_service_client::ConnectionServiceClient, server_service_client::ServerServiceClient,
    },
    timeguard::v1::clock_service_client::ClockServiceClient,
};
use tonic::Request;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    cli::ConnectionArgs,
    problem::{Exit, Problem, Result},
    up::{Installation, Layout},
};

/// A call that reads waits this long at most.
const READ_MAX: Duration = Duration::from_secs(20);
/// A call that changes something waits this long at most: a thousand files are synced to disk within it.
const CHANGE_MAX: Duration = Duration::from_secs(60);
/// How long a server may take to say that it can be reached without the gateway.
const NEAR_WITHIN: Duration = Duration::from_secs(1);
/// How often a call that may be repeated is made before its failure is believed: with the waits between, a gateway
/// or a server has some 10 s to come back.
const ATTEMPTS_MAX: u32 = 6;
/// The wait before the second attempt; doubled for each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(300);
/// Servers in a page.
const PAGE_SIZE: i32 = 500;
/// The most servers that are read: ten times what an installation is designed for.
const SERVERS_MAX: usize = 2_000;

/// One operator's connection to one gateway.
#[derive(Clone)]
pub(crate) struct Session {
    channels: Channels,
    gateway: String,
}

impl Session {
    /// Finds the gateway and the certificate. Nothing is dialled yet.
    pub(crate) fn open(args: &ConnectionArgs) -> Result<Self> {
        let what = "could not find out how to reach the gateway";
        let layout = Layout::new(&args.data);
        let installation = Installation::load(&layout)?;
        let folder = layout.certificates(&format!("operator.{}", args.operator));
        let complete = args.cert.is_some() && args.key.is_some() && args.ca.is_some();
        if installation.is_none() && !complete {
            let why =
                "there is no installation in this directory, and not all of --cert, --key and --ca are given";
            return Err(Problem::new(Exit::Unavailable, what, why).at(args.data.display()).advise(
                "start one with `lockstep up --data DIR`, name its directory with --data, or give all three files",
            ));
        }
        let choose = |given: &Option<PathBuf>, kept: PathBuf| given.clone().unwrap_or(kept);
        let cert = choose(&args.cert, folder.join("cert.pem"));
        let key = choose(&args.key, folder.join("key.pem"));
        let ca = choose(&args.ca, layout.authority());
        let trust_domain = match (&args.trust_domain, &installation) {
            (Some(given), _) => given.clone(),
            (None, Some(installation)) => installation.trust_domain.clone(),
            (None, None) => crate::up::TRUST_DOMAIN.to_owned(),
        };
        let gateway = match (&args.gateway, &installation) {
            (Some(given), _) => given.clone(),
            (None, Some(installation)) => installation.gateway_uri(),
            (None, None) => format!("https://localhost:{}", crate::up::GATEWAY_PORT),
        };
        let identity = TlsIdentity::load(&cert, &key, &ca, &trust_domain).map_err(|error| {
            Problem::new(Exit::Unavailable, "could not use the certificate", error)
                .at(cert.display())
                .advise("name an operator that has a certificate in the data directory with --operator, or give the files with --cert, --key and --ca")
        })?;
        Ok(Self { channels: Channels::new(TlsDial::new(identity)), gateway })
    }

    /// Where the gateway is.
    pub(crate) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Where a call goes, for people.
    pub(crate) fn place(&self, server: Option<&ServerId>) -> String {
        match server {
            Some(server) => format!("server {server}, through {}", self.gateway),
            None => self.gateway.clone(),
        }
    }

    fn channel(&self, lane: Lane) -> Channel {
        self.channels.to(&self.gateway, Identity::Service("gateway"), lane)
    }

    /// Files, through the gateway.
    pub(crate) fn files(&self) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel(Lane::Control))
    }

    /// The disk of a server, through the gateway.
    pub(crate) fn stores(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel(Lane::Control))
    }

    /// Uploads, on one of a few connections of their own.
    pub(crate) fn uploads(&self, lane: u8) -> UploadServiceClient<Channel> {
        UploadServiceClient::new(self.channel(Lane::Bulk(lane)))
    }

    /// Uploads to the server itself, where it can be reached: the rights are the same, and each byte takes one hop less.
    pub(crate) async fn uploads_near(
        &self,
        server: &ServerId,
        lane: u8,
    ) -> Option<UploadServiceClient<Channel>> {
        let servers = self.servers().await.ok()?;
        let uri = servers.all.into_iter().find(|known| known.server_id == server.as_str())?.filesync_uri;
        let identity = Identity::Server { server_id: server.clone(), service: "filesync" };
        let channel = self.channels.to(&uri, identity, Lane::Bulk(lane));
        let mut health = HealthClient::new(channel.clone());
        let asked = HealthCheckRequest { service: "liveness".to_owned() };
        within(NEAR_WITHIN, health.check(asked)).await.ok()?;
        Some(UploadServiceClient::new(channel))
    }

    /// The matrix.
    pub(crate) fn matrix(&self) -> MatrixServiceClient<Channel> {
        MatrixServiceClient::new(self.channel(Lane::Control))
    }

    /// Firmware updates.
    pub(crate) fn firmware(&self) -> FirmwareServiceClient<Channel> {
        FirmwareServiceClient::new(self.channel(Lane::Control))
    }

    /// The settings of the installation.
    pub(crate) fn settings(&self) -> SettingsServiceClient<Channel> {
        SettingsServiceClient::new(self.channel(Lane::Control))
    }

    /// Sync runs.
    pub(crate) fn runs(&self) -> SyncRunServiceClient<Channel> {
        SyncRunServiceClient::new(self.channel(Lane::Control))
    }

    /// Clocks; each call names its server.
    pub(crate) fn clocks(&self) -> ClockServiceClient<Channel> {
        ClockServiceClient::new(self.channel(Lane::Control))
    }

    /// Connection data for devices.
    pub(crate) fn connections(&self) -> ConnectionServiceClient<Channel> {
        ConnectionServiceClient::new(self.channel(Lane::Control))
    }

    /// What people say of servers.
    pub(crate) fn server_descriptions(&self) -> ServerServiceClient<Channel> {
        ServerServiceClient::new(self.channel(Lane::Control))
    }

    /// All servers.
    pub(crate) async fn servers(&self) -> Result<Servers> {
        let what = "could not list the servers";
        let mut servers = Servers::default();
        let mut page_token = String::new();
        loop {
            let request = ListServersRequest { page_size: PAGE_SIZE, page_token };
            let mut matrix = self.matrix();
            let page = read(matrix.list_servers(request)).await;
            let page = page.map_err(|failure| Problem::call(what, &self.gateway, &failure))?;
            servers.revision = page.position.map_or(0, |position| position.revision);
            servers.all.extend(page.servers);
            page_token = page.next_page_token;
            if page_token.is_empty() || servers.all.len() >= SERVERS_MAX {
                return Ok(servers);
            }
        }
    }

    /// The server that a change goes to: the one that is named, or the only one.
    pub(crate) async fn server_for_change(&self, named: Option<&str>, what: &str) -> Result<ServerId> {
        if let Some(named) = named {
            return named
                .parse()
                .map_err(|error| Problem::new(Exit::Usage, what, format!("--server {named}: {error}")));
        }
        let servers = self.servers().await?;
        let ids: Vec<String> = servers.all.iter().map(|server| server.server_id.clone()).collect();
        match ids.as_slice() {
            [only] => only.parse().map_err(|error| Problem::new(Exit::Failed, what, error)),
            _ => Err(Problem::rule(what, &ServerRequired { servers: ids.join(", ") })
                .at(&self.gateway)
                .advise("name one of the servers with --server")),
        }
    }
}

/// The servers of an installation.
#[derive(Default)]
pub(crate) struct Servers {
    /// Ordered by id.
    pub(crate) all: Vec<ServerSummary>,
    /// The revision of the registry.
    pub(crate) revision: i64,
}

/// A change named no server, and there is not exactly one.
#[derive(Debug, thiserror::Error)]
#[error("a change goes to one server, and there is more than one or none: {}", if .servers.is_empty() { "none" } else { .servers })]
struct ServerRequired {
    servers: String,
}

impl lockstep_model::Fault for ServerRequired {
    fn reason(&self) -> Reason {
        Reason::ServerRequired
    }

    fn metadata(&self) -> Metadata {
        vec![("servers", self.servers.clone())]
    }
}

/// A request for one server.
pub(crate) fn addressed<T>(message: T, server: &ServerId) -> Request<T> {
    let mut request = Request::new(message);
    let value = server.as_str().parse().expect("a server id is a DNS label, which is valid metadata");
    request.metadata_mut().insert(SERVER_KEY, value);
    request
}

/// Waits for a call that reads.
pub(crate) async fn read<T>(
    call: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
) -> std::result::Result<T, Failure> {
    within(READ_MAX, call).await
}

/// Makes a call that changes something, again and again while its outcome is unknown: the request id makes it safe.
pub(crate) async fn change<T, F>(mut call: impl FnMut() -> F) -> std::result::Result<T, Failure>
where
    F: Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
{
    let mut wait = BACKOFF_FIRST;
    for _ in 1..ATTEMPTS_MAX {
        match within(CHANGE_MAX, call()).await {
            Err(failure) if is_passing(&failure) => {}
            answer => return answer,
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    within(CHANGE_MAX, call()).await
}

/// Whether the same call may succeed in a moment.
pub(crate) fn is_passing(failure: &Failure) -> bool {
    failure.kind() == Kind::Unavailable
        || matches!(failure.reason, Reason::DeadlineExpired | Reason::Overloaded)
}

/// Waits so long for a call.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
) -> std::result::Result<T, Failure> {
    match deadline::within(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status::read(&status)),
        Err(expired) => Err(Failure::of(&expired)),
    }
}
