//! Sync runs: notes in the registry, which every gateway reads, and the asking that belongs to them (R28).
//!
//! A run is kept under a key that follows from its caller and request, so that a repetition finds it on any gateway. The
//! request itself is remembered by the registry, in one transaction with the revision that is the target. Every gateway
//! works on every run: what they ask for is idempotent, and that it is complete is noted by whoever sees it first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use lockstep_chassis::deadline;
use lockstep_model::{Fault as _, Reason, RequestId, ServerId, clock::Clock};
use lockstep_registry::{Commit, Registry, Request};
use tokio::{sync::Notify, time::Instant};

use crate::{
    domain::{
        cause::Cause,
        error::RunError,
        run::{Ended, RUN, Run, RunProgress, RunState, in_scope, progress, run_id, run_key},
        view::View,
    },
    engine::Board,
    ports::{Address, Replicas},
};

/// Runs that are kept: the oldest goes when there are more.
pub const RUNS_MAX: usize = 1_000;
/// How long a server has to answer when a run asks it.
const ASK_MAX: Duration = Duration::from_secs(5);
/// A server is asked again for the sake of a run when it was not for this long.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How often runs that have not ended are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether there are any, for example from another gateway.
const LOOK_IDLE: Duration = Duration::from_secs(10);
/// Servers that are named as holders.
const HOLDERS_MAX: usize = 16;

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Start {
    /// Who.
    pub caller: String,
    /// Their name for the request.
    pub request_id: RequestId,
    /// What paths begin with.
    pub path_prefix: String,
    /// These servers; all that take part if there are none.
    pub server_ids: BTreeSet<ServerId>,
}

/// What one server answered: how many files it does not hold, or why it did not.
pub type Answer = (ServerId, Result<u64, Cause>);

/// The runs. Clones share them.
#[derive(Clone, Debug)]
pub struct Runs<R, P, C> {
    registry: R,
    replicas: P,
    board: Board,
    clock: C,
    /// A run was started here.
    started: Arc<Notify>,
}

impl<R: Registry, P: Replicas, C: Clock> Runs<R, P, C> {
    /// Over what the gateway is made of.
    pub fn new(registry: R, replicas: P, board: Board, clock: C) -> Self {
        Self { registry, replicas, board, clock, started: Arc::new(Notify::new()) }
    }

    /// The view that progress is computed from.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Starts a run, or finds the one that the same request started, and asks its servers to catch up.
    ///
    /// # Errors
    /// [`RunError`] for a server that is not known, a request id that was used for something else, and a registry that
    /// does not answer.
    pub async fn start(&self, start: Start) -> Result<(Run, RunProgress, Vec<Answer>), RunError> {
        self.board.read(|view| view.knows(&start.server_ids))?;
        let Start { caller, request_id, path_prefix, server_ids } = start;
        let ids: Vec<&str> = server_ids.iter().map(ServerId::as_str).collect();
        let fingerprint = format!("sync run {} {path_prefix}", ids.join(","));
        let request = Request { caller: caller.clone(), id: request_id.to_string(), fingerprint };
        let committed = self.registry.commit(Commit { request: Some(request), ..Commit::default() }).await?;
        let run_id = run_id(&caller, request_id.as_str());
        let kept = self.all().await?;
        let run = match kept.iter().find(|run| run.run_id == run_id) {
            Some(run) => run.clone(),
            None => {
                let run = Run {
                    run_id,
                    number: kept.first().map_or(1, |latest| latest.number + 1),
                    path_prefix,
                    server_ids,
                    epoch: committed.head.epoch,
                    target: committed.revision,
                    started_by: caller,
                    start_time: self.clock.now(),
                    ended: None,
                };
                self.note(&run).await?;
                for old in kept.iter().skip(RUNS_MAX - 1) {
                    self.registry.drop_note(run_key(&old.run_id)).await?;
                }
                run
            }
        };
        let answers = if run.ended.is_none() { self.ask_all(&run).await } else { Vec::new() };
        self.started.notify_one();
        let progress = self.board.read(|view| progress(view, &run, self.board.now()));
        Ok((run, progress, answers))
    }

    /// All runs that are kept, latest first.
    ///
    /// # Errors
    /// [`RunError`] if the registry does not answer.
    pub async fn all(&self) -> Result<Vec<Run>, RunError> {
        let notes = self.registry.notes(RUN.to_owned()).await?;
        let read = |note: lockstep_registry::Note| {
            let broken = |error| tracing::error!(key = note.key, %error, "the note of a run cannot be read");
            serde_json::from_str(&note.body).map_err(broken).ok()
        };
        let mut runs: Vec<Run> = notes.into_iter().filter_map(read).collect();
        runs.sort_by(|a, b| (b.number, &b.run_id).cmp(&(a.number, &a.run_id)));
        Ok(runs)
    }

    /// One run.
    ///
    /// # Errors
    /// [`RunError`] if it is not kept, or the registry does not answer.
    pub async fn get(&self, run_id: &str) -> Result<(Run, RunProgress), RunError> {
        let found = self.all().await?.into_iter().find(|run| run.run_id == run_id);
        let run = found.ok_or_else(|| RunError::NotFound { run_id: run_id.to_owned() })?;
        let progress = self.board.read(|view| progress(view, &run, self.board.now()));
        Ok((run, progress))
    }

    /// Ends the asking of a run. One that ended stays as it is.
    ///
    /// # Errors
    /// [`RunError`] if it is not kept, or the registry does not answer.
    pub async fn cancel(&self, run_id: &str) -> Result<(Run, RunProgress), RunError> {
        let (mut run, seen) = self.get(run_id).await?;
        if run.ended.is_some() {
            return Ok((run, seen));
        }
        run.ended = Some(match seen.state {
            RunState::Completed => Ended::Completed,
            _ => Ended::Cancelled,
        });
        self.note(&run).await?;
        let progress = self.board.read(|view| progress(view, &run, self.board.now()));
        Ok((run, progress))
    }

    async fn note(&self, run: &Run) -> Result<(), RunError> {
        let body = serde_json::to_string(run).unwrap_or_default();
        Ok(self.registry.put_note(run_key(&run.run_id), body).await?)
    }

    /// Looks after the runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut asked: BTreeMap<ServerId, Instant> = BTreeMap::new();
        let mut rest = LOOK_IDLE;
        loop {
            tokio::select! {
                biased;
                () = self.started.notified() => {}
                () = tokio::time::sleep(rest) => {}
            }
            // While the registry does not answer, nobody is asked for the sake of a run; the fan-out goes on.
            let Ok(runs) = self.all().await else { continue };
            let open: Vec<Run> = runs.into_iter().filter(|run| run.ended.is_none()).collect();
            rest = if open.is_empty() { LOOK_IDLE } else { LOOK_EVERY };
            for run in open {
                self.look_after(run, &mut asked).await;
            }
        }
    }

    async fn look_after(&self, mut run: Run, asked: &mut BTreeMap<ServerId, Instant>) {
        let found = self.board.read(|view| progress(view, &run, self.board.now()));
        if found.state == RunState::Completed {
            run.ended = Some(Ended::Completed);
            match self.note(&run).await {
                Ok(()) => tracing::info!(run_id = run.run_id, "a sync run is complete"),
                Err(error) => tracing::debug!(%error, run_id = run.run_id, "a run could not be noted"),
            }
            return;
        }
        let due: BTreeSet<ServerId> = found
            .shares
            .into_iter()
            .filter(|share| share.is_asked)
            .map(|share| share.server)
            .filter(|id| asked.get(id).is_none_or(|at| at.elapsed() >= ASK_AGAIN))
            .collect();
        if due.is_empty() {
            return;
        }
        asked.extend(due.iter().map(|id| (id.clone(), Instant::now())));
        let targets = self.board.read(|view| targets(view, &run));
        let targets = targets.into_iter().filter(|(id, _)| due.contains(id)).collect();
        self.ask(targets).await;
    }

    async fn ask_all(&self, run: &Run) -> Vec<Answer> {
        let (targets, alone) = self.board.read(|view| (targets(view, run), view.member_count() < 2));
        // With one server there is nobody to copy from or to (R13).
        if alone { Vec::new() } else { self.ask(targets).await }
    }

    async fn ask(&self, targets: Vec<(ServerId, Result<Address, Cause>)>) -> Vec<Answer> {
        let holders = self.board.read(holders);
        let asked = targets.into_iter().map(|(id, to)| {
            // Named holders make a server try again what failed, at once: it may be that they hold it now.
            let others = holders.iter().filter(|holder| **holder != id).take(HOLDERS_MAX).cloned().collect();
            async move {
                let answer = match to {
                    Ok(address) => {
                        let work = deadline::within(ASK_MAX, self.replicas.reconcile(&address, others));
                        let late = |late: deadline::Expired| Err(Cause::new(late.reason(), late.to_string()));
                        work.await.unwrap_or_else(late)
                    }
                    Err(cause) => Err(cause),
                };
                (id, answer.map(|answered| answered.exceptions))
            }
        });
        join_all(asked).await
    }
}

/// Where the servers of a run answer, or why they cannot be asked.
fn targets(view: &View, run: &Run) -> Vec<(ServerId, Result<Address, Cause>)> {
    in_scope(view, run)
        .map(|(id, server)| {
            let address = Address { id: id.clone(), uri: server.record.filesync.clone() };
            let to = match &server.excluded {
                Some(cause) => Err(cause.clone()),
                None if !server.reachable() => Err(server.silence.clone()),
                None => Ok(address),
            };
            (id.clone(), to)
        })
        .collect()
}

/// Every server that may hold something, those that are heard first.
fn holders(view: &View) -> Vec<ServerId> {
    let part = || view.servers().filter(|(_, server)| server.excluded.is_none());
    let heard = part().filter(|(_, server)| server.reachable());
    let others = part().filter(|(_, server)| !server.reachable());
    heard.chain(others).take(HOLDERS_MAX + 1).map(|(id, _)| id.clone()).collect()
}

/// Whether a reason says that a look at a run may succeed later.
pub fn is_passing(error: &RunError) -> bool {
    error.reason() == Reason::RegistryUnavailable
}
