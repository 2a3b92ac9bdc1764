//! Moving: the file has its new path with the commit, then every server renames its copy; no bytes travel (R38).

use lockstep_model::{FilePath, Reason, Revision, clock::Entropy as _, path::fold, record::file_key};
use lockstep_registry::{Registry as _, RegistryError, Request};

use super::{
    Ask, Engine, Registered, change::Step, codec::decode, commit::ATTEMPTS_MAX, examine::obstacle,
    stuck::is_about_missing,
};
use crate::{
    domain::{
        check::Finding,
        error::FileError,
        exception::{Missing, Obstacle},
        held::{Held, StagedName, Stat, Wanted},
        intent::{Intent, Staged},
    },
    ports::{Algorithms, Ports, Store as _, StoreError, Write},
};

/// Files that were not moved: where they are or were, what they should be, and why not.
pub(super) type Unmoved = Vec<(FilePath, Wanted, Obstacle)>;

impl<P: Ports> Engine<P> {
    /// Gives a file another path; answers it as it is then.
    ///
    /// # Errors
    /// As the contract says; after one other than `REGISTRY_UNAVAILABLE` nothing happened.
    pub async fn move_file(
        &self,
        ask: Ask,
        path: FilePath,
        new_path: FilePath,
        expected: Revision,
    ) -> Result<Registered, FileError> {
        let engine = self.clone();
        self.detached(async move { engine.move_now(&ask, &path, &new_path, expected).await }).await
    }

    async fn move_now(
        &self,
        ask: &Ask,
        path: &FilePath,
        new_path: &FilePath,
        expected: Revision,
    ) -> Result<Registered, FileError> {
        self.may_change()?;
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let (target, label) = (std::slice::from_ref(new_path), ask.label());
        let fingerprint = format!("move {path} {expected} {new_path}");
        let request = Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint };
        let not_found = || FileError::NotFound { path: path.clone() };
        if let Some(revision) = self.known_request(&request).await? {
            return self.replay(revision, target, &label).await?.pop().ok_or_else(not_found);
        }
        self.may_originate(ask.deadline).await?;
        match self.try_move(ask, &request, path, new_path, expected).await {
            // Another server may have carried it out at the same time; then what is in the way is its work.
            Err(error) => match self.known_request(&request).await? {
                Some(revision) => self.replay(revision, target, &label).await?.pop().ok_or_else(not_found),
                None => Err(error),
            },
            done => done,
        }
    }

    async fn try_move(
        &self,
        ask: &Ask,
        request: &Request,
        path: &FilePath,
        new_path: &FilePath,
        expected: Revision,
    ) -> Result<Registered, FileError> {
        let (target, label) = (std::slice::from_ref(new_path), ask.label());
        let not_found = || FileError::NotFound { path: path.clone() };
        for _ in 0..ATTEMPTS_MAX {
            let mut latest = self.registry().get_latest(vec![file_key(path)]).await?;
            let record = latest.pop().flatten().ok_or_else(not_found)?;
            if record.deleted {
                // A request that is forgotten among later ones is still told by what it left.
                if decode(&record)?.deleted_by.as_ref() == Some(&label) {
                    return self.replay(record.revision, target, &label).await?.pop().ok_or_else(not_found);
                }
                return Err(not_found());
            }
            let step = Step::at(path, &record, expected, Some(new_path.clone()))?;
            let lease = self.acquire_free(target, &[], ask).await?;
            match self.commit_steps(ask, request.clone(), std::slice::from_ref(&step)).await {
                Err(FileError::Registry(RegistryError::Refused { .. })) => {}
                Err(error) => return Err(error),
                Ok(committed) if committed.replayed => {
                    return self
                        .replay(committed.revision, target, &label)
                        .await?
                        .pop()
                        .ok_or_else(not_found);
                }
                Ok(committed) => {
                    fail::fail_point!("filesync.move.committed");
                    drop(lease);
                    self.follow_own_change(path).await;
                    let (path, revision) = (new_path.clone(), committed.revision);
                    return Ok(Registered { path, revision, record: step.moved(ask) });
                }
            }
        }
        let cause = "other changes of the same names kept coming in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    /// The change stands. Whatever keeps this server from carrying it out now, its next round does.
    pub(super) async fn follow_own_change(&self, path: &FilePath) {
        if let Err(error) = self.reconcile().await {
            tracing::warn!(%path, %error, "the change is carried out here later");
        }
    }

    /// Renames our copies of files that have another path by now. What the disk refuses is answered with the reason: it is
    /// held at the old path still, or its bytes wait in staging. The caller has the lease of the old paths and the new.
    pub(super) async fn relocate(&self, moves: Vec<(FilePath, Wanted)>) -> Result<Unmoved, FileError> {
        if moves.is_empty() {
            return Ok(Unmoved::new());
        }
        let number = self.number();
        let _active = self.inner.intents.begin(number);
        let intent = Intent::Move { moves: moves.clone() };
        self.record(vec![Write::Intend(number, intent.clone())]).await?;
        fail::fail_point!("filesync.move.intended");
        let unmoved = self.rename(number, moves).await;
        if unmoved.is_err() {
            self.inner.intents.leave(number, intent);
        }
        unmoved
    }

    /// Carries out the moves of an intent, which is settled unless this fails.
    async fn rename(&self, number: u64, moves: Vec<(FilePath, Wanted)>) -> Result<Unmoved, FileError> {
        let from: Vec<FilePath> = moves.iter().map(|(from, _)| from.clone()).collect();
        let held = self.inner.board.held(&from);
        let before = self.inner.ports.store.stat(from).await.map_err(|error| self.disk(error))?;
        let pairs = moves.iter().map(|(from, wanted)| (from.clone(), wanted.path.clone())).collect();
        let relocated = match self.inner.ports.store.relocate(pairs).await {
            Ok(relocated) => relocated,
            Err(error) => {
                let error = self.disk(error);
                let why = error.of_one_path().ok_or(error)?;
                self.record(vec![Write::Settle(number)]).await?;
                return Ok(moves.into_iter().map(|(from, wanted)| (from, wanted, why.clone())).collect());
            }
        };
        fail::fail_point!("filesync.move.renamed");
        let (mut blocked, mut unmoved) = (Vec::new(), Unmoved::new());
        let mut writes = vec![Write::Settle(number)];
        let found = before.into_iter().zip(relocated);
        for (((from, wanted), held), (before, relocated)) in moves.into_iter().zip(held).zip(found) {
            let Some(held) = held else { continue };
            match relocated {
                Ok(stat) if before.is_ok_and(|before| before == Some(held.stat)) => {
                    writes.append(&mut hold_moved(from, &wanted, &held, stat));
                    writes.push(self.not_missing(&wanted));
                }
                Ok(stat) => writes.append(&mut self.read_moved(from, wanted, &held, stat).await?),
                // Renamed before a crash; or somebody took it away.
                Err(StoreError::Absent { .. }) => {
                    writes.push(Write::Release(from));
                    match self.adopt(&wanted).await {
                        Ok(Some(mut held)) => writes.append(&mut held),
                        Ok(None) => writes.push(Write::Miss(Missing::new(wanted))),
                        Err(error) => {
                            let why = error.of_one_path().ok_or(error)?;
                            writes.push(Write::Miss(Missing::refused(wanted, why)));
                        }
                    }
                }
                // Something is in the way: a loose file, a directory, or a file that is about to move itself.
                Err(StoreError::Occupied { .. } | StoreError::Foreign { .. }) => blocked.push((from, wanted)),
                Err(error) => {
                    let error = self.disk(error);
                    let why = error.of_one_path().ok_or(error)?;
                    unmoved.push((from, wanted, why));
                }
            }
        }
        self.record(writes).await?;
        fail::fail_point!("filesync.move.held");
        if !blocked.is_empty() {
            unmoved.append(&mut self.relocate_blocked(blocked).await?);
        }
        Ok(unmoved)
    }

    /// A copy that was renamed before a crash is held where it is: whatever became of its file since then, it is ours to
    /// move on, to replace or to remove.
    pub(super) async fn settle_moves(
        &self,
        number: u64,
        moves: Vec<(FilePath, Wanted)>,
    ) -> Result<(), FileError> {
        let paths: Vec<FilePath> =
            moves.iter().flat_map(|(from, wanted)| [from.clone(), wanted.path.clone()]).collect();
        let _lease = self.inner.leases.acquire(&paths).await;
        let (board, store) = (&self.inner.board, &self.inner.ports.store);
        let mut writes = vec![Write::Settle(number)];
        for (from, wanted) in moves {
            let there = [from.clone(), wanted.path.clone()];
            let [Some(held), None] = <[_; 2]>::try_from(board.held(&there)).unwrap_or_default() else {
                continue;
            };
            if (held.file_id, held.digest) != (wanted.file_id, wanted.digest) {
                continue;
            }
            let found = store.stat(vec![from.clone()]).await.map_err(|error| self.disk(error))?.pop();
            if matches!(found, Some(Ok(Some(stat))) if stat.same_content(&held.stat)) {
                continue;
            }
            if let Some(mut renamed) = self.adopt(&wanted).await? {
                // What is missing there by now may be newer.
                if !board.is_missing(&wanted) {
                    renamed.retain(|write| !is_about_missing(write));
                }
                writes.push(Write::Release(from));
                writes.append(&mut renamed);
            }
        }
        self.record(writes).await
    }

    /// What to write of a copy that looked otherwise than when it was verified before it was renamed: the rename changes its
    /// times, so that what was done to it would not show any more (R45). So its bytes are read now.
    async fn read_moved(
        &self,
        from: FilePath,
        wanted: Wanted,
        held: &Held,
        stat: Stat,
    ) -> Result<Vec<Write>, FileError> {
        let mut writes = vec![Write::Release(from)];
        let why = match self.adopt(&wanted).await {
            Ok(Some(mut held)) => {
                writes.append(&mut held);
                return Ok(writes);
            }
            Ok(None) if stat.same_content(&held.stat) => {
                let why = "the bytes on the disk are not the ones that were verified";
                obstacle(&wanted.path, self.server().as_str(), Finding::Corrupt, why)
            }
            Ok(None) => {
                let why = "somebody changed its bytes";
                obstacle(&wanted.path, self.server().as_str(), Finding::Drifted, why)
            }
            Err(error) => {
                let why = error.of_one_path().ok_or(error)?;
                writes.push(Write::Miss(Missing::refused(wanted, why)));
                return Ok(writes);
            }
        };
        let path = &wanted.path;
        match why.reason {
            Reason::Drifted => tracing::warn!(%path, obstacle = %why, "a copy drifted; it is left alone"),
            _ => tracing::warn!(%path, obstacle = %why, "a copy is given up and fetched again"),
        }
        writes.push(Write::Miss(Missing::given_up(wanted, why)));
        Ok(writes)
    }

    /// All that are blocked step aside, into staging, and then get their names; whatever is in the way then, nobody
    /// registered.
    async fn relocate_blocked(&self, moves: Vec<(FilePath, Wanted)>) -> Result<Unmoved, FileError> {
        let all = moves.clone();
        let staged_name = || StagedName::new("move", self.inner.ports.entropy.uuid());
        let (from, files): (Vec<FilePath>, Vec<Staged>) =
            moves.into_iter().map(|(from, wanted)| (from, Staged::new(wanted, staged_name()))).unzip();
        let number = self.number();
        let _active = self.inner.intents.begin(number);
        let intent = Intent::Register { files: files.clone(), asked: None };
        self.record(vec![Write::Intend(number, intent.clone())]).await?;
        let error = match self.step_aside(number, from, files).await {
            Ok(unmoved) => return Ok(unmoved),
            Err(error) => error,
        };
        self.inner.intents.leave(number, intent);
        let why = error.of_one_path().ok_or(error)?;
        Ok(all.into_iter().map(|(from, wanted)| (from, wanted, why.clone())).collect())
    }

    async fn step_aside(
        &self,
        number: u64,
        from: Vec<FilePath>,
        files: Vec<Staged>,
    ) -> Result<Unmoved, FileError> {
        let store = &self.inner.ports.store;
        let pairs = from.iter().zip(&files).map(|(from, file)| (from.clone(), file.staged.clone())).collect();
        let withdrawn = store.withdraw(pairs).await.map_err(|error| self.disk(error))?;
        let (mut writes, mut here, mut unmoved) = (Vec::new(), Vec::new(), Unmoved::new());
        for ((from, file), withdrawn) in from.into_iter().zip(files).zip(withdrawn) {
            match withdrawn {
                Ok(()) => {
                    writes.push(Write::Release(from.clone()));
                    if self.is_right(&file).await? {
                        here.push((from, file));
                        continue;
                    }
                    let kept = self.keep_aside(file.staged, &from, Reason::Drifted).await;
                    kept.map_err(|error| self.disk(error))?;
                    writes.push(Write::Miss(Missing::new(file.wanted)));
                }
                Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => {
                    writes.push(Write::Release(from));
                    writes.push(Write::Miss(Missing::new(file.wanted)));
                }
                Err(error) => {
                    let error = self.disk(error);
                    let why = error.of_one_path().ok_or(error)?;
                    unmoved.push((from, file.wanted, why));
                }
            }
        }
        self.record(writes).await?;
        let files = here.iter().map(|(_, file)| file.clone()).collect();
        let left = self.publish_registered(number, None, files).await?;
        for (from, file) in here {
            if left.iter().any(|left| left.staged == file.staged) {
                let why = self.inner.intents.why(&file.wanted.path);
                unmoved.push((from, file.wanted, why));
            }
        }
        if !left.is_empty() {
            self.inner.intents.leave(number, Intent::Register { files: left, asked: None });
        }
        Ok(unmoved)
    }

    async fn is_right(&self, file: &Staged) -> Result<bool, FileError> {
        let hashed = self.inner.ports.store.hash(vec![file.staged.clone()], Algorithms::default()).await;
        match hashed {
            Ok(found) => {
                Ok(found.into_iter().flatten().next().is_some_and(|f| f.digest == file.wanted.digest))
            }
            Err(StoreError::Foreign { .. } | StoreError::Changed { .. }) => Ok(false),
            Err(error) => Err(self.disk(error)),
        }
    }
}

/// What to write when a copy has its new name: it is as verified as it was. If somebody changed it just now, that shows.
fn hold_moved(from: FilePath, wanted: &Wanted, held: &Held, stat: Stat) -> Vec<Write> {
    let stat = if stat.same_content(&held.stat) { stat } else { held.stat };
    let Wanted { path, file_id, revision, digest, .. } = wanted.clone();
    vec![Write::Release(from), Write::Hold(path, Held { file_id, revision, digest, stat })]
}
