//! Whether paths are free to be registered: neither registered, nor held from an earlier life, nor taken by a loose file.

use lockstep_model::{FilePath, record::file_key};
use lockstep_registry::{Registry as _, RegistryError};

use super::{Ask, Engine, codec::decode, lease::Lease};
use crate::{
    domain::error::FileError,
    ports::{Ports, Store as _, StoreError},
};

/// How often the same paths may be fetched again while a registration waits for them.
const ATTEMPTS_MAX: usize = 16;

impl<P: Ports> Engine<P> {
    fn holds_any(&self, paths: &[FilePath]) -> bool {
        self.inner.board.held(paths).iter().any(Option::is_some)
    }

    /// A path that is held here but registered no more has to be given up first; our position is behind.
    pub(super) async fn catch_up_with(&self, paths: &[FilePath], ask: &Ask) -> Result<(), FileError> {
        if self.holds_any(paths) {
            self.check_free(paths, &ask.label()).await?;
            self.reconcile().await?;
        }
        Ok(())
    }

    /// The lease of `paths`, none of which is held. A copy that was fetched while this waited, of an object that is
    /// deleted meanwhile, is no loose file: it is given up too, which needs the lease.
    pub(super) async fn acquire_free(&self, paths: &[FilePath], ask: &Ask) -> Result<Lease, FileError> {
        for _ in 0..ATTEMPTS_MAX {
            let lease = self.inner.leases.acquire(paths).await;
            if !self.holds_any(paths) {
                return Ok(lease);
            }
            drop(lease);
            self.catch_up_with(paths, ask).await?;
        }
        let cause = "the same names were registered and deleted again and again in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    /// Refuses paths that a loose file occupies (decision 10).
    pub(super) async fn check_no_loose(&self, paths: &[FilePath], ask: &Ask) -> Result<(), FileError> {
        let found = self.inner.ports.store.stat(paths.to_vec()).await.map_err(|error| self.disk(error))?;
        for (path, found) in paths.iter().zip(found) {
            match found {
                Ok(None) => {}
                // Something that is no file is loose too.
                Ok(Some(_)) | Err(StoreError::Foreign { .. }) => {
                    self.check_free(std::slice::from_ref(path), &ask.label()).await?;
                    return Err(FileError::LooseFile { path: path.clone(), server: self.server().clone() });
                }
                Err(error) => return Err(self.disk(error)),
            }
        }
        Ok(())
    }

    /// Refuses paths that are registered; with which revision, tells the error.
    pub(super) async fn check_free(&self, paths: &[FilePath], label: &str) -> Result<(), FileError> {
        let latest = self.registry().get_latest(paths.iter().map(file_key).collect()).await?;
        for (path, record) in paths.iter().zip(latest) {
            let Some(record) = record.filter(|record| !record.deleted) else { continue };
            let body = decode(&record)?;
            if body.registered_by != label {
                let (revision, digest, origin) = (record.revision, body.digest, body.origin);
                return Err(FileError::Exists { path: path.clone(), revision, digest, origin });
            }
        }
        Ok(())
    }
}
