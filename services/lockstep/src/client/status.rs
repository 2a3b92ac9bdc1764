//! `lockstep status` and `lockstep server ls`: the summaries of the gateway, and the first of what is missing.
//!
//! Summaries are one for each server, however many files there are, so they are read again each second while somebody
//! watches; rows are read only while something is missing, only those in the states that matter, and only so many.

use std::time::Duration;

use lockstep_proto::{
    filesync::v1::Condition,
    gateway::v1::{Cell, ListRowsRequest, Row, ServerSummary, cell, server_summary::State},
};
use tokio::time::{Instant, sleep};

use super::{
    connect::{self, Servers, Session},
    shape, status_text,
};
use crate::{
    cli::{Format, StatusArgs},
    out::{self, Live},
    problem::{Exit, Problem, Result},
};

/// How often it is read again.
const REFRESH: Duration = Duration::from_secs(1);
/// How often it is read again by a command that waits.
const REFRESH_WAITING: Duration = Duration::from_millis(300);
/// Files with missing copies that a document has.
const MISSING_SHOWN: usize = 10;
/// Files with failed copies that are read, to be grouped by reason.
const FAILED_READ: usize = 499;
/// Pages that are asked for: where few of many match, a page may have none.
const PAGES_MAX: usize = 20;
/// What is not in sync, of servers that take part.
const MISSING: [cell::State; 5] = [
    cell::State::Unknown,
    cell::State::Unreachable,
    cell::State::Pending,
    cell::State::Copying,
    cell::State::Failed,
];

/// Everything that one screen shows.
pub(crate) struct Status {
    /// Ordered by id.
    pub(crate) servers: Vec<ServerSummary>,
    /// The revision of the registry.
    pub(crate) revision: i64,
    /// The first of the rows with missing copies.
    pub(crate) missing: Vec<Row>,
    /// The first of the rows with failed copies.
    pub(crate) failed: Vec<Row>,
    /// Whether these are all that failed.
    pub(crate) has_all_failed: bool,
}

impl Status {
    async fn read(session: &Session) -> Result<Self> {
        let Servers { all: servers, revision } = session.servers().await?;
        let mut status =
            Self { servers, revision, missing: Vec::new(), failed: Vec::new(), has_all_failed: true };
        if status.missing_count() > 0 {
            (status.missing, _) = rows(session, &MISSING, MISSING_SHOWN).await?;
        }
        if status.servers.iter().any(|server| server.failed_count > 0) {
            (status.failed, status.has_all_failed) =
                rows(session, &[cell::State::Failed], FAILED_READ).await?;
        }
        Ok(status)
    }

    /// The servers that take part.
    pub(crate) fn members(&self) -> impl Iterator<Item = &ServerSummary> {
        self.servers.iter().filter(|server| server.state() != State::NotEligible)
    }

    /// Registered files.
    pub(crate) fn file_count(&self) -> i64 {
        self.servers.iter().map(|server| server.file_count).max().unwrap_or(0)
    }

    /// Copies that servers should hold and do not.
    pub(crate) fn missing_count(&self) -> i64 {
        self.members().map(|server| (server.file_count - server.in_sync_count).max(0)).sum()
    }

    /// Whether every file is known to be verified on every server that takes part. A fenced server receives like any other.
    pub(crate) fn is_in_sync(&self) -> bool {
        let is_fence = |condition: &Condition| {
            condition.failure.as_ref().is_some_and(|failure| shape::is_fence(&failure.reason))
        };
        let in_sync = |server: &ServerSummary| {
            server.state() == State::Ready
                && server.in_sync_count >= server.file_count
                && server.conditions.iter().all(is_fence)
        };
        self.members().next().is_some() && self.members().all(in_sync)
    }

    /// The missing copies of the rows that were read.
    pub(crate) fn missing_cells(&self) -> impl Iterator<Item = (&Row, &Cell)> {
        self.missing
            .iter()
            .flat_map(|row| row.cells.iter().filter(|cell| is_missing(cell)).map(move |cell| (row, cell)))
    }

    fn print(&self, format: Format) -> Result<()> {
        match format {
            Format::Text => out::page(&status_text::render(self)),
            Format::Json => out::json(&self.document()),
        }
    }

    fn document(&self) -> shape::Status<'_> {
        let cells = self.failed.iter().flat_map(|row| row.cells.iter().map(move |cell| (row, cell)));
        let failed = cells.filter(|(_, cell)| cell.state() == cell::State::Failed);
        shape::Status {
            in_sync: self.is_in_sync(),
            registry_revision: self.revision,
            file_count: self.file_count(),
            servers: self.servers.iter().map(shape::Server::of).collect(),
            missing: self.missing_cells().map(|(row, cell)| shape::MissingCopy::of(row, cell)).collect(),
            missing_count: self.missing_count(),
            failed: failed.map(|(row, cell)| shape::MissingCopy::of(row, cell)).collect(),
            has_all_failed: self.has_all_failed,
        }
    }
}

fn is_missing(cell: &Cell) -> bool {
    !matches!(cell.state(), cell::State::InSync | cell::State::NotEligible)
}

/// The first rows with a copy in one of these states, and whether these are all of them.
async fn rows(session: &Session, states: &[cell::State], limit: usize) -> Result<(Vec<Row>, bool)> {
    let mut found: Vec<Row> = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request = ListRowsRequest {
            page_size: i32::try_from(limit + 1).unwrap_or(i32::MAX),
            page_token,
            states: states.iter().map(|state| *state as i32).collect(),
            ..ListRowsRequest::default()
        };
        let mut matrix = session.matrix();
        let page = connect::read(matrix.list_rows(request)).await;
        let page =
            page.map_err(|failure| Problem::call("could not read the matrix", session.gateway(), &failure))?;
        found.extend(page.rows);
        page_token = page.next_page_token;
        if page_token.is_empty() && found.len() <= limit {
            return Ok((found, true));
        }
        if found.len() > limit {
            break;
        }
    }
    found.truncate(limit);
    Ok((found, false))
}

/// Shows the status once, until it is in sync, or until interrupted.
pub(crate) async fn run(session: &Session, format: Format, args: StatusArgs) -> Result<()> {
    match (args.until_in_sync, args.watch) {
        (false, false) => {
            let status = Status::read(session).await?;
            status.print(format)?;
            verdict(&status, session, "the reasons are listed above")
        }
        (true, _) => wait(session, format, &args).await,
        (false, true) => watch(session, format).await,
    }
}

async fn wait(session: &Session, format: Format, args: &StatusArgs) -> Result<()> {
    let deadline = Instant::now() + args.timeout;
    let mut screen = Screen::new(format);
    loop {
        let status = match Status::read(session).await {
            // A gateway that is starting is waited for like everything else.
            Err(problem) if problem.exit == Exit::Unavailable && Instant::now() < deadline => {
                sleep(REFRESH_WAITING).await;
                continue;
            }
            status => status?,
        };
        let done = status.is_in_sync();
        let late = Instant::now() >= deadline;
        if args.watch {
            screen.show(&status)?;
        } else if done || late {
            status.print(format)?;
        }
        if done || late {
            return verdict(&status, session, &format!("not after {}", out::duration(args.timeout)));
        }
        sleep(REFRESH_WAITING).await;
    }
}

async fn watch(session: &Session, format: Format) -> Result<()> {
    let mut screen = Screen::new(format);
    loop {
        match Status::read(session).await {
            Ok(status) => screen.show(&status)?,
            Err(problem) if problem.exit == Exit::Unavailable => {
                screen.note(&problem.render(Format::Text))?
            }
            Err(problem) => return Err(problem),
        }
        sleep(REFRESH).await;
    }
}

fn verdict(status: &Status, session: &Session, why: &str) -> Result<()> {
    if status.is_in_sync() {
        return Ok(());
    }
    let what = if status.servers.is_empty() {
        "no server has announced itself"
    } else {
        "not everything is in sync"
    };
    Err(Problem::new(Exit::NotInSync, what, why)
        .at(session.gateway())
        .advise("`lockstep file why PATH` tells all about one file; `lockstep sync --wait` tries at once"))
}

/// A place where the status is shown again and again: redrawn on a terminal, elsewhere a line or document a change.
struct Screen {
    format: Format,
    live: Live,
}

impl Screen {
    fn new(format: Format) -> Self {
        Self { format, live: Live::new(format) }
    }

    fn show(&mut self, status: &Status) -> Result<()> {
        if self.live.is_in_place() {
            return self.live.draw(&status_text::render(status));
        }
        let line = status_text::watch_line(status);
        if !self.live.is_new(&line) {
            return Ok(());
        }
        match self.format {
            Format::Text => out::text(&line),
            Format::Json => out::json(&status.document()),
        }
    }

    fn note(&mut self, text: &str) -> Result<()> {
        if self.live.is_in_place() {
            return self.live.draw(text);
        }
        if self.live.is_new(text) {
            out::note(text);
        }
        Ok(())
    }
}

/// Lists the servers.
pub(crate) async fn servers(session: &Session, format: Format) -> Result<()> {
    let Servers { all, revision } = session.servers().await?;
    match format {
        Format::Json => {
            let servers = all.iter().map(shape::Server::of).collect();
            out::json(&shape::Servers { servers, registry_revision: revision })
        }
        Format::Text if all.is_empty() => out::text("no server has announced itself"),
        Format::Text => out::text(&status_text::addresses(&all)),
    }
}
