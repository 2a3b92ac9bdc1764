//! The documents of `sync`.

use lockstep_proto::gateway::v1::{self as gateway, sync_run};
use serde::Serialize;

use super::{Failure, seconds, time, word};

/// `sync`: the run, and what each server answered when it was asked.
#[derive(Serialize)]
pub(crate) struct Started<'a> {
    pub(crate) run: Run<'a>,
    answers: Vec<Answer<'a>>,
}

impl<'a> Started<'a> {
    /// From the wire.
    pub(crate) fn of(run: &'a gateway::SyncRun, answers: &'a [gateway::SyncAnswer]) -> Self {
        Self { run: Run::of(run), answers: answers.iter().map(Answer::of).collect() }
    }
}

/// What one server answered.
#[derive(Serialize)]
struct Answer<'a> {
    server_id: &'a str,
    exception_count: i64,
    failure: Option<Failure<'a>>,
}

impl<'a> Answer<'a> {
    fn of(answer: &'a gateway::SyncAnswer) -> Self {
        Self {
            server_id: &answer.server_id,
            exception_count: answer.exception_count,
            failure: answer.failure.as_ref().map(Failure::of),
        }
    }
}

/// `sync ls`.
#[derive(Serialize)]
pub(crate) struct Runs<'a> {
    pub(crate) runs: Vec<Run<'a>>,
}

/// `sync show`, `sync cancel`, and each line of `--wait`.
#[derive(Serialize)]
pub(crate) struct Run<'a> {
    run_id: &'a str,
    path_prefix: &'a str,
    server_ids: &'a [String],
    target_revision: i64,
    state: String,
    started_by: &'a str,
    start_time: String,
    copy_count: i64,
    in_sync_count: i64,
    remaining_bytes: i64,
    time_left_seconds: Option<f64>,
    obstacles: Vec<Obstacle<'a>>,
    shares: Vec<Share<'a>>,
}

impl<'a> Run<'a> {
    /// From the wire.
    pub(crate) fn of(run: &'a gateway::SyncRun) -> Self {
        Self {
            run_id: &run.run_id,
            path_prefix: &run.path_prefix,
            server_ids: &run.server_ids,
            target_revision: run.target_revision,
            state: run_state(run),
            started_by: &run.started_by,
            start_time: time(run.start_time.as_ref()),
            copy_count: run.copy_count,
            in_sync_count: run.in_sync_count,
            remaining_bytes: run.remaining_bytes,
            time_left_seconds: run.time_left.map(seconds),
            obstacles: run.obstacles.iter().map(Obstacle::of).collect(),
            shares: run.shares.iter().map(Share::of).collect(),
        }
    }
}

/// What keeps it; `path` is empty if it is the server as a whole.
#[derive(Serialize)]
struct Obstacle<'a> {
    server_id: &'a str,
    path: &'a str,
    failure: Option<Failure<'a>>,
    retry_seconds: Option<f64>,
}

impl<'a> Obstacle<'a> {
    fn of(obstacle: &'a gateway::SyncObstacle) -> Self {
        Self {
            server_id: &obstacle.server_id,
            path: &obstacle.path,
            failure: obstacle.failure.as_ref().map(Failure::of),
            retry_seconds: obstacle.retry_delay.map(seconds),
        }
    }
}

/// How far one server is.
#[derive(Serialize)]
struct Share<'a> {
    server_id: &'a str,
    file_count: i64,
    in_sync_count: i64,
    remaining_bytes: i64,
}

impl<'a> Share<'a> {
    fn of(share: &'a gateway::SyncShare) -> Self {
        Self {
            server_id: &share.server_id,
            file_count: share.file_count,
            in_sync_count: share.in_sync_count,
            remaining_bytes: share.remaining_bytes,
        }
    }
}

/// The state of a run, without its prefix.
pub(crate) fn run_state(run: &gateway::SyncRun) -> String {
    word(sync_run::State::try_from(run.state).map(|state| state.as_str_name()), "STATE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_run_is_stable() {
        let share = gateway::SyncShare { server_id: "s1".into(), ..gateway::SyncShare::default() };
        let obstacle = gateway::SyncObstacle {
            server_id: "s2".into(),
            path: "a".into(),
            failure: None,
            retry_delay: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        };
        let run = gateway::SyncRun {
            run_id: "id".into(),
            state: sync_run::State::Waiting as i32,
            shares: vec![share],
            obstacles: vec![obstacle],
            ..gateway::SyncRun::default()
        };
        let answer = gateway::SyncAnswer { server_id: "s1".into(), exception_count: 1, failure: None };
        let text = serde_json::to_string(&Started::of(&run, &[answer])).expect("JSON");
        let expected = r#"{"run":{"run_id":"id","path_prefix":"","server_ids":[],"target_revision":0,"state":"WAITING","started_by":"","start_time":"","copy_count":0,"in_sync_count":0,"remaining_bytes":0,"time_left_seconds":null,"obstacles":[{"server_id":"s2","path":"a","failure":null,"retry_seconds":2.0}],"shares":[{"server_id":"s1","file_count":0,"in_sync_count":0,"remaining_bytes":0}]},"answers":[{"server_id":"s1","exception_count":1,"failure":null}]}"#;
        assert_eq!(text, expected);
    }
}
