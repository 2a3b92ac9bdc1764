//! `ContentService`: content between servers.

use std::time::Duration;

use lockstep_chassis::{Failure, Fields, OrStatus as _, caller, watch::BoxStream};
use lockstep_model::{Digest, Identity, ServerId, UploadId};
use lockstep_proto::filesync::v1::{
    ContentChunk, ContentFailure, ContentHeader, GroupHashes, LocateContentRequest, LocateContentResponse,
    ReadContentRequest, ReadContentResponse, WriteContentHeader, WriteContentRequest, WriteContentResponse,
    content_service_server::ContentService, read_content_response::Part, write_content_request,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Streaming};

use super::wire::{INLINE_BYTES_MAX, signed, violation};
use crate::{
    domain::{error::FileError, tree::GROUP_BYTES},
    engine::{Answer, CONTENT_RANGES_MAX, Engine},
    ports::{EarlyPart, Ports, Range},
};

/// How long a sender may send nothing.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Chunks that wait for the disk.
const QUEUE_CHUNKS: usize = 4;

/// The service on top of the engine.
pub struct Contents<P: Ports> {
    engine: Engine<P>,
}

impl<P: Ports> Contents<P> {
    /// Serves `engine`.
    pub fn new(engine: Engine<P>) -> Self {
        Self { engine }
    }
}

fn answer_into_wire(answer: Answer) -> ReadContentResponse {
    let part = match answer {
        Answer::Header(digest, size) => {
            Part::Header(ContentHeader { digest: digest.to_string(), size_bytes: signed(size) })
        }
        Answer::Hashes(first, hashes) => {
            Part::GroupHashes(GroupHashes { first_group_index: signed(first), hashes })
        }
        Answer::Chunk(offset, data) => Part::Chunk(ContentChunk { offset_bytes: signed(offset), data }),
        Answer::Refused(digest, error) => {
            let failure = Some(Failure::of(&error).into_wire());
            Part::Failure(ContentFailure { digest: digest.to_string(), failure })
        }
    };
    ReadContentResponse { part: Some(part) }
}

fn check_count<T>(fields: &mut Fields<T>, name: &str, count: usize) {
    if count == 0 || count > CONTENT_RANGES_MAX {
        fields.violation(name, format!("must have 1 to {CONTENT_RANGES_MAX} entries"));
    }
}

/// A place between groups.
fn groups<T>(fields: &mut Fields<T>, name: String, bytes: i64) -> Option<u64> {
    let place = u64::try_from(bytes).ok().filter(|bytes| bytes.is_multiple_of(GROUP_BYTES));
    if place.is_none() {
        fields.violation(name, "must be a multiple of 1 MiB, and not negative");
    }
    place
}

#[tonic::async_trait]
impl<P: Ports> ContentService for Contents<P> {
    async fn locate_content(
        &self,
        request: Request<LocateContentRequest>,
    ) -> tonic::Result<Response<LocateContentResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let texts = fields.request().digests.clone();
        check_count(&mut fields, "digests", texts.len());
        let parse = |(index, text): (usize, &String)| fields.parse_text(format!("digests[{index}]"), text);
        let digests: Vec<Digest> =
            texts.iter().take(CONTENT_RANGES_MAX).enumerate().filter_map(parse).collect();
        let digests = fields.finish(Some(digests))?;

        let held_digests = self.engine.locate(digests).iter().map(Digest::to_string).collect();
        Ok(Response::new(LocateContentResponse { held_digests }))
    }

    type ReadContentStream = BoxStream<ReadContentResponse>;

    async fn read_content(
        &self,
        request: Request<ReadContentRequest>,
    ) -> tonic::Result<Response<Self::ReadContentStream>> {
        let mut fields = Fields::of(request.into_inner());
        let wire = fields.request().ranges.clone();
        check_count(&mut fields, "ranges", wire.len());
        let mut ranges = Vec::with_capacity(wire.len().min(CONTENT_RANGES_MAX));
        for (index, range) in wire.iter().take(CONTENT_RANGES_MAX).enumerate() {
            let digest = fields.parse_text::<Digest>(format!("ranges[{index}].digest"), &range.digest);
            let offset = groups(&mut fields, format!("ranges[{index}].offset_bytes"), range.offset_bytes);
            let end = groups(&mut fields, format!("ranges[{index}].end_bytes"), range.end_bytes);
            let range = digest.zip(offset).zip(end);
            ranges.extend(range.map(|((digest, offset), end)| Range { digest, offset, end }));
        }
        let ranges = fields.finish(Some(ranges))?;

        let answers = ReceiverStream::new(self.engine.content(ranges));
        Ok(Response::new(Box::pin(answers.map(|answer| Ok(answer_into_wire(answer))))))
    }

    async fn write_content(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> tonic::Result<Response<WriteContentResponse>> {
        let origin = origin(&caller(&request).principal)?;
        let mut wire = request.into_inner();
        let header = match wire.next().await.transpose()?.and_then(|message| message.part) {
            Some(write_content_request::Part::Header(header)) => Some(header),
            _ => None,
        };
        let (upload, size_bytes) = header_from_wire(header)?;

        // Not cut off with the call: what a broken stream leaves is removed.
        let engine = self.engine.clone();
        let staged = self.engine.detached(async move {
            let (parts, queue) = mpsc::channel(QUEUE_CHUNKS);
            let staging = engine.stage_early(origin, upload, size_bytes, queue);
            Ok(tokio::join!(receive(upload, wire, parts), staging))
        });
        let (received, digest) = staged.await.or_status()?;
        let digest = digest.or_status();
        received?;
        Ok(Response::new(WriteContentResponse { digest: digest?.to_string() }))
    }
}

/// The server that sends; nobody else has the right to.
fn origin(principal: &Identity) -> tonic::Result<ServerId> {
    match principal {
        Identity::Server { server_id, .. } => Ok(server_id.clone()),
        _ => Err(violation("caller", "must be the filesync of a server")),
    }
}

fn header_from_wire(header: Option<WriteContentHeader>) -> tonic::Result<(UploadId, u64)> {
    let mut fields = Fields::of(header.unwrap_or_default());
    let id = fields.parse::<UploadId>("header.upload_id", |header| &header.upload_id);
    let size = u64::try_from(fields.request().size_bytes).ok().filter(|size| *size > GROUP_BYTES);
    if size.is_none() {
        fields.violation("header.size_bytes", "must be above 1 MiB");
    }
    fields.finish(id.zip(size))
}

/// Passes parts on until the stream ends or nobody takes them any more.
async fn receive(
    upload: UploadId,
    mut wire: Streaming<WriteContentRequest>,
    parts: mpsc::Sender<EarlyPart>,
) -> tonic::Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            () = parts.closed() => return Ok(()),
            next = timeout(STALL_MAX, wire.next()) => next,
        };
        let next =
            next.map_err(|_| FileError::Stalled { upload, seconds: STALL_MAX.as_secs() }).or_status()?;
        let Some(message) = next.transpose()? else { return Ok(()) };
        let part = match message.part {
            Some(write_content_request::Part::Chunk(chunk)) if chunk.data.len() <= INLINE_BYTES_MAX => {
                let offset = u64::try_from(chunk.offset_bytes).unwrap_or(u64::MAX);
                EarlyPart::Chunk { offset, data: chunk.data }
            }
            Some(write_content_request::Part::Digest(digest)) => {
                let mut fields = Fields::of(digest);
                let digest = fields.parse::<Digest>("digest.digest", |digest| &digest.digest);
                EarlyPart::Digest(fields.finish(digest)?)
            }
            Some(write_content_request::Part::Chunk(_)) => {
                return Err(violation("chunk.data", "may have at most 1 MiB"));
            }
            _ => return Err(violation("part", "must be a chunk or the digest after the header")),
        };
        drop(parts.send(part).await);
    }
}
