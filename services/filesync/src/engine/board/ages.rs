//! Since when what is known of all copies is known.

use tokio::time::Instant;

use super::Board;

impl Board {
    /// Every copy was compared with its record since then.
    pub fn compared(&self, since: Instant) {
        self.change(|state| state.compared = Some(since));
    }

    /// Since when every copy was compared with its record; `None` if this process did not come to all of them yet.
    pub fn compared_since(&self) -> Option<Instant> {
        self.state().compared
    }

    /// Every copy was read and hashed again since then.
    pub fn hashed(&self, since: Instant) {
        self.change(|state| state.hashed = Some(since));
    }
}
