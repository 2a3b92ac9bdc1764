//! Firmware from a vendor to every server, with devices that ask for it all the time, and processes that die in between.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
    time::Duration,
};

use lockstep_chassis::status;
use lockstep_model::Reason;
use lockstep_proto::{
    catalog::v1::{
        Firmware, GetFirmwareRequest, firmware::State, firmware_service_client::FirmwareServiceClient,
    },
    gateway::v1::ListFirmwareRowsRequest,
    resolver::v1::{
        ResolveConnectionRequest, connection_service_client::ConnectionServiceClient,
        resolve_connection_request::Subject,
    },
};
use lockstep_tests::harness::{Client, Installation, Options, Vendor, wait};
use nix::sys::signal::Signal;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// The large file of the update.
const SIZE: u64 = 1 << 30;
/// How fast the vendor gives it: slow enough that there is a middle to die in.
const RATE: u64 = 160_000_000;
/// What a crash may cost of a download, and a stream that was cut off.
const AGAIN_MAX: u64 = 64 << 20;
/// Nothing here takes longer.
const SOON: Duration = Duration::from_secs(180);

/// Writes bytes that no disk or stream can guess, and gives their SHA-256.
fn write_large(path: &Path) -> String {
    let (mut file, mut hasher) = (File::create(path).expect("made"), Sha256::new());
    let mut content = blake3::Hasher::new().update(b"firmware").finalize_xof();
    let mut block = vec![0; 4 << 20];
    for _ in 0..SIZE / block.len() as u64 {
        content.fill(&mut block);
        hasher.update(&block);
        file.write_all(&block).expect("written");
    }
    hex::encode(hasher.finalize())
}

fn sha256_of(path: &Path) -> String {
    let (mut file, mut hasher, mut block) =
        (File::open(path).expect("there"), Sha256::new(), vec![0; 4 << 20]);
    loop {
        match file.read(&mut block).expect("read") {
            0 => return hex::encode(hasher.finalize()),
            count => hasher.update(&block[..count]),
        }
    }
}

async fn update(client: &Client, firmware_id: &str) -> Result<Firmware, String> {
    let request = GetFirmwareRequest { firmware_id: firmware_id.to_owned() };
    let answer = FirmwareServiceClient::new(client.channel("gateway")).get_firmware(request).await;
    answer.map(|answer| answer.into_inner().firmware.expect("one")).map_err(|status| status.to_string())
}

/// What a device was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    not_yet: usize,
    servers: BTreeSet<String>,
    last: String,
}

/// A device of server 1 that asks all the time. Whatever it is told, is held against the disk it is sent to.
async fn ask(
    client: Client,
    installation: &Installation,
    firmware_id: &str,
    file: &str,
    told: &watch::Sender<Told>,
) {
    let mut resolver = ConnectionServiceClient::new(client.channel("gateway"));
    let request = ResolveConnectionRequest {
        subject: Some(Subject::FirmwareId(firmware_id.to_owned())),
        current_server_id: "s1".to_owned(),
        device_id: "device-1".to_owned(),
        ..ResolveConnectionRequest::default()
    };
    loop {
        match resolver.resolve_connection(request.clone()).await {
            Ok(answer) => {
                let connection = answer.into_inner().connection.expect("the contract says so");
                let server = connection.server_id;
                // Under its final name there is nothing but the whole file (R51, I7).
                let found = fs::metadata(installation.transfer(&server).join(file)).map(|found| found.len());
                assert_eq!(found.ok(), Some(SIZE), "a device was sent to {server}, which has not got it");
                assert_eq!(connection.path, "/ums_filetransfer/fw/os");
                told.send_modify(|told| {
                    told.servers.insert(server.clone());
                    told.last = server;
                });
            }
            Err(refused) => {
                let failure = status::read(&refused);
                let known = matches!(failure.reason, Reason::NotAvailableYet);
                assert!(known, "{failure:?}");
                told.send_modify(|told| told.not_yet += 1);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The bytes that the vendor was asked to begin at, in turn.
fn begun_at(vendor: &Vendor) -> Vec<u64> {
    let large = vendor.requests().into_iter().filter(|line| line.contains("os.img"));
    let begin = |line: &str| {
        let range = line.split("bytes=").nth(1)?;
        range.split('-').next()?.parse().ok()
    };
    large.map(|line| begin(&line).unwrap_or(0)).collect()
}

/// R7, R25, R42, R47, R48, R51, R58, I7: a gigabyte of firmware is downloaded to server 2 while the catalog and then server 2
/// are killed: it goes on where it was; and a device of server 1, which asks all the time, is told "not yet", then server 2,
/// then its own server, and never anything that is not so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firmware_reaches_every_server_and_no_device_is_told_wrong() {
    let vendor = Vendor::start().await;
    let sha256 = write_large(&vendor.directory().join("os.img"));
    let small = vendor.put("notes.txt", b"read me");
    let file = |path: &str, uri: &str, size: u64, sha256: &str| serde_json::json!({ "path": path, "uri": vendor.uri(uri), "size_bytes": size, "sha256": sha256 });
    let entry = serde_json::json!({
        "id": "os-12", "model": "UD3", "version": "12.4", "release_notes": "Faster.",
        "files": [
            file("os.img", &format!("slow/{RATE}/os.img"), SIZE, &sha256),
            file("notes.txt", "plain/notes.txt", 7, &small),
        ],
    });
    vendor.put("feed.json", serde_json::json!({ "format": 1, "entries": [entry] }).to_string().as_bytes());
    let sources = vendor.sources_file(&[("acme", "plain/feed.json")]);
    let args = vec![format!("--sources={}", sources.display())];
    let installation = Installation::start(Options { args, ..Options::every("1h") }).await;
    installation.run(&["settings", "set", "--firmware-synchronization", "on"]).await;
    let offered = installation.run(&["firmware", "check"]).await;
    assert!(
        offered.contains("os-12") && offered.contains("AVAILABLE") && offered.contains("Faster."),
        "{offered}"
    );
    let download = [
        "firmware", "download", "os-12", "--source", "acme", "--server", "s2", "--target", "fw/os",
        "--output", "json",
    ];
    let started: serde_json::Value = serde_json::from_str(&installation.run(&download).await).expect("JSON");
    let firmware_id = started["firmware"][0]["firmware_id"].as_str().expect("an id").to_owned();

    let (client, told) = (installation.client("viewer"), watch::Sender::new(Told::default()));
    let device = ask(installation.client("viewer"), &installation, &firmware_id, "fw/os/os.img", &told);
    let course = async {
        let far = async |bytes: u64| {
            wait::until("the download comes so far", SOON, || async {
                let update = update(&client, &firmware_id).await?;
                assert_ne!(update.state(), State::Failed, "{:?}", update.failure);
                assert_ne!(update.state(), State::Published, "it is too fast for this test");
                let downloaded = u64::try_from(update.downloaded_bytes).expect("not negative");
                if downloaded >= bytes { Ok(downloaded) } else { Err(format!("{downloaded}")) }
            })
            .await
        };
        let first = far(SIZE / 5).await;
        installation.signal("catalog", Signal::SIGKILL).await;
        let second = far(SIZE / 5 * 3).await;
        installation.signal("s2.filesync", Signal::SIGKILL).await;
        wait::until("it is published", SOON, || async {
            let update = update(&client, &firmware_id).await?;
            assert_ne!(update.state(), State::Failed, "{:?}", update.failure);
            if update.state() == State::Published { Ok(()) } else { Err(format!("{:?}", update.state())) }
        })
        .await;
        wait::until("every server holds all of it", SOON, || async {
            let request = ListFirmwareRowsRequest { firmware_id: firmware_id.clone(), ..Default::default() };
            let rows =
                client.matrix().list_firmware_rows(request).await.map_err(|status| status.to_string())?;
            let row = rows.into_inner().rows.remove(0);
            if row.complete_server_ids == ["s1", "s2", "s3"] { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
        let mut told = told.subscribe();
        let _ = told.wait_for(|told| told.last == "s1").await.expect("the device asks");
        (first, second)
    };
    let (first, second) = tokio::select! {
        biased;
        figures = course => figures,
        () = device => unreachable!("a device asks for ever"),
    };
    let told = told.borrow().clone();
    assert!(told.not_yet > 0 && told.servers.contains("s1"), "{told:?}");
    let begun = begun_at(&vendor);
    assert!(begun.len() >= 3, "the download was cut off twice: {begun:?}");
    // What was safe before each death is not asked for again.
    for (at, before) in [(1, first), (2, second)] {
        assert!(begun[at] + AGAIN_MAX >= before, "cut off at {before}, begun again at {begun:?}");
    }
    for server in ["s1", "s2", "s3"] {
        let there = installation.transfer(server).join("fw/os");
        assert_eq!(sha256_of(&there.join("os.img")), sha256, "{server}");
        assert_eq!(sha256_of(&there.join("notes.txt")), small, "{server}");
        assert_eq!(fs::read_dir(installation.staging(server)).expect("a directory").count(), 0, "{server}");
    }
    let status = installation.run(&["firmware", "status"]).await;
    assert!(status.contains("complete on s1, s2, s3"), "{status}");
}
