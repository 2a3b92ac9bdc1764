//! The log of an installation: the lines of every child, each with the name of its child in front.

use std::{
    io::{self, IsTerminal as _, Write as _},
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    sync::{mpsc, oneshot},
};

/// Lines between the children and the terminal; a child waits when it is that far ahead.
const LINES_MAX: usize = 1_024;
/// The longest line; what is longer is cut into several.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// The width of the longest usual name, `s1.timeguard`.
const NAME_WIDTH: usize = 12;
/// The name under which the supervisor itself speaks.
const OWN_NAME: &str = "up";
/// How long the last lines may take at the end.
const FLUSH_MAX: Duration = Duration::from_millis(200);
/// Colours of names, by turns.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];

/// Where lines go. Clones share one printer.
#[derive(Clone)]
pub(crate) struct Lines {
    sender: mpsc::Sender<Vec<u8>>,
    coloured: bool,
}

/// The thread that prints, by the end of it.
pub(crate) struct Printer(oneshot::Receiver<()>);

/// Starts printing to the standard error stream: on a thread of its own, since a terminal may be slow or stopped.
pub(crate) fn printer() -> io::Result<(Lines, Printer)> {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(LINES_MAX);
    let (ended, end) = oneshot::channel();
    let print = move || {
        while let Some(line) = receiver.blocking_recv() {
            // Without a standard error stream the children still have to get rid of their lines.
            let _ = io::stderr().lock().write_all(&line);
        }
        // A supervisor that does not wait any more has given up on the rest.
        let _ = ended.send(());
    };
    // Not joined: it ends when the last sender is gone, and `finish` does not wait for a terminal that is stopped.
    thread::Builder::new().name("printer".to_owned()).spawn(print)?;
    let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Ok((Lines { sender, coloured }, Printer(end)))
}

impl Printer {
    /// Waits for the last lines, when every sender is gone.
    pub(crate) async fn finish(self) {
        // Nobody can be told that the standard error stream is stuck.
        let _ = tokio::time::timeout(FLUSH_MAX, self.0).await;
    }
}

impl Lines {
    /// A line of the supervisor itself.
    pub(crate) async fn say(&self, text: &str) {
        for line in text.lines() {
            self.put(OWN_NAME, line.as_bytes()).await;
        }
    }

    /// Every line of a stream of a child, until it ends.
    pub(crate) async fn forward(&self, name: &str, stream: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.put(name, line.strip_suffix(b"\n").unwrap_or(&line)).await,
            }
        }
    }

    async fn put(&self, name: &str, text: &[u8]) {
        let mut line = prefix(name, self.coloured).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        // The printer outlives the senders; if it does not, there is nowhere to print.
        let _ = self.sender.send(line).await;
    }
}

fn prefix(name: &str, coloured: bool) -> String {
    if !coloured {
        return format!("{name:<NAME_WIDTH$} | ");
    }
    let sum = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    format!("\x1b[{}m{name:<NAME_WIDTH$} |\x1b[0m ", COLOURS[sum % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_line_has_the_name_of_its_child() {
        let (sender, mut receiver) = mpsc::channel(8);
        let lines = Lines { sender, coloured: false };
        lines.forward("s1.filesync", &b"one\ntwo"[..]).await;
        drop(lines);
        assert_eq!(receiver.recv().await.expect("a line"), b"s1.filesync  | one\n");
        assert_eq!(receiver.recv().await.expect("a line"), b"s1.filesync  | two\n");
        assert!(receiver.recv().await.is_none());
    }
}
