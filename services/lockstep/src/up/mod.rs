//! `lockstep up`: a whole installation on one machine, every service a process of its own.
//!
//! Owns the data directory: certificates, addresses, the seed of the registry, and the life of the processes. Refuses
//! to own anything that a service does.
//!
//! ```text
//! up ── lock, installation.toml, pki/, registry/   then for each service:
//!  ├── gateway       ┐  standard input: open as long as the supervisor lives; a child drains when it ends
//!  ├── s1.filesync   ├─ standard output and error: lines, prefixed with the name of the child
//!  └── …             ┘  ended without being told to: started again, after 100 ms at first, 10 s at most
//! ```
//!
//! Invariants
//! 1. One supervisor a data directory.
//! 2. No child outlives its supervisor by more than its drain.
//! 3. What was chosen once (ports, identities, registry) stays, so the same directory can be started again.

mod authority;
mod banner;
mod child;
mod children;
mod installation;
mod layout;
mod lines;
mod lock;
mod ports;
mod ready;
mod seed;

pub(crate) use installation::{GATEWAY_PORT, Installation, TRUST_DOMAIN};
pub(crate) use layout::Layout;
use lines::Lines;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_chassis::drain::Drain;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{Cli, UpArgs},
    out,
    problem::{Exit, Problem, Result},
    service,
};

/// From the signal to the end of the supervisor; each child has half a second less.
const STOP_MAX: Duration = Duration::from_millis(4_800);

/// Runs an installation until it is told to stop.
pub(crate) async fn run(cli: &Cli, args: &UpArgs) -> Result<()> {
    let data = &cli.connection.data;
    fs::create_dir_all(data)
        .map_err(|error| Problem::io("could not create the data directory", data.display(), &error))?;
    service::end_with_supervisor().map_err(|error| {
        Problem::io("could not watch the supervisor of this process", "the operating system", &error)
    })?;
    // Children have the same working directory, but a path in a printed line should work from any.
    let data = data
        .canonicalize()
        .map_err(|error| Problem::io("could not use the data directory", data.display(), &error))?;
    let layout = Arc::new(Layout::new(&data));
    let _lock = lock::acquire(&layout)?;
    let installation = Arc::new(prepare(&layout, cli, args).await?);

    let drain = Drain::new();
    let (lines, printer) = lines::printer().map_err(|error| {
        Problem::io("could not start the printer of the log", "the operating system", &error)
    })?;
    authority::keep(&layout, &installation, &lines, &drain);
    let defect = Defect::default();
    for spec in children::specs(&layout, &installation, args) {
        let (layout, lines, stop, defect) =
            (Arc::clone(&layout), lines.clone(), drain.clone(), defect.clone());
        drain.spawn("child", async move {
            if let Err(problem) = child::keep(spec, &layout, &lines, &stop).await {
                defect.found(problem, &stop);
            }
        });
    }
    let announced = announce(Arc::clone(&layout), Arc::clone(&installation), lines, drain.clone());
    drain.spawn("ready", {
        let (defect, stop) = (defect.clone(), drain.clone());
        async move {
            if let Err(problem) = announced.await {
                defect.found(problem, &stop);
            }
        }
    });
    wait_for_signal(&drain).await?;
    drain.begin();
    let ended = tokio::time::timeout(STOP_MAX, drain.finished()).await;
    // The mark is for people and scripts; the next start removes one that is left over.
    let _ = fs::remove_file(layout.ready());
    printer.finish().await;
    if let Some(problem) = defect.take() {
        return Err(problem);
    }
    match ended {
        Ok(()) if !drain.failed() => Ok(()),
        Ok(()) => Err(Problem::new(Exit::Failed, "the installation stopped by itself", "see the log above")),
        Err(_) => {
            let why =
                format!("{} parts were still running after {} s", drain.running(), STOP_MAX.as_secs_f32());
            Err(Problem::new(Exit::Failed, "the installation did not stop cleanly", why))
        }
    }
}

/// Everything that must be there before the first child starts.
async fn prepare(layout: &Layout, cli: &Cli, args: &UpArgs) -> Result<Installation> {
    let trust_domain = cli.connection.trust_domain.as_deref();
    let installation = Installation::prepare(layout, args.servers, args.gateway_port, trust_domain).await?;
    layout.create(&installation)?;
    authority::issue_all(layout, &installation)?;
    authority::make_password_key(layout)?;
    seed::operators(layout).await?;
    Ok(installation)
}

/// Why the installation stops by itself: the first reason counts.
#[derive(Clone, Default)]
struct Defect(Arc<Mutex<Option<Box<Problem>>>>);

impl Defect {
    fn found(&self, problem: Box<Problem>, drain: &Drain) {
        self.lock().get_or_insert(problem);
        drain.begin();
    }

    fn take(&self) -> Option<Box<Problem>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Problem>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until everything answers, then says what is running.
async fn announce(
    layout: Arc<Layout>,
    installation: Arc<Installation>,
    lines: Lines,
    drain: Drain,
) -> Result<()> {
    tokio::select! {
        waited = ready::wait(&layout, &installation, &lines) => waited?,
        () = drain.started() => return Ok(()),
    }
    let (path, text) = (layout.ready(), format!("{}\n", installation.gateway_uri()));
    fs::write(&path, text)
        .map_err(|error| Problem::io("could not write the ready mark", path.display(), &error))?;
    out::text(&banner::text(&layout, &installation, &program()))
}

/// This program, as it can be typed.
fn program() -> String {
    let name = std::env::args().next().unwrap_or_else(|| "lockstep".to_owned());
    if Path::new(&name).components().count() == 1 { "lockstep".to_owned() } else { name }
}

async fn wait_for_signal(drain: &Drain) -> Result<()> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| Problem::io("could not listen for signals", "the operating system", &error))
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = drain.started() => {}
    }
    Ok(())
}
