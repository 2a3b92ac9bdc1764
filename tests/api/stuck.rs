//! What a real disk refuses at one path, for a file that somebody made immutable: told by the server, tried again, and in
//! nobody's way.

use std::{fs, path::Path, process::Command};

use lockstep_model::Reason;
use lockstep_proto::gateway::v1::{ListServersRequest, ServerSummary, cell};

use crate::{
    mesh::{Mesh, Options, eventually},
    refusal::refused,
    words::told_in_words,
};

/// Makes a file immutable, or no more; gives it back at the end whatever happens, or nobody could remove the directory.
struct Immutable<'a>(&'a Path);

impl<'a> Immutable<'a> {
    fn new(path: &'a Path) -> Self {
        assert!(chattr("+i", path), "this test needs root, and a file system with attributes for {path:?}");
        Self(path)
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        chattr("-i", self.0);
    }
}

fn chattr(flag: &str, path: &Path) -> bool {
    Command::new("chattr").arg(flag).arg(path).status().expect("chattr is there").success()
}

async fn summary(mesh: &Mesh, server: &str) -> ServerSummary {
    let answer = mesh.operator("viewer").matrix().list_servers(ListServersRequest::default()).await;
    let servers = answer.expect("lists").into_inner().servers;
    servers.into_iter().find(|summary| summary.server_id == server).expect("a server")
}

/// R26, R32, I3: a deletion that one disk refuses is told with the path, the reason and what to do, as a condition of that
/// server, whose other files come and go; it is known after a restart, and carried out when the disk lets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_deletion_is_told_and_tried_again() {
    let cycle = std::time::Duration::from_secs(2);
    let options = || Options { cycle, ..Options::default() };
    let mut mesh = Mesh::with(vec![options(), options()]).await;
    let caller = mesh.operator("publisher");
    let file = caller.register("s1", "d/stuck", b"stuck").await.expect("registered");
    let other = caller.register("s1", "d/other", b"other").await.expect("registered");
    mesh.in_sync("d/stuck").await;
    mesh.in_sync("d/other").await;
    let place = mesh.transfer("s2").join("d/stuck");
    let immutable = Immutable::new(&place);
    caller.delete("s1", "d/stuck", file.revision).await.expect("deleted");
    caller.delete("s1", "d/other", other.revision).await.expect("deleted");
    let told = async |mesh: &Mesh| {
        let summary = summary(mesh, "s2").await;
        let failure = summary.conditions.first().and_then(|condition| condition.failure.clone())?;
        Some((summary.exception_count, summary.lag_count, failure))
    };
    eventually("it is told", async || told(&mesh).await.is_some_and(|(_, lag, _)| lag == 0)).await;
    let (count, _, failure) = told(&mesh).await.expect("just seen");
    assert_eq!((count, failure.reason.as_str()), (1, Reason::DiskRefused.as_str()));
    for word in ["d/stuck", "s2", "Operation not permitted"] {
        assert!(failure.message.contains(word), "{}", failure.message);
    }
    assert!(failure.advice.contains("lsattr"), "{}", failure.advice);
    eventually("the other one goes", async || !mesh.transfer("s2").join("d/other").exists()).await;
    assert_eq!(fs::read(&place).expect("there"), b"stuck");

    // The server takes part in everything else.
    caller.register("s2", "d/new", b"new").await.expect("registered");
    mesh.in_sync("d/new").await;
    let told_of = refused("here", caller.register("s2", "d/stuck", b"again").await, Reason::DiskRefused);
    told_of.with(&["path", "server_id"]).says(&["s2", "d/stuck"]);
    mesh.restart("s2").await;
    mesh.ready().await;
    eventually("it is known after a restart", async || told(&mesh).await.is_some()).await;

    drop(immutable);
    eventually("it goes", async || !place.exists()).await;
    eventually("nothing is told any more", async || {
        let summary = summary(&mesh, "s2").await;
        summary.conditions.is_empty() && summary.exception_count == 0
    })
    .await;
    caller.register("s2", "d/stuck", b"again").await.expect("registered");
    mesh.in_sync("d/stuck").await;
}

/// R26, R43: a directory in which nothing can be made keeps one file from its place, which the matrix says with the reason;
/// everything else comes, and so does the file when the directory lets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_refuses_is_told_in_the_matrix() {
    let cycle = std::time::Duration::from_secs(2);
    let options = || Options { cycle, ..Options::default() };
    let mesh = Mesh::with(vec![options(), options()]).await;
    let caller = mesh.operator("publisher");
    let place = mesh.transfer("s2").join("locked");
    fs::create_dir_all(&place).expect("made");
    let immutable = Immutable::new(&place);
    let large = vec![3; (2 << 20) + 7];
    caller.register("s1", "locked/small", b"small").await.expect("registered");
    caller
        .register_as("s1", &crate::mesh::uuid(), upload(&mesh, "locked/large", &large).await)
        .await
        .expect("done");
    caller.register("s1", "free", b"free").await.expect("registered");
    mesh.in_sync("free").await;
    for path in ["locked/small", "locked/large"] {
        eventually("the matrix says why", async || {
            let row = mesh.row(path).await.expect("a row");
            let cell = row.cells.iter().find(|cell| cell.server_id == "s2").expect("a cell");
            let why = cell.failure.as_ref().map(|failure| failure.reason.as_str());
            cell.state() == cell::State::Failed && why == Some(Reason::DiskRefused.as_str())
        })
        .await;
    }
    told_in_words(&mesh, "disk_refused", "locked/small", "s2").await;
    drop(immutable);
    for path in ["locked/small", "locked/large"] {
        mesh.in_sync(path).await;
    }
    assert_eq!(fs::read(place.join("large")).expect("there"), large);
}

async fn upload(mesh: &Mesh, path: &str, content: &[u8]) -> lockstep_proto::filesync::v1::NewFile {
    use lockstep_proto::filesync::v1::{NewFile, new_file::Source};
    let id = crate::mesh::uuid();
    let mut parts = vec![crate::mesh::header(&id, content.len(), 0)];
    let mut offset = 0;
    for part in content.chunks(1 << 20) {
        parts.push(crate::mesh::chunk(offset, part));
        offset += part.len();
    }
    mesh.operator("publisher").upload("s1", parts).await.expect("uploaded");
    NewFile { path: path.to_owned(), source: Some(Source::UploadId(id)), ..NewFile::default() }
}

/// I4, I6, R32: a server whose disk is full, with as many exceptions as it may have, keeps its position and removes what is
/// deleted all the same, as real files, after a restart too; with room it holds everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_removes_what_is_deleted() {
    const EXCEPTIONS_MAX: usize = 5;
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let mut old = Vec::new();
    for at in 0..6 {
        old.push(caller.register("s1", &format!("old/{at}"), b"old").await.expect("registered"));
    }
    for file in &old {
        mesh.in_sync(&file.path).await;
    }
    let full = Options { reserve_bytes: 1 << 62, exceptions_max: EXCEPTIONS_MAX, ..Options::default() };
    mesh.servers["s2"].stop().await;
    mesh.start("s2", full).await;
    mesh.ready().await;
    for at in 0..2 * EXCEPTIONS_MAX {
        caller
            .register("s1", &format!("new/{at}"), format!("new {at}").as_bytes())
            .await
            .expect("registered");
    }
    let waits = async |mesh: &Mesh| {
        let summary = summary(mesh, "s2").await;
        let full = summary.conditions.iter().filter_map(|condition| condition.failure.as_ref());
        let is_full = full.map(|failure| failure.reason.as_str()).eq([Reason::DiskFull.as_str()]);
        is_full && summary.exception_count == EXCEPTIONS_MAX as i64 && summary.lag_count > 0
    };
    eventually("the position waits, for one condition", async || waits(&mesh).await).await;
    let gone = async |mesh: &Mesh, file: &str| !mesh.transfer("s2").join(file).exists();
    for (at, file) in old.iter().enumerate() {
        if at == old.len() / 2 {
            mesh.restart("s2").await;
            mesh.ready().await;
        }
        mesh.operator("publisher").delete("s1", &file.path, file.revision).await.expect("deleted");
        eventually("what is deleted goes", async || gone(&mesh, &file.path).await).await;
    }
    eventually("the position still waits", async || waits(&mesh).await).await;
    mesh.servers["s2"].stop().await;
    mesh.start("s2", Options::default()).await;
    mesh.ready().await;
    for at in 0..2 * EXCEPTIONS_MAX {
        mesh.in_sync(&format!("new/{at}")).await;
    }
    assert_eq!(mesh.footprint().await.published["s1"], mesh.footprint().await.published["s2"]);
}
