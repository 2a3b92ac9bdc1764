//! The one way in which the head moves.

use lockstep_model::{Position, Revision};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{
    failure::Failure,
    read::{Meta, end, number, revision},
};
use crate::{
    Committed, REQUESTS_KEPT, RegistryError, Request,
    transaction::{Live, Transaction},
};

/// Takes the write lock, and only then reads: what it sees stays so until it commits.
pub(super) fn commit(connection: &mut Connection, asked: &Transaction) -> Result<Committed, Failure> {
    fail::fail_point!("registry.commit.before");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let meta = Meta::read(&transaction)?;
    if let Some(request) = &asked.request
        && let Some(revision) = answered(&transaction, request)?
    {
        return Ok(Committed { revision, head: meta.head, replayed: true });
    }
    if let Some(refusal) = asked.refusal(&*transaction)? {
        return Err(refusal.into());
    }
    let head = asked.position(meta.head);
    if head != meta.head {
        write(&transaction, asked, head)?;
    }
    if let Some(request) = &asked.request {
        remember(&transaction, request, head.revision, meta.request_seq + 1)?;
    }
    fail::fail_point!("registry.commit.inside");
    transaction.commit()?;
    fail::fail_point!("registry.commit.after");
    Ok(Committed { revision: head.revision, head, replayed: false })
}

/// The revision that a remembered request made.
pub(super) fn answered(connection: &Connection, request: &Request) -> Result<Option<Revision>, Failure> {
    let mut one = connection
        .prepare_cached("SELECT fingerprint, revision FROM requests WHERE caller = ?1 AND id = ?2")?;
    let found = one
        .query_row([&request.caller, &request.id], |row| Ok((row.get::<_, String>(0)?, revision(row, 1)?)));
    match found.optional()? {
        Some((fingerprint, _)) if fingerprint != request.fingerprint => {
            Err(RegistryError::RequestReused { id: request.id.clone() }.into())
        }
        found => Ok(found.map(|(_, revision)| revision)),
    }
}

fn write(connection: &Connection, asked: &Transaction, head: Position) -> rusqlite::Result<()> {
    let mut log = connection.prepare_cached(
        "INSERT INTO log (revision, key, deleted, body, traceparent) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut records = connection.prepare_cached(
        "INSERT INTO records (revision, key, deleted, body, traceparent) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, deleted = excluded.deleted,
         body = excluded.body, traceparent = excluded.traceparent",
    )?;
    let revision = number(head.revision);
    for change in &asked.changes {
        let row = params![revision, change.key, change.deleted, change.body, asked.traceparent];
        log.execute(row)?;
        records.execute(row)?;
    }
    let chain = head.chain.as_bytes();
    connection
        .prepare_cached("INSERT INTO revisions (revision, chain) VALUES (?1, ?2)")?
        .execute(params![revision, chain])?;
    connection
        .prepare_cached("UPDATE meta SET revision = ?1, chain = ?2")?
        .execute(params![revision, chain])?;
    Ok(())
}

fn remember(connection: &Connection, request: &Request, made: Revision, seq: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO requests (caller, id, fingerprint, revision, seq) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![request.caller, request.id, request.fingerprint, number(made), seq])?;
    let kept = i64::try_from(REQUESTS_KEPT).unwrap_or(i64::MAX);
    connection.prepare_cached("DELETE FROM requests WHERE seq <= ?1")?.execute([seq - kept])?;
    connection.prepare_cached("UPDATE meta SET request_seq = ?1")?.execute([seq])?;
    Ok(())
}

impl Live for Connection {
    type Error = rusqlite::Error;

    fn at(&self, key: &str) -> rusqlite::Result<Option<Revision>> {
        let mut one = self.prepare_cached("SELECT revision FROM records WHERE key = ?1 AND NOT deleted")?;
        one.query_row([key], |row| revision(row, 0)).optional()
    }

    fn below(&self, prefix: &str, ignored: &dyn Fn(&str) -> bool) -> rusqlite::Result<Option<Revision>> {
        let mut found = self.prepare_cached(
            "SELECT key, revision FROM records
             WHERE key >= ?1 AND key < ?2 AND NOT deleted ORDER BY key",
        )?;
        let mut rows = found.query(params![prefix, end(prefix)])?;
        while let Some(row) = rows.next()? {
            let key: String = row.get(0)?;
            if !ignored(&key) {
                return revision(row, 1).map(Some);
            }
        }
        Ok(None)
    }
}
