//! The model: what is registered, what lies on each disk beside it, and what each operation does to both.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::Reason;
use lockstep_proto::filesync::v1::File;

use super::plan::{Operation, Seen};

/// A registered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) file_id: String,
    pub(super) digest: String,
    pub(super) revision: i64,
}

impl Live {
    pub(super) fn of(file: &File) -> Self {
        Self { file_id: file.file_id.clone(), digest: file.digest.clone(), revision: file.revision }
    }
}

/// What somebody left on the disk of one server. Bytes are named by their digest; no two have the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// Loose files, by path.
    pub(super) loose: BTreeMap<String, String>,
    /// Registered files with somebody's bytes in place of ours, by path.
    pub(super) drifted: BTreeMap<String, String>,
    /// Bytes of copies that moved before or after it was noticed that they had drifted: at the path, or set aside.
    pub(super) either: Vec<(String, String)>,
    /// Loose files in the way of a registered one: set aside when that one's bytes are there, so that they stay where they
    /// are if it is deleted or moved away before.
    pub(super) in_the_way: Vec<(String, String)>,
    /// Somebody's bytes that must have been set aside: digest and the path that they had.
    pub(super) aside: BTreeMap<String, String>,
    /// Bytes that rotted: they may be set aside, but are nobody's.
    pub(super) spoilt: BTreeSet<String>,
}

impl Disk {
    /// Whatever somebody left at the path, or above it, is in the way of a registered file: it is set aside.
    fn clear(&mut self, path: &str, digest: &str) {
        let in_the_way: Vec<String> =
            self.loose.keys().filter(|loose| *loose == path || is_below(path, loose)).cloned().collect();
        for loose in in_the_way {
            let found = self.loose.remove(&loose).expect("just seen");
            // What is the same is adopted.
            if loose != path || found != digest {
                self.in_the_way.push((loose, found));
            }
        }
        self.settle_drift(path);
    }

    /// The file has other bytes now, or none: what somebody put in its place is set aside.
    fn settle_drift(&mut self, path: &str) {
        if let Some(drifted) = self.drifted.remove(path) {
            self.aside.insert(drifted, path.to_owned());
        }
        let (here, elsewhere) = self.either.drain(..).partition(|(at, _)| at == path);
        self.either = elsewhere;
        let here: Vec<(String, String)> = here;
        self.aside.extend(here.into_iter().map(|(at, digest)| (digest, at)));
    }

    /// A loose file at the path or above it.
    fn blocks(&self, path: &str) -> bool {
        self.loose.keys().any(|loose| loose == path || is_below(path, loose))
    }
}

/// Everything there is.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) live: BTreeMap<String, Live>,
    pub(super) disks: BTreeMap<String, Disk>,
}

/// Whether `path` lies below the directory `directory`.
pub(super) fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

impl World {
    pub(super) fn new(servers: &[String]) -> Self {
        let disks = servers.iter().map(|server| (server.clone(), Disk::default())).collect();
        Self { live: BTreeMap::new(), disks }
    }

    /// Live files below a directory.
    pub(super) fn below(&self, directory: &str) -> Vec<String> {
        self.live.keys().filter(|path| is_below(path, directory)).cloned().collect()
    }

    /// What a caller that looked now would name of a file or directory.
    pub(super) fn seen(&self, path: &str) -> Seen {
        let below = self.below(path);
        let revisions = below.iter().map(|path| self.live[path].revision);
        Seen {
            revision: self.live.get(path).map_or(0, |live| live.revision).max(revisions.max().unwrap_or(0)),
            count: i64::try_from(below.len()).expect("few"),
        }
    }

    /// What may come of an operation: `None` if it is carried out.
    pub(super) fn outcomes(&self, operation: &Operation) -> Vec<Option<Reason>> {
        let mut outcomes = vec![self.refusal(operation)];
        let targets = match operation {
            Operation::Register { path, replaces: 0, .. } | Operation::InPlace { path, .. } => {
                vec![path.clone()]
            }
            Operation::Move { to, .. } => vec![to.clone()],
            Operation::MoveDirectory { path, to, .. } => {
                self.below(path).iter().map(|file| file.replacen(path, to, 1)).collect()
            }
            _ => Vec::new(),
        };
        let in_the_way = &self.disks[operation.server()].in_the_way;
        let meets = |target: &String| in_the_way.iter().any(|(at, _)| at == target || is_below(target, at));
        // The server may not have set it aside yet.
        if targets.iter().any(meets) {
            match operation {
                Operation::InPlace { .. } => outcomes.extend([None, Some(Reason::ContentNotFound)]),
                _ => outcomes.push(Some(Reason::LooseFileExists)),
            }
        }
        outcomes
    }

    /// Why the operation must be refused, if it must be.
    pub(super) fn refusal(&self, operation: &Operation) -> Option<Reason> {
        match operation {
            Operation::Register { server, path, replaces: 0, rename, .. } => match self.live.get(path) {
                Some(_) if *rename => None,
                Some(_) => Some(Reason::FileExists),
                None => self.obstacle(server, path),
            },
            Operation::Register { path, replaces, .. } => self.changed(path, *replaces),
            Operation::InPlace { server, path } => match self.live.get(path) {
                Some(_) => Some(Reason::FileExists),
                None if self.disks[server].loose.contains_key(path) => self.clash(path),
                None => Some(Reason::ContentNotFound),
            },
            Operation::Move { server, path, to, seen } => self.changed(path, *seen).or_else(|| {
                let taken = self.live.contains_key(to).then_some(Reason::FileExists);
                taken.or_else(|| self.obstacle(server, to))
            }),
            Operation::MoveDirectory { server, path, to, .. } => {
                let below = self.below(path);
                let targets = below.iter().map(|file| file.replacen(path, to, 1));
                below.is_empty().then_some(Reason::FileNotFound).or_else(|| {
                    let mut blocked = targets.filter_map(|target| self.obstacle(server, &target));
                    blocked.next()
                })
            }
            Operation::Delete { path, seen, .. } => self.changed(path, *seen),
            Operation::DeleteDirectory { path, .. } => {
                self.below(path).is_empty().then_some(Reason::FileNotFound)
            }
            Operation::Update { path, seen, .. } | Operation::Restore { path, seen, .. } => {
                self.changed(path, *seen)
            }
        }
    }

    fn changed(&self, path: &str, seen: i64) -> Option<Reason> {
        match self.live.get(path) {
            None => Some(Reason::FileNotFound),
            Some(live) if live.revision != seen => Some(Reason::RevisionChanged),
            Some(_) => None,
        }
    }

    /// What is in the way of a new path on the server that is asked.
    pub(super) fn obstacle(&self, server: &str, path: &str) -> Option<Reason> {
        self.clash(path).or_else(|| self.disks[server].blocks(path).then_some(Reason::LooseFileExists))
    }

    /// A directory in the place of the file, a file in the place of a directory, or another spelling.
    fn clash(&self, path: &str) -> Option<Reason> {
        let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let wanted = parts(path);
        let clashes = |live: &String| {
            let live = parts(live);
            let same = live.iter().zip(&wanted).take_while(|(a, b)| a.to_lowercase() == b.to_lowercase());
            let count = same.clone().count();
            let shorter = live.len().min(wanted.len());
            same.take(count).any(|(a, b)| a != b) || (count == shorter && live.len() != wanted.len())
        };
        self.live.keys().any(clashes).then_some(Reason::PathConflict)
    }

    /// The operation was carried out.
    pub(super) fn apply(&mut self, operation: &Operation, answer: &Answer) {
        match (operation, answer) {
            (Operation::Register { server, .. } | Operation::InPlace { server, .. }, Answer::File(file)) => {
                let is_in_place = matches!(operation, Operation::InPlace { .. });
                for (id, disk) in &mut self.disks {
                    match id == server && is_in_place {
                        true => {
                            disk.loose.remove(&file.path);
                            disk.in_the_way.retain(|(_, digest)| *digest != file.digest);
                        }
                        false => disk.clear(&file.path, &file.digest),
                    }
                }
                self.live.insert(file.path.clone(), Live::of(file));
            }
            (Operation::Move { path, .. }, Answer::File(file)) => {
                let before = self.live.remove(path).expect("it was live");
                assert_eq!(
                    (&before.file_id, &before.digest),
                    (&file.file_id, &file.digest),
                    "R38: {operation:?}"
                );
                self.moved(path, &file.path, Live::of(file));
            }
            (Operation::MoveDirectory { path, to, .. }, Answer::Revision(revision)) => {
                for file in self.below(path) {
                    let before = self.live.remove(&file).expect("it was live");
                    let target = file.replacen(path, to, 1);
                    self.moved(&file, &target, Live { revision: *revision, ..before });
                }
            }
            (Operation::Delete { path, .. }, Answer::Revision(_)) => self.deleted(path),
            (Operation::DeleteDirectory { path, .. }, Answer::Revision(_)) => {
                self.below(path).iter().for_each(|file| self.deleted(file));
            }
            (Operation::Update { server, path, .. }, Answer::File(file)) => {
                let disk = self.disks.get_mut(server).expect("a server");
                if let Some(drifted) = disk.drifted.remove(path) {
                    assert_eq!(drifted, file.digest, "R30: {operation:?}");
                    self.disks.values_mut().for_each(|disk| disk.settle_drift(path));
                } else {
                    assert_eq!(self.live[path], Live::of(file), "{operation:?}: nothing had drifted");
                }
                self.live.insert(path.clone(), Live::of(file));
            }
            (Operation::Restore { server, path, .. }, Answer::File(file)) => {
                assert_eq!(self.live[path], Live::of(file), "{operation:?} changes no record");
                self.disks.get_mut(server).expect("a server").settle_drift(path);
            }
            _ => panic!("{operation:?} was answered with {answer:?}"),
        }
    }

    fn moved(&mut self, from: &str, to: &str, live: Live) {
        for disk in self.disks.values_mut() {
            disk.clear(to, &live.digest);
            if let Some(drifted) = disk.drifted.remove(from) {
                disk.either.push((to.to_owned(), drifted));
            }
            disk.either.iter_mut().filter(|(at, _)| at == from).for_each(|(at, _)| to.clone_into(at));
        }
        self.live.insert(to.to_owned(), live);
    }

    fn deleted(&mut self, path: &str) {
        self.live.remove(path);
        self.disks.values_mut().for_each(|disk| disk.settle_drift(path));
    }
}

/// What an operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The file as it is now.
    File(Box<File>),
    /// The revision of the change of a directory, or of a deletion.
    Revision(i64),
}
