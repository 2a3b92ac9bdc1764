//! A part of the terminal that is drawn again and again in place.

use std::io::IsTerminal as _;

use super::{fitted, table, terminal, text};
use crate::{cli::Format, problem::Result};

/// Columns of a bar.
const BAR: usize = 24;

/// What is drawn again and again: in place on a terminal, and only there.
pub(crate) struct Live {
    is_terminal: bool,
    /// Lines that are drawn now.
    drawn: usize,
    /// What was printed last where there is no terminal.
    last: String,
}

impl Live {
    /// For results in this format.
    pub(crate) fn new(format: Format) -> Self {
        let is_terminal = format == Format::Text && std::io::stdout().is_terminal();
        Self { is_terminal, drawn: 0, last: String::new() }
    }

    /// Whether it is drawn in place.
    pub(crate) fn is_in_place(&self) -> bool {
        self.is_terminal
    }

    /// Draws over what was drawn before. More than the height of the terminal is cut: what scrolled away cannot be drawn
    /// over.
    pub(crate) fn draw(&mut self, page: &str) -> Result<()> {
        let (page, width) = (fitted(page), terminal::width().unwrap_or(usize::MAX));
        // A word that cannot be broken takes more rows than one.
        let rows = |line: &str| table::visible_width(line).div_ceil(width).max(1);
        let all: Vec<&str> = page.lines().collect();
        let (mut lines, mut taken, room) = (Vec::new(), 0, terminal::height() - 2);
        for line in &all {
            if taken + rows(line) > room {
                break;
            }
            taken += rows(line);
            lines.push(*line);
        }
        let more = format!("… {} more lines", all.len() - lines.len());
        if lines.len() < all.len() {
            lines.push(&more);
            taken += 1;
        }
        let up = if self.drawn == 0 { String::new() } else { format!("\x1b[{}A", self.drawn) };
        self.drawn = taken;
        text(&format!("{up}\r{}\x1b[K\x1b[J", lines.join("\x1b[K\n")))
    }

    /// Whether `key` differs from the last one: without a terminal only a change is printed.
    pub(crate) fn is_new(&mut self, key: &str) -> bool {
        let is_new = self.last != key;
        if is_new {
            key.clone_into(&mut self.last);
        }
        is_new
    }
}

/// A bar of how much is done.
pub(crate) fn bar(done: i64, total: i64) -> String {
    let share = if total > 0 { (done.max(0) as f64 / total as f64).min(1.0) } else { 0.0 };
    // What is not complete is never drawn as such.
    let full = ((share * BAR as f64) as usize).min(if done >= total { BAR } else { BAR - 1 });
    let percent = ((share * 100.0) as usize).min(if done >= total { 100 } else { 99 });
    format!("[{}{}] {percent:>3} %", "#".repeat(full), "-".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(bar(0, 100), "[------------------------]   0 %");
        assert_eq!(bar(50, 100), "[############------------]  50 %");
        assert_eq!(bar(99_999, 100_000), "[#######################-]  99 %");
        assert_eq!(bar(100, 100), "[########################] 100 %");
        assert_eq!(bar(3, 0), "[------------------------]   0 %");
    }
}
