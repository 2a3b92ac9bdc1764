//! One subcommand per service, one line each.

use std::{
    io::{self, Read as _},
    process::ExitCode,
    thread,
};

use lockstep_chassis::{launch::launch, supervisor::SUPERVISED};
use lockstep_model::identity::SERVICES;
use rustix::process::{Signal, getpid, kill_process};

use crate::{out, problem::Exit};

/// Runs a service until it is told to stop; `None` if `name` is no service.
pub(crate) fn run(name: &str, args: Vec<String>) -> Option<ExitCode> {
    if !SERVICES.contains(&name) {
        return None;
    }
    if let Err(error) = end_with_supervisor() {
        out::note(&format!("lockstep {name} cannot start: its supervisor cannot be watched: {error}"));
        return Some(ExitCode::from(Exit::Unavailable as u8));
    }
    let code = match name {
        "gateway" => launch("gateway", args, gateway::Config::read, gateway::run),
        "filesync" => launch("filesync", args, filesync::Config::read, filesync::run),
        "catalog" => launch("catalog", args, catalog::Config::read, catalog::run),
        "resolver" => launch("resolver", args, resolver::Config::read, resolver::run),
        "timeguard" => launch("timeguard", args, timeguard::Config::read, timeguard::run),
        _ => return None,
    };
    Some(code)
}

/// A supervised process drains when its standard input ends: the supervisor holds the other end, so its children end
/// with it, however it ends.
pub(crate) fn end_with_supervisor() -> io::Result<()> {
    if std::env::var_os(SUPERVISED).is_none() {
        return Ok(());
    }
    let watch = || {
        let mut ignored = [0; 256];
        while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
        // A signal to ourselves cannot fail: the process exists and is ours.
        let _ = kill_process(getpid(), Signal::TERM);
    };
    // Nobody joins it: it waits for the end of the supervisor, and ends with the process at the latest.
    thread::Builder::new().name("supervisor".to_owned()).spawn(watch).map(drop)
}
