//! The feed of a vendor, as the README of this service describes it.
//!
//! Each entry is read alone, so that one that is malformed hides no other (R56). What the vendor wrote is foreign text:
//! bounded, and escaped where it is told.

mod bounded;
mod entry;
mod signature;

use lockstep_model::Reason;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use self::bounded::Bounded;
use crate::ports::{Feed, FeedEntry, Malformed};

pub use self::signature::canonical_text;

/// The largest feed.
pub const FEED_BYTES_MAX: usize = 16 << 20;
/// The most entries of a feed.
pub const ENTRIES_MAX: usize = 10_000;
/// The most files of an entry.
pub const FILES_MAX: usize = 1_000;
/// The longest release notes.
pub const NOTES_BYTES_MAX: usize = 16 << 10;
/// The most malformed entries that are named; all are counted.
pub const MALFORMED_MAX: usize = 100;
/// The version of the format that is read.
pub const FORMAT: u64 = 1;

/// The longest message about an entry, in characters.
const MESSAGE_CHARS_MAX: usize = 600;

/// A feed whose entries are not looked at yet.
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(default)]
    format: Option<u64>,
    #[serde(borrow, default)]
    entries: Option<Bounded<'a, ENTRIES_MAX>>,
}

/// What is wrong with one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    reason: Reason,
    /// Each mistake.
    rules: Vec<String>,
}

/// Reads a feed that came from `base`. Entries must be signed by `public_key`, if there is one.
///
/// # Errors
/// Why it is no feed at all, for people; text of the feed is escaped and cut.
pub fn parse(bytes: &[u8], base: &Url, public_key: Option<&[u8; 32]>) -> Result<Feed, String> {
    if bytes.len() > FEED_BYTES_MAX {
        return Err(format!("it has more than {} MiB", FEED_BYTES_MAX >> 20));
    }
    // A byte order mark is not JSON, and is what some editors leave.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let is_utf8 = matches!(text, std::borrow::Cow::Borrowed(_));
    let outer: Outer<'_> = object(&text).map_err(|error| json_error(&error))?;
    match outer.format {
        Some(FORMAT) => {}
        Some(other) => return Err(format!("its format is {other}; this catalog reads format {FORMAT}")),
        None => return Err("it has no format".to_owned()),
    }
    let Some(entries) = outer.entries else { return Err("it has no entries".to_owned()) };
    let Some(entries) = entries.within() else {
        return Err(format!("it has more than {ENTRIES_MAX} entries"));
    };
    let mut collected = Collected::default();
    for (index, raw) in entries.iter().enumerate() {
        let name = entry::name(index, raw);
        // What was no text became U+FFFD: only the entries with it are not believed.
        let read = if is_utf8 || !raw.get().contains('\u{fffd}') {
            entry::read(raw, base, public_key)
        } else {
            Err(Wrong { reason: Reason::FeedInvalid, rules: vec!["it is no UTF-8".to_owned()] })
        };
        collected.add(&name, read);
    }
    Ok(collected.finish())
}

/// Reads an object. serde would take a list of values in the order of the fields as well.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text);
    }
    Err(serde::de::Error::custom("expected an object"))
}

/// The text of serde_json, which may quote the feed.
fn json_error(error: &serde_json::Error) -> String {
    let text: String = error.to_string().chars().take(MESSAGE_CHARS_MAX).collect();
    format!("it is no JSON of this format: {}", text.escape_debug())
}

/// What came of the entries so far.
#[derive(Default)]
struct Collected {
    feed: Feed,
    ids: std::collections::BTreeSet<String>,
}

impl Collected {
    fn add(&mut self, name: &str, read: Result<FeedEntry, Wrong>) {
        let wrong = match read {
            Ok(entry) if self.ids.insert(entry.offer_id.clone()) => return self.feed.entries.push(entry),
            Ok(_) => Wrong {
                reason: Reason::FeedInvalid,
                rules: vec!["an earlier entry has the same id".to_owned()],
            },
            Err(wrong) => wrong,
        };
        self.feed.malformed_count += 1;
        if self.feed.malformed.len() < MALFORMED_MAX {
            let message: String =
                format!("{name}: {}", wrong.rules.join("; ")).chars().take(MESSAGE_CHARS_MAX).collect();
            self.feed.malformed.push(Malformed { reason: wrong.reason, message });
        }
    }

    fn finish(mut self) -> Feed {
        fn order(entry: &FeedEntry) -> (&str, &str, &str) {
            (&entry.model, &entry.version, &entry.offer_id)
        }
        self.feed.entries.sort_by(|a, b| order(a).cmp(&order(b)));
        self.feed
    }
}

/// A piece of JSON that is looked at later.
type Raw<'a> = &'a RawValue;

#[cfg(test)]
mod tests;
