//! Connection data from real processes: in words, and while everything is killed.

use std::{collections::BTreeMap, fs, time::Duration};

use lockstep_chassis::status;
use lockstep_model::{Kind, Reason};
use lockstep_proto::resolver::v1::{ResolveConnectionRequest, resolve_connection_request::Subject};
use lockstep_tests::harness::{Client, Installation, Ledger, Options, content, wait};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cli::{Seen, told, until_told};

/// The longest wait for the work itself, on a machine that does other things too.
const WORK_MAX: Duration = Duration::from_secs(120);
const FILES: usize = 24;
const FILE_BYTES: usize = 600_000;

fn asked(path: &str, current: &str) -> ResolveConnectionRequest {
    ResolveConnectionRequest {
        subject: Some(Subject::Path(path.to_owned())),
        current_server_id: current.to_owned(),
        device_id: "device-1".to_owned(),
        ..ResolveConnectionRequest::default()
    }
}

/// R47, R48, R49, R50, R51, H1, H10: the command line says where a device gets something and why, changes what is said of a server,
/// and says what is wrong with bad input; as recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_data_is_told_in_words() {
    let set = |child: &str, name: &str, value: String| (child.to_owned(), name.to_owned(), value);
    let environment = vec![set("s3.filesync", "FILESYNC_RESERVE_BYTES", (1_u64 << 60).to_string())];
    let installation = Installation::start(Options { environment, ..Options::every("1h") }).await;
    let outside = tempfile::tempdir().expect("a directory");
    let source = outside.path().join("source");
    fs::write(&source, "some bytes\n").expect("written");
    let source = source.to_str().expect("UTF-8").to_owned();
    installation.run(&["file", "register", &source, "os/a b.img", "--server", "s1"]).await;

    let mut seen = Seen::default();
    let on_s1 = ["resolve", "os/a b.img", "--server", "s1", "--device", "d1"];
    until_told(&installation, &mut seen, &on_s1, &["server s1", "=> 0"]).await;
    let explained = ["resolve", "os/a b.img", "--server", "s2", "--device", "d1", "--explain"];
    until_told(&installation, &mut seen, &explained, &["s2 CHOSEN", "s3 EXCLUDED DISK_FULL"]).await;
    let edits: [&[&str]; 3] = [
        &["--public-address", "cdn.test", "--public-https-port", "443", "--site", "north"],
        &["--display-name", "North 1", "--host", "ums1.test", "--http-port", "8080"],
        &["--public-address", "", "--public-https-port", "none"],
    ];
    for edit in edits {
        let words: Vec<&str> = ["server", "edit", "s1"].into_iter().chain(edit.iter().copied()).collect();
        let (code, text) = told(&installation, &words).await;
        seen.note(&words.join(" "), format!("{text}\n=> {code}"));
        // R54: the very next answer has it.
        let (code, text) = told(&installation, &on_s1).await;
        seen.note(&on_s1.join(" "), format!("{text}\n=> {code}"));
    }
    let (_, text) = told(&installation, &[&on_s1[..], &["--output", "json"]].concat()).await;
    let document: Value = serde_json::from_str(&text).expect("one document");
    assert_eq!(document["connection"]["host"], "ums1.test");
    assert_eq!(document["connection"]["path"], "/ums_filetransfer/os/a%20b.img");
    assert!(document["registry_revision"].as_i64().is_some_and(|revision| revision > 0));

    let wrong: [&[&str]; 7] = [
        &["server", "edit", "s1", "--public-address", "https://cdn.test/x"],
        &["server", "edit", "s1", "--https-port", "65536", "--http-port", "-1"],
        &["server", "edit", "s1", "--site", "south", "--revision", "1"],
        &["server", "edit", "s9", "--site", "south"],
        &["resolve", "os/none", "--server", "s1", "--device", "d1"],
        &["resolve", "os/a b.img", "--server", "s9", "--device", "d1"],
        &[
            "resolve",
            "--firmware",
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "--server",
            "s1",
            "--device",
            "d1",
        ],
    ];
    for words in wrong {
        let (code, text) = told(&installation, words).await;
        // How many changes there were before depends on when servers announced themselves.
        let lines = text.lines().map(|line| match line.split_once("actual_revision =") {
            Some((before, _)) => format!("{before}actual_revision = <n>"),
            None => line.to_owned(),
        });
        seen.note(&words.join(" "), format!("{}\n=> {code}", lines.collect::<Vec<_>>().join("\n")));
    }
    for server in ["s1", "s2"] {
        installation.take_down(&format!("{server}.filesync")).await;
    }
    let gone = wait::until("nobody is left", WORK_MAX, || async {
        let (code, text) = told(&installation, &on_s1).await;
        if text.contains("NOT_AVAILABLE_YET") { Ok(format!("{text}\n=> {code}")) } else { Err(text) }
    })
    .await;
    // How a connection broke depends on the moment.
    let parts = gone.split("; ").map(|part| match part.split_once("cannot be reached: ") {
        Some((before, _)) => format!("{before}cannot be reached: <cause>"),
        None => part.to_owned(),
    });
    seen.note(&on_s1.join(" "), parts.collect::<Vec<_>>().join("; "));
    seen.compare("resolve.txt");
}

/// What a device would find.
struct Devices {
    client: Client,
    /// The bytes of each server, by its id.
    transfers: BTreeMap<String, std::path::PathBuf>,
}

impl Devices {
    /// R48, R51: whoever is sent has the whole file under its final name; else the answer is not yet.
    async fn ask(&self, path: &str, current: &str) -> Option<String> {
        let answer = self.client.connections_at("resolver").resolve_connection(asked(path, current)).await;
        match answer {
            Ok(answer) => {
                let server = answer.into_inner().connection.expect("the contract says so").server_id;
                let there = fs::read(self.transfers[&server].join(path)).unwrap_or_default();
                assert_eq!(there.len(), FILE_BYTES, "{path} from {server}");
                assert!(there == content(path, FILE_BYTES), "{path} from {server} has other bytes");
                Some(server)
            }
            Err(told) => {
                let failure = status::read(&told);
                let honest = [Reason::NotAvailableYet, Reason::FileNotFound];
                assert!(honest.contains(&failure.reason) || failure.kind() == Kind::Unavailable, "{told:?}");
                None
            }
        }
    }
}

/// R47, R48, R51: while files are registered, copied and served, and every kind of process is killed, stopped and started again in
/// the middle, each answer is a server that has the whole file at that moment, or "not yet"; in the end each server is sent
/// for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_wrong_while_processes_are_killed() {
    let installation = Installation::start(Options::every("2s")).await;
    let client = installation.client("viewer");
    let transfers = ["s1", "s2", "s3"].map(|id| (id.to_owned(), installation.transfer(id)));
    let devices = Devices { client, transfers: transfers.into() };
    let publisher = installation.client("publisher");
    let name = |number: usize| format!("fw/{number:02}.bin");
    let ended = CancellationToken::new();

    let asking = async {
        let (mut answers, mut turn) = (0_usize, 0_usize);
        while !ended.is_cancelled() {
            let current = ["s1", "s2", "s3"][turn % 3];
            answers += usize::from(devices.ask(&name(turn % FILES), current).await.is_some());
            turn += 1;
            tokio::task::yield_now().await;
        }
        answers
    };
    let working = async {
        let mut ledger = Ledger::default();
        let kills = ["s2.filesync", "resolver", "s1.filesync", "gateway", "s3.filesync", "resolver"];
        for number in 0..FILES {
            let (path, server) = (name(number), ["s1", "s2"][number % 2]);
            wait::until(format!("{path} is registered"), WORK_MAX, || async {
                let bytes = content(&path, FILE_BYTES);
                let mut ledger = Ledger::default();
                let answer = ledger.register(&publisher, server, &path, bytes).await;
                answer.map_err(|status| status.to_string())
            })
            .await;
            if number % 4 == 3 {
                installation.kill(kills[number / 4]).await;
            }
        }
        for number in 0..FILES {
            let path = name(number);
            let get = lockstep_proto::filesync::v1::GetFileRequest { path: path.clone() };
            let file = wait::until(format!("{path} is there"), WORK_MAX, || async {
                let answer = publisher.files().get_file(get.clone()).await;
                answer.map(|answer| answer.into_inner().file).map_err(|status| status.to_string())
            });
            ledger.note(&file.await.expect("the contract says so"));
        }
        installation.in_sync(&ledger, WORK_MAX).await;
        for server in ["s1", "s2", "s3"] {
            wait::until(format!("{server} is sent for itself"), WORK_MAX, || async {
                let sent = devices.ask(&name(0), server).await;
                if sent.as_deref() == Some(server) { Ok(()) } else { Err(format!("{sent:?}")) }
            })
            .await;
        }
        ended.cancel();
    };
    let (answers, ()) = tokio::join!(asking, working);
    assert!(answers > 100, "{answers} answers");
}
