//! Forgetting what every server has passed.

use lockstep_model::{Revision, record};
use rusqlite::{Connection, TransactionBehavior, params};

use super::{
    failure::Failure,
    read::{Meta, end, number, revision},
};

/// Rows of the log that are forgotten in one transaction, so that a commit waits milliseconds and not seconds.
const PIECE: i64 = 5_000;

/// Decides the new floor: from then on no position below it is answered, whether its rows are gone already or not.
pub(super) fn raise_floor(connection: &mut Connection, asked: Revision) -> Result<Revision, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Meta { head, floor, .. } = Meta::read(&transaction)?;
    let passed: Option<i64> = transaction
        .prepare_cached(
            "SELECT min(coalesce(acks.revision, 0)) FROM records
             LEFT JOIN acks ON acks.server = substr(records.key, length(?1) + 1) AND acks.epoch = ?3
             WHERE key >= ?1 AND key < ?2 AND NOT deleted",
        )?
        .query_row(params![record::SERVER, end(record::SERVER), head.epoch.to_string()], |row| row.get(0))?;
    let passed = passed.map_or(asked, |passed| Revision(u64::try_from(passed).unwrap_or_default()));
    let raised = floor.max(asked.min(head.revision).min(passed));
    transaction.prepare_cached("UPDATE meta SET floor = ?1")?.execute([number(raised)])?;
    transaction.commit()?;
    Ok(raised)
}

/// Forgets a piece of what is at and below `floor`; false when nothing is left.
pub(super) fn forget_some(connection: &mut Connection, floor: Revision) -> Result<bool, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let piece = {
        let mut oldest = transaction.prepare_cached(
            "SELECT revision, key, deleted FROM log WHERE revision <= ?1 ORDER BY revision, key LIMIT ?2",
        )?;
        let rows = oldest.query_map([number(floor), PIECE], |row| {
            Ok((revision(row, 0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()?
    };
    for (revision, key, deleted) in &piece {
        let row = params![number(*revision), key];
        if *deleted {
            // Only if it is still the latest of its key.
            let tombstone = "DELETE FROM records WHERE revision = ?1 AND key = ?2 AND deleted";
            transaction.prepare_cached(tombstone)?.execute(row)?;
        }
        transaction.prepare_cached("DELETE FROM log WHERE revision = ?1 AND key = ?2")?.execute(row)?;
    }
    // The chain at the floor itself stays: a position there can still be checked.
    let chains = "DELETE FROM revisions WHERE revision IN
         (SELECT revision FROM revisions WHERE revision < ?1 ORDER BY revision LIMIT ?2)";
    let chains = transaction.prepare_cached(chains)?.execute([number(floor), PIECE])?;
    transaction.commit()?;
    Ok(!piece.is_empty() || chains > 0)
}
