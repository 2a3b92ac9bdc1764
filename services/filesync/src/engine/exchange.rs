//! Putting bytes in the place of others in one step, so that whoever reads sees the old bytes or the new ones; and what
//! becomes of those that were displaced: ours go, anybody else's are set aside (R16, R29).

use lockstep_model::{Digest, FilePath, Reason};

use super::Engine;
use crate::{
    domain::{
        error::FileError,
        held::{Held, Stat, Wanted},
        intent::{Intent, Staged},
    },
    ports::{Algorithms, Ports, Store as _, StoreError, Tree as _, Write},
};

/// What came of a file that got its name, or did not.
pub(super) type Published = Result<Stat, StoreError>;

impl<P: Ports> Engine<P> {
    /// Publishes files whose paths are taken. What they displace is settled by [`Engine::settle_exchanges_at`], once they
    /// are held. The caller has the lease.
    pub(super) async fn displace(&self, files: &[&Staged]) -> Result<Vec<Published>, FileError> {
        let paths: Vec<FilePath> = files.iter().map(|file| file.wanted.path.clone()).collect();
        let mut writes = Vec::with_capacity(files.len());
        let left = self.inner.intents.exchanges();
        let held = self.inner.board.held(&paths);
        // What another path still needs is not ours to remove here: it is set aside.
        let ids = held.iter().flatten().map(|held| held.file_id).collect();
        let needed = self.inner.board.missing_files(&ids);
        let is_known = |held: &Held, at: &Wanted| {
            let elsewhere = needed.get(&held.file_id).filter(|needed| needed.digest == held.digest);
            elsewhere.is_none_or(|needed| needed.path == at.path)
        };
        let held = held.into_iter();
        for ((file, held), missing) in files.iter().zip(held).zip(self.inner.board.exceptions(&paths)) {
            let intent = Intent::Exchange {
                wanted: file.wanted.clone(),
                staged: file.staged.clone(),
                known: held.filter(|held| is_known(held, &file.wanted)).map(|held| held.digest),
                displaces: missing.and_then(|missing| missing.displaces),
            };
            // An earlier try that failed has left the same.
            if !left.contains(&intent) {
                writes.push(Write::Intend(self.number(), intent));
            }
        }
        self.record(writes.clone()).await?;
        for write in writes {
            if let Write::Intend(number, intent) = write {
                self.inner.intents.leave(number, intent);
            }
        }
        fail::fail_point!("filesync.exchange.intended");
        let store = &self.inner.ports.store;
        let moves = files.iter().map(|file| (file.staged.clone(), file.wanted.path.clone())).collect();
        let mut exchanged = store.exchange(moves).await.map_err(|error| self.disk(error))?;
        for (result, file) in exchanged.iter_mut().zip(files) {
            // It went away meanwhile, or is nothing that could be in staging.
            if matches!(result, Err(StoreError::Absent { .. } | StoreError::Foreign { .. })) {
                *result = self.clear_and_publish(file).await;
            }
        }
        Ok(exchanged)
    }

    async fn clear_and_publish(&self, file: &Staged) -> Published {
        let path = &file.wanted.path;
        match self.set_aside(path).await {
            Ok(()) | Err(StoreError::Absent { .. }) => {}
            // A directory, or above it something that is none.
            Err(error @ StoreError::Foreign { .. }) => {
                if !self.set_aside_above(path).await? {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        let absent = || StoreError::Absent { path: path.to_string() };
        let moved = vec![(file.staged.clone(), path.clone())];
        self.inner.ports.store.publish(moved).await?.pop().ok_or_else(absent)?
    }

    /// Sets aside the loose file that lies in the place of a directory above `path`; whether there was one. A link there is
    /// left alone: somebody means it, and what it leads to is not ours.
    async fn set_aside_above(&self, path: &FilePath) -> Result<bool, StoreError> {
        let above: Vec<FilePath> = path.ancestors().filter_map(|above| above.parse().ok()).collect();
        let held = self.inner.board.held(&above);
        let found = self.inner.ports.store.inspect(above.clone()).await?;
        for ((above, held), found) in above.iter().zip(held).zip(found) {
            // A file of ours goes with its deletion.
            if found.is_ok() && held.is_none() {
                self.set_aside(above).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Settles the exchanges at `paths` that nobody else is settling, or all. The caller has the lease, or nothing else
    /// runs yet.
    pub(super) async fn settle_exchanges_at(&self, paths: Option<&[FilePath]>) -> Result<(), FileError> {
        let mut left = self.inner.intents.take_exchanges(paths);
        while let Some((number, intent)) = left.pop_first() {
            if let Err(error) = self.settle_exchange(number, &intent).await {
                self.inner.intents.leave(number, intent);
                if paths.is_none() && error.of_one_path().is_some() {
                    // At the start: the server does not wait for one path.
                    tracing::warn!(%error, "an exchange is settled later");
                    continue;
                }
                left.into_iter().for_each(|(number, intent)| self.inner.intents.leave(number, intent));
                return Err(error);
            }
        }
        Ok(())
    }

    /// What is in staging tells how far it came. The caller has the lease of the path.
    pub(super) async fn settle_exchange(&self, number: u64, intent: &Intent) -> Result<(), FileError> {
        let Intent::Exchange { wanted, staged, known, displaces } = intent else { return Ok(()) };
        let (path, digest_wanted) = (&wanted.path, &wanted.digest);
        let store = &self.inner.ports.store;
        let found = match store.hash(vec![staged.clone()], Algorithms::default()).await {
            Ok(found) => Ok(found.into_iter().flatten().next().map(|found| found.digest)),
            Err(error @ (StoreError::Foreign { .. } | StoreError::Changed { .. })) => Err(error),
            Err(error) => return Err(self.disk(error)),
        };
        let is_ours = match &found {
            Ok(None) => false,
            // Not begun, or the bytes that were there are the same ones.
            Ok(Some(digest)) if digest == digest_wanted => self.is_at(path, digest_wanted).await?,
            Ok(Some(digest)) => Some(digest) == known.as_ref(),
            Err(_) => false,
        };
        let is_needed = matches!(&found, Ok(Some(digest)) if digest == digest_wanted);
        if !is_ours && !is_needed && !matches!(found, Ok(None)) {
            let reason = displaces.or(known.map(|_| Reason::Drifted)).unwrap_or(Reason::LooseFileExists);
            self.keep_aside(staged.clone(), path, reason).await.map_err(|error| self.disk(error))?;
        }
        let is_done = is_ours || !is_needed;
        let mut writes = if is_done { self.hold_exchanged(wanted).await? } else { Vec::new() };
        writes.push(Write::Settle(number));
        self.record(writes).await?;
        if is_ours {
            self.discard(vec![staged.clone()]).await;
        }
        fail::fail_point!("filesync.exchange.settled");
        Ok(())
    }

    /// What to write for bytes that are at their path, but not held yet, because whoever put them there failed or died.
    async fn hold_exchanged(&self, wanted: &Wanted) -> Result<Vec<Write>, FileError> {
        let held = self.inner.board.held(std::slice::from_ref(&wanted.path)).pop().flatten();
        if held.is_some_and(|held| held.digest == wanted.digest || held.revision > wanted.revision) {
            return Ok(Vec::new());
        }
        let mut writes = self.adopt(wanted).await?.unwrap_or_default();
        // What is missing by now may be newer.
        if !self.inner.board.is_missing(wanted) {
            writes.retain(|write| !matches!(write, Write::Clear(_)));
        }
        Ok(writes)
    }

    /// Whether these bytes are at the path.
    async fn is_at(&self, path: &FilePath, digest: &Digest) -> Result<bool, FileError> {
        match self.inner.ports.store.hash_published(path.clone()).await {
            Ok(found) => Ok(found.is_some_and(|found| found.digest == *digest)),
            Err(StoreError::Foreign { .. } | StoreError::Changed { .. }) => Ok(false),
            Err(error) => Err(self.disk(error)),
        }
    }
}
