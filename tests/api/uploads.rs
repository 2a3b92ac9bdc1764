//! Uploads: interrupted, continued, continued after a restart, and one writer at a time.

use std::{fs, time::Duration};

use lockstep_model::{Digest, Reason};
use lockstep_proto::filesync::v1::{
    GetUploadRequest, GetUploadResponse, NewFile, WriteUploadRequest, new_file::Source,
};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

use crate::{
    mesh::{Caller, Mesh, chunk, eventually, header, on, uuid},
    refusal::refused,
};

const MIB: usize = 1 << 20;

fn content() -> Vec<u8> {
    (0..3 * MIB + 17).map(|index| u8::try_from(index % 251).expect("small")).collect()
}

/// The parts of the content from an offset to an end, with a header.
fn parts(id: &str, content: &[u8], from: usize, to: usize) -> Vec<WriteUploadRequest> {
    let mut parts = vec![header(id, content.len(), from)];
    let mut at = from;
    while at < to {
        let end = (at + 256 * 1_024).min(to);
        parts.push(chunk(at, &content[at..end]));
        at = end;
    }
    parts
}

fn staged_bytes(mesh: &Mesh, id: &str) -> u64 {
    let place = mesh.root("s1").join(format!(".lockstep/staging/upload-{id}"));
    fs::metadata(place).map_or(0, |found| found.len())
}

/// Sends parts and then breaks off, as a connection that is cut does: the stream is dropped without its end.
async fn break_off(mesh: &Mesh, caller: &Caller, id: &str, sent: Vec<WriteUploadRequest>, until: usize) {
    let endless = tokio_stream::iter(sent).chain(futures::stream::pending());
    let mut uploads = caller.uploads();
    let upload = uploads.write_upload(on("s1", endless));
    let arrived = eventually("the bytes arrive", async || staged_bytes(mesh, id) == until as u64);
    tokio::select! {
        answer = upload => panic!("an answer to half a stream: {answer:?}"),
        () = arrived => {}
    }
}

/// Where the upload stands, as the refusal of a stream from nowhere tells; waits while the broken stream is still open.
async fn committed(caller: &Caller, id: &str, size: usize) -> usize {
    let mut told = None;
    eventually("the broken stream is given up", async || {
        let answer = caller.upload("s1", vec![header(id, size, size)]).await;
        let busy = answer
            .as_ref()
            .is_err_and(|told| lockstep_chassis::status::read(told).reason == Reason::Overloaded);
        told = Some(answer);
        !busy
    })
    .await;
    let refusal = refused("where it stands", told.expect("an answer"), Reason::OffsetMismatch);
    refusal.value("expected_offset").parse().expect("a number")
}

/// Where the upload stands, as the server tells.
async fn stands(caller: &Caller, id: &str) -> Result<GetUploadResponse, tonic::Status> {
    let request = GetUploadRequest { upload_id: id.to_owned() };
    Ok(caller.uploads().get_upload(on("s1", request)).await?.into_inner())
}

/// I1: bytes that were written and never synced do not count after a restart, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_were_not_synced_are_sent_again() {
    let mut mesh = Mesh::new(1).await;
    let (content, id) = (content(), uuid());
    mesh.operator("publisher").upload("s1", parts(&id, &content, 0, MIB)).await.expect("begun");
    mesh.servers["s1"].stop().await;
    // What a power cut may leave: a longer file whose end was never written.
    let place = mesh.root("s1").join(format!(".lockstep/staging/upload-{id}"));
    fs::OpenOptions::new().write(true).open(place).expect("there").set_len(2 * MIB as u64).expect("longer");
    mesh.restart("s1").await;
    mesh.ready().await;
    let caller = mesh.operator("publisher");
    assert_eq!(stands(&caller, &id).await.expect("known").committed_bytes, MIB as i64);
    caller.upload("s1", parts(&id, &content, MIB, content.len())).await.expect("continued");
    registered(&mesh, &caller, "whole", &id, &content).await;
}

async fn registered(mesh: &Mesh, caller: &Caller, path: &str, id: &str, content: &[u8]) {
    let source = Some(Source::UploadId(id.to_owned()));
    let file = NewFile { path: path.to_owned(), source, ..NewFile::default() };
    let file = caller.register_as("s1", &uuid(), file).await.expect("registered");
    assert_eq!((file.digest, file.size_bytes), (Digest::of(content).to_string(), content.len() as i64));
    assert_eq!(fs::read(mesh.transfer("s1").join(path)).expect("there"), content);
    mesh.in_sync(path).await;
    for server in mesh.servers.keys() {
        assert_eq!(fs::read(mesh.transfer(server).join(path)).expect("there"), content, "{server}");
    }
}

/// I2, I11: a stream may begin and end within a mebibyte; all of it is read back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_within_a_mebibyte() {
    let mesh = Mesh::new(1).await;
    let (content, id, caller) = (content(), uuid(), mesh.operator("publisher"));
    for (from, to) in [(0, MIB + 100), (MIB + 100, MIB + 200), (MIB + 200, content.len())] {
        let answer = caller.upload("s1", parts(&id, &content, from, to)).await.expect("continued");
        assert_eq!(answer.committed_bytes, to as i64);
    }
    registered(&mesh, &caller, "whole", &id, &content).await;
}

/// I7, I11: a stream that broke off is continued at the committed size, again and again, also after a restart of the
/// server; nothing is visible before it is registered, and what is registered is what was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_upload_goes_on_where_it_stands() {
    let mut mesh = Mesh::new(2).await;
    let (content, id) = (content(), uuid());
    let caller = mesh.operator("publisher");
    break_off(&mesh, &caller, &id, parts(&id, &content, 0, MIB), MIB).await;
    assert_eq!(committed(&caller, &id, content.len()).await, MIB);
    // A stream that ends early, but in order, says how far it is.
    let answer = caller.upload("s1", parts(&id, &content, MIB, MIB + 100)).await.expect("continued");
    assert_eq!((answer.committed_bytes, answer.digest.as_str()), (MIB as i64 + 100, ""));
    assert!(mesh.footprint().await.published.values().all(Vec::is_empty), "nothing is visible");

    mesh.restart("s1").await;
    mesh.ready().await;
    let caller = mesh.operator("publisher");
    let far = stands(&caller, &id).await.expect("known after a restart");
    assert_eq!((far.committed_bytes, far.size_bytes), (MIB as i64 + 100, content.len() as i64));
    assert!(far.digest.is_empty() && far.md5.is_empty(), "not complete");
    let foreign = stands(&mesh.operator("operator"), &id).await;
    refused("somebody else's", foreign, Reason::UploadNotFound).with(&["upload_id", "server_id"]);
    refused("unknown", stands(&caller, &uuid()).await, Reason::UploadNotFound);
    refused("no id", stands(&caller, "x").await, Reason::FieldViolation).blames(&["upload_id"]);
    assert_eq!(committed(&caller, &id, content.len()).await, MIB + 100);
    break_off(&mesh, &caller, &id, parts(&id, &content, MIB + 100, 2 * MIB), 2 * MIB).await;
    let at = committed(&caller, &id, content.len()).await;
    assert_eq!(at, 2 * MIB);
    let answer = caller.upload("s1", parts(&id, &content, at, content.len())).await.expect("completed");
    assert_eq!(answer.committed_bytes, content.len() as i64);
    assert_eq!(answer.digest, Digest::of(&content).to_string());
    let far = stands(&caller, &id).await.expect("complete");
    assert_eq!(
        (far.committed_bytes, &far.digest, &far.md5),
        (answer.committed_bytes, &answer.digest, &answer.md5)
    );
    // Asked again at its end, it says so again.
    let again = caller.upload("s1", vec![header(&id, content.len(), content.len())]).await.expect("complete");
    assert_eq!(again, answer);

    // Complete, but the server starts anew before it is used.
    mesh.restart("s1").await;
    mesh.ready().await;
    let caller = mesh.operator("publisher");
    registered(&mesh, &caller, "a/large", &id, &content).await;
    assert!(mesh.footprint().await.staged.values().all(Vec::is_empty), "nothing is left in staging");
}

/// I7, I11: of two writers of one upload the second is told to wait; neither spoils what the other wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_upload_has_one_writer() {
    let mesh = Mesh::new(1).await;
    let (content, id) = (content(), uuid());
    let caller = mesh.operator("publisher");
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut uploads = caller.uploads();
    let first = async { uploads.write_upload(on("s1", stream)).await };
    let second = async {
        for part in parts(&id, &content, 0, MIB) {
            sender.send(part).await.expect("it is read");
        }
        eventually("the bytes arrive", async || staged_bytes(&mesh, &id) == MIB as u64).await;
        for from in [0, MIB, content.len()] {
            let answer = caller.upload("s1", parts(&id, &content, from, content.len())).await;
            refused("a second writer", answer, Reason::Overloaded).with(&["server_id", "limit"]);
            assert_eq!(staged_bytes(&mesh, &id), MIB as u64);
        }
        for part in parts(&id, &content, MIB, content.len()).into_iter().skip(1) {
            sender.send(part).await.expect("it is read");
        }
        drop(sender);
    };
    let (first, ()) =
        timeout(Duration::from_secs(30), futures::future::join(first, second)).await.expect("an end");
    let first = first.expect("the first is not disturbed").into_inner();
    assert_eq!(
        (first.committed_bytes, first.digest),
        (content.len() as i64, Digest::of(&content).to_string())
    );
    registered(&mesh, &caller, "large", &id, &content).await;
}

/// I7: an empty upload is one, and many small chunks are as good as a few large ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_any_size_are_registered() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    for size in [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB] {
        let (id, content) = (uuid(), content()[..size].to_vec());
        let answer = caller.upload("s1", parts(&id, &content, 0, size)).await.expect("uploaded");
        assert_eq!((answer.committed_bytes, answer.digest), (size as i64, Digest::of(&content).to_string()));
        registered(&mesh, &caller, &format!("size/{size}"), &id, &content).await;
    }
}
