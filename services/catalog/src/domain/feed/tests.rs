use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn base() -> Url {
    "https://vendor.example/feeds/all.json".parse().expect("a URI")
}

fn file(path: &str) -> Value {
    json!({ "path": path, "uri": format!("../files/{path}"), "size_bytes": 7, "sha256": DIGEST })
}

fn entry(id: &str) -> Value {
    json!({
        "id": id, "model": "UMS 7", "version": "1.2.3", "release_notes": "New:\n- all", "later": [1],
        "files": [file("os/b.img"), file("os/a.img")]
    })
}

fn feed(entries: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({ "format": 1, "entries": entries, "made_by": "x" })).expect("JSON")
}

fn read(entries: &[Value]) -> Feed {
    parse(&feed(entries), &base(), None).expect("a feed")
}

/// An entry with one value replaced, or taken away.
fn with(key: &str, value: Option<Value>) -> Value {
    let mut entry = entry("x");
    let object = entry.as_object_mut().expect("an object");
    match value {
        Some(value) => object.insert(key.to_owned(), value),
        None => object.remove(key),
    };
    entry
}

fn with_file(key: &str, value: Option<Value>) -> Value {
    let mut wrong = file("a");
    let object = wrong.as_object_mut().expect("an object");
    match value {
        Some(value) => object.insert(key.to_owned(), value),
        None => object.remove(key),
    };
    with("files", Some(json!([file("b"), wrong])))
}

/// R55: what is offered has model, version, files with sizes, and release notes.
#[test]
fn entries_are_read_in_order() {
    let mut other = entry("0");
    other["version"] = json!("1.10");
    let feed = read(&[entry("b"), entry("a"), other]);
    assert_eq!((feed.malformed_count, feed.malformed.len()), (0, 0), "{:?}", feed.malformed);
    let ids: Vec<&str> = feed.entries.iter().map(|entry| entry.offer_id.as_str()).collect();
    assert_eq!(ids, ["0", "a", "b"]);
    let first = &feed.entries[1];
    assert_eq!((first.model.as_str(), first.release_notes.as_str()), ("UMS 7", "New:\n- all"));
    assert_eq!(first.files[0].name, "os/a.img");
    assert_eq!(first.files[0].uri, "https://vendor.example/files/os/a.img");
    assert_eq!((first.files[0].size_bytes, first.files[0].sha256.as_str()), (7, DIGEST));
}

/// R56: each mistake is told with the entry that has it, and the others are there.
#[test]
fn a_malformed_entry_hides_no_other() {
    let long = |count: usize| Some(json!("x".repeat(count)));
    let cases = [
        (json!(7), "entry 2: it is no object"),
        (json!(null), "entry 2: it is no object"),
        (json!([[]]), "entry 2: it is no object"),
        (json!(["x", "UMS 7", "1", "", [file("a")], null]), "entry 2: it is no object"),
        (with("id", None), "entry 2: it has no id"),
        (with("id", Some(json!(7))), "entry 2: id is \"7\", not a text"),
        (with("id", Some(json!("a b"))), "entry 2 (\"a b\"): id must be"),
        (with("id", long(129)), "id must be"),
        (with("model", None), "entry 2 (\"x\"): it has no model"),
        (with("model", Some(json!(""))), "model is"),
        (with("model", Some(json!("a\u{202e}b"))), "model is \"a\\u{202e}b\""),
        (with("model", long(129)), "model is"),
        (with("model", Some(json!(" a"))), "model is \" a\""),
        (with("version", Some(json!("1 "))), "version is \"1 \""),
        (with("version", Some(json!("1\n2"))), "version is \"1\\n2\""),
        (with("version", long(65)), "version is"),
        (with("version", Some(json!(1.5))), "version is \"1.5\", not a text"),
        (with("release_notes", long((16 << 10) + 1)), "release_notes has more than 16 KiB"),
        (with("release_notes", Some(json!([]))), "release_notes is"),
        (with("signature", Some(json!(1))), "signature is"),
        (with("files", None), "it has no files"),
        (with("files", Some(json!([]))), "it has no files"),
        (with("files", Some(json!({}))), "files is no list"),
        (with("files", Some(json!(vec![file("a"); 1_001]))), "it has more than 1000 files"),
        (with("files", Some(json!([7]))), "files[0] is no object"),
        (with("files", Some(json!([file("a"), file("a")]))), "files[1].path: the name is there twice"),
        (with("files", Some(json!([file("a"), file("A")]))), "files[1].path: some server could not"),
        (with("files", Some(json!([file("a/b"), file("a")]))), "is a file and a directory"),
        (with_file("path", None), "it has no files[1].path"),
        (with_file("path", Some(json!("../x"))), "files[1].path is \"../x\": no component may be"),
        (with_file("path", Some(json!("/etc/passwd"))), "a path is relative"),
        (with_file("path", Some(json!("a\\b"))), "are not allowed"),
        (with_file("path", Some(json!(".lockstep/x"))), "are reserved"),
        (with_file("uri", Some(json!("ftp://x/y"))), "files[1].uri: its scheme is \"ftp\""),
        (with_file("uri", Some(json!("https://me:secret@x/y"))), "files[1].uri: it has a user"),
        (with_file("uri", Some(json!("https://["))), "files[1].uri: it is no absolute address"),
        (with_file("uri", long(3_000)), "files[1].uri: it has more than"),
        (with_file("size_bytes", Some(json!(-1))), "files[1].size_bytes is \"-1\""),
        (with_file("size_bytes", Some(json!(1.5))), "files[1].size_bytes is \"1.5\""),
        (with_file("size_bytes", Some(json!("7"))), "not a number of bytes"),
        (with_file("size_bytes", Some(json!((64_u64 << 30) + 1))), "is more than 64 GiB"),
        (with_file("sha256", Some(json!(DIGEST.to_uppercase()))), "files[1].sha256 is"),
        (with_file("sha256", Some(json!("00"))), "expected 64 lowercase"),
    ];
    for (wrong, part) in cases {
        let feed = read(&[entry("before"), wrong, entry("after")]);
        assert_eq!((feed.entries.len(), feed.malformed_count), (2, 1), "{part}");
        let Malformed { reason, message } = &feed.malformed[0];
        assert_eq!(*reason, Reason::FeedInvalid);
        assert!(message.contains(part), "{part} is missing in {message}");
        assert!(!message.contains("secret") && message.chars().count() <= MESSAGE_CHARS_MAX, "{message}");
    }
    let twice = read(&[entry("a"), with("id", Some(json!("a"))), entry("b")]);
    assert_eq!(twice.malformed[0].message, "entry 2 (\"a\"): an earlier entry has the same id");
    assert_eq!(twice.entries.len(), 2);
}

/// R56: neither text that is no text, nor a key that is there twice, nor depth hides another entry.
#[test]
fn what_is_no_text_is_one_entrys_mistake() {
    let good = serde_json::to_string(&entry("good")).expect("JSON");
    let deep = "[".repeat(50_000) + &"]".repeat(50_000);
    for wrong in [
        &b"{\"id\":\"\xff\"}"[..],
        br#"{"id":"\ud800"}"#,
        br#"{"id":"a","id":"b"}"#,
        format!("{{\"id\":\"x\",\"files\":{deep}}}").as_bytes(),
        deep.as_bytes(),
    ] {
        let mut bytes = br#"{"format":1,"entries":["#.to_vec();
        bytes.extend_from_slice(wrong);
        bytes.extend_from_slice(format!(",{good}]}}").as_bytes());
        let feed = parse(&bytes, &base(), None).expect("a feed");
        assert_eq!((feed.entries.len(), feed.malformed_count), (1, 1));
    }
}

/// R56: what is no feed at all is told as that.
#[test]
fn what_is_no_feed_is_refused() {
    let many = vec![json!(0); ENTRIES_MAX + 1];
    let large = vec![b' '; FEED_BYTES_MAX + 1];
    for (bytes, part) in [
        (&b""[..], "no JSON"),
        (b"<html>", "no JSON"),
        (b"{\"format\":1,\"entries\":[", "no JSON"),
        (b"[]", "no JSON"),
        (b"[1,[]]", "no JSON"),
        (b"{\"entries\":[]}", "has no format"),
        (b"{\"format\":2,\"entries\":[]}", "its format is 2"),
        (b"{\"format\":1}", "has no entries"),
        (b"{\"format\":1,\"entries\":{}}", "no JSON"),
        (&feed(&many), "more than 10000 entries"),
        (&large, "more than 16 MiB"),
    ] {
        let rule = parse(bytes, &base(), None).expect_err("refused");
        assert!(rule.contains(part), "{part} is missing in {rule}");
    }
    assert_eq!(parse(b"\xef\xbb\xbf{\"format\":1,\"entries\":[]}", &base(), None), Ok(Feed::default()));
}

/// R58: where the source has a key, only what that signed is offered, whoever else signed it.
#[test]
fn signatures_are_verified_where_there_is_a_key() {
    let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
    let signed_by = |mut entry: Value, seed: u8| {
        let text = canonical_text(&read(&[entry.clone()]).entries[0]);
        entry["signature"] = json!(base64(pair(seed).sign(text.as_bytes()).as_ref()));
        entry
    };
    let key: [u8; 32] = pair(1).public_key().as_ref().try_into().expect("32 bytes");
    let mut changed = Vec::new();
    for (pointer, value) in [
        ("/model", json!("other")),
        ("/version", json!("1.2.4")),
        ("/release_notes", json!("")),
        ("/files/0/path", json!("os/c.img")),
        ("/files/0/size_bytes", json!(8)),
        ("/files/0/sha256", json!("0".repeat(64))),
        ("/signature", json!("AAAA")),
        ("/signature", json!("!")),
    ] {
        let mut entry = signed_by(entry(&format!("c{}", changed.len())), 1);
        *entry.pointer_mut(pointer).expect("there") = value;
        changed.push(entry);
    }
    let mut mirrored = signed_by(entry("mirrored"), 1);
    mirrored["files"][0]["uri"] = json!("https://mirror.example/b.img");
    let entries =
        [vec![signed_by(entry("good"), 1), mirrored, signed_by(entry("foreign"), 2), entry("bare")], changed];
    let entries = entries.concat();
    let feed = parse(&feed(&entries), &base(), Some(&key)).expect("a feed");
    let ids: Vec<&str> = feed.entries.iter().map(|entry| entry.offer_id.as_str()).collect();
    assert_eq!(ids, ["good", "mirrored"]);
    assert_eq!(feed.malformed_count, 10);
    assert!(feed.malformed.iter().all(|wrong| wrong.reason == Reason::SignatureInvalid));
    assert_eq!(read(&entries).entries.len(), entries.len());
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

/// The text that the README of this service shows.
#[test]
fn the_signed_text_is_as_documented() {
    let text = canonical_text(&read(&[entry("a-1")]).entries[0]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["lockstep feed entry 1", "id: a-1", "model: UMS 7", "version: 1.2.3"]);
    assert!(lines[4].starts_with("release_notes_sha256: ") && lines[4].len() == 22 + 64);
    assert_eq!(lines[5..], [format!("file: 7 {DIGEST} os/a.img"), format!("file: 7 {DIGEST} os/b.img")]);
    assert!(text.ends_with('\n'));
}

/// R56: malformed entries are counted, and the first of them named.
#[test]
fn malformed_entries_are_bounded() {
    let feed = read(&vec![json!({}); 150]);
    assert_eq!((feed.malformed_count, feed.malformed.len()), (150, MALFORMED_MAX));
}

proptest! {
    /// R56: whatever bytes come, there is an answer, and what is offered keeps its bounds.
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes, &base(), None);
    }

    /// R56: a feed with bytes flipped in one entry keeps the others, or is no JSON.
    #[test]
    fn flipped_bytes_hide_no_other_entry(at in 0_usize..400, byte in any::<u8>()) {
        let mut bytes = feed(&[entry("a"), entry("b"), entry("c")]);
        let start = br#"{"entries":["#.len();
        let length = serde_json::to_vec(&entry("a")).expect("JSON").len();
        let at = start + at % length;
        bytes[at] = byte;
        if let Ok(feed) = parse(&bytes, &base(), None) {
            let others = feed.entries.iter().filter(|entry| entry.offer_id != "a").count() as u64;
            prop_assert!(others >= 2 || feed.malformed_count > 0, "{feed:?}");
        }
    }
}
