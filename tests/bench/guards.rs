//! Timeguards that are played for the benchmark of many servers: each says every five seconds that its clock is trusted.

use std::time::Duration;

use lockstep_chassis::{App, Drain, Health, TlsIncoming, watch};
use lockstep_model::ServerId;
use lockstep_proto::timeguard::v1::{
    CancelClockOverrideRequest, CancelClockOverrideResponse, ClockReport, ClockWitness, Fence,
    GetClockReportRequest, GetClockReportResponse, SampleClockRequest, SampleClockResponse,
    StartClockOverrideRequest, StartClockOverrideResponse, WatchClockReportsRequest,
    WatchClockReportsResponse,
    clock_report::Verdict,
    clock_service_server::{ClockService, ClockServiceServer},
    clock_witness, fence,
};
use lockstep_registry::{CachedMembers, SqliteRegistry};
use tokio::sync::mpsc;
use tonic::{Request, Response};

/// As a real one.
const EVERY: Duration = Duration::from_secs(5);
/// The peers that a real one asks in a large installation.
const PEERS: usize = 16;

struct Played {
    report: ClockReport,
    drain: Drain,
}

/// Plays the timeguard of a server until the drain.
pub(crate) fn play(id: &ServerId, registry: SqliteRegistry, listener: TlsIncoming, drain: &Drain) {
    let witness = |number: usize| ClockWitness {
        kind: clock_witness::Kind::Peer.into(),
        name: format!("s{number:03}"),
        state: clock_witness::State::Agrees.into(),
        ..ClockWitness::default()
    };
    let report = ClockReport {
        server_id: id.to_string(),
        verdict: Verdict::Trusted.into(),
        witnesses: (0..PEERS).map(witness).collect(),
        fence: Some(Fence { state: fence::State::Open.into(), ..Fence::default() }),
        ..ClockReport::default()
    };
    let played = Played { report, drain: drain.clone() };
    let app = App::new("timeguard", CachedMembers::new(registry), Health::new(&[]))
        .add(ClockServiceServer::new(played));
    let ended = drain.clone();
    drain.spawn("a played timeguard", async move {
        if app.serve(listener, &ended).await.is_err() {
            ended.begin();
        }
    });
}

#[tonic::async_trait]
impl ClockService for Played {
    type WatchClockReportsStream = watch::BoxStream<WatchClockReportsResponse>;

    async fn watch_clock_reports(
        &self,
        _: Request<WatchClockReportsRequest>,
    ) -> tonic::Result<Response<Self::WatchClockReportsStream>> {
        let (reports, receiver) = mpsc::channel(2);
        let stream = watch::stream(&self.drain, receiver);
        let report = self.report.clone();
        self.drain.spawn_until("report", async move {
            let message =
                WatchClockReportsResponse { caught_up: true, report: Some(report), ..Default::default() };
            while reports.send(Ok(message.clone())).await.is_ok() {
                tokio::time::sleep(EVERY).await;
            }
        });
        Ok(Response::new(stream))
    }

    async fn get_clock_report(
        &self,
        _: Request<GetClockReportRequest>,
    ) -> tonic::Result<Response<GetClockReportResponse>> {
        Ok(Response::new(GetClockReportResponse { report: Some(self.report.clone()) }))
    }

    // Nobody asks for the rest.

    async fn sample_clock(
        &self,
        _: Request<SampleClockRequest>,
    ) -> tonic::Result<Response<SampleClockResponse>> {
        std::future::pending().await
    }

    async fn start_clock_override(
        &self,
        _: Request<StartClockOverrideRequest>,
    ) -> tonic::Result<Response<StartClockOverrideResponse>> {
        std::future::pending().await
    }

    async fn cancel_clock_override(
        &self,
        _: Request<CancelClockOverrideRequest>,
    ) -> tonic::Result<Response<CancelClockOverrideResponse>> {
        std::future::pending().await
    }
}
