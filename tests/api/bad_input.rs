//! Requests that cannot be done: each has its reason, says what, where and why, and leaves nothing behind.

use std::{collections::BTreeSet, fmt::Debug, os::unix::fs::symlink};

use bytes::Bytes;
use lockstep_model::{Digest, Reason};
use lockstep_proto::{
    filesync::v1::{
        ContentRange, DeleteFileRequest, Digests, ListFilesRequest, LocateContentRequest, NewFile,
        ReadContentRequest, ReconcileRequest, RegisterFileRequest, RegisterFilesRequest,
        WatchReplicasRequest, WriteUploadRequest, new_file::Source, read_content_response::Part,
    },
    gateway::v1::{ListRowsRequest, ListServersRequest, WatchRowsRequest},
};
use prost::Message as _;
use tonic::{Request, Status};

use crate::{
    calls::{Stranger, Wire, call, framed},
    mesh::{Caller, Footprint, Mesh, chunk, header, new_file, of_server, on, operator, uuid},
    refusal::{Refusal, refused},
};

/// An installation, and what it looked like before the calls that must not change it.
struct Bench {
    mesh: Mesh,
    caller: Caller,
    before: Footprint,
    /// Uploads that may be continued, so that their bytes stay.
    resumable: BTreeSet<String>,
}

impl Bench {
    async fn new(servers: usize) -> Self {
        let mesh = Mesh::new(servers).await;
        let (caller, before) = (mesh.operator("publisher"), mesh.footprint().await);
        Self { mesh, caller, before, resumable: BTreeSet::new() }
    }

    /// Something that was meant changed the installation.
    async fn settle(&mut self) {
        self.before = self.footprint().await;
    }

    /// Without the uploads that may be continued.
    async fn footprint(&self) -> Footprint {
        let mut now = self.mesh.footprint().await;
        let resumable = |name: &String| self.resumable.iter().any(|id| *name == format!("upload-{id}"));
        now.staged.values_mut().for_each(|names| names.retain(|name| !resumable(name)));
        now
    }

    /// The answer is this refusal, and nothing happened.
    async fn refuses<T: Debug>(&self, what: &str, answer: Result<T, Status>, reason: Reason) -> Refusal {
        let refusal = refused(what, answer, reason);
        assert_eq!(self.footprint().await, self.before, "{what} left something");
        refusal
    }

    /// A complete upload, which may be used or tried again.
    async fn uploaded(&mut self, content: &[u8]) -> String {
        let id = uuid();
        let parts = vec![header(&id, content.len(), 0), chunk(0, content)];
        let answer = self.caller.upload("s1", parts).await.expect("uploaded");
        assert_eq!(
            (answer.committed_bytes, answer.digest),
            (content.len() as i64, Digest::of(content).to_string())
        );
        self.resumable.insert(id.clone());
        id
    }

    async fn register(&self, file: NewFile) -> Result<(), Status> {
        self.caller.register_as("s1", &uuid(), file).await.map(drop)
    }

    async fn register_all(&self, files: Vec<NewFile>) -> Result<(), Status> {
        let request = RegisterFilesRequest { files, request_id: uuid() };
        self.caller.files().register_files(on("s1", request)).await.map(drop)
    }

    async fn delete(&self, path: &str, expected_revision: i64) -> Result<(), Status> {
        self.caller.delete("s1", path, expected_revision).await.map(drop)
    }
}

fn from_upload(path: &str, upload_id: &str) -> NewFile {
    NewFile {
        path: path.to_owned(),
        source: Some(Source::UploadId(upload_id.to_owned())),
        ..NewFile::default()
    }
}

const WRONG: char = '0';

/// I1, I7, I11, R5, R37, H3: bad input has its reason, and nothing is half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_has_its_reason() {
    let mut bench = Bench::new(1).await;
    Box::pin(digests(&mut bench)).await;
    Box::pin(uploads(&mut bench)).await;
    Box::pin(batches(&mut bench)).await;
    Box::pin(requests(&mut bench)).await;
    Box::pin(taken_paths(&mut bench)).await;
    Box::pin(deletions(&mut bench)).await;
    Box::pin(listings(&mut bench)).await;
    Box::pin(routes(&mut bench)).await;
    Box::pin(contents(&mut bench)).await;
    Box::pin(bytes_that_are_no_call(&mut bench)).await;
    // After all of that the server does what it is for.
    bench.register(new_file("after/all", b"of that")).await.expect("registered");
}

/// Digests that the caller declared, for content in the call and in an upload.
async fn digests(bench: &mut Bench) {
    let content = b"declared";
    let wrong = [
        ("BLAKE3", Digests { blake3: WRONG.to_string().repeat(64), ..Digests::default() }),
        ("MD5", Digests { md5: WRONG.to_string().repeat(32), ..Digests::default() }),
        ("SHA-256", Digests { sha256: WRONG.to_string().repeat(64), ..Digests::default() }),
    ];
    for (algorithm, digests) in wrong {
        let file = NewFile { digests: Some(digests.clone()), ..new_file("digest", content) };
        let answer = bench.register(file.clone()).await;
        let refusal = bench.refuses(algorithm, answer, Reason::ContentDigestMismatch).await;
        refusal.with(&["path", "algorithm", "declared", "actual"]).says(&["digest", algorithm]);
        // In a batch, with a good one: neither.
        let answer = bench.register_all(vec![new_file("good", content), file]).await;
        bench.refuses(algorithm, answer, Reason::ContentDigestMismatch).await;
        // An upload is not lost: without the wrong digest it can be used.
        let id = bench.uploaded(content).await;
        let path = format!("digest/{algorithm}");
        let answer = bench.register(NewFile { digests: Some(digests), ..from_upload(&path, &id) }).await;
        bench.refuses(algorithm, answer, Reason::ContentDigestMismatch).await;
        bench.register(from_upload(&path, &id)).await.expect("registered");
        bench.settle().await;
    }
    let bad = Digests { blake3: "x".to_owned(), md5: "0".repeat(31), sha256: "G".repeat(64) };
    let answer = bench.register(NewFile { digests: Some(bad), ..new_file("digest", content) }).await;
    let refusal = bench.refuses("no digests", answer, Reason::FieldViolation).await;
    refusal.blames(&["file.digests.blake3", "file.digests.md5", "file.digests.sha256"]);
}

/// Streams that break their own announcement.
async fn uploads(bench: &mut Bench) {
    let caller = bench.caller.clone();
    let send = async |parts: Vec<WriteUploadRequest>| caller.upload("s1", parts).await;
    let id = uuid();

    // What is wrong with the header is told together.
    let refusal = bench.refuses("header", send(vec![header("X", 4, 0)]).await, Reason::FieldViolation).await;
    refusal.blames(&["header.upload_id"]);
    let negative = lockstep_proto::filesync::v1::UploadHeader {
        upload_id: String::new(),
        size_bytes: -1,
        offset_bytes: -1,
        scope: 0,
    };
    let negative = WriteUploadRequest {
        part: Some(lockstep_proto::filesync::v1::write_upload_request::Part::Header(negative)),
    };
    let refusal = bench.refuses("header", send(vec![negative]).await, Reason::FieldViolation).await;
    let fields: BTreeSet<String> = refusal.fields().into_iter().map(|(field, _)| field).collect();
    let expected = ["header.offset_bytes", "header.size_bytes", "header.upload_id"].map(str::to_owned);
    assert_eq!(fields, BTreeSet::from(expected));
    for (what, parts) in [
        ("nothing", vec![]),
        ("no header", vec![chunk(0, b"abcd")]),
        ("an empty message", vec![WriteUploadRequest { part: None }]),
    ] {
        bench.refuses(what, send(parts).await, Reason::FieldViolation).await;
    }

    let answer = send(vec![header(&id, (64 << 30) + 1, 0)]).await;
    let refusal = bench.refuses("above 64 GiB", answer, Reason::SizeLimitExceeded).await;
    assert_eq!(refusal.with(&["actual_bytes"]).value("limit_bytes"), (64_u64 << 30).to_string());
    let answer = send(vec![header(&id, 4, 2)]).await;
    let refusal = bench.refuses("a new upload not from its start", answer, Reason::OffsetMismatch).await;
    assert_eq!((refusal.value("expected_offset"), refusal.value("actual_offset")), ("0", "2"));

    bench.resumable.insert(id.clone());
    let answer = send(vec![header(&id, 4, 0), chunk(0, b"ab"), chunk(2, b"cdef")]).await;
    let refusal = bench.refuses("too many bytes", answer, Reason::SizeLimitExceeded).await;
    assert_eq!((refusal.value("limit_bytes"), refusal.value("actual_bytes")), ("4", "6"));
    // What came before the mistake is kept.
    let answer = send(vec![header(&id, 4, 0)]).await;
    let refusal = bench.refuses("from the start again", answer, Reason::OffsetMismatch).await;
    assert_eq!((refusal.with(&["upload_id"]).value("expected_offset")), "2");
    let answer = send(vec![header(&id, 4, 2), chunk(3, b"d")]).await;
    let refusal = bench.refuses("a gap", answer, Reason::OffsetMismatch).await;
    assert_eq!((refusal.value("expected_offset"), refusal.value("actual_offset")), ("2", "3"));
    let answer = send(vec![header(&id, 4, 2), chunk(1, b"bc")]).await;
    bench.refuses("an overlap", answer, Reason::OffsetMismatch).await;
    let answer = send(vec![header(&id, 4, 2), header(&id, 4, 2)]).await;
    bench.refuses("two headers", answer, Reason::FieldViolation).await.blames(&["part"]);
    let large = uuid();
    bench.resumable.insert(large.clone());
    let answer = send(vec![header(&large, 2 << 20, 0), chunk(0, &vec![0; (1 << 20) + 1])]).await;
    bench.refuses("a large chunk", answer, Reason::FieldViolation).await.blames(&["chunk.data"]);

    // Too few bytes: it may not be used yet, and may be continued.
    let answer = bench.register(from_upload("upload", &id)).await;
    let refusal = bench.refuses("too few bytes", answer, Reason::OffsetMismatch).await;
    assert_eq!((refusal.value("expected_offset"), refusal.value("size_bytes")), ("2", "4"));
    // Another size is another upload; somebody else's is none at all.
    let answer = send(vec![header(&id, 5, 2)]).await;
    bench.refuses("another size", answer, Reason::UploadNotFound).await.with(&["upload_id", "server_id"]);
    let other = bench.mesh.operator("local");
    let answer = other.upload("s1", vec![header(&id, 4, 2), chunk(2, b"cd")]).await;
    bench.refuses("somebody else's upload, written", answer, Reason::UploadNotFound).await;
    let done = send(vec![header(&id, 4, 2), chunk(2, b"cd")]).await.expect("continued");
    assert_eq!((done.committed_bytes, done.digest), (4, Digest::of(b"abcd").to_string()));
    let answer = other.register_as("s1", &uuid(), from_upload("upload", &id)).await;
    bench.refuses("somebody else's upload, used", answer, Reason::UploadNotFound).await;
    let answer = bench.register(from_upload("upload", &uuid())).await;
    bench
        .refuses("an unknown upload", answer, Reason::UploadNotFound)
        .await
        .with(&["upload_id", "server_id"]);
    let answer = bench.register_all(vec![from_upload("a", &id), from_upload("b", &id)]).await;
    bench.refuses("an upload for two files", answer, Reason::UploadNotFound).await;

    bench.register(from_upload("upload", &id)).await.expect("registered");
    bench.resumable.remove(&id);
    bench.settle().await;
    let answer = bench.register(from_upload("upload again", &id)).await;
    bench.refuses("an upload used twice", answer, Reason::UploadNotFound).await;
}

/// Many files at once.
async fn batches(bench: &mut Bench) {
    let many = |count: usize, bytes: usize| -> Vec<NewFile> {
        (0..count).map(|number| new_file(&format!("batch/{number}"), &vec![7; bytes])).collect()
    };
    for (what, files, blamed) in [
        ("no files", vec![], "files"),
        ("1,001 files", many(1_001, 1), "files"),
        ("more than 3 MiB", many(4, (3 << 20) / 4 + 1), "files"),
        ("more than 1 MiB", many(1, (1 << 20) + 1), "files[0].content"),
    ] {
        let answer = bench.register_all(files).await;
        bench.refuses(what, answer, Reason::FieldViolation).await.blames(&[blamed]);
    }
    let answer = bench.register(new_file("large", &vec![7; (1 << 20) + 1])).await;
    bench.refuses("more than 1 MiB", answer, Reason::FieldViolation).await.blames(&["file.content"]);
    for (first, second) in [("batch/a", "batch/a"), ("batch/a", "batch/A"), ("batch/a", "batch/a/b")] {
        let answer = bench.register_all(vec![new_file(first, b"1"), new_file(second, b"2")]).await;
        let refusal = bench.refuses("the same name twice", answer, Reason::PathConflict).await;
        refusal.with(&["path", "other_path"]).says(&[second, "batch/a"]);
    }
    let bad = vec![new_file("ok", b"1"), new_file("a//b", b"2"), new_file("nul", b"3")];
    let answer = bench.register_all(bad).await;
    bench.refuses("bad names", answer, Reason::PathInvalid).await.blames(&["files[1].path", "files[2].path"]);
    // As many as are allowed are taken.
    bench.register_all(many(1_000, 1)).await.expect("registered");
    bench.settle().await;
}

/// Everything that is wrong in a request is told at once; a request id means one request.
async fn requests(bench: &mut Bench) {
    let caller = bench.caller.clone();
    let register = async |file: Option<NewFile>, request_id: &str| {
        let request = RegisterFileRequest { file, request_id: request_id.to_owned() };
        caller.files().register_file(on("s1", request)).await.map(drop)
    };
    let long = "x".repeat(129);
    for id in ["", &long, "a\nb", "ü"] {
        let answer = register(Some(new_file("id", b"x")), id).await;
        bench
            .refuses(&format!("request id {id:?}"), answer, Reason::FieldViolation)
            .await
            .blames(&["request_id"]);
    }
    let answer = register(None, "").await;
    bench.refuses("an empty request", answer, Reason::FieldViolation).await.blames(&["file", "request_id"]);
    let digests = Some(Digests { md5: "short".to_owned(), ..Digests::default() });
    let answer = register(
        Some(NewFile { path: "a/../b".to_owned(), source: None, digests, ..NewFile::default() }),
        "",
    )
    .await;
    let refusal = bench.refuses("all of it wrong", answer, Reason::FieldViolation).await;
    refusal.blames(&["file.path", "file", "file.digests.md5", "request_id"]);

    let id = uuid();
    let file = caller.register_as("s1", &id, new_file("once", b"one")).await.expect("registered");
    bench.settle().await;
    for (what, other) in
        [("other content", new_file("once", b"two")), ("another path", new_file("twice", b"one"))]
    {
        let answer = register(Some(other), &id).await;
        bench.refuses(what, answer, Reason::RequestIdReused).await.with(&["request_id"]).says(&[&id]);
    }
    let (path, expected_revision) = (file.path.clone(), file.revision);
    let request = DeleteFileRequest { path, expected_revision, request_id: id.clone() };
    let answer = caller.files().delete_file(on("s1", request)).await;
    bench.refuses("another call", answer, Reason::RequestIdReused).await;
    // The ids of others are others.
    let other = bench.mesh.operator("local").register_as("s1", &id, new_file("another", b"one")).await;
    other.expect("registered");
    bench.settle().await;
}

/// Paths that are taken, by a file that is registered or by bytes that nobody registered.
async fn taken_paths(bench: &mut Bench) {
    let file = bench.caller.register("s1", "taken/x", b"first").await.expect("registered");
    bench.settle().await;
    for content in ["first", "second"] {
        let answer = bench.register(new_file("taken/x", content.as_bytes())).await;
        let refusal = bench.refuses("a path that is registered", answer, Reason::FileExists).await;
        let told = ["revision", "digest", "origin_server_id"].map(|key| refusal.value(key).to_owned());
        assert_eq!(told, [file.revision.to_string(), file.digest.clone(), "s1".to_owned()]);
        assert_eq!(refusal.resource(), "taken/x");
    }
    for (path, other) in
        [("taken/X", "taken/x"), ("TAKEN/y", "taken"), ("taken", "taken"), ("taken/x/y", "taken/x")]
    {
        let answer = bench.register(new_file(path, b"x")).await;
        let refusal = bench.refuses("a clash", answer, Reason::PathConflict).await;
        assert_eq!((refusal.value("path"), refusal.value("other_path")), (path, other));
    }
    assert_eq!(std::fs::read(bench.mesh.transfer("s1").join("taken/x")).expect("there"), b"first");

    let transfer = bench.mesh.transfer("s1");
    let outside = bench.mesh.path("outside");
    std::fs::create_dir_all(transfer.join("loose/directory/below")).expect("made");
    std::fs::create_dir_all(&outside).expect("made");
    std::fs::write(transfer.join("loose/file"), b"somebody's").expect("written");
    symlink(&outside, transfer.join("loose/link")).expect("linked");
    symlink("nowhere", transfer.join("loose/dangling")).expect("linked");
    bench.settle().await;
    for path in [
        "loose/file",
        "loose/directory",
        "loose/link",
        "loose/dangling",
        "loose/file/below",
        "loose/link/below",
    ] {
        let answer = bench.register(new_file(path, b"x")).await;
        let refusal = bench.refuses(path, answer, Reason::LooseFileExists).await;
        refusal.with(&["path"]).says(&["s1", "loose/"]);
        let upload = bench.uploaded(b"x").await;
        let answer = bench.register(from_upload(path, &upload)).await;
        bench.refuses(path, answer, Reason::LooseFileExists).await;
        // The name was not taken either, and the upload is not lost.
        refused(path, bench.caller.get(path).await, Reason::FileNotFound);
        bench
            .register(from_upload(&format!("not {}", path.replace('/', " ")), &upload))
            .await
            .expect("registered");
        bench.settle().await;
    }
    assert_eq!(std::fs::read(transfer.join("loose/file")).expect("there"), b"somebody's");
    assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 0);
}

async fn deletions(bench: &mut Bench) {
    let file = bench.caller.register("s1", "delete/x", b"x").await.expect("registered");
    bench.settle().await;
    for revision in [0, -1] {
        let answer = bench.delete("delete/x", revision).await;
        bench.refuses("no revision", answer, Reason::FieldViolation).await.blames(&["expected_revision"]);
    }
    for revision in [1, file.revision + 1] {
        let answer = bench.delete("delete/x", revision).await;
        let refusal = bench.refuses("a stale revision", answer, Reason::RevisionChanged).await;
        let told = ["path", "expected_revision", "actual_revision"].map(|key| refusal.value(key).to_owned());
        assert_eq!(told, ["delete/x".to_owned(), revision.to_string(), file.revision.to_string()]);
    }
    for path in ["delete/y", "delete", "DELETE/X"] {
        let answer = bench.delete(path, file.revision).await;
        let refusal = bench.refuses("no such file", answer, Reason::FileNotFound).await;
        assert_eq!(refusal.with(&["path"]).resource(), path);
        let answer = bench.caller.get(path).await;
        bench.refuses("no such file", answer, Reason::FileNotFound).await;
    }
    bench.delete("delete/x", file.revision).await.expect("deleted");
    bench.settle().await;
    let answer = bench.delete("delete/x", file.revision).await;
    bench.refuses("deleted already", answer, Reason::FileNotFound).await;
}

async fn listings(bench: &mut Bench) {
    let caller = bench.caller.clone();
    let (mut files, mut matrix) = (caller.files(), caller.matrix());
    let list = |path_prefix: &str, page_size: i32, page_token: &str| ListFilesRequest {
        path_prefix: path_prefix.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let page = files.list_files(list("batch/", 2, "")).await.expect("lists").into_inner();
    assert!(!page.next_page_token.is_empty());
    let path_prefix = "batch/".to_owned();
    let rows = ListRowsRequest { path_prefix, page_size: 2, ..ListRowsRequest::default() };
    let rows_page = matrix.list_rows(rows.clone()).await.expect("lists").into_inner();
    for token in
        ["x", "00", "é", &"00".repeat(10_000), &page.next_page_token[1..], &rows_page.next_page_token]
    {
        let answer = files.list_files(list("batch/", 2, token)).await;
        bench.refuses("a token of nothing", answer, Reason::PageTokenInvalid).await;
    }
    let answer = files.list_files(list("batch", 2, &page.next_page_token)).await;
    bench.refuses("a token of another listing", answer, Reason::PageTokenInvalid).await;
    let answer = files.list_files(list("batch/", -1, "")).await;
    bench.refuses("a negative page", answer, Reason::FieldViolation).await.blames(&["page_size"]);

    let answer =
        matrix.list_rows(ListRowsRequest { page_token: page.next_page_token.clone(), ..rows.clone() }).await;
    bench.refuses("a token of another call", answer, Reason::PageTokenInvalid).await;
    let answer = matrix.list_rows(ListRowsRequest { page_size: -1, ..rows.clone() }).await;
    bench.refuses("a negative page", answer, Reason::FieldViolation).await.blames(&["page_size"]);
    let other =
        ListRowsRequest { path_prefix: String::new(), page_token: rows_page.next_page_token.clone(), ..rows };
    bench
        .refuses("a token of another listing", matrix.list_rows(other).await, Reason::PageTokenInvalid)
        .await;
    let servers = |page_size: i32, page_token: &str| ListServersRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let answer = matrix.list_servers(servers(-7, "")).await;
    bench.refuses("a negative page", answer, Reason::FieldViolation).await.blames(&["page_size"]);
    let answer = matrix.list_servers(servers(0, &rows_page.next_page_token)).await;
    bench.refuses("a token of another call", answer, Reason::PageTokenInvalid).await;

    for token in ["x", "00", &rows_page.next_page_token] {
        let resume_token = (*token).to_owned();
        let request = WatchRowsRequest { resume_token, ..WatchRowsRequest::default() };
        let answer = matrix.watch_rows(request).await.map(drop);
        bench.refuses("an unknown resume token", answer, Reason::ResumeTokenExpired).await;
    }
    // A server's report has no gap to fear: with any token that it does not know it begins with everything.
    let request = WatchReplicasRequest { resume_token: "x 1".to_owned() };
    let mut replicas =
        caller.replicas().watch_replicas(on("s1", request)).await.expect("watches").into_inner();
    assert!(replicas.message().await.expect("a message").expect("a message").snapshot);
}

/// Calls that no process answers.
async fn routes(bench: &mut Bench) {
    let caller = bench.caller.clone();
    let request = RegisterFileRequest { file: Some(new_file("route", b"x")), request_id: uuid() };
    let answer = caller.files().register_file(Request::new(request.clone())).await;
    let refusal = bench.refuses("no server", answer, Reason::ServerRequired).await;
    refusal.with(&["method", "servers"]).says(&["lockstep-server", "s1"]);
    let answer = caller.files().register_file(on("s9", request)).await;
    let refusal = bench.refuses("an unknown server", answer, Reason::ServerUnknown).await;
    assert_eq!(refusal.with(&["servers"]).says(&["s1"]).resource(), "s9");
    let direct = bench.mesh.caller_at("s1", &operator("publisher"));
    for method in [
        "lockstep.filesync.v1.FileService/Nothing",
        "lockstep.filesync.v9.FileService/GetFile",
        "lockstep.gateway.v1.MatrixService/Nothing",
        "lockstep.nothing.v1.NothingService/Get",
        "other.v1.Service/Method",
        "x/y",
    ] {
        for (at, caller) in [("the gateway", &caller), ("s1", &direct)] {
            let answer =
                call(&caller.channel, method, &[("lockstep-server", "s1")], vec![Bytes::new()]).await;
            bench.refuses(&format!("{method} at {at}"), answer, Reason::Unimplemented).await;
        }
    }
}

/// What peers ask each other.
async fn contents(bench: &mut Bench) {
    let peer = bench.mesh.caller_at("s1", &of_server("s1", "filesync"));
    let absent = Digest::of(b"nobody has this").to_string();
    for (what, digests, blamed) in [
        ("none", vec![], "digests"),
        ("too many", vec![absent.clone(); 1_001], "digests"),
        ("no digest", vec![absent.clone(), "x".to_owned()], "digests[1]"),
    ] {
        let answer = peer.contents().locate_content(LocateContentRequest { digests }).await;
        bench.refuses(what, answer, Reason::FieldViolation).await.blames(&[blamed]);
    }
    let located =
        peer.contents().locate_content(LocateContentRequest { digests: vec![absent.clone()] }).await;
    assert!(located.expect("answered").into_inner().held_digests.is_empty());
    let range =
        |digest: &str, offset_bytes| ContentRange { digest: digest.to_owned(), offset_bytes, end_bytes: 0 };
    for (what, ranges, blamed) in [
        ("none", vec![], "ranges"),
        ("too many", vec![range(&absent, 0); 1_001], "ranges"),
        ("no digest", vec![range("", 0)], "ranges[0].digest"),
        ("negative", vec![range(&absent, -1)], "ranges[0].offset_bytes"),
        ("no multiple of 1 MiB", vec![range(&absent, 1)], "ranges[0].offset_bytes"),
        ("negative", vec![ContentRange { end_bytes: -1, ..range(&absent, 0) }], "ranges[0].end_bytes"),
        (
            "no multiple of 1 MiB",
            vec![ContentRange { end_bytes: 1, ..range(&absent, 0) }],
            "ranges[0].end_bytes",
        ),
    ] {
        let answer = peer.contents().read_content(ReadContentRequest { ranges }).await.map(drop);
        bench.refuses(what, answer, Reason::FieldViolation).await.blames(&[blamed]);
    }
    let request = ReadContentRequest { ranges: vec![range(&absent, 0)] };
    let mut answers = peer.contents().read_content(request).await.expect("answered").into_inner();
    let Some(Part::Failure(told)) =
        answers.message().await.expect("a message").and_then(|message| message.part)
    else {
        panic!("a failure was expected")
    };
    let failure = told.failure.expect("a failure");
    assert_eq!((told.digest, failure.reason.as_str()), (absent.clone(), Reason::ContentNotFound.as_str()));
    assert!(
        failure.message.contains(&absent) && failure.message.contains("s1") && !failure.advice.is_empty()
    );

    let gateway = bench.mesh.caller_at("s1", &lockstep_model::Identity::Service("gateway"));
    for (what, ids) in [("17 holders", vec!["s2".to_owned(); 17]), ("no server", vec!["../s2".to_owned()])] {
        let answer = gateway.replicas().reconcile(ReconcileRequest { holder_server_ids: ids }).await;
        bench.refuses(what, answer, Reason::FieldViolation).await;
    }
}

/// Messages that are too large, no messages at all, and deadlines that leave no time.
async fn bytes_that_are_no_call(bench: &mut Bench) {
    let read = |path| std::fs::read_to_string(path).expect("readable");
    let (cert, key) = bench.mesh.certificate(&operator("publisher"));
    let stranger = Stranger::showing(Some((&read(cert), &read(key))));
    let ports = [("the gateway", bench.mesh.door().port), ("s1", bench.mesh.servers["s1"].port)];
    let register = "/lockstep.filesync.v1.FileService/RegisterFile";
    let get = "/lockstep.filesync.v1.FileService/GetFile";
    let large = RegisterFileRequest { file: Some(new_file("large", &vec![1; 4 << 20])), request_id: uuid() };
    let good = RegisterFileRequest { file: Some(new_file("never", b"x")), request_id: uuid() };
    for (at, port) in ports {
        let mut wire = Wire::connect(stranger.clone(), port).await.expect("connected");
        let mut post = async |path: &str, headers: &[(&str, &str)], body: Bytes| {
            let headers: Vec<_> =
                [("lockstep-server", "s1")].into_iter().chain(headers.iter().copied()).collect();
            wire.post(path, &headers, body).await.expect("an answer").result()
        };
        let answer = post(register, &[], framed(&large.encode_to_vec())).await;
        bench.refuses(&format!("above 4 MiB at {at}"), answer, Reason::SizeLimitExceeded).await;
        for (what, body) in [
            ("garbage in a frame", framed(&[0xff; 32])),
            ("a message cut short", framed(&good.encode_to_vec()[..8])),
            ("no frame", Bytes::from_static(b"hello, server")),
            ("nothing", Bytes::new()),
            ("a frame cut short", framed(&good.encode_to_vec()).slice(..20)),
        ] {
            for path in [register, get] {
                let answer = post(path, &[], body.clone()).await;
                bench.refuses(&format!("{what} for {path} at {at}"), answer, Reason::FieldViolation).await;
            }
        }
        for left in ["1n", "1u", "1m", "0S"] {
            let answer = post(register, &[("grpc-timeout", left)], framed(&good.encode_to_vec())).await;
            bench.refuses(&format!("{left} left at {at}"), answer, Reason::DeadlineTooShort).await;
        }
    }
}
