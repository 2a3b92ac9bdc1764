//! What lies on this server beside what is registered: loose files, which nobody here touches.

use lockstep_model::{FilePath, Reason, path::InvalidPath};

use super::Engine;
use crate::{
    domain::{error::FileError, exception::Obstacle, held::Stat},
    ports::{Entry, EntryKind, Ports, StoreError, Tree as _},
};

/// Entries of the transfer directory that one page looks at, at most.
const SCANNED_MAX: usize = 20_000;
/// The deepest directory that is followed.
const DEPTH_MAX: usize = lockstep_model::path::DEPTH_MAX;

/// Something in the transfer directory that nobody registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// Where it is.
    pub path: String,
    /// What it looks like, or why it cannot be registered.
    pub found: Result<Stat, Obstacle>,
}

/// What is left to look at in one directory, the next one last.
struct Level {
    directory: String,
    left: Vec<Entry>,
}

impl<P: Ports> Engine<P> {
    /// Loose files below a prefix after a path, ordered by path; and after which path to continue, unless this is the end.
    ///
    /// # Errors
    /// `STORE_OFFLINE`, or a disk that fails.
    pub async fn list_loose(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Loose>, Option<String>), FileError> {
        self.verify_store().await?;
        let top = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut levels = vec![self.level(top).await?];
        let (mut loose, mut scanned) = (Vec::new(), 0);
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.left.pop() else {
                levels.pop();
                continue;
            };
            let key = key(&level.directory, &entry);
            if !(key.starts_with(prefix) || is_directory(&entry) && prefix.starts_with(&key))
                || key.as_str() <= after && !(is_directory(&entry) && after.starts_with(&key))
            {
                continue;
            }
            scanned += 1;
            if is_directory(&entry) && levels.len() < DEPTH_MAX {
                levels.push(self.level(key.trim_end_matches('/')).await?);
            } else {
                loose.extend(self.loose_at(&key, entry.kind).await?);
            }
            if loose.len() >= limit || scanned >= SCANNED_MAX {
                return Ok((loose, Some(key)));
            }
        }
        Ok((loose, None))
    }

    async fn level(&self, directory: &str) -> Result<Level, FileError> {
        let mut left = match self.inner.ports.store.entries(directory.to_owned()).await {
            Ok(entries) => entries,
            // It is gone by now, or was never a directory.
            Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => Vec::new(),
            Err(error) => return Err(self.disk(error)),
        };
        // With its slash, so that the order is that of whole paths.
        left.sort_by_key(|entry| std::cmp::Reverse(key("", entry)));
        Ok(Level { directory: directory.to_owned(), left })
    }

    async fn loose_at(&self, text: &str, kind: EntryKind) -> Result<Option<Loose>, FileError> {
        let foreign = |what: &str| Obstacle {
            reason: Reason::NotRegular,
            message: format!("{text} on server {} is {what}", self.server()),
        };
        let found = |found| Ok(Some(Loose { path: text.to_owned(), found }));
        let parsed = text.parse::<FilePath>();
        if let Ok(path) = &parsed
            && self.is_known(path)
        {
            return Ok(None);
        }
        match (kind, parsed) {
            (EntryKind::Directory, _) => found(Err(foreign("a directory that is too deep"))),
            (EntryKind::Other(what), _) => found(Err(foreign(what))),
            (EntryKind::File, Err(rule)) => found(Err(invalid(text, rule))),
            (EntryKind::File, Ok(path)) => {
                let looked = self.inner.ports.store.inspect(vec![path]).await;
                match looked.map_err(|error| self.disk(error))?.into_iter().next() {
                    Some(Ok(stat)) => found(Ok(stat)),
                    Some(Err(StoreError::Foreign { what, .. })) => found(Err(foreign(what))),
                    // It is gone by now.
                    Some(Err(StoreError::Absent { .. })) | None => Ok(None),
                    Some(Err(error)) => found(Err(Obstacle::of(&error))),
                }
            }
        }
    }

    /// Whether the path is one that is registered, whatever became of its bytes here.
    fn is_known(&self, path: &FilePath) -> bool {
        let (board, paths) = (&self.inner.board, std::slice::from_ref(path));
        board.held(paths).iter().any(Option::is_some) || board.exceptions(paths).iter().any(Option::is_some)
    }
}

fn is_directory(entry: &Entry) -> bool {
    entry.kind == EntryKind::Directory
}

/// The path of an entry; of a directory with a slash at the end.
fn key(directory: &str, entry: &Entry) -> String {
    let end = if is_directory(entry) { "/" } else { "" };
    match directory {
        "" => format!("{}{end}", entry.name),
        above => format!("{above}/{}{end}", entry.name),
    }
}

fn invalid(text: &str, rule: InvalidPath) -> Obstacle {
    Obstacle { reason: Reason::PathInvalid, message: format!("{text:?} cannot be registered: {rule}") }
}
