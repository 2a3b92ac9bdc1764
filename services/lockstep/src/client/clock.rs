//! `lockstep clock`: what each timeguard says of the clock of its server, and an admin who knows better.
//!
//! Each server is asked by itself and at the same time, so that one that does not answer costs the others nothing.

use std::time::Duration;

use futures::StreamExt as _;
use lockstep_chassis::status::Failure;
use lockstep_model::{
    Kind, Reason, ServerId,
    clock::{Entropy as _, SystemEntropy},
};
use lockstep_proto::timeguard::v1::{
    CancelClockOverrideRequest, ClockReport, GetClockReportRequest, StartClockOverrideRequest,
};
use tokio::time::sleep;

use super::{
    clock_text,
    connect::{self, Session},
    shape,
};
use crate::{
    cli::{
        Format,
        clock::{ClockArgs, ClockCommand, OverrideArgs},
    },
    out::{self, Live},
    problem::{Exit, Problem, Result},
};

/// How long a timeguard may take to answer, with the way through the gateway.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Timeguards that are asked at once.
const AT_ONCE: usize = 64;
/// How often they are asked while somebody watches.
const REFRESH: Duration = Duration::from_secs(1);

/// A server, with what its timeguard said or why it said nothing.
pub(crate) struct Looked {
    /// The server.
    pub(crate) server: ServerId,
    /// The report, or what came instead.
    pub(crate) report: std::result::Result<ClockReport, Failure>,
}

/// Shows clocks, or does something about what is said of one.
pub(crate) async fn run(session: &Session, format: Format, args: ClockArgs) -> Result<()> {
    match args.command {
        Some(ClockCommand::Override(args)) => overrule(session, format, args).await,
        None if args.watch => watch(session, format, &args.server).await,
        None => {
            let looked = look(session, &args.server).await?;
            print(format, &looked)?;
            verdict(session, &looked)
        }
    }
}

/// Asks the named servers, or all, ordered by name.
async fn look(session: &Session, named: &[String]) -> Result<Vec<Looked>> {
    let what = "could not look at the clocks";
    let known = session.servers().await?;
    let ids: Vec<&str> = match named.is_empty() {
        true => known.all.iter().map(|server| server.server_id.as_str()).collect(),
        false => named.iter().map(String::as_str).collect(),
    };
    let parse = |id: &str| {
        let parsed = id.parse::<ServerId>();
        parsed.map_err(|error| Problem::new(Exit::Usage, what, format!("--server {id}: {error}")))
    };
    let ids = ids.into_iter().map(parse).collect::<Result<Vec<_>>>()?;
    let asked = ids.into_iter().map(async |server| {
        let mut clocks = session.clocks();
        let call = clocks.get_clock_report(connect::addressed(GetClockReportRequest {}, &server));
        let answer = connect::within(ANSWER_MAX, call).await;
        Looked { report: answer.map(|answer| answer.report.unwrap_or_default()), server }
    });
    let looked: Vec<Looked> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
    let failures = looked.iter().filter_map(|it| it.report.as_ref().err());
    // Whoever mistypes a server is told so, instead of a row.
    match failures.into_iter().find(|failure| failure.reason == Reason::ServerUnknown) {
        Some(failure) => Err(Problem::call(what, session.gateway(), failure)),
        None => Ok(looked),
    }
}

fn print(format: Format, looked: &[Looked]) -> Result<()> {
    match format {
        Format::Text => out::page(&clock_text::page(looked)),
        Format::Json => document(looked),
    }
}

fn document(looked: &[Looked]) -> Result<()> {
    let failures: Vec<_> =
        looked.iter().map(|it| it.report.as_ref().err().map(|failure| failure.clone().into_wire())).collect();
    let servers = looked.iter().zip(&failures).map(|(it, failure)| shape::ServerClock {
        server_id: it.server.as_str(),
        failure: failure.as_ref().map(shape::Failure::of),
        report: it.report.as_ref().ok().map(shape::Clock::of),
    });
    out::json(&shape::Clocks { servers: servers.collect() })
}

/// Whatever is said of the clocks, that it could be said is success.
fn verdict(session: &Session, looked: &[Looked]) -> Result<()> {
    let failures: Vec<&Failure> = looked.iter().filter_map(|it| it.report.as_ref().err()).collect();
    if failures.is_empty() {
        return Ok(());
    }
    let is_away = failures.iter().any(|failure| failure.kind() == Kind::Unavailable);
    let exit = if is_away { Exit::Unavailable } else { Exit::Failed };
    let what = "not every timeguard could be asked";
    Err(Problem::new(exit, what, "the reasons are listed above").at(session.gateway()))
}

async fn watch(session: &Session, format: Format, named: &[String]) -> Result<()> {
    let mut live = Live::new(format);
    loop {
        match look(session, named).await {
            Ok(looked) if live.is_in_place() => live.draw(&clock_text::page(&looked))?,
            Ok(looked) => {
                let line = clock_text::line(&looked);
                match format {
                    _ if !live.is_new(&line) => {}
                    Format::Text => out::text(&line)?,
                    Format::Json => document(&looked)?,
                }
            }
            Err(problem) if problem.exit == Exit::Unavailable => {
                let text = problem.render(Format::Text);
                if live.is_in_place() {
                    live.draw(&text)?;
                } else if live.is_new(&text) {
                    out::note(&text);
                }
            }
            Err(problem) => return Err(problem),
        }
        sleep(REFRESH).await;
    }
}

/// Begins or ends an override.
async fn overrule(session: &Session, format: Format, args: OverrideArgs) -> Result<()> {
    let what = match args.cancel {
        true => "could not end the override",
        false => "could not overrule the timeguard",
    };
    let server = session.server_for_change(args.server.as_deref(), what).await?;
    let request_id = SystemEntropy.uuid().to_string();
    let report = match args.justification {
        Some(justification) => {
            let request = StartClockOverrideRequest { justification, request_id };
            let answer = connect::change(|| {
                let (mut clocks, request) = (session.clocks(), connect::addressed(request.clone(), &server));
                async move { clocks.start_clock_override(request).await }
            });
            answer.await.map(|answer| answer.report)
        }
        None => {
            let request = CancelClockOverrideRequest { request_id };
            let answer = connect::change(|| {
                let (mut clocks, request) = (session.clocks(), connect::addressed(request.clone(), &server));
                async move { clocks.cancel_clock_override(request).await }
            });
            answer.await.map(|answer| answer.report)
        }
    };
    let report = report.map_err(|failure| Problem::call(what, session.place(Some(&server)), &failure))?;
    let report = report.unwrap_or_default();
    match format {
        Format::Json => out::json(&shape::ServerClock {
            server_id: server.as_str(),
            failure: None,
            report: Some(shape::Clock::of(&report)),
        }),
        Format::Text => out::page(&clock_text::overruled(&server, &report, args.cancel)),
    }
}
