//! What is stored beside the log: notes and acknowledgements. Neither moves the head.

use lockstep_model::{Position, ServerId};
use rusqlite::{Connection, TransactionBehavior, params};

use super::{
    failure::Failure,
    read::{Meta, chain_at, end, number},
};
use crate::{NOTES_MAX, Note, RegistryError, transaction::locate};

pub(super) fn put_note(connection: &Connection, key: &str, body: &str) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO notes (key, body) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET body = excluded.body",
        )?
        .execute([key, body])?;
    Ok(())
}

pub(super) fn drop_note(connection: &Connection, key: &str) -> Result<(), Failure> {
    connection.prepare_cached("DELETE FROM notes WHERE key = ?1")?.execute([key])?;
    Ok(())
}

pub(super) fn notes(connection: &Connection, prefix: &str) -> Result<Vec<Note>, Failure> {
    let mut found = connection
        .prepare_cached("SELECT key, body FROM notes WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3")?;
    let limit = i64::try_from(NOTES_MAX).unwrap_or(i64::MAX);
    let rows = found.query_map(params![prefix, end(prefix), limit], |row| {
        Ok(Note { key: row.get(0)?, body: row.get(1)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn acknowledge(
    connection: &mut Connection,
    server: &ServerId,
    position: Position,
) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Meta { head, floor, .. } = Meta::read(&transaction)?;
    match locate(position, head, floor, |revision| chain_at(&transaction, revision).map_err(Failure::from)) {
        Ok(()) | Err(Failure::Answer(RegistryError::TooOld { .. })) => {}
        Err(failure) => return Err(failure),
    }
    transaction
        .prepare_cached(
            "INSERT INTO acks (server, epoch, revision) VALUES (?1, ?2, ?3) ON CONFLICT (server) DO UPDATE
             SET epoch = excluded.epoch, revision = CASE WHEN acks.epoch = excluded.epoch
             THEN max(acks.revision, excluded.revision) ELSE excluded.revision END",
        )?
        .execute(params![server.as_str(), position.epoch.to_string(), number(position.revision)])?;
    transaction.commit()?;
    Ok(())
}
