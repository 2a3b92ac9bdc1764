//! Disks that are really full, and roots that are really read-only: mounts in a namespace of their own. With the cycle set
//! to an hour and nobody who asks, a server has to find out by itself that its disk is well again.

use std::{fs, path::Path, time::Duration};

use lockstep_proto::{
    filesync::v1::GetFileRequest,
    gateway::v1::{ListRowsRequest, ListServersRequest, cell},
};
use lockstep_tests::harness::{
    Client, Installation, Ledger, Mount, Options, addressed, content, in_own_mounts, registration, wait,
};

/// For one step to have its effect, on a machine that does other things too.
const STEP_MAX: Duration = Duration::from_secs(60);
/// From the space, or the right to write, coming back to everything being in sync: what the product promises.
const RECOVERED_MAX: Duration = Duration::from_secs(60);
/// The whole disk of s2.
const DISK_BYTES: u64 = 64 << 20;
/// What copies leave free of it.
const RESERVE_BYTES: u64 = 4 << 20;
/// What is left beyond that: for some of the small files, and then for a tiny one.
const ROOM_BYTES: u64 = (2 << 20) + (32 << 10);
/// Many files of one page of changes; all of them together do not fit.
const FILES: usize = 300;
const FILE_BYTES: usize = 64 << 10;
/// Registrations until an index needs more of its disk than it has.
const BATCHES_MAX: usize = 40;
const BATCH: usize = 50;

/// R1, R23, R25, R32, I1, I7, I10: a full disk is one condition of its server and one line of its log. Space is reserved
/// before a transfer, so nothing is left half; what is small enough still arrives, the other servers are in sync, and a
/// deletion makes room. When the space is back, the server recovers by itself within a minute.
#[test]
fn a_full_disk_is_one_condition_and_ends_by_itself() {
    in_own_mounts("disks::a_full_disk_is_one_condition_and_ends_by_itself", full_root);
}

async fn full_root() {
    let reserve = ("s2.filesync".to_owned(), "FILESYNC_RESERVE_BYTES".to_owned(), RESERVE_BYTES.to_string());
    let installation =
        Installation::start(Options { environment: vec![reserve], ..Options::every("1h") }).await;
    let client = installation.client("publisher");
    let disk = mounted(&installation, "s2", |root| Mount::disk(root, DISK_BYTES)).await;
    let mut ledger = Ledger::default();
    ledger.register(&client, "s1", "kept.bin", content("kept.bin", 1 << 20)).await.expect("registered");
    installation.in_sync(&ledger, STEP_MAX).await;
    assert!(conditions(&installation, "s2").await.is_empty());

    disk.fill("filler", RESERVE_BYTES + ROOM_BYTES);
    let large = installation.directory().join("large.bin");
    fs::write(&large, content("large.bin", 3 << 20)).expect("written");
    let large = large.to_str().expect("UTF-8").to_owned();
    installation.run(&["file", "register", &large, "large.bin", "--server", "s1"]).await;
    for number in 0..FILES {
        let path = format!("tree/{number}");
        ledger.register(&client, "s1", &path, content(&path, FILE_BYTES)).await.expect("registered");
    }
    // Everything that fits is there, and each of the others says why it is not.
    let full = |state: cell::State, reason: &str| state == cell::State::Failed && reason == "DISK_FULL";
    let arrived = wait::until("s2 has what fits", STEP_MAX, || async {
        let cells = cells(&installation, "s2").await;
        let open = cells.iter().find(|(_, state, why)| *state != cell::State::InSync && !full(*state, why));
        match open {
            Some(open) => Err(format!("{open:?}")),
            None if cells.len() < FILES + 2 => Err("not all rows yet".to_owned()),
            None => Ok(cells.iter().filter(|(_, state, _)| *state == cell::State::InSync).count()),
        }
    })
    .await;
    assert!(arrived > 1 && arrived < FILES, "{arrived} are there");
    assert_eq!(conditions(&installation, "s2").await, ["DISK_FULL"]);
    assert!(disk.free_bytes() >= RESERVE_BYTES, "the reserve is untouched");
    let staged = fs::read_dir(installation.staging("s2")).expect("a directory").count();
    assert_eq!(staged, 0, "nothing is there half");
    for other in ["s1", "s3"] {
        wait::until(format!("{other} has everything"), STEP_MAX, || async {
            let cells = cells(&installation, other).await;
            let open = cells.into_iter().find(|(_, state, _)| *state != cell::State::InSync);
            open.map_or(Ok(()), |open| Err(format!("{open:?}")))
        })
        .await;
        assert!(conditions(&installation, other).await.is_empty());
    }
    ledger.register(&client, "s3", "tiny.bin", content("tiny.bin", 1_000)).await.expect("registered");
    wait::until("a tiny file is on s2 all the same", STEP_MAX, || async {
        let cells = cells(&installation, "s2").await;
        let tiny = cells.into_iter().find(|(path, ..)| path == "tiny.bin");
        if tiny.as_ref().is_some_and(|cell| cell.1 == cell::State::InSync) {
            Ok(())
        } else {
            Err(format!("{tiny:?}"))
        }
    })
    .await;
    assert_eq!(conditions(&installation, "s2").await, ["DISK_FULL"]);
    refused(&installation, &client, "DISK_FULL").await;

    ledger.delete(&client, "s3", "kept.bin").await.expect("deleted");
    wait::until("a full disk can empty itself", STEP_MAX, || async {
        if installation.transfer("s2").join("kept.bin").exists() { Err("it is there") } else { Ok(()) }
    })
    .await;
    wait::until("what fits into the room of a deleted file arrives", STEP_MAX, || async {
        let cells = cells(&installation, "s2").await;
        let now = cells.iter().filter(|(_, state, _)| *state == cell::State::InSync).count();
        // One file less, one tiny one more, and a mebibyte of small ones.
        if now > arrived { Ok(()) } else { Err(format!("{now} after {arrived}")) }
    })
    .await;
    assert_eq!(conditions(&installation, "s2").await, ["DISK_FULL"]);
    let told = installation.log_of("s2.filesync");
    let told = told.iter().filter(|line| line.contains("the disk does not take any more")).count();
    assert_eq!(told, 1, "one condition is told once");

    fs::remove_file(installation.root("s2").join("filler")).expect("removed");
    recovered(&installation).await;
    installation.assert_no_alarms(&["the disk does not take any more", "server lost"]);
}

/// R1, R4, I1, I4, I10, I11: an index whose disk is full takes nothing more, and loses nothing: neither while it is full,
/// nor by a kill then. When there is space again, the server recovers by itself within a minute.
#[test]
fn an_index_without_room_loses_nothing() {
    in_own_mounts("disks::an_index_without_room_loses_nothing", full_state);
}

async fn full_state() {
    let installation = Installation::start(Options::every("1h")).await;
    let client = installation.client("publisher");
    let mut ledger = Ledger::default();
    ledger.register(&client, "s2", "first.bin", content("first.bin", 5_000)).await.expect("registered");
    installation.in_sync(&ledger, STEP_MAX).await;
    installation.take_down("s2.filesync").await;
    let disk = Mount::disk(&installation.state("s2"), DISK_BYTES);
    installation.bring_up("s2.filesync", &[]).await;
    answers(&installation, "s2").await;
    ledger.register(&client, "s2", "second.bin", content("second.bin", 5_000)).await.expect("registered");
    installation.in_sync(&ledger, STEP_MAX).await;

    disk.fill("filler", 0);
    let mut batch = 0;
    while conditions(&installation, "s2").await != ["DISK_FULL"] {
        assert!(batch < BATCHES_MAX, "an index that grows needs its disk");
        for number in 0..BATCH {
            let path = format!("tree/{batch}-{number}");
            ledger.register(&client, "s1", &path, content(&path, 2_000)).await.expect("registered");
        }
        batch += 1;
    }
    refused(&installation, &client, "DISK_FULL").await;
    ledger.delete(&client, "s3", "first.bin").await.expect("deleted");
    let (pid, child) = (installation.process("s2.filesync").await, "s2.filesync");
    installation.signal(child, nix::sys::signal::Signal::SIGKILL).await;
    wait::until("s2 is killed", STEP_MAX, || async {
        if installation.is_ours(pid) { Err("it runs") } else { Ok(()) }
    })
    .await;
    for number in 0..BATCH {
        let path = format!("more/{number}");
        ledger.register(&client, "s1", &path, content(&path, 2_000)).await.expect("registered");
    }
    fs::remove_file(installation.state("s2").join("filler")).expect("removed");
    recovered(&installation).await;
}

/// R1, R32, I1, I7, I10, I13, H8: a root that is mounted read-only under a running server is a condition before anybody
/// writes to it. Nothing is originated, copied or removed there, and calls are refused with the reason; writable again, the
/// server recovers by itself within a minute. The same at its start.
#[test]
fn a_root_that_becomes_read_only_recovers_by_itself() {
    in_own_mounts("disks::a_root_that_becomes_read_only_recovers_by_itself", read_only);
}

async fn read_only() {
    let installation = Installation::start(Options::every("1h")).await;
    let client = installation.client("publisher");
    let root = mounted(&installation, "s2", Mount::bind).await;
    let mut ledger = Ledger::default();
    for path in ["first.bin", "second.bin", "third.bin"] {
        ledger.register(&client, "s1", path, content(path, 5_000)).await.expect("registered");
    }
    installation.in_sync(&ledger, STEP_MAX).await;

    for (deleted, new, at_start) in [("first.bin", "fourth.bin", false), ("second.bin", "fifth.bin", true)] {
        if at_start {
            installation.take_down("s2.filesync").await;
        }
        root.remount("ro").await;
        if at_start {
            installation.bring_up("s2.filesync", &[]).await;
        }
        wait::until("s2 says that it is read-only", STEP_MAX, || async {
            let found = conditions(&installation, "s2").await;
            if found == ["STORE_READ_ONLY"] { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        refused(&installation, &client, "STORE_READ_ONLY").await;
        let request = addressed(ledger.deletion("third.bin"), "s2");
        let status = client.files().delete_file(request).await.expect_err("it may originate nothing");
        assert_eq!(lockstep_chassis::status::read(&status).reason.as_str(), "STORE_READ_ONLY");
        ledger.delete(&client, "s3", deleted).await.expect("deleted");
        ledger.register(&client, "s1", new, content(new, 5_000)).await.expect("registered");
        wait::until("s3 has it", STEP_MAX, || async {
            let is_right = fs::read(installation.transfer("s3").join(new)).is_ok();
            if is_right && !installation.transfer("s3").join(deleted).exists() {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await;
        let told = cells(&installation, "s2").await.into_iter().find(|(path, ..)| path == new);
        assert!(told.is_none_or(|cell| cell.1 != cell::State::InSync), "I10: {new}");
        let transfer = installation.transfer("s2");
        assert!(transfer.join(deleted).exists() && !transfer.join(new).exists(), "nothing is changed there");

        root.remount("rw").await;
        recovered(&installation).await;
    }
}

/// Gives the root of a server that is down another mount.
async fn mounted(installation: &Installation, server: &str, mount: impl FnOnce(&Path) -> Mount) -> Mount {
    let child = format!("{server}.filesync");
    installation.take_down(&child).await;
    let mount = mount(&installation.root(server));
    installation.bring_up(&child, &[]).await;
    answers(installation, server).await;
    mount
}

/// Waits until the filesync of a server answers, which takes longer than to have a process.
async fn answers(installation: &Installation, server: &str) {
    wait::until(format!("{server} is ready"), STEP_MAX, || async {
        let request = GetFileRequest { path: "none".to_owned() };
        let mut files = installation.client("viewer").files_at(&format!("{server}.filesync"));
        let status = files.get_file(request).await.expect_err("there is none");
        let reason = lockstep_chassis::status::read(&status).reason;
        if reason.as_str() == "FILE_NOT_FOUND" { Ok(()) } else { Err(reason) }
    })
    .await;
}

/// Everything is in sync, on disks and in indexes as well, and no condition is left.
async fn recovered(installation: &Installation) {
    let ledger = Ledger::listed(installation).await;
    installation.in_sync(&ledger, RECOVERED_MAX).await;
    wait::until("s2 is well", STEP_MAX, || async {
        let found = conditions(installation, "s2").await;
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    ledger.check_disks(installation);
    ledger.check_indexes(installation);
}

/// A registration at s2 is refused for this reason, and nothing of it is left.
async fn refused(installation: &Installation, client: &Client, reason: &str) {
    let request = addressed(registration("refused.bin", content("refused.bin", 1 << 20)), "s2");
    let status = client.files().register_file(request).await.expect_err("s2 cannot store anything");
    let failure = lockstep_chassis::status::read(&status);
    assert_eq!(failure.reason.as_str(), reason, "{failure}");
    let request = GetFileRequest { path: "refused.bin".to_owned() };
    client.files().get_file(request).await.expect_err("nothing is registered");
    for server in installation.servers() {
        assert!(!installation.transfer(&server).join("refused.bin").exists(), "on {server}");
    }
    let staged = fs::read_dir(installation.staging("s2")).expect("a directory").flatten();
    let staged: Vec<_> = staged.map(|entry| entry.file_name()).collect();
    let inline = staged.iter().filter(|name| name.to_string_lossy().starts_with("inline")).count();
    assert_eq!(inline, 0, "{staged:?}");
}

/// The reasons of what concerns a whole server.
async fn conditions(installation: &Installation, server: &str) -> Vec<String> {
    let client = installation.client("viewer");
    let answer = client.matrix().list_servers(ListServersRequest::default()).await.expect("listed");
    let known = answer.into_inner().servers.into_iter().find(|known| known.server_id == server);
    let conditions = known.expect("known").conditions.into_iter();
    conditions.filter_map(|condition| Some(condition.failure?.reason)).collect()
}

/// Every row: its path, the state on a server, and why.
async fn cells(installation: &Installation, server: &str) -> Vec<(String, cell::State, String)> {
    let (client, mut found, mut page_token) = (installation.client("viewer"), Vec::new(), String::new());
    loop {
        let request = ListRowsRequest { page_size: 500, page_token, ..ListRowsRequest::default() };
        let page = client.matrix().list_rows(request).await.expect("listed").into_inner();
        for row in page.rows {
            let cell = row.cells.into_iter().find(|cell| cell.server_id == server);
            let state = cell.as_ref().map_or(cell::State::Unspecified, |cell| cell.state());
            found.push((row.path, state, cell.and_then(|cell| cell.failure).unwrap_or_default().reason));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}
