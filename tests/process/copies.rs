//! Large files and wide trees, watched where they arrive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use lockstep_proto::{filesync::v1::GetFileRequest, gateway::v1::ListServersRequest};
use lockstep_tests::harness::{Installation, Ledger, Options, content, wait};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;

/// Bytes that are made and written at once.
const PIECE_BYTES: usize = 16 << 20;
/// One file of the tree.
const FILE_BYTES: usize = 4 << 10;
/// Large enough that its copy is seen while it is under way.
const HELD_UP_BYTES: usize = 384 << 20;
/// The longest wait for everything, on a machine that does other things too.
const ALL_MAX: Duration = Duration::from_secs(180);

/// R1, R5, I2, I6, I7: a file of 1 GiB and a tree of 10,000 × 4 KiB arrive verified, by rename only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_and_wide_trees_arrive_verified() {
    arrive(1 << 30, 10_000).await;
}

/// I7: final names appear by rename only, as inotify in the transfer directories of the receivers sees it: nobody ever
/// writes to one. Also not while a server is killed in the middle of copying, and when it goes on after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn final_names_appear_by_rename_only() {
    let installation = arrive(3 << 20, 400).await;
    let mut ledger = Ledger::listed(&installation).await;
    let watches = ["s2", "s3"].map(|server| Watch::start(&installation.transfer(server)));
    let large = installation.directory().join("again.bin");
    write_large(&large, 140 << 20);
    let registered = {
        let mut command = installation.command(&[
            "file",
            "register",
            large.to_str().expect("UTF-8"),
            "again.bin",
            "--server",
            "s1",
        ]);
        tokio::task::spawn_blocking(move || command.output())
    };
    wait::until("s2 has begun to copy", ALL_MAX, || async {
        let some = fs::read_dir(installation.staging("s2")).is_ok_and(|mut entries| entries.next().is_some());
        if some { Ok(()) } else { Err("no") }
    })
    .await;
    installation.kill("s2.filesync").await;
    let output = registered.await.expect("no panic").expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file =
        installation.client("viewer").files().get_file(GetFileRequest { path: "again.bin".to_owned() }).await;
    ledger.note(&file.expect("registered").into_inner().file.expect("the contract says so"));
    installation.in_sync(&ledger, ALL_MAX).await;
    ledger.check_disks(&installation);
    for watch in watches {
        watch.end(&BTreeSet::from(["again.bin".to_owned()])).await;
    }
}

/// R1, R23, R32, I10: while a large copy is under way, held up in its middle because its only source was stopped, a small
/// file and a deletion get through to the servers that are copying; then the copy goes on and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_and_deletions_pass_a_large_copy() {
    let alone = |server: &str| {
        // Sent on while it arrives, it would be everywhere before it is registered.
        (format!("{server}.filesync"), "FILESYNC_RELAY_BYTES_MIN".to_owned(), u64::MAX.to_string())
    };
    let options = Options { environment: vec![alone("s1")], ..Options::every("1h") };
    let installation = Installation::start(options).await;
    let client = installation.client("publisher");
    let mut ledger = Ledger::default();
    ledger.register(&client, "s3", "old.bin", content("old.bin", FILE_BYTES)).await.expect("registered");
    installation.in_sync(&ledger, ALL_MAX).await;
    let source = installation.directory().join("large.bin");
    write_large(&source, HELD_UP_BYTES);
    installation
        .run(&["file", "register", source.to_str().expect("UTF-8"), "large.bin", "--server", "s1"])
        .await;
    wait::until("s2 and s3 copy", ALL_MAX, || async {
        let copied = [copied(&installation, "s2").await, copied(&installation, "s3").await];
        if copied.iter().all(Option::is_some) { Ok(()) } else { Err(format!("{copied:?}")) }
    })
    .await;
    installation.pause("s1.filesync").await;

    let small = ledger.register(&client, "s3", "small.bin", content("small.bin", FILE_BYTES)).await;
    let small = small.expect("registered while s1 says nothing").digest;
    ledger.delete(&client, "s2", "old.bin").await.expect("deleted while s1 says nothing");
    wait::until("both get through", ALL_MAX, || async {
        let done = |server: &str| {
            let transfer = installation.transfer(server);
            let digest =
                fs::read(transfer.join("small.bin")).map(|bytes| blake3::hash(&bytes).to_hex().to_string());
            assert!(!transfer.join("large.bin").exists(), "{server} had the large file before");
            digest.is_ok_and(|digest| digest == small) && !transfer.join("old.bin").exists()
        };
        if done("s2") && done("s3") { Ok(()) } else { Err("not yet") }
    })
    .await;
    let request = GetFileRequest { path: "large.bin".to_owned() };
    installation.signal("s1.filesync", Signal::SIGCONT).await;
    let file = client.files().get_file(request).await.expect("registered").into_inner().file;
    ledger.note(&file.expect("the contract says so"));
    installation.in_sync(&ledger, ALL_MAX).await;
    ledger.check_disks(&installation);
    ledger.check_indexes(&installation);
}

/// How much of a file of which a server has some, and not all, it has by now.
async fn copied(installation: &Installation, server: &str) -> Option<i64> {
    let client = installation.client("viewer");
    let servers =
        client.matrix().list_servers(ListServersRequest::default()).await.expect("listed").into_inner();
    let known = servers.servers.into_iter().find(|known| known.server_id == server)?;
    let copied = known.transfers.first()?.copied_bytes;
    (copied > 0).then_some(copied)
}

/// Registers one large file and a tree on s1; what s2 and s3 get is watched and compared.
async fn arrive(large_bytes: usize, files: usize) -> Installation {
    let installation = Installation::start(Options::every("1h")).await;
    let directories = (files / 100).max(1);
    let name = |number: usize| format!("d{:03}/{number:05}.bin", number % directories);
    let source = installation.directory().join("source");
    let (first, rest, large) = (source.join("first"), source.join("rest"), source.join("large.bin"));
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for number in 0..files {
        // The first of each directory goes ahead, so that every directory is watched before the others arrive.
        let path = if number < directories { &first } else { &rest }.join(name(number));
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        let bytes = content(&name(number), FILE_BYTES);
        expected.insert(format!("tree/{}", name(number)), blake3::hash(&bytes).to_hex().to_string());
        fs::write(path, bytes).expect("written");
    }
    expected.insert("large.bin".to_owned(), write_large(&large, large_bytes));

    let register = |source: &Path, path: &str| {
        let args = ["file", "register", source.to_str().expect("UTF-8"), path, "--server", "s1"];
        let args = args.map(str::to_owned);
        let installation = &installation;
        async move { installation.run(&args.each_ref().map(String::as_str)).await }
    };
    let begun = Instant::now();
    register(&first, "tree").await;
    installation.in_sync(&Ledger::listed(&installation).await, ALL_MAX).await;
    let watches = ["s2", "s3"].map(|server| Watch::start(&installation.transfer(server)));
    let (at_large, at_tree) = (register(&large, "large.bin"), register(&rest, "tree"));
    tokio::join!(at_large, at_tree);
    let registered = begun.elapsed();
    let ledger = Ledger::listed(&installation).await;
    let listed: BTreeMap<String, String> =
        ledger.live().iter().map(|(path, entry)| (path.clone(), entry.digest.clone())).collect();
    assert!(listed == expected, "what is registered is not what was given");
    installation.in_sync(&ledger, ALL_MAX).await;
    eprintln!(
        "{large_bytes} bytes and {files} files: registered after {registered:?}, in sync after {:?}",
        begun.elapsed()
    );
    ledger.check_disks(&installation);
    ledger.check_indexes(&installation);
    let seeds: BTreeSet<String> = (0..directories).map(|number| format!("tree/{}", name(number))).collect();
    let watched: BTreeSet<String> = expected.into_keys().filter(|path| !seeds.contains(path)).collect();
    for watch in watches {
        watch.end(&watched).await;
    }
    installation.assert_no_alarms(&[]);
    installation
}

/// Writes a file whose bytes belong to its size, and answers its digest.
fn write_large(path: &Path, size: usize) -> String {
    let (mut file, mut hasher) = (File::create(path).expect("made"), blake3::Hasher::new());
    let mut bytes = blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof();
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = size;
    while left > 0 {
        let now = left.min(PIECE_BYTES);
        bytes.fill(&mut piece[..now]);
        hasher.update(&piece[..now]);
        file.write_all(&piece[..now]).expect("written");
        left -= now;
    }
    hasher.finalize().to_hex().to_string()
}

/// Watches a transfer directory with inotify, and every directory below it as soon as it appears.
struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// How often each file appeared by rename.
    moved: BTreeMap<String, usize>,
    /// Whatever must not happen.
    wrong: Vec<String>,
}

impl Watch {
    fn start(root: &Path) -> Self {
        let inotify = Inotify::init().expect("inotify");
        let mut names = BTreeMap::new();
        add(&mut inotify.watches(), root, &mut names);
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (shared, root) = (Arc::clone(&seen), root.to_owned());
        let task = tokio::spawn(async move {
            let mut events = inotify.into_event_stream(vec![0; 1 << 20]).expect("a stream");
            while let Some(event) = events.next().await {
                let event = event.expect("an event");
                let directory = names.get(&event.wd).cloned().unwrap_or_default();
                let name = event.name.unwrap_or_default().to_string_lossy().into_owned();
                let path: PathBuf = directory.join(&name);
                let text = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
                if event.mask.contains(EventMask::ISDIR) {
                    if event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
                        add(&mut events.watches(), &path, &mut names);
                    }
                    continue;
                }
                let mut seen = shared.lock().expect("no panic");
                if event.mask.contains(EventMask::MOVED_TO) {
                    *seen.moved.entry(text).or_default() += 1;
                } else if event.mask.intersects(
                    EventMask::CREATE | EventMask::MODIFY | EventMask::CLOSE_WRITE | EventMask::Q_OVERFLOW,
                ) {
                    seen.wrong.push(format!("{:?} of {text}", event.mask));
                }
            }
        });
        Self { seen, task }
    }

    /// Waits until every one of `paths` appeared once, by rename.
    async fn end(self, paths: &BTreeSet<String>) {
        wait::until("inotify told everything", Duration::from_secs(10), || async {
            let seen = self.seen.lock().expect("no panic");
            assert!(seen.wrong.is_empty(), "I7: {:?}", &seen.wrong[..seen.wrong.len().min(10)]);
            match paths.iter().find(|path| !seen.moved.contains_key(*path)) {
                Some(path) => Err(format!("{path} has not appeared")),
                None => Ok(()),
            }
        })
        .await;
        self.task.abort();
        let seen = self.seen.lock().expect("no panic");
        let twice: Vec<_> = seen
            .moved
            .iter()
            .filter(|(path, count)| **count != 1 || !paths.contains(path.as_str()))
            .take(5)
            .collect();
        assert!(twice.is_empty(), "appeared more than once, or out of nowhere: {twice:?}");
    }
}

/// Watches a directory and what is below it: a directory may be filled before it is watched, but never by writing.
fn add(watches: &mut inotify::Watches, path: &Path, names: &mut BTreeMap<WatchDescriptor, PathBuf>) {
    let mask = WatchMask::CREATE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::ONLYDIR;
    // It may be gone again.
    let Ok(watch) = watches.add(path, mask) else { return };
    names.insert(watch, path.to_owned());
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add(watches, &entry.path(), names);
        }
    }
}
