//! The note that whoever works on an update writes, and what it learns from the notes of others.

use std::time::Duration;

use super::{Engine, progress::Progress, records::Update};
use crate::{
    domain::note::{DownloadNote, download_key},
    ports::Ports,
};
use lockstep_registry::Registry as _;

/// How often a note moves.
const BEAT: Duration = Duration::from_secs(1);

/// Why the work on an update ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The update is in another state, or no more.
    Moved,
    /// Another instance works on it.
    ToAnother,
}

/// The last note of somebody else that was seen.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    seen: Option<(String, u64)>,
}

impl Rivals {
    /// What was there before the work began says nothing.
    pub(super) fn of(note: Option<&DownloadNote>) -> Self {
        Self { seen: note.map(|note| (note.instance.clone(), note.beat)) }
    }

    /// Whether somebody else is alive who goes before `instance`. Of two, exactly one goes on, and both agree which.
    fn go_before(&mut self, note: Option<&DownloadNote>, instance: &str) -> bool {
        let Some(note) = note.filter(|note| note.instance != instance) else { return false };
        let sign = Some((note.instance.clone(), note.beat));
        let is_alive = self.seen != sign;
        self.seen = sign;
        is_alive && note.instance.as_str() < instance
    }
}

impl<P: Ports> Engine<P> {
    /// Writes the note of an update until the work on it has to end.
    pub(super) async fn beat(&self, update: &Update, progress: &Progress, rivals: &mut Rivals) -> Left {
        loop {
            // While the registry does not answer, the work goes on: two at once do no harm.
            if let Ok(note) = self.note_of(update.id).await
                && rivals.go_before(note.as_ref(), &self.inner.instance)
            {
                tracing::info!(firmware_id = %update.id, "another instance works on a firmware update");
                return Left::ToAnother;
            }
            let note = progress.beat(self.now(), &update.record.files);
            let body = serde_json::to_string(&note).unwrap_or_default();
            if let Err(error) = self.registry().put_note(download_key(update.id), body).await {
                tracing::debug!(%error, firmware_id = %update.id, "the note of a download cannot be written");
            }
            tokio::time::sleep(BEAT).await;
            match self.find(update.id).await {
                Ok(Some(now)) if now.record.state == update.record.state => {}
                Ok(_) => return Left::Moved,
                Err(error) => {
                    tracing::debug!(%error, firmware_id = %update.id, "a firmware update cannot be read")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(instance: &str, beat: u64) -> DownloadNote {
        DownloadNote { instance: instance.to_owned(), beat, ..DownloadNote::default() }
    }

    /// R58: of two instances that work on one update, both agree who goes on; a note that was left over stops nobody.
    #[test]
    fn of_two_one_goes_on() {
        let left_over = note("a", 3);
        let mut rivals = Rivals::of(Some(&left_over));
        assert!(!rivals.go_before(Some(&left_over), "b"));
        assert!(rivals.go_before(Some(&note("a", 4)), "b"));
        let mut rivals = Rivals::of(None);
        assert!(!rivals.go_before(Some(&note("b", 1)), "a"));
        assert!(!rivals.go_before(Some(&note("b", 2)), "a"));
        assert!(!rivals.go_before(Some(&note("a", 9)), "a"), "one's own");
        assert!(!rivals.go_before(None, "a"));
    }
}
