//! SyncRunService: synchronise now, and how far that is (R28).

use lockstep_chassis::{
    auth::caller,
    drain::Drain,
    fields::Fields,
    paging::{PageToken, page_size},
    status::OrStatus as _,
    watch::BoxStream,
};
use lockstep_model::{RequestId, clock::Clock};
use lockstep_proto::gateway::v1::{
    CancelSyncRunRequest, CancelSyncRunResponse, GetSyncRunRequest, GetSyncRunResponse, ListSyncRunsRequest,
    ListSyncRunsResponse, StartSyncRunRequest, StartSyncRunResponse, SyncRun, WatchSyncRunsRequest,
    WatchSyncRunsResponse, sync_run_service_server::SyncRunService,
};
use lockstep_registry::Registry;
use tonic::{Request, Response};

use crate::{
    domain::{
        error::{MatrixError, RunError},
        run::{Run, progress},
    },
    engine::runs::{Runs, Start},
    grpc::{
        filter_fields::{servers, within_a_path},
        matrix_service::opened,
        run_stream, wire,
    },
    ports::Replicas,
};

/// The names that bind tokens to the call that made them.
const RUNS: &str = "runs";
/// Runs that have not ended in one answer: each may carry its obstacles, which have long texts.
pub(super) const OPEN_RUNS_MAX: usize = 20;
/// The longest name of a run: a UUID.
const RUN_ID_BYTES_MAX: usize = 36;

/// The runs, for the contract.
#[derive(Clone, Debug)]
pub struct SyncRuns<R, P, C> {
    runs: Runs<R, P, C>,
    drain: Drain,
}

impl<R: Registry, P: Replicas, C: Clock> SyncRuns<R, P, C> {
    /// Over `runs`.
    pub fn new(runs: Runs<R, P, C>, drain: Drain) -> Self {
        Self { runs, drain }
    }
}

/// A name of a run, which is not empty and not longer than one can be.
fn run_id<T>(fields: &mut Fields<T>, id: &str) {
    fields.check("run_id", |_| (1..=RUN_ID_BYTES_MAX).contains(&id.len()), "must be the name of a run");
}

#[tonic::async_trait]
impl<R: Registry, P: Replicas, C: Clock> SyncRunService for SyncRuns<R, P, C> {
    async fn start_sync_run(
        &self,
        request: Request<StartSyncRunRequest>,
    ) -> tonic::Result<Response<StartSyncRunResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let StartSyncRunRequest { path_prefix, server_ids, .. } = fields.request().clone();
        within_a_path(&mut fields, "path_prefix", &path_prefix);
        let server_ids = servers(&mut fields, &server_ids);
        let request_id: Option<RequestId> = fields.parse("request_id", |r| &r.request_id);
        let (server_ids, request_id) = fields.finish(server_ids.zip(request_id))?;

        let start = Start { caller, request_id, path_prefix, server_ids };
        let (run, progress, answers) = self.runs.start(start).await.or_status()?;
        let answers = answers.into_iter().map(wire::runs::answer).collect();
        Ok(Response::new(StartSyncRunResponse { run: Some(run.into_wire(progress)), answers }))
    }

    async fn get_sync_run(
        &self,
        request: Request<GetSyncRunRequest>,
    ) -> tonic::Result<Response<GetSyncRunResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let id = fields.request().run_id.clone();
        run_id(&mut fields, &id);
        fields.finish(Some(()))?;

        let (run, progress) = self.runs.get(&id).await.or_status()?;
        Ok(Response::new(GetSyncRunResponse { run: Some(run.into_wire(progress)) }))
    }

    async fn list_sync_runs(
        &self,
        request: Request<ListSyncRunsRequest>,
    ) -> tonic::Result<Response<ListSyncRunsResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = fields.take(page_size(fields.request().page_size));
        let page_token = fields.request().page_token.clone();
        let size = fields.finish(size)?;
        let after = opened(&page_token, &[RUNS])?;

        let runs = self.runs.all().await.or_status()?;
        let from = if after.is_empty() { 0 } else { runs.partition_point(|run| place(run) < after) };
        let from = from + usize::from(runs.get(from).is_some_and(|run| place(run) == after));
        let rest = runs.get(from..).unwrap_or_default();
        let taken = fitting(rest).min(size);
        let next_page_token = match rest.get(..taken).and_then(<[Run]>::last) {
            Some(last) if taken < rest.len() => PageToken::seal(&place(last), &[RUNS]),
            _ => String::new(),
        };
        let runs = rest.iter().take(taken).cloned().map(|run| shown(&self.runs, run)).collect();
        Ok(Response::new(ListSyncRunsResponse { runs, next_page_token }))
    }

    type WatchSyncRunsStream = BoxStream<WatchSyncRunsResponse>;

    async fn watch_sync_runs(
        &self,
        request: Request<WatchSyncRunsRequest>,
    ) -> tonic::Result<Response<Self::WatchSyncRunsStream>> {
        let mut fields = Fields::of(request.into_inner());
        let WatchSyncRunsRequest { run_id: id, resume_token } = fields.request().clone();
        if !id.is_empty() {
            run_id(&mut fields, &id);
        }
        fields.finish(Some(()))?;
        if !resume_token.is_empty() && resume_token != run_stream::token(&id) {
            return Err(RunError::Matrix(MatrixError::Expired)).or_status();
        }
        if !id.is_empty() {
            self.runs.get(&id).await.or_status()?;
        }
        Ok(Response::new(run_stream::start(self.runs.clone(), &self.drain, id)))
    }

    async fn cancel_sync_run(
        &self,
        request: Request<CancelSyncRunRequest>,
    ) -> tonic::Result<Response<CancelSyncRunResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let id = fields.request().run_id.clone();
        run_id(&mut fields, &id);
        let request_id: Option<RequestId> = fields.parse("request_id", |r| &r.request_id);
        fields.finish(request_id)?;

        let (run, progress) = self.runs.cancel(&id).await.or_status()?;
        Ok(Response::new(CancelSyncRunResponse { run: Some(run.into_wire(progress)) }))
    }
}

/// Where a run is in the list, latest first, as text that is compared bytewise.
fn place(run: &Run) -> String {
    format!("{:020} {}", u64::MAX - run.number, run.run_id)
}

/// How many of the first runs fit into one answer.
pub(super) fn fitting(runs: &[Run]) -> usize {
    let mut open = 0;
    runs.iter()
        .take_while(|run| {
            open += usize::from(run.ended.is_none());
            open <= OPEN_RUNS_MAX
        })
        .count()
}

/// A run for the contract, as it is now.
pub(super) fn shown<R: Registry, P: Replicas, C: Clock>(runs: &Runs<R, P, C>, run: Run) -> SyncRun {
    let found = runs.board().read(|view| progress(view, &run, runs.board().now()));
    run.into_wire(found)
}
