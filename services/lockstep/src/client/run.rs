//! `lockstep sync`: starts a run, and follows, lists, shows and cancels runs.

use std::time::Duration;

use lockstep_chassis::status::{self, Failure};
use lockstep_model::{
    Fault, Reason,
    clock::{Entropy as _, SystemEntropy},
};
use lockstep_proto::{
    filesync::v1::ListFilesRequest,
    gateway::v1::{
        CancelSyncRunRequest, GetSyncRunRequest, ListSyncRunsRequest, StartSyncRunRequest, SyncRun,
        WatchSyncRunsRequest, sync_run::State,
    },
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    connect::{self, Session},
    run_text, shape,
};
use crate::{
    cli::{
        Format,
        sync::{SyncArgs, SyncCommand, WaitArgs},
    },
    out::{self, Live},
    problem::{Exit, Problem, Result},
};

/// The wait before a run is watched again after the gateway went away.
const BACKOFF: Duration = Duration::from_millis(500);
/// At most one line in this time where there is no terminal, unless the state changes.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Runs one of the commands.
pub(crate) async fn run(session: &Session, format: Format, args: SyncArgs) -> Result<()> {
    match args.command {
        None => start(session, format, args).await,
        Some(SyncCommand::Ls { limit }) => list(session, format, limit).await,
        Some(SyncCommand::Show { id, wait }) if wait.wait => {
            get(session, &id).await?;
            follow(session, format, &id, wait.timeout).await
        }
        Some(SyncCommand::Show { id, .. }) => print(format, &get(session, &id).await?),
        Some(SyncCommand::Cancel { id }) => cancel(session, format, id).await,
    }
}

async fn start(session: &Session, format: Format, args: SyncArgs) -> Result<()> {
    if !args.prefix.is_empty() {
        tell_empty(session, &args.prefix).await?;
    }
    let request = StartSyncRunRequest {
        path_prefix: args.prefix,
        server_ids: args.server,
        request_id: SystemEntropy.uuid().to_string(),
    };
    let answer = connect::change(|| {
        let (mut client, request) = (session.runs(), request.clone());
        async move { client.start_sync_run(request).await }
    });
    let answer = answer
        .await
        .map_err(|failure| Problem::call("could not start a sync run", session.gateway(), &failure))?;
    let run = answer.run.unwrap_or_default();
    let WaitArgs { wait, timeout } = args.wait;
    match format {
        Format::Json if !wait => return out::json(&shape::Started::of(&run, &answer.answers)),
        Format::Json => {}
        Format::Text => out::page(&run_text::started(&run, &answer.answers, !wait))?,
    }
    if wait { follow(session, format, &run.run_id, timeout).await } else { Ok(()) }
}

/// A run about nothing is over at once, and says that everything is verified: whoever mistyped a path would believe it.
async fn tell_empty(session: &Session, prefix: &str) -> Result<()> {
    let request = ListFilesRequest { path_prefix: prefix.to_owned(), page_size: 1, ..Default::default() };
    let mut client = session.files();
    let page = connect::read(client.list_files(request)).await;
    let page = page.map_err(|failure| {
        Problem::call("could not look for registered files", session.gateway(), &failure)
    })?;
    if page.files.is_empty() {
        out::note(&format!(
            "no registered file begins with {}: there is nothing to copy",
            out::escaped(prefix)
        ));
    }
    Ok(())
}

async fn list(session: &Session, format: Format, limit: i32) -> Result<()> {
    let request = ListSyncRunsRequest { page_size: limit, page_token: String::new() };
    let mut client = session.runs();
    let page = connect::read(client.list_sync_runs(request)).await;
    let page =
        page.map_err(|failure| Problem::call("could not list the sync runs", session.gateway(), &failure))?;
    match format {
        Format::Json => out::json(&shape::Runs { runs: page.runs.iter().map(shape::Run::of).collect() }),
        Format::Text if page.runs.is_empty() => {
            out::text("no sync run was started; servers synchronise without one")
        }
        Format::Text => {
            out::text(&run_text::list(&page.runs))?;
            if !page.next_page_token.is_empty() {
                out::note(&format!("there are more than these {limit}: --limit N"));
            }
            Ok(())
        }
    }
}

async fn get(session: &Session, run_id: &str) -> Result<SyncRun> {
    let request = GetSyncRunRequest { run_id: run_id.to_owned() };
    let mut client = session.runs();
    let answer = connect::read(client.get_sync_run(request)).await;
    let answer = answer.map_err(|failure| {
        Problem::call(format!("could not read the sync run {run_id}"), session.gateway(), &failure)
    })?;
    Ok(answer.run.unwrap_or_default())
}

async fn cancel(session: &Session, format: Format, run_id: String) -> Result<()> {
    let what = format!("could not cancel the sync run {run_id}");
    let request = CancelSyncRunRequest { run_id, request_id: SystemEntropy.uuid().to_string() };
    let answer = connect::change(|| {
        let (mut client, request) = (session.runs(), request.clone());
        async move { client.cancel_sync_run(request).await }
    });
    let answer = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    print(format, &answer.run.unwrap_or_default())
}

fn print(format: Format, run: &SyncRun) -> Result<()> {
    match format {
        Format::Json => out::json(&shape::Run::of(run)),
        Format::Text => out::page(&run_text::page(run)),
    }
}

/// The gateway ended the watch without saying why, while the run goes on.
#[derive(Debug, thiserror::Error)]
#[error("the watch of the sync run ended")]
struct WatchEnded;

impl Fault for WatchEnded {
    fn reason(&self) -> Reason {
        Reason::Draining
    }
}

/// Shows a run whenever it changes, until it ended, cannot end, or the time is over.
async fn follow(session: &Session, format: Format, run_id: &str, limit: Duration) -> Result<()> {
    let mut shown = Shown::new(format);
    let deadline = Instant::now() + limit;
    loop {
        let failure = match watch(session, run_id, deadline, &mut shown).await? {
            End::Over(verdict) => return conclude(session, format, &shown, verdict, limit),
            End::Broken(failure) => failure,
        };
        if !connect::is_passing(&failure) || Instant::now() + BACKOFF >= deadline {
            let what = format!("could not watch the sync run {run_id}");
            return Err(Problem::call(what, session.gateway(), &failure)
                .advise(format!("it goes on by itself: `lockstep sync show {run_id}`")));
        }
        sleep(BACKOFF).await;
    }
}

/// How following ended.
enum End {
    Over(Verdict),
    Broken(Failure),
}

/// What is to be said of a run at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Completed,
    Cancelled,
    /// Nothing is tried that could end it.
    Undecided,
    Late,
}

impl Verdict {
    fn of(run: &SyncRun) -> Option<Self> {
        match run.state() {
            State::Completed => Some(Self::Completed),
            State::Cancelled => Some(Self::Cancelled),
            State::Waiting if run_text::waits_for_a_person(run) => Some(Self::Undecided),
            _ => None,
        }
    }
}

async fn watch(session: &Session, run_id: &str, deadline: Instant, shown: &mut Shown) -> Result<End> {
    let request = WatchSyncRunsRequest { run_id: run_id.to_owned(), resume_token: String::new() };
    let mut client = session.runs();
    let mut stream = match timeout_at(deadline, client.watch_sync_runs(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Ok(End::Broken(status::read(&status))),
        Err(_) => return Ok(End::Over(Verdict::Late)),
    };
    loop {
        match timeout_at(deadline, stream.message()).await {
            Ok(Ok(Some(batch))) => {
                let Some(run) = batch.runs.into_iter().rfind(|run| run.run_id == run_id) else { continue };
                let verdict = Verdict::of(&run);
                shown.show(run)?;
                if let Some(verdict) = verdict {
                    return Ok(End::Over(verdict));
                }
            }
            Ok(Ok(None)) => return Ok(End::Broken(Failure::of(&WatchEnded))),
            Ok(Err(status)) => return Ok(End::Broken(status::read(&status))),
            Err(_) => return Ok(End::Over(Verdict::Late)),
        }
    }
}

fn conclude(
    session: &Session,
    format: Format,
    shown: &Shown,
    verdict: Verdict,
    limit: Duration,
) -> Result<()> {
    let id = &shown.run.run_id;
    let not = |why: String| {
        let why = [why, run_text::obstacles(&shown.run, "")].into_iter().filter(|text| !text.is_empty());
        Problem::new(
            Exit::NotInSync,
            format!("sync run {id} is not complete"),
            why.collect::<Vec<_>>().join("\n"),
        )
        .at(session.gateway())
    };
    let goes_on = format!("it goes on by itself: `lockstep sync show {id} --wait`, or `lockstep status`");
    match verdict {
        Verdict::Completed if format == Format::Text => out::text(&run_text::line(&shown.run)),
        Verdict::Completed => Ok(()),
        Verdict::Cancelled => Err(not("somebody cancelled it".to_owned())
            .advise("start another one with `lockstep sync`; servers go on by themselves")),
        Verdict::Undecided => Err(not("only files are left that wait for a decision".to_owned())
            .advise("`lockstep file why PATH` shows both ways out")),
        Verdict::Late => Err(not(format!("not after {}", out::duration(limit))).advise(goes_on)),
    }
}

/// The run as it was shown last.
struct Shown {
    format: Format,
    live: Live,
    run: SyncRun,
    last_line: Option<Instant>,
}

impl Shown {
    fn new(format: Format) -> Self {
        Self { format, live: Live::new(format), run: SyncRun::default(), last_line: None }
    }

    fn show(&mut self, run: SyncRun) -> Result<()> {
        let is_same_state = self.run.state == run.state;
        self.run = run;
        if self.format == Format::Json {
            return out::json(&shape::Run::of(&self.run));
        }
        if self.live.is_in_place() {
            return self.live.draw(&run_text::page(&self.run));
        }
        let is_due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
        let line = run_text::line(&self.run);
        // The last line is said at the end.
        if self.run.state() != State::Completed && (!is_same_state || is_due) && self.live.is_new(&line) {
            self.last_line = Some(Instant::now());
            out::text(&line)?;
        }
        Ok(())
    }
}
