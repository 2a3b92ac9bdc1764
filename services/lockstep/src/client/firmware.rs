//! `lockstep firmware`: what is offered, what is here, how devices get it, and who holds it.

use lockstep_model::{
    Reason,
    clock::{Entropy as _, SystemEntropy},
    firmware::Protocol,
};
use lockstep_proto::{
    catalog::v1::{
        self as catalog, CancelDownloadRequest, DeleteFirmwareRequest, DeleteUnusedFirmwareRequest, Firmware,
        GetFirmwareRequest, ListFirmwareRequest, ListOffersRequest, Offer, RefreshOffersRequest,
        RestoreDownloadRequest, SourceAnswer, UpdateFirmwareRequest, firmware::UseState,
    },
    gateway::v1::{FirmwareRow, ListFirmwareRowsRequest},
};

use super::{
    connect::{self, Session},
    firmware_text as text, shape,
};
use crate::{
    cli::{
        Format, PortWord, Seen,
        firmware::{CheckArgs, FirmwareCommand, RemoveFirmwareArgs, SetArgs, YesNo},
    },
    out,
    problem::{Exit, Problem, Result},
};

/// Entries in a page.
const PAGE_SIZE: i32 = 500;
/// The most offers or updates that are read.
const READ_MAX: usize = 20_000;

/// Runs one of the commands.
pub(crate) async fn run(session: &Session, format: Format, command: FirmwareCommand) -> Result<()> {
    match command {
        FirmwareCommand::Check(args) => check(session, format, args).await,
        FirmwareCommand::Download(args) => super::firmware_download::download(session, format, args).await,
        FirmwareCommand::Import(args) => super::firmware_download::import(session, format, args).await,
        FirmwareCommand::Ls => {
            let all = list(session, "could not list the updates").await?;
            match format {
                Format::Json => print_all(&all),
                Format::Text if all.is_empty() => {
                    out::text("no updates: `lockstep firmware check` lists what is offered")
                }
                Format::Text => out::text(&text::list(&all)),
            }
        }
        FirmwareCommand::Show(args) => {
            let update = find(session, &args.id, "could not read the update").await?;
            print(format, &update, &text::page(&update))
        }
        FirmwareCommand::Set(args) => set(session, format, *args).await,
        FirmwareCommand::Rm(args) if args.unused => remove_unused(session, format, args.dry_run).await,
        FirmwareCommand::Rm(args) => remove(session, format, args).await,
        FirmwareCommand::Status(args) => status(session, format, args.id).await,
        FirmwareCommand::Cancel(args) => cancel(session, format, &args.id).await,
        FirmwareCommand::Retry(args) => retry(session, format, &args.id).await,
    }
}

pub(super) fn print(format: Format, update: &Firmware, text: &str) -> Result<()> {
    match format {
        Format::Json => out::json(&shape::Firmware::of(update)),
        Format::Text => out::page(text),
    }
}

pub(super) fn print_all(updates: &[Firmware]) -> Result<()> {
    out::json(&shape::Updates { firmware: updates.iter().map(shape::Firmware::of).collect() })
}

pub(super) fn request_id() -> String {
    SystemEntropy.uuid().to_string()
}

/// A protocol on the wire.
pub(super) fn protocol(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::HttpsWebdav => catalog::Protocol::HttpsWebdav,
        Protocol::HttpWebdav => catalog::Protocol::HttpWebdav,
        Protocol::Http => catalog::Protocol::Http,
        Protocol::Https => catalog::Protocol::Https,
        Protocol::Ftp => catalog::Protocol::Ftp,
        Protocol::Ftps => catalog::Protocol::Ftps,
        Protocol::Sftp => catalog::Protocol::Sftp,
        Protocol::File => catalog::Protocol::File,
    }
    .into()
}

async fn list(session: &Session, what: &str) -> Result<Vec<Firmware>> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let mut client = session.firmware();
        let page =
            connect::read(client.list_firmware(ListFirmwareRequest { page_size: PAGE_SIZE, page_token }))
                .await;
        let page = page.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
        all.extend(page.firmware);
        page_token = page.next_page_token;
        if page_token.is_empty() || all.len() >= READ_MAX {
            return Ok(all);
        }
    }
}

/// The update with this id, or the only one whose id begins so.
pub(super) async fn find(session: &Session, id: &str, what: &str) -> Result<Firmware> {
    if id.len() == 36 {
        let mut client = session.firmware();
        let answer =
            connect::read(client.get_firmware(GetFirmwareRequest { firmware_id: id.to_owned() })).await;
        let answer = answer.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
        return Ok(answer.firmware.unwrap_or_default());
    }
    let mut found = list(session, what).await?;
    found.retain(|update| !id.is_empty() && update.firmware_id.starts_with(id));
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(Problem::rule(what, &Ambiguous { id: id.to_owned(), count }).at(session.gateway())),
    }
}

/// The beginning of an id that belongs to none, or to more than one.
#[derive(Debug, thiserror::Error)]
#[error("{} begins with {id}", if *.count == 0 { "the id of no update".to_owned() } else { format!("the id of each of {} updates", .count) })]
struct Ambiguous {
    id: String,
    count: usize,
}

impl lockstep_model::Fault for Ambiguous {
    fn reason(&self) -> Reason {
        Reason::FirmwareNotFound
    }
}

/// Asks the sources what they offer, and lists it.
async fn check(session: &Session, format: Format, args: CheckArgs) -> Result<()> {
    let what = "could not check for new firmware updates";
    let refresh = RefreshOffersRequest { source_id: args.source.clone(), request_id: request_id() };
    let answer = connect::change(|| {
        let (mut client, request) = (session.firmware(), refresh.clone());
        async move { client.refresh_offers(request).await }
    });
    let answers = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?.answers;
    let offers = match answers.iter().any(|answer| answer.offer_count > 0) {
        true => offers(session, &args, what).await?,
        false => Vec::new(),
    };
    if format == Format::Json {
        return out::json(&shape::Offers {
            answers: answers.iter().map(shape::Answer::of).collect(),
            offers: offers.iter().map(shape::Offer::of).collect(),
        });
    }
    for line in answers.iter().flat_map(text::troubles) {
        out::note(&line);
    }
    match (answers.is_empty(), offers.is_empty()) {
        (true, _) => out::text(
            "no sources: name a file of sources with --sources of lockstep catalog, or of lockstep up",
        ),
        (_, true) => all_failed(&answers, session, what),
        _ => out::text(&text::offers(&offers)),
    }
}

/// Nothing is offered: a failure only if no source answered.
fn all_failed(answers: &[SourceAnswer], session: &Session, what: &str) -> Result<()> {
    let Some(failure) = answers.iter().find_map(|answer| answer.failure.as_ref()) else {
        return out::text("nothing is offered");
    };
    if answers.iter().any(|answer| answer.failure.is_none()) {
        return out::text("nothing is offered by the sources that answered");
    }
    Err(Problem::new(Exit::Failed, what, &failure.message).at(session.gateway()).advise(&failure.advice))
}

async fn offers(session: &Session, args: &CheckArgs, what: &str) -> Result<Vec<Offer>> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListOffersRequest {
            source_id: args.source.clone(),
            model: args.model.clone(),
            page_size: PAGE_SIZE,
            page_token,
        };
        let mut client = session.firmware();
        let page = connect::read(client.list_offers(request)).await;
        let page = page.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
        all.extend(page.offers);
        page_token = page.next_page_token;
        if page_token.is_empty() || all.len() >= READ_MAX {
            return Ok(all);
        }
    }
}

/// Changes what is named.
async fn set(session: &Session, format: Format, args: SetArgs) -> Result<()> {
    let what = format!("could not change the update {}", out::escaped(&args.id));
    let known = find(session, &args.id, &what).await?;
    let expected_revision = revision(args.revision, &known);
    let mut firmware = Firmware { firmware_id: known.firmware_id, ..Firmware::default() };
    let (mut paths, mut password) = (Vec::new(), String::new());
    let mut name = |field: &str| paths.push(field.to_owned());
    if let Some(chosen) = args.protocol {
        firmware.protocol = protocol(chosen);
        name("protocol");
    }
    for (field, given, place) in [
        ("host", args.host, &mut firmware.host),
        ("path", args.path, &mut firmware.path),
        ("user", args.user, &mut firmware.user),
        ("target_path", args.target, &mut firmware.target_path),
    ] {
        if let Some(given) = given {
            *place = given;
            name(field);
        }
    }
    if let Some(PortWord(port)) = args.port {
        firmware.port = port;
        name("port");
    }
    if let Some(file) = args.password_file {
        let read = std::fs::read_to_string(&file);
        let read =
            read.map_err(|error| Problem::io("could not read the password", file.display(), &error))?;
        read.trim_end_matches(['\r', '\n']).clone_into(&mut password);
        name("password");
    }
    if let Some(in_use) = args.in_use {
        firmware.use_state = match in_use {
            YesNo::Yes => UseState::InUse.into(),
            YesNo::No => UseState::Unused.into(),
        };
        name("use_state");
    }
    if paths.is_empty() {
        return Err(Problem::new(Exit::Usage, what, "nothing is named that should change")
            .advise("see lockstep firmware set --help"));
    }
    let request = UpdateFirmwareRequest {
        firmware: Some(firmware),
        update_mask: Some(prost_types::FieldMask { paths }),
        password,
        expected_revision,
        request_id: request_id(),
    };
    let answer = connect::change(|| {
        let (mut client, request) = (session.firmware(), request.clone());
        async move { Box::pin(client.update_firmware(request)).await }
    });
    let answer = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    let update = answer.firmware.unwrap_or_default();
    print(format, &update, &text::page(&update))
}

fn revision(seen: Seen, known: &Firmware) -> i64 {
    match seen {
        Seen::At(revision) => revision,
        Seen::Current => known.revision,
    }
}

async fn remove(session: &Session, format: Format, args: RemoveFirmwareArgs) -> Result<()> {
    let id = args.id.unwrap_or_default();
    let what = format!("could not delete the update {}", out::escaped(&id));
    let known = find(session, &id, &what).await?;
    let request = DeleteFirmwareRequest {
        expected_revision: revision(args.revision.unwrap_or(Seen::Current), &known),
        firmware_id: known.firmware_id,
        request_id: request_id(),
    };
    let answer = connect::change(|| {
        let (mut client, request) = (session.firmware(), request.clone());
        async move { client.delete_firmware(request).await }
    });
    let answer = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    let update = answer.firmware.unwrap_or_default();
    let files = out::count(i64::try_from(update.files.len()).unwrap_or(i64::MAX), "file");
    print(format, &update, &format!("deleted {} with its {files}, on every server", text::title(&update)))
}

async fn remove_unused(session: &Session, format: Format, dry_run: bool) -> Result<()> {
    let what = "could not delete the unused updates";
    let look = DeleteUnusedFirmwareRequest { dry_run: true, ..DeleteUnusedFirmwareRequest::default() };
    let mut client = session.firmware();
    let found = connect::read(client.delete_unused_firmware(look)).await;
    let mut found = found.map_err(|failure| Problem::call(what, session.gateway(), &failure))?.firmware;
    if !dry_run && !found.is_empty() {
        let request = DeleteUnusedFirmwareRequest {
            dry_run: false,
            expected_count: i64::try_from(found.len()).unwrap_or(i64::MAX),
            request_id: request_id(),
        };
        let answer = connect::change(|| {
            let (mut client, request) = (session.firmware(), request.clone());
            async move { client.delete_unused_firmware(request).await }
        });
        found = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?.firmware;
    }
    let word = if dry_run { "would delete" } else { "deleted" };
    match format {
        Format::Json => print_all(&found),
        Format::Text if found.is_empty() => out::text("no update from a feed is unused"),
        Format::Text => out::text(&format!("{word}\n{}", text::list(&found))),
    }
}

/// Ends a download.
async fn cancel(session: &Session, format: Format, id: &str) -> Result<()> {
    let what = format!("could not cancel the download of {}", out::escaped(id));
    let known = find(session, id, &what).await?;
    let request = CancelDownloadRequest { firmware_id: known.firmware_id, request_id: request_id() };
    let answer = connect::change(|| {
        let (mut client, request) = (session.firmware(), request.clone());
        async move { client.cancel_download(request).await }
    });
    let answer = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    let update = answer.firmware.unwrap_or_default();
    print(format, &update, &format!("cancelled {}; nothing of it was registered", text::title(&update)))
}

async fn retry(session: &Session, format: Format, id: &str) -> Result<()> {
    let what = format!("could not try the download of {} again", out::escaped(id));
    let known = find(session, id, &what).await?;
    let request = RestoreDownloadRequest { firmware_id: known.firmware_id, request_id: request_id() };
    let answer = connect::change(|| {
        let (mut client, request) = (session.firmware(), request.clone());
        async move { client.restore_download(request).await }
    });
    let answer = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    let update = answer.firmware.unwrap_or_default();
    print(format, &update, &text::page(&update))
}

/// Which servers hold every file of each update.
async fn status(session: &Session, format: Format, id: Option<String>) -> Result<()> {
    let what = "could not read the synchronization status of the updates";
    let firmware_id = match id {
        Some(id) => find(session, &id, what).await?.firmware_id,
        None => String::new(),
    };
    let (mut rows, mut page_token, mut registry_revision) = (Vec::<FirmwareRow>::new(), String::new(), 0);
    loop {
        let request =
            ListFirmwareRowsRequest { firmware_id: firmware_id.clone(), page_size: PAGE_SIZE, page_token };
        let mut client = session.matrix();
        let page = connect::read(client.list_firmware_rows(request)).await;
        let page = page.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
        rows.extend(page.rows);
        registry_revision = page.position.map_or(registry_revision, |position| position.revision);
        page_token = page.next_page_token;
        if page_token.is_empty() || rows.len() >= READ_MAX {
            break;
        }
    }
    match format {
        Format::Json => out::json(&shape::FirmwareRows {
            firmware: rows.iter().map(shape::FirmwareRow::of).collect(),
            registry_revision,
        }),
        Format::Text if rows.is_empty() => out::text("no updates"),
        Format::Text => out::page(&text::rows(&rows)),
    }
}
