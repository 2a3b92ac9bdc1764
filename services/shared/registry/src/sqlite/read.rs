//! Reading: each function sees one instant of the database.

use lockstep_model::{Chain, Epoch, Position, Revision};
use rusqlite::{
    Connection, OptionalExtension, Row, params,
    types::{Type, Value},
};

use super::failure::Failure;
use crate::{
    Changes, ListQuery, Listing, Record,
    page::{ChangePage, RecordPage},
    range,
    transaction::{kept, locate},
};

/// The row that every commit rewrites.
pub(super) struct Meta {
    pub(super) head: Position,
    pub(super) floor: Revision,
    pub(super) request_seq: i64,
}

impl Meta {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT epoch, revision, chain, floor, request_seq FROM meta";
        connection.prepare_cached(sql)?.query_row([], |row| {
            let epoch: String = row.get(0)?;
            let epoch = epoch.parse().map_err(|error| unreadable(0, Type::Text, error))?;
            let chain = Chain::from_bytes(row.get(2)?);
            let head = Position { epoch: Epoch(epoch), revision: revision(row, 1)?, chain };
            Ok(Self { head, floor: revision(row, 3)?, request_seq: row.get(4)? })
        })
    }
}

fn unreadable(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}

/// The end of the keys below `prefix`, for `key < ?`. Where there is none, it is bytes: they come after all text.
///
/// Always a value, because the planner cannot search with a condition that may be absent.
pub(super) fn end(prefix: &str) -> Value {
    range::end(prefix).map_or(Value::Blob(Vec::new()), Value::Text)
}

/// As the database counts. What does not fit is beyond any head.
pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub(super) fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map(Revision).map_err(|error| unreadable(column, Type::Integer, error))
}

/// From the columns `key, revision, deleted, body, traceparent`.
fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let (key, revision, deleted) = (row.get(0)?, revision(row, 1)?, row.get(2)?);
    Ok(Record { key, revision, deleted, body: row.get(3)?, traceparent: row.get(4)? })
}

pub(super) fn head(connection: &Connection) -> Result<Position, Failure> {
    Ok(Meta::read(connection)?.head)
}

pub(super) fn latest(connection: &mut Connection, keys: &[String]) -> Result<Vec<Option<Record>>, Failure> {
    let snapshot = connection.transaction()?;
    let mut one = snapshot
        .prepare_cached("SELECT key, revision, deleted, body, traceparent FROM records WHERE key = ?1")?;
    let found: rusqlite::Result<_> = keys.iter().map(|key| one.query_row([key], record).optional()).collect();
    Ok(found?)
}

pub(super) fn list(connection: &mut Connection, query: &ListQuery) -> Result<Listing, Failure> {
    let snapshot = connection.transaction()?;
    let position = Meta::read(&snapshot)?.head;
    let mut page = RecordPage::new(query.limit);
    let mut found = snapshot.prepare_cached(
        "SELECT key, revision, deleted, body, traceparent FROM records
         WHERE key >= ?1 AND +key > ?2 AND key < ?3 AND (?4 OR NOT deleted) ORDER BY key",
    )?;
    // The search starts at the later of the two; the plus keeps the planner from starting at the other.
    let from = query.prefix.as_str().max(&query.after_key);
    let mut rows = found.query(params![from, query.after_key, end(&query.prefix), query.tombstones])?;
    let mut more = false;
    while let Some(row) = rows.next()? {
        if !page.push(record(row)?) {
            more = true;
            break;
        }
    }
    Ok(Listing { records: page.finish(), position, more })
}

pub(super) fn transaction(connection: &mut Connection, revision: Revision) -> Result<Vec<Record>, Failure> {
    let snapshot = connection.transaction()?;
    kept(revision, Meta::read(&snapshot)?.floor)?;
    let mut found = snapshot.prepare_cached(
        "SELECT key, revision, deleted, body, traceparent FROM log WHERE revision = ?1 ORDER BY key",
    )?;
    let records: rusqlite::Result<_> = found.query_map([number(revision)], record)?.collect();
    Ok(records?)
}

pub(super) fn chain_at(connection: &Connection, revision: Revision) -> rusqlite::Result<Option<Chain>> {
    let mut one = connection.prepare_cached("SELECT chain FROM revisions WHERE revision = ?1")?;
    one.query_row([number(revision)], |row| row.get(0).map(Chain::from_bytes)).optional()
}

pub(super) fn changes(
    connection: &mut Connection,
    after: Position,
    prefix: &str,
    limit: usize,
) -> Result<Changes, Failure> {
    let snapshot = connection.transaction()?;
    let Meta { head, floor, .. } = Meta::read(&snapshot)?;
    let at = |revision| chain_at(&snapshot, revision).map_err(Failure::from);
    locate(after, head, floor, at)?;
    let mut page = ChangePage::new(limit);
    let mut later = snapshot.prepare_cached(
        "SELECT key, revision, deleted, body, traceparent FROM log
         WHERE revision > ?1 AND key >= ?2 AND key < ?3 ORDER BY revision, key",
    )?;
    let mut rows = later.query(params![number(after.revision), prefix, end(prefix)])?;
    while let Some(row) = rows.next()? {
        if !page.push(record(row)?) {
            break;
        }
    }
    let (changes, revision) = page.finish(head.revision);
    let chain = at(revision)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(Changes { changes, through: Position { revision, chain, ..head }, head })
}
