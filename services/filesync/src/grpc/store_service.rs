//! `StoreService`: what is on the disk of this server and not in the registry, and what differs from it.

use lockstep_chassis::{Fields, OrStatus as _, caller, paging};
use lockstep_model::{FilePath, Revision};
use lockstep_proto::filesync::v1::{
    AsideFile, CheckFilesRequest, CheckFilesResponse, DeleteAsideFileRequest, DeleteAsideFileResponse,
    ListAsideFilesRequest, ListAsideFilesResponse, ListLooseFilesRequest, ListLooseFilesResponse, LooseFile,
    RestoreAsideFileRequest, RestoreAsideFileResponse, RestoreFileRequest, RestoreFileResponse,
    UpdateFileVersionRequest, UpdateFileVersionResponse, check_files_request,
    store_service_server::StoreService,
};
use tonic::{Request, Response};

use super::wire::{obstacle_into_wire, signed};
use crate::{
    domain,
    engine::{Ask, Depth, Engine, Loose},
    ports::Ports,
};

/// The service on top of the engine.
pub struct Stores<P: Ports> {
    engine: Engine<P>,
}

impl<P: Ports> Stores<P> {
    /// Serves `engine`.
    pub fn new(engine: Engine<P>) -> Self {
        Self { engine }
    }
}

fn loose_into_wire(loose: Loose) -> LooseFile {
    let (stat, obstacle) = match loose.found {
        Ok(stat) => (Some(stat), None),
        Err(obstacle) => (None, Some(obstacle)),
    };
    LooseFile {
        path: loose.path,
        size_bytes: stat.map_or(0, |stat| signed(stat.size_bytes)),
        modify_time: stat.map(|stat| prost_types::Timestamp {
            seconds: stat.modified_ns.div_euclid(1_000_000_000),
            nanos: i32::try_from(stat.modified_ns.rem_euclid(1_000_000_000)).unwrap_or(0),
        }),
        failure: obstacle.as_ref().map(obstacle_into_wire),
    }
}

fn aside_into_wire(file: domain::aside::AsideFile) -> AsideFile {
    let note = file.note.as_ref();
    let text = |digest: &lockstep_model::Digest| digest.to_string();
    AsideFile {
        aside_id: file.id.clone(),
        path: note.map_or_else(String::new, |note| note.path.to_string()),
        failure: note.map(|note| obstacle_into_wire(&note.why)),
        aside_time: note.map(|note| prost_types::Timestamp {
            seconds: note.time.as_second(),
            nanos: note.time.subsec_nanosecond(),
        }),
        size_bytes: signed(file.size_bytes),
        digest: note.and_then(|note| note.digest.as_ref()).map(text).unwrap_or_default(),
    }
}

/// The revision that a caller saw.
fn seen<T>(fields: &mut Fields<T>, revision: i64) -> Option<Revision> {
    let revision = u64::try_from(revision).ok().filter(|revision| *revision > 0);
    if revision.is_none() {
        let rule = "must name the revision that you saw; get the file to see it";
        fields.violation("expected_revision", rule);
    }
    revision.map(Revision)
}

#[tonic::async_trait]
impl<P: Ports> StoreService for Stores<P> {
    async fn list_loose_files(
        &self,
        request: Request<ListLooseFilesRequest>,
    ) -> tonic::Result<Response<ListLooseFilesResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = paging::page_size(fields.request().page_size);
        let limit = fields.take(size);
        let (prefix, token) = (fields.request().path_prefix.clone(), fields.request().page_token.clone());
        let limit = fields.finish(limit)?;
        let binding = ["ListLooseFiles", prefix.as_str()];
        let after = match token.is_empty() {
            true => String::new(),
            false => paging::PageToken::open(&token, &binding).or_status()?,
        };

        let (loose, next) = self.engine.list_loose(&prefix, &after, limit).await.or_status()?;
        let next_page_token = next.map(|next| paging::PageToken::seal(&next, &binding)).unwrap_or_default();
        let loose_files = loose.into_iter().map(loose_into_wire).collect();
        Ok(Response::new(ListLooseFilesResponse { loose_files, next_page_token }))
    }

    async fn list_aside_files(
        &self,
        request: Request<ListAsideFilesRequest>,
    ) -> tonic::Result<Response<ListAsideFilesResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = paging::page_size(fields.request().page_size);
        let limit = fields.take(size);
        let token = fields.request().page_token.clone();
        let limit = fields.finish(limit)?;
        let after = match token.is_empty() {
            true => String::new(),
            false => paging::PageToken::open(&token, &["ListAsideFiles"]).or_status()?,
        };

        let mut files = self.engine.list_aside().await.or_status()?;
        files.retain(|file| file.id > after);
        let more = files.len() > limit;
        files.truncate(limit);
        let last = files.last().filter(|_| more).map(|file| file.id.clone());
        let next_page_token =
            last.map(|last| paging::PageToken::seal(&last, &["ListAsideFiles"])).unwrap_or_default();
        let aside_files = files.into_iter().map(aside_into_wire).collect();
        Ok(Response::new(ListAsideFilesResponse { aside_files, next_page_token }))
    }

    async fn restore_aside_file(
        &self,
        request: Request<RestoreAsideFileRequest>,
    ) -> tonic::Result<Response<RestoreAsideFileResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        fields.check("aside_id", |r| !r.aside_id.is_empty(), "is required");
        let path = match fields.request().path.is_empty() {
            true => Some(None),
            false => fields.parse::<FilePath>("path", |r| &r.path).map(Some),
        };
        let id = fields.request().aside_id.clone();
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let (path, request_id) = fields.finish(path.zip(request_id))?;

        let ask = Ask::new(caller, request_id);
        let path = self.engine.restore_aside(ask, id, path).await.or_status()?;
        Ok(Response::new(RestoreAsideFileResponse { path: path.to_string() }))
    }

    async fn delete_aside_file(
        &self,
        request: Request<DeleteAsideFileRequest>,
    ) -> tonic::Result<Response<DeleteAsideFileResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        fields.check("aside_id", |r| !r.aside_id.is_empty(), "is required");
        let id = fields.request().aside_id.clone();
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let request_id = fields.finish(request_id)?;

        let ask = Ask::new(caller, request_id);
        self.engine.delete_aside(ask, id).await.or_status()?;
        Ok(Response::new(DeleteAsideFileResponse {}))
    }

    async fn check_files(
        &self,
        request: Request<CheckFilesRequest>,
    ) -> tonic::Result<Response<CheckFilesResponse>> {
        let request = request.into_inner();
        let depth = match request.depth() {
            check_files_request::Depth::Content => Depth::Content,
            _ => Depth::Times,
        };

        let checked = self.engine.check_files(request.path_prefix, depth).await.or_status()?;
        Ok(Response::new(CheckFilesResponse {
            compared_count: signed(checked.compared),
            drifted_count: signed(checked.drifted),
            lost_count: signed(checked.lost),
            corrupt_count: signed(checked.corrupt),
            recovered_count: signed(checked.recovered),
        }))
    }

    async fn update_file_version(
        &self,
        request: Request<UpdateFileVersionRequest>,
    ) -> tonic::Result<Response<UpdateFileVersionResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let revision = fields.request().expected_revision;
        let expected = seen(&mut fields, revision);
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let ((path, expected), request_id) = fields.finish(path.zip(expected).zip(request_id))?;

        let ask = Ask::new(caller, request_id);
        let file = self.engine.update_version(ask, path, expected).await.or_status()?;
        Ok(Response::new(UpdateFileVersionResponse { file: Some(file.into_wire()) }))
    }

    async fn restore_file(
        &self,
        request: Request<RestoreFileRequest>,
    ) -> tonic::Result<Response<RestoreFileResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let revision = fields.request().expected_revision;
        let expected = seen(&mut fields, revision);
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let ((path, expected), request_id) = fields.finish(path.zip(expected).zip(request_id))?;

        let ask = Ask::new(caller, request_id);
        let file = self.engine.restore(ask, path, expected).await.or_status()?;
        Ok(Response::new(RestoreFileResponse { file: Some(file.into_wire()) }))
    }
}
