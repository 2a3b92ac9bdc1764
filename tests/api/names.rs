//! The table of hostile names, on real servers: each is stored exactly, on every server, or refused with its rule.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
};

use bytes::Bytes;
use futures::future::join;
use lockstep_chassis::SERVER_KEY;
use lockstep_model::Reason;
use lockstep_proto::filesync::v1::{
    DeleteDirectoryRequest, File as Registered, InPlace, ListLooseFilesRequest, MoveDirectoryRequest,
    MoveFileRequest, NewFile, new_file::Source,
};
use lockstep_tests::names::{self, Case, Outcome};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use tonic::Status;

use crate::{
    calls::call,
    mesh::{Caller, Mesh, eventually, on, uuid},
    refusal::refused,
};

const FILES: &str = "lockstep.filesync.v1.FileService";

/// What is under exactly this name, which alone may be as long as the system allows.
fn on_disk(mesh: &Mesh, server: &str, name: &[u8]) -> io::Result<Vec<u8>> {
    let directory = File::open(mesh.transfer(server))?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&directory, name, flags, Mode::empty())?);
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

/// The directories above a name, outermost first.
fn above(name: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let slashes: Vec<usize> =
        name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).collect();
    slashes.into_iter().map(|at| &name[..at])
}

/// Puts a file there by hand, under exactly this name; false if no disk can have it, or it would not be below.
fn plant(mesh: &Mesh, name: &[u8], content: &[u8]) -> bool {
    let is_outside = name.split(|byte| *byte == b'/').any(|part| [&b""[..], b".", b".."].contains(&part));
    if is_outside || name.contains(&0) {
        return false;
    }
    let directory = File::open(mesh.transfer("s1")).expect("a directory");
    for above in above(name) {
        // It may be there.
        let _ = mkdirat(&directory, above, Mode::RWXU);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&directory, name, flags, Mode::RUSR | Mode::WUSR);
    let is_there = file.is_ok_and(|file| File::from(file).write_all(content).is_ok());
    if !is_there {
        uproot(mesh, name);
    }
    is_there
}

/// Removes it again, and the directories above it.
fn uproot(mesh: &Mesh, name: &[u8]) {
    let directory = File::open(mesh.transfer("s1")).expect("a directory");
    let _ = unlinkat(&directory, name, AtFlags::empty());
    for above in above(name).rev() {
        let _ = unlinkat(&directory, above, AtFlags::REMOVEDIR);
    }
}

async fn in_place(caller: &Caller, path: &str) -> Result<Registered, Status> {
    let source = Some(Source::InPlace(InPlace {}));
    caller.register_as("s1", &uuid(), NewFile { path: path.to_owned(), source, ..NewFile::default() }).await
}

/// R2, R4: what lies there under a name that cannot be registered is listed with the reason, and left alone.
async fn is_listed_as_loose(mesh: &Mesh, case: &Case) -> bool {
    if !plant(mesh, &case.name, b"loose") {
        return false;
    }
    let request = ListLooseFilesRequest { page_size: 500, ..ListLooseFilesRequest::default() };
    let listed = mesh.operator("viewer").stores().list_loose_files(on("s1", request)).await;
    let listed = listed.expect("listed").into_inner().loose_files;
    let [found] = listed.as_slice() else { panic!("{case}: {listed:?}") };
    // What is too deep, or below a name that is no text, is told by the directory that it is in.
    assert!(String::from_utf8_lossy(&case.name).starts_with(&found.path), "{case}: {}", found.path);
    let why = found.failure.as_ref().unwrap_or_else(|| panic!("{case}: it could be registered"));
    assert!(["PATH_INVALID", "NOT_REGULAR"].contains(&why.reason.as_str()), "{case}: {why:?}");
    assert_eq!(on_disk(mesh, "s1", &case.name).expect("there"), b"loose", "{case}");
    uproot(mesh, &case.name);
    true
}

/// Registered on one server, read at another, the bytes under exactly this name on both, deleted at a third.
async fn is_stored_exactly(mesh: &Mesh, caller: &Caller, case: &Case) {
    let text = case.text().expect("stored names are text");
    let content = format!("content of {}", case.line);
    let file = caller
        .register("s1", text, content.as_bytes())
        .await
        .unwrap_or_else(|told| panic!("{case}: {told:?}"));
    assert_eq!(file.path, text, "{case}");
    let found = on_disk(mesh, "s1", &case.name).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(found, content.as_bytes(), "{case}");
    let found = mesh.caller_at("s2", &crate::mesh::operator("viewer")).get(text).await;
    assert_eq!(found.unwrap_or_else(|told| panic!("{case}: {told:?}")), file, "{case}");
    eventually(&format!("{case} is on s2"), async || {
        on_disk(mesh, "s2", &case.name).is_ok_and(|found| found == content.as_bytes())
    })
    .await;
    let plain = format!("plain-{}", case.line);
    let mut at = file;
    // Moved away and back again: the name is stored exactly by a move, too.
    for (from, to) in [(text, plain.as_str()), (plain.as_str(), text)] {
        let (path, new_path, request_id) = (from.to_owned(), to.to_owned(), uuid());
        let request = MoveFileRequest { path, new_path, expected_revision: at.revision, request_id };
        let moved = caller.files().move_file(on("s2", request)).await;
        let moved = moved.unwrap_or_else(|told| panic!("{case}: {told:?}"));
        at = moved.into_inner().file.expect("a file");
    }
    eventually(&format!("{case} is back on s1"), async || {
        on_disk(mesh, "s1", &case.name).is_ok_and(|found| found == content.as_bytes())
    })
    .await;
    caller.delete("s2", text, at.revision).await.unwrap_or_else(|told| panic!("{case}: {told:?}"));
    is_gone(mesh, case).await;

    assert!(plant(mesh, &case.name, content.as_bytes()), "{case}");
    let file = in_place(caller, text).await.unwrap_or_else(|told| panic!("{case} in place: {told:?}"));
    assert_eq!(file.path, text, "{case}");
    eventually(&format!("{case}, registered in place, is on s2"), async || {
        on_disk(mesh, "s2", &case.name).is_ok_and(|found| found == content.as_bytes())
    })
    .await;
    caller.delete("s2", text, file.revision).await.unwrap_or_else(|told| panic!("{case}: {told:?}"));
    is_gone(mesh, case).await;
}

async fn is_gone(mesh: &Mesh, case: &Case) {
    for server in ["s1", "s2"] {
        eventually(&format!("{case} is gone from {server}"), async || {
            std::fs::read_dir(mesh.transfer(server)).expect("a directory").next().is_none()
        })
        .await;
    }
}

async fn move_file(caller: &Caller, path: &str, new_path: &str) -> Result<(), Status> {
    let (path, new_path, request_id) = (path.to_owned(), new_path.to_owned(), uuid());
    let request = MoveFileRequest { path, new_path, expected_revision: 1, request_id };
    caller.files().move_file(on("s2", request)).await.map(drop)
}

async fn move_directory(caller: &Caller, path: &str, new_path: &str) -> Result<(), Status> {
    let (path, new_path) = (path.to_owned(), new_path.to_owned());
    let request = MoveDirectoryRequest { path, new_path, dry_run: true, ..MoveDirectoryRequest::default() };
    caller.files().move_directory(on("s2", request)).await.map(drop)
}

async fn delete_directory(caller: &Caller, path: &str) -> Result<(), Status> {
    let request =
        DeleteDirectoryRequest { path: path.to_owned(), dry_run: true, ..DeleteDirectoryRequest::default() };
    caller.files().delete_directory(on("s2", request)).await.map(drop)
}

/// Refused by every RPC that takes a path, with the rule.
async fn is_refused(caller: &Caller, case: &Case, rule: &str) {
    let text = case.text().expect("refused names are text");
    let what = case.to_string();
    for (method, answer, field) in [
        ("RegisterFile", caller.register("s1", text, b"x").await.map(drop), "file.path"),
        ("RegisterFile in place", in_place(caller, text).await.map(drop), "file.path"),
        ("GetFile", caller.get(text).await.map(drop), "path"),
        ("DeleteFile", caller.delete("s2", text, 1).await.map(drop), "path"),
        ("MoveFile", move_file(caller, text, "x").await, "path"),
        ("MoveFile", move_file(caller, "x", text).await, "new_path"),
        ("MoveDirectory", move_directory(caller, text, "x").await, "path"),
        ("MoveDirectory", move_directory(caller, "x", text).await, "new_path"),
        ("DeleteDirectory", delete_directory(caller, text).await, "path"),
    ] {
        let refusal = refused(&format!("{method} {what}"), answer, Reason::PathInvalid).blames(&[field]);
        let (_, description) = &refusal.fields()[0];
        assert!(description.contains(rule), "{method} {what}: {description:?} does not tell {rule:?}");
    }
}

/// A message whose field 1 is this name, as bytes: generated code cannot write it.
fn named(name: &[u8]) -> Vec<u8> {
    let mut message = vec![0x0a];
    prost::encoding::encode_varint(name.len() as u64, &mut message);
    message.extend_from_slice(name);
    message
}

/// No request can carry it: each RPC says so, as a mistake in the request.
async fn is_no_text(caller: &Caller, case: &Case) {
    // The first field of the first field, or the first field.
    let (register, alone) = (named(&named(&case.name)), named(&case.name));
    let others = ["GetFile", "DeleteFile", "MoveFile", "MoveDirectory", "DeleteDirectory"];
    let others = others.map(|method| (method, alone.clone()));
    for (method, message) in [("RegisterFile", register)].into_iter().chain(others) {
        let answer = call(
            &caller.channel,
            &format!("{FILES}/{method}"),
            &[(SERVER_KEY, "s1")],
            vec![Bytes::from(message)],
        )
        .await;
        refused(&format!("{method} {case}"), answer, Reason::FieldViolation).says(&["cannot be decoded"]);
    }
}

/// R1, R2, R3, R4, R5, R6, R70: every name of the table, through register, in place, get, move, delete and the directories,
/// and lying loose on a disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_have_their_outcome() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    let outside = mesh.root("s1");
    let listing = || {
        std::fs::read_dir(&outside).expect("a directory").flatten().map(|e| e.file_name()).collect::<Vec<_>>()
    };
    let before = (mesh.footprint().await, listing());
    let (stored, others): (Vec<Case>, Vec<Case>) =
        names::table().into_iter().partition(|case| case.outcome == Outcome::Stored);
    assert!(stored.len() > 20 && others.len() > 50, "the table was read");
    let mut loose = 0;
    for case in &others {
        match case.outcome {
            Outcome::Refused(rule) => is_refused(&caller, case, &rule.to_string()).await,
            _ => is_no_text(&caller, case).await,
        }
        loose += usize::from(is_listed_as_loose(&mesh, case).await);
    }
    assert!(loose > 20, "only {loose} of the names were put on a disk");
    assert_eq!((mesh.footprint().await, listing()), before, "a refused name leaves nothing");
    for case in &stored {
        is_stored_exactly(&mesh, &caller, case).await;
    }
    let after = mesh.footprint().await;
    assert_eq!(after.published, before.0.published, "every directory went with its last file");
    assert_eq!(listing(), before.1);
}

/// R6, R37: of two names that some server could not keep apart, registered on two servers at once, one wins; the loser is
/// told the name in its way, and has it once the winner is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clashing_names_have_one_winner() {
    let mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    for pair in names::pairs() {
        let (first, second) = join(
            caller.register("s1", &pair.first, b"first"),
            caller.register("s2", &pair.second, b"second"),
        )
        .await;
        let mut there = Vec::new();
        match (pair.clash, first, second) {
            (false, first, second) => {
                there
                    .extend([first, second].map(|one| one.unwrap_or_else(|told| panic!("{pair}: {told:?}"))));
            }
            (true, Ok(winner), loser) | (true, loser, Ok(winner)) => {
                let refusal =
                    refused(&pair.to_string(), loser, Reason::PathConflict).with(&["path", "other_path"]);
                let other = refusal.value("other_path").to_owned();
                let is_of_winner = winner.path == other || winner.path.starts_with(&format!("{other}/"));
                assert!(is_of_winner, "{pair}: {other:?} is not of {:?}", winner.path);
                assert_eq!(refusal.resource(), other, "{pair}");
                there.push(winner);
            }
            (true, first, second) => panic!("{pair}: both were refused: {first:?} {second:?}"),
        }
        for file in &there {
            caller
                .delete("s1", &file.path, file.revision)
                .await
                .unwrap_or_else(|told| panic!("{pair}: {told:?}"));
        }
        if let [winner] = there.as_slice() {
            let (server, loser) =
                if winner.path == pair.first { ("s2", &pair.second) } else { ("s1", &pair.first) };
            let file = caller.register(server, loser, uuid().as_bytes()).await;
            let file = file.unwrap_or_else(|told| panic!("{pair}: the name is free now: {told:?}"));
            caller.delete(server, loser, file.revision).await.expect("deleted");
        }
    }
    eventually("both servers hold nothing", async || {
        mesh.footprint().await.published.values().all(Vec::is_empty)
    })
    .await;
}
