//! The engine for one machine: a database file that several processes open at once.
//!
//! ```text
//! callers ── bounded queue ── 1 writer thread ──┐
//!         └─ bounded queue ── 3 reader threads ─┼── registry.sqlite (WAL, every commit synced)
//!                             1 watcher thread ─┘   registry.sqlite-bell (rung after each commit)
//! ```
//!
//! No statement runs on a thread of the runtime. A writer holds the lock of the file from its first read to its commit,
//! with no await in between, so what it read is still true when it commits.

mod commit;
mod compact;
mod failure;
mod files;
mod holder;
mod read;
mod side;
mod turn;
mod watch;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lockstep_model::{Position, Revision, ServerId};

use crate::{
    Changes, Commit, Committed, KEYS_MAX, ListQuery, Listing, NOTE_BYTES_MAX, Note, Record, Registry,
    RegistryError, Request,
    transaction::{Transaction, within},
};
use files::Access;
use watch::Watch;
use worker::Workers;

/// How long a call waits for the write lock, and in the queue.
const LOCK_WAIT: Duration = Duration::from_millis(4500);
/// How long a call waits for its answer, so that a disk that hangs does not hang the caller.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Calls that wait for a thread; more are refused.
const QUEUE_MAX: usize = 256;
/// Threads that read: a read takes microseconds, so a few are enough for thousands a second.
const READERS: usize = 3;

/// A registry in a database file. Clones share it; the threads end with the last one.
#[derive(Clone, Debug)]
pub struct SqliteRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    writer: Workers,
    readers: Workers,
    watch: Watch,
}

impl SqliteRegistry {
    /// Opens the database at `path`, made with its directory if there is none. Any number of processes may do so at the
    /// same time: one of them makes it.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] if the file cannot be opened, is damaged, belongs to another program, or another
    /// process keeps it locked for 5 s.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let bell = files::create(path)?;
        let path: PathBuf = path.to_owned();
        let writer = Workers::start("registry-write", &path, Access::Write, 1)?;
        let readers = Workers::start("registry-read", &path, Access::Read, READERS)?;
        let watch = Watch::start(&path, bell)?;
        Ok(Self { shared: Arc::new(Shared { writer, readers, watch }) })
    }
}

impl Registry for SqliteRegistry {
    async fn head(&self) -> Result<Position, RegistryError> {
        self.shared.readers.run(|connection| read::head(connection)).await
    }

    async fn get(&self, keys: Vec<String>) -> Result<Vec<Option<Record>>, RegistryError> {
        let latest = self.get_latest(keys).await?;
        Ok(latest.into_iter().map(|found| found.filter(|record| !record.deleted)).collect())
    }

    async fn get_latest(&self, keys: Vec<String>) -> Result<Vec<Option<Record>>, RegistryError> {
        within(keys.len(), KEYS_MAX, "keys")?;
        self.shared.readers.run(move |connection| read::latest(connection, &keys)).await
    }

    async fn list(&self, query: ListQuery) -> Result<Listing, RegistryError> {
        self.shared.readers.run(move |connection| read::list(connection, &query)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, RegistryError> {
        let transaction = Transaction::of(commit)?;
        let bell = self.shared.watch.bell();
        self.shared
            .writer
            .run(move |connection| {
                let committed = commit::commit(connection, &transaction)?;
                bell.ring();
                Ok(committed)
            })
            .await
    }

    async fn find_request(&self, request: Request) -> Result<Option<Revision>, RegistryError> {
        self.shared.readers.run(move |connection| commit::answered(connection, &request)).await
    }

    async fn transaction(&self, revision: Revision) -> Result<Vec<Record>, RegistryError> {
        self.shared.readers.run(move |connection| read::transaction(connection, revision)).await
    }

    async fn changes(&self, after: Position, prefix: String, limit: usize) -> Result<Changes, RegistryError> {
        self.shared.readers.run(move |connection| read::changes(connection, after, &prefix, limit)).await
    }

    async fn wait_past(&self, revision: Revision) -> Result<Position, RegistryError> {
        self.shared.watch.wait_past(revision, || self.head()).await
    }

    async fn put_note(&self, key: String, body: String) -> Result<(), RegistryError> {
        within(key.len() + body.len(), NOTE_BYTES_MAX, "bytes in a note")?;
        self.shared.writer.run(move |connection| side::put_note(connection, &key, &body)).await
    }

    async fn drop_note(&self, key: String) -> Result<(), RegistryError> {
        self.shared.writer.run(move |connection| side::drop_note(connection, &key)).await
    }

    async fn notes(&self, prefix: String) -> Result<Vec<Note>, RegistryError> {
        self.shared.readers.run(move |connection| side::notes(connection, &prefix)).await
    }

    async fn acknowledge(&self, server: ServerId, position: Position) -> Result<(), RegistryError> {
        self.shared.writer.run(move |connection| side::acknowledge(connection, &server, position)).await
    }

    async fn compact(&self, below: Revision) -> Result<Revision, RegistryError> {
        let floor = self.shared.writer.run(move |connection| compact::raise_floor(connection, below)).await?;
        // One piece at a time, so that commits get their turn in between.
        while self.shared.writer.run(move |connection| compact::forget_some(connection, floor)).await? {}
        Ok(floor)
    }
}
