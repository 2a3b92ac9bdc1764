//! What makes files travel: the fan-out where there is a gateway, the cycle where there is none.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use lockstep_proto::{
    filesync::v1::{NewFile, RegisterFileRequest, new_file::Source},
    gateway::v1::{WatchRowsRequest, cell},
};
use lockstep_tests::harness::{Installation, Ledger, Options, addressed, content, wait};
use nix::sys::signal::Signal;
use tokio::time::{Instant, interval};

/// Registrations of the long run.
const MANY: usize = 500;
/// Between two of them: 20 a second.
const PACE: Duration = Duration::from_millis(50);

/// R46: each of the two copies of a registration writes one line: object, source, target, bytes, duration, result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_copy_writes_one_line() {
    let installation = Installation::start(Options::every("1h")).await;
    let file = NewFile {
        path: "one/line.bin".to_owned(),
        source: Some(Source::Content(content("one/line.bin", 777).into())),
        ..NewFile::default()
    };
    let request = RegisterFileRequest { file: Some(file), request_id: "one line".replace(' ', "-") };
    let answer = installation.client("publisher").files().register_file(addressed(request, "s1")).await;
    let mut ledger = Ledger::default();
    ledger.note(&answer.expect("registered").into_inner().file.expect("the contract says so"));
    installation.in_sync(&ledger, Duration::from_secs(30)).await;

    for target in ["s2", "s3"] {
        let lines = installation.log_of(&format!("{target}.filesync"));
        let copies: Vec<&String> = lines.iter().filter(|line| line.contains("path=one/line.bin")).collect();
        assert_eq!(copies.len(), 1, "{lines:#?}");
        for part in
            ["source=s1", &format!("target={target}"), "bytes=777", "duration_ms=", "result=\"copied\""]
        {
            assert!(copies[0].contains(part), "{part} is not in {}", copies[0]);
        }
    }
}

/// R1, R20, R24, R41, I6: with a cycle of an hour, 500 registrations at 20 a second on one server are on the others by the
/// fan-out alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fan_out_alone_reaches_all_servers() {
    let installation = Installation::start(Options::every("1h")).await;
    let client = installation.client("publisher");
    let seen: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
    let watch = tokio::spawn(note_arrivals(installation.client("viewer").matrix(), Arc::clone(&seen)));

    let mut pace = interval(PACE);
    let mut calls = Vec::new();
    for number in 0..MANY {
        pace.tick().await;
        let (client, path) = (client.clone(), format!("many/{:02}/{number:03}.bin", number % 20));
        calls.push(tokio::spawn(async move {
            let bytes = content(&path, 1_024 + number);
            let file = NewFile {
                path: path.clone(),
                source: Some(Source::Content(bytes.into())),
                ..NewFile::default()
            };
            let request = RegisterFileRequest { file: Some(file), request_id: path };
            let answer = client.files().register_file(addressed(request, "s1")).await;
            let file = answer.expect("registered").into_inner().file.expect("the contract says so");
            (file, Instant::now())
        }));
    }
    let registered: Vec<_> = join_all(calls).await.into_iter().map(|call| call.expect("no panic")).collect();
    let mut ledger = Ledger::default();
    registered.iter().for_each(|(file, _)| ledger.note(file));

    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    ledger.check_disks(&installation);
    wait::until("the watch has seen all", Duration::from_secs(5), || async {
        let count = seen.lock().expect("no panic").len();
        if count == MANY { Ok(()) } else { Err(format!("{count} of {MANY}")) }
    })
    .await;
    watch.abort();
    let seen = seen.lock().expect("no panic");
    let mut delays: Vec<Duration> =
        registered.iter().map(|(file, at)| seen[&file.path].saturating_duration_since(*at)).collect();
    delays.sort();
    let at = |share: usize| delays[(delays.len() - 1) * share / 100];
    eprintln!(
        "from the answer to in sync on all three, as the matrix shows it: median {:?}, p99 {:?}, most {:?}",
        at(50),
        at(99),
        at(100)
    );
    installation.assert_no_alarms(&[]);
}

/// Notes when the matrix first shows each path in sync everywhere.
async fn note_arrivals(
    mut matrix: lockstep_proto::gateway::v1::matrix_service_client::MatrixServiceClient<
        lockstep_chassis::Channel,
    >,
    seen: Arc<Mutex<BTreeMap<String, Instant>>>,
) {
    let stream = matrix.watch_rows(WatchRowsRequest::default()).await.expect("the gateway answers");
    let mut stream = stream.into_inner();
    while let Ok(Some(batch)) = stream.message().await {
        let now = Instant::now();
        for row in batch.rows {
            if row.cells.len() == 3 && row.cells.iter().all(|cell| cell.state() == cell::State::InSync) {
                seen.lock().expect("no panic").entry(row.path).or_insert(now);
            }
        }
    }
}

/// R21, R24: without a gateway nobody tells the others; their cycle finds everything, and nothing arrives before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gateway_the_cycle_does_the_work() {
    const CYCLE: Duration = Duration::from_secs(12);
    let installation = Installation::start(Options::every("12s")).await;
    let client = installation.client("publisher");
    let mut ledger = Ledger::default();
    ledger.register(&client, "s1", "before.bin", content("before.bin", 10)).await.expect("registered");
    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    installation.pause("gateway").await;

    // The filesync of s2 and s3 begin their lives now, so their cycles are due a cycle later, and not before.
    for child in ["s2.filesync", "s3.filesync"] {
        installation.kill(child).await;
    }
    let ready = || async {
        let mut calls = Vec::new();
        for child in ["s2.filesync", "s3.filesync"] {
            calls.push(follows(&installation, child).await);
        }
        calls.into_iter().collect::<Result<Vec<i64>, String>>()
    };
    wait::until("s2 and s3 follow the registry again", Duration::from_secs(10), ready).await;
    let begun = Instant::now();
    for number in 0..20 {
        let path = format!("direct/{number}.bin");
        let file = NewFile {
            path: path.clone(),
            source: Some(Source::Content(content(&path, 4_096).into())),
            ..NewFile::default()
        };
        let request = RegisterFileRequest { file: Some(file), request_id: path };
        let answer = client.files_at("s1.filesync").register_file(request).await.expect("registered");
        ledger.note(&answer.into_inner().file.expect("the contract says so"));
    }
    assert!(begun.elapsed() < CYCLE / 3, "too slow to tell anything: {:?}", begun.elapsed());
    for server in ["s2", "s3"] {
        let directory = installation.transfer(server).join("direct");
        let first = wait::until(format!("anything arrives on {server}"), CYCLE * 2, || async {
            let count = fs::read_dir(&directory).map_or(0, Iterator::count);
            if count > 0 { Ok(begun.elapsed()) } else { Err("nothing") }
        })
        .await;
        // The two looks at both servers are one after the other, so only the first says something about the time.
        eprintln!("{server}: the first file arrived after {first:?}, with a cycle of {CYCLE:?}");
        assert!(first > CYCLE / 2, "something arrived on {server} before the cycle: after {first:?}");
        wait::until(format!("everything arrives on {server}"), Duration::from_secs(5), || async {
            let count = fs::read_dir(&directory).map_or(0, Iterator::count);
            if count == 20 { Ok(()) } else { Err(format!("{count} of 20")) }
        })
        .await;
    }
    installation.signal("gateway", Signal::SIGCONT).await;
    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    ledger.check_disks(&installation);
}

/// The revision that a filesync has followed the registry to, by its own report.
async fn follows(installation: &Installation, child: &str) -> Result<i64, String> {
    let mut replicas = installation.client("viewer").replicas_at(child);
    let stream = replicas.watch_replicas(lockstep_proto::filesync::v1::WatchReplicasRequest::default()).await;
    let mut stream = stream.map_err(|status| status.to_string())?.into_inner();
    let first = stream.message().await.map_err(|status| status.to_string())?.ok_or("ended")?;
    first
        .position
        .map(|position| position.revision)
        .filter(|revision| *revision > 0)
        .ok_or_else(|| "at 0".to_owned())
}
