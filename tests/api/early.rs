//! Large uploads are at the other servers about when they are at their own; what breaks off there leaves nothing.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use lockstep_model::{Digest, Reason};
use lockstep_proto::filesync::v1::{
    ContentChunk, NewFile, WriteContentDigest, WriteContentHeader, WriteContentRequest, new_file::Source,
    write_content_request::Part,
};
use tokio_stream::StreamExt as _;

use crate::{
    mesh::{Mesh, Options, chunk, eventually, header, of_server, on, uuid},
    refusal::refused,
};

const MIB: usize = 1 << 20;
const OTHERS: [&str; 2] = ["s2", "s3"];

fn content() -> Vec<u8> {
    (0..3 * MIB + 17).map(|index| u8::try_from(index % 251).expect("small")).collect()
}

async fn mesh() -> Mesh {
    let options = Options { relay_bytes_min: 2 * MIB as u64, ..Options::default() };
    let mesh = Mesh::with(vec![options; 3]).await;
    mesh.ready().await;
    mesh
}

/// What waits in staging under the name of an early copy.
fn early(mesh: &Mesh, server: &str) -> Vec<PathBuf> {
    let staging = fs::read_dir(mesh.root(server).join(".lockstep/staging")).expect("listed");
    let names = staging.map(|entry| entry.expect("listed").path());
    names.filter(|path| path.to_string_lossy().contains("/early-")).collect()
}

fn early_bytes(mesh: &Mesh, server: &str) -> u64 {
    early(mesh, server).iter().map(|path| fs::metadata(path).map_or(0, |found| found.len())).sum()
}

/// An upload that is complete, and at the other servers.
async fn uploaded(mesh: &Mesh, content: &[u8]) -> String {
    let id = uuid();
    let chunks = content.chunks(MIB).enumerate().map(|(index, data)| chunk(index * MIB, data));
    let parts = std::iter::once(header(&id, content.len(), 0)).chain(chunks).collect();
    mesh.operator("publisher").upload("s1", parts).await.expect("uploaded");
    for server in OTHERS {
        let all = content.len() as u64;
        eventually("the bytes are there early", async || early_bytes(mesh, server) == all).await;
    }
    id
}

async fn register(mesh: &Mesh, upload: String, path: &str) {
    let file =
        NewFile { path: path.to_owned(), source: Some(Source::UploadId(upload)), ..NewFile::default() };
    mesh.operator("publisher").register_as("s1", &uuid(), file).await.expect("registered");
    mesh.in_sync(path).await;
}

/// R20, I7, I10: the bytes of an upload are on the other servers before it is registered, where no device sees them; then
/// they become the file.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_sent_on_before_it_is_registered() {
    let (mesh, content) = (mesh().await, content());
    let id = uploaded(&mesh, &content).await;
    for server in OTHERS {
        assert_eq!(fs::read_dir(mesh.transfer(server)).expect("listed").count(), 0, "nothing is registered");
    }
    register(&mesh, id, "os/firmware.bin").await;
    for server in OTHERS {
        assert_eq!(fs::read(mesh.transfer(server).join("os/firmware.bin")).expect("there"), content);
        assert!(early(&mesh, server).is_empty(), "the early copy became the file");
    }
}

/// I2, I10: an early copy that somebody changed is noticed, and the bytes come from a holder.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_copy_that_was_changed_is_not_used() {
    let (mesh, content) = (mesh().await, content());
    let id = uploaded(&mesh, &content).await;
    let copy = early(&mesh, "s2").pop().expect("there");
    let mut changed = content.clone();
    changed[MIB + 5] ^= 1;
    fs::write(&copy, changed).expect("written");
    register(&mesh, id, "os/firmware.bin").await;
    for server in OTHERS {
        assert_eq!(fs::read(mesh.transfer(server).join("os/firmware.bin")).expect("there"), content);
    }
}

/// I7: an upload that breaks off leaves nothing at the other servers.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing_elsewhere() {
    let (mesh, content) = (mesh().await, content());
    let caller = mesh.operator("publisher");
    let parts = vec![header(&uuid(), content.len(), 0), chunk(0, &content[..MIB])];
    let endless = tokio_stream::iter(parts).chain(futures::stream::pending());
    let mut uploads = caller.uploads();
    let upload = uploads.write_upload(on("s1", endless));
    let arrived = async {
        for server in OTHERS {
            eventually("half is there", async || early_bytes(&mesh, server) == MIB as u64).await;
        }
    };
    tokio::select! {
        biased;
        answer = upload => panic!("an answer to half a stream: {answer:?}"),
        () = arrived => {}
    }
    for server in OTHERS {
        eventually("it is removed", async || early(&mesh, server).is_empty()).await;
    }
}

/// H3, I2, I7: streams that are wrong are refused with their reason, and leave nothing.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_streams_are_refused() {
    let (mesh, content) = (mesh().await, content());
    let peer = mesh.caller_at("s2", &of_server("s1", "filesync"));
    let part = |part| WriteContentRequest { part: Some(part) };
    let head =
        |size: usize| part(Part::Header(WriteContentHeader { upload_id: uuid(), size_bytes: size as i64 }));
    let bytes = |at: usize, data: &[u8]| {
        part(Part::Chunk(ContentChunk { offset_bytes: at as i64, data: Bytes::copy_from_slice(data) }))
    };
    let digest = |text: &str| part(Part::Digest(WriteContentDigest { digest: text.to_owned() }));
    let other = Digest::of(b"other").to_string();
    let two = 2 * MIB;
    for (what, parts, reason) in [
        ("no header", vec![bytes(0, b"x")], Reason::FieldViolation),
        ("a small content", vec![head(MIB)], Reason::FieldViolation),
        ("a second header", vec![head(two), head(two)], Reason::FieldViolation),
        ("no digest", vec![head(two), digest("x")], Reason::FieldViolation),
        ("a large chunk", vec![head(two), bytes(0, &content[..=MIB])], Reason::FieldViolation),
        ("a gap", vec![head(two), bytes(1, b"x")], Reason::OffsetMismatch),
        (
            "more than announced",
            vec![head(MIB + 1), bytes(0, &content[..MIB]), bytes(MIB, b"xx")],
            Reason::SizeLimitExceeded,
        ),
        ("beyond every limit", vec![head(1 << 40)], Reason::SizeLimitExceeded),
        ("less than announced", vec![head(two), bytes(0, b"x"), digest(&other)], Reason::OffsetMismatch),
        (
            "another digest",
            vec![head(MIB + 1), bytes(0, &content[..MIB]), bytes(MIB, b"x"), digest(&other)],
            Reason::ContentDigestMismatch,
        ),
    ] {
        let answer = peer.contents().write_content(futures::stream::iter(parts)).await;
        refused(what, answer, reason);
        eventually("it is removed", async || early(&mesh, "s2").is_empty()).await;
    }
}
