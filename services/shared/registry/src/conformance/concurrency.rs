//! What holds when many do it at once.

use std::{collections::BTreeSet, time::Duration};

use lockstep_model::{Position, Revision};
use tokio::{task::JoinSet, time::Instant};

use super::{all_changes, commit, head, only_if, puts};
use crate::{Precondition, Registry, RegistryError};

/// Adds one to the counter at `key`, as often as it takes; returns the revision that did it.
///
/// Public because the tests with several processes do the same.
pub async fn count_up<R: Registry>(registry: &R, key: &str) -> Revision {
    loop {
        let found = registry.get(vec![key.to_owned()]).await.expect("read").remove(0);
        let (precondition, next) = match found {
            Some(record) => {
                let count: u64 = record.body.parse().expect("a number");
                (Precondition::At(key.to_owned(), record.revision), count + 1)
            }
            None => (Precondition::Absent(key.to_owned()), 1),
        };
        match registry.commit(only_if([precondition], puts([(key, &next.to_string())]))).await {
            Ok(committed) => return committed.revision,
            Err(RegistryError::Refused { .. }) => {}
            Err(error) => panic!("the registry failed: {error}"),
        }
    }
}

/// Checks that since `start` the counter at `key` went from nothing to `count` in steps of one, with no gap between
/// revisions.
pub async fn counted_to<R: Registry>(registry: &R, start: Position, key: &str, count: u64) {
    let changes = all_changes(registry, start, "", 7).await;
    let revisions: Vec<u64> = changes.iter().map(|change| change.revision.0).collect();
    assert!(
        revisions.iter().copied().eq(start.revision.0 + 1..=head(registry).await.revision.0),
        "a gap: {revisions:?}"
    );
    let counts = changes.iter().filter(|change| change.key == key).map(|change| change.body.parse::<u64>());
    assert!(counts.eq((1..=count).map(Ok)), "an update was lost");
}

/// R37, I4: no update is lost, no revision is given twice, and the log has no gap.
pub async fn sixteen_writers_lose_no_update<R: Registry>(registry: R) {
    const WRITERS: u64 = 16;
    const EACH: u64 = 6;
    let start = head(&registry).await;
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let registry = registry.clone();
        writers.spawn(async move {
            let mut made = Vec::new();
            for _ in 0..EACH {
                made.push(count_up(&registry, "counter").await);
            }
            made
        });
    }
    let made: Vec<Revision> = writers.join_all().await.concat();
    assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), made.len(), "one revision for two commits");
    counted_to(&registry, start, "counter", WRITERS * EACH).await;
}

/// R20: a head that moves is noticed at once, not at the next poll.
pub async fn a_waiter_wakes_when_the_head_moves<R: Registry>(registry: R) {
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let before = head(&registry).await;
        let waits = async { registry.wait_past(before.revision).await.map(|head| (head, Instant::now())) };
        let commits = async {
            // Long enough for the waiter to wait; if it does not yet, it still has to see the commit.
            tokio::time::sleep(Duration::from_millis(20)).await;
            (commit(&registry, puts([("k", "1")])).await, Instant::now())
        };
        let (woken, (committed, at)) = tokio::join!(waits, commits);
        let (head, woken) = woken.expect("the registry answers");
        assert_eq!(head, committed.head);
        fastest = fastest.min(woken.saturating_duration_since(at));
    }
    assert!(fastest < Duration::from_millis(500), "woken after {fastest:?} at best");
    let behind = registry.wait_past(Revision::ZERO).await.expect("the registry answers");
    assert_eq!(behind, head(&registry).await, "nothing to wait for");
}

/// A waiter looks at the world again after about a second.
pub async fn a_waiter_returns_when_nothing_happens<R: Registry>(registry: R) {
    let head = commit(&registry, puts([("k", "1")])).await.head;
    let started = Instant::now();
    assert_eq!(registry.wait_past(head.revision).await, Ok(head));
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&started.elapsed()));
}
