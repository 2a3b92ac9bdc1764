//! `ClockService`: the clock of this server.

use std::time::Duration;

use lockstep_chassis::{Drain, Fields, OrStatus as _, caller, watch};
use lockstep_model::{Identity, RequestId};
use lockstep_proto::timeguard::v1::{
    CancelClockOverrideRequest, CancelClockOverrideResponse, ClockReport, GetClockReportRequest,
    GetClockReportResponse, SampleClockRequest, SampleClockResponse, StartClockOverrideRequest,
    StartClockOverrideResponse, WatchClockReportsRequest, WatchClockReportsResponse,
    clock_service_server::ClockService,
};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Request, Response};

use super::wire;
use crate::{engine::Engine, ports::Ports};

/// A watch says so often what is known, whether it changed or not: ages and offsets do.
const EVERY: Duration = Duration::from_secs(5);
/// Reports that wait for a slow reader.
const QUEUE: usize = 2;
/// Characters of a justification.
const JUSTIFICATION_MAX: usize = 500;

/// The service on top of the engine.
pub struct Clocks<P: Ports> {
    engine: Engine<P>,
    drain: Drain,
}

impl<P: Ports> Clocks<P> {
    /// Serves `engine`.
    pub fn new(engine: Engine<P>, drain: Drain) -> Self {
        Self { engine, drain }
    }

    fn report(&self) -> Option<ClockReport> {
        Some(self.engine.read(wire::report_into_wire))
    }
}

#[tonic::async_trait]
impl<P: Ports> ClockService for Clocks<P> {
    type WatchClockReportsStream = watch::BoxStream<WatchClockReportsResponse>;

    async fn sample_clock(
        &self,
        _: Request<SampleClockRequest>,
    ) -> tonic::Result<Response<SampleClockResponse>> {
        let received = self.engine.reading();
        let (incarnation, kernel) = (self.engine.incarnation().to_string(), self.engine.kernel());
        let replied = self.engine.reading();
        Ok(Response::new(wire::answer_into_wire(received, replied, incarnation, kernel)))
    }

    async fn get_clock_report(
        &self,
        _: Request<GetClockReportRequest>,
    ) -> tonic::Result<Response<GetClockReportResponse>> {
        Ok(Response::new(GetClockReportResponse { report: self.report() }))
    }

    async fn watch_clock_reports(
        &self,
        request: Request<WatchClockReportsRequest>,
    ) -> tonic::Result<Response<Self::WatchClockReportsStream>> {
        let own = Identity::Server { server_id: self.engine.server().clone(), service: "filesync" };
        let is_own = caller(&request).principal == own;
        if let Some(started) =
            request.into_inner().started.filter(|_| is_own).and_then(wire::reading_from_wire)
        {
            self.engine.started(started);
        }
        let (reports, receiver) = mpsc::channel(QUEUE);
        let stream = watch::stream(&self.drain, receiver);
        let engine = self.engine.clone();
        self.drain.spawn_until("watch the clock", async move {
            let mut news = engine.news();
            loop {
                news.mark_unchanged();
                let report = engine.read(wire::report_into_wire);
                let message = WatchClockReportsResponse {
                    resume_token: engine.incarnation().to_string(),
                    caught_up: true,
                    report: Some(report),
                };
                // A reader that is slow gets the latest when it comes back.
                tokio::select! {
                    biased;
                    () = reports.closed() => return,
                    sent = reports.send(Ok(message)) => if sent.is_err() { return },
                }
                tokio::select! {
                    biased;
                    () = reports.closed() => return,
                    // Nothing new is told after a while, too; the engine lives as long as this task.
                    _ = timeout(EVERY, news.changed()) => {}
                }
            }
        });
        Ok(Response::new(stream))
    }

    async fn start_clock_override(
        &self,
        request: Request<StartClockOverrideRequest>,
    ) -> tonic::Result<Response<StartClockOverrideResponse>> {
        let principal = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let request_id = fields.parse::<RequestId>("request_id", |r| &r.request_id);
        let justification = fields.request().justification.trim().to_owned();
        let length = justification.chars().count();
        if length == 0 || length > JUSTIFICATION_MAX || justification.chars().any(char::is_control) {
            let must = "must say in 1 to 500 characters, none of which controls a terminal, why the verdict is wrong";
            fields.violation("justification", must);
        }
        let request_id = fields.finish(request_id)?.to_string();

        self.engine.overrule(principal, justification, request_id).await.or_status()?;
        Ok(Response::new(StartClockOverrideResponse { report: self.report() }))
    }

    async fn cancel_clock_override(
        &self,
        request: Request<CancelClockOverrideRequest>,
    ) -> tonic::Result<Response<CancelClockOverrideResponse>> {
        let principal = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let request_id = fields.parse::<RequestId>("request_id", |r| &r.request_id);
        fields.finish(request_id)?;

        self.engine.stand(&principal).await.or_status()?;
        Ok(Response::new(CancelClockOverrideResponse { report: self.report() }))
    }
}
