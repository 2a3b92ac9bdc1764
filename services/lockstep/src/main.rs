//! The one program of Lockstep: every service, a whole installation on one machine, and the client.
//!
//! ```text
//! lockstep gateway|filesync|catalog|resolver|timeguard    service.rs   one line each
//! lockstep up                                             up/          a supervisor and its children
//! lockstep file|sync|status|clock|events|server …         client/      a few calls to the gateway, then text or JSON
//! lockstep completion                                     below        from the words of cli.rs
//! ```
//!
//! Invariants
//! 1. The exit code says what happened; see `lockstep --help`.
//! 2. Nothing that comes from a name, a server or a service can control the terminal.

mod cli;
mod client;
mod out;
mod problem;
mod service;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use crate::{
    cli::{Cli, Command, show::Shell},
    problem::{Exit, Problem, Result},
};

fn main() -> ExitCode {
    // A service reads its settings itself, so its arguments are not for the parser of the client.
    let mut args = std::env::args_os().skip(1).filter_map(|arg| arg.into_string().ok());
    if let Some(code) = args.next().and_then(|name| service::run(&name, args.collect())) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let format = cli.output;
    if let Some((name, args)) = cli.command.service() {
        return service::run(name, args.settings.clone())
            .unwrap_or_else(|| ExitCode::from(Exit::Usage as u8));
    }
    if let Command::Completion(args) = &cli.command {
        return complete(args.shell);
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            out::note(&problem.render(format));
            ExitCode::from(problem.exit as u8)
        }
    }
}

/// Prints the completion of a shell: every word, from the definition of the command line itself.
fn complete(shell: Shell) -> ExitCode {
    use clap_complete::Shell as Known;
    let known = match shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(known, &mut Cli::command(), "lockstep", &mut script);
    match out::text(String::from_utf8_lossy(&script).trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => ExitCode::from(problem.exit as u8),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // The text of the parser goes where it belongs: help to the standard output, mistakes to the standard error stream.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(Exit::Usage as u8),
    }
}

fn run(cli: Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Problem::io("could not start", "the operating system", &error))?;
    runtime.block_on(async {
        match &cli.command {
            Command::Up(args) => up::run(&cli, args).await,
            _ => client::run(cli).await,
        }
    })
}
