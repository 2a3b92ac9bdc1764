//! Replicas over gRPC: the ReplicaService of each server's filesync.

use lockstep_chassis::{Channel, Channels};
use lockstep_model::{FilePath, Reason, ServerId};
use lockstep_proto::filesync::v1::{
    ListLooseFilesRequest, ReconcileRequest, replica_service_client::ReplicaServiceClient,
    store_service_client::StoreServiceClient,
};
use lockstep_replicas::{GrpcReports, adapters::reports_grpc::cause};

use crate::{
    domain::cause::Cause,
    grpc::wire,
    ports::{Address, Answered, Parts, Replicas, Reports},
};

/// Holders that a call may name.
const HOLDERS_MAX: usize = 16;
/// Pages of loose files that are read for one path: a page may be empty and yet not the last.
const LOOSE_PAGES_MAX: usize = 20;

/// [`Replicas`] over the channels of the process.
#[derive(Clone, Debug)]
pub struct GrpcReplicas {
    reports: GrpcReports,
}

impl GrpcReplicas {
    /// Over `channels`.
    pub fn new(channels: Channels) -> Self {
        Self { reports: GrpcReports::new(channels) }
    }

    fn channel(&self, server: &Address) -> Channel {
        self.reports.channel(server)
    }

    fn client(&self, server: &Address) -> ReplicaServiceClient<Channel> {
        ReplicaServiceClient::new(self.channel(server))
    }
}

impl Reports for GrpcReplicas {
    async fn watch(&self, server: &Address) -> Result<Parts, Cause> {
        self.reports.watch(server).await
    }
}

impl Replicas for GrpcReplicas {
    async fn reconcile(&self, server: &Address, holders: Vec<ServerId>) -> Result<Answered, Cause> {
        let holder_server_ids = holders.into_iter().take(HOLDERS_MAX).map(String::from).collect();
        let request = ReconcileRequest { holder_server_ids };
        let answer =
            self.client(server).reconcile(request).await.map_err(|status| cause(&status))?.into_inner();
        let position = answer.position.and_then(|position| wire::position_from(&position));
        let exceptions = u64::try_from(answer.exception_count).unwrap_or(0);
        position
            .map(|position| Answered { position, exceptions })
            .ok_or_else(|| Cause::new(Reason::Internal, "the server answered without a valid position"))
    }

    async fn has_loose(&self, server: &Address, path: &FilePath) -> Result<bool, Cause> {
        let mut page_token = String::new();
        for _ in 0..LOOSE_PAGES_MAX {
            let request = ListLooseFilesRequest { path_prefix: path.to_string(), page_size: 1, page_token };
            let mut client = StoreServiceClient::new(self.channel(server));
            let page = client.list_loose_files(request).await.map_err(|status| cause(&status))?.into_inner();
            // The path itself comes first of all that begin with it.
            if let Some(first) = page.loose_files.first() {
                return Ok(first.path == path.as_str());
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(false)
    }
}
