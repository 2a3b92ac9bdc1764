//! Waiting until files are in sync: by watching the matrix, with an end in every case.

use std::time::Duration;

use lockstep_chassis::status;
use lockstep_model::{Fault, Reason};
use lockstep_proto::gateway::v1::WatchRowsRequest;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    connect::{self, Session},
    goal::{Goal, Verdict},
};
use crate::{
    out,
    problem::{Exit, Problem, Result},
};

/// How long only unreachable or failing servers must have been left before the wait ends: a first failure is tried
/// again within a second.
const STUCK_MAX: Duration = Duration::from_secs(10);
/// The wait before the matrix is watched again after the gateway went away.
const BACKOFF: Duration = Duration::from_millis(500);
/// What is listed of what is missing.
const LISTED_MAX: usize = 10;

/// Waits until every file of the goal is verified on every server.
pub(crate) async fn until_in_sync(session: &Session, mut goal: Goal, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let what = format!("{} not in sync everywhere", out::count(goal.missing_count() as i64, "file"));
    loop {
        match watch(session, &mut goal, deadline).await {
            End::Reached => return Ok(()),
            End::Stuck => {
                return Err(not_in_sync(&what, session, &goal, "what is missing will not come by itself"));
            }
            End::Late => {
                let why = format!("not after {}", out::duration(limit));
                return Err(not_in_sync(&what, session, &goal, &why));
            }
            End::Broken(failure) if connect::is_passing(&failure) && Instant::now() + BACKOFF < deadline => {
                sleep(BACKOFF).await;
            }
            End::Broken(failure) => {
                return Err(Problem::call("could not watch the matrix", session.gateway(), &failure));
            }
        }
    }
}

/// The gateway ended the watch without saying why.
#[derive(Debug, thiserror::Error)]
#[error("the watch of the matrix ended")]
struct WatchEnded;

impl Fault for WatchEnded {
    fn reason(&self) -> Reason {
        Reason::Draining
    }
}

enum End {
    Reached,
    Stuck,
    Late,
    Broken(status::Failure),
}

async fn watch(session: &Session, goal: &mut Goal, deadline: Instant) -> End {
    let request = WatchRowsRequest { path_prefix: goal.prefix().to_owned(), ..WatchRowsRequest::default() };
    let mut matrix = session.matrix();
    let mut stream = match timeout_at(deadline, matrix.watch_rows(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return End::Broken(status::read(&status)),
        Err(_) => return End::Late,
    };
    let mut stuck_since: Option<Instant> = None;
    loop {
        match goal.verdict() {
            Verdict::Reached => return End::Reached,
            Verdict::Waiting => stuck_since = None,
            Verdict::Stuck => stuck_since = stuck_since.or_else(|| Some(Instant::now())),
        }
        let stuck_at = stuck_since.map(|since| since + STUCK_MAX);
        let until = stuck_at.map_or(deadline, |at| at.min(deadline));
        match timeout_at(until, stream.message()).await {
            Ok(Ok(Some(batch))) => {
                batch.removed_paths.iter().for_each(|path| goal.removed(path));
                batch.rows.into_iter().for_each(|row| goal.row(row));
            }
            Ok(Ok(None)) => return End::Broken(status::Failure::of(&WatchEnded)),
            Ok(Err(status)) => return End::Broken(status::read(&status)),
            Err(_) if until < deadline => return End::Stuck,
            Err(_) => return End::Late,
        }
    }
}

fn not_in_sync(what: &str, session: &Session, goal: &Goal, why: &str) -> Box<Problem> {
    Problem::new(Exit::NotInSync, what, format!("{why}\n{}", goal.describe(LISTED_MAX)))
        .at(session.gateway())
        .advise("see `lockstep status` for the reasons; copying goes on by itself")
}
