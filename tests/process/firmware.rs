//! Firmware updates by real processes that are killed in the middle.

use std::{
    collections::BTreeSet,
    fs,
    io::{Cursor, Write as _},
    time::Duration,
};

use lockstep_chassis::Channel;
use lockstep_model::firmware::FIRMWARE;
use lockstep_proto::{
    catalog::v1::{
        CancelDownloadRequest, DeleteFirmwareRequest, Firmware, FirmwareChunk, FirmwareHeader,
        GetFirmwareRequest, ListOffersRequest, Protocol, StartDownloadRequest, UpdateFirmwareRequest,
        WriteFirmwareRequest,
        firmware::{PasswordState, State},
        firmware_service_client::FirmwareServiceClient,
        write_firmware_request::Part,
    },
    filesync::v1::{GetFileRequest, ListFilesRequest},
};
use lockstep_tests::harness::{
    Installation, Options, Vendor, content,
    vendor::{feed, offer},
    wait,
};
use prost_types::FieldMask;
use tonic::{Code, Response};

/// Long enough to be killed in, twice.
const SIZE: usize = 160 << 20;
/// What the vendor gives in a second.
const BYTES_PER_SECOND: usize = 30_000_000;
/// What a crash of a server may cost, as for any upload.
const RESEND_BYTES_MAX: u64 = 64 << 20;
/// From one event to its effect, on a machine that does other things too.
const STEP_MAX: Duration = Duration::from_secs(60);
/// What nobody may ever print.
const CANARY: &str = "canary-4f1c-password";

/// An installation of two servers whose catalog asks this vendor, and takes over after 2 s.
async fn started(vendor: &Vendor) -> Installation {
    let sources = vendor.sources_file(&[("acme", "plain/feed.json")]);
    let takeover = ("catalog".to_owned(), "CATALOG_TAKEOVER_AFTER".to_owned(), "2s".to_owned());
    Installation::start(Options {
        servers: 2,
        args: vec![format!("--sources={}", sources.display()), "--log=info,catalog=trace".to_owned()],
        environment: vec![takeover],
        ..Options::default()
    })
    .await
}

fn client(installation: &Installation) -> FirmwareServiceClient<Channel> {
    FirmwareServiceClient::new(installation.client("local").channel("gateway"))
}

fn begin(offer_id: &str) -> StartDownloadRequest {
    StartDownloadRequest {
        source_id: "acme".to_owned(),
        offer_id: offer_id.to_owned(),
        server_id: "s2".to_owned(),
        target_path: "ums/fw".to_owned(),
        protocol: Protocol::HttpsWebdav.into(),
        request_id: format!("start-{offer_id}"),
    }
}

/// Waits until an update looks like this.
async fn until(
    installation: &Installation,
    id: &str,
    what: &str,
    is_so: impl Fn(&Firmware) -> bool,
) -> Firmware {
    wait::until(what, STEP_MAX, || async {
        let request = GetFirmwareRequest { firmware_id: id.to_owned() };
        let answer = client(installation).get_firmware(request).await.map_err(|status| status.to_string())?;
        let now = answer.into_inner().firmware.expect("an update");
        assert_ne!(now.state(), State::Failed, "{now:?}");
        if is_so(&now) { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await
}

/// The offsets at which the vendor was asked for the file, in the order of the requests.
fn offsets(vendor: &Vendor) -> Vec<u64> {
    let of = |line: &String| {
        let range = line.split_whitespace().find_map(|word| word.strip_prefix("range=bytes="));
        range.and_then(|range| range.split('-').next()).map_or(0, |begin| begin.parse().expect("an offset"))
    };
    vendor.requests().iter().filter(|line| line.contains("os.bin")).map(of).collect()
}

/// R42, R58: a download to s2 whose catalog is killed in the middle, and then s2 itself, goes on where the bytes are, and what
/// is registered in the end is what the vendor has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_goes_on_where_it_was_when_catalog_and_server_are_killed() {
    let vendor = Vendor::start().await;
    let bytes = content("os", SIZE);
    vendor.put("os.bin", &bytes);
    let uri = vendor.uri(&format!("slow/{BYTES_PER_SECOND}/os.bin"));
    vendor.put("feed.json", &feed(&[offer("os", "UD3", "11.1", &[("os.bin", &uri, &bytes)])]));
    let installation = started(&vendor).await;
    let begun = client(&installation).start_download(begin("os")).await.expect("begun").into_inner().firmware;
    let id = begun.expect("an update").firmware_id;

    let arrived = |bytes: i64| move |now: &Firmware| now.downloaded_bytes >= bytes;
    let before = until(&installation, &id, "a part is there", arrived(40 << 20)).await;
    installation.kill("catalog").await;
    let first = before.downloaded_bytes;
    until(&installation, &id, "it goes on without its catalog", arrived(first + (16 << 20))).await;
    let after_catalog = offsets(&vendor);
    assert!(after_catalog.len() >= 2, "{after_catalog:?}");
    assert!(after_catalog.iter().skip(1).all(|offset| *offset > 0), "it began anew: {after_catalog:?}");
    let resumed = *after_catalog.last().expect("a request");
    assert!(resumed >= u64::try_from(first).expect("positive"), "{resumed} is before {first}");

    let before = until(&installation, &id, "more is there", arrived(100 << 20)).await;
    installation.kill("s2.filesync").await;
    let published = until(&installation, &id, "it is published", |now| now.state() == State::Published).await;
    let asked = offsets(&vendor);
    let resumed = *asked.last().expect("a request");
    let before = u64::try_from(before.downloaded_bytes).expect("positive");
    assert!(
        asked.len() > after_catalog.len() && resumed + RESEND_BYTES_MAX >= before,
        "{asked:?} after {before}"
    );
    assert!(asked.iter().skip(1).all(|offset| *offset > 0), "it began anew: {asked:?}");

    let mut files = installation.client("local").files();
    let file = files
        .get_file(GetFileRequest { path: "ums/fw/os.bin".into() })
        .await
        .expect("registered")
        .into_inner()
        .file
        .expect("a file");
    assert_eq!(file.digest, blake3::hash(&bytes).to_hex().to_string());
    assert_eq!(
        (file.file_id.as_str(), file.origin_server_id.as_str()),
        (published.files[0].file_id.as_str(), "s2")
    );
    let place = installation.transfer("s2").join("ums/fw/os.bin");
    assert_eq!(fs::metadata(place).expect("published").len(), SIZE as u64);
    let left: Vec<_> = fs::read_dir(installation.staging("s2")).expect("a directory").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// R53: a password is in no log, however much is logged, in no listing, and not in the registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_nowhere_to_be_read() {
    let vendor = Vendor::start().await;
    let bytes = content("os", 5_000);
    vendor.put("os.bin", &bytes);
    vendor.put("feed.json", &feed(&[offer("os", "UD3", "11.1", &[("os.bin", "os.bin", &bytes)])]));
    let installation = started(&vendor).await;
    let mut client = client(&installation);
    let offers = client.list_offers(ListOffersRequest::default()).await.expect("lists").into_inner().offers;
    assert_eq!(offers.len(), 1);
    let begun = client.start_download(begin("os")).await.expect("begun").into_inner().firmware;
    let id = begun.expect("an update").firmware_id;
    let now = until(&installation, &id, "it is published", |now| now.state() == State::Published).await;
    for (number, expected) in [now.revision, 1].into_iter().enumerate() {
        let request = UpdateFirmwareRequest {
            firmware: Some(Firmware { firmware_id: id.clone(), ..Firmware::default() }),
            update_mask: Some(FieldMask { paths: vec!["password".to_owned()] }),
            password: format!("{CANARY}-{number}"),
            expected_revision: expected,
            request_id: format!("password-{number}"),
        };
        match client.update_firmware(request).await {
            Ok(answer) => assert!(number == 0 && !format!("{answer:?}").contains(CANARY)),
            Err(refused) => assert!(number == 1 && !format!("{refused:?}").contains(CANARY), "{refused:?}"),
        }
    }
    let now =
        until(&installation, &id, "it is stored", |now| now.password_state() == PasswordState::Set).await;
    assert!(!format!("{now:?}").contains(CANARY));
    let registry = installation.registry();
    let folder = registry.parent().expect("a folder");
    for entry in fs::read_dir(folder).expect("a directory").flatten() {
        let text = String::from_utf8_lossy(&fs::read(entry.path()).expect("read")).into_owned();
        assert!(!text.contains(CANARY), "{}", entry.path().display());
    }
    let database = fs::read(&registry).expect("read");
    let wal = fs::read(registry.with_extension("sqlite-wal")).unwrap_or_default();
    let text = [String::from_utf8_lossy(&database), String::from_utf8_lossy(&wal)].concat();
    assert!(
        text.contains(FIRMWARE) && text.contains("sealed_password"),
        "the record is looked for in the right place"
    );
    let log = fs::read(installation.log_path()).expect("a log");
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("a firmware update is published") && !log.contains(CANARY));
}

/// What is done while a point is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Download,
    Cancel,
    Import,
    Move,
    Delete,
}

/// kill -9 of the catalog after each step that is written down.
const CASES: [(&str, Work); 11] = [
    ("catalog.download.started", Work::Download),
    ("catalog.download.staged", Work::Download),
    ("catalog.download.verifying", Work::Download),
    ("catalog.download.registered", Work::Download),
    ("catalog.download.published", Work::Download),
    ("catalog.import.written", Work::Import),
    ("catalog.cancel.begun", Work::Cancel),
    ("catalog.move.moved", Work::Move),
    ("catalog.delete.begun", Work::Delete),
    ("catalog.delete.files", Work::Delete),
    ("catalog.delete.ended", Work::Delete),
];

/// Calls until there is an answer: the catalog may die in the middle, and the same request is made again.
async fn answered<T, F: Future<Output = tonic::Result<T>>>(what: &str, mut call: impl FnMut() -> F) -> T {
    wait::until(what, STEP_MAX, || {
        let called = call();
        async move {
            called.await.map_err(|status| {
                let is_passing = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
                assert!(is_passing, "{what}: {status:?}");
                status.to_string()
            })
        }
    })
    .await
}

async fn is_gone(installation: &Installation, id: &str) {
    wait::until("the update is gone", STEP_MAX, || async {
        let request = GetFirmwareRequest { firmware_id: id.to_owned() };
        match client(installation).get_firmware(request).await {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// A zip of one file, which is stored.
fn archive(bytes: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file("os.bin", options).expect("started");
    writer.write_all(bytes).expect("written");
    writer.finish().expect("finished").into_inner()
}

fn import(target: &str, archive: &[u8]) -> Vec<WriteFirmwareRequest> {
    let header = FirmwareHeader {
        model: "UD3".to_owned(),
        version: "1".to_owned(),
        server_id: "s2".to_owned(),
        target_path: target.to_owned(),
        protocol: Protocol::HttpsWebdav.into(),
        size_bytes: i64::try_from(archive.len()).expect("small"),
        request_id: target.replace('/', "-"),
    };
    let chunk = FirmwareChunk { offset_bytes: 0, data: archive.to_vec().into() };
    [Part::Header(header), Part::Chunk(chunk)].map(|part| WriteFirmwareRequest { part: Some(part) }).to_vec()
}

/// R58, R59, R35, I11: whatever the catalog was doing when it is killed, it comes to the end that was asked for: all files of an
/// update are registered once, with the right bytes, or none is, and nothing is left in staging; every point is hit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_crash_point_of_the_catalog_recovers() {
    let tested: BTreeSet<String> = CASES.iter().map(|(point, _)| (*point).to_owned()).collect();
    let marked: BTreeSet<String> =
        crate::crash::marked().into_iter().filter(|point| point.starts_with("catalog.")).collect();
    assert_eq!(tested, marked, "one case for each point");

    let vendor = Vendor::start().await;
    let bytes = content("os", 300_000);
    vendor.put("os.bin", &bytes);
    let slow = vendor.uri("slow/1000/os.bin");
    let entries = [
        offer("os", "UD3", "1", &[("os.bin", "os.bin", &bytes)]),
        offer("slow", "UD3", "2", &[("os.bin", &slow, &bytes)]),
    ];
    vendor.put("feed.json", &feed(&entries));
    let installation = started(&vendor).await;
    let mut files = installation.client("local").files();
    for (number, (point, work)) in CASES.into_iter().enumerate() {
        eprintln!("{point}");
        let target = format!("round/{number}");
        let start = |offer_id: &str| StartDownloadRequest {
            target_path: target.clone(),
            request_id: format!("start-{number}"),
            ..begin(offer_id)
        };
        let begun = async |request: StartDownloadRequest| {
            let call = || {
                let (mut client, request) = (client(&installation), request.clone());
                async move { client.start_download(request).await.map(Response::into_inner) }
            };
            answered("the start", call).await.firmware.expect("an update").firmware_id
        };
        let published = async |id: &str| {
            until(&installation, id, "it is published", |now| now.state() == State::Published).await
        };
        // What is there before the death.
        let id = match work {
            Work::Download | Work::Import => String::new(),
            Work::Cancel => begun(start("slow")).await,
            Work::Move | Work::Delete => begun(start("os")).await,
        };
        let seen = match work {
            Work::Move | Work::Delete => published(&id).await.revision,
            _ => 0,
        };
        installation.restart("catalog", &[("LOCKSTEP_CRASH", point)]).await;
        let life = installation.process("catalog").await;
        let (id, path) = match work {
            Work::Download => (begun(start("os")).await, Some(format!("{target}/os.bin"))),
            Work::Import => {
                let archive = archive(&bytes);
                let call = || {
                    let (mut client, parts) = (client(&installation), import(&target, &archive));
                    async move { client.write_firmware(tokio_stream::iter(parts)).await.map(Response::into_inner) }
                };
                let imported = answered("the import", call).await.firmware.expect("an update");
                (imported.firmware_id, Some(format!("{target}/os.bin")))
            }
            Work::Cancel => {
                let request = CancelDownloadRequest { firmware_id: id.clone(), request_id: point.to_owned() };
                let call = || {
                    let (mut client, request) = (client(&installation), request.clone());
                    async move { client.cancel_download(request).await }
                };
                answered("the cancellation", call).await;
                (id, None)
            }
            Work::Move => {
                let request = UpdateFirmwareRequest {
                    firmware: Some(Firmware {
                        firmware_id: id.clone(),
                        target_path: format!("{target}/moved"),
                        ..Firmware::default()
                    }),
                    update_mask: Some(FieldMask { paths: vec!["target_path".to_owned()] }),
                    password: String::new(),
                    expected_revision: seen,
                    request_id: point.to_owned(),
                };
                let call = || {
                    let (mut client, request) = (client(&installation), request.clone());
                    async move { client.update_firmware(request).await }
                };
                answered("the move", call).await;
                (id, Some(format!("{target}/moved/os.bin")))
            }
            Work::Delete => {
                let request = DeleteFirmwareRequest {
                    firmware_id: id.clone(),
                    expected_revision: seen,
                    request_id: point.to_owned(),
                };
                let call = || {
                    let (mut client, request) = (client(&installation), request.clone());
                    async move { client.delete_firmware(request).await }
                };
                answered("the deletion", call).await;
                (id, None)
            }
        };
        installation.reborn("catalog", life).await;
        if let Some(path) = &path {
            let now = until(&installation, &id, "it is where it should be", |now| {
                now.state() == State::Published && now.files[0].path == *path
            })
            .await;
            let found = fs::read(installation.transfer("s2").join(path));
            assert_eq!(found.expect("published"), bytes, "{point}");
            let request = DeleteFirmwareRequest {
                firmware_id: id.clone(),
                expected_revision: now.revision,
                request_id: format!("clean-{number}"),
            };
            client(&installation).delete_firmware(request).await.expect("deleted");
        }
        is_gone(&installation, &id).await;
        let listed = files.list_files(ListFilesRequest::default()).await.expect("lists").into_inner().files;
        assert!(listed.is_empty(), "{point}: {listed:?}");
        wait::until("nothing is left in staging", STEP_MAX, || async {
            let left: Vec<_> =
                fs::read_dir(installation.staging("s2")).expect("a directory").flatten().collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}
