//! Calls that the state of the world does not allow: disks, registries, peers and servers that are not what they were.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lockstep_chassis::{SERVER_KEY, status};
use lockstep_model::{Digest, Identity, Reason};
use lockstep_proto::{
    filesync::v1::{
        ContentRange, DeleteFileRequest, ListFilesRequest, ReadContentRequest, ReconcileRequest,
        WatchReplicasRequest, read_content_response::Part,
    },
    gateway::v1::{ListServersRequest, ServerSummary, cell, server_summary},
};
use lockstep_registry::Registry as _;
use prost::Message as _;
use rusqlite::Connection;
use tokio::time::Instant;

use crate::{
    calls::{Stranger, Wire, framed},
    mesh::{Mesh, Options, chunk, eventually, header, new_file, of_server, on, operator, uuid},
    refusal::refused,
    words::told_in_words,
};

async fn summary(mesh: &Mesh, server: &str) -> ServerSummary {
    let answer = mesh.operator("viewer").matrix().list_servers(ListServersRequest::default()).await;
    let servers = answer.expect("lists").into_inner().servers;
    servers.into_iter().find(|known| known.server_id == server).expect("known")
}

async fn has_condition(mesh: &Mesh, server: &str, reason: Reason) -> bool {
    let conditions = summary(mesh, server).await.conditions;
    conditions.iter().any(|one| one.failure.as_ref().is_some_and(|failure| failure.reason == reason.as_str()))
}

/// H3, I7: a file that is larger than the free space is refused with the figures, before its bytes are sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_before_the_bytes() {
    let mesh = Mesh::with(vec![Options { reserve_bytes: 1 << 60, ..Options::default() }]).await;
    let (caller, before) = (mesh.operator("publisher"), mesh.footprint().await);
    let told = refused("inline", caller.register("s1", "a", b"x").await, Reason::DiskFull);
    assert_eq!(told.with(&["free_bytes", "server_id"]).says(&["s1"]).value("needed_bytes"), "1");
    // The body never comes: the header alone is answered.
    let parts = futures::stream::iter([header(&uuid(), 1 << 30, 0)]);
    let endless = tokio_stream::StreamExt::chain(parts, futures::stream::pending());
    let answer = caller.uploads().write_upload(on("s1", endless)).await;
    let told = refused("upload", answer, Reason::DiskFull);
    assert_eq!(told.with(&["free_bytes", "server_id"]).value("needed_bytes"), (1_u64 << 30).to_string());
    let too_large = caller.upload("s1", vec![header(&uuid(), (64 << 30) + 1, 0)]).await;
    refused("what fits no disk", too_large, Reason::SizeLimitExceeded);
    assert_eq!(mesh.footprint().await, before, "nothing is half done");
    // What needs no space is done.
    caller.register("s1", "empty", b"").await.expect("an empty file needs no space");
}

/// R14: whoever takes no part says why, in the answer, in the summary and in the cell; and originates nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_take_no_part_say_why() {
    let options = |mode, version| Options { mode, version, ..Options::default() };
    let mesh = Mesh::with(vec![
        options("distributed", "6.10.100"),
        options("standalone", "12.04.100"),
        options("distributed", "6.09.999"),
        options("high-availability", "6.06.099"),
        options("high-availability", "6.06.100"),
    ])
    .await;
    let excluded =
        [("s2", Reason::Standalone), ("s3", Reason::UnsupportedVersion), ("s4", Reason::UnsupportedVersion)];
    let caller = mesh.operator("publisher");
    let file = caller.register("s1", "a", b"x").await.expect("registered");
    eventually("those that take part hold it", async || {
        let row = mesh.row("a").await.expect("a row");
        row.cells.iter().filter(|cell| cell.state() == cell::State::InSync).count() == 2
    })
    .await;
    let before = mesh.footprint().await;
    for (server, why) in excluded {
        let told = [
            refused("register", caller.register(server, "b", b"x").await, Reason::ServerNotEligible),
            refused("delete", caller.delete(server, "a", file.revision).await, Reason::ServerNotEligible),
            refused(
                "upload",
                caller.upload(server, vec![header(&uuid(), 1, 0)]).await,
                Reason::ServerNotEligible,
            ),
        ];
        for told in told {
            assert_eq!((told.value("server_id"), told.value("why")), (server, why.as_str()));
        }
        // It may be asked, though.
        let found = mesh.caller_at(server, &operator("viewer")).get("a").await.expect("the registry says so");
        assert_eq!(found, file);
        let summary = summary(&mesh, server).await;
        assert_eq!(summary.state(), server_summary::State::NotEligible);
        assert_eq!(summary.failure.map(|failure| failure.reason).as_deref(), Some(why.as_str()));
        let row = mesh.row("a").await.expect("a row");
        let cell = row.cells.iter().find(|cell| cell.server_id == server).expect("a cell");
        assert_eq!(cell.state(), cell::State::NotEligible);
        let failure = cell.failure.as_ref().expect("a reason");
        assert!(failure.reason == why.as_str() && !failure.message.is_empty() && !failure.advice.is_empty());
    }
    told_in_words(&mesh, "standalone", "a", "s2").await;
    told_in_words(&mesh, "unsupported_version", "a", "s3").await;
    assert_eq!(mesh.footprint().await, before);
    assert!(
        before.published["s2"].is_empty()
            && before.published["s3"].is_empty()
            && before.published["s4"].is_empty()
    );
}

/// I1, I11, H9: a registry that another process keeps locked decides nothing; reads go on; the same request, repeated
/// afterwards, has one effect, also if its deadline passed while it waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_registry_decides_nothing() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    let kept = caller.register("s1", "kept", b"x").await.expect("registered");
    mesh.in_sync("kept").await;
    let before = mesh.footprint().await;
    let lock = Connection::open(mesh.registry_file()).expect("opens");
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");

    // Made by hand, because our own client would not wait for an answer that is late.
    let read = |path| fs::read_to_string(path).expect("readable");
    let (cert, key) = mesh.certificate(&operator("publisher"));
    let mut wire = Wire::connect(Stranger::showing(Some((&read(cert), &read(key)))), mesh.door().port)
        .await
        .expect("connected");
    let late = lockstep_proto::filesync::v1::RegisterFileRequest {
        file: Some(new_file("late", b"late")),
        request_id: uuid(),
    };
    let path = "/lockstep.filesync.v1.FileService/RegisterFile";
    let headers = [(SERVER_KEY, "s1"), ("grpc-timeout", "300m")];
    let begun = Instant::now();
    let answer = wire.post(path, &headers, framed(&late.encode_to_vec())).await.expect("an answer").result();
    refused("a deadline", answer, Reason::DeadlineExpired);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    let id = uuid();
    let answer = caller.register_as("s1", &id, new_file("locked", b"locked")).await;
    refused("register", answer, Reason::RegistryUnavailable)
        .with(&["cause"])
        .says(&["locked by", "registry.sqlite"]);
    assert_eq!(caller.get("kept").await.expect("reads go on"), kept);
    lock.execute_batch("ROLLBACK").expect("unlocked");
    drop(lock);

    // What was not answered may have happened, or happens now; either way once.
    let file = caller.register_as("s1", &id, new_file("locked", b"locked")).await.expect("registered");
    let again = caller.register_as("s1", &id, new_file("locked", b"locked")).await.expect("the first answer");
    assert_eq!(file, again);
    let answer = caller.register_as("s1", &late.request_id, late.file.clone().expect("a file")).await;
    let late = answer.expect("registered");
    assert_eq!(
        (late.path.as_str(), late.digest.as_str()),
        ("late", Digest::of(b"late").to_string().as_str())
    );
    for path in ["kept", "locked", "late"] {
        mesh.in_sync(path).await;
    }
    eventually("nothing is left in staging", async || mesh.footprint().await.staged == before.staged).await;
    let head = mesh.registry.head().await.expect("the registry answers");
    assert_eq!(head.revision.0, before.head.revision.0 + 2, "two registrations, each once");
}

/// I1, I10: a registry whose file is gone answers nothing; back again, everything goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_gone_is_unavailable() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    let kept = caller.register("s1", "kept", b"x").await.expect("registered");
    let before = mesh.footprint().await;
    let (there, away) = (mesh.path("registry"), mesh.path("registry-away"));
    fs::rename(&there, &away).expect("moved");
    let id = uuid();
    let answer = caller.register_as("s1", &id, new_file("gone", b"gone")).await;
    refused("register", answer, Reason::RegistryUnavailable).with(&["cause"]).says(&["registry.sqlite"]);
    refused("get", caller.get("kept").await, Reason::RegistryUnavailable).with(&["cause"]);
    let list = caller.files().list_files(ListFilesRequest::default()).await;
    refused("list", list, Reason::RegistryUnavailable).with(&["cause"]);
    refused("delete", caller.delete("s1", "kept", kept.revision).await, Reason::RegistryUnavailable);
    let answer = mesh.operator("operator").replicas().reconcile(on("s1", ReconcileRequest::default())).await;
    refused("reconcile", answer, Reason::RegistryUnavailable);
    assert!(!there.exists(), "nobody makes an empty registry in its place");
    fs::rename(&away, &there).expect("moved back");
    assert_eq!(caller.get("kept").await.expect("reads go on"), kept);
    let file = caller.register_as("s1", &id, new_file("gone", b"gone")).await.expect("registered");
    assert_eq!(
        file,
        caller.register_as("s1", &id, new_file("gone", b"gone")).await.expect("the first answer")
    );
    mesh.in_sync("gone").await;
    let staged = async || mesh.footprint().await.staged == before.staged;
    eventually("nothing is left in staging", staged).await;
}

/// I3, I5: a database that was restored from an older copy, and went on from there, is another history: nothing is
/// deleted, nothing is originated, and the matrix says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forked_history_is_recognised() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    caller.register("s1", "before", b"before").await.expect("registered");
    mesh.in_sync("before").await;
    let copy = mesh.path("copy.sqlite");
    let open = Connection::open(mesh.registry_file()).expect("opens");
    open.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).expect("copied");
    drop(open);
    caller.register("s1", "after", b"after").await.expect("registered");
    mesh.in_sync("after").await;
    let published = mesh.footprint().await.published;

    for suffix in ["-wal", "-shm"] {
        let mut name = mesh.registry_file().into_os_string();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
    fs::rename(&copy, mesh.registry_file()).expect("restored");
    let operator = mesh.operator("operator");
    let mut told = None;
    eventually("the fork is recognised", async || {
        let answer = operator.replicas().reconcile(on("s1", ReconcileRequest::default())).await;
        let forked =
            answer.as_ref().err().is_some_and(|told| status::read(told).reason == Reason::HistoryForked);
        told = Some(answer);
        forked
    })
    .await;
    let told = refused("reconcile", told.expect("an answer"), Reason::HistoryForked);
    told.with(&["asked", "head"]);
    refused("register", caller.register("s1", "new", b"x").await, Reason::HistoryForked).says(&["s1"]);
    let upload = caller.upload("s1", vec![header(&uuid(), 1, 0), chunk(0, b"x")]).await;
    refused("upload", upload, Reason::HistoryForked).says(&["s1"]);
    refused("delete", caller.delete("s1", "before", 1).await, Reason::HistoryForked);
    eventually("the matrix says so", async || has_condition(&mesh, "s1", Reason::HistoryForked).await).await;
    let row = mesh.row("before").await.expect("a row");
    let cell = row.cells.iter().find(|cell| cell.server_id == "s1").expect("a cell");
    assert_eq!(cell.state(), cell::State::Unknown, "I10: {cell:?}");
    let why = cell.failure.as_ref().map(|failure| failure.reason.as_str());
    assert_eq!(why, Some(Reason::HistoryForked.as_str()), "{cell:?}");
    told_in_words(&mesh, "history_forked", "before", "s1").await;
    assert_eq!(mesh.footprint().await.published, published, "nothing is deleted");
}

/// I3, I10: a root that is not this server's store is not used; with the right one back, it goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_mounted_is_not_used() {
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    caller.register("s1", "a", b"a").await.expect("registered");
    mesh.in_sync("a").await;
    mesh.servers["s1"].stop().await;
    let (root, away) = (mesh.root("s1"), mesh.path("s1/unmounted"));
    fs::rename(&root, &away).expect("unmounted");
    mesh.start("s1", Options::default()).await;
    eventually("the gateway hears of it", async || has_condition(&mesh, "s1", Reason::StoreOffline).await)
        .await;
    assert!(mesh.servers["s1"].health.unmet().contains(&"store"));

    refused("register", caller.register("s1", "b", b"b").await, Reason::StoreOffline)
        .with(&["server_id"])
        .says(&["s1"]);
    refused("delete", caller.delete("s1", "a", 1).await, Reason::StoreOffline).says(&["s1"]);
    let upload = caller.upload("s1", vec![header(&uuid(), 1, 0), chunk(0, b"x")]).await;
    refused("upload", upload, Reason::StoreOffline);
    caller.get("a").await.expect("the registry knows it all the same");
    let row = mesh.row("a").await.expect("a row");
    let states: Vec<_> = row.cells.iter().map(lockstep_proto::gateway::v1::Cell::state).collect();
    assert_eq!(states, [cell::State::Unknown, cell::State::InSync], "{row:?}");
    let failure = row.cells[0].failure.as_ref().expect("a reason");
    assert_eq!(failure.reason, Reason::StoreOffline.as_str());
    told_in_words(&mesh, "store_offline", "a", "s1").await;
    assert_eq!(
        fs::read_dir(&root).expect("a directory").count(),
        0,
        "nothing is made in what is not the store"
    );

    fs::remove_dir(&root).expect("removed");
    fs::rename(&away, &root).expect("mounted");
    mesh.in_sync("a").await;
    eventually("ready", async || mesh.servers["s1"].health.is_ready()).await;
    caller.register("s1", "b", b"b").await.expect("registered");
}

/// R23, R44: a server that is gone cannot be reached, and says so for itself alone; reads go on to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_cannot_be_reached() {
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    mesh.caught_up("s2").await;
    mesh.servers["s2"].stop().await;
    let before = mesh.footprint().await;
    let told = refused("register", caller.register("s2", "a", b"a").await, Reason::PeerUnreachable);
    told.with(&["peer"]).says(&["s2", "filesync"]);
    assert_eq!(mesh.footprint().await, before);
    caller.register("s1", "a", b"a").await.expect("registered");
    for _ in 0..4 {
        caller.get("a").await.expect("read at the one that is there");
    }
    eventually("the cell says so", async || {
        let row = mesh.row("a").await.expect("a row");
        let silent = &row.cells[1];
        let reason = silent.failure.as_ref().map(|failure| failure.reason.clone()).unwrap_or_default();
        row.cells[0].state() == cell::State::InSync
            && silent.state() == cell::State::Unreachable
            && silent.age.is_some()
            && reason == Reason::PeerUnreachable.as_str()
    })
    .await;
    told_in_words(&mesh, "gone", "a", "s2").await;

    // Only the one that is gone now holds it: whoever needs it says that nobody else does.
    mesh.servers["s1"].stop().await;
    mesh.restart("s2").await;
    eventually("no holder", async || {
        let row = mesh.row("a").await;
        row.is_some_and(|row| {
            let failure = row.cells[1].failure.as_ref();
            let reason = failure.map(|failure| failure.reason.clone()).unwrap_or_default();
            [Reason::NoHolder, Reason::PeerUnreachable].iter().any(|one| one.as_str() == reason)
                && row.cells[1].state() == cell::State::Failed
        })
    })
    .await;
    mesh.start("s1", Options::default()).await;
    mesh.in_sync("a").await;
}

/// H10: a process that drains refuses what begins, ends what streams in and out, and loses nothing that was safe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_server_says_so() {
    let mut mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    let mut replicas = mesh.operator("viewer").replicas();
    let mut watch = replicas
        .watch_replicas(on("s1", WatchReplicasRequest::default()))
        .await
        .expect("watches")
        .into_inner();
    watch.message().await.expect("a message").expect("a message");
    let (id, content) = (uuid(), vec![5; 1 << 20]);
    let parts = futures::stream::iter([header(&id, 2 << 20, 0), chunk(0, &content)]);
    let endless = tokio_stream::StreamExt::chain(parts, futures::stream::pending());
    let (mut uploads, drain) = (caller.uploads(), mesh.servers["s1"].drain.clone());
    let upload = async { uploads.write_upload(on("s1", endless)).await };
    let begin = async {
        eventually("the bytes are there", async || {
            fs::metadata(mesh.root("s1").join(format!(".lockstep/staging/upload-{id}")))
                .is_ok_and(|m| m.len() == 1 << 20)
        })
        .await;
        drain.begin();
    };
    let (answer, ()) = futures::future::join(upload, begin).await;
    refused("an upload", answer, Reason::Draining);
    let end = async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a watch ends with a status"),
                Err(told) => return Err::<(), _>(told),
            }
        }
    };
    refused("a watch", end.await, Reason::Draining);
    mesh.restart("s1").await;
    mesh.ready().await;
    let caller = mesh.operator("publisher");
    let answer = caller.upload("s1", vec![header(&id, 2 << 20, 1 << 20), chunk(1 << 20, &content)]).await;
    assert_eq!(answer.expect("continued").committed_bytes, 2 << 20);
}

/// I2, I10, H3: bytes that changed under a final name are given to nobody, and the matrix does not call them in sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_rotted_is_given_to_nobody() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let (small, large) = (b"small".to_vec(), vec![7; (2 << 20) + 5]);
    caller.register("s1", "small", &small).await.expect("registered");
    let id = uuid();
    let parts = large.chunks(1 << 20).enumerate().map(|(index, data)| chunk(index << 20, data));
    let parts = std::iter::once(header(&id, large.len(), 0)).chain(parts).collect();
    caller.upload("s1", parts).await.expect("uploaded");
    let source = Some(lockstep_proto::filesync::v1::new_file::Source::UploadId(id));
    let file = lockstep_proto::filesync::v1::NewFile {
        path: "large".to_owned(),
        source,
        ..lockstep_proto::filesync::v1::NewFile::default()
    };
    caller.register_as("s1", &uuid(), file).await.expect("registered");
    for path in ["small", "large"] {
        mesh.in_sync(path).await;
    }
    let peer = mesh.caller_at("s1", &of_server("s2", "filesync"));
    let read = async |content: &[u8], offset_bytes: i64, end_bytes: i64| {
        let digest = Digest::of(content).to_string();
        let request = ReadContentRequest { ranges: vec![ContentRange { digest, offset_bytes, end_bytes }] };
        let mut answers = peer.contents().read_content(request).await.expect("answered").into_inner();
        let (mut bytes, mut failure) = (Vec::new(), None);
        while let Some(message) = answers.message().await.expect("a message") {
            match message.part.expect("a part") {
                Part::Chunk(chunk) => bytes.extend_from_slice(&chunk.data),
                Part::Failure(told) => failure = told.failure,
                _ => {}
            }
        }
        (bytes, failure)
    };
    assert_eq!(read(&small, 0, 0).await, (small.clone(), None));
    assert_eq!(read(&large, 0, 0).await, (large.clone(), None));
    assert_eq!(read(&large, 1 << 20, 2 << 20).await, (large[1 << 20..2 << 20].to_vec(), None));
    assert_eq!(read(&large, 2 << 20, 0).await, (large[2 << 20..].to_vec(), None));

    // s2 is away, so that it does not mend s1 while this looks.
    mesh.servers["s2"].stop().await;
    for (path, content) in [("small", &small), ("large", &large)] {
        let place = mesh.transfer("s1").join(path);
        let mut flipped = content.clone();
        flipped[0] ^= 1;
        // A disk that rots changes no times; somebody who writes does, and then the file is theirs.
        let modified = fs::metadata(&place).and_then(|found| found.modified()).expect("a time");
        fs::write(&place, &flipped).expect("written");
        let file = fs::File::options().write(true).open(&place).expect("opens");
        file.set_modified(modified).expect("set");
        let (bytes, failure) = read(content, 0, 0).await;
        assert!(bytes.is_empty(), "{path}: not one byte");
        let failure = failure.expect("a failure");
        assert_eq!(failure.reason, Reason::StoredContentCorrupt.as_str(), "{path}: {failure:?}");
        assert!(failure.message.contains("s1") && !failure.advice.is_empty(), "{failure:?}");
        eventually("it is not called in sync", async || {
            let row = mesh.row(path).await.expect("a row");
            row.cells[0].state() != cell::State::InSync
        })
        .await;
    }
    let row = mesh.row("small").await.expect("a row");
    assert!(row.cells[0].failure.is_some(), "{row:?}");
}

/// I2, I7: bytes that somebody writes to while they are read are not registered; when nobody does, they can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_change_while_they_are_read_are_refused() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    let content = vec![3; 1 << 20];
    let mut is_told = false;
    for attempt in 0..20 {
        let (id, path) = (uuid(), format!("changing/{attempt}"));
        caller.upload("s1", vec![header(&id, content.len(), 0), chunk(0, &content)]).await.expect("uploaded");
        let place = mesh.root("s1").join(format!(".lockstep/staging/upload-{id}"));
        let source = Some(lockstep_proto::filesync::v1::new_file::Source::UploadId(id));
        let file = lockstep_proto::filesync::v1::NewFile {
            path: path.clone(),
            source,
            ..lockstep_proto::filesync::v1::NewFile::default()
        };
        let stop = Arc::new(AtomicBool::new(false));
        // The same bytes again and again: only the times of the file show that somebody wrote.
        let writer = tokio::task::spawn_blocking({
            let (stop, content) = (Arc::clone(&stop), content.clone());
            let open = fs::File::options().write(true).open(&place).expect("opens");
            move || {
                while !stop.load(Ordering::Relaxed) {
                    open.write_all_at(&content[..1], 0).expect("written");
                }
            }
        });
        let before = mesh.footprint().await;
        let answer = caller.register_as("s1", &uuid(), file.clone()).await;
        stop.store(true, Ordering::Relaxed);
        writer.await.expect("it ends");
        if answer.as_ref().is_err_and(|told| status::read(told).reason == Reason::ContentChanged) {
            refused("changing", answer, Reason::ContentChanged).with(&["path", "server_id"]).says(&["s1"]);
            assert_eq!(mesh.footprint().await, before, "the upload is kept, and nothing else happened");
            caller.register_as("s1", &uuid(), file).await.expect("nobody writes now");
            is_told = true;
            break;
        }
    }
    assert!(is_told, "somebody wrote all the time, and it was never told");
}

/// H3: a defect is told without its detail, with the trace id under which the log has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_defect_is_told_without_its_detail() {
    let mesh = Mesh::new(1).await;
    let caller = mesh.operator("publisher");
    let index = Connection::open(mesh.path("s1/state/index.sqlite")).expect("opens");
    let tables: Vec<String> = index
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        .and_then(|mut select| select.query_map([], |row| row.get(0))?.collect())
        .expect("tables");
    for table in tables {
        index.execute_batch(&format!("ALTER TABLE \"{table}\" RENAME TO \"{table}_gone\"")).expect("renamed");
    }
    let before = mesh.footprint().await;
    let told = refused("register", caller.register("s1", "a", b"x").await, Reason::Internal);
    // Without a collector there is no trace, but the key is there.
    assert_eq!(told.says(&["internal error"]).value("trace_id"), "");
    let after = mesh.footprint().await;
    assert_eq!((after.head, after.published), (before.head, before.published));
    let gateway = mesh.caller_at("s1", &Identity::Service("gateway"));
    let request = DeleteFileRequest::default();
    refused("and nothing else is", gateway.files().delete_file(request).await, Reason::PermissionDenied);
}
