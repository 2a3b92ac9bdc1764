//! Comparing a copy with what was verified: drift, loss and rot are told apart here (R31, R45, decision 7).

use lockstep_model::Digest;

use crate::domain::held::{Held, Stat};

/// What lies at the path of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Absent,
    /// Something that is no regular file.
    Foreign(&'static str),
    /// A file that looks like this.
    File(Stat),
}

/// What can be said without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It looks as it did when it was verified.
    Same,
    /// It looks otherwise; its bytes tell what it is.
    Changed,
    /// It vanished.
    Lost,
    /// Somebody put something else there.
    Replaced(&'static str),
}

/// What a comparison led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The bytes are the registered ones.
    Right,
    /// Somebody changed them: they are left alone.
    Drifted,
    /// They vanished: they are fetched again.
    Lost,
    /// They changed behind unchanged times: they are fetched again.
    Corrupt,
    /// They had been given up, and are right again.
    Recovered,
    /// It changed while it was looked at, or the registry is ahead: the next look decides.
    Unsettled,
}

/// Compares from outside. The change time counts here, so that whoever sets the other times back is noticed.
pub fn compare(held: &Held, seen: Seen) -> Look {
    match seen {
        Seen::Absent => Look::Lost,
        Seen::Foreign(what) => Look::Replaced(what),
        Seen::File(stat) if stat == held.stat => Look::Same,
        Seen::File(_) => Look::Changed,
    }
}

/// Judges bytes that were read: other times say that somebody wrote them, the same times that the disk did.
pub fn judge(held: &Held, digest: Digest, stat: &Stat) -> Finding {
    if digest == held.digest {
        Finding::Right
    } else if stat.same_content(&held.stat) {
        Finding::Corrupt
    } else {
        Finding::Drifted
    }
}

#[cfg(test)]
mod tests {
    use lockstep_model::{FileId, Revision, clock::SystemEntropy};

    use super::*;

    fn held() -> Held {
        let stat = Stat { size_bytes: 1, modified_ns: 10, changed_ns: 20 };
        let file_id = FileId::random(&SystemEntropy);
        Held { file_id, revision: Revision(1), digest: Digest::of(b"a"), stat }
    }

    #[test]
    fn what_looks_the_same_is_not_read() {
        let held = held();
        assert_eq!(compare(&held, Seen::File(held.stat)), Look::Same);
        assert_eq!(compare(&held, Seen::Absent), Look::Lost);
        assert_eq!(compare(&held, Seen::Foreign("a link")), Look::Replaced("a link"));
        for other in [
            Stat { size_bytes: 2, ..held.stat },
            Stat { modified_ns: 11, ..held.stat },
            Stat { changed_ns: 21, ..held.stat },
        ] {
            assert_eq!(compare(&held, Seen::File(other)), Look::Changed);
        }
    }

    /// R31, R45: bytes that changed behind unchanged times are rot, others are somebody's.
    #[test]
    fn rot_is_not_drift() {
        let held = held();
        let (ours, theirs) = (Digest::of(b"a"), Digest::of(b"b"));
        let touched = Stat { modified_ns: 11, ..held.stat };
        let set_back = Stat { changed_ns: 21, ..held.stat };
        assert_eq!(judge(&held, ours, &touched), Finding::Right);
        assert_eq!(judge(&held, theirs, &touched), Finding::Drifted);
        assert_eq!(judge(&held, theirs, &held.stat), Finding::Corrupt);
        assert_eq!(judge(&held, theirs, &set_back), Finding::Corrupt);
    }
}
