//! The words about clocks.

use clap::{ArgGroup, Args, Subcommand};

/// `lockstep clock`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ClockArgs {
    /// What to do about what is said of a clock [default: show it].
    #[command(subcommand)]
    pub(crate) command: Option<ClockCommand>,
    /// Only these servers [default: all].
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
    /// Show it again and again, until interrupted: in place on a terminal, elsewhere a line each time that a verdict or a fence
    /// changes.
    #[arg(long)]
    pub(crate) watch: bool,
}

/// What to do about what is said of a clock.
#[derive(Subcommand, Debug)]
pub(crate) enum ClockCommand {
    /// Let a server originate changes for an hour, whatever is said of its clock; or end that.
    #[command(
        after_help = "Examples:\n  lockstep clock override --server s2 --justification 'checked by hand, the others are wrong'\n  lockstep clock override --server s2 --cancel\n\nOnly an admin may do it. It is logged and shown with who did it and why."
    )]
    Override(OverrideArgs),
}

/// `lockstep clock override`
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).args(["justification", "cancel"])))]
pub(crate) struct OverrideArgs {
    /// The server that originates all the same; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// Why what is said of its clock is wrong.
    #[arg(long, value_name = "TEXT")]
    pub(crate) justification: Option<String>,
    /// End the override before its time.
    #[arg(long)]
    pub(crate) cancel: bool,
}
