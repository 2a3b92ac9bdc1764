//! The words about the disk of one server.

use clap::{Args, Subcommand};

use super::{Seen, revision};

/// `lockstep file loose`
#[derive(Args, Debug)]
pub(crate) struct LooseArgs {
    /// Only paths that begin with this text.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// The server whose disk is looked at; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
}

/// `lockstep file aside`
#[derive(Args, Debug)]
pub(crate) struct AsideArgs {
    /// What to do with what is set aside [default: list it].
    #[command(subcommand)]
    pub(crate) command: Option<AsideCommand>,
    /// The server whose disk is looked at; may be left out where there is only one.
    #[arg(long, global = true, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
}

/// What to do with bytes that were set aside.
#[derive(Subcommand, Debug)]
pub(crate) enum AsideCommand {
    /// Move them to a free path, where they are a loose file again.
    #[command(after_help = "Example:\n  lockstep file aside restore aside-… os/base.old --server s1")]
    Restore {
        /// The id, as the list shows it.
        id: String,
        /// Where they go [default: where they were].
        path: Option<String>,
    },
    /// Remove them for good.
    #[command(after_help = "Example:\n  lockstep file aside drop aside-… --server s1")]
    Drop {
        /// The id, as the list shows it.
        id: String,
    },
}

/// `lockstep file update-version` and `lockstep file restore`
#[derive(Args, Debug)]
pub(crate) struct SettleArgs {
    /// The exact path.
    pub(crate) path: String,
    /// The revision you saw; `current` reads it first.
    #[arg(long, value_name = "N|current", value_parser = revision, default_value = "current")]
    pub(crate) revision: Seen,
    /// The server on whose disk somebody changed the file; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
}

/// `lockstep file check`
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Only paths that begin with this text.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// Read and hash every file, instead of only those that look changed.
    #[arg(long)]
    pub(crate) content: bool,
    /// The server whose copies are compared; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
}
