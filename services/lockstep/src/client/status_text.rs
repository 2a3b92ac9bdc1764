//! The status as one screen of text: totals, servers, what is wrong and what to do about it. Pure.

use std::time::Duration;

use lockstep_proto::{
    filesync::v1::Transfer,
    gateway::v1::{ServerSummary, server_summary::State},
    shared::v1::Failure,
};

use super::{shape, status::Status};
use crate::out;

/// The whole screen.
pub(crate) fn render(status: &Status) -> String {
    let mut text = vec![line(status)];
    if !status.servers.is_empty() {
        text.push(String::new());
        text.push(servers(&status.servers));
    }
    let wrong = wrong(status);
    if !wrong.is_empty() {
        text.push(String::new());
        text.push("What is not in sync, and what to do".to_owned());
        text.extend(wrong);
    }
    text.join("\n")
}

/// The totals in one line.
pub(crate) fn line(status: &Status) -> String {
    let servers = out::count(status.servers.len() as i64, "server");
    let files = out::count(status.file_count(), "file");
    let verdict = match (status.is_in_sync(), status.members().count()) {
        (_, 0) => "no server takes part".to_owned(),
        (true, 1) => "in sync; there is no other server to copy to".to_owned(),
        (true, _) => "in sync everywhere".to_owned(),
        (false, _) if status.missing_count() > 0 => {
            let missing = status.missing_count();
            let are = if missing == 1 { "copy is" } else { "copies are" };
            format!("{missing} {are} not known to be in sync")
        }
        (false, _) => "not in sync".to_owned(),
    };
    format!("{servers}, {files}, registry at revision {}: {verdict}", status.revision)
}

fn servers(servers: &[ServerSummary]) -> String {
    let row = |server: &ServerSummary| {
        let transfers = Running::of(&server.transfers);
        vec![
            server.server_id.clone(),
            shape::server_state(server),
            format!("{}/{}", server.in_sync_count, server.file_count),
            server.lag_count.to_string(),
            transfers.left_bytes(),
            transfers.rate(),
            transfers.time_left(),
            shape::clock_state(server),
            heard(server),
        ]
    };
    let header = ["SERVER", "STATE", "IN SYNC", "LAG", "TO GO", "RATE", "LEFT", "CLOCK", "HEARD"];
    out::table(&header, servers.iter().map(row).collect(), &[2, 3, 4, 5, 6])
}

/// The servers with their addresses.
pub(crate) fn addresses(servers: &[ServerSummary]) -> String {
    let row = |server: &ServerSummary| {
        vec![
            server.server_id.clone(),
            shape::server_state(server),
            server.mode.clone(),
            server.version.clone(),
            server.filesync_uri.clone(),
            shape::clock_state(server),
            heard(server),
        ]
    };
    let header = ["SERVER", "STATE", "MODE", "VERSION", "FILESYNC", "CLOCK", "HEARD"];
    out::table(&header, servers.iter().map(row).collect(), &[])
}

fn heard(server: &ServerSummary) -> String {
    let age = server.silent_age.map(shape::seconds).map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    age.map_or_else(|| "never".to_owned(), |age| format!("{} ago", out::duration(age)))
}

/// The transfers of one server together.
struct Running {
    count: usize,
    left: i64,
    rate: i64,
}

impl Running {
    fn of(transfers: &[Transfer]) -> Self {
        let left =
            transfers.iter().map(|transfer| (transfer.total_bytes - transfer.copied_bytes).max(0)).sum();
        let rate = transfers.iter().map(|transfer| transfer.bytes_per_second).sum();
        Self { count: transfers.len(), left, rate }
    }

    fn left_bytes(&self) -> String {
        if self.count == 0 { "-".to_owned() } else { out::bytes(self.left) }
    }

    fn rate(&self) -> String {
        if self.count == 0 { "-".to_owned() } else { format!("{}/s", out::bytes(self.rate)) }
    }

    fn time_left(&self) -> String {
        out::time_left(self.left, self.rate)
            .filter(|_| self.count > 0)
            .map_or_else(|| "-".to_owned(), out::duration)
    }
}

fn wrong(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    for server in &status.servers {
        let state = shape::server_state(server);
        match (&server.failure, server.state()) {
            (Some(failure), _) => {
                lines.extend(failure_lines(&format!("server {} is {state}", server.server_id), failure))
            }
            (None, State::Ready) => {}
            (None, _) => lines.push(format!("  server {} is {state}", server.server_id)),
        }
        let conditions = server.conditions.iter().filter_map(|condition| condition.failure.as_ref());
        lines.extend(
            conditions.flat_map(|failure| failure_lines(&format!("server {}", server.server_id), failure)),
        );
    }
    // Of a server that does not report, the line above says all that is known.
    let reports = |id: &str| status.servers.iter().any(|it| it.server_id == id && it.state() == State::Ready);
    let missing =
        |it: &ServerSummary| if reports(&it.server_id) { it.file_count - it.in_sync_count } else { 0 };
    let mut more: i64 = status.servers.iter().map(|server| missing(server).max(0)).sum();
    for (row, cell) in status.missing_cells().filter(|(_, cell)| reports(&cell.server_id)) {
        more -= 1;
        let what = format!("{} on {} is {}", row.path, cell.server_id, shape::cell_state(cell));
        match &cell.failure {
            Some(failure) => lines.extend(failure_lines(&what, failure)),
            None if cell.copied_bytes > 0 => {
                let (copied, size) = (out::bytes(cell.copied_bytes), out::bytes(row.size_bytes));
                lines.push(format!("  {}: {copied} of {size}", out::escaped(&what)));
            }
            None => lines.push(format!("  {}", out::escaped(&what))),
        }
    }
    if more > 0 {
        let noun = if more == 1 { "copy" } else { "copies" };
        lines.push(format!("  and {more} more {noun}"));
    }
    lines
}

fn failure_lines(what: &str, failure: &Failure) -> Vec<String> {
    let why = format!("  {}: {} ({})", out::escaped(what), out::escaped(&failure.message), failure.reason);
    let retry =
        failure.retry_delay.map(shape::seconds).map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    let retry = retry.map(|delay| format!("      next try in {}", out::duration(delay)));
    let advice = Some(&failure.advice).filter(|advice| !advice.is_empty());
    let advice = advice.map(|advice| format!("      {}", out::escaped(advice)));
    [Some(why), retry, advice].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use lockstep_proto::gateway::v1::{Cell, Row, cell, server_summary::ClockState};

    use super::*;

    fn server(id: &str, state: State, in_sync_count: i64) -> ServerSummary {
        ServerSummary {
            server_id: id.to_owned(),
            state: state as i32,
            in_sync_count,
            file_count: 2,
            clock_state: ClockState::Unmeasured as i32,
            silent_age: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..ServerSummary::default()
        }
    }

    fn status(servers: Vec<ServerSummary>, missing: Vec<Row>) -> Status {
        Status { servers, revision: 9, missing }
    }

    #[test]
    fn in_sync_is_one_screen_without_complaints() {
        let status = status(vec![server("s1", State::Ready, 2), server("s2", State::Ready, 2)], Vec::new());
        let expected = "2 servers, 2 files, registry at revision 9: in sync everywhere\n\n SERVER  STATE  IN SYNC  \
                        LAG  TO GO  RATE  LEFT  CLOCK       HEARD\n s1      READY      2/2    0      -     -     -  \
                        UNMEASURED  1.0 s ago\n s2      READY      2/2    0      -     -     -  UNMEASURED  1.0 s ago";
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let failure = |reason: &str| Failure {
            reason: reason.to_owned(),
            message: "it is so".to_owned(),
            advice: "change it".to_owned(),
            retry_delay: None,
        };
        let mut silent = server("s3", State::Unreachable, 1);
        silent.failure = Some(failure("PEER_UNREACHABLE"));
        let cell = Cell {
            server_id: "s2".to_owned(),
            state: cell::State::Failed as i32,
            failure: Some(failure("DISK_FULL")),
            ..Cell::default()
        };
        let silent_cell = Cell { server_id: "s3".to_owned(), ..cell.clone() };
        let row = Row { path: "a".to_owned(), cells: vec![cell, silent_cell], ..Row::default() };
        let text = render(&status(
            vec![server("s1", State::Ready, 2), server("s2", State::Ready, 0), silent],
            vec![row],
        ));
        assert!(
            text.starts_with(
                "3 servers, 2 files, registry at revision 9: 3 copies are not known to be in sync\n"
            ),
            "{text}"
        );
        let wrong = "What is not in sync, and what to do\n  server s3 is UNREACHABLE: it is so (PEER_UNREACHABLE)\n      \
                     change it\n  a on s2 is FAILED: it is so (DISK_FULL)\n      change it\n  and 1 more copy";
        assert!(text.ends_with(wrong), "{text}");
    }

    /// R13: one server has nobody to copy to, and the status says so.
    #[test]
    fn one_server_is_said_to_be_alone() {
        let text = line(&status(vec![server("s1", State::Ready, 2)], Vec::new()));
        assert_eq!(
            text,
            "1 server, 2 files, registry at revision 9: in sync; there is no other server to copy to"
        );
    }

    /// R44: what is not known is not in sync.
    #[test]
    fn an_unknown_server_is_not_in_sync() {
        let status = status(vec![server("s1", State::Ready, 2), server("s2", State::Unknown, 2)], Vec::new());
        assert!(!status.is_in_sync());
        assert!(!self::status(Vec::new(), Vec::new()).is_in_sync());
    }
}
