//! Registering files, and replacing them: staged, written down, committed, published, held; in this order, each step
//! durable before the next. What follows the staging is in `commit.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_model::{
    Digest, FileId, FilePath, Md5, Revision, UploadId,
    clock::{Clock as _, Entropy as _},
    path::fold,
    record::{Placement, file_key},
};
use lockstep_registry::{Registry as _, Request};

use super::{
    Ask, Engine, Registered,
    change::Step,
    codec::{decode, named},
    declared::{Declared, check_declared},
};
use crate::{
    domain::{
        error::FileError,
        held::{StagedName, Stat, Wanted},
        intent::Staged,
        tree::Groups,
    },
    ports::{Algorithms, Hashed, Ports, Store as _},
};

/// A file to register.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Where.
    pub path: FilePath,
    /// What.
    pub source: Source,
    /// What the caller knows of it.
    pub declared: Declared,
    /// What the path may be.
    pub place: Place,
    /// Which servers should hold it; `None` for all, or what the file that it replaces had.
    pub placement: Option<Placement>,
}

/// What a caller wants the path of a new file to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Free.
    #[default]
    Free,
    /// Free, or else the next free one of its numbered names.
    Numbered,
    /// That of the file of this revision, which it replaces.
    Taken(Revision),
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
        self.may_change()?;
        self.verify_store().await?;
        self.may_note().await?;
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let request = request(ask, &files);
        let paths: Vec<FilePath> = files.iter().map(|file| file.path.clone()).collect();
        if let Some(revision) = self.known_request(&request).await? {
            return self.replay(revision, &paths, &ask.label()).await;
        }
        self.may_originate(ask.deadline).await?;
        let expected = files.iter().filter_map(|file| Some((file.path.clone(), file.replaces()?)));
        let replaced = match self.replaced(&expected.collect::<Vec<_>>(), &ask.label()).await? {
            Replaced::Already(revision) => return self.replay(revision, &paths, &ask.label()).await,
            Replaced::Files(replaced) => replaced,
        };
        let free = files.iter().filter(|file| file.place == Place::Free).map(|file| file.path.clone());
        self.catch_up_with(&free.collect::<Vec<_>>(), ask).await?;
        if files.iter().all(NewFile::is_in_place) {
            return self.register_in_place(ask, request, files).await;
        }
        let uploads: Vec<UploadId> = files.iter().filter_map(NewFile::upload).collect();
        self.resume_complete(&ask.caller, &uploads).await?;
        let claimed = self.claim_uploads(&ask.caller, &uploads)?;
        let (mut staged, mut kept) = (Vec::with_capacity(files.len()), false);
        let numbered: Vec<bool> = files.iter().map(|file| file.place == Place::Numbered).collect();
        let result = match self.stage(files, &replaced, &claimed, &mut staged).await {
            Ok(()) => self.commit_staged(ask, request, &mut staged, &numbered, &mut kept).await,
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

    /// What is known of files that are to be replaced: refuses those that are not what the caller saw.
    pub(super) async fn replaced(
        &self,
        expected: &[(FilePath, Revision)],
        label: &str,
    ) -> Result<Replaced, FileError> {
        let keys = expected.iter().map(|(path, _)| file_key(path)).collect();
        let mut replaced = BTreeMap::new();
        for ((path, expected), record) in expected.iter().zip(self.registry().get_latest(keys).await?) {
            let not_found = || FileError::NotFound { path: path.clone() };
            let record = record.ok_or_else(not_found)?;
            let body = decode(&record)?;
            if body.registered_by == label {
                return Ok(Replaced::Already(body.registered_revision.unwrap_or(record.revision)));
            }
            if record.deleted {
                return Err(not_found());
            }
            let step = Step::at(path, &record, *expected, None)?;
            replaced.insert(path.clone(), (step.body.file_id, step.body.placement));
        }
        Ok(Replaced::Files(replaced))
    }

    pub(super) async fn known_request(&self, request: &Request) -> Result<Option<Revision>, FileError> {
        self.registry().find_request(request.clone()).await.map_err(|error| named(error, &request.id))
    }

    /// Puts all bytes into staging, durable, and proves that they are what was sent and declared.
    async fn stage(
        &self,
        files: Vec<NewFile>,
        replaced: &BTreeMap<FilePath, (FileId, Placement)>,
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
            let (file_id, placement) = match replaced.get(&file.path) {
                Some((file_id, placement)) => (*file_id, *placement),
                None => (FileId::random(entropy), Placement::All),
            };
            let wanted = Wanted {
                path: file.path.clone(),
                file_id,
                revision: Revision::ZERO,
                digest: expected,
                md5: md5.unwrap_or(Md5::from_bytes([0; 16])),
                size_bytes: size,
                registered_time,
                origin: self.server().clone(),
                placement: file.placement.unwrap_or(placement),
                traceparent: String::new(),
            };
            staged.push(Staged { replaces: file.replaces(), ..Staged::new(wanted, name) });
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
}

/// Staged names of content that came inside a call; nobody can ask for it again.
const INLINE: &str = "inline";

/// What is known of the files that a registration replaces.
pub(super) enum Replaced {
    /// This very request replaced them, at this revision.
    Already(Revision),
    /// The ids that they keep, and which servers should hold them.
    Files(BTreeMap<FilePath, (FileId, Placement)>),
}

impl NewFile {
    /// Bytes that came inside the call.
    pub(crate) fn inline_bytes(&self) -> usize {
        self.content().map_or(0, Bytes::len)
    }

    fn replaces(&self) -> Option<Revision> {
        match self.place {
            Place::Taken(revision) => Some(revision),
            Place::Free | Place::Numbered => None,
        }
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

fn request(ask: &Ask, files: &[NewFile]) -> Request {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let source = match &file.source {
            Source::Upload(id) => id.to_string(),
            Source::Content(content) => Digest::of(content).to_string(),
            Source::InPlace => "in place".to_owned(),
        };
        let place = match file.place {
            Place::Free => None,
            Place::Numbered => Some("numbered".to_owned()),
            Place::Taken(revision) => Some(format!("replaces {revision}")),
        };
        let placement = file.placement.map(|placement| match placement {
            Placement::All => "all servers".to_owned(),
            Placement::OriginOnly { reason } => format!("its origin only: {reason}"),
        });
        for text in
            [file.path.as_str(), &source].into_iter().chain(place.as_deref()).chain(placement.as_deref())
        {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    let fingerprint = hasher.finalize().to_hex().to_string();
    Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint }
}
