//! Tables that fit, lines that wrap, words that are coloured. Pure, but for asking whether colours are wanted.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::terminal;

/// The least width of a column that gives way.
const ELASTIC_MIN: usize = 12;
/// Between two columns.
const GAP: &str = "  ";

/// How a word is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// On its way, or not known.
    Wait,
    /// Somebody should look.
    Bad,
    /// A heading.
    Head,
}

impl Tone {
    /// Of a word of the contract, with what may follow it; `None` for any other.
    fn of(text: &str) -> Option<Self> {
        match text.split(' ').next().unwrap_or_default() {
            "READY" | "IN_SYNC" | "COMPLETED" | "PUBLISHED" | "TRUSTED" | "AGREES" | "OPEN" => {
                Some(Self::Good)
            }
            "PENDING" | "COPYING" | "UNKNOWN" | "NOT_ELIGIBLE" | "RUNNING" | "WAITING" | "CANCELLED"
            | "DOWNLOADING" | "VERIFYING" | "DELETING" | "DOUBTFUL" | "UNCERTAIN" | "AWAY" | "STARTING"
            | "OVERRULED" => Some(Self::Wait),
            "FAILED" | "UNREACHABLE" | "SKEWED" | "CONTRADICTS" | "FENCED" => Some(Self::Bad),
            _ => None,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Wait => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Head => "\x1b[1m",
        }
    }

    fn paint(self, text: &str) -> String {
        format!("{}{text}\x1b[0m", self.code())
    }
}

/// Text in a tone, where colours are wanted.
pub(crate) fn painted(tone: Tone, text: &str) -> String {
    if terminal::has_colour() { tone.paint(text) } else { text.to_owned() }
}

/// A table without lines.
pub(crate) struct Table<'a> {
    /// One word for each column; may be empty.
    pub(crate) header: &'a [&'a str],
    /// Columns that are aligned to the right.
    pub(crate) right: &'a [usize],
    /// Columns that give way where the width does not do, and are never coloured: their words are not ours.
    pub(crate) elastic: &'a [usize],
    /// Columns that are left out where the width does not do, in this order; before anything gives way.
    pub(crate) optional: &'a [usize],
}

impl Table<'_> {
    /// As text for where the standard output goes.
    pub(crate) fn print(&self, rows: &[Vec<String>]) -> String {
        self.render(rows, terminal::width(), terminal::has_colour())
    }

    /// As text of at most `width` columns, if it can be made so.
    fn render(&self, rows: &[Vec<String>], width: Option<usize>, colour: bool) -> String {
        let columns = rows.iter().map(Vec::len).chain([self.header.len()]).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        let header: Vec<String> = self.header.iter().map(|&word| word.to_owned()).collect();
        for row in rows.iter().chain([&header]) {
            for (column, text) in row.iter().enumerate() {
                widths[column] = widths[column].max(text.width());
            }
        }
        let mut dropped = Vec::new();
        if let Some(width) = width {
            let mut optional = self.optional.iter();
            while excess(&widths, &dropped, width) > 0
                && let Some(column) = optional.next()
            {
                dropped.push(*column);
            }
            self.narrow(&mut widths, &dropped, width);
        }
        let head = (!header.is_empty()).then(|| {
            let line = self.line(&header, &widths, &dropped, false);
            if colour { Tone::Head.paint(&line) } else { line }
        });
        let lines = rows.iter().map(|row| self.line(row, &widths, &dropped, colour));
        head.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
    }

    fn narrow(&self, widths: &mut [usize], dropped: &[usize], width: usize) {
        let mut excess = excess(widths, dropped, width);
        // The widest gives way first.
        while excess > 0 {
            let widest = self.elastic.iter().copied().filter(|&column| column < widths.len());
            let Some(column) = widest.max_by_key(|&column| widths[column]) else { return };
            if widths[column] <= ELASTIC_MIN {
                return;
            }
            widths[column] -= 1;
            excess -= 1;
        }
    }

    fn line(&self, row: &[String], widths: &[usize], dropped: &[usize], colour: bool) -> String {
        let cell = |(column, text): (usize, &String)| {
            let is_elastic = self.elastic.contains(&column);
            let text = if is_elastic { elided(text, widths[column]) } else { text.clone() };
            let space = " ".repeat(widths[column].saturating_sub(text.width()));
            let tone = Tone::of(&text).filter(|_| colour && !is_elastic);
            let text = tone.map_or_else(|| text.clone(), |tone| tone.paint(&text));
            if self.right.contains(&column) { format!("{space}{text}") } else { format!("{text}{space}") }
        };
        let cells: Vec<String> =
            row.iter().enumerate().filter(|(column, _)| !dropped.contains(column)).map(cell).collect();
        format!(" {}", cells.join(GAP)).trim_end().to_owned()
    }
}

/// By how much a table is too wide.
fn excess(widths: &[usize], dropped: &[usize], width: usize) -> usize {
    let kept: Vec<usize> = widths
        .iter()
        .enumerate()
        .filter(|(column, _)| !dropped.contains(column))
        .map(|(_, it)| *it)
        .collect();
    let total = 1 + kept.iter().sum::<usize>() + GAP.len() * kept.len().saturating_sub(1);
    total.saturating_sub(width)
}

/// Text of at most `width` columns: what does not fit is left out in its middle, a third from the left, because the end of
/// a path tells more than its beginning.
pub(crate) fn elided(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let head = taken(text.chars(), room / 3);
    let tail: Vec<char> = taken(text.chars().rev(), room - head.width()).chars().rev().collect();
    format!("{head}…{}", tail.into_iter().collect::<String>())
}

fn taken(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

/// The longest label of a line.
const LABEL_MAX: usize = 8;

/// Lines that are longer than `width` go on in the next one: below their text if they begin with a label, else two columns
/// further in than they began.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    text.lines().map(|line| wrapped_line(line, width)).collect::<Vec<_>>().join("\n")
}

fn wrapped_line(line: &str, width: usize) -> String {
    if visible_width(line) <= width {
        return line.to_owned();
    }
    let indent = line.len() - line.trim_start_matches(' ').len();
    let rest = &line[indent..];
    let label = rest.find("  ").filter(|end| *end < LABEL_MAX && rest.is_char_boundary(*end));
    let label = label.map(|end| rest.len() - rest[end..].trim_start_matches(' ').len());
    let next = " ".repeat((indent + label.unwrap_or(2)).min(width / 2));
    let mut lines: Vec<String> = Vec::new();
    let mut current = " ".repeat(indent);
    let mut is_empty = true;
    for word in line.trim_start_matches(' ').split(' ') {
        if !is_empty && visible_width(&current) + 1 + visible_width(word) > width {
            lines.push(std::mem::replace(&mut current, next.clone()));
            is_empty = true;
        }
        if !is_empty {
            current.push(' ');
        }
        current.push_str(word);
        is_empty = false;
    }
    lines.push(current);
    lines.join("\n")
}

/// The columns that a line takes; what only colours it takes none.
pub(super) fn visible_width(line: &str) -> usize {
    let mut width = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            for end in chars.by_ref() {
                if end.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            width += c.width().unwrap_or(0);
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|&cell| cell.to_owned()).collect()
    }

    #[test]
    fn a_table_has_aligned_columns_and_no_lines() {
        let table = Table { header: &["NAME", "SIZE"], right: &[1], elastic: &[], optional: &[] };
        let rows = [row(&["a", "1 B"]), row(&["long", "12 B"])];
        assert_eq!(table.render(&rows, None, false), " NAME  SIZE\n a      1 B\n long  12 B");
    }

    #[test]
    fn a_narrow_table_leaves_out_the_middle_of_paths() {
        let table = Table { header: &["PATH", "STATE"], right: &[], elastic: &[0], optional: &[] };
        let rows = [row(&["firmware/drivers/network/card/driver.bin", "FAILED"])];
        let text = table.render(&rows, Some(40), false);
        assert_eq!(text, " PATH                             STATE\n firmware/d…work/card/driver.bin  FAILED");
        assert!(text.lines().all(|line| line.width() <= 40), "{text}");
        assert!(table.render(&rows, None, false).contains("firmware/drivers/network/card/driver.bin"));
        // Below the least width of a column nothing more is taken away.
        assert!(table.render(&rows, Some(5), false).contains("FAILED"));
        assert_eq!(elided("日本語日本語", 5), "…本語");
    }

    #[test]
    fn a_column_that_is_not_needed_is_left_out_first() {
        let table = Table { header: &["A", "B", "C"], right: &[], elastic: &[], optional: &[1] };
        let rows = [row(&["a", "a-long-word-that-does-not-fit-at-all", "c"])];
        assert_eq!(table.render(&rows, Some(40), false), " A  C\n a  c");
        assert_eq!(table.render(&rows, Some(50), false).lines().count(), 2);
        assert!(table.render(&rows, Some(50), false).contains("a-long-word"));
    }

    #[test]
    fn only_words_of_ours_are_coloured() {
        let table = Table { header: &[], right: &[], elastic: &[0], optional: &[] };
        let text = table.render(&[row(&["FAILED", "FAILED"])], None, true);
        assert_eq!(text, " FAILED  \u{1b}[31mFAILED\u{1b}[0m");
        assert_eq!(visible_width(&text), 15);
    }

    #[test]
    fn long_lines_go_on_below_what_they_say() {
        assert_eq!(wrapped("  one two three four\nshort", 12), "  one two\n    three\n    four\nshort");
        assert_eq!(wrapped("  do    one two three", 16), "  do    one two\n        three");
        assert_eq!(wrapped("unbreakable-word-of-great-length", 12), "unbreakable-word-of-great-length");
    }
}
