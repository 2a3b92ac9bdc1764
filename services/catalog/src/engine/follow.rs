//! Whether something that concerns firmware changed.

use std::time::Duration;

use lockstep_model::{
    Position, Revision,
    firmware::{FIRMWARE, SETTINGS_KEY},
};
use lockstep_registry::{Registry, RegistryError};

/// The least time between two looks, however much is committed by others.
const PACE: Duration = Duration::from_millis(100);
/// The wait while the registry does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far a loop has followed the registry.
#[derive(Debug, Default)]
pub(super) struct Follow {
    at: Option<Position>,
}

impl Follow {
    /// Whether updates or settings changed since the last call that succeeded; at first, and when it cannot be told, they did.
    pub(super) async fn changed(&mut self, registry: &impl Registry) -> Result<bool, RegistryError> {
        let head = registry.head().await?;
        let Some(at) = self.at.replace(head) else { return Ok(true) };
        if at == head {
            return Ok(false);
        }
        for prefix in [FIRMWARE, SETTINGS_KEY] {
            match registry.changes(at, prefix.to_owned(), 1).await {
                Ok(found) if found.changes.is_empty() && found.through.revision >= head.revision => {}
                Ok(_) | Err(RegistryError::Forked { .. } | RegistryError::TooOld { .. }) => return Ok(true),
                Err(error) => {
                    self.at = Some(at);
                    return Err(error);
                }
            }
        }
        Ok(false)
    }

    /// They have to be looked at again, whether they change or not.
    pub(super) fn doubt(&mut self) {
        self.at = None;
    }

    /// Waits until the registry moves; about a second at most.
    pub(super) async fn wait(&self, registry: &impl Registry) {
        let revision = self.at.map_or(Revision::ZERO, |at| at.revision);
        tokio::time::sleep(PACE).await;
        if self.at.is_none() || registry.wait_past(revision).await.is_err() {
            tokio::time::sleep(PATIENCE).await;
        }
    }
}
