//! What the log of changes says, and to whom it says nothing.

use lockstep_model::{Chain, Epoch, Position, Revision};

use super::{all_changes, commit, deletes, head, is_forked, keys, puts};
use crate::{
    Commit, Record, Registry, RegistryError,
    chain::{self, Link},
};

async fn varied<R: Registry>(registry: &R) -> Position {
    let start = head(registry).await;
    for round in 0..6 {
        let traceparent = format!("trace {round}");
        commit(
            registry,
            Commit { traceparent, ..puts([("file/b", "1"), ("file/a", "2"), ("file/c", "é\u{0}\"")]) },
        )
        .await;
        commit(registry, puts([("server/s", "3")])).await;
        commit(registry, deletes(["file/a"])).await;
    }
    start
}

fn place(record: &Record) -> (Revision, String) {
    (record.revision, record.key.clone())
}

/// R24, I4: from any position, in pages of any size, the rest of the history: nothing twice, nothing left out.
pub async fn pages_of_changes_join_to_the_history<R: Registry>(registry: R) {
    let start = varied(&registry).await;
    let whole = all_changes(&registry, start, "", 10_000).await;
    assert_eq!(whole.len(), 30);
    assert!(whole.is_sorted_by_key(place));
    for limit in [0, 1, 2, 3, 4, 5, 29, 30, usize::MAX] {
        assert_eq!(all_changes(&registry, start, "", limit).await, whole, "limit {limit}");
    }
    let mut after = start;
    while after.revision < head(&registry).await.revision {
        let rest: Vec<_> = whole.iter().filter(|change| change.revision > after.revision).cloned().collect();
        assert_eq!(all_changes(&registry, after, "", 4).await, rest);
        after = registry.changes(after, String::new(), 1).await.expect("read").through;
    }
    let none = registry.changes(after, String::new(), 1).await.expect("read");
    assert_eq!((none.changes.len(), none.through, none.head), (0, after, after));
}

/// I4: whoever stands at a position has seen whole transactions.
pub async fn a_page_of_changes_never_splits_a_transaction<R: Registry>(registry: R) {
    let start = varied(&registry).await;
    for (limit, count, through) in [(1, 3, 1), (3, 3, 1), (4, 4, 2), (5, 5, 3), (7, 5, 3), (8, 8, 4)] {
        let page = registry.changes(start, String::new(), limit).await.expect("read");
        assert_eq!((page.changes.len(), page.through.revision), (count, Revision(through)), "limit {limit}");
        assert_eq!(page.head, head(&registry).await);
    }
}

/// I11: what one transaction wrote can be read again, for whoever repeats its request.
pub async fn a_transaction_can_be_read_alone<R: Registry>(registry: R) {
    varied(&registry).await;
    let at = async |revision| registry.transaction(Revision(revision)).await.expect("read");
    assert_eq!(keys(&at(1).await), ["file/a", "file/b", "file/c"]);
    assert_eq!(keys(&at(2).await), ["server/s"]);
    let deleted = at(3).await;
    assert!(keys(&deleted) == ["file/a"] && deleted[0].deleted);
    assert!(at(1_000).await.is_empty());
    let floor = registry.compact(Revision(2)).await.expect("compacted");
    if floor == Revision(2) {
        let error = registry.transaction(Revision(2)).await.expect_err("compacted");
        assert_eq!(error, RegistryError::TooOld { asked: Revision(2), floor });
    }
}

/// I4: a reader of one kind stands where a reader of everything stands.
pub async fn a_filter_moves_past_what_does_not_match<R: Registry>(registry: R) {
    let start = varied(&registry).await;
    let end = head(&registry).await;
    let page = registry.changes(start, "server/".to_owned(), 2).await.expect("read");
    assert_eq!((keys(&page.changes), page.through.revision), (vec!["server/s"; 2], Revision(7)));
    let whole = all_changes(&registry, start, "", 100).await;
    for prefix in ["server/", "file/", "file/a", "file/c", "none/"] {
        let expected: Vec<_> =
            whole.iter().filter(|change| change.key.starts_with(prefix)).cloned().collect();
        assert_eq!(all_changes(&registry, start, prefix, 3).await, expected, "{prefix}");
    }
    let none = registry.changes(start, "none/".to_owned(), 1).await.expect("read");
    assert_eq!((none.changes.len(), none.through), (0, end));
}

/// I5: the chain is the hash of what is stored and of nothing else.
pub async fn the_chain_follows_from_the_changes<R: Registry>(registry: R) {
    let mut at = varied(&registry).await;
    let whole = all_changes(&registry, at, "", 100).await;
    for transaction in whole.chunk_by(|a, b| a.revision == b.revision) {
        let links = transaction.iter().map(|c| Link { key: &c.key, deleted: c.deleted, body: &c.body });
        let revision = at.revision.next();
        at = Position { epoch: at.epoch, revision, chain: chain::next(&at.chain, revision, links) };
        let rest =
            registry.changes(at, String::new(), 1).await.expect("the computed position is in the history");
        assert!(rest.changes.iter().all(|change| change.revision == revision.next()));
    }
    assert_eq!(at, head(&registry).await);
}

/// I5: a changed history is detected.
pub async fn another_epoch_is_a_fork<R: Registry>(registry: R) {
    varied(&registry).await;
    let head = head(&registry).await;
    let other = Epoch(uuid::Uuid::from_u128(77));
    is_forked(&registry, Position { epoch: other, ..head }).await;
    is_forked(&registry, Position::start(other)).await;
}

/// I5: a restored backup that went on by itself is detected, at every revision and at the start.
pub async fn another_chain_is_a_fork<R: Registry>(registry: R) {
    varied(&registry).await;
    let head = head(&registry).await;
    for revision in 0..=head.revision.0 {
        is_forked(&registry, Position { revision: Revision(revision), chain: Chain::of(b"other"), ..head })
            .await;
    }
}

/// I5: a registry that lost its tail is detected before it grew a new one.
pub async fn a_position_beyond_the_head_is_a_fork<R: Registry>(registry: R) {
    varied(&registry).await;
    let head = head(&registry).await;
    for revision in [head.revision.next(), Revision(u64::MAX)] {
        is_forked(&registry, Position { revision, ..head }).await;
    }
}
