//! The index in a SQLite file of its own, beside the store but outside its root.
//!
//! One thread owns the connection, so no statement ever runs on a worker of the runtime, and transactions follow each
//! other in the order they were asked for.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use lockstep_model::{Digest, FilePath, Reason, Revision};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, Transaction, params, types::Type};
use tokio::sync::{mpsc, oneshot};

use crate::{
    domain::{
        held::{Held, StagedName, Stat},
        tree::Groups,
    },
    ports::{Index, IndexError, Loaded, REQUESTS_KEPT, Remembered, Upload, Write},
};

mod migrations {
    refinery::embed_migrations!("migrations");
}

/// Transactions that may wait for the disk; beyond it callers wait.
const QUEUE_MAX: usize = 64;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// An index in a file.
#[derive(Clone, Debug)]
pub struct SqliteIndex {
    work: mpsc::Sender<Work>,
    /// A file beside the index that is written and removed to see whether the disk takes bytes.
    probe: PathBuf,
}

impl SqliteIndex {
    /// Opens or makes the index at `path`.
    ///
    /// # Errors
    /// [`IndexError`] if the file cannot be opened or is no index.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let mut connection =
            connect(path).map_err(|error| failed(&format!("{}: {error}", path.display())))?;
        migrations::migrations::runner()
            .run(&mut connection)
            .map_err(|error| failed(&format!("{}: {error}", path.display())))?;
        let (work, mut queue) = mpsc::channel::<Work>(QUEUE_MAX);
        let serve = move || {
            while let Some(work) = queue.blocking_recv() {
                work(&mut connection);
            }
        };
        #[allow(clippy::disallowed_methods, reason = "it ends when the last sender is dropped")]
        std::thread::Builder::new().name("index".into()).spawn(serve).map_err(|error| failed(&error))?;
        Ok(Self { work, probe: path.with_extension("probe") })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, IndexError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |connection| drop(answer.send(work(connection))));
        self.work.send(work).await.map_err(|_| failed(&"its thread ended"))?;
        let result = answered.await.map_err(|_| failed(&"its thread ended"))?;
        result.map_err(|error| IndexError { reason: refusal(&error), ..failed(&error) })
    }
}

fn failed(cause: &impl ToString) -> IndexError {
    IndexError { cause: cause.to_string(), reason: Reason::Internal }
}

/// What the disk said, where the database was told.
fn refusal(error: &rusqlite::Error) -> Reason {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Reason::DiskFull,
        Some(ErrorCode::ReadOnly) => Reason::StoreReadOnly,
        _ => Reason::Internal,
    }
}

/// Writes a file and removes it again, whatever came of the writing.
fn try_file(path: &Path, bytes: usize) -> io::Result<()> {
    let written = fs::File::create(path).and_then(|mut file| {
        file.write_all(&vec![0; bytes])?;
        file.sync_all()
    });
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        _ => written,
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL, because what the index says is held must survive a power cut (I1, I7).
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

impl Index for SqliteIndex {
    async fn load(&self) -> Result<Loaded, IndexError> {
        self.run(|connection| load(connection)).await
    }

    async fn apply(&self, writes: Vec<Write>) -> Result<(), IndexError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            writes.into_iter().try_for_each(|write| apply(&transaction, write))?;
            transaction.commit()
        })
        .await
    }

    async fn load_journal(&self, name: StagedName) -> Result<Option<u64>, IndexError> {
        self.run(move |connection| {
            let mut select =
                connection.prepare_cached("SELECT verified_bytes FROM journal WHERE staged = ?1")?;
            select.query_row([name.as_str()], |row| unsigned(row, 0)).optional()
        })
        .await
    }

    async fn find_request(&self, caller: String, id: String) -> Result<Option<Remembered>, IndexError> {
        self.run(move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT fingerprint, is_done, answer FROM requests WHERE caller = ?1 AND id = ?2",
            )?;
            let found = select.query_row([&caller, &id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            let known =
                |(fingerprint, is_done, answer)| Remembered { caller, id, fingerprint, is_done, answer };
            Ok(found.optional()?.map(known))
        })
        .await
    }

    async fn groups(&self, digest: Digest) -> Result<Option<Groups>, IndexError> {
        self.run(move |connection| {
            let mut select = connection.prepare_cached("SELECT hashes FROM groups WHERE digest = ?1")?;
            let hashes = select.query_row([digest.to_string()], |row| row.get::<_, Vec<u8>>(0)).optional()?;
            Ok(hashes.and_then(|hashes| Groups::from_bytes(&hashes)))
        })
        .await
    }

    async fn probe(&self, bytes: usize) -> Result<(), IndexError> {
        let path = self.probe.clone();
        let tried = tokio::task::spawn_blocking(move || try_file(&path, bytes)).await;
        tried.map_err(|error| failed(&error))?.map_err(|error| IndexError {
            reason: match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::DiskFull,
                io::ErrorKind::ReadOnlyFilesystem => Reason::StoreReadOnly,
                _ => Reason::Internal,
            },
            ..failed(&error)
        })
    }
}

fn apply(to: &Transaction<'_>, write: Write) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| to.prepare_cached(sql)?.execute(values).map(drop);
    match write {
        Write::Position(position) => set_meta(to, "position", &json(&position)?),
        Write::Store(store) => set_meta(to, "store", &json(&store)?),
        Write::Hold(path, held) => run(
            "INSERT OR REPLACE INTO held VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                path.as_str(),
                held.file_id.to_string(),
                signed(held.revision.0),
                held.digest.to_string(),
                signed(held.stat.size_bytes),
                held.stat.modified_ns,
                held.stat.changed_ns
            ],
        ),
        Write::Release(path) => run("DELETE FROM held WHERE path = ?1", params![path.as_str()]),
        Write::Miss(missing) => run(
            "INSERT OR REPLACE INTO missing VALUES (?1, ?2)",
            params![missing.wanted.path.as_str(), json(&missing)?],
        ),
        Write::Clear(path) => run("DELETE FROM missing WHERE path = ?1", params![path.as_str()]),
        Write::Intend(number, intent) => {
            run("INSERT OR REPLACE INTO intents VALUES (?1, ?2)", params![signed(number), json(&intent)?])
        }
        Write::Settle(number) => run("DELETE FROM intents WHERE number = ?1", params![signed(number)]),
        Write::Journal(name, bytes) => {
            run("INSERT OR REPLACE INTO journal VALUES (?1, ?2)", params![name.as_str(), signed(bytes)])
        }
        Write::Unjournal(name) => run("DELETE FROM journal WHERE staged = ?1", params![name.as_str()]),
        Write::Groups(digest, groups) => run(
            "INSERT OR REPLACE INTO groups VALUES (?1, ?2)",
            params![digest.to_string(), groups.to_bytes()],
        ),
        Write::Ungroup(digest) => run("DELETE FROM groups WHERE digest = ?1", params![digest.to_string()]),
        Write::Upload(upload) => run(
            "INSERT OR REPLACE INTO uploads VALUES (?1, ?2, ?3)",
            params![upload.id.to_string(), upload.caller, signed(upload.size_bytes)],
        ),
        Write::EndUpload(id) => run("DELETE FROM uploads WHERE id = ?1", params![id.to_string()]),
        Write::Scrubbed(path) => set_meta(to, "scrubbed", &json(&path)?),
        Write::Remember(Remembered { caller, id, fingerprint, is_done, answer }) => {
            run(
                "INSERT INTO requests (caller, id, fingerprint, is_done, answer) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (caller, id) DO UPDATE SET fingerprint = ?3, is_done = ?4, answer = ?5",
                params![caller, id, fingerprint, is_done, answer],
            )?;
            let kept = signed(REQUESTS_KEPT);
            run("DELETE FROM requests WHERE number <= (SELECT MAX(number) FROM requests) - ?1", params![kept])
        }
        Write::Unremember { caller, id } => {
            run("DELETE FROM requests WHERE caller = ?1 AND id = ?2", params![caller, id])
        }
    }
}

fn set_meta(to: &Transaction<'_>, name: &str, value: &str) -> rusqlite::Result<()> {
    to.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![name, value]).map(drop)
}

fn load(from: &Connection) -> rusqlite::Result<Loaded> {
    Ok(Loaded {
        position: meta(from, "position")?,
        store: meta(from, "store")?,
        scrubbed: meta(from, "scrubbed")?,
        held: rows(
            from,
            "SELECT path, file_id, revision, digest, size_bytes, modified_ns, changed_ns FROM held",
            |row| {
                let path: FilePath = parsed(row, 0)?;
                let stat =
                    Stat { size_bytes: unsigned(row, 4)?, modified_ns: row.get(5)?, changed_ns: row.get(6)? };
                let (file_id, revision, digest) =
                    (parsed(row, 1)?, Revision(unsigned(row, 2)?), parsed(row, 3)?);
                Ok((path, Held { file_id, revision, digest, stat }))
            },
        )?,
        missing: rows(from, "SELECT body FROM missing", |row| decoded(row, 0))?,
        intents: rows(from, "SELECT number, body FROM intents ORDER BY number", |row| {
            Ok((unsigned(row, 0)?, decoded(row, 1)?))
        })?,
        journal: rows(from, "SELECT staged, verified_bytes FROM journal", |row| {
            Ok((StagedName::found(&row.get::<_, String>(0)?), unsigned(row, 1)?))
        })?,
        uploads: rows(from, "SELECT id, caller, size_bytes FROM uploads", |row| {
            Ok(Upload { id: parsed(row, 0)?, caller: row.get(1)?, size_bytes: unsigned(row, 2)? })
        })?,
    })
}

fn rows<T>(
    from: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    from.prepare(sql)?.query_map([], read)?.collect()
}

fn meta<T: serde::de::DeserializeOwned>(from: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    from.prepare("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| decoded(row, 0))
        .optional()
}

/// SQLite has signed integers only; sizes and revisions stay far below its bound.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn decoded<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|error| unreadable(column, error))
}

fn parsed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(column, error))
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
