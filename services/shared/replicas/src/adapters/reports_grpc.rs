//! Reports over gRPC: the ReplicaService of each server's filesync.

use futures::StreamExt as _;
use lockstep_chassis::{Channel, Channels, Lane, status};
use lockstep_model::Identity;
use lockstep_proto::filesync::v1::{WatchReplicasRequest, replica_service_client::ReplicaServiceClient};
use tonic::Status;

use crate::{
    domain::{cause::Cause, report::Part},
    ports::{Address, Parts, Reports},
};

/// [`Reports`] over the channels of the process.
#[derive(Clone, Debug)]
pub struct GrpcReports {
    channels: Channels,
}

impl GrpcReports {
    /// Over `channels`.
    pub fn new(channels: Channels) -> Self {
        Self { channels }
    }

    /// The way to the filesync of `server`, which has to show that it is that.
    pub fn channel(&self, server: &Address) -> Channel {
        let expected = Identity::Server { server_id: server.id.clone(), service: "filesync" };
        self.channels.to(&server.uri, expected, Lane::Control)
    }
}

impl Reports for GrpcReports {
    async fn watch(&self, server: &Address) -> Result<Parts, Cause> {
        let request = WatchReplicasRequest { resume_token: String::new() };
        let mut client = ReplicaServiceClient::new(self.channel(server));
        let stream = client.watch_replicas(request).await.map_err(|status| cause(&status))?;
        let parts = stream.into_inner().map(|message| match message {
            Ok(message) => Part::from_wire(message),
            Err(status) => Err(cause(&status)),
        });
        Ok(parts.boxed())
    }
}

/// Why a server did not do what it was asked.
pub fn cause(status: &Status) -> Cause {
    let failure = status::read(status);
    Cause::reported(failure.reason.as_str(), &failure.message, &failure.advice)
}
