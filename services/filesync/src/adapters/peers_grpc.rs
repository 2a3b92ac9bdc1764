//! Peers over gRPC: small questions on one connection, content on connections of its own.

use std::collections::BTreeSet;

use lockstep_chassis::{Channel, Channels, Lane, status};
use lockstep_model::{Digest, Fault as _, Identity, Reason, UploadId};
use lockstep_proto::filesync::v1::{
    ContentChunk, ContentRange, LocateContentRequest, ReadContentRequest, ReadContentResponse,
    WriteContentDigest, WriteContentHeader, WriteContentRequest,
    content_service_client::ContentServiceClient, read_content_response, write_content_request,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, once, wrappers::ReceiverStream};
use tonic::Streaming;

use crate::ports::{EarlyPart, Part, Parts, Peer, PeerError, Peers, Range};

/// A chunk of 1 MiB with its frame, and some room.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The filesync of other servers.
#[derive(Clone)]
pub struct GrpcPeers {
    channels: Channels,
}

impl GrpcPeers {
    /// Over these channels.
    pub fn new(channels: Channels) -> Self {
        Self { channels }
    }

    fn client(&self, peer: &Peer, lane: Lane) -> ContentServiceClient<Channel> {
        let identity = Identity::Server { server_id: peer.server.clone(), service: "filesync" };
        ContentServiceClient::new(self.channels.to(&peer.uri, identity, lane))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn failed(peer: &Peer, status: &tonic::Status) -> PeerError {
    let failure = status::read(status);
    PeerError { server: peer.server.clone(), reason: failure.reason(), message: failure.to_string() }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn malformed(peer: &Peer, what: &str) -> PeerError {
    PeerError { server: peer.server.clone(), reason: Reason::Internal, message: format!("sent {what}") }
}

impl Peers for GrpcPeers {
    async fn locate(&self, peer: &Peer, digests: Vec<Digest>) -> Result<BTreeSet<Digest>, PeerError> {
        let request = LocateContentRequest { digests: digests.iter().map(Digest::to_string).collect() };
        let answer = self.client(peer, Lane::Control).locate_content(request).await;
        let held = answer.map_err(|status| failed(peer, &status))?.into_inner().held_digests;
        held.iter()
            .map(|text| text.parse().map_err(|_| malformed(peer, "something that is no digest")))
            .collect()
    }

    async fn read(&self, peer: &Peer, ranges: Vec<Range>) -> Result<impl Parts, PeerError> {
        let large = ranges.len() == 1;
        let range = |range: Range| ContentRange {
            digest: range.digest.to_string(),
            offset_bytes: signed(range.offset),
            end_bytes: signed(range.end),
        };
        let request = ReadContentRequest { ranges: ranges.into_iter().map(range).collect() };
        let lane = if large { Lane::Bulk(1) } else { Lane::Bulk(0) };
        let stream =
            self.client(peer, lane).read_content(request).await.map_err(|status| failed(peer, &status))?;
        Ok(GrpcParts { peer: peer.clone(), stream: stream.into_inner() })
    }

    async fn stage(
        &self,
        peer: &Peer,
        upload: UploadId,
        size_bytes: u64,
        parts: mpsc::Receiver<EarlyPart>,
    ) -> Result<(), PeerError> {
        let header = WriteContentHeader { upload_id: upload.to_string(), size_bytes: signed(size_bytes) };
        let parts = ReceiverStream::new(parts).map(|part| match part {
            EarlyPart::Chunk { offset, data } => {
                write_content_request::Part::Chunk(ContentChunk { offset_bytes: signed(offset), data })
            }
            EarlyPart::Digest(digest) => {
                write_content_request::Part::Digest(WriteContentDigest { digest: digest.to_string() })
            }
        });
        let all = once(write_content_request::Part::Header(header)).chain(parts);
        let all = all.map(|part| WriteContentRequest { part: Some(part) });
        self.client(peer, Lane::Bulk(2)).write_content(all).await.map_err(|status| failed(peer, &status))?;
        Ok(())
    }
}

struct GrpcParts {
    peer: Peer,
    stream: Streaming<ReadContentResponse>,
}

impl Parts for GrpcParts {
    async fn next(&mut self) -> Result<Option<Part>, PeerError> {
        let message = self.stream.message().await.map_err(|status| failed(&self.peer, &status))?;
        let Some(message) = message else { return Ok(None) };
        let digest =
            |text: &str| text.parse().map_err(|_| malformed(&self.peer, "something that is no digest"));
        let part = match message.part.ok_or_else(|| malformed(&self.peer, "an empty message"))? {
            read_content_response::Part::Header(header) => Part::Header {
                digest: digest(&header.digest)?,
                size_bytes: u64::try_from(header.size_bytes).unwrap_or(u64::MAX),
            },
            read_content_response::Part::GroupHashes(hashes) => Part::Hashes(hashes.hashes),
            read_content_response::Part::Chunk(chunk) => Part::Chunk {
                offset: u64::try_from(chunk.offset_bytes).unwrap_or(u64::MAX),
                data: chunk.data,
            },
            read_content_response::Part::Failure(refused) => {
                let failure = refused.failure.unwrap_or_default();
                let reason = Reason::parse(&failure.reason).unwrap_or(Reason::Internal);
                let error = PeerError { server: self.peer.server.clone(), reason, message: failure.message };
                Part::Refused { digest: digest(&refused.digest)?, error }
            }
        };
        Ok(Some(part))
    }
}
