//! Replicas over gRPC: the ReplicaService of each server's filesync.

use futures::StreamExt as _;
use lockstep_chassis::{Channel, Channels, Lane, status};
use lockstep_model::{Identity, Position, Reason, ServerId};
use lockstep_proto::filesync::v1::{
    ReconcileRequest, WatchReplicasRequest, replica_service_client::ReplicaServiceClient,
};
use tonic::Status;

use crate::{
    domain::{cause::Cause, report::Part},
    grpc::wire,
    ports::{Address, Parts, Replicas},
};

/// Holders that a call may name.
const HOLDERS_MAX: usize = 16;

/// [`Replicas`] over the channels of the process.
#[derive(Clone, Debug)]
pub struct GrpcReplicas {
    channels: Channels,
}

impl GrpcReplicas {
    /// Over `channels`.
    pub fn new(channels: Channels) -> Self {
        Self { channels }
    }

    fn client(&self, server: &Address) -> ReplicaServiceClient<Channel> {
        let expected = Identity::Server { server_id: server.id.clone(), service: "filesync" };
        ReplicaServiceClient::new(self.channels.to(&server.uri, expected, Lane::Control))
    }
}

impl Replicas for GrpcReplicas {
    async fn watch(&self, server: &Address) -> Result<Parts, Cause> {
        let request = WatchReplicasRequest { resume_token: String::new() };
        let stream = self.client(server).watch_replicas(request).await.map_err(|status| cause(&status))?;
        let parts = stream.into_inner().map(|message| match message {
            Ok(message) => Part::from_wire(message),
            Err(status) => Err(cause(&status)),
        });
        Ok(parts.boxed())
    }

    async fn reconcile(&self, server: &Address, holders: Vec<ServerId>) -> Result<Position, Cause> {
        let holder_server_ids = holders.into_iter().take(HOLDERS_MAX).map(String::from).collect();
        let request = ReconcileRequest { holder_server_ids };
        let answer =
            self.client(server).reconcile(request).await.map_err(|status| cause(&status))?.into_inner();
        answer
            .position
            .and_then(|position| wire::position_from(&position))
            .ok_or_else(|| Cause::new(Reason::Internal, "the server answered without a valid position"))
    }
}

fn cause(status: &Status) -> Cause {
    let failure = status::read(status);
    Cause::reported(failure.reason.as_str(), &failure.message, &failure.advice)
}
