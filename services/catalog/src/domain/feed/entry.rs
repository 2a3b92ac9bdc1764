//! One entry of a feed: every mistake in it is found.

use lockstep_model::{FilePath, Reason, digest::Sha256, path::is_deceptive};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use url::Url;

use super::{FILES_MAX, NOTES_BYTES_MAX, Raw, Wrong, bounded::Bounded, object, signature};
use crate::{
    domain::{
        address,
        names::{Names, shown},
    },
    ports::{FeedEntry, FeedFile},
};

/// The longest id, in bytes.
const ID_BYTES_MAX: usize = 128;
/// The longest model, in characters.
const MODEL_CHARS_MAX: usize = 128;
/// The longest version, in characters.
const VERSION_CHARS_MAX: usize = 64;
/// The largest file: what a filesync takes.
const FILE_BYTES_MAX: u64 = 64 << 30;
/// The most mistakes of one entry that are told.
const RULES_MAX: usize = 5;

/// Every value is looked at by itself, so that the id of an entry is known whatever else is wrong with it.
#[derive(Deserialize)]
struct RawEntry<'a> {
    #[serde(borrow, default)]
    id: Option<Raw<'a>>,
    #[serde(borrow, default)]
    model: Option<Raw<'a>>,
    #[serde(borrow, default)]
    version: Option<Raw<'a>>,
    #[serde(borrow, default)]
    release_notes: Option<Raw<'a>>,
    #[serde(borrow, default)]
    files: Option<Raw<'a>>,
    #[serde(borrow, default)]
    signature: Option<Raw<'a>>,
}

#[derive(Deserialize)]
struct RawFile<'a> {
    #[serde(borrow, default)]
    path: Option<Raw<'a>>,
    #[serde(borrow, default)]
    uri: Option<Raw<'a>>,
    #[serde(borrow, default)]
    size_bytes: Option<Raw<'a>>,
    #[serde(borrow, default)]
    sha256: Option<Raw<'a>>,
}

/// What to call an entry: its place in the feed, and its id if that can be read.
pub(super) fn name(index: usize, raw: &RawValue) -> String {
    let entry: Option<RawEntry<'_>> = object(raw.get()).ok();
    let id = entry.and_then(|entry| serde_json::from_str::<String>(entry.id?.get()).ok());
    let id = id.map(|id| format!(" ({})", shown(&id))).unwrap_or_default();
    format!("entry {}{id}", index + 1)
}

/// Reads an entry.
pub(super) fn read(raw: &RawValue, base: &Url, public_key: Option<&[u8; 32]>) -> Result<FeedEntry, Wrong> {
    let mut reader = Reader::default();
    let read = reader.entry(raw, base);
    let invalid = |rules| Wrong { reason: Reason::FeedInvalid, rules };
    let (entry, signed) = read.filter(|_| reader.rules.is_empty()).ok_or_else(|| invalid(reader.rules))?;
    let Some(key) = public_key else { return Ok(entry) };
    let rule = match signed {
        None => "it is not signed, and its source has a public key",
        Some(signed) if signature::is_valid(&entry, &signed, key) => return Ok(entry),
        Some(_) => "its signature is not that of the public key of its source",
    };
    Err(Wrong { reason: Reason::SignatureInvalid, rules: vec![rule.to_owned()] })
}

/// An entry while it is read.
#[derive(Default)]
struct Reader {
    rules: Vec<String>,
}

impl Reader {
    fn wrong<T>(&mut self, rule: String) -> Option<T> {
        if self.rules.len() < RULES_MAX {
            self.rules.push(rule);
        }
        None
    }

    fn entry(&mut self, raw: &RawValue, base: &Url) -> Option<(FeedEntry, Option<String>)> {
        let Ok(raw) = object::<RawEntry<'_>>(raw.get()) else {
            return self.wrong("it is no object, or has a key twice".to_owned());
        };
        let id = self.id(raw.id);
        let model = self.line(raw.model, "model", MODEL_CHARS_MAX);
        let version = self.line(raw.version, "version", VERSION_CHARS_MAX);
        let release_notes = match raw.release_notes {
            None => Some(String::new()),
            given => self.value::<String>(given, "release_notes", "a text"),
        };
        if release_notes.as_ref().is_some_and(|notes| notes.len() > NOTES_BYTES_MAX) {
            self.wrong::<()>(format!("release_notes has more than {} KiB", NOTES_BYTES_MAX >> 10));
        }
        let signature = match raw.signature {
            None => Some(None),
            given => self.value::<String>(given, "signature", "a text").map(Some),
        };
        let files = self.files(raw.files, base);
        let entry = FeedEntry {
            offer_id: id?,
            model: model?,
            version: version?,
            release_notes: release_notes?,
            files: files?,
        };
        Some((entry, signature?))
    }

    fn value<T: DeserializeOwned>(&mut self, raw: Option<Raw<'_>>, what: &str, kind: &str) -> Option<T> {
        let Some(raw) = raw else { return self.wrong(format!("it has no {what}")) };
        match serde_json::from_str(raw.get()) {
            Ok(value) => Some(value),
            Err(_) => self.wrong(format!("{what} is {}, not {kind}", shown(raw.get()))),
        }
    }

    fn id(&mut self, raw: Option<Raw<'_>>) -> Option<String> {
        let id: String = self.value(raw, "id", "a text")?;
        let is_fine = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        if is_fine {
            return Some(id);
        }
        self.wrong(format!("id must be 1 to {ID_BYTES_MAX} printable ASCII characters without spaces"))
    }

    /// Text that is shown on one line.
    fn line(&mut self, raw: Option<Raw<'_>>, what: &str, chars_max: usize) -> Option<String> {
        let text: String = self.value(raw, what, "a text")?;
        let is_fine = (1..=chars_max).contains(&text.chars().count())
            && text.trim() == text
            && !text.chars().any(|c| c.is_control() || is_deceptive(c));
        if is_fine {
            return Some(text);
        }
        let rule = format!(
            "{what} is {}: 1 to {chars_max} characters, none of them invisible, no space at either end",
            shown(&text)
        );
        self.wrong(rule)
    }

    fn files(&mut self, raw: Option<Raw<'_>>, base: &Url) -> Option<Vec<FeedFile>> {
        let Some(raw) = raw else { return self.wrong("it has no files".to_owned()) };
        let Ok(list) = serde_json::from_str::<Bounded<'_, FILES_MAX>>(raw.get()) else {
            return self.wrong("files is no list".to_owned());
        };
        let Some(list) = list.within() else {
            return self.wrong(format!("it has more than {FILES_MAX} files"));
        };
        if list.is_empty() {
            return self.wrong("it has no files".to_owned());
        }
        let mut names = Names::default();
        let mut files = Vec::with_capacity(list.len());
        for (index, raw) in list.into_iter().enumerate() {
            let Some(file) = self.file(index, raw, base, &mut names) else { continue };
            files.push(file);
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Some(files)
    }

    fn file(&mut self, index: usize, raw: Raw<'_>, base: &Url, names: &mut Names) -> Option<FeedFile> {
        let at = |field: &str| format!("files[{index}].{field}");
        let Ok(raw) = object::<RawFile<'_>>(raw.get()) else {
            return self.wrong(format!("files[{index}] is no object, or has a key twice"));
        };
        let path = self.value::<String>(raw.path, &at("path"), "a text");
        let path = path.and_then(|text| match text.parse::<FilePath>() {
            Ok(path) => Some(path),
            Err(rule) => self.wrong(format!("{} is {}: {rule}", at("path"), shown(&text))),
        });
        if let Some(Err(clash)) = path.as_ref().map(|path| names.add_file(path)) {
            self.wrong::<()>(format!("{}: {clash}", at("path")));
        }
        let uri = self.value::<String>(raw.uri, &at("uri"), "a text");
        let uri = uri.and_then(|text| match address::parse(&text, Some(base)) {
            Ok(uri) => Some(uri),
            // Its text may have a password in it.
            Err(rule) => self.wrong(format!("{}: {rule}", at("uri"))),
        });
        let size = self.value::<u64>(raw.size_bytes, &at("size_bytes"), "a number of bytes");
        if size.is_some_and(|size| size > FILE_BYTES_MAX) {
            self.wrong::<()>(format!("{} is more than {} GiB", at("size_bytes"), FILE_BYTES_MAX >> 30));
        }
        let sha256 = self.value::<String>(raw.sha256, &at("sha256"), "a text");
        let sha256 = sha256.and_then(|text| match text.parse::<Sha256>() {
            Ok(digest) => Some(digest),
            Err(rule) => self.wrong(format!("{} is {}: {rule}", at("sha256"), shown(&text))),
        });
        Some(FeedFile {
            name: path?.into(),
            uri: uri?.into(),
            size_bytes: size?,
            sha256: sha256?.to_string(),
        })
    }
}
