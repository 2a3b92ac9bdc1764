//! People and disks that do what nobody registered: on real disks, found by the walk alone.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lockstep_proto::{
    filesync::v1::{InPlace, ListLooseFilesRequest, NewFile, RegisterFileRequest, new_file::Source},
    gateway::v1::{ListRowsRequest, cell},
};
use lockstep_tests::{
    harness::{Installation, Ledger, Options, addressed, wait},
    planted::PLANTED,
};

/// Copies that the walk has to look at. How long it takes for 10,000 is measured by `make bench`.
const FILES: usize = 1_000;
/// For everything to be everywhere, on a machine that does other things too.
const ALL_MAX: Duration = Duration::from_secs(180);
/// One version of the file that is written to all the time.
const VERSION_BYTES: usize = 64 << 10;
/// Registrations of a file that is written to.
const ATTEMPTS: usize = 24;

/// R2, R3, R4, R30, R31, R45, I10: 1,000 files registered in place as one directory; what then drifts, vanishes, rots and
/// lies loose on another server is found by the walk alone, with the settings that nobody changed. What vanished
/// and rotted is repaired, what drifted is left alone and settled by the command line, and what is loose is listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_finds_what_was_tampered_with() {
    let installation = Installation::start(Options::every("1h")).await;
    let tree = installation.transfer("s1").join("tree");
    for number in 0..FILES {
        let place = tree.join(format!("d{:02}/{number}", number % 50));
        fs::create_dir_all(place.parent().expect("a directory")).expect("made");
        fs::write(place, format!("content {number}")).expect("written");
    }
    let register = ["file", "register", "--in-place", "tree", "--server", "s1"];
    let told = installation.run(&[&register[..], &["--dry-run"]].concat()).await;
    assert!(told.contains(&format!("{FILES} files would be registered in place on s1")), "{told}");
    assert!(Ledger::listed(&installation).await.live().is_empty(), "a dry run registers nothing");
    installation.run(&register).await;
    let ledger = Ledger::listed(&installation).await;
    assert_eq!(ledger.live().len(), FILES);
    installation.in_sync(&ledger, ALL_MAX).await;

    let transfer = installation.transfer("s2");
    let (drifted, lost, rotten) = ("tree/d01/1", "tree/d02/2", "tree/d03/3");
    fs::write(transfer.join(drifted), "somebody's").expect("written");
    fs::remove_file(transfer.join(lost)).expect("removed");
    rot(&transfer.join(rotten));
    fs::write(transfer.join("loose.bin"), "loose").expect("written");
    wait::until("the drift is shown", ALL_MAX, || async {
        let (state, reason) = cell_of(&installation, drifted).await;
        if (state, reason.as_str()) == (cell::State::Failed, "DRIFTED") { Ok(()) } else { Err(reason) }
    })
    .await;
    wait::until("loss and rot are repaired", ALL_MAX, || async {
        let right = |path: &str, number: u8| {
            fs::read(transfer.join(path)).is_ok_and(|found| found == format!("content {number}").as_bytes())
        };
        if right(lost, 2) && right(rotten, 3) { Ok(()) } else { Err("not yet") }
    })
    .await;
    assert_eq!(fs::read(transfer.join(drifted)).expect("there"), b"somebody's", "left alone");
    let request = ListLooseFilesRequest { page_size: 500, ..ListLooseFilesRequest::default() };
    let loose = installation.client("viewer").stores().list_loose_files(addressed(request, "s2")).await;
    let loose = loose.expect("listed").into_inner().loose_files;
    assert_eq!(loose.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["loose.bin"]);
    assert!(!installation.transfer("s1").join("loose.bin").exists());

    installation.run(&["file", "restore", drifted, "--server", "s2"]).await;
    installation.in_sync(&ledger, ALL_MAX).await;
    assert_eq!(fs::read(transfer.join("loose.bin")).expect("there"), b"loose", "never touched");
    fs::remove_file(transfer.join("loose.bin")).expect("removed");
    ledger.check_disks(&installation);
    let aside = installation.run(&["file", "aside", "--server", "s2"]).await;
    for (path, why) in [(drifted, "DRIFTED"), (rotten, "STORED_CONTENT_CORRUPT")] {
        assert!(aside.lines().any(|line| line.contains(path) && line.contains(why)), "{aside}");
    }
    fs::write(transfer.join(drifted), "the new version").expect("written");
    installation.run(&["file", "update-version", drifted, "--server", "s2"]).await;
    wait::until("the new version is everywhere", ALL_MAX, || async {
        let right = ["s1", "s2", "s3"].iter().all(|server| {
            fs::read(installation.transfer(server).join(drifted))
                .is_ok_and(|found| found == b"the new version")
        });
        if right { Ok(()) } else { Err("not yet") }
    })
    .await;
    installation.in_sync(&Ledger::listed(&installation).await, ALL_MAX).await;
    installation.assert_no_alarms(&[
        "a copy drifted",
        "a copy is given up and fetched again",
        "not the ones that were verified",
        "set aside bytes",
    ]);
}

/// I2, I7, I8, R3, R70: a file that is written a hundred times a second while it is registered in place becomes one of its
/// versions or is refused, never a mixture; and one that is swapped again and again for a link, a pipe, a socket, a device
/// without an end or a second name of another file never becomes what that leads to, and keeps nobody waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_motion_is_registered_whole_or_not_at_all() {
    let installation = Installation::start(Options { servers: 1, ..Options::every("1h") }).await;
    let transfer = installation.transfer("s1");
    let versions: BTreeMap<String, u8> = (0..=u8::MAX)
        .map(|version| (blake3::hash(&vec![version; VERSION_BYTES]).to_hex().to_string(), version))
        .collect();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for attempt in 0..ATTEMPTS {
        let path = format!("moving-{attempt}");
        let place = transfer.join(&path);
        fs::write(&place, vec![0; VERSION_BYTES]).expect("written");
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (stop, file) = (Arc::clone(&stop), File::options().write(true).open(&place).expect("opened"));
            // Some end while they are read, the others after it.
            let last = if attempt % 2 == 0 { u8::try_from(attempt % 7).expect("small") } else { u8::MAX };
            move || {
                for version in 1..=last {
                    for piece in (0..VERSION_BYTES).step_by(4 << 10) {
                        file.write_all_at(&[version; 4 << 10], piece as u64).expect("written");
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        let outcome = register(&installation, &path, &versions).await;
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("it ends");
        *outcomes.entry(outcome).or_default() += 1;
    }
    eprintln!("{outcomes:?}");
    assert!(outcomes.keys().all(|outcome| ["registered", "CONTENT_CHANGED"].contains(&outcome.as_str())));
    assert_eq!(outcomes.len(), 2, "both were met");

    let secret = installation.root("s1").join("secret");
    fs::write(&secret, "secret").expect("written");
    let ours = BTreeMap::from([(blake3::hash(b"ours").to_hex().to_string(), 0)]);
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for attempt in 0..ATTEMPTS * PLANTED.len() {
        let (path, kind) = (format!("swapped-{attempt}"), PLANTED[attempt % PLANTED.len()]);
        let (place, spare) = (transfer.join(&path), installation.root("s1").join("spare"));
        fs::write(&place, "ours").expect("written");
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (stop, secret) = (Arc::clone(&stop), secret.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    kind.plant(&spare, &secret);
                    fs::rename(&spare, &place).expect("swapped");
                    fs::write(&spare, "ours").expect("written");
                    fs::rename(&spare, &place).expect("swapped");
                    // Long enough that a look finds a file, and what is opened after it is often none.
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        });
        let outcome = register(&installation, &path, &ours).await;
        stop.store(true, Ordering::Relaxed);
        swapper.join().expect("it ends");
        assert!(
            ["registered", "CONTENT_CHANGED", "NOT_REGULAR"].contains(&outcome.as_str()),
            "{kind:?}: {outcome}"
        );
        *outcomes.entry(format!("{kind:?} {outcome}")).or_default() += 1;
    }
    eprintln!("{outcomes:?}");
    assert_eq!(fs::read(&secret).expect("there"), b"secret");
}

/// Registers a file in place: `registered`, which must be one of `versions`, or the reason for which it was not.
async fn register(installation: &Installation, path: &str, versions: &BTreeMap<String, u8>) -> String {
    let file =
        NewFile { path: path.to_owned(), source: Some(Source::InPlace(InPlace {})), ..NewFile::default() };
    let request = RegisterFileRequest { file: Some(file), request_id: path.to_owned() };
    match installation.client("publisher").files().register_file(addressed(request, "s1")).await {
        Ok(answer) => {
            let file = answer.into_inner().file.expect("the contract says so");
            assert!(versions.contains_key(&file.digest), "{path} was never this");
            "registered".to_owned()
        }
        Err(status) => lockstep_chassis::status::read(&status).reason.to_string(),
    }
}

/// Flips a byte so that the times do not show it, as a disk does.
fn rot(place: &Path) {
    let modified = fs::metadata(place).and_then(|found| found.modified()).expect("there");
    let mut bytes = fs::read(place).expect("read");
    bytes[0] ^= 1;
    let file = File::options().write(true).open(place).expect("opened");
    file.write_all_at(&bytes, 0).expect("written");
    file.set_modified(modified).expect("set");
}

/// What the matrix says of a file on s2.
async fn cell_of(installation: &Installation, path: &str) -> (cell::State, String) {
    let request = ListRowsRequest { path_prefix: path.to_owned(), ..ListRowsRequest::default() };
    let rows = installation.client("viewer").matrix().list_rows(request).await.expect("listed").into_inner();
    let row = rows.rows.into_iter().find(|row| row.path == path).expect("a row");
    let cell = row.cells.into_iter().find(|cell| cell.server_id == "s2").expect("a cell");
    (cell.state(), cell.failure.map(|failure| failure.reason).unwrap_or_default())
}
