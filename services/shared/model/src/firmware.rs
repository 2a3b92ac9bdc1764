//! Firmware updates as the registry stores them, and the rule that says where their files should be (R7 to R12).

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fault::Reason,
    ids::{FileId, FirmwareId, ServerId, UploadId},
    path::FilePath,
    record::Placement,
};

/// The prefix of the keys of firmware updates, written by catalog.
pub const FIRMWARE: &str = "firmware/";
/// The key of the settings that govern firmware, written by catalog.
pub const SETTINGS_KEY: &str = "setting/firmware";

/// The key of an update.
pub fn firmware_key(id: &FirmwareId) -> String {
    format!("{FIRMWARE}{id}")
}

/// How devices get the files of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Protocol {
    /// HTTPS (UMS WebDAV).
    HttpsWebdav,
    /// HTTP (UMS WebDAV).
    HttpWebdav,
    /// HTTP.
    Http,
    /// HTTPS.
    Https,
    /// FTP.
    Ftp,
    /// FTPS.
    Ftps,
    /// SFTP.
    Sftp,
    /// FILE.
    File,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 8] = [
        Self::HttpsWebdav,
        Self::HttpWebdav,
        Self::Http,
        Self::Https,
        Self::Ftp,
        Self::Ftps,
        Self::Sftp,
        Self::File,
    ];

    /// Whether devices get it from the WebDAV directories of the servers, so that host and port are resolved (R53).
    pub const fn is_webdav(self) -> bool {
        matches!(self, Self::HttpsWebdav | Self::HttpWebdav)
    }

    /// The word on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::HttpsWebdav => "https-webdav",
            Self::HttpWebdav => "http-webdav",
            Self::Http => "http",
            Self::Https => "https",
            Self::Ftp => "ftp",
            Self::Ftps => "ftps",
            Self::Sftp => "sftp",
            Self::File => "file",
        }
    }

    /// The scheme of its URI.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::HttpsWebdav | Self::Https => "https",
            Self::HttpWebdav | Self::Http => "http",
            Self::Ftp => "ftp",
            Self::Ftps => "ftps",
            Self::Sftp => "sftp",
            Self::File => "file",
        }
    }
}

/// The name in the documented product.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpsWebdav => "HTTPS (UMS WebDAV)",
            Self::HttpWebdav => "HTTP (UMS WebDAV)",
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Ftp => "FTP",
            Self::Ftps => "FTPS",
            Self::Sftp => "SFTP",
            Self::File => "FILE",
        })
    }
}

impl FromStr for Protocol {
    type Err = InvalidProtocol;

    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        Self::ALL.into_iter().find(|protocol| protocol.word() == text).ok_or(InvalidProtocol)
    }
}

/// The text is no protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected https-webdav, http-webdav, http, https, ftp, ftps, sftp or file")]
pub struct InvalidProtocol;

/// Where an update is in its life. What is merely offered has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FirmwareState {
    /// Its bytes are on their way to the server.
    Downloading,
    /// All bytes are there; what remains is the one commit that registers them.
    Verifying,
    /// Its files are registered.
    Published,
    /// The last try failed.
    Failed,
    /// Its files are being deleted.
    Deleting,
}

/// How an update came here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirmwareOrigin {
    /// Downloaded from a feed.
    Feed {
        /// The source, as the file of sources names it.
        source_id: String,
        /// The offer within it.
        offer_id: String,
    },
    /// Imported by a person: no clean-up touches it (R60).
    Import,
}

/// A file of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareFile {
    /// Where it is, or will be once the update is published, below the transfer directory.
    pub path: FilePath,
    /// Size of the content.
    pub size_bytes: u64,
    /// SHA-256 of the content: 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// Where the vendor has it; empty for an import.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Its bytes on their way into the server.
    pub upload_id: UploadId,
    /// The registered file; `None` until the update is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<FileId>,
    /// Where it is about to be moved, since the update got another target; `path` is where it is until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_path: Option<FilePath>,
}

/// Why an update failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareFailure {
    /// The stable reason.
    pub reason: Reason,
    /// One sentence: what, where and why.
    pub message: String,
}

/// The body of `firmware/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareRecord {
    /// The model of the devices that it is for.
    pub model: String,
    /// Its version, as the vendor writes it.
    pub version: String,
    /// Where it is in its life.
    pub state: FirmwareState,
    /// Why it failed; set for [`FirmwareState::Failed`] only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FirmwareFailure>,
    /// How it came here.
    pub origin: FirmwareOrigin,
    /// The server that it is downloaded to: the origin of its files.
    pub server_id: ServerId,
    /// The directory of its files below the transfer directory; `None` for the transfer directory itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<FilePath>,
    /// How devices get it.
    pub protocol: Protocol,
    /// Where devices get it, for a protocol whose host is entered. Kept while another protocol is chosen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The port that goes with the host; `None` for that of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path that devices ask for, for a protocol whose host is entered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The user that devices log in as.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The password, encrypted (`chassis::seal`); empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sealed_password: String,
    /// Whether some device is meant to get it.
    #[serde(default)]
    pub in_use: bool,
    /// What the vendor says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release_notes: String,
    /// When it was added; shown only.
    pub added_time: Timestamp,
    /// Ordered by path.
    pub files: Vec<FirmwareFile>,
    /// `caller id` of the request that made the update.
    pub requested_by: String,
}

/// The body of [`SETTINGS_KEY`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// The option *Synchronize downloaded Universal Firmware Updates within UMS WebDAV directories* (R7).
    pub synchronize_firmware: bool,
    /// The WebDAV directories; an empty text is the whole transfer directory.
    pub webdav_directories: Vec<String>,
}

impl Default for SettingsRecord {
    /// Off, and the whole transfer directory: what holds while nobody changed it.
    fn default() -> Self {
        Self { synchronize_firmware: false, webdav_directories: vec![String::new()] }
    }
}

impl SettingsRecord {
    /// Whether `target` is one of the WebDAV directories, or below one.
    pub fn is_webdav(&self, target: Option<&FilePath>) -> bool {
        let target = target.map_or("", FilePath::as_str);
        self.webdav_directories.iter().any(|directory| {
            directory.is_empty()
                || target
                    .strip_prefix(directory.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Where the files of an update with this protocol and target should be. What a person can least change by a switch is
    /// told first: the protocol (R9), then the target (R10), then the option (R8).
    pub fn placement(&self, protocol: Protocol, target: Option<&FilePath>) -> Placement {
        let only = |reason| Placement::OriginOnly { reason };
        if !protocol.is_webdav() {
            only(Reason::ProtocolNotWebdav)
        } else if !self.is_webdav(target) {
            only(Reason::TargetNotWebdav)
        } else if !self.synchronize_firmware {
            only(Reason::OptionOff)
        } else {
            Placement::All
        }
    }
}
