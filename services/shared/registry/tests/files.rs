//! What the engine on a database file says about files that are not what it expects.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use lockstep_registry::{Commit, Registry, RegistryError, SqliteRegistry};

fn cause<T: std::fmt::Debug>(result: Result<T, RegistryError>) -> String {
    match result {
        Err(RegistryError::Unavailable { cause }) => cause,
        other => panic!("expected Unavailable, got {other:?}"),
    }
}

fn put() -> Commit {
    Commit { puts: vec![("k".to_owned(), "{}".to_owned())], ..Commit::default() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_owner_can_read_a_new_registry() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("a/b/registry.sqlite");
    let registry = SqliteRegistry::open(&path).expect("a new database");
    registry.commit(put()).await.expect("commit");
    assert_eq!((mode(&directory.path().join("a")), mode(&directory.path().join("a/b"))), (0o700, 0o700));
    for entry in fs::read_dir(directory.path().join("a/b")).expect("entries") {
        let entry = entry.expect("an entry").path();
        assert_eq!(mode(&entry), 0o600, "{}", entry.display());
    }
}

/// A database that nobody has open is one file with everything in it, so that it can be copied.
#[tokio::test]
async fn the_last_to_close_leaves_one_whole_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("registry.sqlite");
    let registries = [(); 2].map(|()| SqliteRegistry::open(&path).expect("open"));
    let head = registries[0].commit(put()).await.expect("commit").head;
    let started = Instant::now();
    drop(registries);
    assert!(started.elapsed() < Duration::from_millis(900), "the threads are woken, not waited for");
    let left =
        fs::read_dir(directory.path()).expect("entries").map(|entry| entry.expect("an entry").file_name());
    let left: BTreeSet<_> = left.map(|name| name.into_string().expect("text")).collect();
    assert!(left.iter().eq(["registry.sqlite", "registry.sqlite-bell"]), "{left:?}");
    assert_eq!(SqliteRegistry::open(&path).expect("open").head().await, Ok(head));
}

#[test]
fn a_file_of_another_kind_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = directory.path().join("text");
    fs::write(&text, "not a database, but long enough to have a header ".repeat(40)).expect("write");
    let foreign = directory.path().join("foreign.sqlite");
    let database = rusqlite::Connection::open(&foreign).expect("open");
    database.execute_batch("CREATE TABLE songs (title TEXT)").expect("a table");
    drop(database);
    let cases = [(&text, "file is not a database"), (&foreign, "the file is a database of another program")];
    for (path, expected) in cases {
        let before = fs::read(path).expect("read");
        let cause = cause(SqliteRegistry::open(path));
        assert!(cause.starts_with(&path.display().to_string()) && cause.contains(expected), "{cause}");
        assert_eq!(fs::read(path).expect("read"), before);
    }
    let below = text.join("registry.sqlite");
    assert!(cause(SqliteRegistry::open(&below)).contains(&text.display().to_string()));
}

#[test]
fn a_damaged_registry_is_refused_with_the_cause() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("registry.sqlite");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let registry = SqliteRegistry::open(&path).expect("a new database");
    runtime.block_on(registry.commit(put())).expect("commit");
    let copy = directory.path().join("copy.sqlite");
    rusqlite::Connection::open(&path)
        .expect("open")
        .execute("VACUUM INTO ?1", [copy.to_str()])
        .expect("a copy");
    let mut bytes = fs::read(&copy).expect("read");
    // All pages but the first, which says that it is a registry.
    bytes[4096..].fill(0xa5);
    fs::write(&copy, bytes).expect("write");
    let cause = cause(SqliteRegistry::open(&copy));
    assert!(cause.contains("copy.sqlite") && cause.contains("malformed"), "{cause}");
}

/// Writing on to a file that nobody can find any more would lose what is acknowledged (I1); a new empty one in its place
/// would look like a decision. A backup that is put there is taken, and the changed history is detected (I5).
#[tokio::test]
async fn a_file_that_is_taken_away_is_noticed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, aside) = (directory.path().join("registry.sqlite"), directory.path().join("aside"));
    let registry = SqliteRegistry::open(&path).expect("a new database");
    registry.commit(put()).await.expect("commit");
    rusqlite::Connection::open(&path)
        .expect("open")
        .execute("VACUUM INTO ?1", [aside.to_str()])
        .expect("a copy");
    let lost = registry.commit(put()).await.expect("commit").head;
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", path.display())).expect("remove");
    }
    assert!(cause(registry.head().await).contains("registry.sqlite"));
    assert!(cause(registry.commit(put()).await).contains("registry.sqlite"));
    assert!(cause(registry.wait_past(lost.revision).await).contains("registry.sqlite"));
    assert!(!path.exists());
    fs::rename(&aside, &path).expect("restore");
    let head = registry.head().await.expect("the backup is read");
    assert_eq!((head.epoch, head.revision.0), (lost.epoch, 1));
    let forked = registry.changes(lost, String::new(), 1).await.expect_err("its tail is lost");
    assert_eq!(forked, RegistryError::Forked { asked: lost, head });
    registry.commit(put()).await.expect("commit");
    let mut other = put();
    other.puts[0].1.push(' ');
    let committed = registry.commit(other).await.expect("commit");
    assert_eq!(committed.revision.0, 3);
}
