//! What a vendor signs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};

use crate::ports::FeedEntry;

/// The first line of what is signed.
const TITLE: &str = "lockstep feed entry 1";

/// The text of an entry that its vendor signs: what the entry promises, and nothing about where its files are, so that a
/// mirror needs no key. No value has a line feed in it, so that a line is what it seems; files are ordered by their paths.
pub fn canonical_text(entry: &FeedEntry) -> String {
    let FeedEntry { offer_id, model, version, release_notes, files } = entry;
    let notes = hex::encode(digest(&SHA256, release_notes.as_bytes()));
    let mut text = format!(
        "{TITLE}\nid: {offer_id}\nmodel: {model}\nversion: {version}\nrelease_notes_sha256: {notes}\n"
    );
    for file in files {
        text.push_str(&format!("file: {} {} {}\n", file.size_bytes, file.sha256, file.name));
    }
    text
}

/// Whether `signature`, in base64, is that of the key for the entry.
pub(super) fn is_valid(entry: &FeedEntry, signature: &str, public_key: &[u8; 32]) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else { return false };
    let key = UnparsedPublicKey::new(&ED25519, public_key);
    key.verify(canonical_text(entry).as_bytes(), &signature).is_ok()
}
