//! `lockstep settings`: what governs firmware in the whole installation.

use lockstep_proto::catalog::v1::{
    GetSettingsRequest, Settings, UpdateSettingsRequest, settings::FirmwareSynchronization,
};

use super::{
    connect::{self, Session},
    firmware::request_id,
    shape,
};
use crate::{
    cli::{
        Format,
        firmware::{OnOff, SettingsArgs, SettingsCommand},
    },
    out,
    problem::{Exit, Problem, Result},
};

/// Shows the settings, or changes them.
pub(crate) async fn run(session: &Session, format: Format, args: SettingsArgs) -> Result<()> {
    let what = "could not read the settings";
    let mut client = session.settings();
    let known = connect::read(client.get_settings(GetSettingsRequest {})).await;
    let known = known.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    let known = known.settings.unwrap_or_default();
    let settings = match args.command {
        None => known,
        Some(SettingsCommand::Set { firmware_synchronization, webdav_directory }) => {
            set(session, &known, firmware_synchronization, webdav_directory).await?
        }
    };
    match format {
        Format::Json => out::json(&shape::Settings::of(&settings)),
        Format::Text => out::page(&page(&settings)),
    }
}

async fn set(
    session: &Session,
    known: &Settings,
    option: Option<OnOff>,
    directories: Vec<String>,
) -> Result<Settings> {
    let what = "could not change the settings";
    let (mut settings, mut paths) = (Settings::default(), Vec::new());
    if let Some(option) = option {
        settings.firmware_synchronization = match option {
            OnOff::On => FirmwareSynchronization::On.into(),
            OnOff::Off => FirmwareSynchronization::Off.into(),
        };
        paths.push("firmware_synchronization".to_owned());
    }
    if !directories.is_empty() {
        settings.webdav_directories =
            directories.into_iter().map(|path| if path == "/" { String::new() } else { path }).collect();
        paths.push("webdav_directories".to_owned());
    }
    if paths.is_empty() {
        return Err(Problem::new(Exit::Usage, what, "nothing is named that should change")
            .advise("see lockstep settings set --help"));
    }
    let request = UpdateSettingsRequest {
        settings: Some(settings),
        update_mask: Some(prost_types::FieldMask { paths }),
        expected_revision: known.revision,
        request_id: request_id(),
    };
    let answer = connect::change(|| {
        let (mut client, request) = (session.settings(), request.clone());
        async move { client.update_settings(request).await }
    });
    let answer = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    Ok(answer.settings.unwrap_or_default())
}

fn page(settings: &Settings) -> String {
    let option = match settings.firmware_synchronization() {
        FirmwareSynchronization::On => "on: they are copied to every server",
        _ => "off: they stay on the server that downloaded them; copies that are there stay",
    };
    let name = |path: &String| if path.is_empty() { "/".to_owned() } else { out::escaped(path) };
    let directories: Vec<String> = settings.webdav_directories.iter().map(name).collect();
    format!(
        "Synchronize downloaded Universal Firmware Updates within UMS WebDAV directories\n  {option}\nUMS WebDAV directories, below the transfer directory\n  {}",
        directories.join(", ")
    )
}
