//! `lockstep file mv` and `lockstep file rm -r`: what is registered already goes, or gets another path.

use lockstep_model::{
    Reason, ServerId,
    clock::{Entropy as _, SystemEntropy},
};
use lockstep_proto::filesync::v1::{
    DeleteDirectoryRequest, DirectorySummary, GetFileRequest, MoveDirectoryRequest, MoveFileRequest,
};

use super::{
    connect::{self, Session},
    files, shape,
};
use crate::{
    cli::{Format, MoveArgs, RemoveArgs, Seen},
    out,
    problem::{Problem, Result},
};

/// Moves a file, or a directory where there is no such file.
pub(crate) async fn relocate(session: &Session, format: Format, args: MoveArgs) -> Result<()> {
    let what = format!("could not move {}", args.path);
    let server = session.server_for_change(args.server.as_deref(), &what).await?;
    let request = GetFileRequest { path: args.path.clone() };
    let mut client = session.files();
    match connect::read(client.get_file(request)).await {
        Ok(_) => move_file(session, format, args, &server, &what).await,
        Err(failure) if failure.reason == Reason::FileNotFound => {
            move_directory(session, format, args, &server, &what).await
        }
        Err(failure) => Err(Problem::call(what, session.gateway(), &failure)),
    }
}

async fn move_file(
    session: &Session,
    format: Format,
    args: MoveArgs,
    server: &ServerId,
    what: &str,
) -> Result<()> {
    let file = files::read(session, &args.path, what).await?;
    if args.dry_run {
        let path = out::escaped(&file.path);
        return out::text(&format!("would move {path} of revision {}", file.revision));
    }
    let request = MoveFileRequest {
        path: args.path.clone(),
        new_path: args.new_path,
        expected_revision: seen(args.revision, file.revision),
        request_id: SystemEntropy.uuid().to_string(),
    };
    let answer = connect::change(|| {
        let mut client = session.files();
        let request = connect::addressed(request.clone(), server);
        async move { client.move_file(request).await }
    });
    let answer =
        answer.await.map_err(|failure| Problem::call(what, session.place(Some(server)), &failure))?;
    let file = answer.file.unwrap_or_default();
    if format == Format::Json {
        return out::json(&shape::File::of(&file));
    }
    let (from, to) = (out::escaped(&args.path), out::escaped(&file.path));
    out::text(&format!("moved {from} to {to}, at revision {}", file.revision))
}

async fn move_directory(
    session: &Session,
    format: Format,
    args: MoveArgs,
    server: &ServerId,
    what: &str,
) -> Result<()> {
    let mut request = MoveDirectoryRequest {
        path: args.path.clone(),
        new_path: args.new_path.clone(),
        dry_run: true,
        ..MoveDirectoryRequest::default()
    };
    let call = async |request: &MoveDirectoryRequest| {
        let answer = connect::change(|| {
            let mut client = session.files();
            let request = connect::addressed(request.clone(), server);
            async move { client.move_directory(request).await }
        });
        answer.await.map_err(|failure| Problem::call(what, session.place(Some(server)), &failure))
    };
    let there = call(&request).await?.directory.unwrap_or_default();
    if args.dry_run {
        return print(format, &there, None, "would move", &args.path);
    }
    request.dry_run = false;
    request.expected_file_count = there.file_count;
    request.expected_revision = seen(args.revision, there.latest_revision);
    request.request_id = SystemEntropy.uuid().to_string();
    let answer = call(&request).await?;
    let moved = answer.directory.unwrap_or_default();
    print(format, &moved, Some(answer.move_revision), "moved", &args.path)
}

/// Deletes all registered files below a directory.
pub(crate) async fn remove_directory(session: &Session, format: Format, args: RemoveArgs) -> Result<()> {
    let what = format!("could not delete {}", args.path);
    let server = session.server_for_change(args.server.as_deref(), &what).await?;
    let mut request = DeleteDirectoryRequest {
        path: args.path.clone(),
        dry_run: true,
        ..DeleteDirectoryRequest::default()
    };
    let call = async |request: &DeleteDirectoryRequest| {
        let answer = connect::change(|| {
            let mut client = session.files();
            let request = connect::addressed(request.clone(), &server);
            async move { client.delete_directory(request).await }
        });
        answer.await.map_err(|failure| Problem::call(&what, session.place(Some(&server)), &failure))
    };
    let there = call(&request).await?.directory.unwrap_or_default();
    if args.dry_run {
        print(format, &there, None, "would delete", &args.path)?;
        out::note(&format!(
            "to delete exactly these: --revision {} --files {}",
            there.latest_revision, there.file_count
        ));
        return Ok(());
    }
    request.dry_run = false;
    request.expected_file_count = args.files.unwrap_or(there.file_count);
    request.expected_revision = seen(args.revision.unwrap_or(Seen::Current), there.latest_revision);
    request.request_id = SystemEntropy.uuid().to_string();
    let answer = call(&request).await?;
    let deleted = answer.directory.unwrap_or_default();
    print(format, &deleted, Some(answer.delete_revision), "deleted", &args.path)
}

fn seen(named: Seen, current: i64) -> i64 {
    match named {
        Seen::At(revision) => revision,
        Seen::Current => current,
    }
}

fn print(
    format: Format,
    directory: &DirectorySummary,
    revision: Option<i64>,
    done: &str,
    path: &str,
) -> Result<()> {
    if format == Format::Json {
        return out::json(&shape::Directory::of(directory, revision));
    }
    let (count, bytes) = (out::count(directory.file_count, "file"), out::bytes(directory.total_bytes));
    let mut text = format!("{done} {count} below {}, {bytes}", out::escaped(path));
    match revision {
        Some(revision) => text.push_str(&format!(", at revision {revision}")),
        None => {
            for path in &directory.sample_paths {
                text.push_str(&format!("\n  {}", out::escaped(path)));
            }
            let more = directory.file_count - directory.sample_paths.len() as i64;
            if more > 0 {
                text.push_str(&format!("\n  and {more} more"));
            }
        }
    }
    out::text(&text)
}
