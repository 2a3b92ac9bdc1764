//! Clock reports over gRPC: the ClockService of each server's timeguard.

use futures::StreamExt as _;
use lockstep_chassis::{Channels, Lane};
use lockstep_model::Identity;
use lockstep_proto::timeguard::v1::{WatchClockReportsRequest, clock_service_client::ClockServiceClient};
use lockstep_replicas::{Address, adapters::reports_grpc::cause, domain::cause::Cause};

use crate::{
    domain::report::Report,
    ports::{ClockReports, Reports},
};

/// [`ClockReports`] over the channels of the process.
#[derive(Clone, Debug)]
pub struct GrpcClockReports {
    channels: Channels,
}

impl GrpcClockReports {
    /// Over `channels`.
    pub fn new(channels: Channels) -> Self {
        Self { channels }
    }
}

impl ClockReports for GrpcClockReports {
    async fn watch(&self, guard: &Address) -> Result<Reports, Cause> {
        // It has to show that it is the guard of that server.
        let expected = Identity::Server { server_id: guard.id.clone(), service: "timeguard" };
        let mut client = ClockServiceClient::new(self.channels.to(&guard.uri, expected, Lane::Control));
        let stream = client.watch_clock_reports(WatchClockReportsRequest::default()).await;
        let reports = stream.map_err(|status| cause(&status))?.into_inner().map(|message| match message {
            Ok(message) => Report::from_wire(message.report),
            Err(status) => Err(cause(&status)),
        });
        Ok(reports.boxed())
    }
}
