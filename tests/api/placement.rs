//! Which servers should hold a file, said and said anew: what is not meant for a server is not copied there, and stays where
//! it is (R8 to R12, R36); and uploads that come to nothing.

use std::fs;

use lockstep_model::{Identity, Reason};
use lockstep_proto::filesync::v1::{
    CancelUploadRequest, CheckSpaceRequest, DeleteFilesRequest, File, GetUploadRequest, MoveFileRequest,
    NewFile, Placement, RegisterFilesRequest, SeenFile, UpdatePlacementRequest, placement::Scope,
};
use lockstep_proto::gateway::v1::{
    Cell, ExplainFileRequest, ListRowsRequest, ListServersRequest,
    cell::{KeptState, State},
};
use tonic::Status;

use crate::{
    mesh::{Caller, Mesh, Options, chunk, eventually, header, new_file, on, uuid},
    refusal::refused,
};

fn only(reason: Reason) -> Placement {
    Placement { scope: Scope::OriginOnly.into(), reason: reason.to_string() }
}

fn all() -> Placement {
    Placement { scope: Scope::AllServers.into(), reason: String::new() }
}

fn placed(path: &str, content: &[u8], placement: Placement) -> NewFile {
    NewFile { placement: Some(placement), ..new_file(path, content) }
}

fn seen(files: &[&File]) -> Vec<SeenFile> {
    let seen = |file: &&File| SeenFile { path: file.path.clone(), expected_revision: file.revision };
    files.iter().map(seen).collect()
}

/// The catalog in front of one server: it alone may place files.
async fn place(
    mesh: &Mesh,
    server: &str,
    files: Vec<SeenFile>,
    placement: Placement,
) -> Result<Vec<File>, Status> {
    place_as(mesh, server, &uuid(), files, placement).await
}

async fn place_as(
    mesh: &Mesh,
    server: &str,
    id: &str,
    files: Vec<SeenFile>,
    placement: Placement,
) -> Result<Vec<File>, Status> {
    let catalog = mesh.caller_at(server, &Identity::Service("catalog"));
    let request = UpdatePlacementRequest { files, placement: Some(placement), request_id: id.to_owned() };
    Ok(catalog.files().update_placement(request).await?.into_inner().files)
}

/// What the matrix says of a file: state, reason, and whether a copy is kept, of each server in turn.
async fn shown(mesh: &Mesh, path: &str) -> Vec<(State, String, KeptState)> {
    let cells = mesh.row(path).await.map(|row| row.cells).unwrap_or_default();
    let told = |cell: Cell| {
        let reason = cell.failure.as_ref().map_or_else(String::new, |failure| failure.reason.clone());
        (cell.state(), reason, cell.kept_state())
    };
    cells.into_iter().map(told).collect()
}

fn in_sync() -> (State, String, KeptState) {
    (State::InSync, String::new(), KeptState::Unspecified)
}

fn is_on(mesh: &Mesh, server: &str, path: &str) -> bool {
    mesh.transfer(server).join(path).exists()
}

/// Waits until every server has followed the registry to its head.
async fn followed(mesh: &Mesh, caller: &Caller) {
    let mark = format!("mark/{}", uuid());
    caller.register("s1", &mark, b"mark").await.expect("registered");
    mesh.in_sync(&mark).await;
}

/// R8, R12, R15, R36: a file that is meant for its origin is copied to nobody; meant for all, to everybody, also who comes
/// later; meant for its origin again, the copies stay, also through a restart and a move, and no new ones are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_meant_for_its_origin_is_not_copied_and_copies_stay() {
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let file = placed("fw/a", b"firmware", only(Reason::OptionOff));
    let file = caller.register_as("s1", &uuid(), file).await.expect("registered");
    assert_eq!(file.placement, Some(only(Reason::OptionOff)));
    followed(&mesh, &caller).await;
    assert!(is_on(&mesh, "s1", "fw/a") && !is_on(&mesh, "s2", "fw/a"));
    let absent = (State::NotEligible, "OPTION_OFF".to_owned(), KeptState::Absent);
    assert_eq!(shown(&mesh, "fw/a").await, [in_sync(), absent]);

    // Any server can be asked; a repeated request changes nothing.
    let id = uuid();
    let shared = place_as(&mesh, "s2", &id, seen(&[&file]), all()).await.expect("placed").remove(0);
    assert!(shared.revision > file.revision && shared.file_id == file.file_id, "{shared:?}");
    eventually("it is copied", async || is_on(&mesh, "s2", "fw/a")).await;
    let again = place_as(&mesh, "s1", &id, seen(&[&file]), all()).await.expect("the first answer").remove(0);
    assert_eq!(again, shared);
    let same = place(&mesh, "s1", seen(&[&shared]), all()).await.expect("nothing to do").remove(0);
    assert_eq!(same, shared, "what is placed so already keeps its revision");
    mesh.in_sync("fw/a").await;

    let kept = place(&mesh, "s1", seen(&[&shared]), only(Reason::ProtocolNotWebdav))
        .await
        .expect("placed")
        .remove(0);
    mesh.start("s3", Options::default()).await;
    mesh.ready().await;
    followed(&mesh, &caller).await;
    assert!(is_on(&mesh, "s2", "fw/a"), "copies stay");
    assert!(!is_on(&mesh, "s3", "fw/a"), "no new ones are made");
    let (reason, state) = ("PROTOCOL_NOT_WEBDAV".to_owned(), State::NotEligible);
    let (keeps, lacks) = ((state, reason.clone(), KeptState::Kept), (state, reason, KeptState::Absent));
    assert_eq!(shown(&mesh, "fw/a").await, [in_sync(), keeps.clone(), lacks.clone()]);
    let list = ListRowsRequest {
        states: vec![state.into()],
        server_ids: vec!["s3".to_owned()],
        ..Default::default()
    };
    let rows = caller.matrix().list_rows(list).await.expect("lists").into_inner().rows;
    assert_eq!(rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["fw/a"]);
    let explain = ExplainFileRequest { path: "fw/a".to_owned(), server_ids: Vec::new() };
    let told = caller
        .matrix()
        .explain_file(explain)
        .await
        .expect("explained")
        .into_inner()
        .explanation
        .expect("one");
    assert!(told.summary.contains("verified on 1 of 1 server"), "{}", told.summary);
    let message = |server: &str| {
        told.copies.iter().find(|copy| copy.server_id == server).map(|copy| copy.message.clone())
    };
    let said = message("s2").expect("a copy");
    assert!(said.starts_with("s2 keeps a copy, verified; ") && said.contains("none of UMS WebDAV"), "{said}");
    let servers = caller
        .matrix()
        .list_servers(ListServersRequest::default())
        .await
        .expect("lists")
        .into_inner()
        .servers;
    for server in servers {
        assert_eq!(server.in_sync_count, server.file_count, "{server:?}");
        assert_eq!(
            (server.exception_count, server.pending_count, server.failed_count),
            (0, 0, 0),
            "{server:?}"
        );
    }
    mesh.restart("s2").await;
    mesh.ready().await;
    eventually("s2 still keeps it", async || {
        shown(&mesh, "fw/a").await == [in_sync(), keeps.clone(), lacks.clone()]
    })
    .await;
    let moved = MoveFileRequest {
        path: "fw/a".to_owned(),
        new_path: "fw/b".to_owned(),
        expected_revision: kept.revision,
        request_id: uuid(),
    };
    let moved =
        caller.files().move_file(on("s3", moved)).await.expect("moved").into_inner().file.expect("a file");
    assert_eq!(moved.placement, Some(only(Reason::ProtocolNotWebdav)));
    followed(&mesh, &caller).await;
    for server in ["s1", "s2"] {
        eventually("the copies move along", async || {
            is_on(&mesh, server, "fw/b") && !is_on(&mesh, server, "fw/a")
        })
        .await;
    }
    assert!(!is_on(&mesh, "s3", "fw/b"));
    eventually("the matrix says so", async || {
        shown(&mesh, "fw/b").await == [in_sync(), keeps.clone(), lacks.clone()]
    })
    .await;

    // Changing back makes the missing copies.
    let back = place(&mesh, "s1", seen(&[&moved]), all()).await.expect("placed").remove(0);
    mesh.in_sync("fw/b").await;
    assert!(is_on(&mesh, "s3", "fw/b"));
    // Deleted everywhere, kept or not (R32).
    let last = place(&mesh, "s3", seen(&[&back]), only(Reason::OptionOff)).await.expect("placed").remove(0);
    caller.delete("s1", "fw/b", last.revision).await.expect("deleted");
    eventually("it is gone", async || ["s1", "s2", "s3"].iter().all(|server| !is_on(&mesh, server, "fw/b")))
        .await;
}

/// R12, R45: a copy that is kept and vanishes, or rots, is not made again; what nobody registered is not touched for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_copy_that_is_lost_is_not_made_again() {
    use lockstep_proto::filesync::v1::{CheckFilesRequest, check_files_request::Depth};
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let files: Vec<NewFile> = ["k/lost", "k/rotten"].map(|path| placed(path, b"as it was", all())).into();
    let request = RegisterFilesRequest { files, request_id: uuid() };
    let files =
        caller.files().register_files(on("s1", request)).await.expect("registered").into_inner().files;
    for file in &files {
        mesh.in_sync(&file.path).await;
    }
    let files: Vec<&File> = files.iter().collect();
    place(&mesh, "s1", seen(&files), only(Reason::TargetNotWebdav)).await.expect("placed");
    followed(&mesh, &caller).await;
    fs::remove_file(mesh.transfer("s2").join("k/lost")).expect("removed");
    let rotten = mesh.transfer("s2").join("k/rotten");
    let times = fs::metadata(&rotten).and_then(|found| found.modified()).expect("times");
    fs::write(&rotten, b"as it rot").expect("written");
    fs::File::options().write(true).open(&rotten).and_then(|file| file.set_modified(times)).expect("set");
    let check = CheckFilesRequest { depth: Depth::Content.into(), ..CheckFilesRequest::default() };
    mesh.operator("operator").stores().check_files(on("s2", check)).await.expect("checked");
    eventually("it is set aside", async || !is_on(&mesh, "s2", "k/rotten")).await;
    followed(&mesh, &caller).await;
    assert!(!is_on(&mesh, "s2", "k/lost"), "no new copy is made");
    for path in ["k/lost", "k/rotten"] {
        let lacks = (State::NotEligible, "TARGET_NOT_WEBDAV".to_owned(), KeptState::Absent);
        eventually("the matrix says so", async || shown(&mesh, path).await == [in_sync(), lacks.clone()])
            .await;
    }
    for path in ["k/lost", "k/rotten"] {
        assert!(is_on(&mesh, "s1", path), "its origin has it");
    }
}

/// R37, I11: files are placed and deleted together, all or none, by whoever saw them; nobody but the catalog places them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_placed_and_deleted_together() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("local");
    let a = caller.register("s1", "d/a", b"a").await.expect("registered");
    let b = caller.register("s1", "d/b", b"b").await.expect("registered");
    let stale = SeenFile { path: "d/b".to_owned(), expected_revision: b.revision + 7 };
    let mixed = vec![seen(&[&a]).remove(0), stale.clone()];
    let refusal = place(&mesh, "s1", mixed.clone(), only(Reason::OptionOff)).await;
    refused("stale", refusal, Reason::RevisionChanged);
    let absent = vec![SeenFile { path: "d/none".to_owned(), expected_revision: 1 }];
    refused("absent", place(&mesh, "s1", absent, all()).await, Reason::FileNotFound);
    refused("none", place(&mesh, "s1", Vec::new(), all()).await, Reason::FieldViolation).blames(&["files"]);
    let twice = seen(&[&a, &a]);
    refused("twice", place(&mesh, "s1", twice, all()).await, Reason::FieldViolation)
        .blames(&["files[1].path"]);
    for (wrong, field) in [
        (Placement { scope: Scope::OriginOnly.into(), reason: "BECAUSE".to_owned() }, "placement.reason"),
        (Placement { scope: Scope::AllServers.into(), reason: "OPTION_OFF".to_owned() }, "placement.reason"),
        (Placement { scope: 99, reason: String::new() }, "placement.scope"),
    ] {
        let refusal = place(&mesh, "s1", seen(&[&a]), wrong).await;
        refused("wrong", refusal, Reason::FieldViolation).blames(&[field]);
    }
    let request = UpdatePlacementRequest { files: seen(&[&a]), placement: Some(all()), request_id: uuid() };
    let refusal = caller.files().update_placement(on("s1", request)).await;
    refused("an admin", refusal, Reason::PermissionDenied);
    assert_eq!(caller.get("d/a").await.expect("there"), a, "nothing was half done");

    let delete =
        |files: Vec<SeenFile>, id: &str| on("s1", DeleteFilesRequest { files, request_id: id.to_owned() });
    let refusal = caller.files().delete_files(delete(mixed, &uuid())).await;
    refused("stale", refusal, Reason::RevisionChanged);
    let id = uuid();
    let deleted =
        caller.files().delete_files(delete(seen(&[&a, &b]), &id)).await.expect("deleted").into_inner();
    assert_eq!(deleted.files, [a.clone(), b.clone()]);
    let again = caller
        .files()
        .delete_files(delete(seen(&[&a, &b]), &id))
        .await
        .expect("the first answer")
        .into_inner();
    assert_eq!(again, deleted);
    let other = caller.files().delete_files(delete(seen(&[&a]), &id)).await;
    refused("another request", other, Reason::RequestIdReused);
    let gone = caller.files().delete_files(delete(seen(&[&a, &b]), &uuid())).await;
    refused("gone", gone, Reason::FileNotFound);
    assert!(!is_on(&mesh, "s1", "d"), "directories that we made go when they are empty");
}

/// R57, R58: an upload that comes to nothing leaves nothing, and room is asked for before the first byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_dropped_and_room_is_told() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    let id = uuid();
    caller.upload("s1", vec![header(&id, 8, 0), chunk(0, b"half")]).await.expect("begun");
    let cancel = |id: &str| on("s1", CancelUploadRequest { upload_id: id.to_owned(), request_id: uuid() });
    // Nobody else's.
    mesh.operator("operator").uploads().cancel_upload(cancel(&id)).await.expect("not there for this caller");
    let progress = |id: &str| on("s1", GetUploadRequest { upload_id: id.to_owned() });
    assert_eq!(
        caller.uploads().get_upload(progress(&id)).await.expect("there").into_inner().committed_bytes,
        4
    );
    for _ in 0..2 {
        caller.uploads().cancel_upload(cancel(&id)).await.expect("dropped");
    }
    refused("dropped", caller.uploads().get_upload(progress(&id)).await, Reason::UploadNotFound);
    assert!(mesh.footprint().await.staged["s1"].is_empty());
    let refusal = caller.uploads().cancel_upload(cancel("x")).await;
    refused("no id", refusal, Reason::FieldViolation).blames(&["upload_id"]);

    let space = |size_bytes| on("s1", CheckSpaceRequest { size_bytes });
    let room = caller.uploads().check_space(space(1)).await.expect("room").into_inner().available_bytes;
    assert!(room > 1);
    let refusal = refused("too much", caller.uploads().check_space(space(4 << 40)).await, Reason::DiskFull);
    refusal.with(&["free_bytes", "needed_bytes"]);
    for wrong in [-1, (4 << 40) + 1] {
        let refusal = caller.uploads().check_space(space(wrong)).await;
        refused("wrong", refusal, Reason::FieldViolation).blames(&["size_bytes"]);
    }
    let caller = mesh.operator("viewer");
    refused("a viewer", caller.uploads().check_space(space(1)).await, Reason::PermissionDenied);
}
