//! How far a command is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::out;

/// At most one line in this time where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes that were sent, of all that are to be sent.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total_bytes: u64,
    sent_bytes: AtomicU64,
    started: Instant,
    last_line: Mutex<Instant>,
}

impl Progress {
    /// Begins at zero.
    pub(crate) fn new(total_bytes: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr_with_hz(10));
            let style = "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        let now = Instant::now();
        Self { bar, total_bytes, sent_bytes: AtomicU64::new(0), started: now, last_line: Mutex::new(now) }
    }

    /// More bytes were sent.
    pub(crate) fn add(&self, bytes: u64) {
        let sent = self.sent_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.bar {
            Some(bar) => bar.inc(bytes),
            None => self.line_if_due(sent),
        }
    }

    /// The end: the bar goes, one line remains.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let (sent, elapsed) = (self.sent_bytes.load(Ordering::Relaxed), self.started.elapsed());
        out::note(&format!(
            "sent {} in {}, {}/s",
            size(sent),
            out::duration(elapsed),
            size(rate(sent, elapsed))
        ));
    }

    fn line_if_due(&self, sent: u64) {
        let due = {
            let mut last = self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let due = last.elapsed() >= LINE_INTERVAL;
            if due {
                *last = Instant::now();
            }
            due
        };
        if due {
            out::note(&line(sent, self.total_bytes, self.started.elapsed()));
        }
    }
}

fn rate(bytes: u64, elapsed: Duration) -> u64 {
    (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64
}

fn size(bytes: u64) -> String {
    out::bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn line(sent: u64, total: u64, elapsed: Duration) -> String {
    let rate = rate(sent, elapsed);
    let left = total
        .saturating_sub(sent)
        .checked_div(rate)
        .map_or_else(|| "unknown time".to_owned(), |seconds| out::duration(Duration::from_secs(seconds)));
    format!("sent {} of {}, {}/s, {left} left", size(sent), size(total), size(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let text = line(1 << 30, 3 << 30, Duration::from_secs(64));
        assert_eq!(text, "sent 1.0 GiB of 3.0 GiB, 16.0 MiB/s, 2 min 8 s left");
        assert_eq!(line(0, 10, Duration::from_secs(1)), "sent 0 B of 10 B, 0 B/s, unknown time left");
    }
}
