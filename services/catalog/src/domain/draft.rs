//! A new update: what is offered, and where somebody wants it.

use jiff::Timestamp;
use lockstep_model::{
    FilePath, FirmwareId, ServerId, UploadId, Violation,
    firmware::{FirmwareFile, FirmwareOrigin, FirmwareRecord, FirmwareState, Protocol},
};

use crate::{domain::error::CatalogError, ports::FeedEntry};

/// Files of an update: they are registered in one change.
pub const FILES_MAX: usize = 1_000;
/// Bytes of all paths and addresses of an update: its record fits into every message.
pub const NAMES_BYTES_MAX: usize = 1 << 20;
/// The largest file: what a server takes.
pub const FILE_BYTES_MAX: u64 = 64 << 30;
/// All files together: what a server can be asked to have room for.
pub const TOTAL_BYTES_MAX: u64 = 4 << 40;

/// Where somebody wants an update, and how devices get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The server that takes it.
    pub server_id: ServerId,
    /// The directory of its files; `None` for the transfer directory itself.
    pub target: Option<FilePath>,
    /// How devices get it.
    pub protocol: Protocol,
}

/// A file before it has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its path below the directory of the update.
    pub name: String,
    /// Size of the content.
    pub size_bytes: u64,
    /// SHA-256 of the content.
    pub sha256: String,
    /// Where the vendor has it; empty for an import.
    pub uri: String,
    /// Its bytes on their way.
    pub upload_id: UploadId,
}

/// What is new about it.
#[derive(Clone, Debug)]
pub struct New {
    /// The model of the devices.
    pub model: String,
    /// Its version.
    pub version: String,
    /// What the vendor says of it.
    pub release_notes: String,
    /// How it came here.
    pub origin: FirmwareOrigin,
    /// When, by the clock of this process; shown only.
    pub added_time: Timestamp,
    /// `caller id` of the request.
    pub requested_by: String,
}

impl New {
    /// An entry of a feed.
    pub fn offered(source_id: &str, entry: &FeedEntry, added_time: Timestamp, requested_by: String) -> Self {
        Self {
            model: entry.model.clone(),
            version: entry.version.clone(),
            release_notes: entry.release_notes.clone(),
            origin: FirmwareOrigin::Feed {
                source_id: source_id.to_owned(),
                offer_id: entry.offer_id.clone(),
            },
            added_time,
            requested_by,
        }
    }
}

/// The id of the update that is made of an offer: it follows from the offer, so that two starts cannot make two.
pub fn offered_id(source_id: &str, offer_id: &str) -> Option<FirmwareId> {
    derived_id("offer", source_id, offer_id)
}

/// The id of the update that a request imports, so that repeating it does not make two.
pub fn imported_id(caller: &str, request_id: &str) -> Option<FirmwareId> {
    derived_id("import", caller, request_id)
}

fn derived_id(kind: &str, owner: &str, name: &str) -> Option<FirmwareId> {
    let text = format!("{kind} {} {owner} {name}", owner.len());
    let hash = blake3::hash(text.as_bytes()).to_hex();
    let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    // The digits that say which kind of UUID it is: version 8, whose content is one's own.
    let id = format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32));
    id.parse().ok()
}

/// The path of `name` below the target.
///
/// # Errors
/// `PATH_INVALID`, about the target.
pub fn placed(target: Option<&FilePath>, name: &str) -> Result<FilePath, CatalogError> {
    let path = target.map_or_else(|| name.to_owned(), |target| format!("{target}/{name}"));
    path.parse().map_err(|rule| {
        let description = format!("{path} cannot be stored on every server: {rule}");
        CatalogError::Names(vec![Violation { field: "target_path".to_owned(), description }])
    })
}

/// The record of a new update, whose files are in the state `state`.
///
/// # Errors
/// `SIZE_LIMIT_EXCEEDED` with the figure, `PATH_INVALID`.
pub fn record(
    new: New,
    wish: &Wish,
    parts: Vec<Part>,
    state: FirmwareState,
) -> Result<FirmwareRecord, CatalogError> {
    let within = |what, limit: u64, actual: u64| {
        if actual <= limit { Ok(()) } else { Err(CatalogError::TooLarge { what, limit, actual }) }
    };
    within("files of an update", FILES_MAX as u64, parts.len() as u64)?;
    let largest = parts.iter().map(|part| part.size_bytes).max().unwrap_or(0);
    within("bytes of a file", FILE_BYTES_MAX, largest)?;
    let total = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size_bytes));
    within("bytes of an update", TOTAL_BYTES_MAX, total)?;
    let mut files = Vec::with_capacity(parts.len());
    for part in parts {
        let path = placed(wish.target.as_ref(), &part.name)?;
        let Part { size_bytes, sha256, uri, upload_id, .. } = part;
        files.push(FirmwareFile { path, size_bytes, sha256, uri, upload_id, file_id: None, new_path: None });
    }
    let names: usize = files.iter().map(|file| file.path.as_str().len() + file.uri.len()).sum();
    within("bytes of paths and addresses of an update", NAMES_BYTES_MAX as u64, names as u64)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let New { model, version, release_notes, origin, added_time, requested_by } = new;
    Ok(FirmwareRecord {
        model,
        version,
        state,
        failure: None,
        origin,
        server_id: wish.server_id.clone(),
        target: wish.target.clone(),
        protocol: wish.protocol,
        host: String::new(),
        port: None,
        path: String::new(),
        user: String::new(),
        sealed_password: String::new(),
        in_use: false,
        release_notes,
        added_time,
        files,
        requested_by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: String) -> Part {
        let upload_id = "00000000-0000-0000-0000-000000000001".parse().expect("an id");
        Part { name, size_bytes: 3, sha256: "ab".repeat(32), uri: "https://v/x".to_owned(), upload_id }
    }

    fn new() -> New {
        New {
            model: "UD3".into(),
            version: "11.1".into(),
            release_notes: String::new(),
            origin: FirmwareOrigin::Import,
            added_time: Timestamp::UNIX_EPOCH,
            requested_by: "operator/local r".into(),
        }
    }

    fn wish(target: &str) -> Wish {
        let target = (!target.is_empty()).then(|| target.parse().expect("a path"));
        Wish { server_id: "s1".parse().expect("an id"), target, protocol: Protocol::HttpsWebdav }
    }

    /// R58: an offer has one id, whoever starts it; offers that could be taken for each other have different ones.
    #[test]
    fn an_offer_has_one_id() {
        let id = offered_id("vendor", "os-11");
        assert!(id.is_some());
        assert_eq!(id, offered_id("vendor", "os-11"));
        assert_ne!(offered_id("a", "b c"), offered_id("a b", "c"));
        assert_ne!(offered_id("a", "b"), imported_id("a", "b"));
    }

    /// R58: what cannot be registered in one change is refused before a byte is asked for, with the figure.
    #[test]
    fn too_much_is_refused_with_the_figure() {
        let parts = (0..=FILES_MAX).map(|n| part(format!("f{n}"))).collect();
        let error = record(new(), &wish(""), parts, FirmwareState::Downloading).expect_err("one too many");
        assert!(error.to_string().contains("1001"), "{error}");
        let huge = Part { size_bytes: FILE_BYTES_MAX + 1, ..part("f".into()) };
        assert!(record(new(), &wish(""), vec![huge], FirmwareState::Downloading).is_err());
        let deep = format!("{}/x", vec!["d"; 100].join("/"));
        let error =
            record(new(), &wish(""), vec![part(deep)], FirmwareState::Downloading).expect_err("too deep");
        assert!(matches!(error, CatalogError::Names(_)), "{error}");
    }

    #[test]
    fn files_are_below_the_target_and_ordered() {
        let parts = vec![part("b".into()), part("a/c".into())];
        let made = record(new(), &wish("ums/fw"), parts, FirmwareState::Downloading).expect("a record");
        let paths: Vec<&str> = made.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["ums/fw/a/c", "ums/fw/b"]);
        let made =
            record(new(), &wish(""), vec![part("b".into())], FirmwareState::Downloading).expect("a record");
        assert_eq!(made.files[0].path.as_str(), "b");
    }
}
