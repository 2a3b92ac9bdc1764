//! The engine of the simulation does what every engine does, and what simulations need beside it.

use std::time::Duration;

use lockstep_model::{Epoch, Revision};
use lockstep_registry::{Commit, MemoryRegistry, Registry, RegistryError, conformance};

fn registry() -> MemoryRegistry {
    MemoryRegistry::new(Epoch(uuid::Uuid::from_u128(1)))
}

fn put(key: &str) -> Commit {
    Commit { puts: vec![(key.to_owned(), "{}".to_owned())], ..Commit::default() }
}

lockstep_registry::conformance_properties!(tests(async || (registry(), ())));

#[tokio::test]
async fn the_suite_can_be_run_as_one() {
    conformance::suite(async || registry()).await;
}

#[tokio::test]
async fn a_registry_that_is_switched_off_answers_nothing_and_loses_nothing() {
    let registry = registry();
    let committed = registry.commit(put("k")).await.expect("available");
    let switch = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        registry.set_available(false);
    };
    let (woken, ()) = tokio::join!(registry.wait_past(Revision(1)), switch);
    for error in [woken, registry.head().await, registry.commit(put("k")).await.map(|c| c.head)] {
        assert!(matches!(error, Err(RegistryError::Unavailable { .. })));
    }
    registry.set_available(true);
    assert_eq!(registry.head().await, Ok(committed.head));
}

/// I5: two histories with one past are told apart after they part, and only then.
#[tokio::test]
async fn a_fork_has_the_past_and_a_future_of_its_own() {
    let registry = registry();
    let past = registry.commit(put("k")).await.expect("available").head;
    let other = registry.fork();
    let mine = registry.commit(put("a")).await.expect("available").head;
    let theirs = other.commit(put("b")).await.expect("available").head;
    assert_eq!((mine.epoch, mine.revision), (theirs.epoch, theirs.revision));
    assert!(other.changes(past, String::new(), 1).await.is_ok());
    assert!(matches!(other.changes(mine, String::new(), 1).await, Err(RegistryError::Forked { .. })));
}
