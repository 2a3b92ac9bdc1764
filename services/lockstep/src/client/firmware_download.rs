//! `lockstep firmware download` and `import`.

use std::{fs::File, io::Read as _, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use lockstep_chassis::status;
use lockstep_proto::catalog::v1::{
    Firmware, FirmwareChunk, FirmwareHeader, GetFirmwareRequest, StartDownloadRequest, WriteFirmwareRequest,
    firmware::State, write_firmware_request::Part,
};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    connect::{self, Session},
    firmware::{print, print_all, protocol, request_id},
    firmware_text as text,
    progress::Progress,
};
use crate::{
    cli::{
        Format,
        firmware::{DownloadArgs, ImportArgs},
    },
    out::{self, Live},
    problem::{Exit, Problem, Result},
};

/// Bytes in a chunk of an archive.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks between the disk and the connection.
const CHUNKS_AHEAD: usize = 4;
/// How often a download is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts downloads, and follows them if told so.
pub(crate) async fn download(session: &Session, format: Format, args: DownloadArgs) -> Result<()> {
    let what = "could not start the download";
    let server = session.server_for_change(args.target.server.as_deref(), what).await?;
    let mut started = Vec::with_capacity(args.offers.len());
    for offer_id in &args.offers {
        let what = format!("could not start the download of {}", out::escaped(offer_id));
        let request = StartDownloadRequest {
            source_id: args.source.clone(),
            offer_id: offer_id.clone(),
            server_id: server.to_string(),
            target_path: args.target.target.clone(),
            protocol: protocol(args.target.protocol),
            request_id: request_id(),
        };
        let answer = connect::change(|| {
            let (mut client, request) = (session.firmware(), request.clone());
            async move { client.start_download(request).await }
        });
        let answer = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
        let update = answer.firmware.unwrap_or_default();
        if format == Format::Text && !args.wait {
            out::text(&text::line(&update))?;
            out::note(&format!("follow it with `lockstep firmware show {}`", update.firmware_id));
        }
        started.push(update);
    }
    if args.wait {
        follow(session, format, &mut started, args.timeout).await?;
    }
    match format {
        Format::Json => print_all(&started),
        Format::Text => Ok(()),
    }
}

/// Shows downloads until all of them are published; ends early if one failed.
async fn follow(session: &Session, format: Format, updates: &mut [Firmware], limit: Duration) -> Result<()> {
    let what = "could not follow the download";
    let (mut live, deadline) = (Live::new(format), Instant::now() + limit);
    loop {
        for update in updates.iter_mut().filter(|update| update.state() != State::Published) {
            let request = GetFirmwareRequest { firmware_id: update.firmware_id.clone() };
            let mut client = session.firmware();
            match connect::read(client.get_firmware(request)).await {
                Ok(answer) => *update = answer.firmware.unwrap_or_default(),
                // It goes on without whoever watches it.
                Err(failure) if connect::is_passing(&failure) => {}
                Err(failure) => return Err(Problem::call(what, session.gateway(), &failure)),
            }
        }
        if format == Format::Text {
            let lines: Vec<String> = updates.iter().map(text::line).collect();
            let states: Vec<i32> = updates.iter().map(|update| update.state).collect();
            match live.is_in_place() {
                true => live.draw(&lines.join("\n"))?,
                false if live.is_new(&format!("{states:?}")) => out::text(&lines.join("\n"))?,
                false => {}
            }
        }
        if updates.iter().all(|update| update.state() == State::Published) {
            return Ok(());
        }
        if let Some(failed) = updates.iter().find(|update| update.state() == State::Failed) {
            let failure = failed.failure.clone().unwrap_or_default();
            return Err(Problem::new(
                Exit::Failed,
                format!("could not download {}", text::title(failed)),
                failure.message,
            )
            .at(session.gateway())
            .advise(failure.advice));
        }
        if Instant::now() >= deadline {
            let why = format!("it is not published after {}", out::duration(limit));
            return Err(Problem::new(Exit::NotInSync, "the download is not done", why)
                .advise("it goes on by itself: `lockstep firmware ls`"));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Streams an archive in.
pub(crate) async fn import(session: &Session, format: Format, args: ImportArgs) -> Result<()> {
    let what = format!("could not import {}", args.archive.display());
    let server = session.server_for_change(args.target.server.as_deref(), &what).await?;
    let unreadable = |error: &std::io::Error| Problem::io(&what, args.archive.display(), error);
    let file = File::open(&args.archive).map_err(|error| unreadable(&error))?;
    let size = file.metadata().map_err(|error| unreadable(&error))?.len();
    let header = FirmwareHeader {
        model: args.model,
        version: args.firmware_version,
        server_id: server.to_string(),
        target_path: args.target.target,
        protocol: protocol(args.target.protocol),
        size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        request_id: request_id(),
    };
    let progress = Arc::new(Progress::new(size));
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let sent = Arc::clone(&progress);
    let reading = spawn_blocking(move || send(file, header, &sender, &sent));
    let answer = session.firmware().write_firmware(ReceiverStream::new(receiver)).await;
    // What the service says comes first: a reader whose stream was refused merely stops.
    let answer = answer.map_err(|status| Problem::call(&what, session.gateway(), &status::read(&status)))?;
    if let Ok(Err(error)) = reading.await {
        return Err(Problem::io(&what, Path::new("the archive").display(), &error));
    }
    progress.finish();
    let update = answer.into_inner().firmware.unwrap_or_default();
    print(format, &update, &text::page(&update))
}

/// Reads the archive from its beginning to its end, as fast as it is taken.
fn send(
    mut file: File,
    header: FirmwareHeader,
    parts: &mpsc::Sender<WriteFirmwareRequest>,
    progress: &Progress,
) -> std::io::Result<()> {
    let mut offset_bytes = 0_i64;
    let mut part = Some(Part::Header(header));
    while let Some(next) = part.take() {
        if parts.blocking_send(WriteFirmwareRequest { part: Some(next) }).is_err() {
            return Ok(());
        }
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let count = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
        if count > 0 {
            progress.add(count as u64);
            part = Some(Part::Chunk(FirmwareChunk { offset_bytes, data: Bytes::from(data) }));
            offset_bytes += i64::try_from(count).unwrap_or(i64::MAX);
        }
    }
    Ok(())
}
