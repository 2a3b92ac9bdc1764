//! Whether somebody still works on an update: whoever watches compares what it saw with what it sees, by its own time.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::FirmwareId;

use crate::domain::{Moment, note::DownloadNote};

/// What was seen of the notes of updates that somebody works on. No clock but one's own is in it (R63).
#[derive(Debug, Default)]
pub struct Vigil {
    seen: BTreeMap<FirmwareId, (Option<(String, u64)>, Moment)>,
}

impl Vigil {
    /// For how long the note of `id` has not changed before the eyes of this watcher. No note counts as one that does not
    /// change: its writer may have died before it wrote.
    pub fn silence(&mut self, id: FirmwareId, note: Option<&DownloadNote>, now: Moment) -> Moment {
        let sign = note.map(|note| (note.instance.clone(), note.beat));
        let seen = self.seen.entry(id).or_insert_with(|| (sign.clone(), now));
        if seen.0 != sign {
            *seen = (sign, now);
        }
        now.saturating_sub(seen.1)
    }

    /// Forgets all but these.
    pub fn retain(&mut self, ids: &BTreeSet<FirmwareId>) {
        self.seen.retain(|id, _| ids.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn note(instance: &str, beat: u64) -> DownloadNote {
        DownloadNote { instance: instance.to_owned(), beat, ..DownloadNote::default() }
    }

    /// R58, R63: silence is counted from when this watcher saw the last change, whatever anybody's clock says.
    #[test]
    fn silence_is_what_the_watcher_itself_did_not_hear() {
        let id = "00000000-0000-0000-0000-000000000001".parse().expect("an id");
        let mut vigil = Vigil::default();
        let at = Duration::from_secs;
        assert_eq!(vigil.silence(id, None, at(5)), at(0));
        assert_eq!(vigil.silence(id, None, at(20)), at(15), "no note is silence, too");
        assert_eq!(vigil.silence(id, Some(&note("a", 7)), at(21)), at(0));
        assert_eq!(vigil.silence(id, Some(&note("a", 7)), at(50)), at(29));
        assert_eq!(vigil.silence(id, Some(&note("a", 6)), at(51)), at(0), "any change is a sign of life");
        assert_eq!(vigil.silence(id, Some(&note("b", 6)), at(60)), at(0), "of whomever");
        vigil.retain(&BTreeSet::new());
        assert_eq!(vigil.silence(id, Some(&note("b", 6)), at(90)), at(0));
    }
}
