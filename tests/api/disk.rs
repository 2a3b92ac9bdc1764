//! What lies on the disk of a server: files registered in place, loose ones, what was set aside, and copies that are not
//! what was verified.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::MetadataExt as _, fs::symlink, net::UnixListener},
    path::Path,
};

use lockstep_model::{Digest, Reason};
use lockstep_proto::{
    filesync::v1::{
        AsideFile, CheckFilesRequest, CheckFilesResponse, DeleteAsideFileRequest, Digests, File, InPlace,
        ListAsideFilesRequest, ListLooseFilesRequest, LooseFile, NewFile, ReconcileRequest,
        RegisterFilesRequest, RestoreAsideFileRequest, RestoreFileRequest, UpdateFileVersionRequest,
        check_files_request::Depth, new_file::Source,
    },
    gateway::v1::cell,
};
use tonic::Status;

use crate::{
    mesh::{Caller, Mesh, eventually, new_file, on, uuid},
    refusal::refused,
    words::told_in_words,
};

fn in_place(path: &str) -> NewFile {
    NewFile { path: path.to_owned(), source: Some(Source::InPlace(InPlace {})), ..NewFile::default() }
}

pub(crate) fn write(mesh: &Mesh, server: &str, path: &str, content: &[u8]) {
    let place = mesh.transfer(server).join(path);
    fs::create_dir_all(place.parent().expect("a directory")).expect("made");
    fs::write(place, content).expect("written");
}

pub(crate) fn read(mesh: &Mesh, server: &str, path: &str) -> Vec<u8> {
    fs::read(mesh.transfer(server).join(path)).unwrap_or_default()
}

/// Changes a file so that its times do not show it, as a disk does.
fn rot(place: &Path) {
    let modified = fs::metadata(place).and_then(|found| found.modified()).expect("there");
    let mut bytes = fs::read(place).expect("read");
    bytes[0] ^= 1;
    fs::write(place, bytes).expect("written");
    fs::File::options().write(true).open(place).and_then(|file| file.set_modified(modified)).expect("set");
}

async fn loose(caller: &Caller, server: &str, prefix: &str, page_size: i32) -> Vec<LooseFile> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListLooseFilesRequest { path_prefix: prefix.to_owned(), page_size, page_token };
        let page = caller.stores().list_loose_files(on(server, request)).await.expect("lists").into_inner();
        assert!(page.loose_files.len() <= page_size as usize);
        found.extend(page.loose_files);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

pub(crate) async fn aside(caller: &Caller, server: &str) -> Vec<AsideFile> {
    let request = ListAsideFilesRequest::default();
    caller.stores().list_aside_files(on(server, request)).await.expect("lists").into_inner().aside_files
}

/// The same, as soon as there is anything: a copy is held a moment before what it displaced is put away.
async fn kept(caller: &Caller, server: &str) -> Vec<AsideFile> {
    let is_kept = async || {
        let kept = aside(caller, server).await;
        !kept.is_empty() && kept.iter().all(|file| !file.digest.is_empty())
    };
    eventually("something is set aside, and read", is_kept).await;
    aside(caller, server).await
}

pub(crate) async fn check(mesh: &Mesh, server: &str, depth: Depth) -> CheckFilesResponse {
    let request = CheckFilesRequest { path_prefix: String::new(), depth: depth.into() };
    let answer = mesh.operator("operator").stores().check_files(on(server, request)).await;
    answer.expect("compared").into_inner()
}

async fn update(caller: &Caller, server: &str, path: &str, expected_revision: i64) -> Result<File, Status> {
    let request = UpdateFileVersionRequest { path: path.to_owned(), expected_revision, request_id: uuid() };
    let answer = caller.stores().update_file_version(on(server, request)).await?;
    Ok(answer.into_inner().file.expect("the contract says so"))
}

async fn restore(caller: &Caller, server: &str, path: &str, expected_revision: i64) -> Result<File, Status> {
    let request = RestoreFileRequest { path: path.to_owned(), expected_revision, request_id: uuid() };
    let answer = caller.stores().restore_file(on(server, request)).await?;
    Ok(answer.into_inner().file.expect("the contract says so"))
}

/// What the matrix says of a file on a server: its state and why.
async fn told(mesh: &Mesh, path: &str, server: &str) -> (cell::State, String) {
    let row = mesh.row(path).await.expect("a row");
    let cell = row.cells.iter().find(|cell| cell.server_id == server).expect("a cell");
    (cell.state(), cell.failure.as_ref().map(|failure| failure.reason.clone()).unwrap_or_default())
}

/// R2, R3, R4, I11: loose files are listed with what is wrong with each; registered in place, one and several at once, they
/// are not touched and reach the others; the other loose files stay what they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_registered_where_they_lie() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let transfer = mesh.transfer("s1");
    for (path, content) in [("a", "a"), ("b/one", "1"), ("b/two", "22"), ("b.x", "x"), ("stays", "loose")] {
        write(&mesh, "s1", path, content.as_bytes());
    }
    write(&mesh, "s1", "z/con", b"no name");
    write(&mesh, "s1", "z/hard", b"two names");
    fs::hard_link(transfer.join("z/hard"), mesh.path("second-name")).expect("linked");
    symlink("/etc", transfer.join("z/link")).expect("linked");
    let _socket = UnixListener::bind(transfer.join("z/socket")).expect("bound");
    let found = loose(&caller, "s1", "", 2).await;
    let listed: Vec<(&str, &str)> = found
        .iter()
        .map(|file| (file.path.as_str(), file.failure.as_ref().map_or("", |failure| failure.reason.as_str())))
        .collect();
    let unfit = [
        ("z/con", "PATH_INVALID"),
        ("z/hard", "NOT_REGULAR"),
        ("z/link", "NOT_REGULAR"),
        ("z/socket", "NOT_REGULAR"),
    ];
    let fit = [("a", ""), ("b.x", ""), ("b/one", ""), ("b/two", ""), ("stays", "")];
    assert_eq!(listed, [&fit[..], &unfit[..]].concat());
    let below: Vec<String> = loose(&caller, "s1", "b/", 50).await.into_iter().map(|file| file.path).collect();
    assert_eq!(below, ["b/one", "b/two"]);
    assert!(
        loose(&caller, "s1", "../", 50).await.is_empty() && loose(&caller, "s2", "", 50).await.is_empty()
    );

    let before = fs::metadata(transfer.join("a")).expect("there");
    let id = uuid();
    let file = caller.register_as("s1", &id, in_place("a")).await.expect("registered");
    assert_eq!((file.digest.as_str(), file.size_bytes), (Digest::of(b"a").to_string().as_str(), 1));
    assert_eq!(caller.register_as("s1", &id, in_place("a")).await.expect("the first answer"), file);
    mesh.in_sync("a").await;
    assert_eq!(read(&mesh, "s2", "a"), b"a");
    let after = fs::metadata(transfer.join("a")).expect("there");
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "it was not touched");

    let files = vec![in_place("b/one"), in_place("b/two")];
    let request = RegisterFilesRequest { files, request_id: uuid() };
    let answer = caller.files().register_files(on("s1", request)).await.expect("registered").into_inner();
    assert!(answer.files.iter().all(|file| file.revision == answer.files[0].revision), "one transaction");
    for path in ["b/one", "b/two"] {
        mesh.in_sync(path).await;
        assert_eq!(read(&mesh, "s2", path), read(&mesh, "s1", path));
    }

    let before = mesh.footprint().await;
    let refuses = async |path: &str, reason| {
        refused(path, caller.register_as("s1", &uuid(), in_place(path)).await, reason).with(&["path"])
    };
    refuses("a", Reason::FileExists).await;
    refuses("nothing", Reason::ContentNotFound).await.says(&["s1", "nothing"]);
    for path in ["z/hard", "z/link", "z/socket", "z"] {
        refuses(path, Reason::NotRegular).await.with(&["found", "server_id"]).says(&["s1", path]);
    }
    refused(
        "below a link",
        caller.register_as("s1", &uuid(), in_place("z/link/hostname")).await,
        Reason::NotRegular,
    );
    for path in ["../outside", "z/con", ".lockstep/store.json"] {
        refused(path, caller.register_as("s1", &uuid(), in_place(path)).await, Reason::PathInvalid);
    }
    let declared = Digests { md5: "00".repeat(16), ..Digests::default() };
    let wrong = NewFile { digests: Some(declared), ..in_place("b.x") };
    refused("digest", caller.register_as("s1", &uuid(), wrong).await, Reason::ContentDigestMismatch);
    let replacing = NewFile { expected_revision: 1, ..in_place("b.x") };
    let told = refused(
        "in place of another",
        caller.register_as("s1", &uuid(), replacing).await,
        Reason::FieldViolation,
    );
    told.blames(&["file.in_place"]);
    let files = vec![in_place("b.x"), new_file("other", b"other")];
    let mixed = RegisterFilesRequest { files, request_id: uuid() };
    refused("mixed", caller.files().register_files(on("s1", mixed)).await, Reason::FieldViolation);
    assert_eq!(mesh.footprint().await, before, "nothing happened");
    assert_eq!(read(&mesh, "s1", "stays"), b"loose");
    assert!(loose(&caller, "s1", "", 50).await.iter().any(|file| file.path == "stays"));
    assert!(read(&mesh, "s2", "stays").is_empty());
}

/// R16, I11: bytes in the way of a registered file are set aside, listed, brought back to a free path or dropped; those that
/// match are adopted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_is_set_aside_and_listed() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    write(&mesh, "s1", "dir/other", b"in the way");
    write(&mesh, "s1", "dir/same", b"same");
    caller.register("s2", "dir/other", b"registered").await.expect("registered");
    caller.register("s2", "dir/same", b"same").await.expect("registered");
    mesh.in_sync("dir/other").await;
    mesh.in_sync("dir/same").await;
    assert_eq!(read(&mesh, "s1", "dir/other"), b"registered");
    let kept = kept(&caller, "s1").await;
    assert_eq!(kept.len(), 1, "what matched was adopted: {kept:?}");
    let file = &kept[0];
    assert_eq!((file.path.as_str(), file.size_bytes), ("dir/other", 10));
    assert_eq!(file.digest, Digest::of(b"in the way").to_string());
    let why = file.failure.as_ref().expect("a reason");
    assert_eq!(why.reason, Reason::LooseFileExists.as_str());
    assert!(file.aside_time.is_some() && why.message.contains("dir/other"));

    let bring = async |aside_id: &str, path: &str| {
        let (aside_id, path) = (aside_id.to_owned(), path.to_owned());
        let request = RestoreAsideFileRequest { aside_id, path, request_id: uuid() };
        caller.stores().restore_aside_file(on("s1", request)).await.map(|answer| answer.into_inner().path)
    };
    refused("where it was", bring(&file.aside_id, "").await, Reason::FileExists);
    write(&mesh, "s1", "taken", b"taken");
    refused("taken", bring(&file.aside_id, "taken").await, Reason::LooseFileExists);
    for unknown in ["none", "../staging", "/etc/passwd"] {
        refused(unknown, bring(unknown, "free").await, Reason::ContentNotFound)
            .with(&["aside_id"])
            .says(&["s1"]);
    }
    refused("outside", bring(&file.aside_id, "../free").await, Reason::PathInvalid);
    assert_eq!(bring(&file.aside_id, "dir/old").await.expect("moved"), "dir/old");
    refused("again", bring(&file.aside_id, "dir/older").await, Reason::ContentNotFound);
    assert_eq!(read(&mesh, "s1", "dir/old"), b"in the way");
    assert!(loose(&caller, "s1", "dir/", 50).await.iter().any(|file| file.path == "dir/old"));

    write(&mesh, "s1", "drop", b"drop me");
    caller.register("s2", "drop", b"registered").await.expect("registered");
    mesh.in_sync("drop").await;
    let aside_id = self::kept(&caller, "s1").await.pop().expect("one").aside_id;
    let drop = async || {
        let request = DeleteAsideFileRequest { aside_id: aside_id.clone(), request_id: uuid() };
        caller.stores().delete_aside_file(on("s1", request)).await
    };
    drop().await.expect("dropped");
    refused("again", drop().await, Reason::ContentNotFound).with(&["aside_id", "server_id"]);
    assert!(aside(&caller, "s1").await.is_empty());
    assert_eq!(mesh.footprint().await.aside["s1"], Vec::<std::path::PathBuf>::new(), "no note is left");
}

/// R16: a loose file in the place of a directory is in the way, however far above; a link there is somebody's, and is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loose_file_in_place_of_a_directory_is_set_aside() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    for (loose, registered) in [("one", "one/file"), ("deep", "deep/er/and/file")] {
        write(&mesh, "s1", loose, loose.as_bytes());
        caller.register("s2", registered, b"registered").await.expect("registered");
        mesh.in_sync(registered).await;
        assert_eq!(read(&mesh, "s1", registered), b"registered");
        let kept = aside(&caller, "s1").await;
        assert!(kept.iter().any(|file| file.path == loose), "{kept:?}");
    }
    let elsewhere = mesh.root("s1").join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    symlink(&elsewhere, mesh.transfer("s1").join("link")).expect("linked");
    caller.register("s2", "link/file", b"registered").await.expect("registered");
    eventually("the link is told", async || {
        mesh.row("link/file").await.is_some()
            && told(&mesh, "link/file", "s1").await == (cell::State::Failed, "LOOSE_FILE_EXISTS".to_owned())
    })
    .await;
    assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 0, "R70");
    told_in_words(&mesh, "loose_file", "link/file", "s1").await;
}

/// R29, R30, R31, I10: bytes that somebody changes on a disk are left alone and shown; they spread when that is asked for,
/// or the registered ones come back and the others are set aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_shown_and_settled_both_ways() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let file = caller.register("s1", "x", b"first").await.expect("registered");
    mesh.in_sync("x").await;
    write(&mesh, "s2", "x", b"changed by hand");
    let found = check(&mesh, "s2", Depth::Times).await;
    assert_eq!((found.compared_count, found.drifted_count), (1, 1));
    eventually("it is shown", async || {
        told(&mesh, "x", "s2").await == (cell::State::Failed, "DRIFTED".to_owned())
    })
    .await;
    assert_eq!(told(&mesh, "x", "s1").await.0, cell::State::InSync);
    told_in_words(&mesh, "drifted", "x", "s2").await;
    let advice = mesh.row("x").await.expect("a row").cells[1].failure.clone().expect("why").advice;
    assert!(advice.contains("update-version") && advice.contains("restore"), "{advice}");
    // Nothing is tried, however often it is looked at, and a round changes nothing either.
    check(&mesh, "s2", Depth::Content).await;
    mesh.operator("operator")
        .replicas()
        .reconcile(on("s2", ReconcileRequest::default()))
        .await
        .expect("a round");
    assert_eq!(read(&mesh, "s2", "x"), b"changed by hand", "left alone");
    assert_eq!(told(&mesh, "x", "s2").await.1, Reason::Drifted.as_str());
    assert!(loose(&caller, "s2", "", 50).await.is_empty(), "what is registered is not loose");

    let told_of =
        refused("stale", update(&caller, "s2", "x", file.revision + 1).await, Reason::RevisionChanged);
    told_of.with(&["expected_revision", "actual_revision"]);
    refused("unknown", update(&caller, "s2", "y", 1).await, Reason::FileNotFound);
    refused("none", update(&caller, "s2", "x", 0).await, Reason::FieldViolation)
        .blames(&["expected_revision"]);
    let updated = update(&caller, "s2", "x", file.revision).await.expect("updated");
    assert!(updated.revision > file.revision && updated.file_id == file.file_id);
    assert_eq!(updated.digest, Digest::of(b"changed by hand").to_string());
    eventually("it spreads", async || read(&mesh, "s1", "x") == b"changed by hand").await;
    mesh.in_sync("x").await;
    assert_eq!(caller.get("x").await.expect("registered"), updated);
    assert_eq!(update(&caller, "s2", "x", updated.revision).await.expect("nothing to do"), updated);

    write(&mesh, "s1", "x", b"changed again");
    check(&mesh, "s1", Depth::Times).await;
    let before = mesh.footprint().await.head;
    assert_eq!(restore(&caller, "s1", "x", updated.revision).await.expect("begun"), updated);
    mesh.in_sync("x").await;
    assert_eq!(read(&mesh, "s1", "x"), b"changed by hand");
    assert_eq!(mesh.footprint().await.head, before, "the record is what it was");
    let kept = kept(&caller, "s1").await;
    let told: Vec<_> = kept
        .iter()
        .map(|file| (file.path.as_str(), file.failure.as_ref().expect("why").reason.as_str()))
        .collect();
    assert_eq!(told, [("x", "DRIFTED")]);
    assert_eq!(kept[0].digest, Digest::of(b"changed again").to_string());

    // Whoever puts the registered bytes back is believed; whoever deletes the file keeps what they changed.
    write(&mesh, "s2", "x", b"a third time");
    assert_eq!(check(&mesh, "s2", Depth::Times).await.drifted_count, 1);
    write(&mesh, "s2", "x", b"changed by hand");
    assert_eq!(check(&mesh, "s2", Depth::Times).await.recovered_count, 1);
    mesh.in_sync("x").await;
    write(&mesh, "s2", "x", b"the last time");
    assert_eq!(check(&mesh, "s2", Depth::Times).await.drifted_count, 1);
    caller.delete("s1", "x", updated.revision).await.expect("deleted");
    eventually("it is gone", async || !mesh.transfer("s2").join("x").exists()).await;
    let last = Digest::of(b"the last time").to_string();
    let is_kept = async || aside(&caller, "s2").await.iter().any(|file| file.digest == last);
    eventually("what was changed last is kept", is_kept).await;
}

/// R45, I2, I10: what vanishes or rots is found and fetched again; bytes that are not ours are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_and_rot_are_repaired() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let large = vec![7; (1 << 20) + 5];
    let contents: BTreeMap<&str, Vec<u8>> =
        BTreeMap::from([("d/lost", b"lost".to_vec()), ("rotten", b"rotten".to_vec()), ("right", large)]);
    for (path, content) in &contents {
        write(&mesh, "s1", path, content);
        caller.register_as("s1", &uuid(), in_place(path)).await.expect("registered");
        mesh.in_sync(path).await;
    }
    assert_eq!(check(&mesh, "s2", Depth::Content).await.compared_count, 3);
    fs::remove_dir_all(mesh.transfer("s2").join("d")).expect("removed");
    rot(&mesh.transfer("s2").join("rotten"));
    // A new time alone is no drift: the bytes are read and are right.
    let right = fs::File::options().write(true).open(mesh.transfer("s2").join("right")).expect("there");
    right.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
    let found = check(&mesh, "s2", Depth::Times).await;
    assert_eq!((found.lost_count, found.corrupt_count, found.drifted_count), (1, 1, 0), "{found:?}");
    eventually("everything is repaired", async || {
        contents.iter().all(|(path, content)| read(&mesh, "s2", path) == *content)
    })
    .await;
    for path in contents.keys() {
        mesh.in_sync(path).await;
    }
    let kept = kept(&caller, "s2").await;
    let told: Vec<_> = kept
        .iter()
        .map(|file| (file.path.as_str(), file.failure.as_ref().expect("why").reason.as_str()))
        .collect();
    assert_eq!(told, [("rotten", "STORED_CONTENT_CORRUPT")]);
    assert_eq!(
        check(&mesh, "s2", Depth::Content).await,
        CheckFilesResponse { compared_count: 3, ..Default::default() }
    );

    // A link in place of a file is nobody's content: it is not followed, and shown.
    fs::remove_file(mesh.transfer("s2").join("rotten")).expect("removed");
    symlink(mesh.transfer("s1").join("rotten"), mesh.transfer("s2").join("rotten")).expect("linked");
    assert_eq!(check(&mesh, "s2", Depth::Times).await.drifted_count, 1);
    let revision = caller.get("rotten").await.expect("registered").revision;
    refused("a link", update(&caller, "s2", "rotten", revision).await, Reason::NotRegular);
    restore(&caller, "s2", "rotten", revision).await.expect("begun");
    mesh.in_sync("rotten").await;
    assert!(fs::symlink_metadata(mesh.transfer("s2").join("rotten")).expect("there").is_file());
}

/// R19, I3: a root that loses its marker under a running server originates and deletes nothing, and says so; with the marker
/// back it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_without_its_marker_does_nothing() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let file = caller.register("s2", "a", b"a").await.expect("registered");
    mesh.in_sync("a").await;
    let (marker, away) = (mesh.root("s1").join(".lockstep/store.json"), mesh.path("marker"));
    fs::rename(&marker, &away).expect("moved");
    let answer = caller.register("s1", "b", b"b").await;
    refused("register", answer, Reason::StoreOffline).with(&["server_id"]).says(&["s1", "marker", "root"]);
    write(&mesh, "s1", "c", b"c");
    refused("in place", caller.register_as("s1", &uuid(), in_place("c")).await, Reason::StoreOffline);
    refused("delete", caller.delete("s1", "a", file.revision).await, Reason::StoreOffline);
    let request = ListLooseFilesRequest::default();
    refused("list", caller.stores().list_loose_files(on("s1", request)).await, Reason::StoreOffline);
    caller.delete("s2", "a", file.revision).await.expect("deleted on s2");
    let round = mesh.operator("operator").replicas().reconcile(on("s1", ReconcileRequest::default())).await;
    refused("a round", round, Reason::StoreOffline);
    assert_eq!(read(&mesh, "s1", "a"), b"a", "nothing is deleted");
    eventually("it is told", async || !mesh.servers["s1"].health.is_ready()).await;

    fs::rename(&away, &marker).expect("moved back");
    mesh.operator("operator")
        .replicas()
        .reconcile(on("s1", ReconcileRequest::default()))
        .await
        .expect("a round");
    eventually("the deletion is followed", async || !mesh.transfer("s1").join("a").exists()).await;
    eventually("ready", async || mesh.servers["s1"].health.is_ready()).await;
    caller.register("s1", "b", b"b").await.expect("registered");
    mesh.in_sync("b").await;
}
