//! From changes to actions: a pure function of what the registry says and what is held.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::{Digest, FileId, FilePath, Revision};

use crate::domain::held::{Held, Wanted};

/// A change of one file, as far as this server is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file should be held.
    Active(Wanted),
    /// The file is meant for others: a copy that is here stays, and none is made.
    Elsewhere(Wanted),
    /// The file should be gone: what it was, at the revision that ended it.
    Deleted(Wanted),
}

impl Change {
    /// The path it is about.
    pub fn path(&self) -> &FilePath {
        match self {
            Self::Active(wanted) | Self::Elsewhere(wanted) | Self::Deleted(wanted) => &wanted.path,
        }
    }

    /// The revision that it is about.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Active(wanted) | Self::Elsewhere(wanted) | Self::Deleted(wanted) => wanted.revision,
        }
    }

    /// What the file is from then on; `None` if it is gone.
    pub fn living(&self) -> Option<&Wanted> {
        match self {
            Self::Active(wanted) | Self::Elsewhere(wanted) => Some(wanted),
            Self::Deleted(_) => None,
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
    /// The file has another path by now, and its bytes are held under an old one: rename them (R38).
    Move {
        /// Where they are.
        from: FilePath,
        /// What they are at their new path.
        wanted: Wanted,
    },
    /// The right bytes are held already: note the revision.
    Adopt {
        /// Where.
        path: FilePath,
        /// The revision whose bytes these are.
        revision: Revision,
    },
    /// The right bytes are held, or will be by a move, although the file is meant for others: they stay, and that is noted.
    Keep(Wanted),
    /// The bytes are missing: they become an exception, and the fetch works on it. Older bytes of the same file stay until
    /// then, so that a reader sees the old ones or the new ones.
    Fetch(Wanted),
    /// Whatever was missing at the path is not wanted any more.
    Forget {
        /// Where.
        path: FilePath,
    },
}

/// The actions for changes in commit order; the last change of a path decides. Deletions come first, so that they never
/// wait for a copy, then moves, each after the one that makes room for it.
pub fn plan<'a>(changes: Vec<Change>, held: impl Fn(&FilePath) -> Option<&'a Held>) -> Vec<Action> {
    let latest: BTreeMap<FilePath, Change> =
        changes.into_iter().map(|change| (change.path().clone(), change)).collect();
    let mut moves = moves(&latest, &held);
    let moved: BTreeSet<FilePath> = moves.values().cloned().collect();
    let (mut first, mut then) = (Vec::new(), Vec::new());
    for (path, change) in &latest {
        let path = path.clone();
        let delete = |held: &Held| Action::Delete { path: path.clone(), digest: held.digest };
        match (change, held(&path)) {
            // What this server registered itself is ahead of what it follows: nothing older concerns it (I3).
            (change, Some(held)) if held.revision > change.revision() => {}
            (Change::Deleted(_), held) => {
                first.extend(held.filter(|_| !moved.contains(&path)).map(delete));
                then.push(Action::Forget { path });
            }
            (Change::Active(wanted), Some(held)) if is(held, wanted) => {
                then.push(Action::Adopt { path, revision: wanted.revision });
            }
            (Change::Elsewhere(wanted), Some(held)) if is(held, wanted) => {
                then.push(Action::Keep(wanted.clone()))
            }
            (Change::Elsewhere(wanted), held) => {
                // What is not the file as it is now is no copy of it.
                first.extend(held.filter(|_| !moved.contains(&path)).map(delete));
                then.push(match moves.contains_key(&path) {
                    true => Action::Keep(wanted.clone()),
                    false => Action::Forget { path },
                });
            }
            (Change::Active(wanted), held) => {
                // Another object took the path: the old bytes were deleted in between.
                let other = held.filter(|held| held.file_id != wanted.file_id && !moved.contains(&path));
                first.extend(other.map(delete));
                if !moves.contains_key(&path) {
                    then.push(Action::Fetch(wanted.clone()));
                }
            }
        }
    }
    while !moves.is_empty() {
        let free = moves.keys().find(|to| !moves.values().any(|from| from == *to));
        // Files that changed places in a ring: the first one steps aside, which is not decided here.
        let Some(to) = free.or_else(|| moves.keys().next()).cloned() else { break };
        if let Some(from) = moves.remove(&to)
            && let Some(wanted) = latest.get(&to).and_then(Change::living)
        {
            first.push(Action::Move { from, wanted: wanted.clone() });
        }
    }
    first.append(&mut then);
    first
}

/// Where bytes that leave their path are wanted: from the new path to the old one.
fn moves<'a>(
    latest: &BTreeMap<FilePath, Change>,
    held: &impl Fn(&FilePath) -> Option<&'a Held>,
) -> BTreeMap<FilePath, FilePath> {
    let mut leaving: BTreeMap<FileId, (&FilePath, &Held)> = BTreeMap::new();
    for (path, change) in latest {
        let stays = |held: &Held| change.living().is_some_and(|wanted| wanted.file_id == held.file_id);
        if let Some(held) = held(path).filter(|held| held.revision <= change.revision() && !stays(held)) {
            leaving.insert(held.file_id, (path, held));
        }
    }
    let mut moves = BTreeMap::new();
    for (path, change) in latest {
        let Some(wanted) = change.living() else { continue };
        let stays =
            held(path).is_some_and(|held| held.file_id == wanted.file_id || held.revision > wanted.revision);
        if !stays && let Some((from, _)) = leaving.get(&wanted.file_id).filter(|(_, held)| is(held, wanted)) {
            moves.insert(path.clone(), (*from).clone());
        }
    }
    moves
}

fn is(held: &Held, wanted: &Wanted) -> bool {
    held.file_id == wanted.file_id && held.digest == wanted.digest
}

#[cfg(test)]
mod tests {
    use lockstep_model::{FileId, Md5, clock::SystemEntropy, record::Placement};
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
            placement: Placement::All,
            traceparent: String::new(),
        }
    }

    fn switched(placement: Placement) -> Placement {
        match placement {
            Placement::All => Placement::OriginOnly { reason: lockstep_model::Reason::OptionOff },
            Placement::OriginOnly { .. } => Placement::All,
        }
    }

    /// As a server sees it that is not the origin.
    fn living(wanted: Wanted) -> Change {
        match wanted.placement {
            Placement::All => Change::Active(wanted),
            Placement::OriginOnly { .. } => Change::Elsewhere(wanted),
        }
    }

    fn held_of(wanted: &Wanted) -> Held {
        let stat = Stat { size_bytes: 1, modified_ns: 0, changed_ns: 0 };
        Held { file_id: wanted.file_id, revision: wanted.revision, digest: wanted.digest, stat }
    }

    /// Carries out a plan on a model of the disk in which every fetch succeeds; answers what was fetched.
    fn carry_out(actions: Vec<Action>, disk: &mut BTreeMap<FilePath, Held>) -> Vec<Wanted> {
        let (mut aside, mut fetched) = (BTreeMap::new(), Vec::new());
        for action in actions {
            match action {
                Action::Delete { path, digest } => {
                    assert_eq!(disk.remove(&path).map(|held| held.digest), Some(digest))
                }
                Action::Move { from, wanted } => {
                    let held = aside.remove(&from).or_else(|| disk.remove(&from)).expect("held");
                    assert_eq!((held.file_id, held.digest), (wanted.file_id, wanted.digest));
                    // In a ring one steps aside.
                    if let Some(other) = disk.insert(wanted.path.clone(), held_of(&wanted)) {
                        aside.insert(wanted.path.clone(), other);
                    }
                }
                Action::Adopt { path, revision } => disk.get_mut(&path).expect("held").revision = revision,
                Action::Fetch(wanted) => {
                    let old = disk.insert(wanted.path.clone(), held_of(&wanted));
                    assert!(
                        old.is_none_or(|old| old.file_id == wanted.file_id),
                        "only older bytes are replaced"
                    );
                    fetched.push(wanted);
                }
                Action::Keep(wanted) => disk.get_mut(&wanted.path).expect("held").revision = wanted.revision,
                Action::Forget { path } => assert!(!disk.contains_key(&path)),
            }
        }
        assert!(aside.is_empty(), "{aside:?}");
        fetched
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// I3, I4, R12, R29, R32, R33, R36, R38: however the history of registrations, replacements, moves, placements and
        /// deletions is cut into pages, the disk ends as the registry says, nothing that was deleted is there, and what only
        /// moved is not fetched. What is meant for others is not fetched either, and stays where it is right.
        #[test]
        fn any_cut_of_the_history_ends_the_same(
            steps in prop::collection::vec((0usize..4, 0usize..4, 0u8..7, 0u8..3), 1..40),
            cuts in prop::collection::vec(1usize..6, 40),
        ) {
            let paths = ["a", "b/c", "b/d", "e"].map(|path| path.parse::<FilePath>().expect("valid"));
            let mut truth: BTreeMap<FilePath, Wanted> = BTreeMap::new();
            let mut history: Vec<Vec<Change>> = Vec::new();
            for (revision, (which, other, what, content)) in steps.into_iter().enumerate() {
                let (path, other) = (paths[which].clone(), paths[other].clone());
                let at = Revision(revision as u64 + 1);
                let new = |path: &FilePath, content, id| wanted(path.as_str(), at.0, content, id);
                history.push(match (what, truth.get(&path).cloned()) {
                    (_, None) => {
                        let new = new(&path, content, FileId::random(&SystemEntropy));
                        truth.insert(path, new.clone());
                        vec![living(new)]
                    }
                    (6, Some(old)) => {
                        let new = Wanted { revision: at, placement: switched(old.placement), ..old };
                        truth.insert(path, new.clone());
                        vec![living(new)]
                    }
                    (0, Some(_)) => {
                        let old = truth.remove(&path).expect("there");
                        vec![Change::Deleted(Wanted { revision: at, ..old })]
                    }
                    (1, Some(old)) => {
                        let new = Wanted { placement: old.placement, ..new(&path, content, old.file_id) };
                        truth.insert(path, new.clone());
                        vec![living(new)]
                    }
                    (_, Some(old)) if !truth.contains_key(&other) => {
                        truth.remove(&path);
                        let new = Wanted { path: other.clone(), revision: at, ..old.clone() };
                        truth.insert(other, new.clone());
                        vec![Change::Deleted(Wanted { revision: at, ..old }), living(new)]
                    }
                    _ => continue,
                });
            }
            let mut disk = BTreeMap::new();
            let mut cuts = cuts.into_iter();
            while !history.is_empty() {
                let page = history.drain(..cuts.next().unwrap_or(1).min(history.len()));
                let page: Vec<Change> = page.flatten().collect();
                let before = disk.clone();
                let last: BTreeMap<FilePath, Change> =
                    page.iter().map(|change| (change.path().clone(), change.clone())).collect();
                let there = |wanted: &Wanted| before.values().any(|held: &Held| is(held, wanted));
                let fetched = carry_out(plan(page, |path| before.get(path)), &mut disk);
                prop_assert!(!fetched.iter().any(there), "what is there is not fetched");
                for wanted in last.values().filter_map(|change| match change {
                    Change::Elsewhere(wanted) => Some(wanted),
                    _ => None,
                }) {
                    let held = disk.get(&wanted.path);
                    prop_assert!(held == Some(&held_of(wanted)) || held.is_none() && !there(wanted), "{wanted:?} {held:?}");
                }
            }
            for (path, wanted) in &truth {
                let held = disk.remove(path);
                let may_lack = wanted.placement != Placement::All && held.is_none();
                prop_assert!(may_lack || held == Some(held_of(wanted)), "{} {:?}", path, held);
            }
            prop_assert!(disk.is_empty(), "{:?}", disk);
        }
    }

    /// R29: until the new bytes are there, the old ones stay.
    #[test]
    fn replaced_bytes_stay_until_the_new_ones_come() {
        let old = wanted("a", 1, 1, FileId::random(&SystemEntropy));
        let held = held_of(&old);
        let new = wanted("a", 2, 2, old.file_id);
        assert_eq!(plan(vec![Change::Active(new.clone())], |_| Some(&held)), [Action::Fetch(new)]);
    }

    /// I1, I3: a server that is behind, and registered a path anew whose deletion it has not followed yet, keeps its bytes:
    /// it may be the only one that has them.
    #[test]
    fn nothing_older_touches_what_was_registered_here_since() {
        let ahead = wanted("a", 9, 9, FileId::random(&SystemEntropy));
        let held = held_of(&ahead);
        let older = Change::Active(wanted("a", 3, 1, FileId::random(&SystemEntropy)));
        let deleted = Change::Deleted(Wanted { revision: Revision(5), ..ahead.clone() });
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
            Change::Deleted(Wanted { revision: Revision(3), ..old.clone() }),
        ];
        let actions = plan(changes, |path| (*path == old.path).then_some(&held));
        assert!(matches!(actions[0], Action::Delete { .. }), "{actions:?}");
    }
}
