//! The words that change what is registered already.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

/// `lockstep file replace`
#[derive(Args, Debug)]
pub(crate) struct ReplaceArgs {
    /// A file on this machine.
    pub(crate) source: PathBuf,
    /// The exact path of the registered file.
    pub(crate) path: String,
    /// The revision you saw, so that nobody replaces what they have not seen; `current` reads it first and replaces
    /// whatever is there.
    #[arg(long, value_name = "N|current", value_parser = revision)]
    pub(crate) revision: Seen,
    /// The server that receives the bytes first; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
}

/// `lockstep file mv`
#[derive(Args, Debug)]
pub(crate) struct MoveArgs {
    /// The exact path of a file, or of a directory.
    pub(crate) path: String,
    /// The exact path that it gets.
    pub(crate) new_path: String,
    /// The revision you saw, of a directory the highest one; `current` reads it first and moves whatever is there.
    #[arg(long, value_name = "N|current", value_parser = revision, default_value = "current")]
    pub(crate) revision: Seen,
    /// Tell what would be moved, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The server that is asked; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
}

/// `lockstep file rm`
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// The exact path.
    pub(crate) path: String,
    /// The revision you saw, so that nobody deletes what they have not seen; of a directory the highest one. `current`
    /// reads it first and deletes whatever is there.
    #[arg(long, value_name = "N|current", value_parser = revision, required_unless_present = "dry_run")]
    pub(crate) revision: Option<Seen>,
    /// The path is a directory: all registered files below it go, and nothing else.
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// How many files you saw below the directory; left out, they are counted first.
    #[arg(long, value_name = "N", requires = "recursive", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) files: Option<i64>,
    /// Tell what would be deleted, and change nothing.
    #[arg(long, requires = "recursive")]
    pub(crate) dry_run: bool,
    /// The server that is asked; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
}

/// The revision of a file that is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The one the caller saw.
    At(i64),
    /// Whatever is there.
    Current,
}

pub(super) fn revision(text: &str) -> Result<Seen, String> {
    match (text, text.parse()) {
        ("current", _) => Ok(Seen::Current),
        (_, Ok(number)) if number > 0 => Ok(Seen::At(number)),
        _ => Err("expected a revision as `lockstep file get` shows it, or the word current".to_owned()),
    }
}

/// Like [`revision`], for what may have none yet.
pub(super) fn revision_or_none(text: &str) -> Result<Seen, String> {
    if text == "0" { Ok(Seen::At(0)) } else { revision(text) }
}

/// A port, or the word that there is none. What is no port is refused by whoever it is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortWord(pub(crate) Option<i32>);

impl FromStr for PortWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            number => {
                let port = number.parse().map_err(|_| "expected a port, or `none`".to_owned())?;
                Ok(Self(Some(port)))
            }
        }
    }
}
