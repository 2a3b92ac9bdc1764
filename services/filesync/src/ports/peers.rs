//! Other servers.

use std::collections::BTreeSet;

use bytes::Bytes;
use lockstep_model::{Digest, Fault, Metadata, Reason, ServerId, UploadId};
use tokio::sync::mpsc;

/// A peer to fetch from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its server.
    pub server: ServerId,
    /// Where its filesync answers.
    pub uri: String,
}

/// A range of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The content.
    pub digest: Digest,
    /// Where to begin, a multiple of 1 MiB.
    pub offset: u64,
    /// Where to end, a multiple of 1 MiB; 0 for the end of the content.
    pub end: u64,
}

/// What a peer sends, in the order of the request.
#[derive(Clone, Debug)]
pub enum Part {
    /// A range begins; the size of the whole content.
    Header {
        /// The content.
        digest: Digest,
        /// The size of the whole content.
        size_bytes: u64,
    },
    /// Hashes of groups.
    Hashes(Bytes),
    /// Bytes.
    Chunk {
        /// Where they belong.
        offset: u64,
        /// At most 1 MiB.
        data: Bytes,
    },
    /// The range cannot be given.
    Refused {
        /// The content.
        digest: Digest,
        /// Why.
        error: PeerError,
    },
}

/// What is sent of a content that is still arriving.
#[derive(Clone, Debug)]
pub enum EarlyPart {
    /// Bytes, in order.
    Chunk {
        /// Where they belong.
        offset: u64,
        /// At most 1 MiB.
        data: Bytes,
    },
    /// What the whole is, said as soon as the origin has all of it: before or after the last bytes.
    Digest(Digest),
}

/// The filesync of other servers. Content goes over connections of its own.
pub trait Peers: Clone + Send + Sync + 'static {
    /// Which of these a peer holds.
    fn locate(
        &self,
        peer: &Peer,
        digests: Vec<Digest>,
    ) -> impl Future<Output = Result<BTreeSet<Digest>, PeerError>> + Send;

    /// Reads ranges; each `next` has a deadline of its own.
    fn read(
        &self,
        peer: &Peer,
        ranges: Vec<Range>,
    ) -> impl Future<Output = Result<impl Parts, PeerError>> + Send;

    /// Sends a content of so many bytes ahead of its registration; ends when the peer has all of it or does not want it.
    fn stage(
        &self,
        peer: &Peer,
        upload: UploadId,
        size_bytes: u64,
        parts: mpsc::Receiver<EarlyPart>,
    ) -> impl Future<Output = Result<(), PeerError>> + Send;
}

/// A stream of parts.
pub trait Parts: Send + 'static {
    /// The next part; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Part>, PeerError>> + Send;
}

/// A peer did not give what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("server {server}: {message}")]
pub struct PeerError {
    /// The server.
    pub server: ServerId,
    /// Why.
    pub reason: Reason,
    /// For a person.
    pub message: String,
}

impl Fault for PeerError {
    fn reason(&self) -> Reason {
        self.reason
    }

    fn metadata(&self) -> Metadata {
        vec![("server_id", self.server.to_string())]
    }
}
