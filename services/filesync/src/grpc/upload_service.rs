//! `UploadService`: bytes on their way in.

use std::time::Duration;

use lockstep_chassis::{Fields, OrStatus as _, caller, deadline};
use lockstep_model::{RequestId, UploadId};
use lockstep_proto::filesync::v1::{
    CancelUploadRequest, CancelUploadResponse, CheckSpaceRequest, CheckSpaceResponse, GetUploadRequest,
    GetUploadResponse, UploadChunk, UploadHeader, WriteUploadRequest, WriteUploadResponse, placement::Scope,
    upload_service_server::UploadService, write_upload_request::Part,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Streaming};

use super::wire::{INLINE_BYTES_MAX, signed, violation};
use crate::{
    domain::error::FileError,
    engine::{Audience, Engine, Progress, Writer},
    ports::{Ports, Upload},
};

/// How long a caller may send nothing.
const STALL_MAX: Duration = Duration::from_secs(30);

/// The most bytes that may be asked for at once: 4 TiB.
const SPACE_BYTES_MAX: u64 = 4 << 40;

/// Chunks that wait for the disk.
const QUEUE_CHUNKS: usize = 4;

/// The service on top of the engine.
pub struct Uploads<P: Ports> {
    engine: Engine<P>,
}

impl<P: Ports> Uploads<P> {
    /// Serves `engine`.
    pub fn new(engine: Engine<P>) -> Self {
        Self { engine }
    }
}

/// The header of an upload and where this stream begins.
fn header_from_wire(caller: String, header: Option<UploadHeader>) -> tonic::Result<(Upload, u64, Audience)> {
    let mut fields = Fields::of(header.unwrap_or_default());
    let id = fields.parse::<UploadId>("header.upload_id", |header| &header.upload_id);
    let size = u64::try_from(fields.request().size_bytes).ok();
    let offset = u64::try_from(fields.request().offset_bytes).ok();
    if size.is_none() {
        fields.violation("header.size_bytes", "must not be negative");
    }
    if offset.is_none() {
        fields.violation("header.offset_bytes", "must not be negative");
    }
    let audience = match Scope::try_from(fields.request().scope) {
        Ok(Scope::OriginOnly) => Some(Audience::OriginOnly),
        Ok(Scope::Unspecified | Scope::AllServers) => Some(Audience::AllServers),
        Err(_) => {
            fields.violation("header.scope", "is a scope that this server does not know");
            None
        }
    };
    let (((id, size_bytes), offset), audience) = fields.finish(id.zip(size).zip(offset).zip(audience))?;
    Ok((Upload { id, caller, size_bytes }, offset, audience))
}

#[tonic::async_trait]
impl<P: Ports> UploadService for Uploads<P> {
    async fn write_upload(
        &self,
        request: Request<Streaming<WriteUploadRequest>>,
    ) -> tonic::Result<Response<WriteUploadResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut parts = request.into_inner();
        let first = parts.next().await.transpose()?.and_then(|message| message.part);
        let header = match first {
            Some(Part::Header(header)) => Some(header),
            _ => None,
        };
        let (upload, offset, audience) = header_from_wire(caller, header)?;

        // Not cut off with the call: when a connection breaks, what arrived is still made safe, and the upload goes on there.
        let (engine, deadline) = (self.engine.clone(), deadline::current());
        let received = self.engine.detached(async move {
            let id = upload.id;
            let writer = engine.begin_upload(upload, offset, audience, deadline).await?;
            Ok(receive(&engine, id, writer, parts).await)
        });
        Ok(Response::new(received.await.or_status()??))
    }

    async fn cancel_upload(
        &self,
        request: Request<CancelUploadRequest>,
    ) -> tonic::Result<Response<CancelUploadResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let id = fields.parse::<UploadId>("upload_id", |r| &r.upload_id);
        let request_id = fields.parse::<RequestId>("request_id", |r| &r.request_id);
        let (id, _) = fields.finish(id.zip(request_id))?;

        self.engine.cancel_upload(&caller, id).await.or_status()?;
        Ok(Response::new(CancelUploadResponse { upload_id: id.to_string() }))
    }

    async fn check_space(
        &self,
        request: Request<CheckSpaceRequest>,
    ) -> tonic::Result<Response<CheckSpaceResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = u64::try_from(fields.request().size_bytes).ok().filter(|size| *size <= SPACE_BYTES_MAX);
        if size.is_none() {
            fields.violation("size_bytes", "must be 0 to 4 TiB");
        }
        let size = fields.finish(size)?;

        let available = self.engine.check_space(size).await.or_status()?;
        Ok(Response::new(CheckSpaceResponse { available_bytes: signed(available) }))
    }

    async fn get_upload(
        &self,
        request: Request<GetUploadRequest>,
    ) -> tonic::Result<Response<GetUploadResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let id = fields.parse::<UploadId>("upload_id", |r| &r.upload_id);
        let id = fields.finish(id)?;

        let (progress, size) = self.engine.upload_progress(&caller, id).or_status()?;
        let (digest, md5) = digests_into_wire(&progress);
        Ok(Response::new(GetUploadResponse {
            upload_id: id.to_string(),
            committed_bytes: signed(progress.committed_bytes),
            size_bytes: signed(size),
            digest,
            md5,
        }))
    }
}

/// Takes chunks until the stream ends, breaks, stalls or is wrong; all that arrived before is safe afterwards.
async fn receive<P: Ports>(
    engine: &Engine<P>,
    id: UploadId,
    mut writer: Writer,
    parts: Streaming<WriteUploadRequest>,
) -> tonic::Result<WriteUploadResponse> {
    // The next chunk is received while one is hashed and written.
    let (chunks, queue) = mpsc::channel(QUEUE_CHUNKS);
    let (received, written) = tokio::join!(read(id, parts, chunks), write(engine, &mut writer, queue));
    let progress = engine.end_upload(writer).await.or_status()?;
    written?;
    received?;
    let (digest, md5) = digests_into_wire(&progress);
    let committed_bytes = signed(progress.committed_bytes);
    Ok(WriteUploadResponse { upload_id: id.to_string(), committed_bytes, digest, md5 })
}

fn digests_into_wire(progress: &Progress) -> (String, String) {
    progress.digests.map(|(digest, md5)| (digest.to_string(), md5.to_string())).unwrap_or_default()
}

/// Passes chunks on until the stream ends or nobody takes them any more.
async fn read(
    id: UploadId,
    mut parts: Streaming<WriteUploadRequest>,
    chunks: mpsc::Sender<UploadChunk>,
) -> tonic::Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            () = chunks.closed() => return Ok(()),
            next = timeout(STALL_MAX, parts.next()) => next,
        };
        let next =
            next.map_err(|_| FileError::Stalled { upload: id, seconds: STALL_MAX.as_secs() }).or_status()?;
        let Some(message) = next.transpose()? else { return Ok(()) };
        match message.part {
            Some(Part::Chunk(chunk)) if chunk.data.len() <= INLINE_BYTES_MAX => {
                drop(chunks.send(chunk).await)
            }
            Some(Part::Chunk(_)) => return Err(violation("chunk.data", "may have at most 1 MiB")),
            _ => return Err(violation("part", "must be a chunk after the header")),
        }
    }
}

async fn write<P: Ports>(
    engine: &Engine<P>,
    writer: &mut Writer,
    mut queue: mpsc::Receiver<UploadChunk>,
) -> tonic::Result<()> {
    while let Some(chunk) = queue.recv().await {
        let offset = u64::try_from(chunk.offset_bytes).unwrap_or(u64::MAX);
        engine.write_upload(writer, offset, chunk.data).await.or_status()?;
    }
    Ok(())
}
