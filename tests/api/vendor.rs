//! Vendors as they are: slow, cut off, lying, changing, and leading astray. The server is a process of its own, with real TLS.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use catalog::{
    adapters::vendor_https::{HttpsVendor, Limits, Resolve, SystemResolver},
    domain::sources,
    ports::{FeedFile, Fetched, Vendor as _, VendorError},
};
use lockstep_model::{Fault as _, Reason};
use lockstep_tests::harness::{
    Vendor, content,
    vendor::{feed, offer, sha256},
    wait,
};
use serde_json::json;
use tokio_stream::StreamExt as _;

/// What no answer of a vendor may carry to a caller: the server puts it into every error.
const SECRET: &str = "the-inside-of-the-vendor";
/// Some key that signed nothing.
const KEY: &str = "3qZKQNJzT5JxZ2cVpvh73LKBGPvEOSs51hprCdNWZ0k=";
/// Long enough for this machine, and short enough to be waited for.
const BRIEF: Duration = Duration::from_secs(1);

fn opened(text: &str) -> HttpsVendor {
    with_limits(text, Limits::default())
}

fn with_limits(text: &str, limits: Limits) -> HttpsVendor {
    with_resolver(text, SystemResolver, limits)
}

fn with_resolver<R: Resolve>(text: &str, resolver: R, limits: Limits) -> HttpsVendor<R> {
    HttpsVendor::with(sources::parse(text).expect("valid"), resolver, limits).expect("its files are there")
}

/// A vendor with one source, whose feed is nowhere.
async fn one() -> (Vendor, HttpsVendor) {
    let server = Vendor::start().await;
    let vendor = opened(&server.source("v", "feed.json"));
    (server, vendor)
}

fn file_at(uri: String, bytes: &[u8]) -> FeedFile {
    FeedFile { name: "a".to_owned(), uri, size_bytes: bytes.len() as u64, sha256: sha256(bytes) }
}

/// All that comes, and how it ends.
async fn read(fetched: &mut Fetched) -> (Vec<u8>, Result<(), VendorError>) {
    let mut bytes = Vec::new();
    while let Some(piece) = fetched.body.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => return (bytes, Err(error)),
        }
    }
    (bytes, Ok(()))
}

/// How a whole download ends, whether at its head or in its body.
async fn outcome<R: Resolve>(vendor: &HttpsVendor<R>, file: &FeedFile) -> Result<Vec<u8>, VendorError> {
    let mut fetched = vendor.fetch("v".to_owned(), file.clone(), 0, String::new()).await?;
    let (bytes, end) = read(&mut fetched).await;
    end.map(|()| bytes)
}

fn assert_unreachable<T: std::fmt::Debug>(outcome: Result<T, VendorError>, part: &str) {
    let Err(error @ VendorError::Unreachable { .. }) = outcome else {
        panic!("{part}: {outcome:?}");
    };
    assert_eq!(error.reason(), Reason::VendorUnreachable);
    let text = error.to_string();
    assert!(text.contains(part) && !text.contains(SECRET), "{part} is missing in {text}");
}

fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, VendorError>, part: &str) {
    let Err(error @ VendorError::AddressRefused { .. }) = outcome else {
        panic!("{part}: {outcome:?}");
    };
    assert_eq!(error.reason(), Reason::AddressRefused);
    let text = error.to_string();
    assert!(text.contains(part) && !text.contains(SECRET), "{part} is missing in {text}");
}

fn assert_mismatch<T: std::fmt::Debug>(outcome: Result<T, VendorError>, at_least: u64) {
    let Err(VendorError::SizeMismatch { actual, .. }) = outcome else {
        panic!("{at_least}: {outcome:?}");
    };
    assert!(actual >= at_least, "{actual} of {at_least}");
}

/// R55, R56: a feed of 2,000 entries, every twentieth malformed, gives all the others; what did not change is not sent again.
#[tokio::test]
async fn a_feed_gives_its_offers_whatever_else_is_in_it() {
    let (server, vendor) = one().await;
    let entry = |index: usize| match index % 20 {
        7 => json!({ "id": format!("o{index}"), "model": 7 }),
        _ => {
            offer(&format!("o{index}"), "UMS 7", &format!("1.{index}"), &[("os/a.img", "files/a.img", b"x")])
        }
    };
    let entries: Vec<_> = (0..2_000).map(entry).collect();
    server.put("feed.json", &feed(&entries));
    let first = vendor.check("v".to_owned()).await.expect("a feed");
    assert_eq!((first.entries.len(), first.malformed_count, first.malformed.len()), (1_900, 100, 100));
    assert!(first.malformed[0].message.starts_with("entry 8 (\"o7\"): "), "{:?}", first.malformed[0]);
    assert_eq!(first.entries[0].files[0].uri, server.uri("files/a.img"));
    assert_eq!(vendor.check("v".to_owned()).await.as_ref(), Ok(&first));
    assert!(server.requests()[1].contains("if-none-match=\""), "{:?}", server.requests());
    assert!(server.requests()[1].contains("if-modified-since="), "{:?}", server.requests());
    server.put("feed.json", &feed(&entries[..10]));
    let second = vendor.check("v".to_owned()).await.expect("a feed");
    assert_eq!((second.entries.len(), second.malformed_count), (9, 1));
    let unknown = vendor.check("other".to_owned()).await.expect_err("no such source");
    assert_eq!(unknown.reason(), Reason::FirmwareNotFound);
    let keyed = format!("{}public_key = \"{KEY}\"\n", server.source("v", "feed.json"));
    let unsigned = opened(&keyed).check("v".to_owned()).await.expect("a feed");
    assert_eq!((unsigned.entries.len(), unsigned.malformed_count), (0, 10));
    assert_eq!(unsigned.malformed[0].reason, Reason::SignatureInvalid);
}

/// R55, R56: a feed that does not come, or is none, is told as that, and never with words of the vendor.
#[tokio::test]
async fn feeds_that_do_not_come_are_told() {
    let server = Vendor::start().await;
    let one = feed(&[offer("o", "m", "1", &[("a", "../files/a", b"x")])]);
    server.put("feed.json", &one);
    server.put("page.html", b"<html>");
    server.put("later.json", b"{\"format\":2,\"entries\":[]}");
    std::fs::write(server.directory().join("large.json"), vec![b' '; (16 << 20) + 1]).expect("written");
    let limits = Limits { feed: BRIEF * 2, header: BRIEF, ..Limits::default() };
    let check =
        async |path: &str, limits| with_limits(&server.source("v", path), limits).check("v".to_owned()).await;
    for path in [
        "chunked/feed.json",
        "nolength/feed.json",
        "weak/feed.json",
        "notag/feed.json",
        "redirect/3/feed.json",
    ] {
        let feed = check(path, Limits::default()).await.expect(path);
        assert_eq!(feed.entries.len(), 1, "{path}");
    }
    let deep = check("redirect/1/plain/feed.json", Limits::default()).await.expect("a feed");
    assert_eq!(deep.entries[0].files[0].uri, server.uri("redirect/0/files/a"));
    for (path, part) in [
        ("status/500/feed.json", "status 500"),
        ("status/304/feed.json", "status 304"),
        ("status/206/feed.json", "status 206"),
        ("missing.json", "status 404"),
        ("gzip/feed.json", "compressed"),
        ("cut/10/feed.json", "the connection broke after 10 bytes"),
        ("cut/10/chunked/feed.json", "the connection broke after 10 bytes"),
        ("cut/10/nolength/feed.json", "the connection broke after 10 bytes"),
        ("redirect/4/feed.json", "more than 3 redirects"),
    ] {
        assert_unreachable(check(path, Limits::default()).await, part);
    }
    for (path, part) in [
        ("silent/feed.json", "no answer within"),
        ("slow/20/feed.json", "not complete within"),
        ("stall/5/feed.json", "not complete within"),
    ] {
        assert_unreachable(check(path, limits).await, part);
    }
    for (path, part) in [
        ("page.html", "no JSON"),
        ("later.json", "its format is 2"),
        ("large.json", "more than 16 MiB"),
        ("nolength/large.json", "more than 16 MiB"),
        ("endless/feed.json", "more than 16 MiB"),
    ] {
        let outcome = check(path, Limits::default()).await;
        let Err(VendorError::FeedInvalid { rule, .. }) = &outcome else { panic!("{path}: {outcome:?}") };
        assert!(rule.contains(part), "{path}: {rule}");
    }
}

/// R58: a download goes on where it stopped, and only while the vendor has the same.
#[tokio::test]
async fn downloads_go_on_where_they_stopped() {
    let (server, vendor) = one().await;
    let bytes = content("1", 300_000);
    server.put("a.img", &bytes);
    let fetch = async |path: &str, offset: usize, validator: &str| {
        let file = file_at(server.uri(path), &bytes);
        vendor.fetch("v".to_owned(), file, offset as u64, validator.to_owned()).await
    };
    let mut whole = fetch("plain/a.img", 0, "").await.expect("it is there");
    let validator = whole.validator.clone();
    assert!(validator.starts_with('"'), "{validator}");
    assert_eq!((whole.offset_bytes, read(&mut whole).await), (0, (bytes.clone(), Ok(()))));
    for (path, given, offset) in [
        ("plain/a.img", validator.as_str(), 100_000),
        ("plain/a.img", "", 100_000),
        ("plain/a.img", "\"other\"", 0),
        ("plain/a.img", "not\na header", 100_000),
        ("notag/a.img", "", 100_000),
        ("norange/a.img", &validator, 0),
        ("stubborn/a.img", &validator, 100_000),
        ("stubborn/a.img", "\"other\"", 0),
        ("stubborn/a.img", "Mon, 02 Nov 2026 00:00:00 GMT", 0),
        ("weak/a.img", &validator, 0),
        ("shifted/a.img", &validator, 0),
    ] {
        let mut rest = fetch(path, 100_000, given).await.expect(path);
        assert_eq!(rest.offset_bytes, offset, "{path} with {given:?}");
        let (read, end) = read(&mut rest).await;
        assert_eq!(end, Ok(()), "{path}");
        assert!(read == bytes[usize::try_from(offset).expect("small")..], "{path} with {given:?}");
    }
    let asked = format!(" range=bytes=100000-299999 if-range={validator} ");
    assert!(server.requests().iter().any(|line| line.contains(&asked)), "{:?}", server.requests());
    let mut nothing = fetch("plain/a.img", bytes.len(), &validator).await.expect("nothing is left");
    assert_eq!((nothing.offset_bytes, read(&mut nothing).await), (300_000, (Vec::new(), Ok(()))));
    // Cut off after every 70,000 bytes.
    let mut held = Vec::new();
    let mut rounds = 0;
    let mut named = String::new();
    while held.len() < bytes.len() {
        let mut part = fetch("cut/70000/a.img", held.len(), &named).await.expect("a part");
        assert_eq!(part.offset_bytes, held.len() as u64);
        named.clone_from(&part.validator);
        let (read, end) = read(&mut part).await;
        held.extend_from_slice(&read);
        rounds += 1;
        if held.len() < bytes.len() {
            assert_unreachable(end, "the connection broke after 70000 bytes");
        }
    }
    assert!(held == bytes && rounds == 5, "{rounds}");
}

/// R58: a vendor that is killed in the middle and comes back is gone on with.
#[tokio::test]
async fn a_vendor_that_dies_is_gone_on_with() {
    let (mut server, vendor) = one().await;
    let bytes = content("2", 200_000);
    server.put("a.img", &bytes);
    let file = file_at(server.uri("slow/400000/a.img"), &bytes);
    let mut first = vendor.fetch("v".to_owned(), file.clone(), 0, String::new()).await.expect("it begins");
    let mut held = first.body.next().await.expect("bytes").expect("some").to_vec();
    server.kill();
    let (more, end) = read(&mut first).await;
    held.extend_from_slice(&more);
    assert_unreachable(end, "the connection broke");
    let offset = held.len() as u64;
    assert_unreachable(
        vendor.fetch("v".to_owned(), file.clone(), offset, String::new()).await.map(drop),
        "no connection",
    );
    server.start_again().await;
    let mut rest = vendor.fetch("v".to_owned(), file, offset, first.validator).await.expect("it goes on");
    assert_eq!(rest.offset_bytes, offset);
    held.extend_from_slice(&read(&mut rest).await.0);
    assert!(held == bytes);
}

/// R58: what changed in mid-download begins anew, and what is not what the feed says ends.
#[tokio::test]
async fn what_changes_in_mid_download_is_never_mixed() {
    let (server, vendor) = one().await;
    let bytes = content("3", 100_000);
    server.put("a.img", &bytes);
    let begin = async |path: &str| {
        let file = file_at(server.uri(path), &bytes);
        let mut first =
            vendor.fetch("v".to_owned(), file.clone(), 0, String::new()).await.expect("it begins");
        let (held, end) = read(&mut first).await;
        assert_unreachable(end, "after 5000 bytes");
        assert_eq!(held.len(), 5_000);
        vendor.fetch("v".to_owned(), file, 5_000, first.validator).await
    };
    let mut other = begin("changing/5000/a.img").await.expect("it has the same size");
    assert_eq!(other.offset_bytes, 0, "another version begins anew");
    let (read, end) = read(&mut other).await;
    assert_eq!((end, read.len(), read[0]), (Ok(()), bytes.len(), !bytes[0]));
    assert_eq!(begin("stubborn/changing/5000/a.img").await.expect("the same size").offset_bytes, 0);
    assert_mismatch(begin("growing/5000/a.img").await.map(drop), 100_001);
    server.put("a.img", &bytes[..100]);
    let file = file_at(server.uri("plain/a.img"), &bytes);
    let shrunk = vendor.fetch("v".to_owned(), file, 5_000, String::new()).await;
    let Err(VendorError::SizeMismatch { actual: 100, .. }) = shrunk.map(drop) else { panic!("it shrank") };
}

/// R58: lies about sizes are found before anything is believed, and nothing is read without an end.
#[tokio::test]
async fn lies_about_sizes_are_found() {
    let (server, vendor) = one().await;
    let bytes = content("4", 50_000);
    server.put("a.img", &bytes);
    let fetch = async |path: &str| outcome(&vendor, &file_at(server.uri(path), &bytes)).await;
    for path in ["chunked/a.img", "nolength/a.img", "plain/a.img"] {
        assert!(fetch(path).await.expect(path) == bytes, "{path}");
    }
    assert_mismatch(fetch("short/1/a.img").await, 49_999);
    assert_mismatch(fetch("short/1/chunked/a.img").await, 49_999);
    assert_unreachable(fetch("short/1/nolength/a.img").await, "it ended after 49999 of 50000 bytes");
    assert_mismatch(fetch("long/1/a.img").await, 50_001);
    assert_mismatch(fetch("long/1/chunked/a.img").await, 50_001);
    assert_mismatch(fetch("long/1/nolength/a.img").await, 50_001);
    assert_mismatch(fetch("endless/a.img").await, 50_001);
    assert_mismatch(fetch("endless/chunked/a.img").await, 50_001);
    assert_unreachable(fetch("gzip/a.img").await, "compressed");
    assert_unreachable(fetch("status/503/a.img").await, "status 503");
    assert!(server.requests().iter().all(|line| line.ends_with(" accept-encoding=identity")));
    server.put("none", b"");
    let none = file_at(server.uri("none"), b"");
    assert_eq!(outcome(&vendor, &none).await, Ok(Vec::new()));
}

/// R58: nobody is waited for without an end; whoever sends a little all the time may take long.
#[tokio::test]
async fn silence_has_an_end() {
    let server = Vendor::start().await;
    let bytes = content("5", 40_000);
    server.put("a.img", &bytes);
    let limits = Limits { connect: BRIEF, header: BRIEF, idle: BRIEF, ..Limits::default() };
    let vendor = with_limits(&server.source("v", "feed.json"), limits);
    let begun = Instant::now();
    assert_unreachable(
        outcome(&vendor, &file_at(server.uri("silent/a.img"), &bytes)).await,
        "no answer within",
    );
    assert_unreachable(
        outcome(&vendor, &file_at(server.uri("stall/9/a.img"), &bytes)).await,
        "nothing came for",
    );
    let stuck = Rebinding::to(&[&[]]).stuck();
    let stuck = with_resolver(&server.source("v", "feed.json"), stuck, limits);
    assert_unreachable(outcome(&stuck, &file_at(server.uri("a.img"), &bytes)).await, "no connection within");
    let took = begun.elapsed();
    assert!((BRIEF * 3..BRIEF * 20).contains(&took), "each had its time, and no more: {took:?}");
    // It takes longer than the silence that is allowed.
    let (slow, begun) = (file_at(server.uri("slow/20000/a.img"), &bytes), Instant::now());
    assert_eq!(outcome(&vendor, &slow).await.map(|read| read.len()), Ok(40_000));
    assert!(begun.elapsed() > BRIEF);
    // Whoever reads slowly is not the vendor's fault.
    let mut fetched = vendor
        .fetch("v".to_owned(), file_at(server.uri("a.img"), &bytes), 0, String::new())
        .await
        .expect("it is there");
    let first = fetched.body.next().await.expect("bytes").expect("some").len();
    let pause = Instant::now();
    wait::until("the patience with a vendor is over", BRIEF * 9, || async {
        if pause.elapsed() > BRIEF * 2 { Ok(()) } else { Err("not yet") }
    })
    .await;
    let (rest, end) = read(&mut fetched).await;
    assert_eq!((first + rest.len(), end), (40_000, Ok(())));
}

/// R58: no redirect leads where the source may not go, or away from encryption.
#[tokio::test]
async fn redirects_are_held_to_the_rules() {
    let server = Vendor::start().await;
    let bytes = content("6", 1_000);
    server.put("a.img", &bytes);
    let port = server.port();
    let text = format!(
        "{}http = \"allowed\"\n",
        server.source("v", "feed.json").replace(
            &format!("ports = [{port}]"),
            &format!("ports = [443, 80, {port}, {}]", server.http_port())
        )
    );
    let vendor = opened(&text);
    let follow =
        async |to: &str| outcome(&vendor, &file_at(server.uri(&Vendor::redirect_to(to)), &bytes)).await;
    assert_eq!(follow(&server.uri("a.img")).await, Ok(bytes.clone()));
    assert_eq!(follow("/redirect/2/a.img").await, Ok(bytes.clone()));
    assert_unreachable(follow("/redirect/3/a.img").await, "more than 3 redirects");
    for (to, part) in [
        (server.http_uri("a.img"), "from https to http"),
        (format!("https://127.0.0.1:{port}/a.img"), "127.0.0.1 is loopback, and 127.0.0.1 is not among"),
        (format!("https://[::1]:{port}/a.img"), "::1 is loopback"),
        (format!("https://[::ffff:127.0.0.1]:{port}/a.img"), "is loopback"),
        (format!("https://2130706433:{port}/a.img"), "127.0.0.1 is loopback"),
        ("https://10.0.0.1/x".to_owned(), "10.0.0.1 is private"),
        ("https://192.168.0.1/x".to_owned(), "is private"),
        ("https://169.254.169.254/latest/meta-data".to_owned(), "is cloud metadata"),
        ("https://[64:ff9b::a00:1]/x".to_owned(), "is private"),
        ("https://[fd00:ec2::254]/x".to_owned(), "is cloud metadata"),
        ("https://localhost:22/x".to_owned(), "port 22 is not among"),
        ("ftp://localhost/x".to_owned(), "its scheme is \"ftp\""),
        ("file:///etc/passwd".to_owned(), "its scheme is \"file\""),
        (format!("https://me:{SECRET}@localhost:{port}/"), "a user or a password"),
        ("https://[".to_owned(), "no absolute address"),
    ] {
        assert_refused(follow(&to).await, part);
    }
    // Where http is allowed, it may be asked, and may lead to https.
    let plain = file_at(server.http_uri("a.img"), &bytes);
    assert_refused(outcome(&vendor, &plain).await, "is loopback, and localhost is not among");
    let both = text.replace(&format!("[\"localhost:{port}\"]"), "[\"localhost\"]");
    let vendor = opened(&both);
    assert_eq!(outcome(&vendor, &plain).await, Ok(bytes.clone()));
    let upwards = file_at(server.http_uri(&Vendor::redirect_to(&server.uri("a.img"))), &bytes);
    assert_eq!(outcome(&vendor, &upwards).await, Ok(bytes.clone()));
    let strict = opened(&server.source("v", "feed.json"));
    assert_refused(outcome(&strict, &plain).await, "its scheme is http");
}

/// R58: what a name resolves to is checked as a whole, once, and that is what is connected to; the certificate is still for
/// the name.
#[tokio::test]
async fn names_lead_only_where_they_were_checked() {
    let server = Vendor::start().await;
    let bytes = content("7", 1_000);
    server.put("a.img", &bytes);
    let port = server.port();
    let limits = Limits { connect: Duration::from_secs(5), ..Limits::default() };
    let text = server.source("v", "feed.json").replace(
        &format!("\"localhost:{port}\""),
        &format!("\"localhost:{port}\", \"vendor.test\", \"other.example\""),
    );
    let at = |host: &str| file_at(format!("https://{host}:{port}/a.img"), &bytes);
    let asked = async |resolver: &Rebinding, host: &str| {
        outcome(&with_resolver(&text, resolver.clone(), limits), &at(host)).await
    };
    // Nobody is at 2d00::1: the network is given to nobody.
    let rebinding = Rebinding::to(&[&["2d00::1"], &["127.0.0.1"]]);
    assert_unreachable(asked(&rebinding, "a.vendor.test").await, "no connection");
    assert_eq!(rebinding.count(), 1, "resolved once");
    assert_refused(asked(&rebinding, "a.vendor.test").await, "127.0.0.1 is loopback");
    for hostile in [
        &["127.0.0.1"][..],
        &["2d00::1", "127.0.0.1"],
        &["2d00::1", "2d00::2", "::ffff:10.0.0.1"],
        &["::1"],
        &["64:ff9b::7f00:1"],
        &["2002:7f00:1::"],
        &["fd00::1"],
        &["169.254.169.254"],
        &["0.0.0.0"],
        &["::"],
    ] {
        assert_refused(
            asked(&Rebinding::to(&[hostile]), "a.vendor.test").await,
            "is not among the allow_hosts",
        );
    }
    assert_unreachable(asked(&Rebinding::to(&[&[]]), "a.vendor.test").await, "no address");
    assert_eq!(server.requests(), [""; 0], "nothing was asked");
    assert_eq!(asked(&Rebinding::to(&[&["127.0.0.1"]]), "vendor.test").await, Ok(bytes.clone()));
    assert_unreachable(asked(&Rebinding::to(&[&["127.0.0.1"]]), "other.example").await, "for another name");
    assert_eq!(server.requests().len(), 1);
    // A redirect is resolved and checked anew.
    let away = format!("https://a.vendor.test:{port}/a.img");
    let redirect = file_at(server.uri(&Vendor::redirect_to(&away)), &bytes);
    let resolver = Rebinding::to(&[&["127.0.0.1"]]);
    let vendor = with_resolver(&text, resolver.clone(), limits);
    assert_refused(outcome(&vendor, &redirect).await, "a.vendor.test is not among the allow_hosts");
    assert_eq!(resolver.count(), 2);
}

/// R58: loopback needs its entry in the allow-list, and a certificate needs a CA that is believed.
#[tokio::test]
async fn nothing_is_believed_that_the_source_does_not_say() {
    let server = Vendor::start().await;
    server.put("feed.json", &feed(&[]));
    let full = server.source("v", "feed.json");
    let without = |key: &str| {
        let lines = full.lines().filter(|line| !line.starts_with(key));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(opened(&full).check("v".to_owned()).await.map(|feed| feed.entries.len()), Ok(0));
    assert_refused(opened(&without("allow_hosts")).check("v".to_owned()).await, "is loopback");
    assert_unreachable(opened(&without("ca_file")).check("v".to_owned()).await, "no CA that is believed");
    let missing = sources::parse(&full.replace("ca.pem", "none.pem")).expect("its form is fine");
    let problem = HttpsVendor::with(missing, SystemResolver, Limits::default()).err().expect("refused");
    assert!(problem.to_string().contains("source v: ca_file"), "{problem}");
    let file = server.sources_file(&[("v", "feed.json"), ("w", "feed.json")]);
    let both = HttpsVendor::open(&file).expect("a file of sources");
    assert_eq!(both.sources().into_keys().collect::<Vec<_>>(), ["v", "w"]);
    assert!(HttpsVendor::none().sources().is_empty());
}

/// A resolver that gives one answer after the other, the last one for ever.
#[derive(Clone)]
struct Rebinding {
    answers: Arc<Mutex<Vec<Vec<IpAddr>>>>,
    asked: Arc<AtomicUsize>,
    is_stuck: bool,
}

impl Rebinding {
    fn to(answers: &[&[&str]]) -> Self {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().expect(text)).collect();
        let answers = answers.iter().rev().map(parse).collect();
        Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default(), is_stuck: false }
    }

    fn stuck(self) -> Self {
        Self { is_stuck: true, ..self }
    }

    fn count(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Resolve for Rebinding {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        if self.is_stuck {
            return std::future::pending().await;
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().expect("nobody panics");
        if answers.len() > 1 { Ok(answers.pop().expect("some")) } else { Ok(answers[0].clone()) }
    }
}
