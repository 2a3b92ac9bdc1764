//! Firmware updates from outside: offered by a real vendor, downloaded into real servers, placed, edited, imported, deleted.

use std::{fs, time::Duration};

use bytes::Bytes;
use lockstep_model::Reason;
use lockstep_proto::catalog::v1::{
    CancelDownloadRequest, DeleteFirmwareRequest, DeleteUnusedFirmwareRequest, Firmware, FirmwareChunk,
    FirmwareHeader, GetFirmwareRequest, GetSettingsRequest, ListFirmwareRequest, ListOffersRequest, Protocol,
    RefreshOffersRequest, RestoreDownloadRequest, Settings, StartDownloadRequest, UpdateFirmwareRequest,
    UpdateSettingsRequest, WatchFirmwareRequest, WriteFirmwareRequest, firmware,
    settings::FirmwareSynchronization, write_firmware_request::Part,
};
use lockstep_proto::{
    gateway::v1::{ListFirmwareRowsRequest, cell},
    resolver::v1::{ResolveConnectionRequest, resolve_connection_request::Subject},
};
use lockstep_tests::harness::{
    Vendor, content,
    vendor::{feed, offer, zip_of},
};
use prost_types::FieldMask;
use serde_json::Value;
use tokio_stream::StreamExt as _;
use tonic::Status;

use crate::{
    mesh::{Caller, Mesh, Options, SOON, eventually, uuid},
    refusal::refused,
};

/// Long enough for a download of some mebibytes on a busy machine.
const DOWNLOADED: Duration = SOON;

/// An installation whose catalog has one source, `acme`, with these entries.
async fn with_offers(servers: usize, entries: &[Value]) -> (Mesh, Vendor) {
    let mut mesh = Mesh::new(servers).await;
    let vendor = Vendor::start().await;
    vendor.put("feed.json", &feed(entries));
    mesh.start_catalog(Some(vendor.sources_file(&[("acme", "plain/feed.json")]))).await;
    (mesh, vendor)
}

/// A source that serves a file as `how`, and the entry of a feed for it.
fn entry(vendor: &Vendor, id: &str, how: &str, path: &str, bytes: &[u8]) -> Value {
    vendor.put(&format!("{id}.bin"), bytes);
    offer(id, "UD3", "11.1", &[(path, &vendor.uri(&format!("{how}/{id}.bin")), bytes)])
}

fn begin(offer_id: &str, server: &str, target: &str) -> StartDownloadRequest {
    StartDownloadRequest {
        source_id: "acme".into(),
        offer_id: offer_id.into(),
        server_id: server.into(),
        target_path: target.into(),
        protocol: Protocol::HttpsWebdav.into(),
        request_id: uuid(),
    }
}

async fn start(caller: &Caller, request: StartDownloadRequest) -> Result<Firmware, Status> {
    Ok(caller.firmware().start_download(request).await?.into_inner().firmware.expect("an update"))
}

async fn get(caller: &Caller, id: &str) -> Result<Firmware, Status> {
    let request = GetFirmwareRequest { firmware_id: id.into() };
    Ok(caller.firmware().get_firmware(request).await?.into_inner().firmware.expect("an update"))
}

async fn reaches(caller: &Caller, id: &str, state: firmware::State) -> Firmware {
    let limit = tokio::time::Instant::now() + DOWNLOADED;
    loop {
        let now = get(caller, id).await.expect("it is there");
        if now.state() == state {
            return now;
        }
        assert!(tokio::time::Instant::now() < limit, "not {state:?}: {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_gone(caller: &Caller, id: &str) {
    eventually("the update is gone", async || get(caller, id).await.is_err()).await;
    refused("an update that is gone", get(caller, id).await, Reason::FirmwareNotFound);
}

async fn switch(caller: &Caller, option: FirmwareSynchronization, directories: &[&str]) -> Settings {
    let mut client = caller.settings();
    let before = client.get_settings(GetSettingsRequest {}).await.expect("settings").into_inner().settings;
    let request = UpdateSettingsRequest {
        settings: Some(Settings {
            firmware_synchronization: option.into(),
            webdav_directories: directories.iter().map(|text| (*text).to_owned()).collect(),
            ..Settings::default()
        }),
        update_mask: Some(mask(&["firmware_synchronization", "webdav_directories"])),
        expected_revision: before.expect("settings").revision,
        request_id: uuid(),
    };
    client.update_settings(request).await.expect("changed").into_inner().settings.expect("settings")
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
}

async fn edit(
    caller: &Caller,
    now: &Firmware,
    wanted: Firmware,
    fields: &[&str],
) -> Result<Firmware, Status> {
    let request = UpdateFirmwareRequest {
        firmware: Some(Firmware { firmware_id: now.firmware_id.clone(), ..wanted }),
        update_mask: Some(mask(fields)),
        password: String::new(),
        expected_revision: now.revision,
        request_id: uuid(),
    };
    Ok(caller.firmware().update_firmware(request).await?.into_inner().firmware.expect("an update"))
}

async fn delete(caller: &Caller, now: &Firmware) -> Result<Firmware, Status> {
    let request = DeleteFirmwareRequest {
        firmware_id: now.firmware_id.clone(),
        expected_revision: now.revision,
        request_id: uuid(),
    };
    Ok(caller.firmware().delete_firmware(request).await?.into_inner().firmware.expect("an update"))
}

fn is_on(mesh: &Mesh, server: &str, path: &str) -> bool {
    mesh.transfer(server).join(path).exists()
}

async fn arrives(mesh: &Mesh, server: &str, path: &str) {
    eventually(&format!("{path} on {server}"), async || is_on(mesh, server, path)).await;
}

/// R55, R56, R11: what the vendor offers is listed page by page; malformed entries are told, and hide no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_are_listed_and_malformed_ones_hide_no_other() {
    let mut entries: Vec<Value> =
        (0..30).map(|n| offer(&format!("o{n:02}"), "UD3", "1", &[("a", "a.bin", b"a")])).collect();
    entries[7]["files"][0]["sha256"] = "no digest".into();
    let (mut mesh, vendor) = with_offers(1, &entries).await;
    let caller = mesh.operator("publisher");
    let refresh = RefreshOffersRequest { request_id: uuid(), ..RefreshOffersRequest::default() };
    let answers = caller.firmware().refresh_offers(refresh).await.expect("asked").into_inner().answers;
    assert_eq!((answers.len(), answers[0].offer_count, answers[0].malformed_count), (1, 29, 1));
    assert_eq!(answers[0].malformed[0].reason, "FEED_INVALID");
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            ListOffersRequest { page_size: 10, page_token, model: "UD3".into(), ..Default::default() };
        let page = caller.firmware().list_offers(request).await.expect("lists").into_inner();
        listed.extend(page.offers.into_iter().map(|offer| offer.offer_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed.len(), 29);
    assert!(!listed.contains(&"o07".to_owned()));
    let request = ListOffersRequest { page_token: "00".into(), ..Default::default() };
    refused("a foreign token", caller.firmware().list_offers(request).await, Reason::PageTokenInvalid);
    let request = ListOffersRequest { source_id: "nobody".into(), ..Default::default() };
    refused("an unknown source", caller.firmware().list_offers(request).await, Reason::FirmwareNotFound);

    // A source that signs its entries: one without a signature is not offered.
    let signed = vendor.source("signed", "plain/feed.json");
    let signed = format!("{signed}public_key = \"3qZKQNJzT5JxZ2cVpvh73LKBGPvEOSs51hprCdNWZ0k=\"\n");
    let elsewhere = "[[source]]\nid = \"inside\"\nfeed = \"https://127.0.0.1/feed.json\"\n".to_owned();
    let broken = vendor.source("broken", "plain/broken.json");
    vendor.put("broken.json", b"no feed");
    let file = mesh.path("sources.toml");
    fs::write(&file, [signed, elsewhere, broken].join("")).expect("written");
    mesh.start_catalog(Some(file)).await;
    let caller = mesh.operator("publisher");
    let refresh = RefreshOffersRequest { request_id: uuid(), ..RefreshOffersRequest::default() };
    let answers = caller.firmware().refresh_offers(refresh).await.expect("asked").into_inner().answers;
    let of = |id: &str| answers.iter().find(|answer| answer.source_id == id).expect("an answer");
    assert_eq!(of("signed").malformed[0].reason, "SIGNATURE_INVALID");
    assert_eq!(of("inside").failure.as_ref().map(|failure| failure.reason.as_str()), Some("ADDRESS_REFUSED"));
    let list = |id: &str| ListOffersRequest { source_id: id.into(), ..Default::default() };
    refused("a loopback feed", caller.firmware().list_offers(list("inside")).await, Reason::AddressRefused);
    refused("no feed", caller.firmware().list_offers(list("broken")).await, Reason::FeedInvalid);
}

/// R7, R8, R9, R11, R12, R36, R42: what is downloaded stays on its server while the option is off; it is copied when it is
/// switched on; switched off, or with another protocol, copies stay and no new ones are made; and back again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firmware_is_copied_as_the_settings_say() {
    let (a, b) = (content("a", 3 << 20), content("b", 700));
    let (mesh, vendor) = with_offers(2, &[]).await;
    let entries =
        [entry(&vendor, "os", "plain", "os/a.bin", &a), entry(&vendor, "two", "plain", "b.bin", &b)];
    vendor.put("feed.json", &feed(&entries));
    let caller = mesh.operator("operator");
    let os = start(&caller, begin("os", "s2", "ums/fw")).await.expect("begun");
    let os = reaches(&caller, &os.firmware_id, firmware::State::Published).await;
    assert_eq!(os.not_copied.as_ref().map(|why| why.reason.as_str()), Some("OPTION_OFF"));
    assert_eq!((os.files[0].path.as_str(), os.total_bytes), ("ums/fw/os/a.bin", 3 << 20));
    assert_eq!(fs::read(mesh.transfer("s2").join("ums/fw/os/a.bin")).expect("published"), a);
    let file = caller.get("ums/fw/os/a.bin").await.expect("registered");
    assert_eq!((file.file_id.as_str(), file.origin_server_id.as_str()), (os.files[0].file_id.as_str(), "s2"));
    // Whatever else is registered goes everywhere meanwhile.
    caller.register("s1", "mark", b"mark").await.expect("registered");
    arrives(&mesh, "s2", "mark").await;
    assert!(!is_on(&mesh, "s1", "ums/fw/os/a.bin"));

    let settings = switch(&caller, FirmwareSynchronization::On, &["other"]).await;
    assert!(settings.revision > 0);
    let now = get(&caller, &os.firmware_id).await.expect("there");
    assert_eq!(now.not_copied.map(|why| why.reason), Some("TARGET_NOT_WEBDAV".to_owned()));
    switch(&caller, FirmwareSynchronization::On, &["ums"]).await;
    arrives(&mesh, "s1", "ums/fw/os/a.bin").await;
    assert_eq!(get(&caller, &os.firmware_id).await.expect("there").not_copied, None);

    let now = get(&caller, &os.firmware_id).await.expect("there");
    let away = Firmware { protocol: Protocol::Https.into(), ..Firmware::default() };
    let now = edit(&caller, &now, away, &["protocol"]).await.expect("edited");
    assert_eq!(now.not_copied.as_ref().map(|why| why.reason.as_str()), Some("PROTOCOL_NOT_WEBDAV"));
    eventually("it is meant for its origin", async || {
        let placement = caller.get("ums/fw/os/a.bin").await.expect("there").placement.unwrap_or_default();
        placement.reason == "PROTOCOL_NOT_WEBDAV"
    })
    .await;
    assert!(is_on(&mesh, "s1", "ums/fw/os/a.bin"), "copies stay");
    switch(&caller, FirmwareSynchronization::Off, &["ums"]).await;
    let two = start(&caller, begin("two", "s1", "ums/two")).await.expect("begun");
    reaches(&caller, &two.firmware_id, firmware::State::Published).await;
    caller.register("s2", "mark2", b"mark").await.expect("registered");
    arrives(&mesh, "s1", "mark2").await;
    assert!(!is_on(&mesh, "s2", "ums/two/b.bin"));
    switch(&caller, FirmwareSynchronization::On, &["ums"]).await;
    arrives(&mesh, "s2", "ums/two/b.bin").await;
}

/// R57, R58: each bad wish has its reason, before a byte is asked for, and nothing half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_downloads_are_refused_with_their_reasons() {
    let mut mesh = Mesh::with(vec![
        Options::default(),
        Options { version: "6.01.100", ..Options::default() },
        Options { reserve_bytes: u64::MAX / 4, ..Options::default() },
    ])
    .await;
    let vendor = Vendor::start().await;
    let bytes = content("x", 5_000);
    let inside = offer("inside", "UD3", "1", &[("a.bin", "https://10.0.0.1/a.bin", &bytes)]);
    let slow = entry(&vendor, "slow", "slow/1000", "a.bin", &bytes);
    let os = entry(&vendor, "os", "plain", "a.bin", &bytes);
    let wrong = offer("wrong", "UD3", "1", &[("a.bin", &vendor.uri("plain/slow.bin"), &[7; 5_000])]);
    vendor.put("feed.json", &feed(&[inside, slow, os, wrong]));
    mesh.start_catalog(Some(vendor.sources_file(&[("acme", "plain/feed.json")]))).await;
    let caller = mesh.operator("publisher");
    caller.register("s1", "taken/a.bin", b"mine").await.expect("registered");
    caller.register("s1", "file", b"mine").await.expect("registered");
    let before = mesh.footprint().await;
    let cases = [
        ("no such offer", begin("none", "s1", "fw"), Reason::FirmwareNotFound),
        (
            "no such source",
            StartDownloadRequest { source_id: "x".into(), ..begin("os", "s1", "") },
            Reason::FirmwareNotFound,
        ),
        ("no such server", begin("os", "s9", "fw"), Reason::ServerUnknown),
        ("a server that is too old", begin("os", "s2", "fw"), Reason::ServerNotEligible),
        ("a full disk", begin("os", "s3", "fw"), Reason::DiskFull),
        ("outside", begin("os", "s1", "../x"), Reason::PathInvalid),
        ("absolute", begin("os", "s1", "/etc"), Reason::PathInvalid),
        ("a path that is taken", begin("os", "s1", "taken"), Reason::FileExists),
        ("below a file", begin("os", "s1", "file"), Reason::PathConflict),
        ("in another spelling", begin("os", "s1", "TAKEN"), Reason::PathConflict),
        (
            "no request id",
            StartDownloadRequest { request_id: String::new(), ..begin("os", "s1", "fw") },
            Reason::FieldViolation,
        ),
        (
            "a new protocol",
            StartDownloadRequest { protocol: 99, ..begin("os", "s1", "fw") },
            Reason::FieldViolation,
        ),
    ];
    for (what, request, reason) in cases {
        refused(what, start(&caller, request).await, reason);
    }
    assert_eq!(mesh.footprint().await, before, "nothing half done");

    // What is known only later ends the download, with its reason.
    for (offer_id, reason) in [("inside", "ADDRESS_REFUSED"), ("wrong", "CONTENT_DIGEST_MISMATCH")] {
        let begun = start(&caller, begin(offer_id, "s1", "fw")).await.expect("begun");
        let failed = reaches(&caller, &begun.firmware_id, firmware::State::Failed).await;
        assert_eq!(failed.failure.map(|failure| failure.reason).as_deref(), Some(reason));
        let request = CancelDownloadRequest { firmware_id: begun.firmware_id.clone(), request_id: uuid() };
        caller.firmware().cancel_download(request).await.expect("forgotten");
        is_gone(&caller, &begun.firmware_id).await;
    }
    // A download that is running.
    let begun = start(&caller, begin("slow", "s1", "fw")).await.expect("begun");
    refused("twice", start(&caller, begin("slow", "s1", "other")).await, Reason::FirmwareExists);
    let now = get(&caller, &begun.firmware_id).await.expect("there");
    refused("deleted while it is downloaded", delete(&caller, &now).await, Reason::FirmwareBusy);
    let request = CancelDownloadRequest { firmware_id: begun.firmware_id.clone(), request_id: uuid() };
    caller.firmware().cancel_download(request.clone()).await.expect("cancelled");
    is_gone(&caller, &begun.firmware_id).await;
    caller.firmware().cancel_download(request).await.expect("the first answer");
    let after = mesh.footprint().await;
    assert_eq!((&after.published, &after.staged), (&before.published, &before.staged), "nothing is left");

    // A vendor that is away.
    let mut vendor = vendor;
    let begun = start(&caller, begin("slow", "s1", "fw")).await.expect("begun");
    vendor.kill();
    eventually("it is told", async || {
        let now = get(&caller, &begun.firmware_id).await.expect("there");
        assert_eq!(now.state(), firmware::State::Downloading);
        now.failure.is_some_and(|failure| failure.reason == "VENDOR_UNREACHABLE")
    })
    .await;
    refused(
        "a source that is away",
        start(&caller, begin("new", "s1", "fw")).await,
        Reason::VendorUnreachable,
    );
    vendor.start_again().await;
    let request = RestoreDownloadRequest { firmware_id: begun.firmware_id.clone(), request_id: uuid() };
    caller.firmware().restore_download(request).await.expect("tried now");
    reaches(&caller, &begun.firmware_id, firmware::State::Published).await;
}

/// R53, R35: host, port and path of WebDAV updates cannot be edited; a new target moves the files; a deletion takes them and
/// nothing else, also in the root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_are_edited_moved_and_deleted() {
    let (mesh, vendor) = with_offers(2, &[]).await;
    let bytes = content("x", 5_000);
    vendor.put("feed.json", &feed(&[entry(&vendor, "os", "plain", "d/a.bin", &bytes)]));
    let caller = mesh.operator("operator");
    switch(&caller, FirmwareSynchronization::On, &[""]).await;
    let begun = start(&caller, begin("os", "s1", "fw")).await.expect("begun");
    let now = reaches(&caller, &begun.firmware_id, firmware::State::Published).await;
    let wanted = Firmware { host: "h".into(), port: Some(65_536), path: "/x".into(), ..Firmware::default() };
    let answer = edit(&caller, &now, wanted.clone(), &["host", "port", "path"]).await;
    refused("WebDAV", answer, Reason::FieldViolation).says(&["UMS WebDAV", "cannot be edited"]);
    let ftp = Firmware { protocol: Protocol::Ftp.into(), ..wanted };
    let answer = edit(&caller, &now, ftp.clone(), &["protocol", "host", "port", "path"]).await;
    refused("a port that is none", answer, Reason::FieldViolation).blames(&["firmware.port"]);
    let answer = edit(&caller, &now, Firmware { port: Some(0), ..ftp.clone() }, &["protocol", "port"]).await;
    refused("port 0", answer, Reason::FieldViolation).blames(&["firmware.port"]);
    let answer = edit(&caller, &now, Firmware::default(), &["model"]).await;
    refused("a field that is not edited", answer, Reason::FieldViolation).blames(&["update_mask"]);
    let stale = Firmware { revision: 1, ..now.clone() };
    let answer = edit(&caller, &stale, ftp.clone(), &["protocol"]).await;
    refused("an old revision", answer, Reason::RevisionChanged);
    let ftp = Firmware { port: Some(2_121), ..ftp };
    let now = edit(&caller, &now, ftp, &["protocol", "host", "port", "path"]).await.expect("edited");
    assert_eq!((now.host.as_str(), now.port, now.path.as_str()), ("h", Some(2_121), "/x"));
    let back = Firmware { protocol: Protocol::HttpWebdav.into(), ..Firmware::default() };
    let now = edit(&caller, &now, back, &["protocol"]).await.expect("edited");
    assert_eq!((now.host.as_str(), now.port, now.path.as_str()), ("", None, ""), "they are resolved");

    // Password: that there is one is all that is told.
    let request = UpdateFirmwareRequest {
        firmware: Some(Firmware { firmware_id: now.firmware_id.clone(), ..Firmware::default() }),
        update_mask: Some(mask(&["password"])),
        password: "canary-in-the-mine".into(),
        expected_revision: now.revision,
        request_id: uuid(),
    };
    let answer = caller.firmware().update_firmware(request).await.expect("edited").into_inner();
    let now = answer.firmware.clone().expect("an update");
    assert_eq!(now.password_state(), firmware::PasswordState::Set);
    assert!(!format!("{answer:?}").contains("canary"));

    arrives(&mesh, "s2", "fw/d/a.bin").await;
    caller.register("s1", "d/beside", b"mine").await.expect("registered");
    fs::write(mesh.transfer("s1").join("loose"), b"mine").expect("written");
    let root = Firmware::default();
    edit(&caller, &now, root, &["target_path"]).await.expect("edited");
    for server in ["s1", "s2"] {
        arrives(&mesh, server, "d/a.bin").await;
        eventually("the old name goes", async || !is_on(&mesh, server, "fw/d/a.bin")).await;
    }
    eventually("it is noted", async || {
        get(&caller, &begun.firmware_id).await.expect("there").files[0].path == "d/a.bin"
    })
    .await;
    let now = get(&caller, &begun.firmware_id).await.expect("there");
    delete(&caller, &now).await.expect("deleted");
    is_gone(&caller, &begun.firmware_id).await;
    for server in ["s1", "s2"] {
        eventually("the file goes", async || !is_on(&mesh, server, "d/a.bin")).await;
        arrives(&mesh, server, "d/beside").await;
    }
    assert!(is_on(&mesh, "s1", "loose"));
}

async fn import(caller: &Caller, header: FirmwareHeader, archive: &[u8]) -> Result<Firmware, Status> {
    let mut parts = vec![Part::Header(header)];
    for (number, piece) in archive.chunks(100_000).enumerate() {
        let offset_bytes = i64::try_from(number * 100_000).expect("small");
        parts.push(Part::Chunk(FirmwareChunk { offset_bytes, data: Bytes::copy_from_slice(piece) }));
    }
    let parts = parts.into_iter().map(|part| WriteFirmwareRequest { part: Some(part) });
    let answer = caller.firmware().write_firmware(tokio_stream::iter(parts.collect::<Vec<_>>())).await?;
    Ok(answer.into_inner().firmware.expect("an update"))
}

fn import_header(archive: &[u8], target: &str) -> FirmwareHeader {
    FirmwareHeader {
        model: "UD3".into(),
        version: "1".into(),
        server_id: "s1".into(),
        target_path: target.into(),
        protocol: Protocol::HttpsWebdav.into(),
        size_bytes: i64::try_from(archive.len()).expect("small"),
        request_id: uuid(),
    }
}

/// R59, R60: a zip is imported whole or not at all; what is refused leaves nothing behind; the clean-up never touches it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zip_is_imported_whole_or_not_at_all() {
    let (mesh, _vendor) = with_offers(1, &[]).await;
    let caller = mesh.operator("operator");
    caller.register("s1", "taken/b", b"mine").await.expect("registered");
    let before = mesh.footprint().await;
    let (a, b) = (content("a", 2_000_000), content("b", 10));
    let good = zip_of(&[("a", &a), ("b", &b), ("d/empty", b"")]);
    let mut torn = good.clone();
    torn.truncate(good.len() - 10);
    let mut flipped = good.clone();
    flipped[1_000] ^= 1;
    let cases = [
        ("traversal", zip_of(&[("a", &a), ("../x", &b)]), "fw", Reason::ArchiveInvalid),
        ("absolute", zip_of(&[("/etc/x", &b)]), "fw", Reason::ArchiveInvalid),
        ("a clash of names", zip_of(&[("a", &a), ("A", &b)]), "fw", Reason::ArchiveInvalid),
        (
            "no zip",
            b"no zip at all, but some text that goes on for a while".to_vec(),
            "fw",
            Reason::ArchiveInvalid,
        ),
        ("no files", zip_of(&[]), "fw", Reason::ArchiveInvalid),
        ("torn", torn, "fw", Reason::ArchiveInvalid),
        ("flipped", flipped, "fw", Reason::ArchiveInvalid),
        ("taken", good.clone(), "taken", Reason::FileExists),
    ];
    for (what, archive, target, reason) in cases {
        refused(what, import(&caller, import_header(&archive, target), &archive).await, reason);
        assert_eq!(mesh.footprint().await, before, "{what}: something is left");
    }
    let longer = FirmwareHeader { size_bytes: 10_000_000, ..import_header(&good, "fw") };
    refused("shorter than it says", import(&caller, longer, &good).await, Reason::FieldViolation);
    let bad = FirmwareHeader { model: String::new(), size_bytes: 0, ..import_header(&good, "fw") };
    refused("a bad header", import(&caller, bad, &good).await, Reason::FieldViolation)
        .blames(&["header.model", "header.size_bytes"]);
    assert_eq!(mesh.footprint().await, before, "something is left");

    let header = import_header(&good, "fw");
    let imported = import(&caller, header.clone(), &good).await.expect("imported");
    assert_eq!((imported.state(), imported.origin()), (firmware::State::Published, firmware::Origin::Import));
    let paths: Vec<&str> = imported.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["fw/a", "fw/b", "fw/d/empty"]);
    assert_eq!(fs::read(mesh.transfer("s1").join("fw/a")).expect("published"), a);
    let again = import(&caller, header, &good).await.expect("the first answer");
    assert_eq!((again.firmware_id, again.revision), (imported.firmware_id.clone(), imported.revision));
    let unused = DeleteUnusedFirmwareRequest { dry_run: true, ..DeleteUnusedFirmwareRequest::default() };
    let unused = caller.firmware().delete_unused_firmware(unused).await.expect("told").into_inner();
    assert!(unused.firmware.is_empty(), "an import is nobody's rubbish");
    delete(&caller, &imported).await.expect("deleted");
    is_gone(&caller, &imported.firmware_id).await;
    assert!(!is_on(&mesh, "s1", "fw/a"));
}

/// R58, R60: a watch tells how far a download is, and what goes; a clean-up takes what the caller saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_progress_and_ends() {
    let (mesh, vendor) = with_offers(1, &[]).await;
    let bytes = content("x", 60 << 20);
    vendor.put("feed.json", &feed(&[entry(&vendor, "os", "slow/12000000", "a.bin", &bytes)]));
    let caller = mesh.operator("operator");
    let mut watch = caller
        .firmware()
        .watch_firmware(WatchFirmwareRequest::default())
        .await
        .expect("watches")
        .into_inner();
    let first = watch.next().await.expect("a snapshot").expect("no error");
    assert!(first.caught_up && first.firmware.is_empty());
    let begun = start(&caller, begin("os", "s1", "fw")).await.expect("begun");
    let (mut between, mut rates) = (0, 0);
    loop {
        let batch = watch.next().await.expect("goes on").expect("no error");
        let Some(now) = batch.firmware.into_iter().next() else { continue };
        if now.state() == firmware::State::Published {
            break;
        }
        between += usize::from(now.downloaded_bytes > 0 && now.downloaded_bytes < now.total_bytes);
        rates += usize::from(now.bytes_per_second > 0 && now.time_left.is_some());
    }
    assert!(between > 0 && rates > 0, "progress is seen: {between} {rates}");
    let list =
        caller.firmware().list_firmware(ListFirmwareRequest::default()).await.expect("lists").into_inner();
    assert_eq!(list.firmware.len(), 1);
    let clean = DeleteUnusedFirmwareRequest { expected_count: 2, request_id: uuid(), ..Default::default() };
    refused(
        "not what was seen",
        caller.firmware().delete_unused_firmware(clean).await,
        Reason::RevisionChanged,
    );
    let clean = DeleteUnusedFirmwareRequest { expected_count: 1, request_id: uuid(), ..Default::default() };
    let gone = caller.firmware().delete_unused_firmware(clean).await.expect("deleted").into_inner().firmware;
    assert_eq!(gone[0].firmware_id, begun.firmware_id);
    loop {
        let batch = watch.next().await.expect("goes on").expect("no error");
        if batch.removed_firmware_ids == [begun.firmware_id.clone()] {
            break;
        }
    }
    let foreign = WatchFirmwareRequest { resume_token: "00".into(), ..WatchFirmwareRequest::default() };
    refused(
        "a foreign token",
        caller.firmware().watch_firmware(foreign).await.map(drop),
        Reason::ResumeTokenExpired,
    );
    let missing = WatchFirmwareRequest { firmware_id: uuid(), ..WatchFirmwareRequest::default() };
    refused(
        "no such update",
        caller.firmware().watch_firmware(missing).await.map(drop),
        Reason::FirmwareNotFound,
    );
}

/// R42, R44, R48, R51: another file at the path of one of an update is not the update: nobody is told to have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_file_at_its_path_is_not_the_update() {
    let (mesh, vendor) = with_offers(1, &[]).await;
    let bytes = content("x", 5_000);
    vendor.put("feed.json", &feed(&[entry(&vendor, "os", "plain", "a.bin", &bytes)]));
    let caller = mesh.operator("operator");
    let begun = start(&caller, begin("os", "s1", "fw")).await.expect("begun");
    reaches(&caller, &begun.firmware_id, firmware::State::Published).await;
    let ask = async || {
        let request = ResolveConnectionRequest {
            subject: Some(Subject::FirmwareId(begun.firmware_id.clone())),
            current_server_id: "s1".into(),
            device_id: "d1".into(),
            ..ResolveConnectionRequest::default()
        };
        caller.connections().resolve_connection(request).await.map(tonic::Response::into_inner)
    };
    eventually("a device is sent to s1", async || ask().await.is_ok()).await;
    let file = caller.get("fw/a.bin").await.expect("there");
    caller.delete("s1", "fw/a.bin", file.revision).await.expect("deleted");
    caller.register("s1", "fw/a.bin", b"something else").await.expect("registered");
    mesh.in_sync("fw/a.bin").await;
    eventually("the resolver knows", async || ask().await.is_err()).await;
    let refusal = refused("not the update", ask().await, Reason::NotAvailableYet);
    refusal.says(&["fw/a.bin is not the file of the update any more"]);
    let request = ListFirmwareRowsRequest { firmware_id: begun.firmware_id.clone(), ..Default::default() };
    let row = caller.matrix().list_firmware_rows(request).await.expect("lists").into_inner().rows.remove(0);
    assert!(row.complete_server_ids.is_empty(), "{row:?}");
    let reason = row.cells[0].failure.as_ref().map(|failure| failure.reason.as_str());
    assert_eq!((row.cells[0].state(), reason), (cell::State::Unknown, Some("FILE_NOT_FOUND")));
}

/// R58: of two catalogs one works on a download; when it goes away, the other takes over, and goes on where that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_catalog_takes_over_where_the_first_was() {
    let (mut mesh, vendor) = with_offers(1, &[]).await;
    let bytes = content("x", 24 << 20);
    vendor.put("feed.json", &feed(&[entry(&vendor, "os", "slow/4000000", "a.bin", &bytes)]));
    let sources = vendor.sources_file(&[("acme", "plain/feed.json")]);
    let second = mesh.catalog_at(0, Some(sources)).await;
    let (here, there) = (mesh.operator("operator"), mesh.operator_at(&second, "operator"));
    let begun = start(&here, begin("os", "s1", "fw")).await.expect("begun");
    let far = async || {
        let (one, other) = (get(&here, &begun.firmware_id).await, get(&there, &begun.firmware_id).await);
        // Both tell how far it is, whichever works on it.
        [one, other].into_iter().all(|told| told.is_ok_and(|told| told.downloaded_bytes > 6 << 20))
    };
    eventually("it is under way", far).await;
    let asked =
        || -> Vec<String> { vendor.requests().into_iter().filter(|line| line.contains("os.bin")).collect() };
    assert_eq!(asked().len(), 1, "one of them works on it: {:?}", asked());
    mesh.catalog.take().expect("it runs").stop().await;
    let published = reaches(&there, &begun.firmware_id, firmware::State::Published).await;
    let begins: Vec<u64> = asked()
        .iter()
        .filter_map(|line| line.split("range=bytes=").nth(1)?.split('-').next()?.parse().ok())
        .collect();
    assert!(begins.last().is_some_and(|begin| *begin > 4 << 20), "it goes on where it was: {:?}", asked());
    let found = fs::read(mesh.transfer("s1").join("fw/a.bin")).expect("there");
    assert!(found == bytes && published.files.len() == 1);
}

/// R7: settings are changed by who saw them, with every mistake told; nobody below operator may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_checked() {
    let mesh = Mesh::new(1).await;
    let bad = UpdateSettingsRequest {
        settings: Some(Settings {
            webdav_directories: vec!["ok".into(), "../x".into()],
            ..Settings::default()
        }),
        update_mask: Some(mask(&["webdav_directories", "firmware_synchronization", "x"])),
        expected_revision: -1,
        request_id: uuid(),
    };
    let answer = mesh.operator("operator").settings().update_settings(bad.clone()).await;
    refused("all wrong", answer, Reason::FieldViolation).blames(&[
        "expected_revision",
        "settings.webdav_directories[1]",
        "settings.firmware_synchronization",
        "update_mask",
    ]);
    let answer = mesh.operator("publisher").settings().update_settings(bad).await;
    refused("a publisher", answer, Reason::PermissionDenied);
    let stale = UpdateSettingsRequest {
        settings: Some(Settings {
            firmware_synchronization: FirmwareSynchronization::On.into(),
            ..Settings::default()
        }),
        update_mask: Some(mask(&["firmware_synchronization"])),
        expected_revision: 7,
        request_id: uuid(),
    };
    let answer = mesh.operator("operator").settings().update_settings(stale).await;
    refused("an old revision", answer, Reason::RevisionChanged);
}
