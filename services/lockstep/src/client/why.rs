//! `lockstep file why`: one path, explained for a person.

use lockstep_proto::gateway::v1::{
    CopyExplanation, ExplainFileRequest, Explanation, cell::State, explanation::State as Registered,
};

use super::{
    connect::{self, Session},
    shape,
};
use crate::{
    cli::{Format, WhyArgs},
    out::{self, Tone},
    problem::{Problem, Result},
};

/// Explains one path.
pub(crate) async fn run(session: &Session, format: Format, args: WhyArgs) -> Result<()> {
    let what = format!("could not explain {}", args.path);
    let request = ExplainFileRequest { path: args.path, server_ids: args.server };
    let mut matrix = session.matrix();
    let answer = connect::read(matrix.explain_file(request)).await;
    let answer = answer.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    let found = answer.explanation.unwrap_or_default();
    match format {
        Format::Json => out::json(&shape::Explained::of(&found)),
        Format::Text => out::page(&page(&found)),
    }
}

fn page(found: &Explanation) -> String {
    let mut text = vec![format!(
        "{}: {}",
        out::painted(Tone::Head, &out::escaped(&found.path)),
        out::escaped(&found.summary)
    )];
    if found.state() == Registered::Registered {
        let time: String =
            shape::time(found.register_time.as_ref()).chars().take("2026-01-01T00:00:00".len()).collect();
        text.push(format!(
            "  {}, registered on {} at {time} (UTC), blake3 {}",
            out::bytes(found.size_bytes),
            found.origin_server_id,
            found.digest
        ));
    }
    if !found.advice.is_empty() && found.state() != Registered::Registered {
        text.push(format!("  do    {}", out::escaped(&found.advice)));
    }
    for copy in &found.copies {
        text.push(String::new());
        text.extend(copy_lines(copy));
    }
    text.join("\n")
}

fn copy_lines(copy: &CopyExplanation) -> Vec<String> {
    let cell = copy.cell.clone().unwrap_or_default();
    let mut head = vec![copy.server_id.clone()];
    let tone = match cell.state() {
        State::InSync => Tone::Good,
        State::Failed | State::Unreachable => Tone::Bad,
        _ => Tone::Wait,
    };
    head.extend(copy.cell.as_ref().map(|cell| out::painted(tone, &shape::cell_state(cell))));
    head.extend(cell.failure.as_ref().map(|failure| failure.reason.clone()));
    let age = copy.age.or(cell.age).map(|age| out::duration(shape::span(age)));
    head.extend(age.map(|age| match cell.state() {
        // The age of such a copy is that of the comparison.
        State::InSync => format!("(compared {age} ago)"),
        State::Unreachable => format!("(last heard {age} ago)"),
        _ => format!("(for {age})"),
    }));
    let mut lines = vec![head.join("  ")];
    let mut add = |label: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!("  {label:<5} {}", out::escaped(text)));
        }
    };
    add("why", &copy.message);
    if cell.state() == State::Copying && cell.copied_bytes > 0 {
        add("done", &copying(&cell));
    }
    match (copy.next.as_str(), copy.next_delay) {
        ("", _) if cell.state() == State::Failed => add("next", "nothing happens by itself"),
        ("", _) => {}
        (next, Some(delay)) => add("next", &format!("{next}, in {}", out::duration(shape::span(delay)))),
        (next, None) => add("next", next),
    }
    add("after", &copy.waits_behind_paths.join(", "));
    add("do", &copy.advice);
    lines
}

fn copying(cell: &lockstep_proto::gateway::v1::Cell) -> String {
    let rate = match cell.bytes_per_second {
        0 => "standing still".to_owned(),
        rate => format!("{}/s", out::bytes(rate)),
    };
    let left = cell.time_left.map(|left| format!(", {} left", out::duration(shape::span(left))));
    format!("{} so far, {rate}{}", out::bytes(cell.copied_bytes), left.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use lockstep_proto::{gateway::v1::Cell, shared::v1::Failure};
    use prost_types::Duration;

    use super::*;

    #[test]
    fn a_copy_says_since_when_why_what_next_and_what_to_do() {
        let failure = Failure { reason: "DISK_FULL".into(), ..Failure::default() };
        let cell = Cell { state: State::Failed as i32, failure: Some(failure), ..Cell::default() };
        let copy = CopyExplanation {
            server_id: "s2".into(),
            cell: Some(cell),
            message: "s2 does not hold the file: no room".into(),
            age: Some(Duration { seconds: 30, nanos: 0 }),
            next: "the copy is tried again".into(),
            next_delay: Some(Duration { seconds: 12, nanos: 0 }),
            advice: "free some space".into(),
            waits_behind_paths: vec!["a".into(), "b".into()],
            ..CopyExplanation::default()
        };
        let found = Explanation {
            path: "x".into(),
            summary: "deleted".into(),
            copies: vec![copy.clone()],
            ..Explanation::default()
        };
        assert_eq!(
            page(&found),
            "x: deleted\n\ns2  FAILED  DISK_FULL  (for 30 s)\n  why   s2 does not hold the file: no room\n  \
             next  the copy is tried again, in 12 s\n  after a, b\n  do    free some space"
        );
        let stuck = CopyExplanation { next: String::new(), next_delay: None, ..copy };
        assert!(copy_lines(&stuck).contains(&"  next  nothing happens by itself".to_owned()));
    }
}
