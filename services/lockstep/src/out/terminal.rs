//! What is known of the terminal, if there is one: its width, its height, and whether it may be coloured.

use std::{io::IsTerminal, sync::OnceLock};

/// Narrower than this nothing can be read; a terminal that says so is not believed.
const WIDTH_MIN: usize = 40;
/// The height of a terminal that does not tell.
const HEIGHT_DEFAULT: usize = 24;

/// Columns of the terminal that the standard output goes to; `None` where it goes elsewhere, and nothing is cut.
pub(super) fn width() -> Option<usize> {
    width_of(std::io::stdout())
}

/// The same of the standard error stream.
pub(super) fn error_width() -> Option<usize> {
    width_of(std::io::stderr())
}

fn width_of(stream: impl std::os::fd::AsFd + IsTerminal) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0).map(|columns| columns.max(WIDTH_MIN))
}

/// Lines of the terminal.
pub(super) fn height() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    size.map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 2).unwrap_or(HEIGHT_DEFAULT)
}

/// Whether words may be coloured: on a terminal that can, unless `NO_COLOR` says otherwise. Decided once.
pub(super) fn has_colour() -> bool {
    static DECIDED: OnceLock<bool> = OnceLock::new();
    *DECIDED.get_or_init(|| {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
    })
}
