//! Who belongs to the installation, and what is said of it while the registry is away.

use std::time::Duration;

use lockstep_model::{Epoch, Role, ServerId, identity::Members};
use lockstep_registry::{CachedMembers, Commit, MemoryRegistry, Registry};
use tokio::time::advance;

fn registry() -> MemoryRegistry {
    MemoryRegistry::new(Epoch(uuid::Uuid::from_u128(1)))
}

async fn put(registry: &MemoryRegistry, key: &str, body: &str) {
    let puts = vec![(key.to_owned(), body.to_owned())];
    registry.commit(Commit { puts, ..Commit::default() }).await.expect("commit");
}

async fn delete(registry: &MemoryRegistry, key: &str) {
    let deletes = vec![(key.to_owned(), "{}".to_owned())];
    registry.commit(Commit { deletes, ..Commit::default() }).await.expect("commit");
}

fn server(id: &str) -> ServerId {
    id.parse().expect("a label")
}

#[tokio::test(start_paused = true)]
async fn roles_and_servers_are_what_the_registry_says() {
    let registry = registry();
    let members = CachedMembers::new(registry.clone());
    assert_eq!(members.role("ann").await, Ok(None));
    assert_eq!(members.knows(&server("s1")).await, Ok(false));
    put(&registry, "setting/operator/ann", r#"{"role":"publisher"}"#).await;
    put(&registry, "server/s1", "{}").await;
    assert_eq!(members.role("ann").await, Ok(None), "an answer is used for 2 s");
    advance(Duration::from_secs(2)).await;
    assert_eq!(members.role("ann").await, Ok(Some(Role::Publisher)));
    assert_eq!(members.knows(&server("s1")).await, Ok(true));
    delete(&registry, "setting/operator/ann").await;
    delete(&registry, "server/s1").await;
    advance(Duration::from_secs(2)).await;
    assert_eq!(members.role("ann").await, Ok(None));
    assert_eq!(members.knows(&server("s1")).await, Ok(false));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_bridged_for_ten_minutes() {
    let registry = registry();
    let members = CachedMembers::new(registry.clone());
    put(&registry, "setting/operator/ann", r#"{"role":"admin"}"#).await;
    assert_eq!(members.role("ann").await, Ok(Some(Role::Admin)));
    registry.set_available(false);
    for _ in 0..9 {
        advance(Duration::from_secs(60)).await;
        assert_eq!(members.clone().role("ann").await, Ok(Some(Role::Admin)));
    }
    assert!(members.role("bob").await.is_err(), "nothing is known of bob, not even that there is none");
    advance(Duration::from_secs(61)).await;
    assert!(members.role("ann").await.is_err());
    registry.set_available(true);
    assert_eq!(members.role("ann").await, Ok(Some(Role::Admin)));
}

/// A lookup that failed is never reported as absent.
#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_no_answer() {
    let registry = registry();
    put(&registry, "setting/operator/ann", r#"{"role":"emperor"}"#).await;
    let error = CachedMembers::new(registry).role("ann").await.expect_err("unreadable");
    assert!(error.cause.contains("setting/operator/ann"), "{error}");
}
