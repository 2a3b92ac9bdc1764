//! Every change, repeated with the same request id, gives the first answer: at once, much later, after a restart, on
//! another server, and after the world went on.

use bytes::Bytes;
use futures::future::join_all;
use lockstep_model::Reason;
use lockstep_proto::filesync::v1::{
    DeleteAsideFileRequest, DeleteFileRequest, DeleteFileResponse, File, NewFile, ReconcileRequest,
    RegisterFilesRequest, RestoreAsideFileRequest, RestoreFileRequest, UpdateFileVersionRequest,
    check_files_request::Depth, new_file::Source,
};
use lockstep_registry::Registry as _;
use tonic::Status;

use crate::{
    disk::{aside, check, read, write},
    mesh::{Caller, Mesh, chunk, eventually, header, new_file, on, uuid},
    refusal::refused,
};

/// So many at the same time.
const TIMES: usize = 100;

async fn delete(caller: &Caller, server: &str, id: &str, file: &File) -> Result<DeleteFileResponse, Status> {
    let (path, expected_revision) = (file.path.clone(), file.revision);
    let request = DeleteFileRequest { path, expected_revision, request_id: id.to_owned() };
    Ok(caller.files().delete_file(on(server, request)).await?.into_inner())
}

async fn register_all(
    caller: &Caller,
    server: &str,
    id: &str,
    files: &[NewFile],
) -> Result<Vec<File>, Status> {
    let request = RegisterFilesRequest { files: files.to_vec(), request_id: id.to_owned() };
    Ok(caller.files().register_files(on(server, request)).await?.into_inner().files)
}

/// All answers are one.
#[track_caller]
fn one<T: PartialEq + std::fmt::Debug>(what: &str, answers: Vec<Result<T, Status>>) -> T {
    let mut answers =
        answers.into_iter().map(|answer| answer.unwrap_or_else(|told| panic!("{what}: {told:?}")));
    let first = answers.next().expect("an answer");
    for answer in answers {
        assert_eq!(answer, first, "{what}");
    }
    first
}

async fn head(mesh: &Mesh) -> u64 {
    mesh.registry.head().await.expect("the registry answers").revision.0
}

async fn nothing_is_staged(mesh: &Mesh) {
    let staged = async || mesh.footprint().await.staged.values().all(Vec::is_empty);
    eventually("nothing is left in staging", staged).await;
}

/// I11: a hundred times at once, on one server and on two, each change happens once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_repeated_at_once_happens_once() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let server = |number: usize, servers: usize| if number.is_multiple_of(servers) { "s1" } else { "s2" };
    for servers in [1, 2] {
        let before = head(&mesh).await;
        let (id, path) = (uuid(), format!("one/{servers}"));
        let answers =
            (0..TIMES).map(|n| caller.register_as(server(n, servers), &id, new_file(&path, b"one")));
        let file = one("RegisterFile", join_all(answers).await);
        assert_eq!(file.path, path);
        assert_eq!(head(&mesh).await, before + 1, "one revision");

        let many =
            [new_file(&format!("many/{servers}/a"), b"a"), new_file(&format!("many/{servers}/b"), b"b")];
        let id = uuid();
        let answers = (0..TIMES).map(|n| register_all(&caller, server(n, servers), &id, &many));
        assert_eq!(one("RegisterFiles", join_all(answers).await).len(), 2);
        assert_eq!(head(&mesh).await, before + 2, "one revision");

        let id = uuid();
        let answers = (0..TIMES).map(|n| delete(&caller, server(n, servers), &id, &file));
        let deleted = one("DeleteFile", join_all(answers).await);
        assert_eq!(deleted.file.as_ref(), Some(&file));
        assert_eq!(
            (head(&mesh).await, deleted.delete_revision as u64),
            (before + 3, before + 3),
            "one revision"
        );
    }
    // An upload is on one server, so that is where it is repeated.
    let (upload, id, before) = (uuid(), uuid(), head(&mesh).await);
    caller.upload("s1", vec![header(&upload, 3, 0), chunk(0, b"abc")]).await.expect("uploaded");
    let from_upload =
        NewFile { path: "uploaded".to_owned(), source: Some(Source::UploadId(upload)), ..NewFile::default() };
    let answers = (0..TIMES).map(|_| caller.register_as("s1", &id, from_upload.clone()));
    one("RegisterFile of an upload", join_all(answers).await);
    assert_eq!(head(&mesh).await, before + 1, "one revision");
    let operator = mesh.operator("operator");
    let rounds = (0..TIMES).map(async |_| {
        let answer = operator.replicas().reconcile(on("s1", ReconcileRequest::default())).await?;
        Ok(answer.into_inner().position)
    });
    one("Reconcile", join_all(rounds).await);
    mesh.in_sync("uploaded").await;
    nothing_is_staged(&mesh).await;
    let published = mesh.footprint().await.published;
    assert_eq!(published["s1"], published["s2"]);
    assert_eq!(published["s1"].len(), 1 + 1 + 2 + 4, "{published:?}");
}

/// I3, I11: repeated after a restart, on another server, after the file was deleted, and after the path was registered
/// anew: the first answer each time, and no effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_repeated_later_gives_the_first_answer() {
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let (register, both, remove) = (uuid(), uuid(), uuid());
    let many = [new_file("b/x", b"x"), new_file("b/y", b"y")];
    let file = caller.register_as("s1", &register, new_file("a", b"first")).await.expect("registered");
    let files = register_all(&caller, "s1", &both, &many).await.expect("registered");
    let upload = uuid();
    caller.upload("s1", vec![header(&upload, 3, 0), chunk(0, b"abc")]).await.expect("uploaded");
    let from_upload =
        NewFile { path: "u".to_owned(), source: Some(Source::UploadId(upload)), ..NewFile::default() };
    let of_upload = uuid();
    let uploaded = caller.register_as("s1", &of_upload, from_upload.clone()).await.expect("registered");

    let registered_again = async |mesh: &Mesh, when: &str| {
        let before = head(mesh).await;
        let caller = mesh.operator("publisher");
        for server in ["s1", "s2"] {
            let what = format!("{when} on {server}");
            let again = caller.register_as(server, &register, new_file("a", b"first")).await;
            assert_eq!(again.unwrap_or_else(|told| panic!("{what}: {told:?}")), file, "{what}");
            let again = register_all(&caller, server, &both, &many).await;
            assert_eq!(again.unwrap_or_else(|told| panic!("{what}: {told:?}")), files, "{what}");
            let again = caller.register_as(server, &of_upload, from_upload.clone()).await;
            assert_eq!(again.unwrap_or_else(|told| panic!("{what}: {told:?}")), uploaded, "{what}");
            // The name of the request still means this request only.
            let other = caller.register_as(server, &register, new_file("a", b"other")).await;
            refused(&what, other, Reason::RequestIdReused);
        }
        assert_eq!(head(mesh).await, before, "{when}: no effect");
    };
    registered_again(&mesh, "at once").await;
    for path in ["a", "b/x", "b/y", "u"] {
        mesh.in_sync(path).await;
    }
    registered_again(&mesh, "when it is everywhere").await;
    mesh.restart("s1").await;
    mesh.restart("s2").await;
    mesh.ready().await;
    registered_again(&mesh, "after a restart").await;

    let deleted = delete(&caller, "s1", &remove, &file).await.expect("deleted");
    for old in files.iter().chain([&uploaded]) {
        delete(&caller, "s2", &uuid(), old).await.expect("deleted");
    }
    registered_again(&mesh, "after it was deleted").await;
    refused("it stays deleted", caller.get("a").await, Reason::FileNotFound);
    let deleted_again = async |mesh: &Mesh, when: &str| {
        let before = head(mesh).await;
        for server in ["s1", "s2"] {
            let again = delete(&mesh.operator("publisher"), server, &remove, &file).await;
            assert_eq!(
                again.unwrap_or_else(|told| panic!("{when} on {server}: {told:?}")),
                deleted,
                "{when}"
            );
        }
        assert_eq!(head(mesh).await, before, "{when}: no effect");
    };
    deleted_again(&mesh, "at once").await;
    mesh.restart("s1").await;
    mesh.ready().await;
    deleted_again(&mesh, "after a restart").await;

    let newer = caller.register("s2", "a", b"second").await.expect("the path is free");
    mesh.in_sync("a").await;
    deleted_again(&mesh, "after the path was registered anew").await;
    registered_again(&mesh, "after the path was registered anew").await;
    assert_eq!(caller.get("a").await.expect("there"), newer, "what is newer stays");
    delete(&caller, "s1", &uuid(), &newer).await.expect("deleted");
    deleted_again(&mesh, "after the newer one was deleted").await;
    registered_again(&mesh, "after the newer one was deleted").await;
    nothing_is_staged(&mesh).await;
}

/// I11: a change that was refused is not remembered: the same request succeeds once it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_may_be_repeated() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    let first = caller.register("s1", "a", b"first").await.expect("registered");
    let id = uuid();
    let again = caller.register_as("s1", &id, new_file("a", b"second")).await;
    refused("taken", again, Reason::FileExists);
    delete(&caller, "s1", &uuid(), &first).await.expect("deleted");
    let file = caller.register_as("s1", &id, new_file("a", b"second")).await.expect("free now");
    assert_ne!((file.revision, &file.file_id), (first.revision, &first.file_id));
    let place = mesh.transfer("s1").join("a");
    assert_eq!(Bytes::from(std::fs::read(place).expect("there")), Bytes::from_static(b"second"));
    nothing_is_staged(&mesh).await;
}

async fn bring_back(caller: &Caller, id: &str, aside_id: &str, path: &str) -> Result<String, Status> {
    let (aside_id, path, request_id) = (aside_id.to_owned(), path.to_owned(), id.to_owned());
    let request = RestoreAsideFileRequest { aside_id, path, request_id };
    Ok(caller.stores().restore_aside_file(on("s1", request)).await?.into_inner().path)
}

async fn drop_aside(caller: &Caller, id: &str, aside_id: &str) -> Result<(), Status> {
    let request = DeleteAsideFileRequest { aside_id: aside_id.to_owned(), request_id: id.to_owned() };
    caller.stores().delete_aside_file(on("s1", request)).await.map(drop)
}

/// I11: what was set aside comes back, or goes, once for each request, however often and whenever that is repeated; the name
/// of a request means that request only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_about_what_was_set_aside_happens_once() {
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    for path in ["p", "q"] {
        write(&mesh, "s1", path, format!("loose {path}").as_bytes());
        caller.register("s2", path, b"registered").await.expect("registered");
        mesh.in_sync(path).await;
    }
    eventually("both are listed", async || aside(&caller, "s1").await.len() == 2).await;
    let kept = aside(&caller, "s1").await;
    let id_of = |path: &str| kept.iter().find(|file| file.path == path).expect("set aside").aside_id.clone();
    let (p, q, restore, remove) = (id_of("p"), id_of("q"), uuid(), uuid());

    refused("taken", bring_back(&caller, &restore, &p, "").await, Reason::FileExists);
    let answers = (0..TIMES).map(|_| bring_back(&caller, &restore, &p, "back/p"));
    assert_eq!(
        one("RestoreAsideFile", join_all(answers).await),
        "back/p",
        "what was refused is not remembered"
    );
    let answers = (0..TIMES).map(|_| drop_aside(&caller, &remove, &q));
    one("DeleteAsideFile", join_all(answers).await);
    assert!(aside(&caller, "s1").await.is_empty());
    assert_eq!(read(&mesh, "s1", "back/p"), b"loose p");

    let registered = uuid();
    caller.register_as("s1", &registered, new_file("r", b"r")).await.expect("registered");
    for id in [&restore, &remove, &registered] {
        refused("reused", bring_back(&caller, id, &q, "other").await, Reason::RequestIdReused);
    }
    refused("reused", drop_aside(&caller, &restore, &p).await, Reason::RequestIdReused);

    std::fs::remove_file(mesh.transfer("s1").join("back/p")).expect("removed");
    mesh.restart("s1").await;
    mesh.ready().await;
    assert_eq!(bring_back(&caller, &restore, &p, "back/p").await.expect("the first answer"), "back/p");
    drop_aside(&caller, &remove, &q).await.expect("the first answer");
    assert!(!mesh.transfer("s1").join("back/p").exists(), "nothing happens");
    refused("another request", drop_aside(&caller, &uuid(), &q).await, Reason::ContentNotFound);
}

/// I11, R31: drift is settled once for each request: repeated after the file drifted again, a request gives its first answer
/// and changes nothing, even if there was nothing to do at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_about_drift_happens_once() {
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let file = caller.register("s2", "x", b"registered").await.expect("registered");
    mesh.in_sync("x").await;
    let restore = async |mesh: &Mesh, id: &str| {
        let (path, request_id) = ("x".to_owned(), id.to_owned());
        let request = RestoreFileRequest { path, expected_revision: file.revision, request_id };
        let answer = mesh.operator("publisher").stores().restore_file(on("s1", request)).await;
        answer.map(|answer| answer.into_inner().file.expect("a file"))
    };
    let update = async |mesh: &Mesh, id: &str| {
        let (path, request_id) = ("x".to_owned(), id.to_owned());
        let request = UpdateFileVersionRequest { path, expected_revision: file.revision, request_id };
        let answer = mesh.operator("publisher").stores().update_file_version(on("s1", request)).await;
        answer.map(|answer| answer.into_inner().file.expect("a file"))
    };
    let (restoring, updating) = (uuid(), uuid());
    assert_eq!(update(&mesh, &updating).await.expect("nothing to do"), file);
    write(&mesh, "s1", "x", b"drifted");
    assert_eq!(check(&mesh, "s1", Depth::Times).await.drifted_count, 1);
    let before = head(&mesh).await;
    assert_eq!(update(&mesh, &updating).await.expect("the first answer"), file);
    assert_eq!((head(&mesh).await, read(&mesh, "s1", "x")), (before, b"drifted".to_vec()), "nothing happens");

    let answers = (0..TIMES).map(|_| restore(&mesh, &restoring));
    assert_eq!(one("RestoreFile", join_all(answers).await), file);
    mesh.in_sync("x").await;
    assert_eq!(read(&mesh, "s1", "x"), b"registered");
    write(&mesh, "s1", "x", b"drifted again");
    assert_eq!(check(&mesh, "s1", Depth::Times).await.drifted_count, 1);
    mesh.restart("s1").await;
    mesh.ready().await;
    assert_eq!(restore(&mesh, &restoring).await.expect("the first answer"), file);
    assert_eq!(check(&mesh, "s1", Depth::Times).await.drifted_count, 1, "nothing happens");
    refused("reused", restore(&mesh, &updating).await, Reason::RequestIdReused);
    refused("reused", update(&mesh, &restoring).await, Reason::RequestIdReused);
    restore(&mesh, &uuid()).await.expect("restored");
    mesh.in_sync("x").await;
}
