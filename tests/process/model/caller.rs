//! Somebody who insists: an operation is asked for, through one door or another, until there is an answer.

use std::time::Duration;

use lockstep_chassis::{Failure, status};
use lockstep_model::Reason;
use lockstep_proto::filesync::v1::{
    DeleteDirectoryRequest, DeleteFileRequest, GetUploadRequest, InPlace, MoveDirectoryRequest,
    MoveFileRequest, NewFile, RegisterFileRequest, RestoreFileRequest, UpdateFileVersionRequest, UploadChunk,
    UploadHeader, WriteUploadRequest,
    new_file::{ConflictPolicy, Source},
    write_upload_request::Part,
};
use lockstep_tests::harness::{Client, Installation, addressed, content, wait};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{plan::Operation, world::Answer};

/// How long somebody waits for one answer before asking again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long somebody insists.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// What travels inside the call.
const INLINE_MAX: usize = 1 << 20;

/// Which way a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Gateway,
    /// The server itself.
    Server,
}

#[derive(Clone)]
pub(super) struct Caller {
    client: Client,
    door: Door,
}

impl Caller {
    pub(super) fn new(installation: &Installation, door: Door) -> Self {
        Self { client: installation.client("publisher"), door }
    }

    fn child(&self, server: &str) -> String {
        match self.door {
            Door::Gateway => "gateway".to_owned(),
            Door::Server => format!("{server}.filesync"),
        }
    }

    /// The answer, or the refusal. A call whose outcome is not known is repeated under its name.
    pub(super) async fn insist(&self, operation: &Operation, name: &str) -> Result<Answer, Failure> {
        let answer = wait::until(format!("an answer to {name} {operation:?}"), ANSWER_MAX, || async {
            match self.ask(operation, name).await {
                Ok(answer) => Ok(Ok(answer)),
                Err(status) if is_passing(&status) => Err(format!("{status:?}")),
                Err(status) => Ok(Err(status)),
            }
        });
        answer.await.map_err(|status: Status| status::read(&status))
    }

    /// Asks once.
    async fn ask(&self, operation: &Operation, name: &str) -> tonic::Result<Answer> {
        let asked = timeout(PATIENCE, self.ask_patiently(operation, name)).await;
        asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("nobody answered")))
    }

    /// Asks once, and waits for as long as the server does.
    pub(super) async fn ask_patiently(&self, operation: &Operation, name: &str) -> tonic::Result<Answer> {
        let (server, request_id) = (operation.server(), name.to_owned());
        let child = self.child(server);
        let (mut files, mut stores) = (self.client.files_at(&child), self.client.stores_at(&child));
        let file = |file: Option<_>| Answer::File(Box::new(file.expect("the contract says so")));
        Ok(match operation.clone() {
            Operation::Register { path, content: name, size, replaces, rename, .. } => {
                let bytes = content(&name, size);
                let upload_id = upload_id(&name);
                let source = if size > INLINE_MAX {
                    Source::UploadId(upload_id.clone())
                } else {
                    Source::Content(bytes.clone().into())
                };
                let on_conflict =
                    if rename { ConflictPolicy::Rename } else { ConflictPolicy::Unspecified }.into();
                let new = NewFile {
                    placement: None,
                    path,
                    source: Some(source),
                    expected_revision: replaces,
                    on_conflict,
                    digests: None,
                };
                let request = RegisterFileRequest { file: Some(new), request_id };
                let answer = match files.register_file(addressed(request.clone(), server)).await {
                    Err(status) if is_incomplete(&status) => {
                        self.upload(server, upload_id, &bytes).await?;
                        files.register_file(addressed(request, server)).await?
                    }
                    answer => answer?,
                };
                file(answer.into_inner().file)
            }
            Operation::InPlace { path, .. } => {
                let new = NewFile { path, source: Some(Source::InPlace(InPlace {})), ..NewFile::default() };
                let request = RegisterFileRequest { file: Some(new), request_id };
                file(files.register_file(addressed(request, server)).await?.into_inner().file)
            }
            Operation::Move { path, to, seen, .. } => {
                let request = MoveFileRequest { path, new_path: to, expected_revision: seen, request_id };
                file(files.move_file(addressed(request, server)).await?.into_inner().file)
            }
            Operation::MoveDirectory { path, to, seen, .. } => {
                let request = MoveDirectoryRequest {
                    path,
                    new_path: to,
                    expected_file_count: seen.count.max(1),
                    expected_revision: seen.revision.max(1),
                    dry_run: false,
                    request_id,
                };
                Answer::Revision(
                    files.move_directory(addressed(request, server)).await?.into_inner().move_revision,
                )
            }
            Operation::Delete { path, seen, .. } => {
                let request = DeleteFileRequest { path, expected_revision: seen, request_id };
                Answer::Revision(
                    files.delete_file(addressed(request, server)).await?.into_inner().delete_revision,
                )
            }
            Operation::DeleteDirectory { path, seen, .. } => {
                let request = DeleteDirectoryRequest {
                    path,
                    expected_file_count: seen.count.max(1),
                    expected_revision: seen.revision.max(1),
                    dry_run: false,
                    request_id,
                };
                let answer = files.delete_directory(addressed(request, server)).await?.into_inner();
                Answer::Revision(answer.delete_revision)
            }
            Operation::Update { path, seen, .. } => {
                let request = UpdateFileVersionRequest { path, expected_revision: seen, request_id };
                file(stores.update_file_version(addressed(request, server)).await?.into_inner().file)
            }
            Operation::Restore { path, seen, .. } => {
                let request = RestoreFileRequest { path, expected_revision: seen, request_id };
                file(stores.restore_file(addressed(request, server)).await?.into_inner().file)
            }
        })
    }

    /// Sends what is not there yet.
    async fn upload(&self, server: &str, upload_id: String, bytes: &[u8]) -> tonic::Result<()> {
        let mut uploads = self.client.uploads_at(&self.child(server));
        let asked = GetUploadRequest { upload_id: upload_id.clone() };
        let offset = match uploads.get_upload(addressed(asked, server)).await {
            Ok(upload) => usize::try_from(upload.into_inner().committed_bytes).expect("not negative"),
            Err(status) if status.code() == Code::NotFound => 0,
            Err(status) => return Err(status),
        };
        let number = |size: usize| i64::try_from(size).expect("small");
        let header = UploadHeader {
            upload_id,
            size_bytes: number(bytes.len()),
            offset_bytes: number(offset),
            scope: 0,
        };
        let mut parts = vec![Part::Header(header)];
        let chunks = bytes[offset..].chunks(256 << 10).enumerate();
        parts.extend(chunks.map(|(index, chunk)| {
            let offset_bytes = number(offset + index * (256 << 10));
            Part::Chunk(UploadChunk { offset_bytes, data: chunk.to_vec().into() })
        }));
        let parts: Vec<_> = parts.into_iter().map(|part| WriteUploadRequest { part: Some(part) }).collect();
        uploads.write_upload(addressed(tokio_stream::iter(parts), server)).await.map(drop)
    }
}

/// An id that belongs to the content.
fn upload_id(content: &str) -> String {
    let bytes = blake3::hash(content.as_bytes()).as_bytes()[..16].try_into().expect("16 bytes");
    uuid::Uuid::from_bytes(bytes).to_string()
}

/// Whether the bytes have to be sent before they can be registered.
fn is_incomplete(status: &Status) -> bool {
    [Reason::UploadNotFound, Reason::OffsetMismatch].contains(&status::read(status).reason)
}

/// Whether to ask again: nothing is known of the outcome, or an upload stands elsewhere since its stream broke.
fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) || is_incomplete(status)
}
