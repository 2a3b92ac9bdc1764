//! From changes to actions: a pure function of what the registry says and what is held.

use std::collections::BTreeMap;

use lockstep_model::{Digest, FilePath, Revision};

use crate::domain::held::{Held, Wanted};

/// A change of one file, as far as this server is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file should be held.
    Active(Wanted),
    /// The file should be gone.
    Deleted {
        /// Where it was.
        path: FilePath,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Change {
    /// The path it is about.
    pub fn path(&self) -> &FilePath {
        match self {
            Self::Active(wanted) => &wanted.path,
            Self::Deleted { path, .. } => path,
        }
    }

    /// The revision that it is about.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Active(wanted) => wanted.revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// These are our bytes, by now out of date: remove them.
    Delete {
        /// Where.
        path: FilePath,
        /// What is held there.
        digest: Digest,
    },
    /// The right bytes are held already: note the revision.
    Adopt {
        /// Where.
        path: FilePath,
        /// The revision whose bytes these are.
        revision: Revision,
    },
    /// The bytes are missing: they become an exception, and the fetch works on it.
    Fetch(Wanted),
    /// Whatever was missing at the path is not wanted any more.
    Forget {
        /// Where.
        path: FilePath,
    },
}

/// The actions for changes in commit order; the last change of a path decides. Deletions come first, so that they never
/// wait for a copy.
pub fn plan<'a>(changes: Vec<Change>, held: impl Fn(&FilePath) -> Option<&'a Held>) -> Vec<Action> {
    let latest: BTreeMap<FilePath, Change> =
        changes.into_iter().map(|change| (change.path().clone(), change)).collect();
    let (mut first, mut then) = (Vec::new(), Vec::new());
    for (path, change) in latest {
        match (change, held(&path)) {
            // What this server registered itself is ahead of what it follows: nothing older concerns it (I3).
            (change, Some(held)) if held.revision > change.revision() => {}
            (Change::Deleted { .. }, None) => then.push(Action::Forget { path }),
            (Change::Deleted { .. }, Some(held)) => {
                first.push(Action::Delete { path: path.clone(), digest: held.digest });
                then.push(Action::Forget { path });
            }
            (Change::Active(wanted), Some(held)) if is(held, &wanted) => {
                then.push(Action::Adopt { path, revision: wanted.revision });
            }
            (Change::Active(wanted), Some(held)) => {
                // Another object took the path: the old bytes were deleted in between.
                first.push(Action::Delete { path, digest: held.digest });
                then.push(Action::Fetch(wanted));
            }
            (Change::Active(wanted), None) => then.push(Action::Fetch(wanted)),
        }
    }
    first.append(&mut then);
    first
}

fn is(held: &Held, wanted: &Wanted) -> bool {
    held.file_id == wanted.file_id && held.digest == wanted.digest
}

#[cfg(test)]
mod tests {
    use lockstep_model::{FileId, Md5, clock::SystemEntropy};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::held::Stat;

    fn wanted(path: &str, revision: u64, content: u8, file_id: FileId) -> Wanted {
        Wanted {
            path: path.parse().expect("valid"),
            file_id,
            revision: Revision(revision),
            digest: Digest::of(&[content]),
            md5: Md5::from_bytes([content; 16]),
            size_bytes: 1,
            registered_time: jiff::Timestamp::UNIX_EPOCH,
            origin: "s1".parse().expect("valid"),
            traceparent: String::new(),
        }
    }

    fn held_of(wanted: &Wanted) -> Held {
        let stat = Stat { size_bytes: 1, modified_ns: 0, changed_ns: 0 };
        Held { file_id: wanted.file_id, revision: wanted.revision, digest: wanted.digest, stat }
    }

    /// Carries out a plan on a model of the disk in which every fetch succeeds.
    fn carry_out(actions: Vec<Action>, disk: &mut BTreeMap<FilePath, Held>) {
        for action in actions {
            match action {
                Action::Delete { path, digest } => {
                    assert_eq!(disk.remove(&path).map(|held| held.digest), Some(digest))
                }
                Action::Adopt { path, revision } => disk.get_mut(&path).expect("held").revision = revision,
                Action::Fetch(wanted) => {
                    assert!(disk.insert(wanted.path.clone(), held_of(&wanted)).is_none())
                }
                Action::Forget { path } => assert!(!disk.contains_key(&path)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// I3, I4, R32, R33: however the history is cut into pages, the disk ends as the registry says, and nothing
        /// that was deleted is there.
        #[test]
        fn any_cut_of_the_history_ends_the_same(
            steps in prop::collection::vec((0usize..4, any::<bool>(), 0u8..3), 1..40),
            cuts in prop::collection::vec(1usize..6, 40),
        ) {
            let paths = ["a", "b/c", "b/d", "e"];
            let mut truth: BTreeMap<FilePath, Wanted> = BTreeMap::new();
            let mut history = Vec::new();
            for (revision, (which, delete, content)) in steps.into_iter().enumerate() {
                let path: FilePath = paths[which].parse().expect("valid");
                let revision = revision as u64 + 1;
                match (delete, truth.contains_key(&path)) {
                    (true, true) => {
                        truth.remove(&path);
                        history.push(Change::Deleted { path, revision: Revision(revision) });
                    }
                    (false, false) => {
                        let new = wanted(paths[which], revision, content, FileId::random(&SystemEntropy));
                        truth.insert(path, new.clone());
                        history.push(Change::Active(new));
                    }
                    _ => {}
                }
            }
            let mut disk = BTreeMap::new();
            let mut cuts = cuts.into_iter();
            while !history.is_empty() {
                let page: Vec<Change> = history.drain(..cuts.next().unwrap_or(1).min(history.len())).collect();
                let before = disk.clone();
                carry_out(plan(page, |path| before.get(path)), &mut disk);
            }
            let expected: BTreeMap<FilePath, Held> = truth.iter().map(|(path, w)| (path.clone(), held_of(w))).collect();
            prop_assert_eq!(disk, expected);
        }
    }

    /// I1, I3: a server that is behind, and registered a path anew whose deletion it has not followed yet, keeps its bytes:
    /// it may be the only one that has them.
    #[test]
    fn nothing_older_touches_what_was_registered_here_since() {
        let ahead = wanted("a", 9, 9, FileId::random(&SystemEntropy));
        let held = held_of(&ahead);
        let older = Change::Active(wanted("a", 3, 1, FileId::random(&SystemEntropy)));
        let deleted = Change::Deleted { path: ahead.path.clone(), revision: Revision(5) };
        for page in [vec![older.clone()], vec![deleted.clone()], vec![older, deleted]] {
            assert_eq!(plan(page, |_| Some(&held)), []);
        }
        let own = Action::Adopt { path: ahead.path.clone(), revision: Revision(9) };
        assert_eq!(plan(vec![Change::Active(ahead)], |_| Some(&held)), [own]);
    }

    /// R32: deletions never wait behind copies.
    #[test]
    fn deletions_come_first() {
        let old = wanted("z", 1, 1, FileId::random(&SystemEntropy));
        let held = held_of(&old);
        let changes = vec![
            Change::Active(wanted("a", 2, 2, FileId::random(&SystemEntropy))),
            Change::Deleted { path: old.path.clone(), revision: Revision(3) },
        ];
        let actions = plan(changes, |path| (*path == old.path).then_some(&held));
        assert!(matches!(actions[0], Action::Delete { .. }), "{actions:?}");
    }
}
