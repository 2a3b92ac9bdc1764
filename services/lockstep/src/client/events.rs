//! `lockstep events`: what changes, one line each, until interrupted.

use std::time::Duration;

use lockstep_chassis::status::{self, Failure};
use lockstep_model::clock::{Clock as _, SystemClock};
use lockstep_proto::gateway::v1::{WatchRowsRequest, WatchRowsResponse};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tonic::Streaming;

use super::{
    connect::{self, Session},
    events_diff::{Happened, Told},
    shape,
};
use crate::{
    cli::{EventsArgs, Format},
    out,
    problem::{Exit, Problem, Result},
};

/// How often the servers are looked at; files are told as they change.
const SERVERS_EVERY: Duration = Duration::from_secs(1);
/// The wait before the matrix is watched again after the gateway went away.
const BACKOFF: Duration = Duration::from_millis(500);
/// How long a gateway may be away before the command ends.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Tells what happens.
pub(crate) async fn run(session: &Session, format: Format, args: EventsArgs) -> Result<()> {
    let what = "could not watch the matrix";
    let mut told = Told::default();
    let mut resume_token = String::new();
    let mut away_since: Option<Instant> = None;
    loop {
        let request = WatchRowsRequest {
            path_prefix: args.prefix.clone(),
            server_ids: args.server.clone(),
            resume_token: resume_token.clone(),
            ..WatchRowsRequest::default()
        };
        let failure = match session.matrix().watch_rows(request).await {
            Ok(answer) => {
                let mut watch = Watch { session, format, args: &args, told: &mut told };
                watch.follow(answer.into_inner(), &mut resume_token, &mut away_since).await?
            }
            Err(status) => status::read(&status),
        };
        if failure.reason == lockstep_model::Reason::ResumeTokenExpired && !resume_token.is_empty() {
            // Another gateway, or a later life of this one: everything is read again, and only what differs is told.
            resume_token.clear();
            continue;
        }
        // A gateway that was never there is no interruption.
        let is_new = away_since.is_none();
        let since = *away_since.get_or_insert_with(Instant::now);
        if !told.is_caught_up() || !connect::is_passing(&failure) || since.elapsed() > AWAY_MAX {
            return Err(Problem::call(what, session.gateway(), &failure));
        }
        if is_new {
            out::note(&format!("{}: {}; trying again", session.gateway(), out::escaped(&failure.message)));
        }
        sleep(BACKOFF).await;
    }
}

struct Watch<'a> {
    session: &'a Session,
    format: Format,
    args: &'a EventsArgs,
    told: &'a mut Told,
}

impl Watch<'_> {
    /// Until the stream ends; why it did.
    async fn follow(
        &mut self,
        mut stream: Streaming<WatchRowsResponse>,
        resume_token: &mut String,
        away_since: &mut Option<Instant>,
    ) -> Result<Failure> {
        let mut look = interval(SERVERS_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = look.tick() => match self.session.servers().await {
                    Ok(servers) => {
                        let mut all = servers.all;
                        all.retain(|it| self.args.server.is_empty() || self.args.server.contains(&it.server_id));
                        let events = self.told.servers(&all);
                        self.print(&events)?;
                    }
                    // The stream says so as well, if it lasts.
                    Err(problem) if problem.exit == Exit::Unavailable => {}
                    Err(problem) => return Err(problem),
                },
                message = stream.message() => match message {
                    Ok(Some(batch)) => {
                        *away_since = None;
                        let revision = batch.position.map_or(0, |position| position.revision);
                        let events =
                            self.told.rows(batch.rows, batch.removed_paths, revision, batch.caught_up);
                        *resume_token = batch.resume_token;
                        self.print(&events)?;
                    }
                    Ok(None) => return Ok(Failure::of(&Ended)),
                    Err(status) => return Ok(status::read(&status)),
                },
            }
        }
    }

    fn print(&self, events: &[Happened]) -> Result<()> {
        for event in events {
            let time = SystemClock.now().to_string();
            match self.format {
                Format::Json => out::json(&shape::Event::of(time, event))?,
                // To the second: the rest is for programs.
                Format::Text => {
                    let time: String =
                        time.chars().skip("2026-01-01T".len()).take("00:00:00".len()).collect();
                    out::text(&format!("{time}  {}", event.line()))?;
                }
            }
        }
        Ok(())
    }
}

/// The gateway ended the watch without saying why.
#[derive(Debug, thiserror::Error)]
#[error("the watch of the matrix ended")]
struct Ended;

impl lockstep_model::Fault for Ended {
    fn reason(&self) -> lockstep_model::Reason {
        lockstep_model::Reason::Draining
    }
}
