//! Notes, acknowledgements, and what compaction may forget.

use lockstep_model::{Chain, Position, Revision, ServerId};

use super::{all_changes, commit, deletes, head, keys, puts};
use crate::{ListQuery, Note, Registry, RegistryError};

fn server(id: &str) -> ServerId {
    id.parse().expect("a label")
}

async fn acknowledge<R: Registry>(registry: &R, id: &str, position: Position) {
    registry.acknowledge(server(id), position).await.expect("the position is in the history");
}

async fn floor<R: Registry>(registry: &R, below: u64) -> u64 {
    registry.compact(Revision(below)).await.expect("compaction is allowed").0
}

/// Ten transactions; the position after each.
async fn ten<R: Registry>(registry: &R) -> Vec<Position> {
    let mut positions = vec![head(registry).await];
    for _ in 0..10 {
        positions.push(commit(registry, puts([("k", "1")])).await.head);
    }
    positions
}

/// A note is no change: the last one wins, and nobody who waits for the head is woken.
pub async fn the_last_note_wins_and_no_head_moves<R: Registry>(registry: R) {
    let before = commit(&registry, puts([("run/0", "record")])).await.head;
    for (key, body) in
        [("run/2", "a"), ("run/1", "b"), ("run/2", "c"), ("run", "d"), ("rum/1", "e"), ("run0", "f")]
    {
        registry.put_note(key.to_owned(), body.to_owned()).await.expect("write");
    }
    let note = |key: &str, body: &str| Note { key: key.to_owned(), body: body.to_owned() };
    assert_eq!(
        registry.notes("run/".to_owned()).await.expect("read"),
        [note("run/1", "b"), note("run/2", "c")]
    );
    assert_eq!(registry.notes(String::new()).await.expect("read").len(), 5);
    assert_eq!(registry.notes("none".to_owned()).await.expect("read"), []);
    for _ in 0..2 {
        registry.drop_note("run/1".to_owned()).await.expect("write");
        assert_eq!(registry.notes("run/".to_owned()).await.expect("read"), [note("run/2", "c")]);
    }
    assert_eq!(head(&registry).await, before);
    assert_eq!(registry.get(vec!["run/1".to_owned()]).await.expect("read"), [None]);
}

/// I5: an acknowledgement that arrives late takes nothing back.
pub async fn an_acknowledgement_never_goes_back<R: Registry>(registry: R) {
    let positions = ten(&registry).await;
    commit(&registry, puts([("server/a", "{}")])).await;
    acknowledge(&registry, "a", positions[6]).await;
    acknowledge(&registry, "a", positions[2]).await;
    assert_eq!(floor(&registry, 9).await, 6);
    // Below the floor it is late, and no error.
    acknowledge(&registry, "a", positions[2]).await;
    assert_eq!(floor(&registry, 9).await, 6);
    acknowledge(&registry, "a", positions[7]).await;
    assert_eq!(floor(&registry, 9).await, 7);
}

/// I5, R33: who followed another history has passed nothing of this one, so nothing is forgotten for its sake.
pub async fn a_position_of_another_history_is_not_acknowledged<R: Registry>(registry: R) {
    let positions = ten(&registry).await;
    let head = head(&registry).await;
    let other = lockstep_model::Epoch(uuid::Uuid::from_u128(77));
    let foreign = [
        Position { epoch: other, ..head },
        Position { chain: Chain::of(b"other"), ..positions[3] },
        Position { revision: Revision(11), ..head },
    ];
    for asked in foreign {
        let error = registry.acknowledge(server("a"), asked).await.expect_err("not in this history");
        assert_eq!(error, RegistryError::Forked { asked, head });
    }
    commit(&registry, puts([("server/a", "{}")])).await;
    assert_eq!(floor(&registry, 5).await, 0);
}

/// R33: nothing is forgotten that a server has yet to see; one that never acknowledged holds everything back.
pub async fn compaction_waits_for_every_live_server<R: Registry>(registry: R) {
    let positions = ten(&registry).await;
    commit(
        &registry,
        puts([("server/a", "{}"), ("server/b", "{}"), ("server", "no server"), ("servers", "nor this")]),
    )
    .await;
    acknowledge(&registry, "a", positions[4]).await;
    acknowledge(&registry, "never-announced", positions[1]).await;
    assert_eq!(floor(&registry, 9).await, 0, "b has acknowledged nothing");
    acknowledge(&registry, "b", positions[3]).await;
    assert_eq!(floor(&registry, 9).await, 3);
    assert_eq!(floor(&registry, 1).await, 3, "never back");
    acknowledge(&registry, "b", positions[10]).await;
    assert_eq!(floor(&registry, 9).await, 4);
    commit(&registry, deletes(["server/a"])).await;
    assert_eq!(floor(&registry, 9).await, 9, "a is forgotten");
    assert_eq!(floor(&registry, u64::MAX).await, 10, "b is at 10");
    commit(&registry, deletes(["server/b"])).await;
    assert_eq!(floor(&registry, u64::MAX).await, 13, "the head");
}

/// A reader that is too late is told so, and where the history begins.
pub async fn below_the_floor_is_too_old<R: Registry>(registry: R) {
    let positions = ten(&registry).await;
    assert_eq!(floor(&registry, 4).await, 4);
    for asked in &positions[..4] {
        let error = registry.changes(*asked, String::new(), 1).await.expect_err("compacted");
        assert_eq!(error, RegistryError::TooOld { asked: asked.revision, floor: Revision(4) });
    }
    for after in &positions[4..] {
        let rest = all_changes(&registry, *after, "", 2).await;
        assert_eq!(rest.len() as u64, 10 - after.revision.0);
    }
    let other = Position { chain: Chain::of(b"other"), ..positions[4] };
    let error = registry.changes(other, String::new(), 1).await.expect_err("another chain at the floor");
    assert!(matches!(error, RegistryError::Forked { .. }));
}

/// R33: a tombstone is kept until every server has passed it, a record for ever.
pub async fn compaction_forgets_tombstones_and_keeps_records<R: Registry>(registry: R) {
    commit(&registry, puts([("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")])).await;
    commit(&registry, deletes(["a", "b"])).await;
    commit(&registry, puts([("b", "again")])).await;
    commit(&registry, deletes(["d"])).await;
    let last = head(&registry).await;
    assert_eq!(floor(&registry, 3).await, 3);
    let query = ListQuery { limit: 10, tombstones: true, ..ListQuery::default() };
    let left = registry.list(query).await.expect("read");
    assert_eq!(keys(&left.records), ["b", "c", "d"]);
    assert_eq!(head(&registry).await, last);
    assert_eq!(commit(&registry, puts([("a", "new")])).await.revision, Revision(5));
}
