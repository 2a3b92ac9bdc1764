//! Printing: to the standard output, in a form that no name can change.

mod live;
mod offset;
mod table;
mod terminal;

use std::{io::Write as _, time::Duration};

use serde::Serialize;

pub(crate) use self::{
    live::{Live, bar},
    offset::{offset, offset_short},
    table::{Table, Tone, painted},
};

use crate::problem::{Exit, Problem, Result};

/// Prints lines of text. A reader that went away ends the command like any other failed write.
pub(crate) fn text(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n"));
    written
        .and_then(|()| stdout.flush())
        .map_err(|error| Problem::new(Exit::Failed, "could not write the result", error))
}

/// Prints one document on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let document = serde_json::to_string(value)
        .map_err(|error| Problem::new(Exit::Failed, "could not write the result as JSON", error))?;
    text(&document)
}

/// Says something beside the result, on the standard error stream; nothing depends on it.
pub(crate) fn note(text: &str) {
    let fitted = terminal::error_width().map(|width| table::wrapped(text, width));
    let text = fitted.as_deref().unwrap_or(text);
    // A standard error stream that cannot be written leaves nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints text for a person: on a terminal its long lines are wrapped, each with the indent that it began with.
pub(crate) fn page(text: &str) -> Result<()> {
    self::text(&fitted(text))
}

/// Text whose lines fit the terminal; as it is where there is none.
pub(crate) fn fitted(text: &str) -> String {
    terminal::width().map_or_else(|| text.to_owned(), |width| table::wrapped(text, width))
}

/// A table without lines; the columns of `right` are aligned to the right, those of `elastic` give way where the terminal
/// is narrow: their middle is left out.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize], elastic: &[usize]) -> String {
    Table { header, right, elastic, optional: &[] }.print(&rows)
}

/// Text with everything written out that a terminal would obey or hide.
pub(crate) fn escaped(text: &str) -> String {
    let special = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if special(c) { result.extend(c.escape_unicode()) } else { result.push(c) }
    }
    result
}

/// Like [`escaped`], for text of several lines: the lines after the first begin with `indent`.
pub(crate) fn escaped_lines(text: &str, indent: &str) -> String {
    let lines: Vec<String> = text.lines().map(escaped).collect();
    lines.join(&format!("\n{indent}"))
}

/// Bytes for people, in powers of 1,024.
pub(crate) fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// A duration for people: the largest unit that fits, with one below it.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// When something is tried again.
pub(crate) fn again(delay: Duration) -> String {
    if delay < Duration::from_millis(50) {
        "tried again at any moment".to_owned()
    } else {
        format!("tried again in {}", duration(delay))
    }
}

/// A word and how many, with its plural.
pub(crate) fn count(number: i64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (3 << 19, "1.5 MiB")]
        {
            assert_eq!(bytes(count), text);
        }
        for (millis, text) in
            [(300, "0.3 s"), (59_000, "59 s"), (125_000, "2 min 5 s"), (7_260_000, "2 h 1 min")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
