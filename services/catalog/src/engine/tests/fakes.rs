//! A vendor and servers in memory. What they do wrong, a test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use lockstep_model::{
    Digest, FileId, FilePath, Identity, Md5, Reason, RequestId, UploadId,
    clock::{Clock, Entropy, SystemEntropy},
    record::{FileRecord, FileState, Placement, file_key},
};
use lockstep_registry::{Commit, MemoryRegistry, Precondition, Registry as _, RegistryError, Request};
use ring::digest;
use tokio::sync::{Notify, mpsc};

use crate::{
    domain::error::Refusal,
    ports::{
        Feed, FeedEntry, FeedFile, Fetched, Registered, Registration, Seen, Server, Servers, Upload, Vendor,
        VendorError,
    },
};

/// The source of all tests.
pub(super) const SOURCE: &str = "vendor";
/// Bytes of one piece of a body.
const PIECE: usize = 1_000;

/// A clock that stands still: stamps are shown only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the vendor has and how it behaves.
#[derive(Debug, Default)]
pub(super) struct Shop {
    pub(super) entries: Vec<FeedEntry>,
    /// By URI: the version that the vendor names, and the bytes.
    pub(super) files: BTreeMap<String, (String, Vec<u8>)>,
    pub(super) is_away: bool,
    /// A body stands still after so many bytes of a file, for as long as this is set.
    pub(super) stands_at: Option<u64>,
    /// Bytes that were given, by URI.
    pub(super) given: BTreeMap<String, u64>,
}

/// The vendor.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeVendor {
    shop: Arc<Mutex<Shop>>,
    moved: Arc<Notify>,
}

impl FakeVendor {
    pub(super) fn shop(&self) -> MutexGuard<'_, Shop> {
        self.shop.lock().expect("no panic")
    }

    /// Changes how it behaves, and wakes those who stand still.
    pub(super) fn now(&self, change: impl FnOnce(&mut Shop)) {
        change(&mut self.shop());
        self.moved.notify_waiters();
    }

    /// Offers an update whose files have these contents.
    pub(super) fn offers(&self, offer_id: &str, files: &[(&str, Vec<u8>)]) {
        let mut shop = self.shop();
        let file = |(name, content): &(&str, Vec<u8>)| FeedFile {
            name: (*name).to_owned(),
            uri: format!("https://v/{offer_id}/{name}"),
            size_bytes: content.len() as u64,
            sha256: sha256(content),
        };
        let entry = FeedEntry {
            offer_id: offer_id.to_owned(),
            model: "UD3".into(),
            version: "1".into(),
            release_notes: String::new(),
            files: files.iter().map(file).collect(),
        };
        for (file, (_, content)) in entry.files.iter().zip(files) {
            shop.files.insert(file.uri.clone(), ("v1".into(), content.clone()));
        }
        shop.entries.push(entry);
    }
}

impl Vendor for FakeVendor {
    fn sources(&self) -> BTreeMap<String, String> {
        [(SOURCE.to_owned(), "https://v/feed.json".to_owned())].into()
    }

    async fn check(&self, _: String) -> Result<Feed, VendorError> {
        let shop = self.shop();
        if shop.is_away {
            return Err(unreachable());
        }
        Ok(Feed { entries: shop.entries.clone(), ..Feed::default() })
    }

    async fn fetch(
        &self,
        _: String,
        file: FeedFile,
        offset_bytes: u64,
        validator: String,
    ) -> Result<Fetched, VendorError> {
        let is_away = self.shop().is_away;
        let found = self.shop().files.get(&file.uri).cloned();
        if is_away {
            return Err(unreachable());
        }
        let (version, content) = found.ok_or_else(unreachable)?;
        let is_same = validator.is_empty() || validator == version;
        let offset_bytes = if is_same { offset_bytes } else { 0 };
        let rest = content.get(usize::try_from(offset_bytes).expect("small")..).unwrap_or_default().to_vec();
        let pieces: Vec<Bytes> = rest.chunks(PIECE).map(Bytes::copy_from_slice).collect();
        let (vendor, mut at) = (self.clone(), offset_bytes);
        let body = futures::stream::iter(pieces).then(move |piece| {
            at += piece.len() as u64;
            let (vendor, uri, at) = (vendor.clone(), file.uri.clone(), at);
            async move {
                loop {
                    let moved = vendor.moved.notified();
                    let is_away = vendor.shop().is_away;
                    let stands = vendor.shop().stands_at;
                    if is_away {
                        return Err(unreachable());
                    }
                    if stands.is_none_or(|limit| at <= limit) {
                        *vendor.shop().given.entry(uri).or_default() += piece.len() as u64;
                        return Ok(piece);
                    }
                    moved.await;
                }
            }
        });
        Ok(Fetched { offset_bytes, validator: version, body: Box::pin(body) })
    }
}

fn unreachable() -> VendorError {
    VendorError::Unreachable { uri: "https://v".into(), cause: "it is away".into() }
}

/// What the servers have and how they behave.
#[derive(Debug, Default)]
pub(super) struct House {
    /// What arrived of each upload, and its size.
    pub(super) uploads: BTreeMap<UploadId, (Vec<u8>, u64)>,
    pub(super) writers: BTreeSet<UploadId>,
    pub(super) is_away: bool,
    pub(super) room_bytes: Option<u64>,
    /// Why the server originates nothing, if it is fenced: no new upload, no registration.
    pub(super) fence: Option<Reason>,
    /// Registrations wait for as long as this is set.
    pub(super) holds_registrations: bool,
    pub(super) registrations: u64,
    pub(super) waiting: u64,
}

/// All servers: they share one house, since what is registered is the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct FakeServers {
    house: Arc<Mutex<House>>,
    moved: Arc<Notify>,
    registry: MemoryRegistry,
}

impl FakeServers {
    pub(super) fn new(registry: MemoryRegistry) -> Self {
        Self { house: Arc::default(), moved: Arc::default(), registry }
    }

    pub(super) fn house(&self) -> MutexGuard<'_, House> {
        self.house.lock().expect("no panic")
    }

    pub(super) fn now(&self, change: impl FnOnce(&mut House)) {
        change(&mut self.house());
        self.moved.notify_waiters();
    }

    /// What is registered at each path.
    pub(super) async fn registered(&self, path: &str) -> Option<(lockstep_model::Revision, FileRecord)> {
        let path: FilePath = path.parse().expect("a path");
        let found = self.registry.get(vec![file_key(&path)]).await.expect("answers").pop().flatten()?;
        Some((found.revision, serde_json::from_str(&found.body).expect("a record")))
    }

    /// Somebody registers a file of their own.
    pub(super) async fn register_other(&self, path: &str) -> FileId {
        let path: FilePath = path.parse().expect("a path");
        let record = record(b"other", Placement::All, "operator/local x".to_owned());
        let puts = vec![(file_key(&path), serde_json::to_string(&record).expect("JSON"))];
        self.registry.commit(Commit { puts, ..Commit::default() }).await.expect("commits");
        record.file_id
    }

    fn here(&self) -> Result<(), Refusal> {
        match self.house().is_away {
            true => Err(Refusal::new(Reason::PeerUnreachable, "the server is away")),
            false => Ok(()),
        }
    }

    fn unfenced(&self) -> Result<(), Refusal> {
        match self.house().fence {
            Some(reason) => Err(Refusal::new(reason, "its clock is wrong")),
            None => Ok(()),
        }
    }

    async fn change(
        &self,
        files: Vec<Seen>,
        id: &RequestId,
        change: impl Fn(&FilePath, FileRecord) -> Option<(FilePath, FileRecord)>,
    ) -> Result<(), Refusal> {
        self.here()?;
        self.unfenced()?;
        let mut commit = Commit { request: Some(request(id, format!("{files:?}"))), ..Commit::default() };
        for Seen { path, revision } in files {
            let Some((_, before)) = self.registered(path.as_str()).await else {
                return Err(Refusal::new(Reason::FileNotFound, "gone"));
            };
            commit.preconditions.push(Precondition::At(file_key(&path), revision));
            let after = change(&path, before.clone());
            if after.as_ref().is_none_or(|(to, _)| *to != path) {
                commit.deletes.push((file_key(&path), serde_json::to_string(&before).expect("JSON")));
            }
            if let Some((to, record)) = after {
                commit.puts.push((file_key(&to), serde_json::to_string(&record).expect("JSON")));
            }
        }
        self.registry.commit(commit).await.map(drop).map_err(|error| refusal(&error))
    }
}

fn record(content: &[u8], placement: Placement, registered_by: String) -> FileRecord {
    FileRecord {
        file_id: FileId::random(&SystemEntropy),
        digest: Digest::of(content),
        md5: Md5::from_bytes([0; 16]),
        size_bytes: content.len() as u64,
        registered_time: Timestamp::UNIX_EPOCH,
        origin: "s1".parse().expect("an id"),
        state: FileState::Active,
        placement,
        registered_by,
        instead_of: None,
        deleted_by: None,
        moved_to: None,
        registered_revision: None,
    }
}

fn request(id: &RequestId, fingerprint: String) -> Request {
    Request { caller: Identity::Service("catalog").to_string(), id: id.to_string(), fingerprint }
}

fn refusal(error: &RegistryError) -> Refusal {
    use lockstep_model::Fault as _;
    Refusal::new(error.reason(), error.to_string())
}

impl Servers for FakeServers {
    async fn check_space(&self, _: &Server, bytes: u64) -> Result<(), Refusal> {
        self.here()?;
        self.unfenced()?;
        match self.house().room_bytes {
            Some(room) if room < bytes => {
                let metadata =
                    vec![("required_bytes", bytes.to_string()), ("available_bytes", room.to_string())];
                Err(Refusal { metadata, ..Refusal::new(Reason::DiskFull, "too little room") })
            }
            _ => Ok(()),
        }
    }

    async fn committed(&self, _: &Server, upload: Upload) -> Result<Option<u64>, Refusal> {
        self.here()?;
        Ok(self.house().uploads.get(&upload.id).map(|(bytes, _)| bytes.len() as u64))
    }

    async fn write(
        &self,
        _: &Server,
        upload: Upload,
        offset: u64,
        mut chunks: mpsc::Receiver<Bytes>,
    ) -> Result<u64, Refusal> {
        self.here()?;
        if !self.house().uploads.contains_key(&upload.id) {
            self.unfenced()?;
        }
        {
            let mut house = self.house();
            let stands = house.uploads.get(&upload.id).map_or(0, |(bytes, _)| bytes.len() as u64);
            if stands != offset {
                return Err(Refusal::new(Reason::OffsetMismatch, format!("stands at {stands}")));
            }
            if !house.writers.insert(upload.id) {
                return Err(Refusal::new(Reason::Overloaded, "somebody else writes to it"));
            }
            house.uploads.entry(upload.id).or_insert((Vec::new(), upload.size_bytes));
        }
        let _writer = Writer { servers: self.clone(), id: upload.id };
        while let Some(chunk) = chunks.recv().await {
            self.here()?;
            let mut house = self.house();
            match house.uploads.get_mut(&upload.id) {
                Some((bytes, _)) => bytes.extend_from_slice(&chunk),
                None => return Err(Refusal::new(Reason::UploadNotFound, "it was dropped")),
            }
        }
        self.here()?;
        Ok(self.house().uploads.get(&upload.id).map_or(0, |(bytes, _)| bytes.len() as u64))
    }

    async fn cancel(&self, _: &Server, upload: UploadId, _: RequestId) -> Result<(), Refusal> {
        self.here()?;
        self.house().uploads.remove(&upload);
        Ok(())
    }

    async fn register(
        &self,
        _: &Server,
        files: Vec<Registration>,
        placement: Placement,
        request_id: RequestId,
    ) -> Result<Vec<Registered>, Refusal> {
        self.here()?;
        self.unfenced()?;
        let label = format!("{} {request_id}", Identity::Service("catalog"));
        let mut commit =
            Commit { request: Some(request(&request_id, "register".into())), ..Commit::default() };
        let mut registered = Vec::new();
        for file in &files {
            let content = self.house().uploads.get(&file.upload_id).map(|(bytes, _)| bytes.clone());
            let content = content.ok_or_else(|| Refusal::new(Reason::UploadNotFound, "no such upload"))?;
            if sha256(&content) != file.sha256 {
                return Err(Refusal::new(Reason::ContentDigestMismatch, format!("{} is another", file.path)));
            }
            let record = record(&content, placement, label.clone());
            registered.push(Registered { path: file.path.clone(), file_id: record.file_id });
            let key = file_key(&file.path);
            commit.preconditions.push(Precondition::Absent(key.clone()));
            commit.puts.push((key, serde_json::to_string(&record).expect("JSON")));
        }
        self.house().waiting += 1;
        loop {
            let moved = self.moved.notified();
            if !self.house().holds_registrations {
                break;
            }
            moved.await;
        }
        match self.registry.commit(commit).await {
            Ok(_) => {}
            Err(RegistryError::Refused { .. }) => {
                return Err(Refusal::new(Reason::FileExists, "registered already"));
            }
            Err(error) => return Err(refusal(&error)),
        }
        let mut house = self.house();
        house.registrations += 1;
        files.iter().for_each(|file| drop(house.uploads.remove(&file.upload_id)));
        Ok(registered)
    }

    async fn move_file(
        &self,
        _: &Server,
        file: Seen,
        new_path: FilePath,
        request_id: RequestId,
    ) -> Result<(), Refusal> {
        let moved = |_: &FilePath, record| Some((new_path.clone(), record));
        self.change(vec![file], &request_id, moved).await
    }

    async fn place(
        &self,
        _: &Server,
        files: Vec<Seen>,
        placement: Placement,
        request_id: RequestId,
    ) -> Result<(), Refusal> {
        let placed = |path: &FilePath, record| Some((path.clone(), FileRecord { placement, ..record }));
        self.change(files, &request_id, placed).await
    }

    async fn delete(&self, _: &Server, files: Vec<Seen>, request_id: RequestId) -> Result<(), Refusal> {
        self.change(files, &request_id, |_, _| None).await
    }
}

/// Ends the writing of an upload, however it ends.
struct Writer {
    servers: FakeServers,
    id: UploadId,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.servers.house().writers.remove(&self.id);
    }
}

/// Waits in the time of the runtime until something is so.
pub(super) async fn until(what: &str, limit: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + limit;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Chance that is different for each instance, so that the lower one is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered(pub(super) u8);

impl Entropy for Numbered {
    fn fill(&self, bytes: &mut [u8]) {
        SystemEntropy.fill(bytes);
        if let Some(first) = bytes.first_mut() {
            *first = self.0;
        }
    }
}
