//! Registering files: staged, written down, committed, published, held; in this order, each step durable before the next.

use std::collections::BTreeSet;

use bytes::Bytes;
use lockstep_model::{
    Digest, FileId, FilePath, Md5, Revision, UploadId,
    clock::{Clock as _, Entropy as _},
    path::fold,
    record::{FileRecord, file_key, name_key},
};
use lockstep_registry::{Commit, Committed, Precondition, Registry as _, RegistryError, Request};

use super::{
    Ask, Engine, Registered,
    codec::{decode, encode, named},
    declared::{Declared, check_declared},
    free::Standing,
};
use crate::{
    domain::{
        error::FileError,
        held::{StagedName, Stat, Wanted},
        intent::{Intent, Staged},
        naming,
        tree::Groups,
    },
    ports::{Algorithms, Hashed, Ports, Store as _, Write},
};

/// How often names may change under a registration before it gives up.
const ATTEMPTS_MAX: usize = 16;

/// A file to register.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Where.
    pub path: FilePath,
    /// What.
    pub source: Source,
    /// What the caller knows of it.
    pub declared: Declared,
}

/// Where bytes come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A complete upload.
    Upload(UploadId),
    /// The bytes themselves.
    Content(Bytes),
    /// The bytes lie at the path already; all files of a request, or none.
    InPlace,
}

impl<P: Ports> Engine<P> {
    /// Registers files in one transaction; see the contract of `RegisterFiles`.
    ///
    /// # Errors
    /// As the contract says; after one other than `REGISTRY_UNAVAILABLE` nothing happened.
    pub async fn register(&self, ask: Ask, files: Vec<NewFile>) -> Result<Vec<Registered>, FileError> {
        let engine = self.clone();
        self.detached(async move { engine.register_now(&ask, files).await }).await
    }

    async fn register_now(&self, ask: &Ask, files: Vec<NewFile>) -> Result<Vec<Registered>, FileError> {
        self.may_originate()?;
        self.verify_store().await?;
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let request = request(ask, &files);
        let paths: Vec<FilePath> = files.iter().map(|file| file.path.clone()).collect();
        if let Some(revision) = self.known_request(&request).await? {
            return self.replay(revision, &paths, &ask.label()).await;
        }
        self.catch_up_with(&paths, ask).await?;
        if files.iter().all(NewFile::is_in_place) {
            return self.register_in_place(ask, request, files).await;
        }
        let uploads: Vec<UploadId> = files.iter().filter_map(NewFile::upload).collect();
        self.resume_complete(&ask.caller, &uploads).await?;
        let claimed = self.claim_uploads(&ask.caller, &uploads)?;
        let (mut staged, mut kept) = (Vec::with_capacity(files.len()), false);
        let result = match self.stage(files, &claimed, &mut staged).await {
            Ok(()) => self.commit_staged(ask, request, &staged, &mut kept).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(_) => self.end_uploads(&uploads).await?,
            // Written down, and the outcome is not known: the intent keeps the bytes until the registry says what happened.
            Err(_) if kept => self.forget_uploads(&uploads),
            Err(_) => {
                self.return_uploads(claimed);
                let inline = staged.iter().filter(|file| file.staged.as_str().starts_with(INLINE));
                let inline = inline.map(|file| file.staged.clone()).collect();
                self.discard(inline).await;
            }
        }
        result
    }

    pub(super) async fn known_request(&self, request: &Request) -> Result<Option<Revision>, FileError> {
        self.registry().find_request(request.clone()).await.map_err(|error| named(error, &request.id))
    }

    /// Puts all bytes into staging, durable, and proves that they are what was sent and declared.
    async fn stage(
        &self,
        files: Vec<NewFile>,
        claimed: &[super::uploads::Complete],
        staged: &mut Vec<Staged>,
    ) -> Result<(), FileError> {
        let (store, entropy) = (&self.inner.ports.store, &self.inner.ports.entropy);
        let registered_time = self.inner.ports.clock.now();
        let registered_time = registered_time.round(jiff::Unit::Microsecond).unwrap_or(registered_time);
        let sha256 = files.iter().any(|file| file.declared.sha256.is_some());
        let inline_bytes =
            files.iter().filter_map(NewFile::content).map(|content| content.len() as u64).sum();
        let _reserved = self.reserve(inline_bytes).await?;
        let (mut contents, mut received, mut uploads) = (Vec::new(), Vec::new(), claimed.iter());
        let mut read_back = Vec::with_capacity(files.len());
        for file in &files {
            let (name, expected, md5, size) = match &file.source {
                Source::Content(content) => {
                    let name = StagedName::new(INLINE, entropy.uuid());
                    contents.push((name.clone(), content.clone()));
                    read_back.push(None);
                    (name, Digest::of(content), None, content.len() as u64)
                }
                Source::Upload(id) => {
                    let upload = uploads.next().filter(|upload| upload.id == *id);
                    let unknown = || FileError::UploadNotFound { upload: *id, server: self.server().clone() };
                    let upload = upload.ok_or_else(unknown)?;
                    read_back.push(upload.checked.clone());
                    (upload.staged(), upload.digest, Some(upload.md5), upload.size_bytes)
                }
                Source::InPlace => return Err(FileError::Mixed),
            };
            received.push((expected, md5));
            let wanted = Wanted {
                path: file.path.clone(),
                file_id: FileId::random(entropy),
                revision: Revision::ZERO,
                digest: expected,
                md5: md5.unwrap_or(Md5::from_bytes([0; 16])),
                size_bytes: size,
                registered_time,
                origin: self.server().clone(),
                traceparent: String::new(),
            };
            staged.push(Staged { wanted, staged: name, checked: None });
        }
        store.stage(contents).await.map_err(|error| self.disk(error))?;
        let names: Vec<StagedName> = staged.iter().map(|file| file.staged.clone()).collect();
        let before = store.look(names.clone()).await.map_err(|error| self.disk(error))?;
        let times = names.iter().map(|name| (name.clone(), Some(registered_time))).collect();
        store.sync(times).await.map_err(|error| self.disk(error))?;
        let after = store.look(names.clone()).await.map_err(|error| self.disk(error))?;
        fail::fail_point!("filesync.register.staged");
        // Uploads were read back as they came, and carry an MD5 from the stream: reading them once more would cost more
        // than everything else. Whatever was touched since is read.
        let now = store.look(names.clone()).await.map_err(|error| self.disk(error))?;
        let looks = before.into_iter().zip(after).zip(now);
        let known: Vec<Option<(Stat, Groups)>> = read_back
            .into_iter()
            .zip(looks)
            .map(|(checked, ((before, after), now))| {
                let (stat, groups) = checked.filter(|_| !sha256)?;
                (before == Some(stat) && after == now).then_some((now?, groups))
            })
            .collect();
        let unknown = names.into_iter().zip(&known).filter(|(_, known)| known.is_none());
        let unknown = unknown.map(|(name, _)| name).collect();
        let md5 = received.iter().any(|(_, md5)| md5.is_none());
        let read = store.hash(unknown, Algorithms { md5, sha256 }).await.map_err(|error| self.disk(error))?;
        let mut read = read.into_iter();
        let hashed = known.into_iter().zip(&received).map(|(known, (digest, _))| match known {
            Some((stat, groups)) => Some(Hashed { digest: *digest, groups, md5: None, sha256: None, stat }),
            None => read.next().flatten(),
        });
        let hashed: Vec<Option<Hashed>> = hashed.collect();
        for (((file, hashed), staged), (expected, known)) in
            files.iter().zip(hashed).zip(staged).zip(received)
        {
            let changed =
                || FileError::StagingChanged { path: file.path.clone(), server: self.server().clone() };
            let hashed = hashed.filter(|hashed| hashed.digest == expected).ok_or_else(changed)?;
            staged.wanted.md5 = known.or(hashed.md5).ok_or_else(changed)?;
            check_declared(file, &hashed, staged.wanted.md5)?;
            staged.checked = Some((hashed.stat, hashed.groups));
        }
        Ok(())
    }

    /// Commits and publishes; `kept` says whether the bytes belong to an intent from now on.
    async fn commit_staged(
        &self,
        ask: &Ask,
        request: Request,
        staged: &[Staged],
        kept: &mut bool,
    ) -> Result<Vec<Registered>, FileError> {
        let paths: Vec<FilePath> = staged.iter().map(|file| file.wanted.path.clone()).collect();
        let _lease = self.acquire_free(&paths, ask).await?;
        let number = self.number();
        let _active = self.inner.intents.begin(number);
        *kept = true;
        let done = self.commit_intended(ask, request, staged, number, kept).await;
        if done.is_err() && *kept {
            // The next round asks the registry what became of it.
            self.inner.intents.leave(number, Intent::Register { files: staged.to_vec() });
        }
        done
    }

    async fn commit_intended(
        &self,
        ask: &Ask,
        request: Request,
        staged: &[Staged],
        number: u64,
        kept: &mut bool,
    ) -> Result<Vec<Registered>, FileError> {
        self.record(vec![Write::Intend(number, Intent::Register { files: staged.to_vec() })]).await?;
        staged.iter().for_each(|file| self.inner.board.stage(file.wanted.digest, Some(file.staged.clone())));
        fail::fail_point!("filesync.register.intended");
        let committed = match self.commit(ask, request, staged).await {
            Ok(committed) => committed,
            Err(error @ FileError::Registry(RegistryError::Unavailable { .. })) => return Err(error),
            Err(error) => {
                self.record(vec![Write::Settle(number)]).await?;
                *kept = false;
                staged.iter().for_each(|file| self.inner.board.stage(file.wanted.digest, None));
                return Err(error);
            }
        };
        fail::fail_point!("filesync.register.committed");
        if committed.replayed {
            self.record(vec![Write::Settle(number)]).await?;
            staged.iter().for_each(|file| self.inner.board.stage(file.wanted.digest, None));
            let names = staged.iter().map(|file| file.staged.clone()).collect();
            self.discard(names).await;
            let paths: Vec<FilePath> = staged.iter().map(|file| file.wanted.path.clone()).collect();
            return self.replay(committed.revision, &paths, &ask.label()).await;
        }
        let files: Vec<Staged> =
            staged.iter().map(|file| file.at(committed.revision, &ask.traceparent)).collect();
        // The commit stands: whatever keeps the bytes from their names now, a later round does it.
        let left = self.publish_registered(number, files.clone()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "registered files are not published yet");
            files.clone()
        });
        // Only what has its name is held (I10).
        let held = files.iter().filter(|file| !left.iter().any(|left| left.wanted.path == file.wanted.path));
        let ahead = held.map(|file| (file.wanted.path.clone(), committed.revision, ask.traceparent.clone()));
        self.inner.board.hold_ahead(ahead);
        if !left.is_empty() {
            self.inner.intents.leave(number, Intent::Register { files: left });
        }
        self.request_round();
        Ok(files.into_iter().map(|file| file.registered(committed.revision, ask)).collect())
    }

    pub(super) async fn commit(
        &self,
        ask: &Ask,
        request: Request,
        staged: &[Staged],
    ) -> Result<Committed, FileError> {
        let paths: Vec<FilePath> = staged.iter().map(|file| file.wanted.path.clone()).collect();
        for _ in 0..ATTEMPTS_MAX {
            let claims = match self.standing(&paths, &ask.label()).await? {
                Standing::Free(claims) => claims,
                Standing::Mine(revision) => {
                    return Ok(Committed { revision, head: self.registry().head().await?, replayed: true });
                }
            };
            let commit = transaction(ask, request.clone(), staged, claims)?;
            match self.registry().commit(commit).await {
                // Somebody changed a name in between: decide again.
                Err(RegistryError::Refused { .. }) => {}
                other => return other.map_err(|error| named(error, ask.request_id.as_str())),
            }
        }
        let cause = "other changes of the same names kept coming in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    /// The first answer of a request that is known: what its transaction wrote. Where that is compacted, the record or
    /// tombstone that it made still tells.
    pub(super) async fn replay(
        &self,
        revision: Revision,
        paths: &[FilePath],
        label: &str,
    ) -> Result<Vec<Registered>, FileError> {
        let keys: Vec<String> = paths.iter().map(file_key).collect();
        let written = match self.registry().transaction(revision).await {
            Ok(written) => written,
            Err(RegistryError::TooOld { .. }) => {
                self.registry().get_latest(keys.clone()).await?.into_iter().flatten().collect()
            }
            Err(error) => return Err(error.into()),
        };
        let mut answer = Vec::with_capacity(paths.len());
        for (path, key) in paths.iter().zip(keys) {
            let mine = written.iter().find(|record| record.key == key).map(decode).transpose()?;
            let record = mine.filter(|body| body.registered_by == label);
            let record = record.ok_or_else(|| FileError::NotFound { path: path.clone() })?;
            let record = FileRecord { deleted_by: None, registered_revision: None, ..record };
            answer.push(Registered { path: path.clone(), revision, record });
        }
        Ok(answer)
    }
}

/// Staged names of content that came inside a call; nobody can ask for it again.
const INLINE: &str = "inline";

impl NewFile {
    /// Bytes that came inside the call.
    pub(crate) fn inline_bytes(&self) -> usize {
        self.content().map_or(0, Bytes::len)
    }

    fn upload(&self) -> Option<UploadId> {
        match &self.source {
            Source::Upload(id) => Some(*id),
            Source::Content(_) | Source::InPlace => None,
        }
    }

    fn is_in_place(&self) -> bool {
        matches!(self.source, Source::InPlace)
    }

    fn content(&self) -> Option<&Bytes> {
        match &self.source {
            Source::Upload(_) | Source::InPlace => None,
            Source::Content(content) => Some(content),
        }
    }
}

fn transaction(
    ask: &Ask,
    request: Request,
    staged: &[Staged],
    claims: naming::Claims,
) -> Result<Commit, FileError> {
    let mut commit =
        Commit { request: Some(request), traceparent: ask.traceparent.clone(), ..Commit::default() };
    for file in staged {
        let key = file_key(&file.wanted.path);
        commit.preconditions.push(Precondition::Absent(key.clone()));
        commit.puts.push((key, encode(&file.record(ask))?));
    }
    for (key, record) in claims.new {
        commit.preconditions.push(Precondition::Absent(key.clone()));
        commit.puts.push((key, encode(&record)?));
    }
    commit
        .preconditions
        .extend(claims.kept.into_iter().map(|(key, revision)| Precondition::At(key, revision)));
    debug_assert!({
        // Folded once for each file: a batch has a thousand.
        let written: BTreeSet<&str> = commit.puts.iter().map(|(key, _)| key.as_str()).collect();
        staged.iter().all(|file| written.contains(name_key(&file.wanted.path.folded()).as_str()))
    });
    Ok(commit)
}

fn request(ask: &Ask, files: &[NewFile]) -> Request {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let source = match &file.source {
            Source::Upload(id) => id.to_string(),
            Source::Content(content) => Digest::of(content).to_string(),
            Source::InPlace => "in place".to_owned(),
        };
        for text in [file.path.as_str(), &source] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    let fingerprint = hasher.finalize().to_hex().to_string();
    Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint }
}
