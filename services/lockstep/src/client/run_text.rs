//! Sync runs as text. Pure.

use lockstep_proto::gateway::v1::{SyncAnswer, SyncObstacle, SyncRun, sync_run::State};

use super::shape;
use crate::out;

/// Obstacles that the gateway tells at most: as many may not be all.
const OBSTACLES_MAX: usize = 20;

/// A run that was just started.
pub(crate) fn started(run: &SyncRun, answers: &[SyncAnswer], with_advice: bool) -> String {
    let mut text = vec![format!("sync run {}: {}", run.run_id, scope(run))];
    let silent = answers.iter().filter_map(|answer| Some((&answer.server_id, answer.failure.as_ref()?)));
    for (server, failure) in silent {
        let message = out::escaped(&failure.message);
        text.push(format!("  {server} did not take the request: {message} ({})", failure.reason));
    }
    if with_advice {
        text.push(line(run));
        text.extend(Some(obstacles(run, "  ")).filter(|text| !text.is_empty()));
        if !is_over(run) {
            text.push(format!("follow it with `lockstep sync show {} --wait`", run.run_id));
        }
    }
    text.join("\n")
}

/// What a run is about.
fn scope(run: &SyncRun) -> String {
    let files = match run.path_prefix.as_str() {
        "" => "everything".to_owned(),
        prefix => format!("what begins with {}", out::escaped(prefix)),
    };
    let servers = match run.server_ids.as_slice() {
        [] => "all servers".to_owned(),
        [one] => format!("server {one}"),
        several => format!("servers {}", several.join(", ")),
    };
    format!("{files} up to revision {} on {servers}", run.target_revision)
}

fn is_over(run: &SyncRun) -> bool {
    matches!(run.state(), State::Completed | State::Cancelled)
}

/// How far a run is, in one line.
pub(crate) fn line(run: &SyncRun) -> String {
    let state = shape::run_state(run);
    let far = match run.state() {
        State::Completed => "everything in its scope was verified on every server in its scope".to_owned(),
        State::Cancelled => "nobody is asked any more; servers go on by themselves".to_owned(),
        _ => {
            let left = run.time_left.map(|left| format!(", {} left", out::duration(shape::span(left))));
            let copies = if run.copy_count == 1 { "copy" } else { "copies" };
            format!(
                "{} {} of {} {copies} verified, {} to go{}",
                out::bar(run.in_sync_count, run.copy_count),
                run.in_sync_count,
                run.copy_count,
                out::bytes(run.remaining_bytes),
                left.unwrap_or_default()
            )
        }
    };
    format!("{state}: {far}")
}

/// Everything about one run.
pub(crate) fn page(run: &SyncRun) -> String {
    let time: String =
        shape::time(run.start_time.as_ref()).chars().take("2026-01-01T00:00:00".len()).collect();
    let mut text = vec![
        format!("sync run {}: {}", run.run_id, scope(run)),
        format!("started by {} at {time} (UTC)", out::escaped(&run.started_by)),
        line(run),
    ];
    if !run.shares.is_empty() {
        let rows = run.shares.iter().map(|share| {
            let verified = format!("{}/{}", share.in_sync_count, share.file_count);
            vec![share.server_id.clone(), verified, out::bytes(share.remaining_bytes)]
        });
        text.push(String::new());
        text.push(out::table(&["SERVER", "IN SYNC", "TO GO"], rows.collect(), &[1, 2], &[]));
    }
    let kept = obstacles(run, "  ");
    if !kept.is_empty() {
        text.push(String::new());
        text.push("What keeps it".to_owned());
        text.push(kept);
    }
    text.join("\n")
}

/// What keeps a run, each line with the indent.
pub(crate) fn obstacles(run: &SyncRun, indent: &str) -> String {
    let mut lines: Vec<String> = run.obstacles.iter().flat_map(|it| obstacle(it, indent)).collect();
    if run.obstacles.len() >= OBSTACLES_MAX {
        lines.push(format!("{indent}there may be more: `lockstep status`"));
    }
    lines.join("\n")
}

fn obstacle(obstacle: &SyncObstacle, indent: &str) -> Vec<String> {
    let failure = obstacle.failure.clone().unwrap_or_default();
    let whose = match obstacle.path.as_str() {
        "" => format!("server {}: ", obstacle.server_id),
        // The sentence says both already.
        path if failure.message.contains(path) && failure.message.contains(&obstacle.server_id) => {
            String::new()
        }
        path => format!("{} on {}: ", out::escaped(path), obstacle.server_id),
    };
    let mut lines = vec![format!("{indent}{whose}{} ({})", out::escaped(&failure.message), failure.reason)];
    let delay = obstacle.retry_delay.or(failure.retry_delay).map(shape::span);
    lines.extend(delay.map(|delay| format!("{indent}  next  {}", out::again(delay))));
    if !failure.advice.is_empty() {
        lines.push(format!("{indent}  do    {}", out::escaped(&failure.advice)));
    }
    lines
}

/// Whether nothing but a person can end it: all that is left drifted, and nothing is tried over what somebody changed.
pub(crate) fn waits_for_a_person(run: &SyncRun) -> bool {
    let drifted = |it: &SyncObstacle| {
        !it.path.is_empty() && it.failure.as_ref().is_some_and(|failure| failure.reason == "DRIFTED")
    };
    run.obstacles.len() < OBSTACLES_MAX && !run.obstacles.is_empty() && run.obstacles.iter().all(drifted)
}

/// Runs, one a line.
pub(crate) fn list(runs: &[SyncRun]) -> String {
    let row = |run: &SyncRun| {
        let verified =
            if is_over(run) { "-".to_owned() } else { format!("{}/{}", run.in_sync_count, run.copy_count) };
        let prefix = if run.path_prefix.is_empty() { "everything" } else { &run.path_prefix };
        let servers = if run.server_ids.is_empty() { "all".to_owned() } else { run.server_ids.join(",") };
        let time = shape::time(run.start_time.as_ref());
        vec![
            run.run_id.clone(),
            shape::run_state(run),
            verified,
            time.chars().take("2026-01-01T00:00:00".len()).collect(),
            out::escaped(&run.started_by),
            servers,
            out::escaped(prefix),
        ]
    };
    let header = ["RUN", "STATE", "COPIES", "STARTED (UTC)", "BY", "SERVERS", "PATHS"];
    out::table(&header, runs.iter().map(row).collect(), &[2], &[4, 5, 6])
}

#[cfg(test)]
mod tests {
    use lockstep_proto::shared::v1::Failure;

    use super::*;

    fn held_by(reason: &str, path: &str) -> SyncObstacle {
        let failure = Failure {
            reason: reason.to_owned(),
            message: "it is so".to_owned(),
            advice: "change it".to_owned(),
            retry_delay: None,
        };
        SyncObstacle {
            server_id: "s2".to_owned(),
            path: path.to_owned(),
            failure: Some(failure),
            retry_delay: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        }
    }

    #[test]
    fn a_run_says_what_keeps_it() {
        let run = SyncRun {
            run_id: "id".to_owned(),
            path_prefix: "os/".to_owned(),
            target_revision: 7,
            state: State::Waiting as i32,
            copy_count: 4,
            in_sync_count: 3,
            remaining_bytes: 2048,
            obstacles: vec![held_by("DISK_FULL", "os/a")],
            ..SyncRun::default()
        };
        assert_eq!(
            started(&run, &[], true),
            "sync run id: what begins with os/ up to revision 7 on all servers\n\
             WAITING: [##################------]  75 % 3 of 4 copies verified, 2.0 KiB to go\n  \
             os/a on s2: it is so (DISK_FULL)\n    next  tried again in 20 s\n    do    change it\n\
             follow it with `lockstep sync show id --wait`"
        );
    }

    #[test]
    fn only_what_drifted_waits_for_a_person() {
        let run = |obstacles| SyncRun { obstacles, ..SyncRun::default() };
        assert!(waits_for_a_person(&run(vec![held_by("DRIFTED", "a")])));
        assert!(!waits_for_a_person(&run(vec![held_by("DRIFTED", "a"), held_by("DISK_FULL", "b")])));
        assert!(!waits_for_a_person(&run(vec![held_by("DRIFTED", "")])));
        assert!(!waits_for_a_person(&run(Vec::new())));
        assert!(!waits_for_a_person(&run(vec![held_by("DRIFTED", "a"); OBSTACLES_MAX])));
    }
}
