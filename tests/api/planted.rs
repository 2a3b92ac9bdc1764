//! Links, pipes, sockets, devices and second names where a file is expected: no operation follows, opens for long, reads
//! or loses them.

use std::{fs, path::PathBuf};

use lockstep_model::{Digest, Reason};
use lockstep_proto::{
    filesync::v1::{
        CheckFilesRequest, DeleteDirectoryRequest, File, InPlace, ListAsideFilesRequest,
        ListLooseFilesRequest, MoveDirectoryRequest, MoveFileRequest, NewFile, RestoreFileRequest,
        check_files_request::Depth, new_file::Source,
    },
    gateway::v1::cell,
};
use lockstep_tests::planted::{PLANTED, Planted};

use crate::{
    mesh::{Caller, Mesh, eventually, new_file, on, uuid},
    refusal::refused,
};

/// Registered on s1, and then planted over on s2.
const NAMES: [&str; 5] = ["restored", "deleted", "replaced", "moved", "stays"];

/// One kind of thing, in a directory of its own.
struct Case<'a> {
    mesh: &'a Mesh,
    caller: Caller,
    kind: Planted,
    secret: PathBuf,
}

impl Case<'_> {
    fn path(&self, name: &str) -> String {
        format!("{:?}/{name}", self.kind)
    }

    fn place(&self, server: &str, path: &str) -> PathBuf {
        self.mesh.transfer(server).join(path)
    }

    /// Puts it at a path on s2, in place of whatever is there.
    fn plant(&self, path: &str) {
        let place = self.place("s2", path);
        let _ = fs::remove_file(&place);
        self.kind.plant(&place, &self.secret);
    }

    async fn state(&self, path: &str) -> (cell::State, String) {
        let row = self.mesh.row(path).await.expect("a row");
        let cell = row.cells.iter().find(|cell| cell.server_id == "s2").expect("a cell");
        (cell.state(), cell.failure.as_ref().map(|failure| failure.reason.clone()).unwrap_or_default())
    }

    async fn arrives(&self, path: &str, content: &[u8]) {
        self.mesh.in_sync(path).await;
        let place = self.place("s2", path);
        assert!(fs::symlink_metadata(&place).expect("there").is_file(), "{:?}: {path}", self.kind);
        assert_eq!(fs::read(place).expect("there"), content, "{:?}: {path}", self.kind);
    }

    async fn known(&self, path: &str) -> File {
        self.caller.get(path).await.expect("registered")
    }
}

/// R2, R4, R30, R31, R32, R35, R38, R70, I2, I8: in place, the walk, the scrub, restoring, deleting, replacing, moving away
/// and onto, and the operations on directories meet each of them on a server; what is registered becomes right there, what
/// was planted is kept, and nothing behind it is read, written or removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planted_in_the_tree_is_never_followed_or_read() {
    let mesh = Mesh::new(2).await;
    for kind in PLANTED {
        let secret = mesh.root("s2").join(format!("secret-{kind:?}"));
        fs::write(&secret, "secret").expect("written");
        let case = Case { mesh: &mesh, caller: mesh.operator("publisher"), kind, secret };
        meets_everything(&case).await;
        assert_eq!(fs::read(&case.secret).expect("there"), b"secret", "{kind:?}");
    }
}

async fn meets_everything(case: &Case<'_>) {
    let Case { mesh, caller, kind, .. } = case;
    for name in NAMES {
        caller.register("s1", &case.path(name), name.as_bytes()).await.expect("registered");
        mesh.in_sync(&case.path(name)).await;
    }
    let (loose, target) = (case.path("loose"), case.path("target"));
    for name in NAMES.into_iter().take(4) {
        case.plant(&case.path(name));
    }
    case.plant(&loose);
    case.plant(&target);

    // The walk and the scrub look at them all, and end.
    for depth in [Depth::Times, Depth::Content] {
        let request = CheckFilesRequest { path_prefix: case.path(""), depth: depth.into() };
        let found =
            mesh.operator("operator").stores().check_files(on("s2", request)).await.expect("compared");
        assert_eq!(found.into_inner().drifted_count, 4, "{kind:?}, {depth:?}");
    }
    for name in NAMES.into_iter().take(4) {
        eventually(&format!("{name} has drifted"), async || {
            case.state(&case.path(name)).await == (cell::State::Failed, "DRIFTED".to_owned())
        })
        .await;
        assert!(kind.is_at(&case.place("s2", &case.path(name))), "{kind:?}: it is left alone");
    }

    let request = ListLooseFilesRequest { path_prefix: case.path(""), ..ListLooseFilesRequest::default() };
    let listed = caller.stores().list_loose_files(on("s2", request)).await.expect("listed").into_inner();
    for path in [&loose, &target] {
        let listed = listed.loose_files.iter().find(|file| file.path == *path);
        let why = listed.and_then(|file| file.failure.as_ref()).map(|failure| failure.reason.as_str());
        assert_eq!(why, Some("NOT_REGULAR"), "{kind:?}");
        let source = Some(Source::InPlace(InPlace {}));
        let file = NewFile { path: path.clone(), source, ..NewFile::default() };
        refused("in place", caller.register_as("s2", &uuid(), file).await, Reason::NotRegular);
    }
    refused("on the way", caller.register("s2", &loose, b"x").await, Reason::LooseFileExists);

    let restored = case.known(&case.path("restored")).await;
    let request = RestoreFileRequest {
        path: restored.path.clone(),
        expected_revision: restored.revision,
        request_id: uuid(),
    };
    caller.stores().restore_file(on("s2", request)).await.expect("begun");
    case.arrives(&restored.path, b"restored").await;

    let deleted = case.known(&case.path("deleted")).await;
    caller.delete("s1", &deleted.path, deleted.revision).await.expect("deleted");
    eventually("it is gone", async || fs::symlink_metadata(case.place("s2", &deleted.path)).is_err()).await;

    let replaced = case.known(&case.path("replaced")).await;
    let file = NewFile { expected_revision: replaced.revision, ..new_file(&replaced.path, b"newer") };
    caller.register_as("s1", &uuid(), file).await.expect("replaced");
    case.arrives(&replaced.path, b"newer").await;

    // What is moved is not there, and something is where it goes.
    let moved = case.known(&case.path("moved")).await;
    let request = MoveFileRequest {
        path: moved.path.clone(),
        new_path: target.clone(),
        expected_revision: moved.revision,
        request_id: uuid(),
    };
    caller.files().move_file(on("s1", request)).await.expect("moved");
    case.arrives(&target, b"moved").await;
    eventually("the old path is free", async || fs::symlink_metadata(case.place("s2", &moved.path)).is_err())
        .await;

    // A directory, with one of them in it and one where a file of it goes.
    let (from, to) = (case.path("").trim_end_matches('/').to_owned(), format!("{kind:?}-new"));
    fs::create_dir(mesh.transfer("s2").join(&to)).expect("made");
    case.plant(&format!("{to}/stays"));
    let ask = |dry_run, seen: Option<(i64, i64)>| {
        let (expected_file_count, expected_revision) = seen.unwrap_or_default();
        let (path, new_path, request_id) = (from.clone(), to.clone(), uuid());
        MoveDirectoryRequest { path, new_path, dry_run, expected_file_count, expected_revision, request_id }
    };
    let seen = caller.files().move_directory(on("s1", ask(true, None))).await.expect("looked").into_inner();
    let seen = seen.directory.expect("the contract says so");
    let seen = Some((seen.file_count, seen.latest_revision));
    caller.files().move_directory(on("s1", ask(false, seen))).await.expect("moved");
    for (name, content) in
        [("stays", "stays"), ("restored", "restored"), ("replaced", "newer"), ("target", "moved")]
    {
        case.arrives(&format!("{to}/{name}"), content.as_bytes()).await;
    }
    assert!(kind.is_at(&case.place("s2", &loose)), "{kind:?}: what nobody registered stays");

    case.plant(&format!("{to}/loose"));
    let ask = |dry_run, seen: Option<(i64, i64)>| {
        let (expected_file_count, expected_revision) = seen.unwrap_or_default();
        let (path, request_id) = (to.clone(), uuid());
        DeleteDirectoryRequest { path, dry_run, expected_file_count, expected_revision, request_id }
    };
    let seen = caller.files().delete_directory(on("s1", ask(true, None))).await.expect("looked").into_inner();
    let seen = seen.directory.expect("the contract says so");
    let seen = Some((seen.file_count, seen.latest_revision));
    caller.files().delete_directory(on("s1", ask(false, seen))).await.expect("deleted");
    eventually("all registered files are gone", async || {
        fs::read_dir(mesh.transfer("s2").join(&to)).is_ok_and(|left| left.count() == 1)
    })
    .await;
    assert!(kind.is_at(&case.place("s2", &format!("{to}/loose"))), "{kind:?}: what nobody registered stays");

    // Whatever was in the way is kept as it was, and told without reading it.
    let kept = caller.stores().list_aside_files(on("s2", ListAsideFilesRequest::default())).await;
    let kept = kept.expect("listed").into_inner().aside_files;
    for path in [&restored.path, &deleted.path, &replaced.path, &target, &format!("{to}/stays")] {
        let file = kept.iter().find(|file| file.path == *path);
        let file = file.unwrap_or_else(|| panic!("{kind:?}: {path} is not kept: {kept:?}"));
        assert!(
            kind.is_at(&mesh.root("s2").join(".lockstep/aside").join(&file.aside_id)),
            "{kind:?}: {path}"
        );
        // Only the second name of a file has bytes to tell of.
        let digest =
            if *kind == Planted::HardLink { Digest::of(b"secret").to_string() } else { String::new() };
        assert_eq!(file.digest, digest, "{kind:?}: {path}");
    }
}
