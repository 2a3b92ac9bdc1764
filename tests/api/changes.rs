//! Changes of what is registered: replaced, moved, numbered, and whole directories; each once, by whoever saw it.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use futures::future::{join, join_all};
use lockstep_model::Reason;
use lockstep_proto::filesync::v1::{
    DeleteDirectoryRequest, DeleteDirectoryResponse, DirectorySummary, File, MoveDirectoryRequest,
    MoveDirectoryResponse, MoveFileRequest, NewFile, RegisterFilesRequest, new_file::ConflictPolicy,
};
use tonic::Status;

use crate::{
    mesh::{Caller, Mesh, eventually, new_file, on, uuid},
    refusal::refused,
};

fn replacing(path: &str, content: &[u8], expected_revision: i64) -> NewFile {
    NewFile { expected_revision, ..new_file(path, content) }
}

fn numbered(path: &str, content: &[u8]) -> NewFile {
    NewFile { on_conflict: ConflictPolicy::Rename.into(), ..new_file(path, content) }
}

async fn move_file(caller: &Caller, server: &str, id: &str, file: &File, to: &str) -> Result<File, Status> {
    let request = MoveFileRequest {
        path: file.path.clone(),
        new_path: to.to_owned(),
        expected_revision: file.revision,
        request_id: id.to_owned(),
    };
    Ok(caller.files().move_file(on(server, request)).await?.into_inner().file.expect("a file"))
}

async fn move_directory(
    caller: &Caller,
    server: &str,
    request: MoveDirectoryRequest,
) -> Result<MoveDirectoryResponse, Status> {
    Ok(caller.files().move_directory(on(server, request)).await?.into_inner())
}

async fn delete_directory(
    caller: &Caller,
    server: &str,
    request: DeleteDirectoryRequest,
) -> Result<DeleteDirectoryResponse, Status> {
    Ok(caller.files().delete_directory(on(server, request)).await?.into_inner())
}

async fn has(mesh: &Mesh, path: &str, content: &[u8]) {
    for server in mesh.servers.keys() {
        let place = mesh.transfer(server).join(path);
        eventually(&format!("{path} on {server}"), async || {
            fs::read(&place).is_ok_and(|found| found == content)
        })
        .await;
    }
}

/// The bytes that are set aside, without the notes beside them.
fn aside(mesh: &Mesh, server: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(mesh.root(server).join(".lockstep/aside")).expect("a directory");
    let is_note = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let kept = entries.flatten().map(|entry| entry.path()).filter(|path| !is_note(path));
    kept.map(|path| fs::read(path).expect("a file")).collect()
}

async fn nothing_is_staged(mesh: &Mesh) {
    let staged = async || mesh.footprint().await.staged.values().all(Vec::is_empty);
    eventually("nothing is left in staging", staged).await;
}

/// R29, R37, I11: replaced bytes reach every server under the same id; whoever saw something older is refused with what is
/// there, and a repeated request gives the first answer, whatever came since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_names_what_it_replaces() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let first = caller.register("s1", "r/file", b"first").await.expect("registered");
    mesh.in_sync("r/file").await;
    let id = uuid();
    let second = caller
        .register_as("s2", &id, replacing("r/file", b"second", first.revision))
        .await
        .expect("replaced");
    assert_eq!((&second.file_id, second.origin_server_id.as_str()), (&first.file_id, "s2"));
    assert!(second.revision > first.revision && second.digest != first.digest);
    has(&mesh, "r/file", b"second").await;
    mesh.in_sync("r/file").await;

    let stale = caller.register_as("s1", &uuid(), replacing("r/file", b"third", first.revision)).await;
    let refusal = refused("stale", stale, Reason::RevisionChanged);
    let refusal =
        refusal.with(&["path", "expected_revision", "actual_revision", "digest", "origin_server_id"]);
    assert_eq!(refusal.value("actual_revision"), second.revision.to_string());
    assert_eq!((refusal.value("digest"), refusal.value("origin_server_id")), (second.digest.as_str(), "s2"));
    let absent = caller.register_as("s1", &uuid(), replacing("r/none", b"x", 1)).await;
    refused("absent", absent, Reason::FileNotFound);
    let taken = caller.register("s1", "r/file", b"x").await;
    refused("taken", taken, Reason::FileExists);
    let large = vec![7; 3 << 20];
    let upload = uuid();
    caller.upload("s1", vec![crate::mesh::header(&upload, large.len(), 0)]).await.expect("begun");
    for at in (0..large.len()).step_by(1 << 20) {
        let parts = vec![
            crate::mesh::header(&upload, large.len(), at),
            crate::mesh::chunk(at, &large[at..at + (1 << 20)]),
        ];
        caller.upload("s1", parts).await.expect("uploaded");
    }
    let source = Some(lockstep_proto::filesync::v1::new_file::Source::UploadId(upload));
    let file = NewFile { source, ..replacing("r/file", b"", second.revision) };
    let third = caller.register_as("s1", &uuid(), file).await.expect("replaced");
    has(&mesh, "r/file", &large).await;
    mesh.in_sync("r/file").await;
    for server in ["s1", "s2"] {
        let again = caller.register_as(server, &id, replacing("r/file", b"second", first.revision)).await;
        assert_eq!(again.expect("the first answer"), second, "{server}");
        let other = caller.register_as(server, &id, replacing("r/file", b"second", third.revision)).await;
        refused("another request", other, Reason::RequestIdReused);
    }
    assert_eq!(caller.get("r/file").await.expect("there"), third);
    nothing_is_staged(&mesh).await;
    assert!(aside(&mesh, "s1").is_empty() && aside(&mesh, "s2").is_empty(), "registered bytes go");
}

/// R37, R63: of two replacements of the same revision on two servers at once, one wins, and the other is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replacements_have_one_winner() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let mut file = caller.register("s1", "contested", b"0").await.expect("registered");
    for round in 0..10 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let (first, second) = join(
            caller.register_as("s1", &uuid(), replacing("contested", a.as_bytes(), file.revision)),
            caller.register_as("s2", &uuid(), replacing("contested", b.as_bytes(), file.revision)),
        )
        .await;
        let (winner, loser) = match (first, second) {
            (Ok(winner), loser) | (loser, Ok(winner)) => (winner, loser),
            (first, second) => panic!("both were refused: {first:?} {second:?}"),
        };
        let refusal = refused("the loser", loser, Reason::RevisionChanged);
        assert_eq!(refusal.value("digest"), winner.digest);
        file = winner;
    }
    mesh.in_sync("contested").await;
    nothing_is_staged(&mesh).await;
}

/// R16, R30: bytes that somebody changed by hand are set aside, not removed, when the file is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_sets_aside_what_nobody_registered() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let file = caller.register("s1", "drifted", b"first").await.expect("registered");
    mesh.in_sync("drifted").await;
    for server in ["s1", "s2"] {
        fs::write(mesh.transfer(server).join("drifted"), format!("by hand on {server}")).expect("written");
    }
    caller
        .register_as("s1", &uuid(), replacing("drifted", b"second", file.revision))
        .await
        .expect("replaced");
    has(&mesh, "drifted", b"second").await;
    mesh.in_sync("drifted").await;
    nothing_is_staged(&mesh).await;
    for server in ["s1", "s2"] {
        // The note beside it is written once more, when its digest is known.
        let is_kept = async || aside(&mesh, server) == [format!("by hand on {server}").into_bytes()];
        eventually(&format!("what was there is kept on {server}"), is_kept).await;
    }
}

/// R38, I11: a move keeps the file and its bytes on every server, takes no name that is taken, and happens once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_keeps_the_file() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let file = caller.register("s1", "m/a/file", b"moved").await.expect("registered");
    let other = caller.register("s2", "m/other", b"other").await.expect("registered");
    mesh.in_sync("m/a/file").await;
    mesh.in_sync("m/other").await;
    let inode = |server: &str, path: &str| {
        fs::metadata(mesh.transfer(server).join(path)).map(|found| found.ino()).ok()
    };
    let before = ["s1", "s2"].map(|server| inode(server, "m/a/file").expect("there"));

    fs::write(mesh.transfer("s2").join("loose"), "loose").expect("written");
    for (what, to, reason) in [
        ("taken", "m/other", Reason::FileExists),
        ("folded", "m/OTHER", Reason::PathConflict),
        ("below a file", "m/other/x", Reason::PathConflict),
        ("below itself", "m/a/file/x", Reason::PathConflict),
        ("a directory", "m/a", Reason::PathConflict),
        ("loose", "loose", Reason::LooseFileExists),
        ("itself", "m/a/file", Reason::FieldViolation),
    ] {
        refused(what, move_file(&caller, "s2", &uuid(), &file, to).await, reason);
    }
    let older = File { revision: file.revision + 100, ..file.clone() };
    refused("stale", move_file(&caller, "s2", &uuid(), &older, "x").await, Reason::RevisionChanged);
    let absent = File { path: "m/none".to_owned(), ..file.clone() };
    refused("absent", move_file(&caller, "s2", &uuid(), &absent, "x").await, Reason::FileNotFound);

    let id = uuid();
    let moved = move_file(&caller, "s2", &id, &file, "m/b/c/file").await.expect("moved");
    assert_eq!((&moved.file_id, &moved.digest), (&file.file_id, &file.digest));
    assert_eq!((moved.path.as_str(), moved.origin_server_id.as_str()), ("m/b/c/file", "s1"));
    has(&mesh, "m/b/c/file", b"moved").await;
    mesh.in_sync("m/b/c/file").await;
    let after = ["s1", "s2"].map(|server| inode(server, "m/b/c/file").expect("there"));
    assert_eq!(after, before, "the very same bytes");
    assert!(!mesh.transfer("s1").join("m/a").exists() && !mesh.transfer("s2").join("m/a").exists());
    refused("the old path", caller.get("m/a/file").await, Reason::FileNotFound);
    // Only another spelling, of the name and of a directory.
    let respelled = move_file(&caller, "s1", &uuid(), &moved, "m/B/c/File").await.expect("its own name");
    has(&mesh, "m/B/c/File", b"moved").await;
    mesh.in_sync("m/B/c/File").await;
    let again = caller.register("s2", "m/a/file", b"again").await.expect("the old path is free");
    for server in ["s1", "s2"] {
        assert_eq!(move_file(&caller, server, &id, &file, "m/b/c/file").await.expect("repeated"), moved);
        refused("another", move_file(&caller, server, &id, &file, "x").await, Reason::RequestIdReused);
    }
    // Changing places, in a ring by way of a third name, while s1 is away from nothing.
    let third = move_file(&caller, "s1", &uuid(), &respelled, "m/third").await.expect("moved");
    let ring = move_file(&caller, "s2", &uuid(), &other, "m/B/c/File").await.expect("moved");
    let back = move_file(&caller, "s1", &uuid(), &third, "m/other").await.expect("moved");
    for (file, content) in [(&ring, &b"other"[..]), (&back, b"moved"), (&again, b"again")] {
        has(&mesh, &file.path, content).await;
        mesh.in_sync(&file.path).await;
    }
    nothing_is_staged(&mesh).await;
}

/// R16, R38: on another server a loose file in the way of a move is set aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_sets_aside_what_is_in_its_way_elsewhere() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let file = caller.register("s1", "from", b"moved").await.expect("registered");
    mesh.in_sync("from").await;
    fs::write(mesh.transfer("s2").join("to"), "loose").expect("written");
    move_file(&caller, "s1", &uuid(), &file, "to").await.expect("moved");
    has(&mesh, "to", b"moved").await;
    mesh.in_sync("to").await;
    nothing_is_staged(&mesh).await;
    assert_eq!(aside(&mesh, "s2"), [b"loose".to_vec()]);
    assert!(aside(&mesh, "s1").is_empty());
}

/// R37, I11: numbered names are the first free ones, also for many at once on two servers; the answer tells which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbered_names_are_the_first_free_ones() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    fs::write(mesh.transfer("s1").join("name(1).ext"), "loose").expect("written");
    let first = caller.register_as("s1", &uuid(), numbered("name.ext", b"0")).await.expect("registered");
    assert_eq!(first.path, "name.ext");
    let id = uuid();
    let second = caller.register_as("s1", &id, numbered("name.ext", b"1")).await.expect("registered");
    assert_eq!(second.path, "name(2).ext", "a loose file is in the way of the first number");
    for server in ["s1", "s2"] {
        let again = caller.register_as(server, &id, numbered("name.ext", b"1")).await;
        assert_eq!(again.expect("the first answer"), second);
    }
    let many = (0..10).map(|number: u8| {
        let server = if number.is_multiple_of(2) { "s1" } else { "s2" };
        let (caller, content) = (caller.clone(), [number]);
        async move { caller.register_as(server, &uuid(), numbered("dir/many", &content)).await }
    });
    let mut paths: Vec<String> =
        join_all(many).await.into_iter().map(|file| file.expect("registered").path).collect();
    paths.sort();
    let mut expected: Vec<String> = (1..10).map(|number| format!("dir/many({number})")).collect();
    expected.insert(0, "dir/many".to_owned());
    assert_eq!(paths, expected);
    let both = NewFile { expected_revision: 1, ..numbered("name.ext", b"x") };
    refused("both", caller.register_as("s1", &uuid(), both).await, Reason::FieldViolation);
    let longest = "x".repeat(255);
    caller.register("s1", &longest, b"x").await.expect("registered");
    let no_number = caller.register_as("s1", &uuid(), numbered(&longest, b"y")).await;
    refused("no number fits", no_number, Reason::FileExists);
    for path in &paths {
        mesh.in_sync(path).await;
    }
}

/// R35, R38, I11: a directory moves and goes as one change, by whoever saw all that is in it; nothing else goes with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_change_as_a_whole() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    for path in ["top/d/a", "top/d/sub/b", "top/d/sub/c", "top/dx", "top/d2/keep"] {
        caller.register("s1", path, path.as_bytes()).await.expect("registered");
        mesh.in_sync(path).await;
    }
    let dry = MoveDirectoryRequest {
        path: "top/d".to_owned(),
        new_path: "top/e/f".to_owned(),
        dry_run: true,
        ..MoveDirectoryRequest::default()
    };
    let seen = move_directory(&caller, "s2", dry.clone()).await.expect("told");
    let summary = seen.directory.clone().expect("a summary");
    assert_eq!((summary.file_count, summary.total_bytes, seen.move_revision), (3, 7 + 11 + 11, 0));
    assert_eq!(summary.sample_paths, ["top/d/a", "top/d/sub/b", "top/d/sub/c"]);
    let real = MoveDirectoryRequest {
        dry_run: false,
        expected_file_count: summary.file_count,
        expected_revision: summary.latest_revision,
        request_id: uuid(),
        ..dry.clone()
    };
    let with = |change: fn(&mut MoveDirectoryRequest)| {
        let mut request = MoveDirectoryRequest { request_id: uuid(), ..real.clone() };
        change(&mut request);
        request
    };
    for (what, request, reason) in [
        ("fewer", with(|r| r.expected_file_count = 2), Reason::RevisionChanged),
        ("older", with(|r| r.expected_revision -= 1), Reason::RevisionChanged),
        ("nothing", with(|r| r.path = "top/none".to_owned()), Reason::FileNotFound),
        ("a file", with(|r| r.path = "top/dx".to_owned()), Reason::FileNotFound),
        ("into itself", with(|r| r.new_path = "top/d/x".to_owned()), Reason::FieldViolation),
        ("onto itself", with(|r| r.new_path = "top/d".to_owned()), Reason::FieldViolation),
        ("below a file", with(|r| r.new_path = "top/dx".to_owned()), Reason::PathConflict),
        ("folded", with(|r| r.new_path = "TOP/e".to_owned()), Reason::PathConflict),
        ("unseen", with(|r| r.expected_file_count = 0), Reason::FieldViolation),
        ("unseen", with(|r| r.expected_revision = 0), Reason::FieldViolation),
    ] {
        refused(what, move_directory(&caller, "s1", request).await, reason);
    }
    let moved = move_directory(&caller, "s1", real.clone()).await.expect("moved");
    assert_eq!(moved.directory.as_ref(), Some(&summary));
    for path in ["a", "sub/b", "sub/c"] {
        has(&mesh, &format!("top/e/f/{path}"), format!("top/d/{path}").as_bytes()).await;
        mesh.in_sync(&format!("top/e/f/{path}")).await;
    }
    for server in ["s1", "s2"] {
        assert_eq!(move_directory(&caller, server, real.clone()).await.expect("repeated"), moved);
        assert!(!mesh.transfer(server).join("top/d").exists(), "{server}");
        fs::write(mesh.transfer(server).join("top/e/f/sub/loose"), "loose").expect("written");
    }

    let dry = DeleteDirectoryRequest {
        path: "top/e".to_owned(),
        dry_run: true,
        ..DeleteDirectoryRequest::default()
    };
    let before = mesh.footprint().await;
    let seen =
        delete_directory(&caller, "s2", dry.clone()).await.expect("told").directory.expect("a summary");
    assert_eq!((seen.file_count, seen.latest_revision), (3, moved.move_revision));
    assert_eq!(mesh.footprint().await, before, "a dry run changes nothing");
    let real = DeleteDirectoryRequest {
        dry_run: false,
        expected_file_count: 3,
        expected_revision: seen.latest_revision,
        request_id: uuid(),
        ..dry
    };
    let unseen = DeleteDirectoryRequest { expected_file_count: 4, request_id: uuid(), ..real.clone() };
    let refusal = refused("unseen", delete_directory(&caller, "s1", unseen).await, Reason::RevisionChanged);
    assert_eq!(refusal.value("actual_file_count"), "3");
    let deleted = delete_directory(&caller, "s2", real.clone()).await.expect("deleted");
    assert_eq!(deleted.directory, Some(seen));
    for server in ["s1", "s2"] {
        assert_eq!(delete_directory(&caller, server, real.clone()).await.expect("repeated"), deleted);
        let transfer = mesh.transfer(server);
        eventually("the files are gone", async || !transfer.join("top/e/f/a").exists()).await;
        eventually("the files are gone", async || !transfer.join("top/e/f/sub/c").exists()).await;
        assert_eq!(fs::read(transfer.join("top/e/f/sub/loose")).expect("it stays"), b"loose");
    }
    for path in ["top/dx", "top/d2/keep"] {
        has(&mesh, path, path.as_bytes()).await;
        mesh.in_sync(path).await;
    }
    nothing_is_staged(&mesh).await;
    refused(
        "gone",
        delete_directory(&caller, "s1", DeleteDirectoryRequest { request_id: uuid(), ..real }).await,
        Reason::FileNotFound,
    );
}

/// R37, R63: a file that moves and a file that is registered, or moved there too, at once on two servers: one has the name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clashing_moves_have_one_winner() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    for (round, (to, other)) in
        [("n/x", "n/x"), ("n/x", "n/X"), ("n/x", "n/x/y"), ("N/x", "n/y"), ("é/x", "e\u{301}/y")]
            .into_iter()
            .enumerate()
    {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let first = caller.register("s1", &a, a.as_bytes()).await.expect("registered");
        let second = caller.register("s2", &b, b.as_bytes()).await.expect("registered");
        let (ids, mut there) = ((uuid(), uuid()), Vec::new());
        let (one, two) = join(
            move_file(&caller, "s1", &ids.0, &first, to),
            move_file(&caller, "s2", &ids.1, &second, other),
        )
        .await;
        match (one, two) {
            (Ok(winner), Err(told)) => there.extend([(winner, Some(told)), (second, None)]),
            (Err(told), Ok(winner)) => there.extend([(winner, Some(told)), (first, None)]),
            (one, two) => panic!("{to} and {other}: {one:?} {two:?}"),
        }
        for (file, told) in there {
            if let Some(told) = told {
                let reason = lockstep_chassis::status::read(&told).reason;
                assert!(matches!(reason, Reason::FileExists | Reason::PathConflict), "{told:?}");
            }
            mesh.in_sync(&file.path).await;
            caller.delete("s1", &file.path, file.revision).await.expect("deleted");
        }
    }
    eventually("both servers hold nothing", async || {
        mesh.footprint().await.published.values().all(Vec::is_empty)
    })
    .await;
}

/// R35, R38, H3: a directory with more files than one change may concern is refused with the figures and the way to do it, and
/// nothing happens; its directories change, each as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_too_large_for_one_change_is_refused() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    for half in ["a", "b"] {
        let files = (0..600).map(|at| new_file(&format!("top/{half}/{at}"), b"x")).collect();
        let request = RegisterFilesRequest { files, request_id: uuid() };
        caller.files().register_files(on("s1", request)).await.expect("registered");
    }
    let moving = async |path: &str, to: &str, dry_run: bool, seen: DirectorySummary| {
        let request = MoveDirectoryRequest {
            path: path.to_owned(),
            new_path: to.to_owned(),
            dry_run,
            expected_file_count: seen.file_count,
            expected_revision: seen.latest_revision,
            request_id: if dry_run { String::new() } else { uuid() },
        };
        move_directory(&caller, "s1", request).await
    };
    let survey = async |path: &str| {
        let told = moving(path, "new", true, DirectorySummary::default()).await.expect("told");
        told.directory.expect("a summary")
    };
    let all = survey("top").await;
    assert_eq!(all.file_count, 1_200);
    let before = mesh.footprint().await;
    let told = refused("all", moving("top", "new", false, all).await, Reason::SizeLimitExceeded);
    told.with(&["path", "limit", "actual"]).says(&["1200 files", "1000 files", "one by one"]);
    assert_eq!(mesh.footprint().await, before, "nothing happened");
    let half = survey("top/a").await;
    let moved = moving("top/a", "new/a", false, half).await.expect("moved");
    assert_eq!(mesh.footprint().await.head.revision.0, moved.move_revision as u64, "one change");
    eventually("it is there", async || mesh.transfer("s1").join("new/a/599").exists()).await;
    assert!(!mesh.transfer("s1").join("top/a").exists() && mesh.transfer("s1").join("top/b/0").exists());
}
