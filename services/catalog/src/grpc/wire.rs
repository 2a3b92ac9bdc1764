//! Conversions between the contract and the domain, and nothing else.

use lockstep_chassis::{Failure, Fields};
use lockstep_model::{
    FilePath, Reason, Revision, ServerId,
    firmware::{FirmwareFailure, FirmwareOrigin, FirmwareState, Protocol, SettingsRecord},
};
use lockstep_proto::{catalog::v1 as wire, shared::v1 as shared};
use prost_types::FieldMask;

use crate::{
    domain::{
        draft::Wish,
        edit::{Edit, Secret},
        life::is_working,
        offers::{Answer, Offer},
        pace::time_left,
    },
    engine::{CurrentSettings, SettingsEdit, Shown},
};

/// The most WebDAV directories.
const DIRECTORIES_MAX: usize = 100;

/// Sizes and revisions are below 2^63 by their bounds.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A revision that the caller saw.
pub(super) fn seen_from_wire<T>(fields: &mut Fields<T>, revision: i64) -> Option<Revision> {
    let seen = u64::try_from(revision).ok().filter(|revision| *revision > 0).map(Revision);
    if seen.is_none() {
        fields.violation("expected_revision", "must name the revision that you saw; read it first");
    }
    seen
}

/// The protocol; HTTPS (UMS WebDAV) where none is said.
fn protocol_from_wire<T>(fields: &mut Fields<T>, name: &str, protocol: i32) -> Option<Protocol> {
    let protocol = match wire::Protocol::try_from(protocol) {
        Ok(wire::Protocol::Unspecified | wire::Protocol::HttpsWebdav) => Protocol::HttpsWebdav,
        Ok(wire::Protocol::HttpWebdav) => Protocol::HttpWebdav,
        Ok(wire::Protocol::Http) => Protocol::Http,
        Ok(wire::Protocol::Https) => Protocol::Https,
        Ok(wire::Protocol::Ftp) => Protocol::Ftp,
        Ok(wire::Protocol::Ftps) => Protocol::Ftps,
        Ok(wire::Protocol::Sftp) => Protocol::Sftp,
        Ok(wire::Protocol::File) => Protocol::File,
        Err(_) => {
            fields.violation(name, "is a protocol that this catalog does not know");
            return None;
        }
    };
    Some(protocol)
}

const fn protocol_into_wire(protocol: Protocol) -> wire::Protocol {
    match protocol {
        Protocol::HttpsWebdav => wire::Protocol::HttpsWebdav,
        Protocol::HttpWebdav => wire::Protocol::HttpWebdav,
        Protocol::Http => wire::Protocol::Http,
        Protocol::Https => wire::Protocol::Https,
        Protocol::Ftp => wire::Protocol::Ftp,
        Protocol::Ftps => wire::Protocol::Ftps,
        Protocol::Sftp => wire::Protocol::Sftp,
        Protocol::File => wire::Protocol::File,
    }
}

/// A directory below the transfer directory; empty for that itself.
fn target_from_wire<T>(fields: &mut Fields<T>, name: &str, text: &str) -> Option<Option<FilePath>> {
    if text.is_empty() { Some(None) } else { fields.parse_text(name, text).map(Some) }
}

/// Where somebody wants an update; names of fields begin with `prefix`.
pub(super) fn wish_from_wire<T>(
    fields: &mut Fields<T>,
    prefix: &str,
    server_id: &str,
    target_path: &str,
    protocol: i32,
) -> Option<Wish> {
    let server_id: Option<ServerId> = fields.parse_text(format!("{prefix}server_id"), server_id);
    let target = target_from_wire(fields, &format!("{prefix}target_path"), target_path);
    let protocol = protocol_from_wire(fields, &format!("{prefix}protocol"), protocol);
    Some(Wish { server_id: server_id?, target: target?, protocol: protocol? })
}

/// What an update mask names. Each name is checked, so that a mistake changes nothing.
pub(super) fn edit_from_wire<T>(
    fields: &mut Fields<T>,
    firmware: &wire::Firmware,
    mask: Option<&FieldMask>,
    password: &str,
) -> Option<Edit> {
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        fields.violation("update_mask", "must name at least one field");
    }
    let mut edit = Edit::default();
    for path in paths {
        match path.as_str() {
            "protocol" => edit.protocol = protocol_from_wire(fields, "firmware.protocol", firmware.protocol),
            "host" => edit.host = Some(firmware.host.clone()),
            "port" => edit.port = Some(firmware.port),
            "path" => edit.path = Some(firmware.path.clone()),
            "user" => edit.user = Some(firmware.user.clone()),
            "password" => edit.password = Some(Secret(password.to_owned())),
            "target_path" => {
                edit.target = target_from_wire(fields, "firmware.target_path", &firmware.target_path);
            }
            "use_state" => match wire::firmware::UseState::try_from(firmware.use_state) {
                Ok(wire::firmware::UseState::Unused) => edit.in_use = Some(false),
                Ok(wire::firmware::UseState::InUse) => edit.in_use = Some(true),
                _ => fields.violation("firmware.use_state", "must be UNUSED or IN_USE"),
            },
            _ => fields.violation(
                "update_mask",
                "may name protocol, host, port, path, user, password, target_path and use_state",
            ),
        }
    }
    if !password.is_empty() && edit.password.is_none() {
        fields.violation("password", "must be named by the update mask to be set");
    }
    Some(edit)
}

/// What an update mask names of the settings.
pub(super) fn settings_from_wire<T>(
    fields: &mut Fields<T>,
    settings: &wire::Settings,
    mask: Option<&FieldMask>,
    expected_revision: i64,
) -> Option<SettingsEdit> {
    use wire::settings::FirmwareSynchronization as Synchronization;
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        fields.violation("update_mask", "must name at least one field");
    }
    let expected = u64::try_from(expected_revision).ok().map(Revision);
    if expected.is_none() {
        fields.violation("expected_revision", "must not be negative");
    }
    let mut edit = SettingsEdit { expected: expected.unwrap_or_default(), ..SettingsEdit::default() };
    for path in paths {
        match path.as_str() {
            "firmware_synchronization" => {
                match Synchronization::try_from(settings.firmware_synchronization) {
                    Ok(Synchronization::On) => edit.synchronize_firmware = Some(true),
                    Ok(Synchronization::Off) => edit.synchronize_firmware = Some(false),
                    _ => fields.violation("settings.firmware_synchronization", "must be ON or OFF"),
                }
            }
            "webdav_directories" => edit.webdav_directories = directories(fields, settings),
            _ => fields.violation("update_mask", "may name firmware_synchronization and webdav_directories"),
        }
    }
    expected.map(|_| edit)
}

fn directories<T>(fields: &mut Fields<T>, settings: &wire::Settings) -> Option<Vec<String>> {
    let directories = &settings.webdav_directories;
    if directories.len() > DIRECTORIES_MAX {
        let rule = format!("has at most {DIRECTORIES_MAX} directories");
        fields.violation("settings.webdav_directories", rule);
        return None;
    }
    for (number, directory) in directories.iter().enumerate().filter(|(_, directory)| !directory.is_empty()) {
        fields.parse_text::<FilePath>(format!("settings.webdav_directories[{number}]"), directory);
    }
    Some(directories.clone())
}

pub(super) fn settings_into_wire((revision, record): CurrentSettings) -> wire::Settings {
    use wire::settings::FirmwareSynchronization as Synchronization;
    let SettingsRecord { synchronize_firmware, webdav_directories } = record;
    let option = if synchronize_firmware { Synchronization::On } else { Synchronization::Off };
    wire::Settings {
        revision: signed(revision.0),
        firmware_synchronization: option.into(),
        webdav_directories,
    }
}

const fn state_into_wire(state: FirmwareState) -> wire::firmware::State {
    use wire::firmware::State;
    match state {
        FirmwareState::Downloading => State::Downloading,
        FirmwareState::Verifying => State::Verifying,
        FirmwareState::Published => State::Published,
        FirmwareState::Failed => State::Failed,
        FirmwareState::Deleting => State::Deleting,
    }
}

fn failure_into_wire(failure: &FirmwareFailure) -> shared::Failure {
    Failure::new(failure.reason, failure.message.clone()).into_wire()
}

fn not_copied_into_wire(reason: Reason) -> shared::Failure {
    let message = match reason {
        Reason::ProtocolNotWebdav => "its protocol is neither HTTPS (UMS WebDAV) nor HTTP (UMS WebDAV)",
        Reason::TargetNotWebdav => "its directory is in none of the WebDAV directories",
        _ => "the synchronisation of downloaded firmware updates is switched off",
    };
    Failure::new(reason, message).into_wire()
}

impl Shown {
    /// As the contract has it. A password is never among it.
    pub(super) fn into_wire(self) -> wire::Firmware {
        let Self { update, note, not_copied } = self;
        let (id, revision, record) = (update.id, update.revision, update.record);
        let is_working = is_working(record.state);
        let total = record.files.iter().map(|file| file.size_bytes).sum::<u64>();
        let is_complete = matches!(record.state, FirmwareState::Published | FirmwareState::Verifying);
        let there = |place: usize, file: &lockstep_model::firmware::FirmwareFile| {
            if is_complete { file.size_bytes } else { note.as_ref().map_or(0, |n| n.bytes_of(place, file)) }
        };
        let files = record.files.iter().enumerate().map(|(place, file)| wire::FirmwareFile {
            path: file.path.to_string(),
            size_bytes: signed(file.size_bytes),
            sha256: file.sha256.clone(),
            file_id: file.file_id.map_or_else(String::new, |id| id.to_string()),
            downloaded_bytes: signed(there(place, file)),
        });
        let files: Vec<wire::FirmwareFile> = files.collect();
        let downloaded: u64 = record.files.iter().enumerate().map(|(place, file)| there(place, file)).sum();
        let is_downloading = record.state == FirmwareState::Downloading;
        let rate = note.as_ref().filter(|_| is_downloading).map_or(0, |note| note.bytes_per_second);
        let left = time_left(total - downloaded, rate).filter(|_| is_downloading);
        let trouble = note.as_ref().and_then(|note| note.failure.as_ref());
        let failure = record.failure.as_ref().or(trouble).map(failure_into_wire);
        let password = if record.sealed_password.is_empty() {
            wire::firmware::PasswordState::Absent
        } else {
            wire::firmware::PasswordState::Set
        };
        let use_state =
            if record.in_use { wire::firmware::UseState::InUse } else { wire::firmware::UseState::Unused };
        let is_webdav = record.protocol.is_webdav();
        let entered = |text: String| if is_webdav { String::new() } else { text };
        let (origin, source_id, offer_id) = match record.origin {
            FirmwareOrigin::Feed { source_id, offer_id } => {
                (wire::firmware::Origin::Feed, source_id, offer_id)
            }
            FirmwareOrigin::Import => (wire::firmware::Origin::Import, String::new(), String::new()),
        };
        wire::Firmware {
            firmware_id: id.to_string(),
            revision: signed(revision.0),
            model: record.model,
            version: record.version,
            state: state_into_wire(record.state).into(),
            failure,
            files,
            total_bytes: signed(total),
            downloaded_bytes: if is_working { signed(downloaded) } else { 0 },
            bytes_per_second: signed(rate),
            time_left: left.and_then(|left| left.try_into().ok()),
            server_id: record.server_id.to_string(),
            target_path: record.target.map_or_else(String::new, |target| target.to_string()),
            protocol: protocol_into_wire(record.protocol).into(),
            host: entered(record.host),
            port: record.port.filter(|_| !is_webdav).map(i32::from),
            path: entered(record.path),
            user: record.user,
            password_state: password.into(),
            origin: origin.into(),
            use_state: use_state.into(),
            release_notes: record.release_notes,
            add_time: Some(prost_types::Timestamp {
                seconds: record.added_time.as_second(),
                nanos: record.added_time.subsec_nanosecond(),
            }),
            not_copied: not_copied.map(not_copied_into_wire),
            source_id,
            offer_id,
        }
    }
}

impl Offer {
    /// As the contract has it; `state` is that of the update that was made of it.
    pub(super) fn into_wire(self, state: Option<FirmwareState>) -> wire::Offer {
        let Self { source_id, entry, firmware_id } = self;
        let total = entry.files.iter().map(|file| file.size_bytes).fold(0, u64::saturating_add);
        wire::Offer {
            source_id,
            offer_id: entry.offer_id,
            model: entry.model,
            version: entry.version,
            total_bytes: signed(total),
            file_count: signed(entry.files.len() as u64),
            release_notes: entry.release_notes,
            firmware_id: state.map_or_else(String::new, |_| firmware_id.to_string()),
            state: state.map_or(wire::firmware::State::Available, state_into_wire).into(),
        }
    }
}

impl Answer {
    pub(super) fn into_wire(self) -> wire::SourceAnswer {
        let Self { source_id, feed, failure } = self;
        let malformed = feed.malformed.into_iter();
        wire::SourceAnswer {
            source_id,
            offer_count: signed(feed.entries.len() as u64),
            malformed: malformed.map(|entry| Failure::new(entry.reason, entry.message).into_wire()).collect(),
            malformed_count: signed(feed.malformed_count),
            failure: failure.map(|failure| Failure::of(&failure).into_wire()),
        }
    }
}
