//! Servers over gRPC: small questions on one connection, content on connections of its own.

use std::time::Duration;

use bytes::Bytes;
use lockstep_chassis::{Channel, Channels, Lane, deadline, status};
use lockstep_model::{Fault as _, FilePath, Identity, Reason, RequestId, UploadId, record::Placement};
use lockstep_proto::filesync::v1::{
    self as wire, CancelUploadRequest, CheckSpaceRequest, DeleteFilesRequest, Digests, GetUploadRequest,
    MoveFileRequest, NewFile, RegisterFilesRequest, SeenFile, UpdatePlacementRequest, UploadChunk,
    UploadHeader, WriteUploadRequest, file_service_client::FileServiceClient, new_file::Source,
    upload_service_client::UploadServiceClient, write_upload_request::Part,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, once, wrappers::ReceiverStream};
use tonic::Status;

use crate::{
    domain::error::Refusal,
    ports::{Registered, Registration, Seen, Server, Servers, Upload},
};

/// How long a small question may take.
const ASK_MAX: Duration = Duration::from_secs(10);
/// How long a change of files may take: up to a thousand are in it.
const CHANGE_MAX: Duration = Duration::from_secs(60);
/// How long a registration may take: SHA-256 of all files is computed within it. After that it is repeated, and tells.
const REGISTER_MAX: Duration = Duration::from_secs(30 * 60);
/// Answers with a thousand files whose paths are long.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Connections for content, so that files that are downloaded at the same time share none.
const BULK_LANES: u8 = 4;

/// The filesync of every server.
#[derive(Clone, Debug)]
pub struct GrpcServers {
    channels: Channels,
}

impl GrpcServers {
    /// Over these channels.
    pub fn new(channels: Channels) -> Self {
        Self { channels }
    }

    fn channel(&self, server: &Server, lane: Lane) -> Channel {
        let expected = Identity::Server { server_id: server.id.clone(), service: "filesync" };
        self.channels.to(&server.uri, expected, lane)
    }

    fn files(&self, server: &Server) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel(server, Lane::Control))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn uploads(&self, server: &Server, lane: Lane) -> UploadServiceClient<Channel> {
        UploadServiceClient::new(self.channel(server, lane))
    }
}

/// What came back within `limit`.
async fn asked<T>(
    server: &Server,
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Refusal> {
    match deadline::within(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(refusal(server, &status)),
        Err(late) => Err(Refusal::new(late.reason(), format!("the server {}: {late}", server.id))),
    }
}

fn refusal(server: &Server, status: &Status) -> Refusal {
    let failure = status::read(status);
    let message = format!("the server {}: {failure}", server.id);
    Refusal::of(&failure, message)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn seen(files: Vec<Seen>) -> Vec<SeenFile> {
    let one =
        |file: Seen| SeenFile { path: file.path.to_string(), expected_revision: signed(file.revision.0) };
    files.into_iter().map(one).collect()
}

fn placement_into_wire(placement: Placement) -> wire::Placement {
    use wire::placement::Scope;
    match placement {
        Placement::All => wire::Placement { scope: Scope::AllServers.into(), reason: String::new() },
        Placement::OriginOnly { reason } => {
            wire::Placement { scope: Scope::OriginOnly.into(), reason: reason.to_string() }
        }
    }
}

fn registered_from_wire(server: &Server, file: &wire::File) -> Result<Registered, Refusal> {
    let malformed =
        || Refusal::new(Reason::Internal, format!("the server {} answered with a malformed file", server.id));
    let path = file.path.parse().map_err(|_| malformed())?;
    let file_id = file.file_id.parse().map_err(|_| malformed())?;
    Ok(Registered { path, file_id })
}

impl Servers for GrpcServers {
    async fn check_space(&self, server: &Server, bytes: u64) -> Result<(), Refusal> {
        let request = CheckSpaceRequest { size_bytes: signed(bytes) };
        let mut client = self.uploads(server, Lane::Control);
        asked(server, ASK_MAX, client.check_space(request)).await.map(drop)
    }

    async fn committed(&self, server: &Server, upload: Upload) -> Result<Option<u64>, Refusal> {
        let request = GetUploadRequest { upload_id: upload.id.to_string() };
        let mut client = self.uploads(server, Lane::Control);
        match asked(server, ASK_MAX, client.get_upload(request)).await {
            Ok(answer) => Ok(Some(unsigned(answer.committed_bytes))),
            Err(refusal) if refusal.reason == Reason::UploadNotFound => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn write(
        &self,
        server: &Server,
        upload: Upload,
        offset: u64,
        chunks: mpsc::Receiver<Bytes>,
    ) -> Result<u64, Refusal> {
        let header = UploadHeader {
            upload_id: upload.id.to_string(),
            size_bytes: signed(upload.size_bytes),
            offset_bytes: signed(offset),
            // Nothing is sent on before the whole update was verified: one that is aborted starts no synchronisation (R58).
            scope: wire::placement::Scope::OriginOnly.into(),
        };
        let mut at = offset;
        let chunks = ReceiverStream::new(chunks).map(move |data| {
            let offset_bytes = signed(at);
            at += data.len() as u64;
            Part::Chunk(UploadChunk { offset_bytes, data })
        });
        let parts = once(Part::Header(header)).chain(chunks);
        let parts = parts.map(|part| WriteUploadRequest { part: Some(part) });
        // The last digit of a random id spreads the uploads over the connections.
        let number = upload.id.to_string().bytes().last().unwrap_or(0);
        let mut client = self.uploads(server, Lane::Bulk(number % BULK_LANES));
        let written = client.write_upload(parts).await.map_err(|status| refusal(server, &status))?;
        Ok(unsigned(written.into_inner().committed_bytes))
    }

    async fn cancel(&self, server: &Server, upload: UploadId, request_id: RequestId) -> Result<(), Refusal> {
        let request =
            CancelUploadRequest { upload_id: upload.to_string(), request_id: request_id.to_string() };
        let mut client = self.uploads(server, Lane::Control);
        asked(server, ASK_MAX, client.cancel_upload(request)).await.map(drop)
    }

    async fn register(
        &self,
        server: &Server,
        files: Vec<Registration>,
        placement: Placement,
        request_id: RequestId,
    ) -> Result<Vec<Registered>, Refusal> {
        let new = |file: Registration| NewFile {
            path: file.path.to_string(),
            source: Some(Source::UploadId(file.upload_id.to_string())),
            digests: Some(Digests { sha256: file.sha256, ..Digests::default() }),
            placement: Some(placement_into_wire(placement)),
            ..NewFile::default()
        };
        let files = files.into_iter().map(new).collect();
        let request = RegisterFilesRequest { files, request_id: request_id.to_string() };
        let mut client = self.files(server);
        let answer = asked(server, REGISTER_MAX, client.register_files(request)).await?;
        answer.files.iter().map(|file| registered_from_wire(server, file)).collect()
    }

    async fn move_file(
        &self,
        server: &Server,
        file: Seen,
        new_path: FilePath,
        request_id: RequestId,
    ) -> Result<(), Refusal> {
        let request = MoveFileRequest {
            path: file.path.to_string(),
            new_path: new_path.to_string(),
            expected_revision: signed(file.revision.0),
            request_id: request_id.to_string(),
        };
        let mut client = self.files(server);
        asked(server, CHANGE_MAX, client.move_file(request)).await.map(drop)
    }

    async fn place(
        &self,
        server: &Server,
        files: Vec<Seen>,
        placement: Placement,
        request_id: RequestId,
    ) -> Result<(), Refusal> {
        let request = UpdatePlacementRequest {
            files: seen(files),
            placement: Some(placement_into_wire(placement)),
            request_id: request_id.to_string(),
        };
        let mut client = self.files(server);
        asked(server, CHANGE_MAX, client.update_placement(request)).await.map(drop)
    }

    async fn delete(&self, server: &Server, files: Vec<Seen>, request_id: RequestId) -> Result<(), Refusal> {
        let request = DeleteFilesRequest { files: seen(files), request_id: request_id.to_string() };
        let mut client = self.files(server);
        asked(server, CHANGE_MAX, client.delete_files(request)).await.map(drop)
    }
}
