//! What is wrong, and what to do: servers and their conditions one by one, failed copies grouped by reason. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lockstep_proto::{
    gateway::v1::{Cell, Row, cell, server_summary::State},
    shared::v1::Failure,
};

use super::{shape, status::Status};
use crate::out;

/// Paths that are named for each reason.
const PATHS_SHOWN: usize = 3;

/// One line after the other; none if nothing is wrong.
pub(crate) fn lines(status: &Status) -> Vec<String> {
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
        let all = conditions.chain(shape::fence(server));
        lines.extend(all.flat_map(|failure| failure_lines(&format!("server {}", server.server_id), failure)));
    }
    let groups = groups(&status.failed);
    let is_all = status.has_all_failed;
    lines.extend(groups.iter().flat_map(|(reason, group)| group.lines(reason, is_all)));
    lines
}

/// Copies that failed for one reason.
struct Group<'a> {
    servers: BTreeSet<&'a str>,
    paths: BTreeSet<&'a str>,
    copies: usize,
    first: &'a Failure,
    next: Option<Duration>,
}

fn groups(rows: &[Row]) -> BTreeMap<&str, Group<'_>> {
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    let failed = rows.iter().flat_map(|row| row.cells.iter().map(move |cell| (row, cell)));
    for (row, cell) in failed.filter(|(_, cell)| cell.state() == cell::State::Failed) {
        let Some(failure) = &cell.failure else { continue };
        let group = groups.entry(&failure.reason).or_insert_with(|| Group {
            servers: BTreeSet::new(),
            paths: BTreeSet::new(),
            copies: 0,
            first: failure,
            next: None,
        });
        group.servers.insert(&cell.server_id);
        group.paths.insert(&row.path);
        group.copies += 1;
        group.next = [group.next, next(cell)].into_iter().flatten().min();
    }
    groups
}

fn next(cell: &Cell) -> Option<Duration> {
    cell.retry_delay.or(cell.failure.as_ref()?.retry_delay).map(shape::span)
}

impl Group<'_> {
    fn lines(&self, reason: &str, is_all: bool) -> Vec<String> {
        let least = if is_all { "" } else { "at least " };
        let copies = if self.copies == 1 { "copy" } else { "copies" };
        let servers: Vec<&str> = self.servers.iter().copied().collect();
        let mut lines =
            vec![format!("  {reason}: {least}{} {copies} failed on {}", self.copies, servers.join(", "))];
        lines.extend(self.paths.iter().take(PATHS_SHOWN).map(|path| format!("      {}", out::escaped(path))));
        let more = self.paths.len().saturating_sub(PATHS_SHOWN);
        if more > 0 {
            lines.push(format!("      and {}{}", least, out::count(more as i64, "more file")));
        }
        lines.push(format!("      why   {}", out::escaped(&self.first.message)));
        match self.next {
            Some(delay) => lines.push(format!("      next  {}", out::again(delay))),
            None if reason == "DRIFTED" => lines.push("      next  nothing happens by itself".to_owned()),
            None => {}
        }
        if !self.first.advice.is_empty() {
            lines.push(format!("      do    {}", out::escaped(&self.first.advice)));
        }
        lines
    }
}

pub(super) fn failure_lines(what: &str, failure: &Failure) -> Vec<String> {
    let why = format!(
        "  {}: {} ({})",
        out::escaped(what),
        out::escaped(&failure.message),
        out::escaped(&failure.reason)
    );
    let retry = failure.retry_delay.map(shape::span);
    let retry = retry.map(|delay| format!("      next  {}", out::again(delay)));
    let advice = Some(&failure.advice).filter(|advice| !advice.is_empty());
    let advice = advice.map(|advice| format!("      do    {}", out::escaped(advice)));
    [Some(why), retry, advice].into_iter().flatten().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use lockstep_proto::{filesync::v1::Condition, gateway::v1::ServerSummary};

    use super::{super::status_text::tests::server, *};

    /// A status at revision 9.
    pub(in crate::client) fn status(servers: Vec<ServerSummary>, failed: Vec<Row>) -> Status {
        Status { servers, revision: 9, missing: failed.clone(), failed, has_all_failed: true }
    }

    fn failure(reason: &str) -> Failure {
        Failure {
            reason: reason.to_owned(),
            message: "it is so".to_owned(),
            advice: "change it".to_owned(),
            retry_delay: None,
        }
    }

    fn row(path: &str, reason: &str, delay: Option<i64>) -> Row {
        let cell = Cell {
            server_id: "s2".to_owned(),
            state: cell::State::Failed as i32,
            failure: Some(failure(reason)),
            retry_delay: delay.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..Cell::default()
        };
        let silent =
            Cell { server_id: "s3".to_owned(), state: cell::State::Unreachable as i32, ..cell.clone() };
        Row { path: path.to_owned(), cells: vec![cell, silent], ..Row::default() }
    }

    #[test]
    fn what_is_wrong_is_grouped_and_said_with_what_to_do() {
        let mut silent = server("s3", State::Unreachable, 0);
        silent.failure = Some(failure("PEER_UNREACHABLE"));
        let rows = vec![
            row("a", "DISK_FULL", Some(40)),
            row("b", "DISK_FULL", Some(12)),
            row("c", "DISK_FULL", None),
            row("d", "DISK_FULL", None),
            row("e", "DRIFTED", None),
        ];
        let servers = vec![server("s1", State::Ready, 2), server("s2", State::Ready, 0), silent];
        let mut status = status(servers, rows);
        let expected = "  server s3 is UNREACHABLE: it is so (PEER_UNREACHABLE)\n      do    change it\n  DISK_FULL: 4 \
                        copies failed on s2\n      a\n      b\n      c\n      and 1 more file\n      why   it is so\n      \
                        next  tried again in 12 s\n      do    change it\n  DRIFTED: 1 copy failed on s2\n      e\n      \
                        why   it is so\n      next  nothing happens by itself\n      do    change it";
        assert_eq!(lines(&status).join("\n"), expected);
        status.has_all_failed = false;
        assert!(lines(&status).contains(&"  DISK_FULL: at least 4 copies failed on s2".to_owned()));
    }

    /// R62: a fenced server is told once, in the words of its filesync where that has any.
    #[test]
    fn a_fence_is_told_once() {
        let mut fenced = server("s2", State::Ready, 2);
        fenced.fence = Some(failure("CLOCK_FENCED"));
        let told = ["  server s2: it is so (CLOCK_FENCED)", "      do    change it"];
        assert_eq!(lines(&status(vec![fenced.clone()], Vec::new())), told);
        let condition =
            Failure { message: "nothing is registered here".to_owned(), ..failure("CLOCK_FENCED") };
        fenced.conditions = vec![Condition { failure: Some(condition), age: None }];
        let told = ["  server s2: nothing is registered here (CLOCK_FENCED)", "      do    change it"];
        assert_eq!(lines(&status(vec![fenced], Vec::new())), told);
    }
}
