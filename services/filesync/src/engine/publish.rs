//! Giving staged bytes their final names, and holding them.

use lockstep_model::{Digest, FilePath, Reason};

use super::{Engine, exchange::Published};
use crate::{
    domain::{
        error::FileError,
        exception::{Missing, Obstacle},
        held::{Held, Stat, Wanted},
        intent::{Asked, Intent, Staged},
        tree::{GROUP_BYTES, Groups},
    },
    ports::{Algorithms, Ports, Store as _, StoreError, Write},
};

/// The largest content whose hash is all there is; larger content has group hashes.
const SMALL_BYTES_MAX: u64 = GROUP_BYTES;

impl<P: Ports> Engine<P> {
    /// Publishes and holds registered files; answers those that could not be, which the intent keeps.
    pub(super) async fn publish_registered(
        &self,
        number: u64,
        asked: Option<&Asked>,
        files: Vec<Staged>,
    ) -> Result<Vec<Staged>, FileError> {
        let paths: Vec<FilePath> = files.iter().map(|file| file.wanted.path.clone()).collect();
        let results = self.publish_each(&files, "filesync.register").await?;
        let (mut writes, mut left) = (Vec::new(), Vec::new());
        let mut published = Vec::new();
        for (file, result) in files.into_iter().zip(results) {
            match result {
                Ok(mut held) => {
                    writes.append(&mut held);
                    // With it, so that a crash between the two does not leave an upload without bytes.
                    writes.extend(self.upload_of(&file.staged).map(Write::EndUpload));
                    writes.push(Write::Unjournal(file.staged.clone()));
                    published.push(file.wanted.digest);
                }
                // Files that moved: others hold them, too, so that an exception tells it, and nothing waits for it.
                Err(obstacle) if asked.is_none() && obstacle.reason == Reason::LooseFileExists => {
                    let Staged { wanted, staged, .. } = file;
                    let kept = self.keep_aside(staged, &wanted.path, obstacle.reason).await;
                    kept.map_err(|error| self.disk(error))?;
                    writes.push(Write::Miss(Missing::refused(wanted, obstacle)));
                }
                // The bytes are not the registered ones any more: whoever has those gives them.
                Err(obstacle) if obstacle.reason == Reason::ContentDigestMismatch => {
                    let Staged { wanted, staged, .. } = file;
                    tracing::error!(path = %wanted.path, %obstacle, "a registered file is lost here");
                    match self.keep_aside(staged, &wanted.path, obstacle.reason).await {
                        Ok(()) | Err(StoreError::Absent { .. }) => {}
                        Err(error) => return Err(self.disk(error)),
                    }
                    writes.push(Write::Miss(Missing::refused(wanted, obstacle)));
                }
                Err(error) => {
                    tracing::error!(path = %file.wanted.path, %error, "a registered file is not published yet");
                    self.inner.intents.blame(&file.wanted.path, error);
                    left.push(file);
                }
            }
        }
        writes.push(match left.as_slice() {
            [] => Write::Settle(number),
            _ => Write::Intend(number, Intent::Register { files: left.clone(), asked: asked.cloned() }),
        });
        self.record(writes).await?;
        published.into_iter().for_each(|digest| self.inner.board.stage(digest, None));
        fail::fail_point!("filesync.register.held");
        // What was displaced is no concern of whoever registered: it is settled by a round if not now.
        if let Err(error) = self.settle_exchanges_at(Some(&paths)).await {
            tracing::warn!(%error, "displaced bytes are settled later");
        }
        Ok(left)
    }

    /// The same as [`Engine::publish`], but one file that fails all of them is tried alone, like the others.
    pub(super) async fn publish_each(
        &self,
        files: &[Staged],
        point: &'static str,
    ) -> Result<Vec<Result<Vec<Write>, Obstacle>>, FileError> {
        let error = match self.publish(files, point).await {
            Ok(results) => return Ok(results),
            Err(error) => error,
        };
        error.of_one_path().ok_or(error)?;
        let mut results = Vec::with_capacity(files.len());
        for file in files {
            let result = match self.adopt(&file.wanted).await {
                // It has its name already.
                Ok(Some(writes)) => Ok(writes),
                Ok(None) => {
                    let published = self.publish(std::slice::from_ref(file), point).await;
                    match published.map(|mut results| results.pop()) {
                        Ok(result) => result.unwrap_or_else(|| Err(changed_in_staging(&file.wanted.path))),
                        Err(error) => Err(error.of_one_path().ok_or(error)?),
                    }
                }
                Err(error) => Err(error.of_one_path().ok_or(error)?),
            };
            results.push(result);
        }
        Ok(results)
    }

    /// Gives staged files whose bytes are right their final names. For each file: what to write to the index, or why not.
    /// The caller has the lease and the bytes are synced.
    pub(super) async fn publish(
        &self,
        files: &[Staged],
        point: &'static str,
    ) -> Result<Vec<Result<Vec<Write>, Obstacle>>, FileError> {
        let store = &self.inner.ports.store;
        let right = self.check(files).await?;
        let moves = right.iter().map(|(file, ..)| (file.staged.clone(), file.wanted.path.clone())).collect();
        let mut published = store.publish(moves).await.map_err(|error| self.disk(error))?;
        let is_taken = |result: &Published| {
            matches!(result, Err(StoreError::Occupied { .. } | StoreError::Foreign { .. }))
        };
        let (taken, files_taken): (Vec<usize>, Vec<&Staged>) = published
            .iter()
            .zip(&right)
            .enumerate()
            .filter(|(_, (result, _))| is_taken(result))
            .map(|(at, (_, (file, ..)))| (at, *file))
            .unzip();
        if !taken.is_empty() {
            for (at, result) in taken.into_iter().zip(self.displace(&files_taken).await?) {
                published[at] = result;
            }
        }
        crash_point(point);
        let mut outcomes = published.into_iter().zip(right).peekable();
        let mut results = Vec::with_capacity(files.len());
        for file in files {
            let mine = outcomes.next_if(|(_, (right, ..))| std::ptr::eq(*right, file));
            results.push(match mine {
                None => Err(changed_in_staging(&file.wanted.path)),
                Some((Err(error), _)) => Err(Obstacle::of(&self.disk(error))),
                // A write between the hash and the rename shows in the modification time.
                Some((Ok(stat), (_, hashed, _))) if !stat.same_content(&hashed) => {
                    Err(changed_in_staging(&file.wanted.path))
                }
                Some((Ok(stat), (_, _, groups))) => Ok(self.hold(&file.wanted, stat, groups)),
            });
        }
        Ok(results)
    }

    /// Those of the files whose staged bytes are the wanted ones: read anew, unless they were read before and nothing
    /// about the file has changed since, which any write would.
    async fn check<'a>(&self, files: &'a [Staged]) -> Result<Vec<(&'a Staged, Stat, Groups)>, FileError> {
        let store = &self.inner.ports.store;
        let names = files.iter().map(|file| file.staged.clone()).collect();
        let looks = store.look(names).await.map_err(|error| self.disk(error))?;
        let unchanged = |file: &Staged, look: &Option<Stat>| match (&file.checked, look) {
            (Some((stat, groups)), Some(look)) if stat == look => Some((*stat, groups.clone())),
            _ => None,
        };
        let known: Vec<_> = files.iter().zip(&looks).map(|(file, look)| unchanged(file, look)).collect();
        let unknown = files.iter().zip(&known).filter(|(_, known)| known.is_none());
        let names = unknown.map(|(file, _)| file.staged.clone()).collect();
        let hashed = store.hash(names, Algorithms::default()).await.map_err(|error| self.disk(error))?;
        let mut hashed = hashed.into_iter();
        let mut right = Vec::with_capacity(files.len());
        for (file, known) in files.iter().zip(known) {
            let known = known.or_else(|| {
                let hashed = hashed.next().flatten().filter(|hashed| hashed.digest == file.wanted.digest)?;
                Some((hashed.stat, hashed.groups))
            });
            right.extend(known.map(|(stat, groups)| (file, stat, groups)));
        }
        Ok(right)
    }

    /// Whether the bytes that are at the path already are the wanted ones; then they are held.
    pub(super) async fn adopt(&self, wanted: &Wanted) -> Result<Option<Vec<Write>>, FileError> {
        let hashed = self.inner.ports.store.hash_published(wanted.path.clone()).await;
        match hashed {
            Ok(Some(found)) if found.digest == wanted.digest => {
                Ok(Some(self.hold(wanted, found.stat, found.groups)))
            }
            Ok(_) | Err(StoreError::Foreign { .. } | StoreError::Changed { .. }) => Ok(None),
            Err(error) => Err(self.disk(error)),
        }
    }

    /// What to write when a copy is verified. The group hashes of older bytes go with the last path that has them.
    pub(super) fn hold(&self, wanted: &Wanted, stat: Stat, groups: Groups) -> Vec<Write> {
        let Wanted { path, file_id, revision, digest, .. } = wanted.clone();
        let mut writes = Vec::with_capacity(4);
        let before = self.inner.board.held(std::slice::from_ref(&path)).pop().flatten();
        if let Some(before) = before.filter(|before| before.digest != digest)
            && !self.inner.board.shared(&before.digest, std::slice::from_ref(&path))
        {
            writes.push(Write::Ungroup(before.digest));
        }
        if wanted.size_bytes > SMALL_BYTES_MAX {
            writes.push(Write::Groups(digest, groups));
        }
        writes.push(Write::Hold(path, Held { file_id, revision, digest, stat }));
        writes.push(self.not_missing(wanted));
        writes
    }

    /// What to write of the exceptions of a copy that is held: that there is none, or that it is kept.
    pub(super) fn not_missing(&self, wanted: &Wanted) -> Write {
        match wanted.is_elsewhere(self.server()) {
            true => Write::Miss(Missing::kept(wanted.clone())),
            false => Write::Clear(wanted.path.clone()),
        }
    }

    /// What to write when a copy is given up, with others at the same time: its group hashes go with the last path that has
    /// the content.
    pub(super) fn release(&self, path: &FilePath, digest: Digest, others: &[FilePath]) -> Vec<Write> {
        let mut writes = vec![Write::Release(path.clone())];
        let others = if others.is_empty() { std::slice::from_ref(path) } else { others };
        if !self.inner.board.shared(&digest, others) {
            writes.push(Write::Ungroup(digest));
        }
        writes
    }
}

/// Two points, because a literal is needed at each.
#[allow(clippy::single_match, reason = "without fail points both arms are empty")]
fn crash_point(point: &'static str) {
    match point {
        "filesync.register" => fail::fail_point!("filesync.register.published"),
        _ => fail::fail_point!("filesync.fetch.published"),
    }
}

fn changed_in_staging(path: &FilePath) -> Obstacle {
    Obstacle {
        reason: Reason::ContentDigestMismatch,
        message: format!("the bytes of {path} changed in the staging area before they got their name"),
    }
}
