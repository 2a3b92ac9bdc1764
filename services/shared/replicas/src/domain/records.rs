//! What should exist: the registered files and the servers, as the registry had them at one position.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use lockstep_model::{
    FileId, Position, Reason, Revision, ServerId,
    record::{Placement, ServerRecord},
    version,
};

use crate::domain::{
    cause::Cause,
    cell::Asked,
    history::History,
    tally::{Sum, Tally},
};

/// A registered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// The revision that every server should hold.
    pub revision: Revision,
    /// Size of the content.
    pub size_bytes: u64,
    /// The server it was registered on.
    pub origin: Arc<ServerId>,
    /// Which servers should hold it.
    pub placement: Placement,
    /// The object: another one at the same path has another.
    pub file_id: FileId,
}

impl FileEntry {
    /// Whether `server` should hold it, if it takes part.
    pub fn is_meant_for(&self, server: &ServerId) -> bool {
        self.placement.excludes(server, &self.origin).is_none()
    }

    /// The file, as the cell rule looks at it for one server.
    pub fn asked<'a>(&self, path: &'a str, server: &ServerId) -> Asked<'a> {
        Asked { path, revision: self.revision, elsewhere: self.placement.excludes(server, &self.origin) }
    }
}

/// What a record says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Size of the content.
    pub size_bytes: u64,
    /// The server it was registered on.
    pub origin: ServerId,
    /// Which servers should hold it.
    pub placement: Placement,
    /// The object.
    pub file_id: FileId,
}

/// What the registry says of one key.
#[derive(Clone, Debug)]
pub enum Change {
    /// A file is registered, or is no more.
    File(String, Option<Registered>),
    /// A server announced itself, or was forgotten.
    Server(ServerId, Option<Box<ServerRecord>>),
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The row of a file, which may be gone now.
    File(Arc<str>),
    /// A server.
    Server(ServerId),
}

/// The records at one position.
#[derive(Clone, Debug)]
pub struct Records {
    files: BTreeMap<Arc<str>, FileEntry>,
    /// The same files in the order of their revisions: what a server that moves from one position to another passes.
    by_revision: BTreeSet<(Revision, Arc<str>)>,
    tally: Tally,
    /// Those of them that are meant for their origin only, by origin: few, and counted one by one.
    alone: BTreeMap<Arc<ServerId>, BTreeSet<(Revision, Arc<str>)>>,
    servers: BTreeMap<ServerId, (Revision, ServerRecord)>,
    /// One allocation for each server, not for each of a million files.
    origins: BTreeSet<Arc<ServerId>>,
    /// The history they are from.
    pub history: History,
}

impl Records {
    /// No records, at `position`.
    pub fn at(position: Position) -> Self {
        Self {
            files: BTreeMap::new(),
            by_revision: BTreeSet::new(),
            tally: Tally::default(),
            alone: BTreeMap::new(),
            servers: BTreeMap::new(),
            origins: BTreeSet::new(),
            history: History::at(position),
        }
    }

    /// Takes over one change of `revision`. A change that is older than what is known is ignored, so that applying one
    /// twice does no harm.
    pub fn apply(&mut self, revision: Revision, change: Change) -> Option<Touched> {
        match change {
            Change::File(path, file) => self.apply_file(revision, &path, file),
            Change::Server(id, record) => {
                if self.servers.get(&id).is_some_and(|(known, _)| *known > revision) {
                    return None;
                }
                match record {
                    Some(record) => drop(self.servers.insert(id.clone(), (revision, *record))),
                    None => drop(self.servers.remove(&id)),
                }
                Some(Touched::Server(id))
            }
        }
    }

    fn apply_file(&mut self, revision: Revision, path: &str, file: Option<Registered>) -> Option<Touched> {
        let known = self.files.get_key_value(path).map(|(path, entry)| (path.clone(), entry.clone()));
        if known.as_ref().is_some_and(|(_, known)| known.revision > revision) {
            return None;
        }
        if let Some((path, known)) = &known {
            let key = (known.revision, path.clone());
            self.by_revision.remove(&key);
            self.tally.remove(known.revision, known.size_bytes);
            if let Some(alone) = self.alone.get_mut(&known.origin) {
                alone.remove(&key);
            }
        }
        let path = known.map_or_else(|| Arc::from(path), |(path, _)| path);
        match file {
            Some(Registered { size_bytes, origin, placement, file_id }) => {
                let origin = self.interned(origin);
                self.by_revision.insert((revision, path.clone()));
                if placement != Placement::All {
                    self.alone.entry(origin.clone()).or_default().insert((revision, path.clone()));
                }
                self.files
                    .insert(path.clone(), FileEntry { revision, size_bytes, origin, placement, file_id });
                if let Some((start, end)) = self.tally.add(revision, size_bytes) {
                    let files: Vec<(Revision, u64)> = self.sized(start, end).collect();
                    self.tally.halve(start, &files);
                }
            }
            None => drop(self.files.remove(&path)),
        }
        Some(Touched::File(path))
    }

    fn interned(&mut self, origin: ServerId) -> Arc<ServerId> {
        if let Some(known) = self.origins.get(&origin) {
            return known.clone();
        }
        let origin = Arc::new(origin);
        self.origins.insert(origin.clone());
        origin
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.get(path)
    }

    /// The file at `path` if it is this one; any is, where the id is not known.
    pub fn same_file(&self, path: &str, file_id: Option<FileId>) -> Option<&FileEntry> {
        self.files.get(path).filter(|file| file_id.is_none_or(|known| known == file.file_id))
    }

    /// The file at `path`, with the shared form of the path.
    pub fn entry(&self, path: &str) -> Option<(&Arc<str>, &FileEntry)> {
        self.files.get_key_value(path)
    }

    /// How many files there are.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The files whose path begins with `prefix` and is after `after`, ordered by path, bytewise.
    pub fn files_after(&self, prefix: &str, after: &str) -> impl Iterator<Item = (&Arc<str>, &FileEntry)> {
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        self.files
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(path, _)| path.starts_with(prefix))
    }

    /// The paths whose revision is above `after` and not above `through`, in the order of their revisions.
    pub fn between(&self, after: Revision, through: Revision) -> impl Iterator<Item = &Arc<str>> {
        let nothing: Arc<str> = Arc::from("");
        let from = Bound::Included((after.next(), nothing.clone()));
        let to = Bound::Excluded((through.max(after).next(), nothing));
        self.by_revision.range((from, to)).map(|(_, path)| path)
    }

    /// The files from one revision up to another, which is not included, in their order, with their sizes.
    fn sized(&self, from: Revision, to: Option<Revision>) -> impl Iterator<Item = (Revision, u64)> {
        let nothing: Arc<str> = Arc::from("");
        let end = to.map_or(Bound::Unbounded, |to| Bound::Excluded((to, nothing.clone())));
        self.by_revision
            .range((Bound::Included((from, nothing)), end))
            .filter_map(|(revision, path)| Some((*revision, self.files.get(path)?.size_bytes)))
    }

    /// The files that are not meant for `server`, with a revision above `after`.
    pub fn elsewhere<'a>(
        &'a self,
        server: &'a ServerId,
        after: Revision,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a FileEntry)> {
        let nothing: Arc<str> = Arc::from("");
        let others = self.alone.iter().filter(move |(origin, _)| ***origin != *server);
        let later = others.flat_map(move |(_, files)| files.range((after.next(), nothing.clone())..));
        later.filter_map(|(_, path)| self.files.get_key_value(path))
    }

    /// How many files are meant for `server`.
    pub fn meant_count(&self, server: &ServerId) -> usize {
        let others = self.alone.iter().filter(|(origin, _)| ***origin != *server);
        self.files.len().saturating_sub(others.map(|(_, files)| files.len()).sum())
    }

    /// How many files and bytes that are meant for `server` have a revision above `after`.
    pub fn meant_above(&self, server: &ServerId, after: Revision) -> Sum {
        let others =
            self.elsewhere(server, after).fold(Sum::default(), |sum, (_, file)| sum.and(file.size_bytes));
        self.above(after).without(others)
    }

    /// How many files and bytes have a revision above `after`: some thousand steps, however many there are.
    pub fn above(&self, after: Revision) -> Sum {
        if after >= self.history.position().revision {
            return Sum::default();
        }
        let (sum, begin) = self.tally.above(after);
        self.sized(after.next(), begin).fold(sum, |sum, (_, bytes)| sum.and(bytes))
    }

    /// The servers, ordered by id.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerId, &ServerRecord)> {
        self.servers.iter().map(|(id, (_, record))| (id, record))
    }

    /// The announcement of a server.
    pub fn server(&self, id: &ServerId) -> Option<&ServerRecord> {
        self.servers.get(id).map(|(_, record)| record)
    }
}

/// Why a server takes no part (R14); `None` if it does.
pub fn exclusion(record: &ServerRecord) -> Option<Cause> {
    let reason = version::excluded(record.mode, &record.version)?;
    let text = match reason {
        Reason::Standalone => "the server is stand-alone".to_owned(),
        _ => format!("version {} in mode {} takes no part", record.version, record.mode),
    };
    Some(Cause::new(reason, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::samples::{announcement, file_of, position, registered, server_id};

    #[test]
    fn applying_a_change_again_or_late_does_no_harm() {
        let mut records = Records::at(position(0));
        records.apply(Revision(3), registered("a"));
        assert_eq!(records.apply(Revision(2), Change::File("a".to_owned(), None)), None);
        records.apply(Revision(3), registered("a"));
        assert_eq!(records.between(Revision(0), Revision(9)).count(), 1);
        records.apply(Revision(4), Change::File("a".to_owned(), None));
        assert_eq!((records.file_count(), records.between(Revision(0), Revision(9)).count()), (0, 0));
    }

    /// Sums over any part of the history are those of the files in it, whatever was registered in whichever order; and those
    /// of one server leave out what is meant for others (R8).
    #[test]
    fn sums_are_those_of_the_files() {
        let mut records = Records::at(position(0));
        records.history.advance(position(40_000));
        let file = |name: u64, bytes: u64| {
            let only = Placement::OriginOnly { reason: Reason::OptionOff };
            let placement = if (name + bytes).is_multiple_of(5) { only } else { Placement::All };
            file_of(&name.to_string(), bytes, if name.is_multiple_of(2) { "s1" } else { "s2" }, placement)
        };
        for step in 0..30_000_u64 {
            // Some alone, some hundreds in one revision, one revision with more than a span, and some replaced later.
            let revision = match step % 3 {
                0 => step / 300 + 1,
                1 => 1 + (step * 7_919) % 39_000,
                _ => 20_000,
            };
            records.apply(Revision(revision), file(step % 25_000, step));
            if step % 17 == 0 {
                records.apply(Revision(revision), Change::File((step % 25_000).to_string(), None));
            }
        }
        assert!(records.file_count() > 20_000);
        for after in [0, 1, 50, 99, 100, 5_000, 19_999, 20_000, 20_001, 38_999, 39_000, 40_000] {
            let paths: Vec<_> = records.between(Revision(after), Revision(40_000)).collect();
            let bytes = paths.iter().filter_map(|path| records.file(path)).map(|file| file.size_bytes).sum();
            assert_eq!(records.above(Revision(after)), Sum { files: paths.len(), bytes }, "{after}");
            for id in ["s1", "s2", "s3"].map(server_id) {
                let meant =
                    paths.iter().filter_map(|path| records.file(path)).filter(|file| file.is_meant_for(&id));
                let sum = meant.fold(Sum::default(), |sum, file| sum.and(file.size_bytes));
                assert_eq!(records.meant_above(&id, Revision(after)), sum, "{id} {after}");
                let elsewhere = paths.len() - sum.files;
                assert_eq!(records.elsewhere(&id, Revision(after)).count(), elsewhere, "{id} {after}");
                if after == 0 {
                    assert_eq!(records.meant_count(&id), sum.files, "{id}");
                }
            }
        }
    }

    #[test]
    fn files_are_found_by_prefix_and_by_revision() {
        let mut records = Records::at(position(0));
        for (revision, path) in [(1, "b/2"), (2, "b/1"), (3, "a"), (4, "c"), (5, "b")] {
            records.apply(Revision(revision), registered(path));
        }
        let below = |prefix: &str, after: &str| -> Vec<String> {
            records.files_after(prefix, after).map(|(path, _)| path.to_string()).collect()
        };
        assert_eq!(below("", ""), ["a", "b", "b/1", "b/2", "c"]);
        assert_eq!(below("b/", ""), ["b/1", "b/2"]);
        assert_eq!(below("b/", "b/1"), ["b/2"]);
        assert_eq!(below("b/", "z"), Vec::<String>::new());
        let between: Vec<&str> =
            records.between(Revision(1), Revision(4)).map(|path| path.as_ref()).collect();
        assert_eq!(between, ["b/1", "a", "c"]);
        assert_eq!(records.between(Revision(4), Revision(1)).count(), 0);
    }

    /// R14: a server that takes no part says why.
    #[test]
    fn servers_that_take_no_part_say_why() {
        assert_eq!(exclusion(&announcement("distributed", "12.04.100")), None);
        assert!(
            exclusion(&announcement("distributed", "6.06.100"))
                .is_some_and(|c| c.is(Reason::UnsupportedVersion))
        );
        assert!(
            exclusion(&announcement("standalone", "12.04.100")).is_some_and(|c| c.is(Reason::Standalone))
        );
    }
}
