//! The files of a registry: making them, once, and opening them.

use std::{
    fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use lockstep_model::{
    Epoch, Position,
    clock::{Entropy, SystemEntropy},
};
use rusqlite::{Connection, OpenFlags, params};

use super::{LOCK_WAIT, failure::is_busy, holder};
use crate::RegistryError;

/// "Lkst": marks the file as ours, so that the database of another program is not taken for a registry.
const APPLICATION_ID: i32 = 0x4c6b_7374;
/// More than the statements of this crate.
const STATEMENTS_CACHED: usize = 64;
/// To what size the log is cut after a checkpoint; a transaction may have made it larger.
const LOG_BYTES_KEPT: i64 = 64 << 20;

#[allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "the code is made by the macro")]
mod embedded {
    refinery::embed_migrations!("migrations");
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Which file it is, whatever its name is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity(u64, u64);

impl FileIdentity {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// The path of the file beside the database that is rung after each commit.
fn bell_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-bell");
    name.into()
}

pub(super) fn unavailable(path: &Path, cause: impl std::fmt::Display) -> RegistryError {
    RegistryError::Unavailable { cause: format!("{}: {cause}", path.display()) }
}

/// Makes the database at `path` if there is none, brings it to the current form, and returns the file that is rung.
///
/// Whoever makes it holds a lock on that file, so of two processes that start together one makes the database and the
/// other finds it made. The lock is not on the database itself: closing any descriptor of it would drop the locks that
/// SQLite holds on it in the same process.
pub(super) fn create(path: &Path) -> Result<File, RegistryError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| unavailable(directory, error))?;
    let bell_path = bell_path(path);
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&bell_path);
    let bell = opened.map_err(|error| unavailable(&bell_path, error))?;
    lock(&bell, path, &bell_path)?;
    let made = make(path);
    bell.unlock().map_err(|error| unavailable(&bell_path, error))?;
    made?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| unavailable(directory, error))?;
    Ok(bell)
}

fn lock(bell: &File, path: &Path, bell_path: &Path) -> Result<(), RegistryError> {
    let started = Instant::now();
    loop {
        match bell.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(unavailable(bell_path, error)),
            Err(TryLockError::WouldBlock) if started.elapsed() >= LOCK_WAIT => {
                let holder = holder::of_file(bell_path);
                return Err(unavailable(path, format_args!("it is being opened by {holder}")));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    }
}

fn make(path: &Path) -> Result<(), RegistryError> {
    let failed = |error: rusqlite::Error| {
        let holder = is_busy(&error).then(|| holder::of_database(path));
        holder.map_or_else(
            || unavailable(path, &error),
            |holder| unavailable(path, format_args!("the database is locked by {holder}")),
        )
    };
    // Made here and not by SQLite, because its log files take over the mode.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unavailable(path, error)),
    }
    let mut connection = Connection::open_with_flags(path, flags()).map_err(failed)?;
    connection.busy_timeout(LOCK_WAIT).map_err(failed)?;
    claim(path, &connection, failed)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(unavailable(path, "the file system does not support a write-ahead log"));
    }
    configure(&connection).map_err(failed)?;
    embedded::migrations::runner().run(&mut connection).map_err(|error| unavailable(path, error))?;
    begin(&mut connection).map_err(failed)
}

/// Chooses the epoch, unless that was done before: an existing database is only read, so that it can be opened while
/// somebody writes.
fn begin(connection: &mut Connection) -> rusqlite::Result<()> {
    if connection.query_row("SELECT EXISTS (SELECT 1 FROM meta)", [], |row| row.get(0))? {
        return Ok(());
    }
    let start = Position::start(Epoch(SystemEntropy.uuid()));
    let transaction = connection.transaction()?;
    transaction.execute(
        "INSERT INTO meta (one, epoch, revision, chain, floor, request_seq) VALUES (1, ?1, 0, ?2, 0, 0)",
        params![start.epoch.to_string(), start.chain.as_bytes()],
    )?;
    transaction
        .execute("INSERT INTO revisions (revision, chain) VALUES (0, ?1)", [start.chain.as_bytes()])?;
    transaction.commit()
}

/// Marks an empty file as ours; refuses one that is not.
fn claim(
    path: &Path,
    connection: &Connection,
    failed: impl Fn(rusqlite::Error) -> RegistryError,
) -> Result<(), RegistryError> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(&failed)?;
    let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    match (id, tables.map_err(&failed)?) {
        (APPLICATION_ID, _) => Ok(()),
        (0, 0) => connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(&failed),
        _ => Err(unavailable(path, "the file is a database of another program")),
    }
}

fn flags() -> OpenFlags {
    // A connection is used by one thread at a time, so SQLite need not lock it again.
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Each commit reaches the disk before it is acknowledged (I1).
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(())
}

/// Opens the database that [`create`] made; never makes one, because an empty registry in the place of one that was lost
/// would look like a decision.
pub(super) fn connect(path: &Path, access: Access) -> Result<(Connection, FileIdentity), RegistryError> {
    let identity = FileIdentity::of(path).map_err(|error| unavailable(path, error))?;
    let opened = Connection::open_with_flags(path, flags()).and_then(|connection| {
        connection.busy_timeout(LOCK_WAIT)?;
        configure(&connection)?;
        connection.pragma_update(None, "query_only", access == Access::Read)?;
        let id = connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))?;
        Ok((connection, id))
    });
    match opened {
        Ok((connection, APPLICATION_ID)) => Ok((connection, identity)),
        Ok(_) => Err(unavailable(path, "the file is no registry")),
        Err(error) if is_busy(&error) => {
            Err(unavailable(path, format_args!("the database is locked by {}", holder::of_database(path))))
        }
        Err(error) => Err(unavailable(path, error)),
    }
}
