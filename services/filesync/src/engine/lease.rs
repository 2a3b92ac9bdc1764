//! One owner for each path, from check through rename to index: nothing else touches it meanwhile.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lockstep_model::{FilePath, Folded};
use tokio::sync::Notify;

/// Which paths are owned. Paths that fold to the same name are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    owned: Mutex<BTreeSet<Folded>>,
    freed: Notify,
}

/// Ownership of some paths, until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    inner: Arc<Inner>,
    paths: BTreeSet<Folded>,
}

impl Leases {
    /// Waits until none of `paths` is owned, then owns all of them: all or none, so that no two can wait for each other.
    pub(super) async fn acquire<'a>(&self, paths: impl IntoIterator<Item = &'a FilePath>) -> Lease {
        let names: BTreeSet<Folded> = paths.into_iter().map(FilePath::folded).collect();
        self.acquire_names(names).await
    }

    /// The same for names of any kind.
    pub(super) async fn acquire_names(&self, paths: BTreeSet<Folded>) -> Lease {
        loop {
            let freed = self.inner.freed.notified();
            if self.inner.take(&paths) {
                return Lease { inner: Arc::clone(&self.inner), paths };
            }
            freed.await;
        }
    }
}

impl Inner {
    fn owned(&self) -> MutexGuard<'_, BTreeSet<Folded>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, paths: &BTreeSet<Folded>) -> bool {
        let mut owned = self.owned();
        let free = owned.is_disjoint(paths);
        if free {
            owned.extend(paths.iter().cloned());
        }
        free
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut owned = self.inner.owned();
        owned.retain(|path| !self.paths.contains(path));
        drop(owned);
        self.inner.freed.notify_waiters();
    }
}
