//! `ContentService`: content between servers.

use lockstep_chassis::{Failure, Fields, watch::BoxStream};
use lockstep_model::Digest;
use lockstep_proto::filesync::v1::{
    ContentChunk, ContentFailure, ContentHeader, GroupHashes, LocateContentRequest, LocateContentResponse,
    ReadContentRequest, ReadContentResponse, content_service_server::ContentService,
    read_content_response::Part,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response};

use super::wire::signed;
use crate::{
    domain::tree::GROUP_BYTES,
    engine::{Answer, CONTENT_RANGES_MAX, Engine},
    ports::{Ports, Range},
};

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
}
