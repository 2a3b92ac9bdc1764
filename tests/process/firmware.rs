//! Firmware updates by real processes that are killed in the middle.

use std::{fs, time::Duration};

use lockstep_chassis::Channel;
use lockstep_model::firmware::FIRMWARE;
use lockstep_proto::{
    catalog::v1::{
        Firmware, GetFirmwareRequest, ListOffersRequest, Protocol, StartDownloadRequest,
        UpdateFirmwareRequest,
        firmware::{PasswordState, State},
        firmware_service_client::FirmwareServiceClient,
    },
    filesync::v1::GetFileRequest,
};
use lockstep_tests::harness::{
    Installation, Options, Vendor, content,
    vendor::{feed, offer},
    wait,
};
use prost_types::FieldMask;

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

/// An installation of two servers whose catalog asks this vendor, and takes over after 3 s.
async fn started(vendor: &Vendor) -> Installation {
    let sources = vendor.sources_file(&[("acme", "plain/feed.json")]);
    let takeover = ("catalog".to_owned(), "CATALOG_TAKEOVER_AFTER".to_owned(), "3s".to_owned());
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
        range.map_or(0, |range| range.trim_end_matches('-').parse().expect("an offset"))
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
