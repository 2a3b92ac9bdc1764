//! `ReplicaService`: what this server holds, and the request to catch up.

use std::time::Duration;

use lockstep_chassis::{Drain, Fields, OrStatus as _, watch};
use lockstep_model::{Incarnation, ServerId};
use lockstep_proto::filesync::v1::{
    Condition, HeldAhead, ReconcileRequest, ReconcileResponse, WatchReplicasRequest, WatchReplicasResponse,
    replica_service_server::ReplicaService,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::{Request, Response};

use super::wire::{
    duration_into_wire, exception_into_wire, obstacle_into_wire, position_into_wire, signed,
    transfer_into_wire,
};
use crate::{
    engine::{Engine, board::Report},
    ports::Ports,
};

/// Exceptions and paths in one part, so that it stays below 1 MiB with paths and messages of any length.
const PART_ENTRIES: usize = 100;
/// Parts that wait for a slow reader.
const QUEUE_PARTS: usize = 4;
/// A quiet watch says this often that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Servers that a caller may name as holders.
const HOLDERS_MAX: usize = 16;

/// The service on top of the engine.
pub struct Replicas<P: Ports> {
    engine: Engine<P>,
    incarnation: Incarnation,
    drain: Drain,
}

impl<P: Ports> Replicas<P> {
    /// Serves `engine` for one life of the process.
    pub fn new(engine: Engine<P>, incarnation: Incarnation, drain: Drain) -> Self {
        Self { engine, incarnation, drain }
    }
}

/// What ages are counted from.
struct Ages {
    /// When the call arrived.
    opened: Instant,
    /// Since when every copy was compared with its record.
    compared: Option<Instant>,
}

/// The parts of a batch; the last one carries the position.
fn batch_into_wire(report: &Report, incarnation: Incarnation, ages: &Ages) -> Vec<WatchReplicasResponse> {
    let now = Instant::now();
    let (mut exceptions, mut cleared) = (report.exceptions.as_slice(), report.cleared.as_slice());
    let mut parts = Vec::new();
    loop {
        let now_exceptions = exceptions.split_off(..exceptions.len().min(PART_ENTRIES)).unwrap_or_default();
        let now_cleared = cleared.split_off(..cleared.len().min(PART_ENTRIES)).unwrap_or_default();
        let mut part = WatchReplicasResponse {
            incarnation: incarnation.to_string(),
            snapshot: report.snapshot,
            exceptions: now_exceptions.iter().map(|exception| exception_into_wire(exception, now)).collect(),
            cleared_paths: now_cleared.iter().map(ToString::to_string).collect(),
            ..WatchReplicasResponse::default()
        };
        if exceptions.is_empty() && cleared.is_empty() {
            close(&mut part, report, incarnation, ages, now);
            parts.push(part);
            return parts;
        }
        parts.push(part);
    }
}

fn close(
    part: &mut WatchReplicasResponse,
    report: &Report,
    incarnation: Incarnation,
    ages: &Ages,
    now: Instant,
) {
    part.resume_token = format!("{incarnation} {}", report.sequence);
    part.caught_up = true;
    part.position = report.position.map(position_into_wire);
    let condition = |(obstacle, since): &(_, Instant)| Condition {
        failure: Some(obstacle_into_wire(obstacle)),
        age: Some(duration_into_wire(now.saturating_duration_since(*since))),
    };
    part.conditions = report.conditions.iter().map(condition).collect();
    part.transfers =
        report.transfers.iter().map(|(path, transfer)| transfer_into_wire(path, transfer)).collect();
    let ahead = report.ahead.iter().map(|(path, revision, traceparent)| HeldAhead {
        path: path.to_string(),
        revision: signed(revision.0),
        traceparent: traceparent.clone(),
    });
    part.held_ahead = ahead.collect();
    let age = |since: Instant| duration_into_wire(now.saturating_duration_since(since));
    part.compared_age = ages.compared.map(age);
    part.hashed_age = report.hashed.map(age);
    part.stream_age = Some(age(ages.opened));
}

#[tonic::async_trait]
impl<P: Ports> ReplicaService for Replicas<P> {
    async fn reconcile(
        &self,
        request: Request<ReconcileRequest>,
    ) -> tonic::Result<Response<ReconcileResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let holders = fields.request().holder_server_ids.clone();
        fields.check(
            "holder_server_ids",
            |_| holders.len() <= HOLDERS_MAX,
            format!("may have at most {HOLDERS_MAX} servers"),
        );
        for (index, holder) in holders.iter().take(HOLDERS_MAX).enumerate() {
            fields.parse_text::<ServerId>(format!("holder_server_ids[{index}]"), holder);
        }
        fields.finish(Some(()))?;

        if !holders.is_empty() {
            self.engine.board().hurry(Instant::now());
        }
        let round = self.engine.reconcile().await.or_status()?;
        Ok(Response::new(ReconcileResponse {
            position: Some(position_into_wire(round.position)),
            exception_count: signed(round.exceptions as u64),
        }))
    }

    type WatchReplicasStream = watch::BoxStream<WatchReplicasResponse>;

    async fn watch_replicas(
        &self,
        request: Request<WatchReplicasRequest>,
    ) -> tonic::Result<Response<Self::WatchReplicasStream>> {
        // A token of another life means nothing here: the watch begins with everything.
        let token = request.into_inner().resume_token;
        let mut since =
            token.strip_prefix(&format!("{} ", self.incarnation)).and_then(|seq| seq.parse().ok());
        let (parts, stream) = mpsc::channel(QUEUE_PARTS);
        let (engine, incarnation, opened) = (self.engine.clone(), self.incarnation, Instant::now());
        let mut changed = engine.board().watch();
        let drain = self.drain.clone();
        self.drain.spawn("watch replicas", async move {
            loop {
                changed.mark_unchanged();
                // Before the report: what a walk found that ends in between must be in what claims it (I10).
                let ages = Ages { opened, compared: engine.board().compared_since() };
                let report = engine.board().report(since);
                since = Some(report.sequence);
                for part in batch_into_wire(&report, incarnation, &ages) {
                    if parts.send(Ok(part)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    biased;
                    () = drain.started() => return,
                    () = parts.closed() => return,
                    _ = timeout(HEARTBEAT, changed.changed()) => {}
                }
            }
        });
        Ok(Response::new(watch::stream(&self.drain, stream)))
    }
}
