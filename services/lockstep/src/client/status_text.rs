//! The status as one screen of text: totals, servers, what is on its way, what is wrong and what to do about it. Pure.

use lockstep_proto::gateway::v1::{ServerSummary, server_summary::State};

use super::{shape, status::Status, status_wrong};
use crate::out::{self, Table, Tone};

/// Running copies that are shown.
const TRANSFERS_SHOWN: usize = 10;

/// The whole screen.
pub(crate) fn render(status: &Status) -> String {
    let mut text = vec![painted_line(status)];
    if !status.servers.is_empty() {
        text.push(String::new());
        text.push(servers(&status.servers));
    }
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push(String::new());
            text.push(out::painted(Tone::Head, title));
            text.extend(lines);
        }
    };
    section("On its way", on_its_way(&status.servers));
    section("What is wrong, and what to do", status_wrong::lines(status));
    text.join("\n")
}

/// The totals in one line.
pub(crate) fn line(status: &Status) -> String {
    format!("{}: {}", totals(status), verdict(status))
}

fn painted_line(status: &Status) -> String {
    let tone = if status.is_in_sync() { Tone::Good } else { Tone::Bad };
    format!("{}: {}", totals(status), out::painted(tone, &verdict(status)))
}

fn totals(status: &Status) -> String {
    let servers = out::count(status.servers.len() as i64, "server");
    let files = out::count(status.file_count(), "file");
    format!("{servers}, {files}, registry at revision {}", status.revision)
}

fn verdict(status: &Status) -> String {
    match (status.is_in_sync(), status.members().count()) {
        (_, 0) => "no server takes part".to_owned(),
        (true, 1) => "in sync; there is no other server to copy to".to_owned(),
        (true, _) => "in sync everywhere".to_owned(),
        (false, _) if status.missing_count() > 0 => {
            let missing = status.missing_count();
            let are = if missing == 1 { "copy is" } else { "copies are" };
            format!("{missing} {are} not known to be in sync")
        }
        (false, _) => "not in sync".to_owned(),
    }
}

/// The totals and what is wrong with servers, in one line: a new one means that something changed.
pub(crate) fn watch_line(status: &Status) -> String {
    let mut parts = vec![line(status)];
    for server in &status.servers {
        if server.state() != State::Ready {
            parts.push(format!("{} {}", server.server_id, shape::server_state(server)));
        }
        let conditions = server.conditions.iter().filter_map(|condition| condition.failure.as_ref());
        let all = conditions.chain(shape::fence(server));
        parts.extend(all.map(|failure| format!("{} {}", server.server_id, failure.reason)));
        if server.failed_count > 0 {
            parts.push(format!("{} failed on {}", server.failed_count, server.server_id));
        }
    }
    parts.join("; ")
}

fn servers(servers: &[ServerSummary]) -> String {
    let row = |server: &ServerSummary| {
        let is_heard = server.state() == State::Ready;
        let moves = is_heard && server.remaining_bytes > 0;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let oldest = server.oldest_missing.as_ref().filter(|_| is_heard).and_then(|change| change.age);
        vec![
            server.server_id.clone(),
            shape::server_state(server),
            format!("{}/{}", server.in_sync_count, server.file_count),
            server.lag_count.to_string(),
            or_dash(oldest.map(|age| out::duration(shape::span(age)))),
            or_dash(moves.then(|| out::bytes(server.remaining_bytes))),
            or_dash(moves.then(|| format!("{}/s", out::bytes(server.bytes_per_second)))),
            or_dash(server.time_left.filter(|_| moves).map(|left| out::duration(shape::span(left)))),
            shape::clock_words(server),
            heard(server),
        ]
    };
    let header = ["SERVER", "STATE", "IN SYNC", "LAG", "OLDEST", "TO GO", "RATE", "LEFT", "CLOCK", "HEARD"];
    let rows: Vec<_> = servers.iter().map(row).collect();
    // What `lockstep server ls` shows as well goes first where the terminal is narrow.
    Table { header: &header, right: &[2, 3, 4, 5, 6, 7], elastic: &[], optional: &[8, 9, 4, 3] }.print(&rows)
}

/// The servers with their addresses.
pub(crate) fn addresses(servers: &[ServerSummary]) -> String {
    let row = |server: &ServerSummary| {
        let ago = |age: Option<prost_types::Duration>| {
            age.map_or_else(|| "-".to_owned(), |age| format!("within {}", out::duration(shape::span(age))))
        };
        vec![
            server.server_id.clone(),
            shape::server_state(server),
            server.mode.clone(),
            server.version.clone(),
            server.filesync_uri.clone(),
            shape::clock_words(server),
            heard(server),
            ago(server.compared_age),
            ago(server.hashed_age),
        ]
    };
    let header =
        ["SERVER", "STATE", "MODE", "VERSION", "FILESYNC", "CLOCK", "HEARD", "COMPARED", "READ AGAIN"];
    let rows: Vec<_> = servers.iter().map(row).collect();
    Table { header: &header, right: &[], elastic: &[4], optional: &[8, 7, 3, 2] }.print(&rows)
}

fn heard(server: &ServerSummary) -> String {
    let age = server.silent_age.map(shape::span);
    age.map_or_else(|| "never".to_owned(), |age| format!("{} ago", out::duration(age)))
}

/// Copies that are running, with bars, and what waits.
fn on_its_way(servers: &[ServerSummary]) -> Vec<String> {
    let ready = || servers.iter().filter(|server| server.state() == State::Ready);
    let running = ready().flat_map(|server| server.transfers.iter().map(move |it| (server, it)));
    let count = running.clone().count();
    let row = |(server, it): (&ServerSummary, &lockstep_proto::filesync::v1::Transfer)| {
        let left = it.time_left.map(|left| format!("{} left", out::duration(shape::span(left))));
        vec![
            server.server_id.clone(),
            out::escaped(&it.path),
            out::bar(it.copied_bytes, it.total_bytes),
            format!("{} of {}", out::bytes(it.copied_bytes), out::bytes(it.total_bytes)),
            if it.bytes_per_second > 0 {
                format!("{}/s", out::bytes(it.bytes_per_second))
            } else {
                "still".to_owned()
            },
            left.unwrap_or_default(),
            format!("from {}", if it.source_server_id.is_empty() { "-" } else { &it.source_server_id }),
        ]
    };
    let rows: Vec<_> = running.take(TRANSFERS_SHOWN).map(row).collect();
    let mut lines = Vec::new();
    if !rows.is_empty() {
        lines.push(Table { header: &[], right: &[4, 5], elastic: &[1], optional: &[6, 3, 4] }.print(&rows));
    }
    if count > TRANSFERS_SHOWN {
        lines.push(format!("  and {} more running copies", count - TRANSFERS_SHOWN));
    }
    for server in ready().filter(|server| server.pending_count > 0) {
        let oldest = server.oldest_missing.as_ref().map_or_else(String::new, |change| {
            let age = change.age.map(|age| format!(", known for {}", out::duration(shape::span(age))));
            format!("; the oldest change is {}{}", out::escaped(&change.path), age.unwrap_or_default())
        });
        let files = out::count(server.pending_count, "file");
        lines.push(format!("  {} has not come to {files} yet{oldest}", server.server_id));
    }
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use lockstep_proto::{
        filesync::v1::Transfer,
        gateway::v1::{MissingChange, server_summary::ClockState},
        shared::v1::Failure,
    };

    use super::{super::status_wrong::tests::status, *};

    /// A server with two files.
    pub(in crate::client) fn server(id: &str, state: State, in_sync_count: i64) -> ServerSummary {
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

    #[test]
    fn in_sync_is_one_screen_without_complaints() {
        let status = status(vec![server("s1", State::Ready, 2), server("s2", State::Ready, 2)], Vec::new());
        let expected = "2 servers, 2 files, registry at revision 9: in sync everywhere\n\n SERVER  STATE  IN SYNC  \
                        LAG  OLDEST  TO GO  RATE  LEFT  CLOCK       HEARD\n s1      READY      2/2    0       -      \
                        -     -     -  UNMEASURED  1.0 s ago\n s2      READY      2/2    0       -      -     -     -  \
                        UNMEASURED  1.0 s ago";
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn what_runs_has_a_bar_and_what_waits_a_line() {
        let transfer = Transfer {
            path: "big".to_owned(),
            source_server_id: "s1".to_owned(),
            copied_bytes: 1 << 20,
            total_bytes: 4 << 20,
            bytes_per_second: 1 << 20,
            time_left: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
        };
        let oldest = MissingChange {
            path: "old".to_owned(),
            revision: 3,
            age: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        };
        let busy = ServerSummary {
            transfers: vec![transfer],
            pending_count: 1,
            oldest_missing: Some(oldest),
            ..server("s2", State::Ready, 0)
        };
        let text = on_its_way(&[server("s1", State::Ready, 2), busy]).join("\n");
        assert_eq!(
            text,
            " s2  big  [######------------------]  25 %  1.0 MiB of 4.0 MiB  1.0 MiB/s  3.0 s left  from s1\n  \
             s2 has not come to 1 file yet; the oldest change is old, known for 20 s"
        );
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
        let unknown =
            status(vec![server("s1", State::Ready, 2), server("s2", State::Unknown, 2)], Vec::new());
        assert!(!unknown.is_in_sync());
        assert!(!status(Vec::new(), Vec::new()).is_in_sync());
        assert!(watch_line(&unknown).ends_with("; s2 UNKNOWN"), "{}", watch_line(&unknown));
    }

    /// R62: a clock that is not trusted is shown with its offset, one that is trusted without.
    #[test]
    fn a_wrong_clock_is_shown_with_its_offset() {
        let offset = |seconds| Some(prost_types::Duration { seconds, nanos: 3_000_000 });
        let mut right = server("s1", State::Ready, 2);
        (right.clock_state, right.clock_offset) = (ClockState::Trusted as i32, offset(0));
        let mut wrong = server("s2", State::Ready, 2);
        (wrong.clock_state, wrong.clock_offset) = (ClockState::Skewed as i32, offset(61));
        wrong.fence = Some(Failure { reason: "CLOCK_FENCED".to_owned(), ..Failure::default() });
        let status = status(vec![right, wrong], Vec::new());
        let text = render(&status);
        assert!(text.contains("  TRUSTED       1.0 s ago"), "{text}");
        assert!(text.contains("  SKEWED +61 s  1.0 s ago"), "{text}");
        assert!(watch_line(&status).ends_with("; s2 CLOCK_FENCED"), "{}", watch_line(&status));
    }
}
