//! The store on a real file system.
//!
//! ```text
//! <root>/ums_filetransfer/…    final names, complete bytes only
//! <root>/.lockstep/store.json  the marker        staging/  bytes on their way      aside/  displaced bytes
//! ```

mod beneath;
mod claim;
mod content;
mod moves;
mod tree;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use jiff::Timestamp;
use lockstep_model::{FilePath, ServerId, StoreId};
use rustix::fd::OwnedFd;

use crate::{
    domain::held::{StagedName, Stat},
    ports::{Algorithms, Hashed, Place, Store, StoreError},
};

/// The directory that devices see.
pub const TRANSFER: &str = "ums_filetransfer";
/// Our own directory beside it.
pub const OURS: &str = ".lockstep";
/// From this many files on, one sync of the file system is cheaper than one for each file.
const SYNC_EACH_MAX: usize = 8;

/// The root directory of a server.
#[derive(Clone, Debug)]
pub struct FsStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    server: Option<ServerId>,
    reserve_bytes: u64,
    dirs: OnceLock<Dirs>,
}

/// Open directories. Whatever is done is done beneath one of them.
#[derive(Debug)]
struct Dirs {
    store: StoreId,
    transfer: OwnedFd,
    staging: OwnedFd,
    aside: OwnedFd,
    /// Held as long as this process lives, so that no second one uses the same root.
    _lock: OwnedFd,
}

impl Dirs {
    /// A refusal at one path is one of the whole store where nothing can be written at all.
    fn judge(&self, error: StoreError) -> StoreError {
        let StoreError::Refused { path, cause } = error else { return error };
        match beneath::is_writable(&self.transfer) && beneath::is_writable(&self.staging) {
            true => StoreError::Refused { path, cause },
            false => StoreError::ReadOnly { cause: format!("{path}: {cause}") },
        }
    }

    /// The same for each of many.
    fn judge_each<T>(&self, results: Vec<Result<T, StoreError>>) -> Vec<Result<T, StoreError>> {
        results.into_iter().map(|result| result.map_err(|error| self.judge(error))).collect()
    }
}

impl FsStore {
    /// The store at `root`, which keeps `reserve_bytes` of its disk free. Nothing is touched before it is claimed.
    pub fn new(root: &Path, reserve_bytes: u64) -> Self {
        Self::open(root, None, reserve_bytes)
    }

    /// The same; a root whose marker names another server is refused.
    pub fn of(server: &ServerId, root: &Path, reserve_bytes: u64) -> Self {
        Self::open(root, Some(server.clone()), reserve_bytes)
    }

    fn open(root: &Path, server: Option<ServerId>, reserve_bytes: u64) -> Self {
        let root = root.to_owned();
        Self { inner: Arc::new(Inner { root, server, reserve_bytes, dirs: OnceLock::new() }) }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Dirs) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let offline = || StoreError::Offline { cause: format!("{} is not open", inner.root.display()) };
            let dirs = inner.dirs.get().ok_or_else(offline)?;
            work(&inner, dirs).map_err(|error| dirs.judge(error))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::Failed { path: String::new(), cause: format!("the disk worker ended: {error}") })
    })
}

impl Inner {
    /// Adds the figures to a refusal for want of room.
    fn with_figures(&self, dirs: &Dirs, needed: u64, error: StoreError) -> StoreError {
        match error {
            StoreError::Full { .. } => {
                let free_bytes =
                    beneath::free_bytes(&dirs.staging).unwrap_or(0).saturating_sub(self.reserve_bytes);
                StoreError::Full { free_bytes, needed_bytes: needed }
            }
            other => other,
        }
    }
}

impl Store for FsStore {
    async fn claim(&self, expected: Option<StoreId>, fresh: StoreId) -> Result<StoreId, StoreError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            if let Some(dirs) = inner.dirs.get() {
                return Ok(dirs.store);
            }
            let opened = claim::open(&inner.root, inner.server.as_ref(), expected, fresh);
            let dirs = opened.map_err(|error| match error {
                StoreError::Refused { path, cause } => {
                    StoreError::ReadOnly { cause: format!("{path}: {cause}") }
                }
                other => other,
            })?;
            let store = dirs.store;
            // A second claim at the same time would have failed at the lock, so this cannot lose.
            let _ = inner.dirs.set(dirs);
            Ok(store)
        })
        .await
    }

    async fn free_bytes(&self) -> Result<u64, StoreError> {
        self.run(|inner, dirs| Ok(beneath::free_bytes(&dirs.staging)?.saturating_sub(inner.reserve_bytes)))
            .await
    }

    async fn stage(&self, files: Vec<(StagedName, Bytes)>) -> Result<(), StoreError> {
        self.run(move |inner, dirs| {
            let needed = files.iter().map(|(_, data)| data.len() as u64).sum();
            for (name, data) in &files {
                content::replace(&dirs.staging, name, data)
                    .map_err(|e| inner.with_figures(dirs, needed, e))?;
            }
            Ok(())
        })
        .await
    }

    async fn append(&self, name: &StagedName, before: Stat, data: Bytes) -> Result<Stat, StoreError> {
        let name = name.clone();
        self.run(move |inner, dirs| {
            content::append(&dirs.staging, &name, before, &data)
                .map_err(|error| inner.with_figures(dirs, data.len() as u64, error))
        })
        .await
    }

    async fn truncate(&self, name: &StagedName, size_bytes: u64) -> Result<Stat, StoreError> {
        let name = name.clone();
        self.run(move |_, dirs| content::truncate(&dirs.staging, &name, size_bytes)).await
    }

    async fn let_go(&self, name: &StagedName, end_bytes: u64) -> Result<(), StoreError> {
        let name = name.clone();
        self.run(move |_, dirs| content::let_go(&dirs.staging, &name, end_bytes)).await
    }

    async fn sync(&self, files: Vec<(StagedName, Option<Timestamp>)>) -> Result<(), StoreError> {
        self.run(move |inner, dirs| {
            content::sync(&dirs.staging, &files).map_err(|error| inner.with_figures(dirs, 0, error))
        })
        .await
    }

    async fn hash(
        &self,
        names: Vec<StagedName>,
        wanted: Algorithms,
    ) -> Result<Vec<Option<Hashed>>, StoreError> {
        self.run(move |_, dirs| {
            names.iter().map(|name| content::hash(&dirs.staging, name.as_str(), wanted)).collect()
        })
        .await
    }

    async fn look(&self, names: Vec<StagedName>) -> Result<Vec<Option<Stat>>, StoreError> {
        self.run(move |_, dirs| {
            names.iter().map(|name| content::stat(&dirs.staging, name.as_str())).collect()
        })
        .await
    }

    async fn staged(&self) -> Result<Vec<(StagedName, u64)>, StoreError> {
        self.run(|_, dirs| content::list(&dirs.staging)).await
    }

    async fn discard(&self, names: Vec<StagedName>) -> Result<(), StoreError> {
        self.run(move |_, dirs| content::discard(&dirs.staging, &names)).await
    }

    async fn publish(
        &self,
        files: Vec<(StagedName, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        self.run(move |_, dirs| Ok(dirs.judge_each(moves::publish(dirs, &files)?))).await
    }

    async fn exchange(
        &self,
        files: Vec<(StagedName, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        self.run(move |_, dirs| Ok(dirs.judge_each(moves::exchange(dirs, &files)?))).await
    }

    async fn relocate(
        &self,
        files: Vec<(FilePath, FilePath)>,
    ) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        self.run(move |_, dirs| Ok(dirs.judge_each(moves::relocate(dirs, &files)?))).await
    }

    async fn withdraw(
        &self,
        files: Vec<(FilePath, StagedName)>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.run(move |_, dirs| Ok(dirs.judge_each(moves::withdraw(dirs, &files)?))).await
    }

    async fn stat(&self, paths: Vec<FilePath>) -> Result<Vec<Result<Option<Stat>, StoreError>>, StoreError> {
        self.run(move |_, dirs| {
            Ok(paths.iter().map(|path| content::stat(&dirs.transfer, path.as_str())).collect())
        })
        .await
    }

    async fn read(&self, place: Place, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        self.run(move |_, dirs| match &place {
            Place::Published(path) => content::read_at(&dirs.transfer, path.as_str(), offset, length),
            Place::Staged(name) => content::read_at(&dirs.staging, name.as_str(), offset, length),
        })
        .await
    }

    async fn hash_published(&self, path: FilePath) -> Result<Option<Hashed>, StoreError> {
        self.run(move |_, dirs| content::hash(&dirs.transfer, path.as_str(), Algorithms::default())).await
    }
}
