//! What is known of something that nobody holds yet (R51).

use std::{fmt, time::Duration};

use lockstep_model::{Metadata, Reason, ServerId};
use lockstep_replicas::domain::{
    Moment,
    cause::Cause,
    cell::{CellState, cell},
    records::Records,
    server::Server,
};

use crate::domain::{
    holders::{Known, holds_file},
    update::Update,
    view::View,
};

/// The most servers that a text names.
const SERVERS_NAMED_MAX: usize = 5;

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// For a person.
    pub text: String,
    /// The servers that copy it now, the furthest first, a few at most.
    pub copying: Vec<String>,
    /// Bytes that the furthest server holds or has copied.
    pub copied_bytes: u64,
    /// Bytes in all, as far as they are registered.
    pub total_bytes: u64,
    /// How long the furthest server still takes; `None` while nobody can tell.
    pub time_left: Option<Duration>,
}

/// How far one server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    is_copying: bool,
    copied_bytes: u64,
    time_left: Option<Duration>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.total_bytes > 0 {
            write!(f, "; the furthest has {} of {} bytes", self.copied_bytes, self.total_bytes)?;
        }
        if !self.copying.is_empty() {
            write!(f, "; copying now: {}", self.copying.join(","))?;
        }
        self.time_left.map_or(Ok(()), |left| write!(f, "; about {} s left", left.as_secs()))
    }
}

impl Progress {
    /// What the text shows, for programs.
    pub fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        if self.total_bytes > 0 {
            metadata.push(("copied_bytes", self.copied_bytes.to_string()));
            metadata.push(("total_bytes", self.total_bytes.to_string()));
        }
        if !self.copying.is_empty() {
            metadata.push(("copying_server_ids", self.copying.join(",")));
        }
        metadata.extend(self.time_left.map(|left| ("time_left_seconds", left.as_secs().to_string())));
        metadata
    }

    /// Of an update whose files are not registered yet.
    pub fn unpublished(update: &Update) -> Self {
        Self { text: update.why_unpublished(), ..Self::default() }
    }

    /// Of something that a person has to complete.
    pub fn incomplete(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Of files that no server holds all of.
    pub fn of(view: &View, records: &Records, paths: &[&str], now: Moment) -> Self {
        let sizes = paths.iter().filter_map(|path| records.file(path)).map(|file| file.size_bytes);
        let mut shares: Vec<(&ServerId, &Server, Share)> = view
            .members()
            .filter_map(|(_, member)| Some((&member.id, view.server(&member.id)?)))
            .map(|(id, server)| (id, server, share((id, server), records, paths, now)))
            .collect();
        // The furthest first; of those that are alike, the order of their names, so that a text does not flicker.
        shares.sort_by(|(a_id, _, a), (b_id, _, b)| {
            (b.is_copying, b.copied_bytes).cmp(&(a.is_copying, a.copied_bytes)).then_with(|| a_id.cmp(b_id))
        });
        let mut texts: Vec<String> = shares
            .iter()
            .take(SERVERS_NAMED_MAX)
            .map(|(id, server, _)| format!("{id} {}", lacking((id, server), records, paths, now).0))
            .collect();
        if shares.len() > SERVERS_NAMED_MAX {
            texts.push(format!("and {} more servers without it", shares.len() - SERVERS_NAMED_MAX));
        }
        let text = match texts.is_empty() {
            true => "there is no server".to_owned(),
            false => format!("no server holds all of it: {}", texts.join("; ")),
        };
        let copying = shares.iter().filter(|(.., share)| share.is_copying).take(SERVERS_NAMED_MAX);
        let furthest = shares.first().map(|(.., share)| *share).unwrap_or_default();
        Self {
            text,
            copying: copying.map(|(id, ..)| id.to_string()).collect(),
            copied_bytes: furthest.copied_bytes,
            total_bytes: sizes.sum(),
            time_left: furthest.time_left,
        }
    }
}

fn share(known: Known<'_>, records: &Records, paths: &[&str], now: Moment) -> Share {
    let (_, server) = known;
    let mut share = Share::default();
    let Some(report) = server.report.as_ref().filter(|_| server.reachable()) else { return share };
    for path in paths {
        let Some(file) = records.file(path) else { continue };
        if holds_file(known, records, path) {
            share.copied_bytes += file.size_bytes;
        } else if let Some(transfer) = report.summary.transfers.get(*path) {
            share.is_copying = true;
            share.copied_bytes += transfer.copied_bytes;
            share.time_left = share.time_left.max(report.copying(path, transfer, now).time_left);
        }
    }
    share
}

/// Why a server cannot be offered: a sentence without its subject, and the cause.
pub fn lacking(known: Known<'_>, records: &Records, paths: &[&str], now: Moment) -> (String, Cause) {
    let (id, server) = known;
    let whole = |what: &str, cause: &Cause| (format!("{what}: {}", cause.message), cause.clone());
    if let Some(cause) = &server.excluded {
        return whole("is not eligible", cause);
    }
    let Some(report) = server.report.as_ref().filter(|_| server.reachable()) else {
        return whole("cannot be reached", &server.silence);
    };
    if let Some(cause) = report.unverifiable() {
        return whole("has copies that cannot be verified", cause);
    }
    let held = paths.iter().filter(|path| holds_file(known, records, path)).count();
    let missing = paths.iter().find(|path| !holds_file(known, records, path));
    let of = match paths.len() {
        1 => String::new(),
        all => format!("holds {held} of {all} files, and "),
    };
    let not_yet = |text: &str| Cause::new(Reason::NotAvailableYet, text);
    let Some(path) = missing else {
        return ("holds nothing of it".to_owned(), not_yet("the server holds nothing of it"));
    };
    let Some(file) = records.file(path) else {
        return (format!("{of}cannot hold {path}, which is not registered"), not_yet("it is not registered"));
    };
    let cell = cell(server, file.asked(path, id), now);
    let size = file.size_bytes;
    let text = match (cell.state, &cell.cause) {
        (CellState::Copying, _) => {
            let left = cell.copying.and_then(|copying| copying.time_left);
            let left = left.map_or_else(String::new, |left| format!(", {} s left", left.as_secs()));
            format!("is copying {path}, {} of {size} bytes{left}", cell.copied_bytes)
        }
        (CellState::Failed, Some(cause)) if cause.is(Reason::Drifted) => {
            format!("has other bytes than those registered at {path}: {}", cause.message)
        }
        (CellState::Failed, Some(cause)) => format!("could not copy {path}: {}", cause.message),
        (CellState::NotEligible, Some(cause)) => format!("is not meant to have {path}: {}", cause.message),
        _ => format!("does not have {path} yet"),
    };
    let cause = cell.cause.unwrap_or_else(|| not_yet(&format!("the server {text}")));
    (format!("{of}{text}"), cause)
}
