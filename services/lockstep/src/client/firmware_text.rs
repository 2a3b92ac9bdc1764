//! Firmware updates as text. Pure.

use lockstep_proto::{
    catalog::v1::{Firmware, Offer, SourceAnswer, firmware::State, firmware::UseState},
    gateway::v1::{FirmwareCell, FirmwareRow},
    shared::v1::Failure,
};

use super::shape;
use crate::out;

/// Characters of an id that a table shows; enough to name one of many.
const ID_SHOWN: usize = 8;
/// Malformed entries of a source that are told one by one.
const MALFORMED_SHOWN: usize = 5;

fn short(id: &str) -> String {
    id.chars().take(ID_SHOWN).collect()
}

/// An update in a few words.
pub(crate) fn title(update: &Firmware) -> String {
    format!(
        "{} {} ({})",
        out::escaped(&update.model),
        out::escaped(&update.version),
        short(&update.firmware_id)
    )
}

/// What went wrong with a source, one a line.
pub(crate) fn troubles(answer: &SourceAnswer) -> Vec<String> {
    let source = out::escaped(&answer.source_id);
    let mut lines = Vec::new();
    if let Some(failure) = &answer.failure {
        lines.push(format!("source {source}: {}", told(failure)));
    }
    let named = answer.malformed.iter().take(MALFORMED_SHOWN);
    lines.extend(named.map(|failure| {
        format!(
            "source {source}: an entry is left out: {} ({})",
            out::escaped(&failure.message),
            failure.reason
        )
    }));
    let more = answer.malformed_count - i64::try_from(lines.len()).unwrap_or(0);
    if answer.failure.is_none() && more > 0 {
        lines.push(format!(
            "source {source}: {} more left out; --output json tells up to 100",
            out::count(more, "entry")
        ));
    }
    lines
}

fn told(failure: &Failure) -> String {
    format!("{} ({}); {}", out::escaped(&failure.message), failure.reason, out::escaped(&failure.advice))
}

/// What is offered.
pub(crate) fn offers(offers: &[Offer]) -> String {
    let row = |offer: &Offer| {
        vec![
            out::escaped(&offer.source_id),
            out::escaped(&offer.offer_id),
            out::escaped(&offer.model),
            out::escaped(&offer.version),
            out::bytes(offer.total_bytes),
            offer.file_count.to_string(),
            shape::firmware_state(offer.state),
            out::escaped(offer.release_notes.lines().next().unwrap_or_default()),
        ]
    };
    let header = ["SOURCE", "OFFER", "MODEL", "VERSION", "SIZE", "FILES", "STATE", "NOTES"];
    out::table(&header, offers.iter().map(row).collect(), &[4, 5], &[7])
}

/// The updates that are here.
pub(crate) fn list(updates: &[Firmware]) -> String {
    let row = |update: &Firmware| {
        vec![
            short(&update.firmware_id),
            out::escaped(&update.model),
            out::escaped(&update.version),
            shape::firmware_state(update.state),
            progress(update),
            update.server_id.clone(),
            target(update),
            shape::protocol_name(update.protocol),
            update.revision.to_string(),
        ]
    };
    let header = ["ID", "MODEL", "VERSION", "STATE", "SIZE", "SERVER", "TARGET", "PROTOCOL", "REVISION"];
    out::table(&header, updates.iter().map(row).collect(), &[4, 8], &[6])
}

fn target(update: &Firmware) -> String {
    if update.target_path.is_empty() { "/".to_owned() } else { out::escaped(&update.target_path) }
}

fn is_under_way(update: &Firmware) -> bool {
    matches!(update.state(), State::Downloading | State::Verifying)
}

fn progress(update: &Firmware) -> String {
    let total = out::bytes(update.total_bytes);
    match is_under_way(update) {
        true => format!("{} of {total}", out::bytes(update.downloaded_bytes)),
        false => total,
    }
}

/// How far a download is, in one line.
pub(crate) fn line(update: &Firmware) -> String {
    let state = shape::firmware_state(update.state);
    let mut text = format!("{}: {state}", title(update));
    if is_under_way(update) {
        let left = update.time_left.map(|left| format!(", {} left", out::duration(shape::span(left))));
        text = format!(
            "{text} {} {}, {}/s{}",
            out::bar(update.downloaded_bytes, update.total_bytes),
            progress(update),
            out::bytes(update.bytes_per_second),
            left.unwrap_or_default()
        );
    }
    match &update.failure {
        Some(failure) => format!("{text}; {}", told(failure)),
        None => text,
    }
}

/// Everything about one update.
pub(crate) fn page(update: &Firmware) -> String {
    let mut lines = vec![line(update), String::new()];
    let mut add = |label: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{label:<12} {value}"));
        }
    };
    add("id", update.firmware_id.clone());
    add("revision", update.revision.to_string());
    add("protocol", shape::protocol_name(update.protocol));
    if update.host.is_empty() {
        add(
            "host, port",
            "resolved for each device: `lockstep resolve --firmware ID --server S --device D`".to_owned(),
        );
    } else {
        let port = update.port.map_or_else(|| "that of the protocol".to_owned(), |port| port.to_string());
        add("host", out::escaped(&update.host));
        add("port", port);
        add("path", out::escaped(&update.path));
    }
    add("user", out::escaped(&update.user));
    let password = update.password_state() == lockstep_proto::catalog::v1::firmware::PasswordState::Set;
    add("password", if password { "set".to_owned() } else { String::new() });
    add("server", update.server_id.clone());
    add("target", target(update));
    add("in use", if update.use_state() == UseState::InUse { "yes".to_owned() } else { "no".to_owned() });
    let copied = update
        .not_copied
        .as_ref()
        .map_or_else(|| "to every server".to_owned(), |why| format!("no: {}", told(why)));
    add("copied", copied);
    add(
        "from",
        match update.source_id.as_str() {
            "" => "an import".to_owned(),
            source => format!("{}, offer {}", out::escaped(source), out::escaped(&update.offer_id)),
        },
    );
    add("notes", out::escaped_lines(&update.release_notes, "             "));
    if !update.files.is_empty() {
        let row = |file: &lockstep_proto::catalog::v1::FirmwareFile| {
            vec![
                out::escaped(&file.path),
                out::bytes(file.size_bytes),
                file.sha256.chars().take(12).collect(),
            ]
        };
        lines.push(String::new());
        lines.push(out::table(
            &["PATH", "SIZE", "SHA-256"],
            update.files.iter().map(row).collect(),
            &[1],
            &[0],
        ));
    }
    lines.join("\n")
}

/// Which servers hold every file of each update, and what the others lack.
pub(crate) fn rows(rows: &[FirmwareRow]) -> String {
    let texts: Vec<String> = rows.iter().map(row).collect();
    texts.join("\n\n")
}

fn row(row: &FirmwareRow) -> String {
    let name =
        format!("{} {} ({})", out::escaped(&row.model), out::escaped(&row.version), short(&row.firmware_id));
    if row.cells.is_empty() {
        return format!("{name}: not published yet");
    }
    let holders = match row.complete_server_ids.as_slice() {
        [] => "no server holds every file".to_owned(),
        holders => format!("complete on {}", holders.join(", ")),
    };
    let cells = row.cells.iter().map(|cell| {
        let far = format!("{} of {}", cell.verified_count, out::count(row.file_count, "file"));
        vec![cell.server_id.clone(), shape::cell_state_of(cell.state), far, why(cell)]
    });
    let table = out::table(&["SERVER", "STATE", "VERIFIED", "WHY"], cells.collect(), &[], &[]);
    format!("{name}: {holders}\n{table}")
}

fn why(cell: &FirmwareCell) -> String {
    let left = cell.time_left.map(|left| format!("{} left", out::duration(shape::span(left))));
    let failure = cell
        .failure
        .as_ref()
        .map(|failure| format!("{}: {}", failure.reason, out::escaped(&failure.message)));
    failure.or(left).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R42, R11: a server is named only if every file is verified there; the others say why not.
    #[test]
    fn the_status_of_an_update_names_who_holds_all_of_it() {
        use lockstep_proto::gateway::v1::cell::State as CellState;
        let cell = |id: &str, state: CellState, verified_count, reason: &str| FirmwareCell {
            server_id: id.to_owned(),
            state: state.into(),
            verified_count,
            failure: (!reason.is_empty()).then(|| Failure {
                reason: reason.to_owned(),
                message: "because".to_owned(),
                ..Failure::default()
            }),
            ..FirmwareCell::default()
        };
        let told = FirmwareRow {
            firmware_id: "0c5b1234-0000".to_owned(),
            model: "UD3".to_owned(),
            version: "12".to_owned(),
            file_count: 2,
            total_bytes: 7,
            cells: vec![
                cell("s1", CellState::InSync, 2, ""),
                cell("s2", CellState::Copying, 1, ""),
                cell("s3", CellState::NotEligible, 0, "OPTION_OFF"),
            ],
            complete_server_ids: vec!["s1".to_owned()],
        };
        let expected = "UD3 12 (0c5b1234): complete on s1\n SERVER  STATE         VERIFIED      WHY\n s1      IN_SYNC       2 of 2 files\n s2      COPYING       1 of 2 files\n s3      NOT_ELIGIBLE  0 of 2 files  OPTION_OFF: because";
        assert_eq!(rows(&[told]), expected);
        let early = FirmwareRow { firmware_id: "x".to_owned(), ..FirmwareRow::default() };
        assert!(rows(&[early]).ends_with(": not published yet"));
    }

    /// R58: how far, how fast and how long.
    #[test]
    fn a_download_says_how_far_it_is() {
        let update = Firmware {
            firmware_id: "0c5b1234-0000".to_owned(),
            model: "UD3".to_owned(),
            version: "12".to_owned(),
            state: State::Downloading.into(),
            total_bytes: 1 << 30,
            downloaded_bytes: 1 << 29,
            bytes_per_second: 1 << 20,
            time_left: Some(prost_types::Duration { seconds: 512, nanos: 0 }),
            ..Firmware::default()
        };
        let expected = "UD3 12 (0c5b1234): DOWNLOADING [############------------]  50 % 512.0 MiB of 1.0 GiB, 1.0 MiB/s, 8 min 32 s left";
        assert_eq!(line(&update), expected);
    }
}
