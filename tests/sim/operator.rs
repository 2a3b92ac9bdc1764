//! People and programs: they call through the door with generated clients, and insist until they have an answer.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use lockstep_chassis::{Channel, Channels, Failure, Lane, SERVER_KEY, status};
use lockstep_model::{Digest, FilePath, Identity, Reason, Revision, clock::Entropy as _};
use lockstep_proto::{
    filesync::v1::{
        DeleteDirectoryRequest, DeleteFileRequest, File, MoveDirectoryRequest, MoveFileRequest, NewFile,
        ReconcileRequest, RegisterFilesRequest, UploadChunk, UploadHeader, WatchReplicasRequest,
        WatchReplicasResponse, WriteUploadRequest, file_service_client::FileServiceClient, new_file::Source,
        replica_service_client::ReplicaServiceClient, upload_service_client::UploadServiceClient,
        write_upload_request::Part,
    },
    gateway::v1::{
        ListRowsRequest, Row, WatchRowsRequest, WatchRowsResponse, matrix_service_client::MatrixServiceClient,
    },
};
use tokio::time::sleep;

use crate::{
    chance::Chance,
    net::{GATEWAY, SimDial, identity, uri},
};

/// How long a person waits for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tries before a person gives up; with the waits between them, some minutes.
const TRIES_MAX: usize = 400;
/// Content up to here travels inside the call.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// Bytes in a message of an upload: small enough to be hashed where it is received, so that no thread is involved.
const CHUNK_BYTES: usize = 128 << 10;

/// What was asked for and what was acknowledged. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    ledger: Arc<Mutex<Ledger>>,
}

/// See [`Book`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) registrations_asked: BTreeSet<(FilePath, Digest)>,
    pub(crate) deletions_asked: BTreeSet<(FilePath, Revision)>,
    pub(crate) registered: BTreeSet<(FilePath, Revision, Digest)>,
    pub(crate) deleted: BTreeSet<(FilePath, Revision)>,
}

impl Book {
    /// The ledger.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who calls.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) channels: Channels,
    pub(crate) chance: Chance,
    pub(crate) book: Book,
    /// The host whose door it is; the gateway, unless a server is called directly.
    door: String,
}

/// A file to register.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) path: String,
    pub(crate) content: Bytes,
}

impl New {
    pub(crate) fn at(path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self { path: path.into(), content: content.into() }
    }

    fn key(&self) -> FilePath {
        self.path.parse().expect("paths of tests are valid")
    }
}

impl Operator {
    pub(crate) fn new(dial: SimDial, chance: Chance, book: &Book) -> Self {
        Self { channels: Channels::new(dial), chance, book: book.clone(), door: GATEWAY.to_owned() }
    }

    /// The same person at the door of one server.
    pub(crate) fn directly(&self, server: &str) -> Self {
        Self { door: server.to_owned(), ..self.clone() }
    }

    fn channel(&self) -> Channel {
        let identity: Identity = identity(&self.door).expect("a service");
        self.channels.to(&uri(&self.door), identity, Lane::Control)
    }

    fn request<T>(server: &str, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(PATIENCE);
        request.metadata_mut().insert(SERVER_KEY, server.parse().expect("a DNS label is ASCII"));
        request
    }

    /// Registers files together on one of `servers`, the first first, until it is done or refused for good.
    pub(crate) async fn register(&self, servers: &[String], files: &[New]) -> Result<Vec<File>, Failure> {
        let name = self.chance.uuid().to_string();
        {
            let asked = files.iter().map(|file| (file.key(), Digest::of(&file.content)));
            self.book.ledger().registrations_asked.extend(asked);
        }
        let registered = self
            .insist(servers, async |server, attempt| {
                // Another upload is another request: only what travels inside the call is repeated under one name.
                let large = files.iter().any(|file| file.content.len() > INLINE_BYTES_MAX);
                let request_id = if large { format!("{name}-{attempt}") } else { name.clone() };
                match self.try_register(server, request_id, files, 0).await {
                    // An earlier try whose answer was lost.
                    Err(failure) if failure.reason == Reason::FileExists && files.len() == 1 => {
                        ours(&files[0], &failure).map(|file| vec![file]).ok_or(failure)
                    }
                    other => other,
                }
            })
            .await?;
        let mut ledger = self.book.ledger();
        for file in &registered {
            let (path, digest) = (file.path.parse().expect("a path"), file.digest.parse().expect("a digest"));
            ledger.registered.insert((path, revision(file.revision), digest));
        }
        drop(ledger);
        Ok(registered)
    }

    /// Replaces a file that was seen at a revision.
    pub(crate) async fn replace(&self, servers: &[String], file: &New, seen: i64) -> Result<File, Failure> {
        let name = self.chance.uuid().to_string();
        let digest = Digest::of(&file.content);
        self.book.ledger().registrations_asked.insert((file.key(), digest));
        let replaced = self
            .insist(servers, async |server, attempt| {
                let large = file.content.len() > INLINE_BYTES_MAX;
                let request_id = if large { format!("{name}-{attempt}") } else { name.clone() };
                match self.try_register(server, request_id, std::slice::from_ref(file), seen).await {
                    // An earlier try whose answer was lost.
                    Err(failure) if failure.reason == Reason::RevisionChanged => {
                        ours(file, &failure).map(|file| vec![file]).ok_or(failure)
                    }
                    other => other,
                }
            })
            .await?;
        let file = replaced.into_iter().next().expect("one file");
        self.book.ledger().registered.insert((
            file.path.parse().expect("a path"),
            revision(file.revision),
            digest,
        ));
        Ok(file)
    }

    fn note_move_asked(&self, file: &File, to: &str) {
        let (path, digest) = (file.path.parse().expect("a path"), file.digest.parse().expect("a digest"));
        let mut ledger = self.book.ledger();
        ledger.deletions_asked.insert((path, revision(file.revision)));
        ledger.registrations_asked.insert((to.parse().expect("a path"), digest));
    }

    fn note_moved(&self, file: &File, to: &str, at: i64) -> File {
        let (path, digest) = (file.path.parse().expect("a path"), file.digest.parse().expect("a digest"));
        let mut ledger = self.book.ledger();
        ledger.deleted.insert((path, revision(at)));
        ledger.registered.insert((to.parse().expect("a path"), revision(at), digest));
        File { path: to.to_owned(), revision: at, ..file.clone() }
    }

    /// Moves a file.
    pub(crate) async fn move_file(&self, servers: &[String], file: &File, to: &str) -> Result<File, Failure> {
        self.note_move_asked(file, to);
        let request = MoveFileRequest {
            path: file.path.clone(),
            new_path: to.to_owned(),
            expected_revision: file.revision,
            request_id: self.chance.uuid().to_string(),
        };
        let moved = self
            .insist(servers, async |server, _| {
                let request = Self::request(server, request.clone());
                let answer = FileServiceClient::new(self.channel()).move_file(request).await;
                Ok(answer.map_err(|status| status::read(&status))?.into_inner().file.expect("a file"))
            })
            .await?;
        assert_eq!((&moved.file_id, &moved.digest), (&file.file_id, &file.digest), "R38");
        Ok(self.note_moved(file, to, moved.revision))
    }

    /// Moves a directory with all its files.
    pub(crate) async fn move_directory(
        &self,
        servers: &[String],
        from: &str,
        files: &[File],
        to: &str,
    ) -> Result<Vec<File>, Failure> {
        let new = |file: &File| file.path.replacen(from, to, 1);
        files.iter().for_each(|file| self.note_move_asked(file, &new(file)));
        let request = MoveDirectoryRequest {
            path: from.to_owned(),
            new_path: to.to_owned(),
            expected_file_count: i64::try_from(files.len()).expect("few"),
            expected_revision: files.iter().map(|file| file.revision).max().expect("one at least"),
            dry_run: false,
            request_id: self.chance.uuid().to_string(),
        };
        let moved = self
            .insist(servers, async |server, _| {
                let request = Self::request(server, request.clone());
                let answer = FileServiceClient::new(self.channel()).move_directory(request).await;
                Ok(answer.map_err(|status| status::read(&status))?.into_inner())
            })
            .await?;
        assert_eq!(moved.directory.expect("a summary").file_count, files.len() as i64);
        Ok(files.iter().map(|file| self.note_moved(file, &new(file), moved.move_revision)).collect())
    }

    /// Deletes a directory with all its files.
    pub(crate) async fn delete_directory(
        &self,
        servers: &[String],
        path: &str,
        files: &[File],
    ) -> Result<(), Failure> {
        let key = |file: &File| file.path.parse::<FilePath>().expect("a path");
        let asked = files.iter().map(|file| (key(file), revision(file.revision)));
        self.book.ledger().deletions_asked.extend(asked);
        let request = DeleteDirectoryRequest {
            path: path.to_owned(),
            expected_file_count: i64::try_from(files.len()).expect("few"),
            expected_revision: files.iter().map(|file| file.revision).max().expect("one at least"),
            dry_run: false,
            request_id: self.chance.uuid().to_string(),
        };
        let deleted = self
            .insist(servers, async |server, _| {
                let request = Self::request(server, request.clone());
                let answer = FileServiceClient::new(self.channel()).delete_directory(request).await;
                Ok(answer.map_err(|status| status::read(&status))?.into_inner().delete_revision)
            })
            .await?;
        self.book.ledger().deleted.extend(files.iter().map(|file| (key(file), revision(deleted))));
        Ok(())
    }

    pub(crate) async fn try_register(
        &self,
        server: &str,
        request_id: String,
        files: &[New],
        expected_revision: i64,
    ) -> Result<Vec<File>, Failure> {
        let mut new = Vec::with_capacity(files.len());
        for New { path, content } in files {
            let source = if content.len() <= INLINE_BYTES_MAX {
                Source::Content(content.clone())
            } else {
                Source::UploadId(self.upload(server, content).await?)
            };
            new.push(NewFile {
                path: path.clone(),
                source: Some(source),
                expected_revision,
                ..NewFile::default()
            });
        }
        let request = Self::request(server, RegisterFilesRequest { files: new, request_id });
        let answer = FileServiceClient::new(self.channel()).register_files(request).await;
        Ok(answer.map_err(|status| status::read(&status))?.into_inner().files)
    }

    async fn upload(&self, server: &str, content: &Bytes) -> Result<String, Failure> {
        let upload_id = self.chance.uuid().to_string();
        let size_bytes = i64::try_from(content.len()).expect("small");
        let header = UploadHeader { upload_id: upload_id.clone(), size_bytes, offset_bytes: 0, scope: 0 };
        let mut parts = vec![WriteUploadRequest { part: Some(Part::Header(header)) }];
        for at in (0..content.len()).step_by(CHUNK_BYTES) {
            let data = content.slice(at..(at + CHUNK_BYTES).min(content.len()));
            let offset_bytes = i64::try_from(at).expect("small");
            parts.push(WriteUploadRequest { part: Some(Part::Chunk(UploadChunk { offset_bytes, data })) });
        }
        let request = Self::request(server, futures::stream::iter(parts));
        let answer = UploadServiceClient::new(self.channel()).write_upload(request).await;
        answer.map_err(|status| status::read(&status))?;
        Ok(upload_id)
    }

    /// Deletes a file through one of `servers`, until it is done or refused for good.
    pub(crate) async fn delete(
        &self,
        servers: &[String],
        path: &str,
        seen: i64,
    ) -> Result<Revision, Failure> {
        let request_id = self.chance.uuid().to_string();
        let key: FilePath = path.parse().expect("paths of tests are valid");
        self.book.ledger().deletions_asked.insert((key.clone(), revision(seen)));
        let deleted = self
            .insist(servers, async |server, _| {
                let (path, request_id) = (path.to_owned(), request_id.clone());
                let request = DeleteFileRequest { path, expected_revision: seen, request_id };
                let request = Self::request(server, request);
                let answer = FileServiceClient::new(self.channel()).delete_file(request).await;
                Ok(answer.map_err(|status| status::read(&status))?.into_inner().delete_revision)
            })
            .await?;
        self.book.ledger().deleted.insert((key, revision(deleted)));
        Ok(revision(deleted))
    }

    async fn insist<T>(
        &self,
        servers: &[String],
        attempt: impl AsyncFn(&str, usize) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut last = None;
        for tried in 0..TRIES_MAX {
            // Twice at each server, then at the next.
            let server = &servers[tried / 2 % servers.len()];
            match attempt(server, tried).await {
                Err(failure) if may_pass(failure.reason) => last = Some(failure),
                done => return done,
            }
            sleep(self.chance.millis(50..=500)).await;
        }
        let last = last.expect("at least one try");
        panic!("gave up after {TRIES_MAX} tries at {servers:?}: {last}");
    }

    /// Asks a server for a round, once.
    pub(crate) async fn reconcile(&self, server: &str) -> Result<(), Failure> {
        let request = Self::request(server, ReconcileRequest::default());
        let answer = ReplicaServiceClient::new(self.channel()).reconcile(request).await;
        answer.map(drop).map_err(|status| status::read(&status))
    }

    /// Watches the matrix until the watch breaks.
    pub(crate) async fn watch_rows(&self, mut tell: impl FnMut(WatchRowsResponse)) -> tonic::Result<()> {
        let request = WatchRowsRequest::default();
        let mut stream = MatrixServiceClient::new(self.channel()).watch_rows(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            tell(message);
        }
        Ok(())
    }

    /// Watches a server, whose door this is, until the watch breaks.
    pub(crate) async fn watch_replicas(
        &self,
        mut tell: impl FnMut(WatchReplicasResponse),
    ) -> tonic::Result<()> {
        let request = WatchReplicasRequest::default();
        let mut stream =
            ReplicaServiceClient::new(self.channel()).watch_replicas(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            tell(message);
        }
        Ok(())
    }

    /// The whole matrix, once.
    pub(crate) async fn rows(&self) -> Result<Vec<Row>, Failure> {
        let request = ListRowsRequest { page_size: 500, ..ListRowsRequest::default() };
        let mut request = tonic::Request::new(request);
        request.set_timeout(PATIENCE);
        let answer = MatrixServiceClient::new(self.channel()).list_rows(request).await;
        Ok(answer.map_err(|status| status::read(&status))?.into_inner().rows)
    }
}

fn revision(wire: i64) -> Revision {
    Revision(u64::try_from(wire).expect("revisions are not negative"))
}

/// The file that is there already, if it is the one that was asked for.
fn ours(file: &New, failure: &Failure) -> Option<File> {
    let digest = Digest::of(&file.content).to_string();
    let revision =
        failure.metadata.get("revision").or_else(|| failure.metadata.get("actual_revision"))?.parse().ok()?;
    (failure.metadata.get("digest") == Some(&digest)).then(|| File {
        path: file.path.clone(),
        revision,
        digest,
        ..File::default()
    })
}

/// Whether it is worth another try.
fn may_pass(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PeerUnreachable
            | Reason::RegistryUnavailable
            | Reason::Draining
            | Reason::DeadlineExpired
            | Reason::DeadlineTooShort
            | Reason::ServerUnknown
            | Reason::UploadNotFound
            | Reason::OffsetMismatch
            | Reason::Overloaded
            | Reason::StoreOffline
            // A disk that fails is a defect to the server; people try elsewhere.
            | Reason::Internal
            | Reason::DiskRefused
    )
}
