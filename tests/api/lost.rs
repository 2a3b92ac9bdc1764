//! A server that lost its state directory, its root, or both: it must not take a root that is not mounted for a new one.

use std::fs;

use lockstep_model::{
    Reason, StoreId,
    record::{ServerRecord, server_key},
};
use lockstep_proto::gateway::v1::ListServersRequest;
use lockstep_registry::Registry as _;

use crate::{
    disk::read,
    mesh::{Mesh, Options, eventually},
    refusal::refused,
};

/// The store that the registry says a server has.
async fn store_of(mesh: &Mesh, server: &str) -> StoreId {
    let key = server_key(&server.parse().expect("a server id"));
    let record = mesh.registry.get(vec![key]).await.expect("reads").remove(0).expect("it is announced");
    serde_json::from_str::<ServerRecord>(&record.body).expect("JSON").store_id
}

async fn told(mesh: &Mesh, server: &str) -> Option<(String, String)> {
    let answer = mesh.operator("viewer").matrix().list_servers(ListServersRequest::default()).await;
    let servers = answer.expect("lists").into_inner().servers;
    let summary = servers.into_iter().find(|summary| summary.server_id == server)?;
    let failure = summary.conditions.into_iter().find_map(|condition| condition.failure)?;
    Some((failure.reason, failure.message))
}

fn empty(mesh: &Mesh, directory: &str) {
    fs::remove_dir_all(mesh.path(directory)).expect("removed");
}

/// R19, R45, I3: with its root and its state lost, a server whose record names a store is offline and makes no new one, until
/// somebody says that the old one is lost for good; then it gets everything from the others. With the state lost alone, the
/// marker of the root tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_everything_is_not_taken_for_a_new_one() {
    let mut mesh = Mesh::new(2).await;
    let caller = mesh.operator("publisher");
    caller.register("s1", "d/file", b"file").await.expect("registered");
    mesh.in_sync("d/file").await;
    let store = store_of(&mesh, "s1").await;

    mesh.servers["s1"].stop().await;
    empty(&mesh, "s1/state");
    mesh.start("s1", Options::default()).await;
    mesh.ready().await;
    mesh.in_sync("d/file").await;
    assert_eq!(store_of(&mesh, "s1").await, store, "the root is the one that it was");

    // The root alone: the state is for it, and has to go first.
    mesh.servers["s1"].stop().await;
    empty(&mesh, "s1/root");
    mesh.start("s1", Options { lost_store: Some(store), ..Options::default() }).await;
    eventually("it is told", async || told(&mesh, "s1").await.is_some()).await;
    let (reason, message) = told(&mesh, "s1").await.expect("just seen");
    assert_eq!(reason, Reason::StoreOffline.as_str());
    assert!(
        message.contains(&format!(
            "remove its state directory and start server s1 once with --lost-store={store}"
        )),
        "{message}"
    );

    mesh.servers["s1"].stop().await;
    empty(&mesh, "s1/state");
    mesh.start("s1", Options::default()).await;
    eventually("it is told", async || told(&mesh, "s1").await.is_some()).await;
    let (reason, message) = told(&mesh, "s1").await.expect("just seen");
    assert_eq!(reason, Reason::StoreOffline.as_str());
    for word in ["s1", "mount", &format!("--lost-store={store}")] {
        assert!(message.contains(word), "{message}");
    }
    refused("register", caller.register("s1", "new", b"new").await, Reason::StoreOffline);
    assert_eq!(fs::read_dir(mesh.root("s1")).expect("listed").count(), 0, "nothing is made");
    assert_eq!(store_of(&mesh, "s1").await, store);

    // The id of another store accepts nothing.
    mesh.servers["s1"].stop().await;
    let other = Some(store_of(&mesh, "s2").await);
    mesh.start("s1", Options { lost_store: other, ..Options::default() }).await;
    eventually("it is told", async || told(&mesh, "s1").await.is_some()).await;
    refused("register", caller.register("s1", "new", b"new").await, Reason::StoreOffline);

    mesh.servers["s1"].stop().await;
    mesh.start("s1", Options { lost_store: Some(store), ..Options::default() }).await;
    mesh.ready().await;
    eventually("it has everything again", async || read(&mesh, "s1", "d/file") == b"file").await;
    mesh.in_sync("d/file").await;
    let new = store_of(&mesh, "s1").await;
    assert_ne!(new, store);
    caller.register("s1", "new", b"new").await.expect("registered");

    // Left in place, it does not accept the next loss.
    mesh.servers["s1"].stop().await;
    empty(&mesh, "s1/state");
    empty(&mesh, "s1/root");
    mesh.start("s1", Options { lost_store: Some(store), ..Options::default() }).await;
    eventually("it is told", async || {
        told(&mesh, "s1").await.is_some_and(|(_, message)| message.contains(&new.to_string()))
    })
    .await;
}
