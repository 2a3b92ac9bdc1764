//! What a commit does, and when it does nothing.

use lockstep_model::Revision;

use super::{commit, deletes, head, is_forked, only_if, puts, request, requested};
use crate::{
    COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, Commit, KEYS_MAX, NOTE_BYTES_MAX, Precondition, Registry,
    RegistryError,
};

fn absent(key: &str) -> Precondition {
    Precondition::Absent(key.to_owned())
}

fn at(key: &str, revision: u64) -> Precondition {
    Precondition::At(key.to_owned(), Revision(revision))
}

fn prefix_empty(prefix: &str) -> Precondition {
    Precondition::PrefixEmpty(prefix.to_owned())
}

async fn refused<R: Registry>(registry: &R, asked: Commit, precondition: Precondition, actual: Option<u64>) {
    let before = head(registry).await;
    let error = registry.commit(asked).await.expect_err("a precondition does not hold");
    assert_eq!(error, RegistryError::Refused { precondition, actual: actual.map(Revision) });
    assert_eq!(head(registry).await, before);
}

/// I4: one revision per transaction, without a gap, each with its own chain.
pub async fn revisions_are_gap_free<R: Registry>(registry: R) {
    let start = head(&registry).await;
    assert_eq!(start, lockstep_model::Position::start(start.epoch));
    let mut chains = vec![start.chain];
    for revision in 1..=20 {
        let committed = commit(&registry, puts([("a", "1"), ("b", "2")])).await;
        assert_eq!((committed.revision, committed.head.revision), (Revision(revision), Revision(revision)));
        assert_eq!(committed.head, head(&registry).await);
        assert!(!committed.replayed && !chains.contains(&committed.head.chain));
        chains.push(committed.head.chain);
    }
}

/// R37, R63: of two that read the same revision, the second is told what is there now.
pub async fn compare_and_set_lets_one_win<R: Registry>(registry: R) {
    commit(&registry, puts([("k", "old")])).await;
    commit(&registry, only_if([at("k", 1)], puts([("k", "first")]))).await;
    refused(&registry, only_if([at("k", 1)], puts([("k", "second")])), at("k", 1), Some(2)).await;
    refused(&registry, only_if([at("none", 1)], puts([("none", "x")])), at("none", 1), None).await;
    commit(&registry, only_if([at("k", 2)], deletes(["k"]))).await;
    refused(&registry, only_if([at("k", 3)], puts([("k", "zombie")])), at("k", 3), None).await;
    let found = registry.get_latest(vec!["k".to_owned()]).await.expect("read");
    assert!(found[0].as_ref().is_some_and(|record| record.deleted && record.revision == Revision(3)));
}

/// R37: a tombstone does not keep a name; a live record does.
pub async fn absent_means_no_live_record<R: Registry>(registry: R) {
    commit(&registry, only_if([absent("k")], puts([("k", "1")]))).await;
    refused(&registry, only_if([absent("k")], puts([("k", "2")])), absent("k"), Some(1)).await;
    commit(&registry, deletes(["k"])).await;
    commit(&registry, only_if([absent("k")], puts([("k", "3")]))).await;
}

/// A directory's name goes with the last file below it, in the commit that deletes that file.
pub async fn prefix_empty_ignores_what_the_commit_changes<R: Registry>(registry: R) {
    commit(&registry, puts([("name/a/x", "1"), ("name/a/y", "2")])).await;
    let without = |keys| only_if([prefix_empty("name/a/")], keys);
    refused(&registry, without(deletes(["name/a/x"])), prefix_empty("name/a/"), Some(1)).await;
    refused(&registry, without(deletes([])), prefix_empty("name/a/"), Some(1)).await;
    commit(&registry, without(deletes(["name/a/x", "name/a/y"]))).await;
    commit(&registry, without(puts([("name/a/z", "3")]))).await;
    // Written anew is as good: a directory changes its spelling together with all that is below it.
    refused(&registry, without(puts([("name/a/y", "4")])), prefix_empty("name/a/"), Some(3)).await;
    commit(&registry, without(puts([("name/a/z", "4")]))).await;
}

/// Only what begins with the prefix is below it, to the byte.
pub async fn prefix_empty_sees_nothing_beside_the_prefix<R: Registry>(registry: R) {
    let beside = [("name/a", "1"), ("name/a.", "2"), ("name/a0", "3"), ("name/A/x", "4"), ("name/b/", "5")];
    commit(&registry, puts(beside)).await;
    commit(&registry, puts([("name/%_x", "6"), ("name/\u{d7ff}x", "7"), ("name/\u{e000}", "8")])).await;
    for empty in ["name/a/", "name/a/x", "name/%%", "name/_", "name/\u{d7fe}", "name/\u{e000}x", "\u{10ffff}"]
    {
        commit(&registry, only_if([prefix_empty(empty)], puts([]))).await;
    }
    for (filled, revision) in
        [("", 2), ("name/a", 1), ("name/%_", 2), ("name/\u{d7ff}", 2), ("name/\u{e000}", 2)]
    {
        refused(&registry, only_if([prefix_empty(filled)], puts([])), prefix_empty(filled), Some(revision))
            .await;
    }
}

/// I11: the first precondition that does not hold is named, and nothing of the commit happens, nor is it remembered.
pub async fn a_refused_commit_changes_nothing<R: Registry>(registry: R) {
    commit(&registry, puts([("a", "1"), ("b", "1")])).await;
    let asked = only_if([absent("c"), at("b", 7), absent("a")], puts([("c", "2")]));
    refused(&registry, requested("me", "1", "f", asked), at("b", 7), Some(1)).await;
    assert_eq!(registry.get(vec!["c".to_owned()]).await.expect("read"), [None]);
    assert_eq!(registry.find_request(request("me", "1", "f")).await, Ok(None));
    assert!(!commit(&registry, requested("me", "1", "f", puts([("c", "3")]))).await.replayed);
}

/// I11: the answer is repeated, the effect is not, whatever became of the record meanwhile.
pub async fn a_repeated_request_has_no_second_effect<R: Registry>(registry: R) {
    let asked = || requested("me", "1", "f", only_if([absent("k")], puts([("k", "1")])));
    let first = commit(&registry, asked()).await;
    let again = commit(&registry, asked()).await;
    assert_eq!((again.revision, again.head, again.replayed), (first.revision, first.head, true));
    let last = commit(&registry, deletes(["k"])).await;
    let again = commit(&registry, asked()).await;
    assert_eq!((again.revision, again.head, again.replayed), (first.revision, last.head, true));
    assert_eq!(
        registry.get(vec!["k".to_owned()]).await.expect("read"),
        [None],
        "R33: what was deleted stays so"
    );
    assert_eq!(registry.find_request(request("me", "1", "f")).await, Ok(Some(first.revision)));
    // The id belongs to the caller.
    assert_eq!(registry.find_request(request("you", "1", "f")).await, Ok(None));
    assert!(!commit(&registry, requested("you", "1", "other", puts([("k", "2")]))).await.replayed);
}

/// I11: an id names one request for ever.
pub async fn another_request_under_one_id_is_refused<R: Registry>(registry: R) {
    let first = commit(&registry, requested("me", "1", "f", puts([("k", "1")]))).await;
    let reused = RegistryError::RequestReused { id: "1".to_owned() };
    let asked = requested("me", "1", "other", puts([("k", "2")]));
    assert_eq!(registry.commit(asked).await.expect_err("reused"), reused);
    assert_eq!(registry.find_request(request("me", "1", "other")).await.expect_err("reused"), reused);
    assert_eq!(head(&registry).await, first.head);
}

/// Bounds are told with both figures, before anything happens.
pub async fn too_large_is_refused_with_the_figures<R: Registry>(registry: R) {
    let many: Vec<_> = (0..=COMMIT_RECORDS_MAX).map(|at| (format!("k{at}"), String::new())).collect();
    let large = vec![("k".to_owned(), "x".repeat(COMMIT_BYTES_MAX))];
    let asked = |puts| Commit { puts, ..Commit::default() };
    let results = [
        registry.commit(asked(many)).await.map(|_| ()),
        registry.commit(asked(large)).await.map(|_| ()),
        registry.get(vec![String::new(); KEYS_MAX + 1]).await.map(|_| ()),
        registry.put_note("n".to_owned(), "x".repeat(NOTE_BYTES_MAX)).await,
    ];
    let figures = [
        ("10000 records", "10001 records"),
        ("16777216 bytes", "16777217 bytes"),
        ("20000 keys", "20001 keys"),
        ("65536 bytes in a note", "65537 bytes in a note"),
    ];
    for (result, (limit, actual)) in results.into_iter().zip(figures) {
        let expected = RegistryError::TooLarge { limit: limit.to_owned(), actual: actual.to_owned() };
        assert_eq!(result.expect_err("too large"), expected);
    }
    assert_eq!(head(&registry).await.revision, Revision::ZERO);
}

/// As many records as are allowed appear together, and come back in one page.
pub async fn the_largest_transaction_is_one_transaction<R: Registry>(registry: R) {
    let start = head(&registry).await;
    let puts = (0..COMMIT_RECORDS_MAX).map(|at| (format!("k{at:05}"), "{}".to_owned())).collect();
    commit(&registry, Commit { puts, ..Commit::default() }).await;
    let page = registry.changes(start, String::new(), 1).await.expect("read");
    assert_eq!((page.changes.len(), page.through.revision), (COMMIT_RECORDS_MAX, Revision(1)));
}

/// A head that moves makes every server look; so it moves only for a change.
pub async fn a_commit_without_changes_moves_no_head<R: Registry>(registry: R) {
    let first = commit(&registry, puts([("k", "1")])).await;
    let empty = commit(&registry, requested("me", "1", "f", only_if([at("k", 1)], puts([])))).await;
    assert_eq!((empty.revision, empty.head, empty.replayed), (first.revision, first.head, false));
    assert!(commit(&registry, requested("me", "1", "f", puts([]))).await.replayed);
    refused(&registry, only_if([absent("k")], puts([])), absent("k"), Some(1)).await;
}

/// A transaction has one outcome for a key.
pub async fn a_key_named_twice_counts_once<R: Registry>(registry: R) {
    let start = head(&registry).await;
    let asked = Commit { deletes: deletes(["b"]).deletes, ..puts([("a", "1"), ("b", "2"), ("a", "3")]) };
    commit(&registry, asked).await;
    let page = registry.changes(start, String::new(), 10).await.expect("read");
    let seen: Vec<_> = page.changes.iter().map(|change| (change.key.as_str(), change.deleted)).collect();
    assert_eq!(seen, [("a", false), ("b", true)]);
    assert_eq!(page.changes[0].body, "3");
    is_forked(&registry, lockstep_model::Position { chain: start.chain, ..page.head }).await;
}
