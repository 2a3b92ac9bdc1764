//! One watch of runs: all of them, then those that change.

use std::{collections::BTreeMap, time::Duration};

use lockstep_chassis::{
    drain::Drain,
    paging::PageToken,
    status,
    watch::{self, BoxStream, HEARTBEAT},
};
use lockstep_model::clock::Clock;
use lockstep_proto::gateway::v1::{SyncRun, WatchSyncRunsResponse, sync_run::State};
use lockstep_registry::Registry;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    domain::run::Run,
    engine::runs::{Runs, is_passing},
    grpc::sync_run_service::{fitting, shown},
    ports::Replicas,
};

/// Batches that wait for a slow reader.
const BATCHES_WAITING: usize = 1;
/// The time between two looks.
const PACE: Duration = Duration::from_millis(500);
/// The name that binds tokens to the call that made them.
const WATCH: &str = "watch runs";

/// The token of every message of a watch of this run, or of all: a watch that is resumed begins with all again.
pub(super) fn token(run_id: &str) -> String {
    PageToken::seal("", &[WATCH, run_id])
}

pub(super) fn start<R: Registry, P: Replicas, C: Clock>(
    runs: Runs<R, P, C>,
    drain: &Drain,
    run_id: String,
) -> BoxStream<WatchSyncRunsResponse> {
    let (batches, receiver) = mpsc::channel(BATCHES_WAITING);
    let stream = watch::stream(drain, receiver);
    let begun = drain.clone();
    drain.spawn("watch sync runs", async move {
        tokio::select! {
            biased;
            () = begun.started() => {}
            () = batches.closed() => {}
            () = run(&runs, &run_id, &batches) => {}
        }
    });
    stream
}

type Batches = mpsc::Sender<tonic::Result<WatchSyncRunsResponse>>;

async fn run<R: Registry, P: Replicas, C: Clock>(runs: &Runs<R, P, C>, run_id: &str, batches: &Batches) {
    let mut told: BTreeMap<String, SyncRun> = BTreeMap::new();
    let mut heard = Instant::now();
    let mut is_first = true;
    loop {
        let mut all = match runs.all().await {
            Ok(all) => all,
            // What is known goes on to be true; the reader hears when there is news.
            Err(error) if is_passing(&error) && !is_first => {
                tokio::time::sleep(PACE).await;
                continue;
            }
            Err(error) => {
                let _ = batches.send(Err(status::of(&error))).await;
                return;
            }
        };
        all.retain(|run| run_id.is_empty() || run.run_id == run_id);
        let removed: Vec<String> =
            told.keys().filter(|id| !all.iter().any(|run| run.run_id == **id)).cloned().collect();
        removed.iter().for_each(|id| drop(told.remove(id)));
        let is_ended = !run_id.is_empty()
            && all.iter().all(|run| run.ended.is_some() || is_over(&shown(runs, run.clone())));
        let parts = parts(runs, &all, &mut told);
        let count = parts.len();
        if is_first || count > 0 || !removed.is_empty() || heard.elapsed() >= HEARTBEAT {
            let mut removed_run_ids = removed;
            for (number, runs) in parts.into_iter().chain((count == 0).then(Vec::new)).enumerate() {
                let batch = WatchSyncRunsResponse {
                    runs,
                    caught_up: !is_first || number + 1 >= count,
                    resume_token: token(run_id),
                    removed_run_ids: std::mem::take(&mut removed_run_ids),
                };
                if batches.send(Ok(batch)).await.is_err() {
                    return;
                }
            }
            heard = Instant::now();
        }
        if is_ended {
            return;
        }
        is_first = false;
        tokio::time::sleep(PACE).await;
    }
}

/// What changed since it was told, in parts that fit into a message.
fn parts<R: Registry, P: Replicas, C: Clock>(
    runs: &Runs<R, P, C>,
    mut all: &[Run],
    told: &mut BTreeMap<String, SyncRun>,
) -> Vec<Vec<SyncRun>> {
    let mut parts = Vec::new();
    while !all.is_empty() {
        let (part, rest) = all.split_at(fitting(all).min(all.len()));
        all = rest;
        let changed: Vec<SyncRun> = part
            .iter()
            .map(|run| shown(runs, run.clone()))
            .filter(|run| told.get(&run.run_id) != Some(run))
            .collect();
        told.extend(changed.iter().map(|run| (run.run_id.clone(), run.clone())));
        if !changed.is_empty() {
            parts.push(changed);
        }
    }
    parts
}

fn is_over(run: &SyncRun) -> bool {
    matches!(run.state(), State::Completed | State::Cancelled)
}
