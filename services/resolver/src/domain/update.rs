//! A firmware update, as far as devices get it from somewhere.

use std::sync::Arc;

use lockstep_model::{
    FileId, FirmwareId, Revision,
    firmware::{FirmwareRecord, FirmwareState, Protocol, firmware_key},
};

use lockstep_replicas::domain::records::Records;

/// What is kept of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The revision that made it what it is.
    pub revision: Revision,
    /// For a person: model and version.
    pub name: String,
    /// Where it is in its life.
    pub state: FirmwareState,
    /// The server that it is downloaded to.
    pub server: String,
    /// How devices get it.
    pub protocol: Protocol,
    /// The paths of its files, below the transfer directory.
    pub files: Vec<String>,
    /// Which files they are, in the same order; `None` where that is not known.
    pub file_ids: Vec<Option<FileId>>,
    /// Its directory below the transfer directory; empty for that itself.
    pub target: String,
    /// As a person entered it, for a protocol whose host is entered.
    pub entered: Entered,
    /// How devices log in.
    pub login: Arc<Login>,
}

/// Where devices get an update whose host is entered (R53).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entered {
    /// The host.
    pub host: String,
    /// The port; `None` for that of the protocol.
    pub port: Option<u16>,
    /// The path.
    pub path: String,
}

/// How devices log in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The user; may be empty.
    pub user: String,
    /// The password as it is stored; empty for none.
    pub sealed_password: String,
    /// The record that the password was sealed for.
    pub owner: String,
}

/// A sealed password is no secret, but a log is no place for it either.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Update {
    /// The first path at which another file is registered by now, or none: whoever has that has not got the update.
    pub fn foreign(&self, records: &Records) -> Option<&str> {
        let files = self.files.iter().zip(&self.file_ids);
        let mut foreign = files.filter(|(path, file_id)| records.same_file(path, **file_id).is_none());
        foreign.next().map(|(path, _)| path.as_str())
    }

    /// Of a record.
    pub fn of(id: &FirmwareId, revision: Revision, record: FirmwareRecord) -> Self {
        Self {
            revision,
            name: format!("{} {}", record.model, record.version),
            state: record.state,
            server: record.server_id.to_string(),
            protocol: record.protocol,
            file_ids: record.files.iter().map(|file| file.file_id).collect(),
            files: record.files.into_iter().map(|file| file.path.to_string()).collect(),
            target: record.target.map_or_else(String::new, |target| target.to_string()),
            entered: Entered { host: record.host, port: record.port, path: record.path },
            login: Arc::new(Login {
                user: record.user,
                sealed_password: record.sealed_password,
                owner: firmware_key(id),
            }),
        }
    }

    /// Whether its files are registered, so that devices may have it.
    pub fn is_published(&self) -> bool {
        self.state == FirmwareState::Published
    }

    /// Why devices may not have it, without its subject; meaningful for one that is not published.
    pub fn why_unpublished(&self) -> String {
        let server = &self.server;
        match self.state {
            FirmwareState::Downloading => format!("it is being downloaded to {server}"),
            FirmwareState::Verifying => format!("it was downloaded to {server} and is being verified"),
            FirmwareState::Failed => format!("its download to {server} failed"),
            FirmwareState::Deleting => "it is being deleted".to_owned(),
            FirmwareState::Published => "it is published".to_owned(),
        }
    }
}
