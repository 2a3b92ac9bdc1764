//! `lockstep file ls`, `get` and `rm`.

use lockstep_model::clock::{Entropy as _, SystemEntropy};
use lockstep_proto::filesync::v1::{
    DeleteFileRequest, File, GetFileRequest, ListFilesRequest, ListFilesResponse,
};

use super::{
    connect::{self, Session},
    shape,
};
use crate::{
    cli::{Format, ListArgs, RemoveArgs, Seen},
    out,
    problem::{Problem, Result},
};

/// Files in a page when every page is read.
const PAGE_SIZE_ALL: i32 = 500;
/// Digits of a digest that a table shows.
const DIGEST_SHOWN: usize = 12;

/// Lists one page, or all.
pub(crate) async fn list(session: &Session, format: Format, args: ListArgs) -> Result<()> {
    if args.all {
        return list_all(session, format, &args.prefix).await;
    }
    let page = page(session, &args.prefix, args.page_size, args.page_token).await?;
    if format == Format::Json {
        let files = page.files.iter().map(shape::File::of).collect();
        return out::json(&shape::Files { files, next_page_token: &page.next_page_token });
    }
    if page.files.is_empty() {
        return out::text("no files");
    }
    out::text(&rows(&page.files, true))?;
    if !page.next_page_token.is_empty() {
        out::note(&format!("more: --all, or --page-token {}", page.next_page_token));
    }
    Ok(())
}

/// Lists every page; what was read is printed and forgotten, so that a million files fit.
async fn list_all(session: &Session, format: Format, prefix: &str) -> Result<()> {
    let mut page_token = String::new();
    let mut printed = 0;
    let mut first = true;
    loop {
        let page = page(session, prefix, PAGE_SIZE_ALL, page_token).await?;
        if first && format == Format::Json {
            out::text(r#"{"files":["#)?;
        }
        first = false;
        match format {
            Format::Text if page.files.is_empty() => {}
            Format::Text => out::text(&rows(&page.files, printed == 0))?,
            Format::Json => {
                for (index, file) in page.files.iter().enumerate() {
                    if printed + index > 0 {
                        out::text(",")?;
                    }
                    out::json(&shape::File::of(file))?;
                }
            }
        }
        printed += page.files.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    match format {
        Format::Json => out::text(r#"],"next_page_token":""}"#),
        Format::Text if printed == 0 => out::text("no files"),
        Format::Text => Ok(()),
    }
}

async fn page(
    session: &Session,
    prefix: &str,
    page_size: i32,
    page_token: String,
) -> Result<ListFilesResponse> {
    let request = ListFilesRequest { path_prefix: prefix.to_owned(), page_size, page_token };
    let mut files = session.files();
    let page = connect::read(files.list_files(request)).await;
    page.map_err(|failure| Problem::call("could not list the files", session.gateway(), &failure))
}

fn rows(files: &[File], with_header: bool) -> String {
    let row = |file: &File| {
        vec![
            out::escaped(&file.path),
            out::bytes(file.size_bytes),
            file.revision.to_string(),
            file.origin_server_id.clone(),
            file.digest.chars().take(DIGEST_SHOWN).collect(),
            shape::register_time(file).chars().take("2026-01-01T00:00:00".len()).collect(),
        ]
    };
    let header: &[&str] =
        if with_header { &["PATH", "SIZE", "REVISION", "ORIGIN", "BLAKE3", "REGISTERED (UTC)"] } else { &[] };
    out::table(header, files.iter().map(row).collect(), &[1, 2], &[0])
}

/// Shows one record.
pub(crate) async fn get(session: &Session, format: Format, path: &str) -> Result<()> {
    let file = read(session, path, &format!("could not read the record of {path}")).await?;
    if format == Format::Json {
        return out::json(&shape::File::of(&file));
    }
    let lines = [
        ("path", out::escaped(&file.path)),
        ("file_id", file.file_id.clone()),
        ("revision", file.revision.to_string()),
        ("size", format!("{} ({} bytes)", out::bytes(file.size_bytes), file.size_bytes)),
        ("blake3", file.digest.clone()),
        ("md5", file.md5.clone()),
        ("registered", shape::register_time(&file)),
        ("origin", file.origin_server_id.clone()),
    ];
    out::text(&lines.map(|(label, value)| format!("{label:<11} {value}")).join("\n"))
}

/// Deletes a file for good.
pub(crate) async fn remove(session: &Session, format: Format, args: RemoveArgs) -> Result<()> {
    let what = format!("could not delete {}", args.path);
    let server = session.server_for_change(args.server.as_deref(), &what).await?;
    let expected_revision = match args.revision {
        Some(Seen::At(revision)) => revision,
        Some(Seen::Current) | None => read(session, &args.path, &what).await?.revision,
    };
    let request = DeleteFileRequest {
        path: args.path,
        expected_revision,
        request_id: SystemEntropy.uuid().to_string(),
    };
    let answer = connect::change(|| {
        let mut client = session.files();
        let request = connect::addressed(request.clone(), &server);
        async move { client.delete_file(request).await }
    });
    let answer =
        answer.await.map_err(|failure| Problem::call(&what, session.place(Some(&server)), &failure))?;
    let file = answer.file.unwrap_or_default();
    if format == Format::Json {
        let mut shape = shape::File::of(&file);
        shape.delete_revision = Some(answer.delete_revision);
        return out::json(&shape);
    }
    let path = out::escaped(&file.path);
    out::text(&format!(
        "deleted {path} of revision {}, at revision {}",
        file.revision, answer.delete_revision
    ))
}

/// The record of a file.
pub(crate) async fn read(session: &Session, path: &str, what: &str) -> Result<File> {
    let request = GetFileRequest { path: path.to_owned() };
    let mut files = session.files();
    let answer = connect::read(files.get_file(request)).await;
    let answer = answer.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    Ok(answer.file.unwrap_or_default())
}
