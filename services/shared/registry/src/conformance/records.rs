//! What reading records shows.

use lockstep_model::Revision;

use super::{commit, deletes, head, keys, puts};
use crate::{Commit, ListQuery, PAGE_RECORDS_MAX, Record, Registry};

fn all(prefix: &str) -> ListQuery {
    ListQuery { prefix: prefix.to_owned(), limit: PAGE_RECORDS_MAX, ..ListQuery::default() }
}

/// A tombstone is there for who asks for the latest, and for nobody else.
pub async fn get_hides_tombstones<R: Registry>(registry: R) {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    commit(&registry, Commit { traceparent: traceparent.clone(), ..puts([("a", "{\"x\": 1}"), ("b", "2")]) })
        .await;
    commit(&registry, deletes(["b"])).await;
    let asked = || ["b", "none", "a", "a"].map(str::to_owned).to_vec();
    let live = registry.get(asked()).await.expect("read");
    let latest = registry.get_latest(asked()).await.expect("read");
    let (key, body) = ("a".to_owned(), "{\"x\": 1}".to_owned());
    let a = Some(Record { key, revision: Revision(1), body, deleted: false, traceparent });
    assert_eq!(live, [None, None, a.clone(), a.clone()]);
    assert_eq!(latest[1..], [None, a.clone(), a]);
    let b = latest[0].as_ref().expect("the tombstone");
    assert_eq!((b.revision, b.body.as_str(), b.deleted), (Revision(2), "{}", true));
}

/// I4: pages joined are the records, ordered by their bytes, at the position that is told.
pub async fn lists_are_ordered_bytewise_and_paged<R: Registry>(registry: R) {
    let expected =
        ["f/", "f/A", "f/Z", "f/a", "f/a b", "f/aa", "f/z", "f/\u{7f}", "f/Ä", "f/\u{d7ff}", "f/\u{ffff}"];
    for key in expected.iter().rev() {
        commit(&registry, puts([(*key, "1")])).await;
    }
    commit(&registry, puts([("e", "1"), ("f", "1"), ("f.", "1"), ("f0", "1")])).await;
    for limit in [0, 1, 2, 3, 10, 11, 12, usize::MAX] {
        let (mut found, mut after_key) = (Vec::new(), String::new());
        loop {
            let query = ListQuery { after_key: after_key.clone(), limit, ..all("f/") };
            let page = registry.list(query).await.expect("read");
            assert!(page.records.len() <= limit.max(1));
            assert_eq!(page.position, head(&registry).await);
            found.extend(page.records);
            match found.last() {
                Some(last) if page.more => after_key.clone_from(&last.key),
                _ => break,
            }
        }
        assert_eq!(keys(&found), expected, "limit {limit}");
    }
    assert_eq!(registry.list(all("")).await.expect("read").records.len(), expected.len() + 4);
    assert!(registry.list(all("g")).await.expect("read").records.is_empty());
    let beyond = ListQuery { after_key: "g".to_owned(), ..all("f/") };
    assert!(registry.list(beyond).await.expect("read").records.is_empty());
}

/// R33: a snapshot says what was deleted, so that a server that was away does not bring it back.
pub async fn lists_show_tombstones_when_asked<R: Registry>(registry: R) {
    commit(&registry, puts([("a", "1"), ("b", "1"), ("c", "1")])).await;
    commit(&registry, deletes(["a", "b"])).await;
    commit(&registry, puts([("b", "2")])).await;
    let live = registry.list(all("")).await.expect("read");
    assert_eq!(keys(&live.records), ["b", "c"]);
    let both = registry.list(ListQuery { tombstones: true, ..all("") }).await.expect("read");
    let seen: Vec<_> = both.records.iter().map(|r| (r.key.as_str(), r.deleted, r.revision.0)).collect();
    assert_eq!(seen, [("a", true, 2), ("b", false, 3), ("c", false, 1)]);
    let paged = registry.list(ListQuery { limit: 1, ..all("") }).await.expect("read");
    assert_eq!((keys(&paged.records), paged.more), (vec!["b"], true));
}
