//! The client commands: each makes a few calls to the gateway and prints what came back.

mod change;
mod clock;
mod clock_text;
mod connect;
mod events;
mod events_diff;
mod files;
mod firmware;
mod firmware_download;
mod firmware_text;
mod goal;
mod in_place;
mod progress;
mod register;
mod resolve;
mod run;
mod run_text;
mod server_edit;
mod settings;
mod shape;
mod source;
mod status;
mod status_text;
mod status_wrong;
mod store;
mod upload;
mod wait;
mod why;

pub(crate) use connect::Session;

use crate::{
    cli::{Cli, Command, FileCommand, ServerCommand},
    problem::Result,
};

/// Runs a client command.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    let session = Session::open(&cli.connection)?;
    let format = cli.output;
    match cli.command {
        Command::File(FileCommand::Register(args)) if !args.in_place.is_empty() => {
            in_place::run(&session, format, args).await
        }
        Command::File(FileCommand::Register(args)) => register::run(&session, format, args).await,
        Command::File(FileCommand::Ls(args)) => files::list(&session, format, args).await,
        Command::File(FileCommand::Get(args)) => files::get(&session, format, &args.path).await,
        Command::File(FileCommand::Replace(args)) => register::replace(&session, format, args).await,
        Command::File(FileCommand::Mv(args)) => change::relocate(&session, format, args).await,
        Command::File(FileCommand::Rm(args)) if args.recursive => {
            change::remove_directory(&session, format, args).await
        }
        Command::File(FileCommand::Rm(args)) => files::remove(&session, format, args).await,
        Command::File(FileCommand::Loose(args)) => store::loose(&session, format, args).await,
        Command::File(FileCommand::Aside(args)) => store::aside(&session, format, args).await,
        Command::File(FileCommand::Check(args)) => store::check(&session, format, args).await,
        Command::File(FileCommand::UpdateVersion(args)) => {
            store::update_version(&session, format, args).await
        }
        Command::File(FileCommand::Restore(args)) => store::restore(&session, format, args).await,
        Command::File(FileCommand::Why(args)) => why::run(&session, format, args).await,
        Command::Sync(args) => run::run(&session, format, args).await,
        Command::Events(args) => events::run(&session, format, args).await,
        Command::Status(args) => status::run(&session, format, args).await,
        Command::Firmware(command) => firmware::run(&session, format, command).await,
        Command::Settings(args) => settings::run(&session, format, args).await,
        Command::Server(ServerCommand::Ls) => status::servers(&session, format).await,
        Command::Server(ServerCommand::Edit(args)) => server_edit::run(&session, format, *args).await,
        Command::Clock(args) => clock::run(&session, format, args).await,
        Command::Resolve(args) => resolve::run(&session, format, args).await,
        // The other commands do not come here; see main.
        other => unreachable!("{other:?} is no client command"),
    }
}
