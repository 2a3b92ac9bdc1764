//! The words that show what is so.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{resolve::EditArgs, span};

/// `lockstep status`
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Show it again whenever it changes, until interrupted: in place on a terminal, elsewhere a line each time.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Wait until everything is in sync everywhere.
    #[arg(long)]
    pub(crate) until_in_sync: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = span, requires = "until_in_sync")]
    pub(crate) timeout: Duration,
}

/// `lockstep file why`
#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// The exact path; also one that was deleted, moved, or never registered.
    pub(crate) path: String,
    /// Only these servers [default: all].
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
}

/// `lockstep events`
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Only files whose paths begin with this text; what concerns a whole server is told all the same.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// Only these servers [default: all].
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
}

/// `lockstep completion`
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell that is to complete.
    pub(crate) shell: Shell,
}

/// A shell that can complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// `lockstep server`
#[derive(Subcommand, Debug)]
pub(crate) enum ServerCommand {
    /// List the servers: how they take part, where they answer, and how fresh their knowledge is.
    #[command(after_help = "Example:\n  lockstep server ls --output json")]
    Ls,
    /// Say where a server stands and how devices reach it. Fields that are not named stay as they are.
    #[command(
        after_help = "Examples:\n  lockstep server edit s1 --public-address cdn.example.com --public-https-port 443\n  lockstep server edit s1 --site north --display-name 'North 1'\n  lockstep server edit s1 --public-address ''"
    )]
    Edit(Box<EditArgs>),
}
