//! The words about firmware updates and the settings that govern them.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use lockstep_model::firmware::Protocol;

use super::{PortWord, Seen, revision, span};

/// `lockstep firmware`
#[derive(Subcommand, Debug)]
pub(crate) enum FirmwareCommand {
    /// Check for new firmware updates: ask the sources what they offer, and list it.
    #[command(
        after_help = "Examples:\n  lockstep firmware check\n  lockstep firmware check --source vendor --model UD3"
    )]
    Check(CheckArgs),
    /// Download what a source offers into a directory of one server.
    #[command(
        after_help = "Examples:\n  lockstep firmware download os12-1 --source vendor --server s2 --target firmware/os12 --wait\n  lockstep firmware download os12-1 os12-2 --source vendor --server s2 --target firmware"
    )]
    Download(DownloadArgs),
    /// Import a zip archive as an update of one server.
    #[command(
        after_help = "Example:\n  lockstep firmware import ./os12.zip --model UD3 --firmware-version 12.4 --server s1 --target firmware/os12"
    )]
    Import(ImportArgs),
    /// List the updates of this installation.
    #[command(after_help = "Example:\n  lockstep firmware ls --output json")]
    Ls,
    /// Show one update: how devices get it, its files, and why it is not copied if it is not.
    #[command(after_help = "Example:\n  lockstep firmware show 0c5b")]
    Show(IdArgs),
    /// Change how devices get an update, or where its files are.
    #[command(
        after_help = "Examples:\n  lockstep firmware set 0c5b --protocol https-webdav\n  lockstep firmware set 0c5b --protocol ftp --host ftp.example.com --port 21 --user fw --password-file ./secret\n  lockstep firmware set 0c5b --target firmware/new --in-use yes"
    )]
    Set(Box<SetArgs>),
    /// Delete an update and its own files, on every server; or all that came from a feed and no device is meant to get.
    #[command(
        after_help = "Examples:\n  lockstep firmware rm 0c5b --revision 7\n  lockstep firmware rm --unused --dry-run"
    )]
    Rm(RemoveFirmwareArgs),
    /// Show which servers hold every file of an update, and what the others lack (Synchronization Status).
    #[command(
        after_help = "Examples:\n  lockstep firmware status\n  lockstep firmware status 0c5b --output json"
    )]
    Status(StatusOfArgs),
    /// End a download, or forget one that failed; nothing of it is left.
    #[command(after_help = "Example:\n  lockstep firmware cancel 0c5b")]
    Cancel(IdArgs),
    /// Try a download that failed again, from where it was.
    #[command(after_help = "Example:\n  lockstep firmware retry 0c5b")]
    Retry(IdArgs),
}

/// One update.
#[derive(Args, Debug)]
pub(crate) struct IdArgs {
    /// Its id, or the beginning of it.
    pub(crate) id: String,
}

/// `lockstep firmware status`
#[derive(Args, Debug)]
pub(crate) struct StatusOfArgs {
    /// The id of an update, or the beginning of it [default: all].
    pub(crate) id: Option<String>,
}

/// `lockstep firmware check`
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Only this source.
    #[arg(long, value_name = "ID", default_value = "")]
    pub(crate) source: String,
    /// Only for this model.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) model: String,
}

/// Where an update goes, and how devices get it.
#[derive(Args, Debug)]
pub(crate) struct TargetArgs {
    /// The server that takes it first; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// The directory of its files, relative to the transfer directory [default: the transfer directory itself].
    #[arg(long, value_name = "DIR", default_value = "")]
    pub(crate) target: String,
    /// How devices get it: https-webdav, http-webdav, http, https, ftp, ftps, sftp or file. Only the first two are copied
    /// to other servers.
    #[arg(long, value_name = "WORD", default_value = "https-webdav")]
    pub(crate) protocol: Protocol,
}

/// `lockstep firmware download`
#[derive(Args, Debug)]
pub(crate) struct DownloadArgs {
    /// What to download, as `firmware check` lists it.
    #[arg(required = true)]
    pub(crate) offers: Vec<String>,
    /// The source that offers it.
    #[arg(long, value_name = "ID")]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Wait until it is published.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span, requires = "wait")]
    pub(crate) timeout: Duration,
}

/// `lockstep firmware import`
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The archive: regular files with plain relative names, not encrypted.
    pub(crate) archive: PathBuf,
    /// The model of the devices that it is for.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Its version.
    #[arg(long, value_name = "TEXT")]
    pub(crate) firmware_version: String,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// `lockstep firmware set`
#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Its id, or the beginning of it.
    pub(crate) id: String,
    /// The revision you saw; `current` reads it first.
    #[arg(long, value_name = "N|current", value_parser = revision, default_value = "current")]
    pub(crate) revision: Seen,
    /// How devices get it.
    #[arg(long, value_name = "WORD")]
    pub(crate) protocol: Option<Protocol>,
    /// Where they get it; not for the UMS WebDAV protocols, which resolve it for each device.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// The port there, `none` for that of the protocol; not for the UMS WebDAV protocols.
    #[arg(long, value_name = "PORT|none", allow_negative_numbers = true)]
    pub(crate) port: Option<PortWord>,
    /// The path that they ask for; not for the UMS WebDAV protocols.
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// The user that they log in as; may be empty.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// A file with the password; an empty file takes it away. It is stored encrypted and never shown.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// The directory of its files, which are moved there; empty for the transfer directory itself.
    #[arg(long, value_name = "DIR")]
    pub(crate) target: Option<String>,
    /// Whether some device is meant to get it: then no clean-up touches it.
    #[arg(long, value_enum)]
    pub(crate) in_use: Option<YesNo>,
}

/// A word for a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum YesNo {
    /// It is so.
    Yes,
    /// It is not.
    No,
}

/// `lockstep firmware rm`
#[derive(Args, Debug)]
pub(crate) struct RemoveFirmwareArgs {
    /// Its id, or the beginning of it.
    #[arg(required_unless_present = "unused", conflicts_with = "unused")]
    pub(crate) id: Option<String>,
    /// The revision you saw; `current` reads it first.
    #[arg(long, value_name = "N|current", value_parser = revision, required_unless_present = "unused")]
    pub(crate) revision: Option<Seen>,
    /// All that came from a feed and no device is meant to get.
    #[arg(long)]
    pub(crate) unused: bool,
    /// Only tell what would be deleted.
    #[arg(long, requires = "unused")]
    pub(crate) dry_run: bool,
}

/// `lockstep settings`
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    /// What to do [default: show them].
    #[command(subcommand)]
    pub(crate) command: Option<SettingsCommand>,
}

/// What to do with the settings.
#[derive(Subcommand, Debug)]
pub(crate) enum SettingsCommand {
    /// Change them; what is not named stays.
    #[command(
        after_help = "Examples:\n  lockstep settings set --firmware-synchronization on\n  lockstep settings set --webdav-directory firmware --webdav-directory os"
    )]
    Set {
        /// Whether downloaded Universal Firmware Updates within UMS WebDAV directories are synchronised.
        #[arg(long, value_enum, value_name = "on|off")]
        firmware_synchronization: Option<OnOff>,
        /// The WebDAV directories, all of them, relative to the transfer directory; `/` is the transfer directory itself.
        #[arg(long, value_name = "DIR", num_args = 1..)]
        webdav_directory: Vec<String>,
    },
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
}
