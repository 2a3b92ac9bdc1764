//! `lockstep file register` and `replace`: everything is found and named first, then sent in parts, each of which appears whole.

use std::{path::Path, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use lockstep_model::{Digest, ServerId, clock::Entropy as _, clock::SystemEntropy};
use lockstep_proto::filesync::v1::{
    Digests, File, NewFile, RegisterFilesRequest, new_file::ConflictPolicy, new_file::Source,
};

use super::{
    connect::{self, Session},
    files,
    goal::Goal,
    progress::Progress,
    shape,
    source::{self, Entry},
    upload, wait,
};
use crate::{
    cli::{Format, OnConflict, RegisterArgs, ReplaceArgs, Seen},
    out,
    problem::{Exit, Problem, Result},
};

/// Parts on their way at once: while one is committed, the next one is read and sent.
const PARTS_AT_ONCE: usize = 2;
/// Uploads of one part at once, each on a connection of its own.
const UPLOADS_AT_ONCE: usize = 3;

/// Registers a file or a tree.
pub(crate) async fn run(session: &Session, format: Format, args: RegisterArgs) -> Result<()> {
    // The command line asks for it, unless files lie in place.
    let source = args.source.unwrap_or_default();
    let what = format!("could not register {}", source.display());
    let entries = source::collect(&source, args.path.as_deref())?;
    let server = session.server_for_change(args.server.as_deref(), &what).await?;
    let on_conflict = match args.on_conflict {
        OnConflict::Refuse => ConflictPolicy::Unspecified,
        OnConflict::Rename => ConflictPolicy::Rename,
    };
    let place = Place { expected_revision: 0, on_conflict };
    let total = entries.len();
    let progress = Arc::new(Progress::new(entries.iter().map(|entry| entry.size_bytes).sum()));
    let mut registered: Vec<File> = Vec::with_capacity(total);
    let parts = source::parts(entries).into_iter().enumerate();
    let mut answers = stream::iter(parts)
        .map(|(number, part)| register_part(session, &server, number, part, place, &progress))
        .buffered(PARTS_AT_ONCE);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(files) => registered.extend(files),
            Err(problem) if registered.is_empty() => return Err(problem),
            Err(problem) => {
                out::note(&format!(
                    "{} of {total} files were registered before this; the last one is {}",
                    registered.len(),
                    registered.last().map_or("", |file| file.path.as_str())
                ));
                return Err(problem);
            }
        }
    }
    drop(answers);
    progress.finish();
    print(format, "registered", &registered, &server)?;
    if args.wait {
        wait::until_in_sync(session, Goal::of(&registered), args.timeout).await?;
        if format == Format::Text {
            out::text(&format!("{} in sync on every server", out::count(registered.len() as i64, "file")))?;
        }
    }
    Ok(())
}

/// Replaces the bytes of a registered file.
pub(crate) async fn replace(session: &Session, format: Format, args: ReplaceArgs) -> Result<()> {
    let what = format!("could not replace {}", args.path);
    let mut entries = source::collect(&args.source, Some(&args.path))?;
    let only = entries.pop().filter(|entry| entries.is_empty() && entry.path.as_str() == args.path);
    let entry = only.ok_or_else(|| {
        Problem::new(Exit::Usage, &what, "the source is a directory, or the path ends with a slash")
            .advise("name one file, and the exact path of the one that it replaces")
    })?;
    let server = session.server_for_change(args.server.as_deref(), &what).await?;
    let expected_revision = match args.revision {
        Seen::At(revision) => revision,
        Seen::Current => files::read(session, &args.path, &what).await?.revision,
    };
    let progress = Arc::new(Progress::new(entry.size_bytes));
    let place = Place { expected_revision, on_conflict: ConflictPolicy::Unspecified };
    let replaced = register_part(session, &server, 0, vec![entry], place, &progress).await?;
    progress.finish();
    print(format, "replaced", &replaced, &server)
}

/// What the path of a new file may be.
#[derive(Clone, Copy)]
struct Place {
    expected_revision: i64,
    on_conflict: ConflictPolicy,
}

async fn register_part(
    session: &Session,
    server: &ServerId,
    number: usize,
    part: Vec<Entry>,
    place: Place,
    progress: &Arc<Progress>,
) -> Result<Vec<File>> {
    let (first, count) = (part[0].path.to_string(), part.len());
    let files: Vec<NewFile> = stream::iter(part.into_iter().enumerate())
        .map(|(index, entry)| async move {
            let lane = number % PARTS_AT_ONCE * UPLOADS_AT_ONCE + index % UPLOADS_AT_ONCE;
            let file = new_file(session, server, entry, lane as u8, progress).await?;
            let Place { expected_revision, on_conflict } = place;
            Ok::<NewFile, Box<Problem>>(NewFile {
                expected_revision,
                on_conflict: on_conflict.into(),
                ..file
            })
        })
        .buffered(UPLOADS_AT_ONCE)
        .try_collect()
        .await?;
    let request = RegisterFilesRequest { files, request_id: SystemEntropy.uuid().to_string() };
    let answer = connect::change(|| {
        let mut client = session.files();
        let request = connect::addressed(request.clone(), server);
        async move { client.register_files(request).await }
    });
    let what = match count {
        1 if place.expected_revision > 0 => format!("could not replace {first}"),
        1 => format!("could not register {first}"),
        _ => format!("could not register {count} files from {first} on; none of them was"),
    };
    let answer =
        answer.await.map_err(|failure| Problem::call(what, session.place(Some(server)), &failure))?;
    Ok(answer.files)
}

async fn new_file(
    session: &Session,
    server: &ServerId,
    entry: Entry,
    lane: u8,
    progress: &Arc<Progress>,
) -> Result<NewFile> {
    let (source, digest) = if entry.is_inline() {
        let content = read(&entry.file).await?;
        progress.add(content.len() as u64);
        let digest = Digest::of(&content);
        (Source::Content(content.into()), digest)
    } else {
        let uploaded = upload::upload(session, server, &entry, lane, progress).await?;
        (Source::UploadId(uploaded.upload_id.to_string()), uploaded.digest)
    };
    let digests = Digests { blake3: digest.to_string(), ..Digests::default() };
    Ok(NewFile {
        path: entry.path.to_string(),
        source: Some(source),
        digests: Some(digests),
        ..NewFile::default()
    })
}

async fn read(file: &Path) -> Result<Vec<u8>> {
    let content = tokio::fs::read(file).await;
    content.map_err(|error| Problem::io(format!("could not read {}", file.display()), file.display(), &error))
}

/// Prints what was done to files: registered, or replaced.
pub(crate) fn print(format: Format, done: &str, files: &[File], server: &ServerId) -> Result<()> {
    match (format, files) {
        (Format::Json, _) => out::json(&shape::Files {
            files: files.iter().map(shape::File::of).collect(),
            next_page_token: "",
        }),
        (Format::Text, [file]) => out::text(&format!(
            "{done} {} on {server} at revision {}, {}",
            out::escaped(&file.path),
            file.revision,
            out::bytes(file.size_bytes)
        )),
        (Format::Text, _) => {
            let bytes = files.iter().map(|file| file.size_bytes).sum();
            let revisions = match (files.first(), files.last()) {
                (Some(first), Some(last)) if first.revision != last.revision => {
                    format!("revisions {} to {}", first.revision, last.revision)
                }
                (Some(only), _) => format!("revision {}", only.revision),
                (None, _) => "no revision".to_owned(),
            };
            let count = out::count(files.len() as i64, "file");
            out::text(&format!("{done} {count} on {server} at {revisions}, {}", out::bytes(bytes)))
        }
    }
}
