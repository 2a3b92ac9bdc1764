//! What happens next: operations of people, drawn from the seed so that most are carried out and some must be refused.

use std::collections::BTreeSet;

use lockstep_tests::chance::Chance;

use super::world::{World, is_below};

/// Directories of all paths; few, so that names meet again and again.
const DIRECTORIES: [&str; 4] = ["a", "b", "c", "deep/d"];
/// Files in each of them.
const FILES: usize = 4;

/// What a caller saw of a file or of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) revision: i64,
    pub(super) count: i64,
}

/// One thing that somebody asks of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Registers bytes that belong to `content`; in place of the revision `replaces` if it is not 0.
    Register {
        server: String,
        path: String,
        content: String,
        size: usize,
        replaces: i64,
        rename: bool,
    },
    /// Registers what lies there.
    InPlace {
        server: String,
        path: String,
    },
    Move {
        server: String,
        path: String,
        to: String,
        seen: i64,
    },
    MoveDirectory {
        server: String,
        path: String,
        to: String,
        seen: Seen,
    },
    Delete {
        server: String,
        path: String,
        seen: i64,
    },
    DeleteDirectory {
        server: String,
        path: String,
        seen: Seen,
    },
    /// Takes over what somebody put in place of the file.
    Update {
        server: String,
        path: String,
        seen: i64,
    },
    /// Brings the registered bytes back.
    Restore {
        server: String,
        path: String,
        seen: i64,
    },
}

impl Operation {
    pub(super) fn server(&self) -> &str {
        match self {
            Self::Register { server, .. }
            | Self::InPlace { server, .. }
            | Self::Move { server, .. }
            | Self::MoveDirectory { server, .. }
            | Self::Delete { server, .. }
            | Self::DeleteDirectory { server, .. }
            | Self::Update { server, .. }
            | Self::Restore { server, .. } => server,
        }
    }

    /// The paths that it is about.
    fn paths(&self) -> Vec<&str> {
        match self {
            Self::Move { path, to, .. } | Self::MoveDirectory { path, to, .. } => vec![path, to],
            Self::Register { path, .. }
            | Self::InPlace { path, .. }
            | Self::Delete { path, .. }
            | Self::DeleteDirectory { path, .. }
            | Self::Update { path, .. }
            | Self::Restore { path, .. } => vec![path],
        }
    }

    /// Whether what it does and answers is the same before and after `open`.
    pub(super) fn is_apart_from(&self, open: &Self) -> bool {
        let folded = |operation: &Self| -> Vec<String> {
            operation.paths().into_iter().map(str::to_lowercase).collect()
        };
        let (ours, theirs) = (folded(self), folded(open));
        let meet = |a: &String, b: &String| a == b || is_below(a, b) || is_below(b, a);
        !matches!(self, Self::Register { rename: true, .. })
            && ours.iter().all(|a| theirs.iter().all(|b| !meet(a, b)))
    }

    /// Whether it changes the registry if it is carried out.
    pub(super) fn writes(&self) -> bool {
        !matches!(self, Self::Restore { .. } | Self::Update { .. })
    }
}

/// Draws operations.
pub(super) struct Planner {
    chance: Chance,
    name: String,
    count: usize,
}

impl Planner {
    /// `name` belongs to the round, so that no two have the same content.
    pub(super) fn new(chance: Chance, name: String) -> Self {
        Self { chance, name, count: 0 }
    }

    fn one_of<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        (!all.is_empty()).then(|| &all[self.chance.below(all.len())])
    }

    /// Text that nothing else is named after.
    pub(super) fn fresh(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.name, self.count)
    }

    fn any_path(&self) -> String {
        let directory = DIRECTORIES[self.chance.below(DIRECTORIES.len())];
        format!("{directory}/{}", self.chance.below(FILES))
    }

    /// A path that is neither registered nor in anybody's way.
    pub(super) fn free_path(&self, world: &World, server: &str) -> Option<String> {
        let free: Vec<String> = DIRECTORIES
            .iter()
            .flat_map(|directory| (0..FILES).map(move |number| format!("{directory}/{number}")))
            .filter(|path| !world.live.contains_key(path) && !world.disks[server].loose.contains_key(path))
            .collect();
        self.one_of(&free).cloned()
    }

    /// A registered file that every server holds, and that nobody `touched`.
    pub(super) fn sound(&self, world: &World, touched: &BTreeSet<String>) -> Option<String> {
        let is_sound = |path: &&String| {
            let drifted = world.disks.values().any(|disk| disk.drifted.contains_key(*path));
            !drifted && !touched.contains(*path)
        };
        let sound: Vec<&String> = world.live.keys().filter(is_sound).collect();
        self.one_of(&sound).map(|path| (*path).clone())
    }

    fn size(&self) -> usize {
        [0, 1, 4_000, 4_000, 70_000, 900_000, 1_300_000][self.chance.below(7)]
    }

    /// A registration of new bytes.
    pub(super) fn register(&mut self, server: &str, path: String, replaces: i64) -> Operation {
        let (content, size) = (self.fresh(), self.size());
        // Two empty files would be the same bytes.
        let size = size.max(content.len());
        Operation::Register { server: server.to_owned(), path, content, size, replaces, rename: false }
    }

    /// What somebody asks of `server` in this world.
    pub(super) fn next(&mut self, world: &World, server: &str) -> Operation {
        loop {
            if let Some(operation) = self.draw(world, server) {
                return operation;
            }
        }
    }

    fn draw(&mut self, world: &World, server: &str) -> Option<Operation> {
        let server = server.to_owned();
        let live: Vec<String> = world.live.keys().cloned().collect();
        let any_live = || self.one_of(&live).cloned();
        // Now and then they saw an older state.
        let seen = |path: &str| {
            let revision = world.seen(path).revision;
            if self.chance.once_in(12) { (revision - 1).max(1) } else { revision }
        };
        Some(match self.chance.below(20) {
            0..=4 => {
                let path = self.any_path();
                self.register(&server, path, 0)
            }
            // A file in the place of a directory, and another spelling of one.
            5 => {
                let path = any_live()?;
                let directory = path.split('/').next()?.to_owned();
                let path = if self.chance.once_in(2) { directory } else { path.to_uppercase() };
                if world.live.contains_key(&path) {
                    return None;
                }
                self.register(&server, path, 0)
            }
            6 => {
                let path = any_live()?;
                let Operation::Register { content, size, .. } = self.register(&server, path.clone(), 0)
                else {
                    return None;
                };
                Operation::Register { server, path, content, size, replaces: 0, rename: true }
            }
            7..=9 => {
                let path = any_live()?;
                let seen = seen(&path);
                self.register(&server, path, seen)
            }
            10..=11 => {
                let loose: Vec<String> = world.disks[&server].loose.keys().cloned().collect();
                let path = self.one_of(&loose).cloned().unwrap_or_else(|| self.any_path());
                Operation::InPlace { server, path }
            }
            12..=13 => {
                let path = any_live()?;
                let (seen, to) = (seen(&path), self.any_path());
                if to == path {
                    return None;
                }
                Operation::Move { server, path, to, seen }
            }
            14 => {
                let (path, to) = (self.one_of(&DIRECTORIES)?, self.one_of(&DIRECTORIES)?);
                let targets = world.below(path).into_iter().map(|file| file.replacen(path, to, 1));
                if path == to || targets.into_iter().any(|target| world.live.contains_key(&target)) {
                    return None;
                }
                let seen = world.seen(path);
                Operation::MoveDirectory { server, path: (*path).to_owned(), to: (*to).to_owned(), seen }
            }
            15..=16 => {
                let path = any_live()?;
                let seen = seen(&path);
                Operation::Delete { server, path, seen }
            }
            17 if self.chance.once_in(2) => {
                let path = *self.one_of(&DIRECTORIES)?;
                let seen = world.seen(path);
                Operation::DeleteDirectory { server, path: path.to_owned(), seen }
            }
            18..=19 => {
                let drifted: Vec<String> = world.disks[&server].drifted.keys().cloned().collect();
                let path = self.one_of(&drifted).cloned()?;
                let seen = world.seen(&path).revision;
                if self.chance.once_in(2) {
                    Operation::Update { server, path, seen }
                } else {
                    Operation::Restore { server, path, seen }
                }
            }
            _ => return None,
        })
    }
}
