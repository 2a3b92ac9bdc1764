//! Bytes that go wrong on their way.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use lockstep_proto::{
    filesync::v1::GetFileRequest,
    gateway::v1::{ListRowsRequest, cell},
};
use lockstep_tests::harness::{Hold, Installation, Ledger, Monitor, Options, content, wait};

/// A small file, which travels in a batch.
const SMALL: usize = 5_000;
/// A large one, which travels alone.
const LARGE: usize = 40 << 20;
/// For one step to have its effect, on a machine that does other things too.
const STEP_MAX: Duration = Duration::from_secs(30);

/// I2, I6, I7, I10, R44: a byte that is flipped in the staging area of a receiver, before and after it was synced, or in the
/// published file of the server that gives it, never becomes IN_SYNC; it heals by itself. (On the wire TLS finds it, and
/// the simulation flips what arrives.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_never_become_in_sync() {
    let installation = Installation::start(Options::every("3s")).await;
    let client = installation.client("publisher");
    let monitor = Monitor::start(&installation, |path| {
        let size = path.rsplit('/').next()?.parse().ok()?;
        Some(blake3::hash(&content(path, size)).to_hex().to_string())
    });
    let mut ledger = Ledger::default();
    for (number, point) in ["filesync.fetch.written", "filesync.fetch.staged"].into_iter().enumerate() {
        for size in [SMALL, LARGE] {
            let hold = Hold::new(&installation, &format!("{number}-{size}"), point);
            installation.restart("s2.filesync", &hold.variables()).await;
            let path = format!("staged/{number}/{size}");
            register(&installation, &mut ledger, &path, size).await;
            // Not before it stands at the point: between the last byte and there, it is still read back.
            hold.reached().await;
            flip(&whole(&installation.staging("s2"), size).expect("its last byte is written"), size / 2);
            assert_ne!(state(&installation, &path, "s2").await, cell::State::InSync);
            hold.release();
            installation.in_sync(&ledger, STEP_MAX).await;
        }
    }
    ledger.check_disks(&installation);

    // The giver's file rots while nobody looks: same size, same times. Whoever asks for it is not given a wrong byte, and
    // the giver gets right ones from somebody else.
    installation.take_down("s3.filesync").await;
    let path = format!("published/{LARGE}");
    register(&installation, &mut ledger, &path, LARGE).await;
    wait::until("s2 has it", STEP_MAX, || async {
        match state(&installation, &path, "s2").await {
            cell::State::InSync => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // The matrix may say so of s1 until somebody reads the bytes, so the monitor is told.
    monitor.going(&path);
    rot(&installation.transfer("s1").join(&path), LARGE - 10);
    installation.bring_up("s3.filesync", &[]).await;
    wait::until("s3 has right bytes", STEP_MAX, || async {
        let found = fs::read(installation.transfer("s3").join(&path)).unwrap_or_default();
        if found.is_empty() {
            return Err("none yet");
        }
        assert!(found == content(&path, LARGE), "I2: s3 was given wrong bytes");
        Ok(())
    })
    .await;
    installation.in_sync(&ledger, STEP_MAX).await;
    let file = client
        .files()
        .get_file(GetFileRequest { path: path.clone() })
        .await
        .expect("found")
        .into_inner()
        .file;
    assert_eq!(
        file.expect("the contract says so").digest,
        blake3::hash(&content(&path, LARGE)).to_hex().to_string()
    );
    for server in ["s2", "s3"] {
        assert!(fs::read(installation.transfer(server).join(&path)).expect("there") == content(&path, LARGE));
    }
    assert!(monitor.end() > 0);
}

async fn register(installation: &Installation, ledger: &mut Ledger, path: &str, size: usize) {
    let source = installation.directory().join("source");
    fs::write(&source, content(path, size)).expect("written");
    installation.run(&["file", "register", source.to_str().expect("UTF-8"), path, "--server", "s1"]).await;
    let file = installation.client("viewer").files().get_file(GetFileRequest { path: path.to_owned() }).await;
    ledger.note(&file.expect("registered").into_inner().file.expect("the contract says so"));
}

/// What the matrix says of a file on a server.
async fn state(installation: &Installation, path: &str, server: &str) -> cell::State {
    let request = ListRowsRequest { path_prefix: path.to_owned(), ..ListRowsRequest::default() };
    let rows =
        installation.client("viewer").matrix().list_rows(request).await.expect("listed").into_inner().rows;
    let cell = rows.iter().flat_map(|row| &row.cells).find(|cell| cell.server_id == server);
    cell.map_or(cell::State::Unspecified, |cell| cell.state())
}

/// The one file in a staging directory, when all its bytes are there.
fn whole(staging: &Path, size: usize) -> Option<PathBuf> {
    let paths = fs::read_dir(staging).ok()?.flatten().map(|entry| entry.path());
    paths.into_iter().find(|path| fs::metadata(path).is_ok_and(|found| found.len() == size as u64))
}

fn flip(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).expect("read");
    file.write_all_at(&[!byte[0]], at as u64).expect("written");
}

/// Flips a byte so that the times do not show it, as a disk does.
fn rot(path: &Path, at: usize) {
    let modified = fs::metadata(path).and_then(|found| found.modified()).expect("there");
    flip(path, at);
    File::options().write(true).open(path).and_then(|file| file.set_modified(modified)).expect("set");
}
