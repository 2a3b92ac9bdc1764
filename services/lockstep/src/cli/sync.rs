//! The words that ask for synchronisation now.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::span;

/// `lockstep sync`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SyncArgs {
    /// What to do with runs that were started [default: start one].
    #[command(subcommand)]
    pub(crate) command: Option<SyncCommand>,
    /// Only paths that begin with this text; one that is a command of this list goes after `--`.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// Only these servers [default: all that take part].
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// How long a run is followed.
#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    /// Follow it until everything is verified. Ends with code 2 and what keeps it when the time is over, or as soon as
    /// only files are left that wait for a decision.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = span, requires = "wait")]
    pub(crate) timeout: Duration,
}

/// What to do with runs.
#[derive(Subcommand, Debug)]
pub(crate) enum SyncCommand {
    /// List runs, latest first.
    #[command(after_help = "Example:\n  lockstep sync ls --output json")]
    Ls {
        /// The most runs that are listed.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..=500))]
        limit: i32,
    },
    /// Show one run and what keeps it.
    #[command(
        after_help = "Examples:\n  lockstep sync show 0c5b…\n  lockstep sync show 0c5b… --wait --timeout 1h"
    )]
    Show {
        /// The id, as `lockstep sync` and `lockstep sync ls` show it.
        id: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// End the asking. Servers go on synchronising by themselves.
    #[command(after_help = "Example:\n  lockstep sync cancel 0c5b…")]
    Cancel {
        /// The id, as `lockstep sync` and `lockstep sync ls` show it.
        id: String,
    },
}
