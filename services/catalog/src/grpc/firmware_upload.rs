//! An archive on its way in: its header, and its bytes in order.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use lockstep_chassis::{Fields, status};
use lockstep_model::{Reason, RequestId};
use lockstep_proto::catalog::v1::{FirmwareHeader, WriteFirmwareRequest, write_firmware_request::Part};
use tokio::time::timeout;
use tonic::Streaming;

use crate::{
    adapters::archive_zip::ZipReader, domain::error::Refusal, engine::Import, grpc::wire,
    ports::ArchiveReader,
};

/// How long a caller may send nothing.
const STALL_MAX: Duration = Duration::from_secs(30);
/// The largest archive: 64 GiB.
const ARCHIVE_BYTES_MAX: i64 = 64 << 30;
/// The largest chunk: 1 MiB.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// The longest model and version, in characters.
const MODEL_MAX: usize = 128;
const VERSION_MAX: usize = 64;

/// Reads the header, which comes first.
pub(super) async fn begin(parts: &mut Streaming<WriteFirmwareRequest>) -> tonic::Result<(RequestId, Import)> {
    let header = match next(parts).await {
        Ok(Some(Part::Header(header))) => header,
        Ok(_) => FirmwareHeader::default(),
        Err(refusal) => return Err(status::of(&refusal)),
    };
    let mut fields = Fields::of(header);
    let FirmwareHeader { model, version, server_id, target_path, protocol, size_bytes, .. } =
        fields.request().clone();
    for (name, text, limit) in [("model", &model, MODEL_MAX), ("version", &version, VERSION_MAX)] {
        let is_good = (1..=limit).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        let rule = format!("has 1 to {limit} characters, none of them a control character");
        fields.check(format!("header.{name}"), |_| is_good, rule);
    }
    let is_bounded = (1..=ARCHIVE_BYTES_MAX).contains(&size_bytes);
    fields.check("header.size_bytes", |_| is_bounded, "must be 1 byte to 64 GiB");
    let wish = wire::wish_from_wire(&mut fields, "header.", &server_id, &target_path, protocol);
    let request_id: Option<RequestId> = fields.parse("header.request_id", |header| &header.request_id);
    let (wish, request_id) = fields.finish(wish.zip(request_id))?;
    let size_bytes = u64::try_from(size_bytes).unwrap_or(0);
    Ok((request_id, Import { model, version, wish, size_bytes }))
}

/// The archive whose bytes are still to come.
pub(super) fn archive(
    parts: Streaming<WriteFirmwareRequest>,
    size_bytes: u64,
) -> impl ArchiveReader<Broken = Refusal> + use<> {
    ZipReader::new(Box::pin(bytes(parts, size_bytes)))
}

/// The bytes in order; an error for what is not: a gap, more or less than was announced, silence.
fn bytes(
    parts: Streaming<WriteFirmwareRequest>,
    size_bytes: u64,
) -> impl Stream<Item = Result<Bytes, Refusal>> + Send + use<> {
    futures::stream::try_unfold((parts, 0_u64), move |(mut parts, at)| async move {
        let chunk = match next(&mut parts).await? {
            Some(Part::Chunk(chunk)) => chunk,
            None if at == size_bytes => return Ok(None),
            None => {
                return Err(Refusal::field(
                    "header.size_bytes",
                    format!("is {size_bytes}, and the archive ends after {at} bytes"),
                ));
            }
            Some(Part::Header(_)) => return Err(Refusal::field("part", "must be a chunk after the header")),
        };
        if u64::try_from(chunk.offset_bytes).ok() != Some(at) {
            return Err(Refusal::field(
                "chunk.offset_bytes",
                format!("must be {at}, where the chunk before ended"),
            ));
        }
        if chunk.data.len() > CHUNK_BYTES_MAX {
            return Err(Refusal::field("chunk.data", "may have at most 1 MiB"));
        }
        let at = at + chunk.data.len() as u64;
        if at > size_bytes {
            return Err(Refusal::field(
                "chunk.data",
                format!("goes beyond the {size_bytes} bytes that were announced"),
            ));
        }
        Ok(Some((chunk.data, (parts, at))))
    })
}

async fn next(parts: &mut Streaming<WriteFirmwareRequest>) -> Result<Option<Part>, Refusal> {
    let Ok(next) = timeout(STALL_MAX, parts.next()).await else {
        let message = format!("nothing of the archive came for {} s", STALL_MAX.as_secs());
        return Err(Refusal::new(Reason::DeadlineExpired, message));
    };
    let broken = |status| {
        let failure = status::read(&status);
        Refusal::of(&failure, failure.to_string())
    };
    match next.transpose().map_err(broken)? {
        None => Ok(None),
        Some(message) => message.part.map(Some).ok_or_else(|| Refusal::field("part", "is required")),
    }
}
