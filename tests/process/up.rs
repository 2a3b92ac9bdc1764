//! `lockstep up` itself.

use std::time::Duration;

use lockstep_tests::harness::{Installation, Ledger, Options, binary, content, wait};
use nix::sys::signal::{Signal, kill};

fn one() -> Options {
    Options { servers: 1, ..Options::default() }
}

/// H12: the second `lockstep up` on a directory is refused, with the process that has it and what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ups_cannot_share_a_directory() {
    let installation = Installation::start(one()).await;
    let data = installation.data();
    let second = move || std::process::Command::new(binary()).args(["up", "--data"]).arg(data).output();
    let output = tokio::task::spawn_blocking(second).await.expect("no panic").expect("started");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains(&format!("process {}", installation.supervisor())), "{text}");
    assert!(text.contains("another directory with --data"), "{text}");
}

/// H8, H12: settings that a service refuses end the installation, which says what is wrong, instead of starting it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_refuses_its_settings_ends_the_installation() {
    let directory = tempfile::tempdir().expect("a directory");
    let sources = directory.path().join("sources.toml");
    std::fs::write(&sources, "[[source]]\nid = \"acme\"\nfood = 1\n").expect("written");
    let mut command = std::process::Command::new(binary());
    command.args(["up", "--servers=1", "--gateway-port=0"]).current_dir(directory.path());
    command.arg(format!("--data={}", directory.path().join("data").display()));
    command.arg(format!("--sources={}", sources.display()));
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("started");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["\"food\" is no key", "feed", "catalog refuses its settings"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// H10, H12: Ctrl-C ends everything within five seconds with code 0, while somebody watches; the same directory starts
/// again, with the same addresses and files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_within_five_seconds_and_the_same_directory_starts_again() {
    let mut installation = Installation::start(Options::default()).await;
    let mut ledger = Ledger::default();
    let client = installation.client("local");
    ledger.register(&client, "s2", "kept.bin", content("kept.bin", 3_000)).await.expect("registered");
    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    let watch = client.matrix().watch_rows(lockstep_proto::gateway::v1::WatchRowsRequest::default()).await;
    let mut watch = watch.expect("watched").into_inner();
    let (before, uri) = (installation.processes(), installation.uri("gateway"));
    assert_eq!(before.len(), 9, "{before:?}");

    let (status, took) = installation.stop(Signal::SIGINT).await;
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    assert!(before.values().all(|pid| !installation.is_ours(*pid)), "a child outlived its supervisor");
    let end = loop {
        match watch.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(end.expect_err("a watch ends with a reason").code(), tonic::Code::Unavailable);

    installation.start_again().await;
    assert_eq!(installation.uri("gateway"), uri);
    ledger
        .register(&installation.client("local"), "s1", "new.bin", content("new.bin", 3_000))
        .await
        .expect("registered");
    installation.in_sync(&ledger, Duration::from_secs(30)).await;
    ledger.check_disks(&installation);
    installation.assert_no_alarms(&[]);
}

/// H12: a supervisor that is killed takes its children with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_die_with_their_parent() {
    let installation = Installation::start(Options::default()).await;
    let children = installation.processes();
    assert_eq!(children.len(), 9, "{children:?}");
    kill(installation.supervisor(), Signal::SIGKILL).expect("it runs");
    wait::until("the children end", Duration::from_secs(5), || async {
        let left: Vec<_> = children.iter().filter(|(_, pid)| installation.is_ours(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
