//! `lockstep file loose`, `aside`, `check`, `update-version` and `restore`: the disk of one server.

use lockstep_model::{
    ServerId,
    clock::{Entropy as _, SystemEntropy},
};
use lockstep_proto::filesync::v1::{
    AsideFile, CheckFilesRequest, DeleteAsideFileRequest, File, ListAsideFilesRequest,
    RestoreAsideFileRequest, RestoreFileRequest, UpdateFileVersionRequest, check_files_request::Depth,
};

use super::{
    connect::{self, Session},
    files, in_place, shape,
};
use crate::{
    cli::{
        Format, Seen,
        store::{AsideArgs, AsideCommand, CheckArgs, LooseArgs, SettleArgs},
    },
    out,
    problem::{Problem, Result},
};

/// Entries in a page.
const PAGE_SIZE: i32 = 500;
/// Digits of a digest that a table shows.
const DIGEST_SHOWN: usize = 12;

/// Lists what nobody registered.
pub(crate) async fn loose(session: &Session, format: Format, args: LooseArgs) -> Result<()> {
    let what = "could not list the loose files";
    let server = session.server_for_change(args.server.as_deref(), what).await?;
    let found = in_place::loose(session, &server, &args.prefix, what).await?;
    if format == Format::Json {
        return out::json(&shape::LooseFiles { loose_files: found.iter().map(shape::Loose::of).collect() });
    }
    if found.is_empty() {
        return out::text("no loose files");
    }
    let row = |file: &lockstep_proto::filesync::v1::LooseFile| {
        let why = file.failure.as_ref().map_or_else(String::new, |failure| out::escaped(&failure.message));
        vec![out::escaped(&file.path), out::bytes(file.size_bytes), why]
    };
    out::text(&out::table(
        &["PATH", "SIZE", "CANNOT BE REGISTERED"],
        found.iter().map(row).collect(),
        &[1],
        &[0],
    ))?;
    let count = out::count(found.len() as i64, "loose file");
    out::note(&format!("{count} on {server}: not registered, not synchronised, never touched"));
    Ok(())
}

/// Lists, restores or drops what was set aside.
pub(crate) async fn aside(session: &Session, format: Format, args: AsideArgs) -> Result<()> {
    let what = "could not work with what is set aside";
    let server = session.server_for_change(args.server.as_deref(), what).await?;
    let request_id = SystemEntropy.uuid().to_string();
    match args.command {
        None => list_aside(session, format, &server).await,
        Some(AsideCommand::Restore { id: aside_id, path }) => {
            let path = path.unwrap_or_default();
            let request = RestoreAsideFileRequest { aside_id: aside_id.clone(), path, request_id };
            let mut stores = session.stores();
            // Not repeated: the second answer would be that nothing is there.
            let answer = connect::read(stores.restore_aside_file(connect::addressed(request, &server))).await;
            let what = format!("could not restore {}", out::escaped(&aside_id));
            let answer =
                answer.map_err(|failure| Problem::call(what, session.place(Some(&server)), &failure))?;
            match format {
                Format::Json => out::json(&serde_json::json!({ "path": answer.path })),
                Format::Text => {
                    out::text(&format!("restored as the loose file {}", out::escaped(&answer.path)))
                }
            }
        }
        Some(AsideCommand::Drop { id: aside_id }) => {
            let request = DeleteAsideFileRequest { aside_id: aside_id.clone(), request_id };
            let mut stores = session.stores();
            let answer = connect::read(stores.delete_aside_file(connect::addressed(request, &server))).await;
            let what = format!("could not drop {}", out::escaped(&aside_id));
            answer.map_err(|failure| Problem::call(what, session.place(Some(&server)), &failure))?;
            match format {
                Format::Json => out::json(&serde_json::json!({ "aside_id": aside_id })),
                Format::Text => out::text(&format!("dropped {}", out::escaped(&aside_id))),
            }
        }
    }
}

async fn list_aside(session: &Session, format: Format, server: &ServerId) -> Result<()> {
    let (mut found, mut page_token): (Vec<AsideFile>, _) = (Vec::new(), String::new());
    loop {
        let request = ListAsideFilesRequest { page_size: PAGE_SIZE, page_token };
        let mut stores = session.stores();
        let page = connect::read(stores.list_aside_files(connect::addressed(request, server))).await;
        let what = "could not list what is set aside";
        let page = page.map_err(|failure| Problem::call(what, session.place(Some(server)), &failure))?;
        found.extend(page.aside_files);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if format == Format::Json {
        return out::json(&shape::AsideFiles { aside_files: found.iter().map(shape::Aside::of).collect() });
    }
    if found.is_empty() {
        return out::text("nothing is set aside");
    }
    let row = |file: &AsideFile| {
        vec![
            out::escaped(&file.aside_id),
            out::escaped(&file.path),
            out::bytes(file.size_bytes),
            file.digest.chars().take(DIGEST_SHOWN).collect(),
            shape::time(file.aside_time.as_ref()).chars().take("2026-01-01T00:00:00".len()).collect(),
            file.failure.as_ref().map_or_else(String::new, |failure| failure.reason.clone()),
        ]
    };
    let header = ["ID", "WAS AT", "SIZE", "BLAKE3", "SET ASIDE (UTC)", "WHY"];
    out::text(&out::table(&header, found.iter().map(row).collect(), &[2], &[1]))
}

/// Compares copies with what is registered, now.
pub(crate) async fn check(session: &Session, format: Format, args: CheckArgs) -> Result<()> {
    let what = "could not compare the copies";
    let server = session.server_for_change(args.server.as_deref(), what).await?;
    let depth = if args.content { Depth::Content } else { Depth::Times };
    let request = CheckFilesRequest { path_prefix: args.prefix, depth: depth.into() };
    let answer = connect::change(|| {
        let mut stores = session.stores();
        let request = connect::addressed(request.clone(), &server);
        async move { stores.check_files(request).await }
    });
    let found =
        answer.await.map_err(|failure| Problem::call(what, session.place(Some(&server)), &failure))?;
    if format == Format::Json {
        return out::json(&shape::Checked::of(&found));
    }
    let compared = out::count(found.compared_count, "file");
    let figures = [
        ("drifted", found.drifted_count),
        ("vanished", found.lost_count),
        ("rotten", found.corrupt_count),
        ("right again", found.recovered_count),
    ];
    let told = figures.iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{count} {word}"));
    let told: Vec<String> = told.collect();
    let told = if told.is_empty() { "all right".to_owned() } else { told.join(", ") };
    out::text(&format!("{compared} compared on {server}: {told}"))
}

/// Takes the bytes that are there over, everywhere.
pub(crate) async fn update_version(session: &Session, format: Format, args: SettleArgs) -> Result<()> {
    let what = format!("could not update the version of {}", out::escaped(&args.path));
    let server = session.server_for_change(args.server.as_deref(), &what).await?;
    let expected_revision = seen(session, &args, &what).await?;
    let request_id = SystemEntropy.uuid().to_string();
    let request = UpdateFileVersionRequest { path: args.path, expected_revision, request_id };
    let answer = connect::change(|| {
        let mut stores = session.stores();
        let request = connect::addressed(request.clone(), &server);
        async move { stores.update_file_version(request).await }
    });
    let answer =
        answer.await.map_err(|failure| Problem::call(&what, session.place(Some(&server)), &failure))?;
    let file = answer.file.unwrap_or_default();
    let text = match file.revision == expected_revision {
        true => format!("{} is what is registered already", out::escaped(&file.path)),
        false => format!("updated {} to revision {}", out::escaped(&file.path), file.revision),
    };
    print(format, &file, &text)
}

/// Has the registered bytes fetched again.
pub(crate) async fn restore(session: &Session, format: Format, args: SettleArgs) -> Result<()> {
    let what = format!("could not restore {}", out::escaped(&args.path));
    let server = session.server_for_change(args.server.as_deref(), &what).await?;
    let expected_revision = seen(session, &args, &what).await?;
    let request_id = SystemEntropy.uuid().to_string();
    let request = RestoreFileRequest { path: args.path, expected_revision, request_id };
    let answer = connect::change(|| {
        let mut stores = session.stores();
        let request = connect::addressed(request.clone(), &server);
        async move { stores.restore_file(request).await }
    });
    let answer =
        answer.await.map_err(|failure| Problem::call(&what, session.place(Some(&server)), &failure))?;
    let file = answer.file.unwrap_or_default();
    let path = out::escaped(&file.path);
    print(format, &file, &format!("restoring {path} on {server} to revision {}", file.revision))
}

async fn seen(session: &Session, args: &SettleArgs, what: &str) -> Result<i64> {
    match args.revision {
        Seen::At(revision) => Ok(revision),
        Seen::Current => Ok(files::read(session, &args.path, what).await?.revision),
    }
}

fn print(format: Format, file: &File, text: &str) -> Result<()> {
    match format {
        Format::Json => out::json(&shape::File::of(file)),
        Format::Text => out::text(text),
    }
}
