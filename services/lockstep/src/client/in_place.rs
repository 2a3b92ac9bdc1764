//! `lockstep file register --in-place`: files that lie in the transfer directory of a server already.

use futures::{StreamExt as _, stream};
use lockstep_model::{
    ServerId,
    clock::{Entropy as _, SystemEntropy},
};
use lockstep_proto::filesync::v1::{
    File, InPlace, ListLooseFilesRequest, LooseFile, NewFile, RegisterFilesRequest, new_file::Source,
};

use super::{
    connect::{self, Session},
    goal::Goal,
    register, shape, wait,
};
use crate::{
    cli::{Format, RegisterArgs},
    out,
    problem::{Exit, Problem, Result},
};

/// Entries in a page.
const PAGE_SIZE: i32 = 500;
/// Files in one request, as the contract allows.
const PART_FILES: usize = 1_000;
/// Bytes of paths in one request, so that requests and answers stay small.
const PART_BYTES: usize = 1 << 20;
/// The most files of one command.
const FILES_MAX: usize = 1_000_000;
/// The most mistakes that are listed.
const LISTED_MAX: usize = 10;

/// Registers files and directories where they lie, or tells which would be.
pub(crate) async fn run(session: &Session, format: Format, args: RegisterArgs) -> Result<()> {
    let what = format!("could not register {} in place", args.in_place.join(" "));
    let server = session.server_for_change(args.server.as_deref(), &what).await?;
    let mut found: Vec<LooseFile> = Vec::new();
    for path in &args.in_place {
        let below = below(session, &server, path, &what).await?;
        if below.is_empty() && args.dry_run {
            let why = format!("nothing loose is at or below {} on server {server}", out::escaped(path));
            return Err(Problem::new(Exit::Failed, &what, why)
                .at(session.place(Some(&server)))
                .advise("`lockstep file loose` lists what there is"));
        }
        // What is not loose is named all the same: the server tells what is wrong with it.
        let named = LooseFile { path: path.trim_end_matches('/').to_owned(), ..LooseFile::default() };
        found.extend(if below.is_empty() { vec![named] } else { below });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    refuse_unfit(&found, &what, &session.place(Some(&server)))?;
    if args.dry_run {
        return dry(format, &found, &server);
    }
    let total = found.len();
    let mut registered: Vec<File> = Vec::with_capacity(total);
    let mut answers = stream::iter(parts(found)).then(|part| register_part(session, &server, part)).boxed();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(files) => registered.extend(files),
            Err(problem) if registered.is_empty() => return Err(problem),
            Err(problem) => {
                let count = registered.len();
                out::note(&format!("{count} of {total} files were registered before this"));
                return Err(problem);
            }
        }
    }
    drop(answers);
    register::print(format, "registered", &registered, &server)?;
    if args.wait {
        wait::until_in_sync(session, Goal::of(&registered), args.timeout).await?;
        if format == Format::Text {
            out::text(&format!("{} in sync on every server", out::count(registered.len() as i64, "file")))?;
        }
    }
    Ok(())
}

/// What is loose at a path, or below it; `/` is everything.
async fn below(session: &Session, server: &ServerId, path: &str, what: &str) -> Result<Vec<LooseFile>> {
    let exact = path.trim_end_matches('/');
    let directory = format!("{exact}/");
    let is_mine = |file: &LooseFile| {
        exact.is_empty() || file.path.starts_with(&directory) || file.path == exact && !path.ends_with('/')
    };
    let mut found = loose(session, server, exact, what).await?;
    found.retain(is_mine);
    Ok(found)
}

/// Every loose file whose path begins with a text.
pub(crate) async fn loose(
    session: &Session,
    server: &ServerId,
    prefix: &str,
    what: &str,
) -> Result<Vec<LooseFile>> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            ListLooseFilesRequest { path_prefix: prefix.to_owned(), page_size: PAGE_SIZE, page_token };
        let mut stores = session.stores();
        let page = connect::read(stores.list_loose_files(connect::addressed(request, server))).await;
        let page = page.map_err(|failure| Problem::call(what, session.place(Some(server)), &failure))?;
        found.extend(page.loose_files);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
        if found.len() > FILES_MAX {
            let why = format!("there are more than {FILES_MAX}");
            return Err(Problem::new(Exit::Failed, what, why).advise("name a directory below"));
        }
    }
}

fn refuse_unfit(found: &[LooseFile], what: &str, place: &str) -> Result<()> {
    let unfit: Vec<&LooseFile> = found.iter().filter(|file| file.failure.is_some()).collect();
    if unfit.is_empty() {
        return Ok(());
    }
    let line = |file: &&LooseFile| {
        let failure = file.failure.as_ref();
        failure.map_or_else(String::new, |failure| {
            format!("{} ({})", out::escaped(&failure.message), failure.reason)
        })
    };
    let mut lines: Vec<String> = unfit.iter().take(LISTED_MAX).map(line).collect();
    if unfit.len() > LISTED_MAX {
        lines.push(format!("and {} more", unfit.len() - LISTED_MAX));
    }
    Err(Problem::new(Exit::Failed, what, lines.join("\n"))
        .at(place)
        .advise("rename or move away what is named; nothing was registered"))
}

fn parts(found: Vec<LooseFile>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for file in found {
        match parts.last_mut() {
            Some(part) if part.len() < PART_FILES && file.path.len() <= room => {
                room -= file.path.len();
                part.push(file.path);
            }
            _ => {
                room = PART_BYTES.saturating_sub(file.path.len());
                parts.push(vec![file.path]);
            }
        }
    }
    parts
}

async fn register_part(session: &Session, server: &ServerId, part: Vec<String>) -> Result<Vec<File>> {
    let (first, count) = (out::escaped(&part[0]), part.len());
    let file = |path| NewFile { path, source: Some(Source::InPlace(InPlace {})), ..NewFile::default() };
    let files = part.into_iter().map(file).collect();
    let request = RegisterFilesRequest { files, request_id: SystemEntropy.uuid().to_string() };
    let answer = connect::change(|| {
        let mut files = session.files();
        let request = connect::addressed(request.clone(), server);
        async move { files.register_files(request).await }
    });
    let what = match count {
        1 => format!("could not register {first} in place"),
        _ => format!("could not register {count} files from {first} on in place; none of them was"),
    };
    let answer =
        answer.await.map_err(|failure| Problem::call(what, session.place(Some(server)), &failure))?;
    Ok(answer.files)
}

fn dry(format: Format, found: &[LooseFile], server: &ServerId) -> Result<()> {
    if format == Format::Json {
        return out::json(&shape::LooseFiles { loose_files: found.iter().map(shape::Loose::of).collect() });
    }
    for file in found {
        out::text(&format!("{}  {}", out::escaped(&file.path), out::bytes(file.size_bytes)))?;
    }
    let count = out::count(found.len() as i64, "file");
    let bytes = found.iter().map(|file| file.size_bytes).sum();
    out::text(&format!("{count} would be registered in place on {server}, {}", out::bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_in_files_and_bytes() {
        let file = |path: String| LooseFile { path, ..LooseFile::default() };
        let short: Vec<LooseFile> = (0..2_500).map(|n| file(format!("f{n}"))).collect();
        assert_eq!(parts(short).iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        let long: Vec<LooseFile> = (0..600).map(|n| file(format!("{n}{}", "x".repeat(4_000)))).collect();
        assert!(parts(long).iter().all(|part| part.iter().map(String::len).sum::<usize>() <= PART_BYTES));
    }
}
