//! What a program printed, without what differs from run to run, so that it can be compared with what was recorded.

use std::borrow::Cow;

use serde_json::Value;

/// Text without what differs from run to run: runs of spaces within a line are one, a line that is repeated as well, and
/// states that pass by are left out.
pub fn normal(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.trim_end().lines().filter(|line| !line.starts_with("RUNNING:")) {
        let line = normal_line(line).replace("tried again at any moment", "tried again in <time>");
        let line = without_cause(&line.replace("within <time>", "-"));
        if lines.last() != Some(&line) || line.is_empty() {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// How a connection broke depends on the moment.
fn without_cause(line: &str) -> String {
    for (before, after) in [("is not heard: ", "; "), (": ", " (PEER_UNREACHABLE)")] {
        let Some((head, rest)) = line.split_once(before) else { continue };
        let Some((_, tail)) = rest.rsplit_once(after) else { continue };
        return format!("{head}{before}<cause>{after}{tail}");
    }
    line.to_owned()
}

/// The units of spans of time.
const UNITS: [&str; 4] = ["s", "min", "h", "d"];

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn normal_line(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (mut result, mut at): (Vec<String>, usize) = (Vec::new(), 0);
    let bare = |word: &str| word.trim_matches(|c: char| "(),;:`'".contains(c)).to_owned();
    while at < words.len() {
        let (word, next) = (words[at], words.get(at + 1).copied().unwrap_or_default());
        let (plain, unit) = (bare(word), bare(next));
        let is_span = is_number(&plain) && UNITS.contains(&unit.as_str());
        if is_span {
            let open = &word[..word.len() - word.trim_start_matches('(').len()];
            let close = &next[unit.len()..];
            if result.last().is_some_and(|last| last.ends_with("<time>")) {
                result.pop();
            }
            result.push(format!("{open}<time>{close}"));
            at += 2;
        } else if is_clock(&words, at) {
            // What is said of a clock depends on the moment, and so does whether an offset of two words follows.
            result.push("<clock>".to_owned());
            let has_offset = next.starts_with(['+', '-']) && next.len() > 1;
            at += if has_offset { 3 } else { 1 };
        } else if word.starts_with("[#") || word.starts_with("[-") {
            result.push("<bar>".to_owned());
            at += 3;
        } else if is_number(&plain) && unit.ends_with("/s") {
            result.push(next.replace(&unit, "<rate>"));
            at += 2;
        } else {
            let word = &*without_id(word);
            let is_time = plain.len() >= 19 && plain.starts_with("20") && plain.contains('T');
            let is_moving = is_number(&plain)
                && (words.get(at.wrapping_sub(1)) == Some(&"revision")
                    || (unit == "of" && !words.get(at + 3).is_some_and(|what| what.starts_with("server")))
                    || words.get(at + 1..at + 4) == Some(&["bytes", "a", "second"])
                    || unit == "MiB"
                    || unit == "GiB");
            let is_digest = plain.len() == 64;
            result.push(if is_time {
                word.replace(&plain, "<when>")
            } else if is_digest {
                word.replace(&plain, "<digest>")
            } else if is_moving {
                word.replace(&plain, "<n>")
            } else if let Some((head, host, rest)) = port(word) {
                format!("{head}{host}<port>{rest}")
            } else {
                word.to_owned()
            });
            at += 1;
        }
    }
    format!("{}{}", " ".repeat(indent), result.join(" "))
}

/// Whether it is what a table of servers says of a clock. Only one of these words is said of something else, too: in the column
/// of clocks, what follows is since when the server was heard.
fn is_clock(words: &[&str], at: usize) -> bool {
    match (words[at], words.get(at + 1), words.get(at + 2)) {
        ("UNMEASURED" | "TRUSTED" | "DOUBTFUL" | "SKEWED" | "UNCONFIRMED", ..)
        | ("UNREACHABLE", Some(&"never"), _) => true,
        ("UNREACHABLE", Some(number), Some(unit)) => is_number(number) && UNITS.contains(unit),
        _ => false,
    }
}

/// A word without the UUID in it, if there is one.
fn without_id(word: &str) -> Cow<'_, str> {
    let is_id = |text: &str| {
        text.char_indices()
            .all(|(at, c)| if [8, 13, 18, 23].contains(&at) { c == '-' } else { c.is_ascii_hexdigit() })
    };
    let starts = 0..(word.len() + 1).saturating_sub(36);
    let mut ids = starts.filter_map(|at| word.get(at..at + 36)).filter(|text| is_id(text));
    ids.next().map_or(Cow::Borrowed(word), |id| Cow::Owned(word.replace(id, "<id>")))
}

/// What is before a local host, the host, and what is after its port.
fn port(word: &str) -> Option<(&str, &str, &str)> {
    ["localhost:", "127.0.0.1:"].into_iter().find_map(|host| {
        let (head, tail) = word.split_once(host)?;
        Some((head, host, tail.trim_start_matches(|c: char| c.is_ascii_digit())))
    })
}

/// A JSON document, one line for each value that says something, masked by the name of its field.
pub fn document(value: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", "", value, &mut lines);
    lines.join("\n")
}

fn flatten(place: &str, name: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            // Whether an offset is known, and which, depends on the moment.
            let is_said = |name: &str| {
                !["clock_offset", "clock_uncertainty", "clockOffset", "clockUncertainty"]
                    .iter()
                    .any(|it| name.starts_with(it))
            };
            for (name, value) in fields.iter().filter(|(name, _)| is_said(name)) {
                let separator = if place.is_empty() { "" } else { "." };
                flatten(&format!("{place}{separator}{name}"), name, value, lines);
            }
        }
        Value::Array(values) => {
            for (number, value) in values.iter().enumerate() {
                flatten(&format!("{place}[{number}]"), name, value, lines);
            }
        }
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        // A try that is due now is said as well: which moment it is differs.
        Value::Number(number) if number.as_f64() == Some(0.0) && !is_next_try(name) => {}
        value => lines.push(format!("{place}: {}", masked(name, value))),
    }
}

/// Whether the field says when something is tried again.
fn is_next_try(name: &str) -> bool {
    ["retry_seconds", "next_seconds"].contains(&name)
}

/// A value, if it is the same in each run; otherwise what kind it is.
fn masked(name: &str, value: &Value) -> String {
    let last = name.rsplit(['_', '.']).next().unwrap_or_default();
    let ends = |endings: &[&str]| endings.iter().any(|ending| last.ends_with(ending));
    if ["clock_state", "clockState"].contains(&name) {
        "<clock>".to_owned()
    } else if ["age", "time"].contains(&last)
        || ends(&["Age", "seconds", "delay", "Delay", "Time", "left", "Left"])
    {
        "<time>".to_owned()
    } else if ends(&["revision", "Revision"])
        || ["copied_bytes", "copiedBytes", "remaining_bytes", "remainingBytes"].contains(&name)
    {
        "<n>".to_owned()
    } else if ends(&["second", "Second"]) {
        "<rate>".to_owned()
    } else if ends(&["uri", "Uri"]) || ["epoch", "digest", "chain"].contains(&last) {
        format!("<{}>", last.to_lowercase())
    } else {
        normal(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H3: what is compared is what is said, without what differs from run to run.
    #[test]
    fn what_differs_is_masked_and_the_rest_stays() {
        let before = "s2 IN_SYNC   (compared 3 s ago)\n  FAILED: tried again, in 1 min 2 s\n";
        assert_eq!(normal(before), "s2 IN_SYNC (compared <time> ago)\n  FAILED: tried again, in <time>");
        let value =
            serde_json::json!({"a": [{"lag_count": 2, "time_left_seconds": 1.5}], "b": null, "c": ""});
        assert_eq!(document(&value), "a[0].lag_count: 2\na[0].time_left_seconds: <time>");
        let due = |seconds: f64| document(&serde_json::json!({"retry_seconds": seconds, "age_seconds": 0.0}));
        assert_eq!((due(0.0), due(1.5)), (due(3.0), "retry_seconds: <time>".to_owned()));
    }

    /// H3: whatever is said of a clock, and whether an offset follows, is the same text; states of servers stay.
    #[test]
    fn what_is_said_of_a_clock_is_masked() {
        for clock in
            ["UNMEASURED", "TRUSTED", "SKEWED +61 s", "DOUBTFUL -2 min", "UNREACHABLE", "UNCONFIRMED"]
        {
            for heard in ["0.3 s ago", "2 min 5 s ago"] {
                let line = format!(" s3 UNREACHABLE  0/1  1  -  {clock}  {heard}");
                assert_eq!(normal(&line), " s3 UNREACHABLE 0/1 1 - <clock> <time> ago");
            }
            assert_eq!(
                normal(&format!(" s4 NOT_ELIGIBLE 0/1 {clock} never")),
                " s4 NOT_ELIGIBLE 0/1 <clock> never"
            );
            let line = format!(" s3 UNREACHABLE distributed {clock} 1.0 s ago  -  -");
            assert_eq!(normal(&line), " s3 UNREACHABLE distributed <clock> <time> ago - -");
        }
        let first =
            serde_json::json!({"clock_state": "TRUSTED", "clock_offset_seconds": 0.1, "clockOffset": "0.1s"});
        let second = serde_json::json!({"clock_state": "UNCONFIRMED", "clock_offset_seconds": null});
        assert_eq!(document(&first), document(&second));
    }
}
