//! One suite for each port, passed by the real adapter and by the one of the simulation: whatever the engine may rely on
//! is here.

use bytes::Bytes;
use filesync::{
    adapters::{
        index_memory::MemoryIndex, index_sqlite::SqliteIndex, store_fs::FsStore, store_memory::MemoryStore,
    },
    domain::{
        aside::AsideNote,
        exception::{Missing, Obstacle},
        held::{Held, StagedName, Stat, Wanted},
        intent::Intent,
        tree::{Groups, TreeHasher},
    },
    ports::{Algorithms, Entry, EntryKind, Index, Place, Remembered, Store, StoreError, Tree, Upload, Write},
};
use jiff::Timestamp;
use lockstep_model::{
    Digest, FileId, FilePath, Md5, Position, Reason, Revision, StoreId, UploadId, clock::SystemEntropy,
    position::Epoch,
};
use md5::Digest as _;

fn path(text: &str) -> FilePath {
    text.parse().expect("a valid path")
}

fn staged(text: &str) -> StagedName {
    StagedName::found(text)
}

async fn put(store: &impl Store, at: &str, bytes: &'static [u8]) -> Stat {
    let name = staged("put");
    store.stage(vec![(name.clone(), Bytes::from_static(bytes))]).await.expect("staged");
    store
        .sync(vec![(name.clone(), Some(Timestamp::from_second(1_700_000_000).expect("in range")))])
        .await
        .expect("synced");
    store.publish(vec![(name, path(at))]).await.expect("published").remove(0).expect("free")
}

async fn published(store: &impl Store, at: &str) -> Option<Bytes> {
    store.read(Place::Published(path(at)), 0, 1 << 20).await.ok()
}

/// R70, I8: the store belongs to one server, and a root without its marker is refused.
async fn a_store_is_claimed_once(store: impl Store) {
    let fresh = StoreId::random(&SystemEntropy);
    assert_eq!(store.claim(None, fresh).await, Ok(fresh));
    assert_eq!(store.claim(Some(fresh), StoreId::random(&SystemEntropy)).await, Ok(fresh));
}

/// R5, I7: a final name appears whole, at any depth, with the given modification time, and never replaces anything.
async fn publishing_gives_whole_files_final_names(store: impl Store) {
    claim(&store).await;
    let stat = put(&store, "a/b/c/file.bin", b"hello").await;
    assert_eq!((stat.size_bytes, stat.modified_ns), (5, 1_700_000_000_000_000_000));
    assert_eq!(published(&store, "a/b/c/file.bin").await.as_deref(), Some(&b"hello"[..]));
    assert_eq!(store.stat(vec![path("a/b/c/file.bin")]).await.expect("looked").remove(0), Ok(Some(stat)));
    store.stage(vec![(staged("other"), Bytes::from_static(b"other"))]).await.expect("staged");
    let again =
        store.publish(vec![(staged("other"), path("a/b/c/file.bin"))]).await.expect("tried").remove(0);
    assert!(matches!(again, Err(StoreError::Occupied { .. })), "{again:?}");
    assert_eq!(published(&store, "a/b/c/file.bin").await.as_deref(), Some(&b"hello"[..]));
}

/// I2: hashing reads what is there now, in one pass for all digests.
async fn hashing_reads_what_is_there(store: impl Store) {
    claim(&store).await;
    let content = vec![7; 3 << 20];
    let mut stat = store.truncate(&staged("big"), 0).await.expect("made");
    for chunk in content.chunks(1 << 20) {
        let before = stat;
        let data = || Bytes::copy_from_slice(chunk);
        stat = store.append(&staged("big"), before, data()).await.expect("written");
        let other = store.append(&staged("big"), before, data()).await;
        assert!(matches!(other, Err(StoreError::Changed { .. })), "written by somebody else: {other:?}");
    }
    store.let_go(&staged("big"), stat.size_bytes).await.expect("a hint");
    let wanted = Algorithms { md5: true, sha256: true };
    let hashed = store.hash(vec![staged("big"), staged("absent")], wanted).await.expect("hashed");
    let big = hashed[0].as_ref().expect("present");
    assert_eq!(big.digest, Digest::of(&content));
    assert!(big.groups.belong_to(big.digest, content.len() as u64));
    assert_eq!(big.md5.expect("wanted"), Md5::from_bytes(md5::Md5::digest(&content).into()));
    assert!(big.sha256.is_some() && hashed[1].is_none());
    store.truncate(&staged("big"), 1 << 20).await.expect("cut");
    let cut = store
        .hash(vec![staged("big")], Algorithms::default())
        .await
        .expect("hashed")
        .remove(0)
        .expect("present");
    assert_eq!(cut.digest, Digest::of(&content[..1 << 20]));
}

/// R32: withdrawing takes a file away whole, and only what is there.
async fn withdrawing_takes_files_away(store: impl Store) {
    claim(&store).await;
    put(&store, "d/one", b"1").await;
    put(&store, "d/two", b"2").await;
    let taken = store
        .withdraw(vec![(path("d/one"), staged("t1")), (path("d/none"), staged("t2"))])
        .await
        .expect("tried");
    assert!(taken[0].is_ok() && matches!(taken[1], Err(StoreError::Absent { .. })), "{taken:?}");
    assert_eq!(published(&store, "d/one").await, None);
    assert_eq!(published(&store, "d/two").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(
        store.read(Place::Staged(staged("t1")), 0, 10).await.expect("staged"),
        Bytes::from_static(b"1")
    );
    store.set_aside(staged("t1"), note("d/one")).await.expect("kept");
    assert!(store.staged().await.expect("listed").is_empty());
    store.withdraw(vec![(path("d/two"), staged("t3"))]).await.expect("tried").remove(0).expect("taken");
    store.discard(vec![staged("t3"), staged("absent")]).await.expect("discarded");
    put(&store, "d", b"a file where a directory was").await;
}

/// R29: an exchange swaps whole files, only with a file that is there, and keeps what it displaced.
async fn an_exchange_swaps_whole_files(store: impl Store) {
    claim(&store).await;
    put(&store, "d/one", b"old").await;
    store.stage(vec![(staged("new"), Bytes::from_static(b"newer"))]).await.expect("staged");
    store.sync(vec![(staged("new"), None)]).await.expect("synced");
    let swapped = store
        .exchange(vec![(staged("new"), path("d/one")), (staged("new"), path("d/none"))])
        .await
        .expect("tried");
    assert_eq!(swapped[0].as_ref().map(|stat| stat.size_bytes), Ok(5));
    assert!(matches!(swapped[1], Err(StoreError::Absent { .. })), "{swapped:?}");
    assert_eq!(published(&store, "d/one").await.as_deref(), Some(&b"newer"[..]));
    let displaced = store.read(Place::Staged(staged("new")), 0, 10).await.expect("staged");
    assert_eq!(displaced, Bytes::from_static(b"old"));
}

/// R38: a file gets another path as it is; nothing is replaced, what is missing is made, what became empty goes.
async fn relocating_renames_files(store: impl Store) {
    claim(&store).await;
    let stat = put(&store, "a/b/one", b"1").await;
    put(&store, "a/two", b"2").await;
    let pairs = [("a/b/one", "x/y/one"), ("a/two", "x/y/one"), ("a/none", "n"), ("x/y/one", "a/b/three")];
    let moved = store.relocate(pairs.map(|(from, to)| (path(from), path(to))).into()).await.expect("tried");
    assert!(moved[0].as_ref().is_ok_and(|moved| moved.same_content(&stat)), "{moved:?}");
    assert!(matches!(moved[1], Err(StoreError::Occupied { .. })), "{moved:?}");
    assert!(matches!(moved[2], Err(StoreError::Absent { .. })), "{moved:?}");
    assert!(moved[3].is_ok(), "one after the other: {moved:?}");
    assert_eq!(published(&store, "a/b/three").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(published(&store, "a/two").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(published(&store, "a/b/one").await, None);
    put(&store, "x", b"the directories are gone").await;
}

/// R23: a path at which the disk says no is refused by name, whatever is done there, and keeps nothing from its neighbours.
async fn a_path_that_is_refused_is_one_of_many<S: Store>(store: S, refuse: impl Fn(&S, &str, bool)) {
    claim(&store).await;
    for at in ["d/good", "d/bad", "e/good", "e/bad"] {
        put(&store, at, b"old").await;
    }
    let refused = |result: Result<(), StoreError>| {
        assert!(
            matches!(&result, Err(StoreError::Refused { path, .. }) if path.contains("bad")),
            "{result:?}"
        );
    };
    refuse(&store, "d/bad", true);
    refuse(&store, "e/bad", true);
    let out = [("d/bad", "t1"), ("d/good", "t2")].map(|(at, name)| (path(at), staged(name)));
    let [bad, good] = store.withdraw(out.into()).await.expect("tried").try_into().expect("two");
    refused(bad);
    assert_eq!(good, Ok(()));
    let [bad, good] = store
        .relocate(vec![(path("e/bad"), path("f/bad")), (path("e/good"), path("f/good"))])
        .await
        .expect("tried")
        .try_into()
        .expect("two");
    refused(bad.map(drop));
    assert!(good.is_ok(), "{good:?}");
    store.stage(vec![(staged("n"), Bytes::from_static(b"new"))]).await.expect("staged");
    store.sync(vec![(staged("n"), None)]).await.expect("synced");
    refused(store.exchange(vec![(staged("n"), path("d/bad"))]).await.expect("tried").remove(0).map(drop));
    refused(store.displace(staged("id"), note("d/bad")).await);
    for at in ["d/bad", "e/bad"] {
        assert_eq!(published(&store, at).await.as_deref(), Some(&b"old"[..]), "read all the same");
        refuse(&store, at, false);
    }
    store.withdraw(vec![(path("d/bad"), staged("t3"))]).await.expect("tried").remove(0).expect("again");
}

fn note(at: &str) -> AsideNote {
    let why = Obstacle { reason: Reason::LooseFileExists, message: "it was in the way".to_owned() };
    let time = Timestamp::from_second(1_700_000_000).expect("in range");
    AsideNote { path: path(at), why, time, digest: None }
}

/// R16: what is in the way is kept with where it was and why, and can be brought back to a free path, or dropped.
async fn what_is_set_aside_is_kept_with_its_story(store: impl Store) {
    claim(&store).await;
    put(&store, "d/one", b"1").await;
    put(&store, "two", b"22").await;
    store.displace(staged("id-1"), note("d/one")).await.expect("moved");
    store.displace(staged("id-2"), note("two")).await.expect("moved");
    let nothing = store.displace(staged("id-3"), note("three")).await;
    assert!(matches!(nothing, Err(StoreError::Absent { .. })), "{nothing:?}");
    assert_eq!((published(&store, "d/one").await, published(&store, "two").await), (None, None));
    let kept = store.aside().await.expect("listed");
    let told: Vec<_> = kept.iter().map(|file| (file.id.as_str(), file.size_bytes)).collect();
    assert_eq!(told, [("id-1", 1), ("id-2", 2)]);
    let first = kept[0].note.clone().expect("a note");
    assert_eq!(first, AsideNote { digest: Some(Digest::of(b"1")), ..note("d/one") });

    put(&store, "taken", b"taken").await;
    let taken = store.bring_back(staged("id-1"), path("taken")).await;
    assert!(matches!(taken, Err(StoreError::Occupied { .. })), "{taken:?}");
    store.bring_back(staged("id-1"), path("e/f/again")).await.expect("free");
    assert_eq!(published(&store, "e/f/again").await.as_deref(), Some(&b"1"[..]));
    store.drop_aside(staged("id-2")).await.expect("dropped");
    for gone in ["id-1", "id-2"] {
        let again = store.drop_aside(staged(gone)).await;
        assert!(matches!(again, Err(StoreError::Absent { .. })), "{again:?}");
        let again = store.bring_back(staged(gone), path("x")).await;
        assert!(matches!(again, Err(StoreError::Absent { .. })), "{again:?}");
    }
    assert_eq!(store.aside().await, Ok(Vec::new()));

    // One staged name again and again, as with a file that is displaced more than once.
    for bytes in [&b"first"[..], b"second"] {
        store.stage(vec![(staged("same"), Bytes::copy_from_slice(bytes))]).await.expect("staged");
        store.set_aside(staged("same"), note("two")).await.expect("kept");
    }
    let kept = store.aside().await.expect("listed");
    let digests: Vec<_> = kept.into_iter().map(|file| file.note.expect("a note").digest).collect();
    assert_eq!(digests, [Some(Digest::of(b"first")), Some(Digest::of(b"second"))]);
}

/// R3, R4: what lies in the tree is seen, directory by directory, and hashed where it lies.
async fn what_lies_there_is_seen_and_hashed(store: impl Store) {
    claim(&store).await;
    let stat = put(&store, "a/b/file", b"hello").await;
    put(&store, "top", b"top").await;
    let mut names = store.entries(String::new()).await.expect("listed");
    names.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = names.into_iter().map(|entry| (entry.name, entry.kind)).collect();
    assert_eq!(names, [("a".to_owned(), EntryKind::Directory), ("top".to_owned(), EntryKind::File)]);
    let below = store.entries("a/b".to_owned()).await.expect("listed");
    assert_eq!(below, [Entry { name: "file".to_owned(), kind: EntryKind::File }]);
    assert!(store.entries("a/none".to_owned()).await.is_err());
    let paths = vec![path("a/b/file"), path("a/none")];
    let seen = store.inspect(paths.clone()).await.expect("looked");
    assert_eq!(seen[0], Ok(stat));
    assert!(matches!(seen[1], Err(StoreError::Absent { .. })), "{seen:?}");
    let wanted = Algorithms { md5: true, sha256: false };
    let hashed = store.hash_in_place(paths, wanted).await.expect("read");
    let right = hashed[0].as_ref().expect("there");
    assert_eq!((right.digest, right.stat), (Digest::of(b"hello"), stat));
    assert!(right.md5.is_some() && matches!(hashed[1], Err(StoreError::Absent { .. })), "{hashed:?}");
    store.verify().await.expect("it is the store that was claimed");
}

async fn claim(store: &impl Store) {
    store.claim(None, StoreId::random(&SystemEntropy)).await.expect("claimed");
}

fn held(content: &[u8]) -> Held {
    let stat = Stat { size_bytes: content.len() as u64, modified_ns: 5, changed_ns: 6 };
    Held { file_id: FileId::random(&SystemEntropy), revision: Revision(3), digest: Digest::of(content), stat }
}

fn wanted(at: &str) -> Wanted {
    Wanted {
        path: path(at),
        file_id: FileId::random(&SystemEntropy),
        revision: Revision(9),
        digest: Digest::of(b"x"),
        md5: Md5::from_bytes([1; 16]),
        size_bytes: 1,
        registered_time: Timestamp::from_second(1).expect("in range"),
        origin: "s1".parse().expect("valid"),
        placement: lockstep_model::record::Placement::All,
        traceparent: "00-1-2-01".into(),
    }
}

/// I1, I4: what was applied is there after a restart, all of it, in one transaction each.
async fn an_index_keeps_what_it_was_told<I: Index>(index: I, reopen: impl AsyncFn(I) -> I) {
    let position = Position::start(Epoch(uuid::Uuid::new_v4()));
    let store = StoreId::random(&SystemEntropy);
    let (one, two) = (held(b"one"), held(b"two"));
    let missing = Missing::new(wanted("m"));
    let upload =
        Upload { id: UploadId::random(&SystemEntropy), caller: "operator/local".into(), size_bytes: 12 };
    let intent = Intent::Delete { path: path("a"), staged: staged("s"), digest: one.digest };
    let groups = groups(&[9; 2 << 20]);
    let request = |id: &str, is_done| Remembered {
        caller: "operator/local".into(),
        id: id.into(),
        fingerprint: "restore a".into(),
        is_done,
        answer: "a".into(),
    };
    index
        .apply(vec![
            Write::Position(position),
            Write::Store(store),
            Write::Hold(path("a"), one.clone()),
            Write::Hold(path("b"), two.clone()),
            Write::Release(path("b")),
            Write::Miss(missing.clone()),
            Write::Intend(7, intent.clone()),
            Write::Intend(8, intent.clone()),
            Write::Settle(8),
            Write::Journal(staged("j"), 64 << 20),
            Write::Groups(one.digest, groups.clone()),
            Write::Upload(upload.clone()),
            Write::Scrubbed(path("a")),
            Write::Remember(request("r", false)),
            Write::Remember(request("r", true)),
            Write::Remember(request("refused", false)),
            Write::Unremember { caller: "operator/local".into(), id: "refused".into() },
        ])
        .await
        .expect("applied");
    let index = reopen(index).await;
    let loaded = index.load().await.expect("loaded");
    assert_eq!((loaded.position, loaded.store), (Some(position), Some(store)));
    assert_eq!(loaded.held, [(path("a"), one.clone())]);
    assert_eq!(loaded.missing, [missing]);
    assert_eq!(loaded.intents, [(7, intent)]);
    assert_eq!(loaded.journal, [(staged("j"), 64 << 20)]);
    assert_eq!(loaded.uploads, std::slice::from_ref(&upload));
    assert_eq!(loaded.scrubbed, Some(path("a")));
    assert_eq!(index.groups(one.digest).await.expect("read"), Some(groups));
    assert_eq!(index.load_journal(staged("j")).await.expect("read"), Some(64 << 20));
    let known = async |id: &str| index.find_request("operator/local".into(), id.into()).await.expect("read");
    assert_eq!((known("r").await, known("refused").await), (Some(request("r", true)), None));
    assert_eq!(index.find_request("another".into(), "r".into()).await.expect("read"), None);
    let undo = vec![
        Write::Clear(path("m")),
        Write::Unjournal(staged("j")),
        Write::Ungroup(one.digest),
        Write::EndUpload(upload.id),
        Write::Settle(7),
    ];
    index.apply(undo).await.expect("applied");
    let loaded = reopen(index).await.load().await.expect("loaded");
    assert!(loaded.missing.is_empty() && loaded.journal.is_empty() && loaded.uploads.is_empty());
    assert!(loaded.intents.is_empty());
}

fn groups(content: &[u8]) -> Groups {
    let mut hasher = TreeHasher::default();
    hasher.update(content);
    hasher.finish().1
}

macro_rules! store_suite {
    ($($property:ident)*) => {
        mod on_disk {
            use super::*;
            $(#[doc = concat!("H13: `", stringify!($property), "` on a real file system.")]
            #[tokio::test]
            async fn $property() {
                let root = tempfile::tempdir().expect("a directory");
                super::$property(FsStore::new(root.path(), 0)).await;
            })*
        }

        mod in_memory {
            use super::*;
            $(#[doc = concat!("H13: `", stringify!($property), "` in the simulation.")]
            #[tokio::test]
            async fn $property() {
                super::$property(MemoryStore::new(1 << 30)).await;
            })*
        }
    };
}

store_suite! {
    a_store_is_claimed_once
    publishing_gives_whole_files_final_names
    hashing_reads_what_is_there
    withdrawing_takes_files_away
    an_exchange_swaps_whole_files
    relocating_renames_files
    what_is_set_aside_is_kept_with_its_story
    what_lies_there_is_seen_and_hashed
}

/// H13, I1: the index on disk, closed and opened again.
#[tokio::test]
async fn an_index_on_disk_keeps_what_it_was_told() {
    let state = tempfile::tempdir().expect("a directory");
    let file = state.path().join("index.sqlite");
    let reopen = async |index: SqliteIndex| {
        drop(index);
        SqliteIndex::open(&file).expect("opened again")
    };
    an_index_keeps_what_it_was_told(SqliteIndex::open(&file).expect("opened"), reopen).await;
}

/// H13, I1: the index of the simulation.
#[tokio::test]
async fn an_index_in_memory_keeps_what_it_was_told() {
    an_index_keeps_what_it_was_told(MemoryIndex::default(), async |index: MemoryIndex| index).await;
}

/// H13: `a_path_that_is_refused_is_one_of_many` on a real file system, with an attribute that binds even root.
#[tokio::test]
async fn a_path_that_is_refused_on_disk_is_one_of_many() {
    let root = tempfile::tempdir().expect("a directory");
    let transfer = root.path().join("ums_filetransfer");
    let refuse = |_: &FsStore, at: &str, refuses: bool| {
        let (flag, place) = (if refuses { "+i" } else { "-i" }, transfer.join(at));
        let done =
            std::process::Command::new("chattr").arg(flag).arg(place).status().expect("chattr is there");
        assert!(done.success(), "this test needs root, and a file system with attributes for {root:?}");
    };
    a_path_that_is_refused_is_one_of_many(FsStore::new(root.path(), 0), refuse).await;
}

/// H13: `a_path_that_is_refused_is_one_of_many` in the simulation.
#[tokio::test]
async fn a_path_that_is_refused_in_memory_is_one_of_many() {
    let refuse = |store: &MemoryStore, at: &str, refuses: bool| store.refuse(&path(at), refuses);
    a_path_that_is_refused_is_one_of_many(MemoryStore::new(1 << 30), refuse).await;
}

/// R70, I8: a link in the tree is never followed, neither to read nor to write, wherever it points.
#[tokio::test]
async fn links_are_never_followed() {
    let (root, outside) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = FsStore::new(root.path(), 0);
    claim(&store).await;
    std::fs::write(outside.path().join("secret"), b"secret").expect("written");
    let transfer = root.path().join("ums_filetransfer");
    std::os::unix::fs::symlink(outside.path(), transfer.join("dir")).expect("linked");
    std::os::unix::fs::symlink(outside.path().join("secret"), transfer.join("file")).expect("linked");
    assert_eq!(published(&store, "dir/secret").await, None);
    assert_eq!(published(&store, "file").await, None);
    store.stage(vec![(staged("s"), Bytes::from_static(b"new"))]).await.expect("staged");
    for at in ["dir/new", "file", "file/new"] {
        let result = store.publish(vec![(staged("s"), path(at))]).await.expect("tried").remove(0);
        assert!(result.is_err(), "{at}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).expect("listed").count(), 1);
    assert_eq!(std::fs::read(outside.path().join("secret")).expect("read"), b"secret");
}

/// R70, I8: whatever is no regular file with one name is refused where it lies, without opening it.
#[tokio::test]
async fn only_regular_files_are_hashed_in_place() {
    let root = tempfile::tempdir().expect("a directory");
    let store = FsStore::new(root.path(), 0);
    claim(&store).await;
    let transfer = root.path().join("ums_filetransfer");
    std::fs::write(root.path().join("outside"), b"outside").expect("written");
    std::fs::write(transfer.join("file"), b"file").expect("written");
    std::fs::hard_link(transfer.join("file"), transfer.join("second-name")).expect("linked");
    std::os::unix::fs::symlink("file", transfer.join("link")).expect("linked");
    std::os::unix::fs::symlink("../..", transfer.join("up")).expect("linked");
    std::fs::create_dir(transfer.join("directory")).expect("made");
    let _socket = std::os::unix::net::UnixListener::bind(transfer.join("socket")).expect("bound");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        transfer.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("made");
    // Its bytes never end: whoever reads it never ends either. It needs root, which CI is.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        transfer.join("device"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o644),
        rustix::fs::makedev(1, 5),
    )
    .expect("made");
    for at in ["file", "second-name", "link", "up/outside", "directory", "socket", "pipe", "device"] {
        let seen = store.inspect(vec![path(at)]).await.expect("looked").remove(0);
        assert!(matches!(seen, Err(StoreError::Foreign { .. })), "{at}: {seen:?}");
        let hashed = store.hash_in_place(vec![path(at)], Algorithms::default()).await.expect("tried");
        assert!(matches!(hashed[0], Err(StoreError::Foreign { .. })), "{at}: {hashed:?}");
    }
    let listed = store.entries(String::new()).await.expect("listed");
    let kinds: std::collections::BTreeMap<_, _> = listed.into_iter().map(|e| (e.name, e.kind)).collect();
    for (name, kind) in
        [("link", "a link"), ("socket", "a socket"), ("pipe", "a pipe"), ("device", "a device")]
    {
        assert_eq!(kinds[name], EntryKind::Other(kind));
        // Nor is it read, looked at or hashed as a copy is, moved onto, or put where a file is published.
        let [at, other] = [path(name), path("other")];
        let read = store.read(Place::Published(at.clone()), 0, 10).await;
        assert!(matches!(read, Err(StoreError::Foreign { .. })), "{name}: {read:?}");
        let looked = store.stat(vec![at.clone()]).await.expect("looked").remove(0);
        assert!(matches!(looked, Err(StoreError::Foreign { .. })), "{name}: {looked:?}");
        let hashed = store.hash_published(at.clone()).await;
        assert!(matches!(hashed, Err(StoreError::Foreign { .. })), "{name}: {hashed:?}");
        put(&store, "other", b"other").await;
        let moved = store.relocate(vec![(other.clone(), at.clone())]).await.expect("tried").remove(0);
        assert!(matches!(moved, Err(StoreError::Occupied { .. })), "{name}: {moved:?}");
        // What is exchanged or withdrawn is the thing itself; what a link leads to stays what it is.
        store.stage(vec![(staged("new"), Bytes::from_static(b"new"))]).await.expect("staged");
        store.exchange(vec![(staged("new"), at.clone())]).await.expect("tried").remove(0).expect("exchanged");
        assert_eq!(published(&store, name).await.as_deref(), Some(&b"new"[..]), "{name}");
        let displaced = root.path().join(".lockstep/staging/new");
        assert!(!std::fs::symlink_metadata(&displaced).expect("there").is_file(), "{name}");
        let hashed = store.hash(vec![staged("new")], Algorithms::default()).await;
        assert!(matches!(hashed, Err(StoreError::Foreign { .. })), "{name}: {hashed:?}");
        store.discard(vec![staged("new")]).await.expect("removed");
        store.withdraw(vec![(other, staged("gone"))]).await.expect("tried").remove(0).expect("moved");
        store.discard(vec![staged("gone")]).await.expect("removed");
    }
    assert_eq!(std::fs::read(root.path().join("outside")).expect("there"), b"outside");
    std::fs::remove_file(transfer.join("second-name")).expect("removed");
    let hashed = store.hash_in_place(vec![path("file")], Algorithms::default()).await.expect("tried");
    assert!(hashed[0].is_ok(), "{hashed:?}");
}

/// R19, I8: a root that loses its marker under a running process, or becomes another one, is noticed; so is one whose marker
/// names another server.
#[tokio::test]
async fn a_root_that_loses_its_marker_is_noticed() {
    let root = tempfile::tempdir().expect("a directory");
    let [s1, s2] = ["s1", "s2"].map(|id| id.parse().expect("a server id"));
    let store = FsStore::of(&s1, root.path(), 0);
    claim(&store).await;
    store.verify().await.expect("it is there");
    let marker = root.path().join(".lockstep/store.json");
    let text = std::fs::read(&marker).expect("a marker");
    std::fs::remove_file(&marker).expect("removed");
    let lost = store.verify().await;
    assert!(
        matches!(&lost, Err(StoreError::Offline { cause }) if cause.contains("lost its marker")),
        "{lost:?}"
    );
    std::fs::write(&marker, text).expect("written");
    store.verify().await.expect("it is there again");
    std::fs::rename(root.path().join("ums_filetransfer"), root.path().join("moved")).expect("moved");
    std::fs::create_dir(root.path().join("ums_filetransfer")).expect("made");
    assert!(matches!(store.verify().await, Err(StoreError::Offline { .. })));
    drop(store);
    let other = FsStore::of(&s2, root.path(), 0).claim(None, StoreId::random(&SystemEntropy)).await;
    assert!(matches!(&other, Err(StoreError::Offline { cause }) if cause.contains("server s1")), "{other:?}");
}

/// R19, I8: a root that lost its marker, has another server's, or is used by another process is not touched.
#[tokio::test]
async fn a_foreign_root_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let (mine, other) = (StoreId::random(&SystemEntropy), StoreId::random(&SystemEntropy));
    let empty = FsStore::new(root.path(), 0).claim(Some(mine), mine).await;
    assert!(matches!(empty, Err(StoreError::Offline { .. })), "{empty:?}");
    assert_eq!(std::fs::read_dir(root.path()).expect("listed").count(), 0);
    let first = FsStore::new(root.path(), 0);
    assert_eq!(first.claim(None, mine).await, Ok(mine));
    let second = FsStore::new(root.path(), 0).claim(Some(mine), mine).await;
    assert!(matches!(second, Err(StoreError::Offline { .. })), "{second:?}");
    drop(first);
    let foreign = FsStore::new(root.path(), 0).claim(Some(other), other).await;
    assert!(matches!(foreign, Err(StoreError::Offline { .. })), "{foreign:?}");
}

/// I7: what was not synced before a power cut is not there afterwards; the simulation must be as hard as a disk.
#[tokio::test]
async fn a_power_cut_forgets_what_was_not_synced() {
    let store = MemoryStore::new(1 << 20);
    claim(&store).await;
    put(&store, "kept", b"kept").await;
    store.stage(vec![(staged("pending"), Bytes::from_static(b"pending"))]).await.expect("staged");
    store.crash();
    assert_eq!(published(&store, "kept").await.as_deref(), Some(&b"kept"[..]));
    assert!(store.staged().await.expect("listed").is_empty());
}
