//! The judge: looks at every disk, every index and the registry after each step of the simulation, and holds them to the
//! invariants at that very instant.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use filesync::{
    domain::intent::Intent,
    ports::{Index as _, Loaded, Store as _},
};
use futures::FutureExt as _;
use lockstep_model::{
    Digest, FilePath, Position, Revision,
    record::{FILE, FileRecord},
};
use lockstep_proto::gateway::v1::{Row, cell};
use lockstep_registry::{MemoryRegistry, Registry as _, chain};

use crate::{mesh::Server, operator::Ledger};

/// The content of a path after a revision; `None` for a deletion.
type Past = Vec<(Revision, Option<Digest>)>;

/// What the judge remembers.
pub(crate) struct Judge {
    registry: MemoryRegistry,
    /// By revision: recomputed from the changes, never read.
    positions: Vec<Position>,
    history: BTreeMap<FilePath, Past>,
    seen: Vec<Seen>,
}

/// What was seen of a server last.
#[derive(Default)]
struct Seen {
    at: (u64, u64, usize),
    position: Option<Position>,
    digests: BTreeMap<FilePath, (Arc<Vec<u8>>, Digest)>,
    /// Everything that it ever had under a final name.
    had: BTreeSet<(FilePath, Digest)>,
    /// The last position that it told.
    told: Option<Position>,
    /// What a test makes rot: until the bytes change once more, they count as what they were.
    excused: BTreeSet<FilePath>,
}

/// Adapters in memory never wait.
fn now<T>(ready: impl Future<Output = T>) -> T {
    ready.now_or_never().expect("adapters in memory answer at once")
}

impl Judge {
    pub(crate) fn new(registry: &MemoryRegistry, servers: usize) -> Self {
        let head = now(registry.head()).expect("a registry in memory");
        Self {
            registry: registry.clone(),
            positions: vec![Position::start(head.epoch)],
            history: BTreeMap::new(),
            seen: (0..servers).map(|_| Seen::default()).collect(),
        }
    }

    /// The head, recomputed.
    pub(crate) fn head(&self) -> Position {
        *self.positions.last().expect("never empty")
    }

    /// The files that are registered now.
    pub(crate) fn live(&self) -> BTreeMap<FilePath, Digest> {
        let last = |(path, past): (&FilePath, &Past)| Some((path.clone(), past.last()?.1?));
        self.history.iter().filter_map(last).collect()
    }

    /// Looks at everything that may have changed.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub(crate) fn look(&mut self, servers: &[Server]) -> Result<(), String> {
        self.read_registry()?;
        for (server, at) in servers.iter().zip(0..) {
            let store = server.store.changes.load(Ordering::Relaxed);
            let index = server.index.changes.load(Ordering::Relaxed);
            let now = (store, index, self.positions.len());
            if self.seen[at].at != now {
                self.seen[at].at = now;
                self.look_at(server, at).map_err(|what| format!("{}: {what}", server.id))?;
            }
        }
        Ok(())
    }

    /// I5: the chain of the registry is the one that its changes give.
    fn read_registry(&mut self) -> Result<(), String> {
        loop {
            let from = self.head();
            let read = now(self.registry.changes(from, String::new(), 10_000));
            let read =
                read.map_err(|error| format!("I5: the registry does not know its own past: {error}"))?;
            for transaction in read.changes.chunk_by(|a, b| a.revision == b.revision) {
                let before = self.head();
                let revision = before.revision.next();
                if transaction[0].revision != revision {
                    return Err(format!("I4: {} follows {}", transaction[0].revision, before.revision));
                }
                let links = transaction.iter().map(|record| chain::Link {
                    key: &record.key,
                    deleted: record.deleted,
                    body: &record.body,
                });
                let chain = chain::next(&before.chain, revision, links);
                self.positions.push(Position { revision, chain, ..before });
                for record in transaction.iter().filter(|record| record.key.starts_with(FILE)) {
                    let path: FilePath = record.key[FILE.len()..].parse().map_err(|e| format!("{e}"))?;
                    let body: FileRecord = serde_json::from_str(&record.body).map_err(|e| e.to_string())?;
                    let digest = (!record.deleted).then_some(body.digest);
                    self.history.entry(path).or_default().push((revision, digest));
                }
            }
            if self.head() != read.through {
                return Err(format!(
                    "I5: the registry is at {:?}, its changes lead to {:?}",
                    read.through,
                    self.head()
                ));
            }
            if read.through == read.head {
                return Ok(());
            }
        }
    }

    fn look_at(&mut self, server: &Server, at: usize) -> Result<(), String> {
        let loaded = now(server.index.inner.load()).map_err(|error| error.to_string())?;
        let on_disk = self.digests(server, at);
        self.check_names(&on_disk)?;
        self.check_position(&loaded, at)?;
        self.check_held(&loaded, &on_disk)?;
        let revision = loaded.position.map_or(Revision::ZERO, |position| position.revision);
        for (path, past) in &self.history {
            let upto = past.partition_point(|(changed, _)| *changed <= revision);
            let (passed, ahead) = past.split_at(upto);
            self.check_passed(path, passed, ahead, &loaded, on_disk.get(path))
                .map_err(|what| format!("{what} (at {revision}; {path} is {past:?})"))?;
        }
        Ok(())
    }

    /// The disk of a server is about to change these bytes by itself, which nobody can know before it is read.
    pub(crate) fn excuse(&mut self, at: usize, path: FilePath) {
        self.seen[at].excused.insert(path);
    }

    fn digests(&mut self, server: &Server, at: usize) -> BTreeMap<FilePath, Digest> {
        let Seen { digests: known, had, excused, .. } = &mut self.seen[at];
        let published = server.store.inner.published();
        known.retain(|path, _| published.contains_key(path));
        for (path, bytes) in published {
            match known.get(&path) {
                Some((same, _)) if Arc::ptr_eq(same, &bytes) => {}
                Some((_, digest)) if excused.remove(&path) => {
                    let digest = *digest;
                    known.insert(path, (bytes, digest));
                }
                _ => {
                    let digest = Digest::of(&bytes);
                    had.insert((path.clone(), digest));
                    known.insert(path, (bytes, digest));
                }
            }
        }
        known.iter().map(|(path, (_, digest))| (path.clone(), *digest)).collect()
    }

    /// I2, I7: under a final name there are the complete bytes of something that was registered there, and nothing else.
    fn check_names(&self, on_disk: &BTreeMap<FilePath, Digest>) -> Result<(), String> {
        for (path, digest) in on_disk {
            let past = self.history.get(path).into_iter().flatten();
            if !past.filter_map(|(_, registered)| *registered).any(|registered| registered == *digest) {
                return Err(format!("I7: {path} has bytes {digest} that were never registered there"));
            }
        }
        Ok(())
    }

    /// I4, I5: a position is one of the history, and never goes back.
    fn check_position(&mut self, loaded: &Loaded, at: usize) -> Result<(), String> {
        let before = self.seen[at].position;
        let Some(position) = loaded.position else {
            return if before.is_none() { Ok(()) } else { Err("I5: the position is lost".to_owned()) };
        };
        let known =
            usize::try_from(position.revision.0).ok().and_then(|revision| self.positions.get(revision));
        if known != Some(&position) {
            return Err(format!("I4: {position:?} is no position of the registry, {known:?} is"));
        }
        if let Some(before) = before.filter(|before| before.revision > position.revision) {
            return Err(format!("I5: went back from {} to {}", before.revision, position.revision));
        }
        self.seen[at].position = Some(position);
        Ok(())
    }

    /// I10: what is held is there, unless it is just leaving.
    fn check_held(&self, loaded: &Loaded, on_disk: &BTreeMap<FilePath, Digest>) -> Result<(), String> {
        for (path, held) in &loaded.held {
            let leaving = loaded.intents.iter().any(|(_, intent)| match intent {
                Intent::Delete { path: leaving, .. } => leaving == path,
                Intent::Exchange { wanted, .. } => wanted.path == *path,
                Intent::Move { moves } => moves.iter().any(|(from, _)| from == path),
                Intent::Register { .. } | Intent::InPlace { .. } => false,
            });
            // A file that moves is renamed before the position passes that.
            let position = loaded.position.map_or(Revision::ZERO, |position| position.revision);
            let past = self.history.get(path).into_iter().flatten();
            let leaving = leaving || past.clone().any(|(at, digest)| *at > position && digest.is_none());
            // What the disk refuses to let go of is held until it is gone.
            let leaving = leaving || loaded.missing.iter().any(|m| m.is_left && m.wanted.path == *path);
            if on_disk.get(path) != Some(&held.digest) && !leaving {
                return Err(format!(
                    "I10: {path} is held at {}, on the disk is {:?}",
                    held.revision,
                    on_disk.get(path)
                ));
            }
        }
        Ok(())
    }

    /// I3, I4: what a position has passed is there, gone, or an exception.
    fn check_passed(
        &self,
        path: &FilePath,
        passed: &[(Revision, Option<Digest>)],
        ahead: &[(Revision, Option<Digest>)],
        loaded: &Loaded,
        on_disk: Option<&Digest>,
    ) -> Result<(), String> {
        let is_ahead = |digest: &Digest| ahead.iter().any(|(_, registered)| *registered == Some(*digest));
        let is_missing = |revision: &Revision| {
            // A position that waits may know of a later one already.
            loaded.missing.iter().any(|m| m.wanted.path == *path && m.wanted.revision >= *revision)
        };
        match (passed.last().map(|(revision, digest)| (revision, *digest)), on_disk) {
            (Some((_, Some(wanted))), Some(found)) if wanted == *found => Ok(()),
            (Some((_, Some(_))) | Some((_, None)) | None, Some(found)) if is_ahead(found) => Ok(()),
            // The disk refuses to let go of it: that is told, and tried again.
            (Some((revision, None)), Some(found))
                if loaded
                    .missing
                    .iter()
                    .any(|m| m.is_left && m.wanted.path == *path && m.wanted.revision == *revision)
                    && passed.iter().any(|(_, older)| *older == Some(*found)) =>
            {
                Ok(())
            }
            (Some((_, None)), Some(_)) => Err(format!("I3: {path} was deleted and is there")),
            (None, Some(_)) => Err(format!("I7: {path} is there and was never registered")),
            // R29: the bytes that are replaced stay until the new ones come.
            (Some((revision, Some(_))), Some(found))
                if is_missing(revision) && passed.iter().any(|(_, older)| *older == Some(*found)) =>
            {
                Ok(())
            }
            (Some((_, Some(_))), Some(found)) => Err(format!("I2: {path} has {found}")),
            (Some((revision, Some(_))), None) => {
                if is_missing(revision) || !ahead.is_empty() {
                    return Ok(());
                }
                Err(format!("I4: {path} is neither there nor an exception"))
            }
            (Some((_, None)) | None, None) => Ok(()),
        }
    }

    /// I10: what is said to be in sync was verified on that server, at that revision.
    ///
    /// # Errors
    /// What is not true.
    pub(crate) fn examine_row(&self, row: &Row, servers: &[Server]) -> Result<(), String> {
        let path: FilePath = row.path.parse().map_err(|_| format!("{:?} is no path", row.path))?;
        for cell in row.cells.iter().filter(|cell| cell.state() == cell::State::InSync) {
            let at = servers.iter().position(|server| server.id.as_str() == cell.server_id);
            let at = at.ok_or_else(|| format!("there is no {}", cell.server_id))?;
            let past = self.history.get(&path).into_iter().flatten();
            let wanted =
                past.filter(|(revision, _)| i64::try_from(revision.0).is_ok_and(|r| r == row.revision));
            let Some(wanted) = wanted.filter_map(|(_, digest)| *digest).next() else {
                return Err(format!("I10: {path} was never registered at {}", row.revision));
            };
            if !self.seen[at].had.contains(&(path.clone(), wanted)) {
                return Err(format!(
                    "I10: {path} of {} is said to be in sync on {}",
                    row.revision, cell.server_id
                ));
            }
        }
        Ok(())
    }

    /// I4, I5: what a server tells of its position is true, and never goes back.
    ///
    /// # Errors
    /// What is not true.
    pub(crate) fn examine_position(&mut self, at: usize, told: Position) -> Result<(), String> {
        let known = usize::try_from(told.revision.0).ok().and_then(|revision| self.positions.get(revision));
        if known != Some(&told) {
            return Err(format!("I4: s{} tells {told:?}, which is no position of the registry", at + 1));
        }
        if let Some(before) = self.seen[at].told.filter(|before| before.revision > told.revision) {
            return Err(format!("I5: s{} told {} and then {}", at + 1, before.revision, told.revision));
        }
        self.seen[at].told = Some(told);
        Ok(())
    }

    /// I6: why the servers are not equal yet, if they are not.
    pub(crate) fn unequal(&self, servers: &[Server]) -> Option<String> {
        self.unequal_but(servers, None)
    }

    /// The same, but for one path, at which a disk says no.
    pub(crate) fn unequal_but(&self, servers: &[Server], poison: Option<&FilePath>) -> Option<String> {
        let is_counted = |path: &FilePath| Some(path) != poison;
        let mut live = self.live();
        live.retain(|path, _| is_counted(path));
        for (server, seen) in servers.iter().zip(&self.seen) {
            let id = &server.id;
            if seen.position != Some(self.head()) {
                return Some(format!(
                    "{id} is at {:?}, the registry at {}",
                    seen.position,
                    self.head().revision
                ));
            }
            let on_disk: BTreeMap<_, _> =
                seen.digests.iter().map(|(path, (_, digest))| (path.clone(), *digest)).collect();
            let on_disk: BTreeMap<FilePath, Digest> =
                on_disk.into_iter().filter(|(path, _)| is_counted(path)).collect();
            if let Some(path) = live.iter().find(|(path, digest)| on_disk.get(*path) != Some(digest)) {
                return Some(format!("{id} has not {path:?}"));
            }
            if let Some(path) = on_disk.keys().find(|path| !live.contains_key(*path)) {
                return Some(format!("{id} has {path}, which is not registered"));
            }
            let mut loaded = now(server.index.inner.load()).expect("an index in memory");
            loaded.missing.retain(|missing| is_counted(&missing.wanted.path));
            loaded.held.retain(|(path, _)| is_counted(path));
            loaded.intents.retain(|(_, intent)| intent.paths().into_iter().any(is_counted));
            if let Some(missing) = loaded.missing.first() {
                return Some(format!("{id} still misses {}: {:?}", missing.wanted.path, missing.obstacle));
            }
            if loaded.held.len() != live.len() {
                return Some(format!("{id} holds {} of {}", loaded.held.len(), live.len()));
            }
            if let Some((_, intent)) = loaded.intents.first() {
                return Some(format!("{id} still intends {intent:?}"));
            }
        }
        None
    }

    /// Nothing is left over once all are equal: no staged byte but those of uploads, nothing set aside.
    pub(crate) fn leftovers(&self, servers: &[Server]) -> Option<String> {
        servers.iter().find_map(|server| {
            let staged = now(server.store.inner.staged()).expect("a disk in memory");
            let left: Vec<_> =
                staged.iter().filter(|(name, _)| !name.as_str().starts_with("upload-")).collect();
            if !left.is_empty() {
                return Some(format!("{} has in staging {left:?}", server.id));
            }
            let staged: u64 = staged.iter().map(|(_, size)| size).sum();
            let published: usize = server.store.inner.published().values().map(|bytes| bytes.len()).sum();
            let free = now(server.store.inner.free_bytes()).expect("a disk in memory");
            let aside = (1 << 30) - free - staged - published as u64;
            (aside > 0).then(|| format!("{} has set aside {aside} bytes", server.id))
        })
    }

    /// I1, I3: what was acknowledged is in the history, and what is in the history was asked for.
    ///
    /// # Errors
    /// The first thing that was lost or made up.
    pub(crate) fn settle(&self, ledger: &Ledger) -> Result<(), String> {
        for (path, revision, digest) in &ledger.registered {
            let past = self.history.get(path).map(Vec::as_slice).unwrap_or_default();
            let Some(at) = past.iter().position(|entry| entry == &(*revision, Some(*digest))) else {
                return Err(format!("I1: {path} was acknowledged at {revision}, its history is {past:?}"));
            };
            if let Some((gone, None)) = past.get(at + 1)
                && !ledger.deletions_asked.contains(&(path.clone(), *revision))
            {
                return Err(format!(
                    "I1: {path} of {revision} was deleted at {gone}, which nobody asked for"
                ));
            }
        }
        for (path, revision) in &ledger.deleted {
            let past = self.history.get(path).map(Vec::as_slice).unwrap_or_default();
            if !past.contains(&(*revision, None)) {
                return Err(format!(
                    "I1: the deletion of {path} at {revision} is lost, its history is {past:?}"
                ));
            }
        }
        let asked: BTreeSet<&(FilePath, Digest)> = ledger.registrations_asked.iter().collect();
        for (path, past) in &self.history {
            let digests = past.iter().filter_map(|(_, digest)| *digest);
            if let Some(digest) = digests.into_iter().find(|digest| !asked.contains(&(path.clone(), *digest)))
            {
                return Err(format!("{path} has {digest}, which nobody registered"));
            }
        }
        Ok(())
    }
}
