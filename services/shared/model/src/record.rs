//! What the registry stores: readable JSON bodies, one type per kind of record.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, Md5},
    fault::Reason,
    identity::Role,
    ids::{FileId, ServerId, StoreId},
    path::{FilePath, Folded},
    position::Revision,
    version::{Mode, ProductVersion},
};

/// The prefix of the keys of file records, written by filesync.
pub const FILE: &str = "file/";
/// The prefix of the keys of name records, written by filesync.
pub const NAME: &str = "name/";
/// The prefix of the keys of server announcements, written by each server's filesync.
pub const SERVER: &str = "server/";
/// The prefix of the keys of what people say of servers, written by resolver.
pub const ADDRESS: &str = "address/";
/// The prefix of the keys of operators' roles.
pub const OPERATOR: &str = "setting/operator/";

/// The key of the record of the file at `path`.
pub fn file_key(path: &FilePath) -> String {
    format!("{FILE}{path}")
}

/// The key of the record that reserves a folded name.
pub fn name_key(folded: &Folded) -> String {
    format!("{NAME}{}", folded.as_str())
}

/// The key of a server's announcement.
pub fn server_key(server: &ServerId) -> String {
    format!("{SERVER}{server}")
}

/// The key of what people say of a server.
pub fn address_key(server: &ServerId) -> String {
    format!("{ADDRESS}{server}")
}

/// The key of an operator's role.
pub fn operator_key(operator: &str) -> String {
    format!("{OPERATOR}{operator}")
}

/// Where a file object is in its life. The recycle bin will add an inactive state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FileState {
    /// Registered: every server should hold it.
    Active,
}

/// Which servers should hold a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Placement {
    /// All that take part.
    #[default]
    All,
    /// Its origin; others fetch nothing, and a copy that is there stays (R8 to R12, R36).
    OriginOnly {
        /// Why.
        reason: Reason,
    },
}

impl Placement {
    /// Whether every server that takes part should hold it.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Whether `server` should hold a file of `origin`; if not, why.
    pub fn excludes(&self, server: &ServerId, origin: &ServerId) -> Option<Reason> {
        match self {
            Self::OriginOnly { reason } if server != origin => Some(*reason),
            Self::All | Self::OriginOnly { .. } => None,
        }
    }
}

/// The body of `file/<path>`, and of its tombstone: what is needed to recognise a replayed request and a leftover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Immutable identity of the object.
    pub file_id: FileId,
    /// BLAKE3 of the content.
    pub digest: Digest,
    /// MD5 of the content, for devices.
    pub md5: Md5,
    /// Size of the content.
    pub size_bytes: u64,
    /// When it was registered, by the origin's clock; shown, and used as the modification time on every server.
    pub registered_time: Timestamp,
    /// The server it was registered on.
    pub origin: ServerId,
    /// Where it is in its life.
    pub state: FileState,
    /// Which servers should hold it.
    #[serde(default, skip_serializing_if = "Placement::is_all")]
    pub placement: Placement,
    /// `caller id` of the request that made the record what it is: that registered, replaced or moved the file. Kept in the
    /// tombstone too.
    pub registered_by: String,
    /// The path that the request asked for, where a free one was chosen instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<FilePath>,
    /// `caller id` of the request that deleted or moved it; in a tombstone only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_by: Option<String>,
    /// Where the file went; in the tombstone of a move only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<FilePath>,
    /// The revision that registered it; in a tombstone only, whose own revision is that of the deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_revision: Option<Revision>,
}

/// What a folded name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NameKind {
    /// A registered file.
    File,
    /// A directory above at least one registered file.
    Directory,
}

/// The body of `name/<folded>`: the exact spelling that holds the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecord {
    /// The exact path of the file or directory.
    pub path: String,
    /// Which of the two.
    pub kind: NameKind,
}

/// The body of `server/<id>`: what a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// How it takes part.
    pub mode: Mode,
    /// The version of the product it runs in.
    pub version: ProductVersion,
    /// Where its filesync answers, `https://host:port`.
    pub filesync: String,
    /// Where its timeguard answers, `https://host:port`.
    pub timeguard: String,
    /// Its root directory.
    pub store_id: StoreId,
}

/// The body of `setting/operator/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// What the operator may do.
    pub role: Role,
}

/// The body of `address/<id>`: what people say of a server. What is not said is empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddressRecord {
    /// For people.
    pub display_name: String,
    /// Where it stands; devices of the same site prefer it.
    pub site: String,
    /// A host name or an address, without brackets.
    pub host_name: String,
    /// The web port for HTTPS.
    pub https_port: Option<u16>,
    /// The web port for HTTP.
    pub http_port: Option<u16>,
    /// The Public Address: a host name or an address, without brackets.
    pub public_address: String,
    /// The Public Web Port, for HTTPS.
    pub public_https_port: Option<u16>,
    /// Its counterpart for HTTP.
    pub public_http_port: Option<u16>,
}
