//! The words of the command line. Nothing is done here.

mod change;
pub(crate) mod clock;
pub(crate) mod firmware;
mod resolve;
pub(crate) mod show;
pub(crate) mod store;
pub(crate) mod sync;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use lockstep_chassis::config::Span;

use self::change::revision;
use self::clock::ClockArgs;
use self::sync::SyncArgs;
pub(crate) use self::{
    change::{MoveArgs, PortWord, RemoveArgs, ReplaceArgs, Seen},
    resolve::{EditArgs, ResolveArgs},
    show::{CompletionArgs, EventsArgs, ServerCommand, StatusArgs, WhyArgs},
};

const EXAMPLES: &str = "\
Examples:
  lockstep up --servers 3 --data ./lockstep-data
  lockstep file register ./base.img os/base.img --server s1 --wait
  lockstep status --watch
  lockstep file why os/base.img

Exit codes:
  0   done
  1   a call was refused or failed
  2   not in sync (status, --until-in-sync, --wait)
  64  the command line is wrong
  69  a service is unavailable, or an installation could not start";

/// Keeps registered files the same on every server of an installation.
#[derive(Parser, Debug)]
#[command(name = "lockstep", version, about, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// How to print results. JSON uses the words of the contract, numbers for sizes and counts, seconds for ages;
    /// fields may be added, never renamed. Errors go to the standard error stream in the same format.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, env = "LOCKSTEP_OUTPUT", hide_env_values = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one document, or one a line where a command watches.
    Json,
}

/// Where the gateway is, and who is calling.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// The directory of an installation made by `lockstep up`; the gateway and the certificates are found in it.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "./lockstep-data",
        env = "LOCKSTEP_DATA",
        hide_env_values = true
    )]
    pub(crate) data: PathBuf,
    /// The gateway [default: the one of the data directory, else https://localhost:7443].
    #[arg(long, global = true, value_name = "URI", env = "LOCKSTEP_GATEWAY", hide_env_values = true)]
    pub(crate) gateway: Option<String>,
    /// The operator whose certificate of the data directory is used.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = "local",
        env = "LOCKSTEP_OPERATOR",
        hide_env_values = true
    )]
    pub(crate) operator: String,
    /// The certificate, PEM [default: the operator's of the data directory].
    #[arg(long, global = true, value_name = "FILE", env = "LOCKSTEP_CERT", hide_env_values = true)]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, global = true, value_name = "FILE", env = "LOCKSTEP_KEY", hide_env_values = true)]
    pub(crate) key: Option<PathBuf>,
    /// The certificate authorities to trust, PEM.
    #[arg(long, global = true, value_name = "FILE", env = "LOCKSTEP_CA", hide_env_values = true)]
    pub(crate) ca: Option<PathBuf>,
    /// The trust domain of all identities [default: the one of the data directory, else lockstep.local].
    #[arg(long, global = true, value_name = "NAME", env = "LOCKSTEP_TRUST_DOMAIN", hide_env_values = true)]
    pub(crate) trust_domain: Option<String>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a whole installation on this machine.
    #[command(after_help = "Example:\n  lockstep up --servers 3 --data ./lockstep-data")]
    Up(UpArgs),
    /// Register, list, read and delete files.
    #[command(subcommand)]
    File(FileCommand),
    /// Show what is in sync, what is not, and what to do about it.
    #[command(
        after_help = "Examples:\n  lockstep status\n  lockstep status --watch\n  lockstep status --until-in-sync --timeout 5m"
    )]
    Status(StatusArgs),
    /// Synchronise now, and see how far that is. Servers synchronise by themselves; this asks at once, tries again what
    /// failed, and can be waited for.
    #[command(
        after_help = "Examples:\n  lockstep sync --wait --timeout 5m\n  lockstep sync firmware/ --server s2 --server s3\n  lockstep sync ls"
    )]
    Sync(SyncArgs),
    /// Follow what changes: files, copies, servers and their conditions, one line each, until interrupted.
    #[command(
        after_help = "Examples:\n  lockstep events\n  lockstep events firmware/ --server s3 --output json\n\nTimes are of the clock of this machine, in UTC. Copies on a server that falls silent are told as one line about the\nserver. Only changes after the first line are told."
    )]
    Events(EventsArgs),
    /// Show what is known of the clock of each server, and which servers are fenced because of it.
    #[command(
        after_help = "Examples:\n  lockstep clock\n  lockstep clock --server s2 --watch\n  lockstep clock override --server s2 --justification 'checked by hand'\n\nAn offset says how far the others are ahead (+) of the clock of the server, or behind it (-). The exit code is 0\nwhenever every timeguard answered, whatever it said."
    )]
    Clock(ClockArgs),
    /// Show the servers, and say how devices reach them.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Check for firmware updates, download, import, edit and delete them, and see which servers hold them.
    #[command(subcommand)]
    Firmware(firmware::FirmwareCommand),
    /// Show or change what governs firmware in the whole installation.
    #[command(
        after_help = "Examples:\n  lockstep settings\n  lockstep settings set --firmware-synchronization on"
    )]
    Settings(firmware::SettingsArgs),
    /// Tell where a device gets a file or a firmware update, and why there.
    #[command(
        after_help = "Examples:\n  lockstep resolve os/base.img --server s1 --device d1 --explain\n  lockstep resolve --firmware 0c5b… --server s1 --device d1 --output json\n\nThe password is only in the JSON document."
    )]
    Resolve(ResolveArgs),
    /// Print the completion of a shell.
    #[command(
        after_help = "Examples:\n  lockstep completion bash > /etc/bash_completion.d/lockstep\n  lockstep completion zsh > \"${fpath[1]}/_lockstep\"\n  lockstep completion fish > ~/.config/fish/completions/lockstep.fish"
    )]
    Completion(CompletionArgs),
    /// Run the gateway: the one door for people.
    #[command(after_help = SERVICE_HELP, disable_help_flag = true)]
    Gateway(ServiceArgs),
    /// Run filesync: the files of one server.
    #[command(after_help = SERVICE_HELP, disable_help_flag = true)]
    Filesync(ServiceArgs),
    /// Run the catalog: firmware updates.
    #[command(after_help = SERVICE_HELP, disable_help_flag = true)]
    Catalog(ServiceArgs),
    /// Run the resolver: connection data for devices.
    #[command(after_help = SERVICE_HELP, disable_help_flag = true)]
    Resolver(ServiceArgs),
    /// Run the timeguard: the clock of one server.
    #[command(after_help = SERVICE_HELP, disable_help_flag = true)]
    Timeguard(ServiceArgs),
}

impl Command {
    /// The service that it runs, if it runs one.
    pub(crate) fn service(&self) -> Option<(&'static str, &ServiceArgs)> {
        match self {
            Self::Gateway(args) => Some(("gateway", args)),
            Self::Filesync(args) => Some(("filesync", args)),
            Self::Catalog(args) => Some(("catalog", args)),
            Self::Resolver(args) => Some(("resolver", args)),
            Self::Timeguard(args) => Some(("timeguard", args)),
            _ => None,
        }
    }
}

const SERVICE_HELP: &str = "Example:\n  lockstep filesync --help";

/// The settings of a service; the service reads them itself.
#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    /// Settings; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SETTINGS")]
    pub(crate) settings: Vec<String>,
}

/// `lockstep up`
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// How many servers [default: those that are there, else 3]. An installation only grows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) servers: Option<u8>,
    /// The port of the gateway [default: as before, else 7443]; 0 chooses a free one, once.
    #[arg(long, value_name = "PORT")]
    pub(crate) gateway_port: Option<u16>,
    /// How often each server compares itself with the registry without being told.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = span)]
    pub(crate) reconcile_every: Duration,
    /// The file of sources that the catalog asks for firmware updates, TOML; without it there are none.
    #[arg(long, value_name = "FILE")]
    pub(crate) sources: Option<PathBuf>,
    /// Send traces, metrics and logs to this OTLP collector.
    #[arg(long, value_name = "URI")]
    pub(crate) otlp: Option<String>,
    /// What the services log, as a filter.
    #[arg(long, value_name = "FILTER", default_value = "info,refinery_core=warn")]
    pub(crate) log: String,
}

/// `lockstep file`
#[derive(Subcommand, Debug)]
pub(crate) enum FileCommand {
    /// Register a file, or every file of a directory, on one server; the others receive it.
    #[command(
        after_help = "Examples:\n  lockstep file register ./base.img os/base.img --server s1 --wait\n  lockstep file register ./drivers/ firmware/drivers --server s1\n  lockstep file register --in-place firmware/drivers --server s1 --dry-run"
    )]
    Register(RegisterArgs),
    /// List registered files, ordered by path.
    #[command(after_help = "Example:\n  lockstep file ls os/ --all")]
    Ls(ListArgs),
    /// Show the record of a file.
    #[command(after_help = "Example:\n  lockstep file get os/base.img --output json")]
    Get(GetArgs),
    /// Explain where a file is and where it is not: since when, why, what happens next, and what you can do.
    #[command(
        after_help = "Examples:\n  lockstep file why os/base.img\n  lockstep file why os/base.img --server s3 --output json\n\nThe exit code is 0 whenever there is an answer, whatever it is."
    )]
    Why(WhyArgs),
    /// Replace the bytes of a registered file; it keeps its identity, and every reader sees the old bytes or the new ones.
    #[command(
        after_help = "Example:\n  lockstep file replace ./base.img os/base.img --revision 7 --server s1"
    )]
    Replace(ReplaceArgs),
    /// Give a file, or a directory with all its files, another path; no bytes are copied between servers.
    #[command(
        after_help = "Examples:\n  lockstep file mv os/base.img os/old/base.img --server s1\n  lockstep file mv drivers archive/drivers --dry-run"
    )]
    Mv(MoveArgs),
    /// Delete a file, or with -r a directory with all its registered files, for good, on every server.
    #[command(
        after_help = "Examples:\n  lockstep file rm os/base.img --revision 7\n  lockstep file rm -r drivers --dry-run"
    )]
    Rm(RemoveArgs),
    /// List what lies in the transfer directory of a server and is not registered.
    #[command(after_help = "Example:\n  lockstep file loose os/ --server s1")]
    Loose(store::LooseArgs),
    /// List what was set aside on a server, restore it or drop it.
    #[command(after_help = "Example:\n  lockstep file aside --server s1")]
    Aside(store::AsideArgs),
    /// Compare the copies of a server with what is registered, now.
    #[command(after_help = "Example:\n  lockstep file check os/ --content --server s1")]
    Check(store::CheckArgs),
    /// Make the bytes that somebody put in place of a file on one server its new content, everywhere.
    #[command(after_help = "Example:\n  lockstep file update-version os/base.img --server s1")]
    UpdateVersion(store::SettleArgs),
    /// Bring the registered bytes of a file back to a server; what is there is set aside.
    #[command(after_help = "Example:\n  lockstep file restore os/base.img --server s1")]
    Restore(store::SettleArgs),
}

/// `lockstep file register`
#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    /// A file or a directory on this machine. Links and special files in a directory are refused.
    #[arg(required_unless_present = "in_place")]
    pub(crate) source: Option<PathBuf>,
    /// The path to register: of the file, or of the directory that the files go below [default: the last component of
    /// the source]. With a slash at the end, the last component of the source is appended; `/` alone is the top.
    pub(crate) path: Option<String>,
    /// Register files that lie in the transfer directory of the server already: these paths, or everything loose below
    /// them; `/` is everything.
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["source", "path"])]
    pub(crate) in_place: Vec<String>,
    /// Only tell what would be registered in place.
    #[arg(long, requires = "in_place")]
    pub(crate) dry_run: bool,
    /// The server that receives the bytes first; may be left out where there is only one.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// What to do about a path that is taken: refuse, or register under the first free one of name(1).ext, name(2).ext …
    #[arg(long, value_enum, default_value_t = OnConflict::Refuse)]
    pub(crate) on_conflict: OnConflict,
    /// Wait until every server holds the files, verified. Ends early, with code 2, when only servers are left that
    /// have been unreachable or failing for ten seconds.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = span)]
    pub(crate) timeout: Duration,
}

/// What to do about a path that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnConflict {
    /// The registration is refused.
    Refuse,
    /// The file gets a number.
    Rename,
}

/// `lockstep file ls`
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only paths that begin with this text.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// Every page.
    #[arg(long, conflicts_with_all = ["page_size", "page_token"])]
    pub(crate) all: bool,
    /// Files in a page.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i32).range(1..=500))]
    pub(crate) page_size: i32,
    /// Continue after an earlier page.
    #[arg(long, value_name = "TOKEN", default_value = "")]
    pub(crate) page_token: String,
}

/// `lockstep file get`
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// The exact path.
    pub(crate) path: String,
}

fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// H1: whoever asks for help gets a line to try.
    #[test]
    fn every_command_has_an_example() {
        fn without<'a>(command: &'a clap::Command, found: &mut Vec<&'a str>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_group = command.has_subcommands() && command.is_subcommand_required_set();
            if !is_group && !help.contains("Example") {
                found.push(command.get_name());
            }
            command.get_subcommands().for_each(|command| without(command, found));
        }
        let (command, mut found) = (Cli::command(), Vec::new());
        without(&command, &mut found);
        assert!(found.is_empty(), "no example: {found:?}");
    }

    #[test]
    fn deleting_needs_a_revision() {
        assert!(Cli::try_parse_from(["lockstep", "file", "rm", "a"]).is_err());
        for (text, seen) in [("7", Seen::At(7)), ("current", Seen::Current)] {
            let cli = Cli::try_parse_from(["lockstep", "file", "rm", "a", "--revision", text]).expect(text);
            match cli.command {
                Command::File(FileCommand::Rm(args)) => assert_eq!(args.revision, Some(seen)),
                other => panic!("parsed as {other:?}"),
            }
        }
        for bad in ["0", "-1", "x", ""] {
            assert!(revision(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_of_a_service_are_left_to_the_service() {
        let cli = Cli::try_parse_from(["lockstep", "filesync", "--listen", "127.0.0.1:0", "--help"])
            .expect("parsed");
        match cli.command {
            Command::Filesync(args) => assert_eq!(args.settings, ["--listen", "127.0.0.1:0", "--help"]),
            other => panic!("parsed as {other:?}"),
        }
    }
}
