//! Sync runs for the contract.

use lockstep_proto::gateway::v1::{self as gateway, sync_run};

use super::{count, duration, failure, number};
use crate::{
    domain::run::{Hindrance, Run, RunProgress, RunState},
    engine::runs::Answer,
};

impl Run {
    /// For the contract, with how far it is.
    pub fn into_wire(self, progress: RunProgress) -> gateway::SyncRun {
        let state = match progress.state {
            RunState::Running => sync_run::State::Running,
            RunState::Waiting => sync_run::State::Waiting,
            RunState::Completed => sync_run::State::Completed,
            RunState::Cancelled => sync_run::State::Cancelled,
        };
        let shares = &progress.shares;
        gateway::SyncRun {
            run_id: self.run_id,
            path_prefix: self.path_prefix,
            server_ids: self.server_ids.into_iter().map(String::from).collect(),
            target_revision: number(self.target.0),
            state: state.into(),
            started_by: self.started_by,
            start_time: Some(prost_types::Timestamp {
                seconds: self.start_time.as_second(),
                nanos: self.start_time.subsec_nanosecond(),
            }),
            copy_count: count(shares.iter().map(|share| share.files).sum()),
            in_sync_count: count(shares.iter().map(|share| share.in_sync).sum()),
            remaining_bytes: number(shares.iter().map(|share| share.remaining_bytes).sum()),
            time_left: progress.time_left.map(duration),
            obstacles: progress.hindrances.into_iter().map(obstacle_into).collect(),
            shares: progress
                .shares
                .into_iter()
                .map(|share| gateway::SyncShare {
                    server_id: share.server.into(),
                    file_count: count(share.files),
                    in_sync_count: count(share.in_sync),
                    remaining_bytes: number(share.remaining_bytes),
                })
                .collect(),
        }
    }
}

fn obstacle_into(hindrance: Hindrance) -> gateway::SyncObstacle {
    gateway::SyncObstacle {
        server_id: hindrance.server.into(),
        path: hindrance.path.unwrap_or_default(),
        failure: Some(failure(hindrance.cause, hindrance.retry_delay)),
        retry_delay: hindrance.retry_delay.map(duration),
    }
}

/// What one server answered.
pub fn answer((server, answer): Answer) -> gateway::SyncAnswer {
    let (exception_count, cause) = match answer {
        Ok(exceptions) => (number(exceptions), None),
        Err(cause) => (0, Some(failure(cause, None))),
    };
    gateway::SyncAnswer { server_id: server.into(), exception_count, failure: cause }
}
