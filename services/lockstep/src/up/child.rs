//! The life of one child: started, forwarded, started again when it ends by itself, ended when it is told to.

use std::{
    collections::BTreeMap,
    fs, io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use lockstep_chassis::{config::EXIT_USAGE, drain::Drain, supervisor::SUPERVISED};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{
    Layout,
    children::{Spec, is_withheld, variables},
    layout::replace,
    lines::Lines,
};
use crate::problem::{Exit, Problem, Result};

/// The wait before a child is started again; doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A child that lived this long is well: the next wait is the first one again.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// How often a child that is held back is looked at.
const HOLD_POLL: Duration = Duration::from_millis(50);
/// From the signal to the kill.
const STOP_MAX: Duration = Duration::from_millis(4_400);

/// How one life ended.
struct End {
    words: String,
    /// The child refused its settings: it would refuse them again.
    hopeless: bool,
    /// Somebody holds it back, so it did not fail, and there is no reason to wait before it is started again.
    held: bool,
}

impl End {
    fn of(status: io::Result<ExitStatus>) -> Self {
        match status {
            Ok(status) => {
                let hopeless = status.code() == Some(i32::from(EXIT_USAGE));
                Self { words: format!("ended ({status})"), hopeless, held: false }
            }
            Err(error) => {
                let words = format!("could not be started or waited for: {error}");
                Self { words, hopeless: false, held: false }
            }
        }
    }
}

/// Keeps one child running until the installation stops.
///
/// # Errors
/// A child that refuses its settings: it cannot be kept running, and the installation is not whole without it.
pub(crate) async fn keep(spec: Spec, layout: &Layout, lines: &Lines, stop: &Drain) -> Result<()> {
    let mut backoff = BACKOFF_FIRST;
    for life in 0.. {
        if layout.hold(&spec.name).exists() {
            lines.say(&format!("{} is held back by {}", spec.name, layout.hold(&spec.name).display())).await;
            tokio::select! {
                () = released(layout, &spec) => backoff = BACKOFF_FIRST,
                () = stop.started() => return Ok(()),
            }
        }
        let started = Instant::now();
        let end = match start(&spec, life, &next_environment(layout, &spec)) {
            Ok(child) => live(child, &spec, layout, lines, stop).await,
            Err(error) => End::of(Err(error)),
        };
        if stop.is_draining() {
            return Ok(());
        }
        if end.hopeless {
            let why = format!("{} refuses its settings, see the log above", spec.name);
            return Err(
                Problem::new(Exit::Failed, "the installation cannot run", why).at(layout.data().display())
            );
        }
        if end.held {
            backoff = BACKOFF_FIRST;
            lines.say(&format!("{} {}; it is held back", spec.name, end.words)).await;
            continue;
        }
        if started.elapsed() >= WELL_AFTER {
            backoff = BACKOFF_FIRST;
        }
        let (name, words, wait) = (&spec.name, end.words, backoff.as_millis());
        lines.say(&format!("{name} {words}; it is started again in {wait} ms")).await;
        tokio::select! {
            () = sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
            () = stop.started() => return Ok(()),
        }
    }
    Ok(())
}

async fn released(layout: &Layout, spec: &Spec) {
    while layout.hold(&spec.name).exists() {
        sleep(HOLD_POLL).await;
    }
}

/// Takes away what somebody left for this life alone.
fn next_environment(layout: &Layout, spec: &Spec) -> BTreeMap<String, String> {
    let path = layout.next_environment(&spec.name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    // Not there is the usual case; what cannot be removed serves the life after this one too.
    let _ = fs::remove_file(path);
    variables(text.trim())
}

fn start(spec: &Spec, life: u32, own: &BTreeMap<String, String>) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(&spec.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that Ctrl-C in a terminal reaches the supervisor alone, which ends all in order.
    command.process_group(0).kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_withheld)) {
        command.env_remove(name);
    }
    command.envs(spec.environment_of(life)).envs(own).env(SUPERVISED, "1");
    command.spawn()
}

/// One life.
async fn live(mut child: Child, spec: &Spec, layout: &Layout, lines: &Lines, stop: &Drain) -> End {
    // The child drains when this end is closed, however the supervisor ends.
    let input = child.stdin.take();
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let pid_path = layout.pid(&spec.name);
    let pid = child.id().unwrap_or_default();
    if let Err(error) = replace(&pid_path, &format!("{pid}\n")) {
        lines.say(&format!("{} has no {}: {error}", spec.name, pid_path.display())).await;
    }
    let forward_output = async {
        if let Some(output) = output {
            lines.forward(&spec.name, output).await;
        }
    };
    let forward_errors = async {
        if let Some(errors) = errors {
            lines.forward(&spec.name, errors).await;
        }
    };
    let life = async {
        let status = tokio::select! {
            status = child.wait() => status,
            () = stop.started() => {
                drop(input);
                end(&mut child, pid).await
            }
        };
        End::of(status)
    };
    let (mut end, (), ()) = tokio::join!(life, forward_output, forward_errors);
    // Looked at before the file below tells that the child is down: who waits for that may let it go again at once.
    end.held = layout.hold(&spec.name).exists();
    // The file is a hint for people and tests; one that is left over names a process that is gone.
    let _ = fs::remove_file(pid_path);
    end
}

/// Tells a child to end; kills it when it does not.
async fn end(child: &mut Child, pid: u32) -> io::Result<ExitStatus> {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself in this moment; then there is nobody to tell.
        let _ = kill_process(pid, Signal::TERM);
    }
    match timeout(STOP_MAX, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}
