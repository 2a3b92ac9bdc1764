//! What happened, in order: every message, every commit, every final name. One seed has one trace.

use std::sync::{Arc, Mutex, PoisonError};

/// A log in virtual time. Clones share it. It keeps nothing unless it is told to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Arc<Mutex<Vec<String>>>>,
}

impl Trace {
    /// One that keeps everything.
    pub(crate) fn kept() -> Self {
        Self { lines: Some(Arc::default()) }
    }

    /// Notes what `host` did.
    pub(crate) fn note(&self, host: &str, what: impl FnOnce() -> String) {
        let Some(lines) = &self.lines else { return };
        let at = turmoil::sim_elapsed().unwrap_or_default();
        let line = format!("{:>12?} {host:<8} {}", at, what());
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Everything so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines =
            self.lines.as_ref().map(|lines| lines.lock().unwrap_or_else(PoisonError::into_inner).clone());
        lines.unwrap_or_default()
    }
}

/// A few characters that stand for bytes.
pub(crate) fn brief(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..12].to_owned()
}
