//! The documents of `firmware` and `settings`.

use lockstep_proto::{
    catalog::v1::{self as catalog, Protocol, firmware},
    gateway::v1 as gateway,
};
use serde::Serialize;

use super::{Failure, cell_state_of, seconds, time, word};

/// `firmware check`.
#[derive(Serialize)]
pub(crate) struct Offers<'a> {
    pub(crate) answers: Vec<Answer<'a>>,
    pub(crate) offers: Vec<Offer<'a>>,
}

/// What one source answered.
#[derive(Serialize)]
pub(crate) struct Answer<'a> {
    source_id: &'a str,
    offer_count: i64,
    malformed_count: i64,
    malformed: Vec<Failure<'a>>,
    failure: Option<Failure<'a>>,
}

impl<'a> Answer<'a> {
    /// From the wire.
    pub(crate) fn of(answer: &'a catalog::SourceAnswer) -> Self {
        Self {
            source_id: &answer.source_id,
            offer_count: answer.offer_count,
            malformed_count: answer.malformed_count,
            malformed: answer.malformed.iter().map(Failure::of).collect(),
            failure: answer.failure.as_ref().map(Failure::of),
        }
    }
}

/// What a source offers.
#[derive(Serialize)]
pub(crate) struct Offer<'a> {
    source_id: &'a str,
    offer_id: &'a str,
    model: &'a str,
    version: &'a str,
    total_bytes: i64,
    file_count: i64,
    release_notes: &'a str,
    firmware_id: &'a str,
    state: String,
}

impl<'a> Offer<'a> {
    /// From the wire.
    pub(crate) fn of(offer: &'a catalog::Offer) -> Self {
        Self {
            source_id: &offer.source_id,
            offer_id: &offer.offer_id,
            model: &offer.model,
            version: &offer.version,
            total_bytes: offer.total_bytes,
            file_count: offer.file_count,
            release_notes: &offer.release_notes,
            firmware_id: &offer.firmware_id,
            state: firmware_state(offer.state),
        }
    }
}

/// `firmware ls`, `firmware download`, `firmware rm --unused`.
#[derive(Serialize)]
pub(crate) struct Updates<'a> {
    pub(crate) firmware: Vec<Firmware<'a>>,
}

/// `firmware show`, `import`, `set`, `rm`, `cancel`, `retry`.
#[derive(Serialize)]
pub(crate) struct Firmware<'a> {
    firmware_id: &'a str,
    revision: i64,
    model: &'a str,
    version: &'a str,
    state: String,
    failure: Option<Failure<'a>>,
    files: Vec<File<'a>>,
    total_bytes: i64,
    downloaded_bytes: i64,
    bytes_per_second: i64,
    time_left_seconds: Option<f64>,
    server_id: &'a str,
    target_path: &'a str,
    protocol: String,
    host: &'a str,
    port: Option<i32>,
    path: &'a str,
    user: &'a str,
    password_state: String,
    origin: String,
    use_state: String,
    release_notes: &'a str,
    add_time: String,
    not_copied: Option<Failure<'a>>,
    source_id: &'a str,
    offer_id: &'a str,
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    size_bytes: i64,
    sha256: &'a str,
    file_id: &'a str,
    downloaded_bytes: i64,
}

impl<'a> Firmware<'a> {
    /// From the wire.
    pub(crate) fn of(update: &'a catalog::Firmware) -> Self {
        let file = |file: &'a catalog::FirmwareFile| File {
            path: &file.path,
            size_bytes: file.size_bytes,
            sha256: &file.sha256,
            file_id: &file.file_id,
            downloaded_bytes: file.downloaded_bytes,
        };
        let password = firmware::PasswordState::try_from(update.password_state);
        let used = firmware::UseState::try_from(update.use_state);
        Self {
            firmware_id: &update.firmware_id,
            revision: update.revision,
            model: &update.model,
            version: &update.version,
            state: firmware_state(update.state),
            failure: update.failure.as_ref().map(Failure::of),
            files: update.files.iter().map(file).collect(),
            total_bytes: update.total_bytes,
            downloaded_bytes: update.downloaded_bytes,
            bytes_per_second: update.bytes_per_second,
            time_left_seconds: update.time_left.map(seconds),
            server_id: &update.server_id,
            target_path: &update.target_path,
            protocol: word(Protocol::try_from(update.protocol).map(|it| it.as_str_name()), "PROTOCOL_"),
            host: &update.host,
            port: update.port,
            path: &update.path,
            user: &update.user,
            password_state: word(password.map(|it| it.as_str_name()), "PASSWORD_STATE_"),
            origin: word(firmware::Origin::try_from(update.origin).map(|it| it.as_str_name()), "ORIGIN_"),
            use_state: word(used.map(|it| it.as_str_name()), "USE_STATE_"),
            release_notes: &update.release_notes,
            add_time: time(update.add_time.as_ref()),
            not_copied: update.not_copied.as_ref().map(Failure::of),
            source_id: &update.source_id,
            offer_id: &update.offer_id,
        }
    }
}

/// Where an update is in its life, in one word.
pub(crate) fn firmware_state(state: i32) -> String {
    word(firmware::State::try_from(state).map(|state| state.as_str_name()), "STATE_")
}

/// A protocol as the documented product calls it.
pub(crate) fn protocol_name(protocol: i32) -> String {
    use lockstep_model::firmware::Protocol as Known;
    let known = match Protocol::try_from(protocol) {
        Ok(Protocol::HttpsWebdav) => Known::HttpsWebdav,
        Ok(Protocol::HttpWebdav) => Known::HttpWebdav,
        Ok(Protocol::Http) => Known::Http,
        Ok(Protocol::Https) => Known::Https,
        Ok(Protocol::Ftp) => Known::Ftp,
        Ok(Protocol::Ftps) => Known::Ftps,
        Ok(Protocol::Sftp) => Known::Sftp,
        Ok(Protocol::File) => Known::File,
        Ok(Protocol::Unspecified) | Err(_) => return "UNRECOGNISED".to_owned(),
    };
    known.to_string()
}

/// `firmware status`.
#[derive(Serialize)]
pub(crate) struct FirmwareRows<'a> {
    pub(crate) firmware: Vec<FirmwareRow<'a>>,
    pub(crate) registry_revision: i64,
}

/// One update on all servers.
#[derive(Serialize)]
pub(crate) struct FirmwareRow<'a> {
    firmware_id: &'a str,
    model: &'a str,
    version: &'a str,
    file_count: i64,
    total_bytes: i64,
    complete_server_ids: &'a [String],
    servers: Vec<FirmwareCell<'a>>,
}

#[derive(Serialize)]
struct FirmwareCell<'a> {
    server_id: &'a str,
    state: String,
    failure: Option<Failure<'a>>,
    verified_count: i64,
    copied_bytes: i64,
    time_left_seconds: Option<f64>,
}

impl<'a> FirmwareRow<'a> {
    /// From the wire.
    pub(crate) fn of(row: &'a gateway::FirmwareRow) -> Self {
        let cell = |cell: &'a gateway::FirmwareCell| FirmwareCell {
            server_id: &cell.server_id,
            state: cell_state_of(cell.state),
            failure: cell.failure.as_ref().map(Failure::of),
            verified_count: cell.verified_count,
            copied_bytes: cell.copied_bytes,
            time_left_seconds: cell.time_left.map(seconds),
        };
        Self {
            firmware_id: &row.firmware_id,
            model: &row.model,
            version: &row.version,
            file_count: row.file_count,
            total_bytes: row.total_bytes,
            complete_server_ids: &row.complete_server_ids,
            servers: row.cells.iter().map(cell).collect(),
        }
    }
}

/// `settings`.
#[derive(Serialize)]
pub(crate) struct Settings<'a> {
    revision: i64,
    firmware_synchronization: String,
    webdav_directories: &'a [String],
}

impl<'a> Settings<'a> {
    /// From the wire.
    pub(crate) fn of(settings: &'a catalog::Settings) -> Self {
        use catalog::settings::FirmwareSynchronization;
        let option = FirmwareSynchronization::try_from(settings.firmware_synchronization);
        Self {
            revision: settings.revision,
            firmware_synchronization: word(
                option.map(|option| option.as_str_name()),
                "FIRMWARE_SYNCHRONIZATION_",
            ),
            webdav_directories: &settings.webdav_directories,
        }
    }
}
