//! `FileService`: registered files.

use std::collections::BTreeSet;

use lockstep_chassis::{Fields, OrStatus as _, caller, paging};
use lockstep_model::{
    FilePath, RequestId, Revision,
    record::{FILE, file_key},
};
use lockstep_proto::filesync::v1::{
    DeleteDirectoryRequest, DeleteDirectoryResponse, DeleteFileRequest, DeleteFileResponse,
    DeleteFilesRequest, DeleteFilesResponse, GetFileRequest, GetFileResponse, ListFilesRequest,
    ListFilesResponse, MoveDirectoryRequest, MoveDirectoryResponse, MoveFileRequest, MoveFileResponse,
    RegisterFileRequest, RegisterFileResponse, RegisterFilesRequest, RegisterFilesResponse, SeenFile,
    UpdatePlacementRequest, UpdatePlacementResponse, file_service_server::FileService,
};
use lockstep_registry::{ListQuery, Registry as _};
use tonic::{Request, Response};

use super::wire::{file_into_wire, new_file_from_wire, placement_from_wire, seen_from_wire, signed};
use crate::{
    domain::error::FileError,
    engine::{Ask, Engine, Seen, decode},
    ports::Ports,
};

/// Files that one commit may register.
const FILES_MAX: usize = 1_000;
/// Inline content that one call may carry: what fits a message of 4 MiB with room for the rest.
const CONTENT_BYTES_MAX: usize = 3 << 20;

/// The service on top of the engine.
pub struct Files<P: Ports> {
    engine: Engine<P>,
}

impl<P: Ports> Files<P> {
    /// Serves `engine`.
    pub fn new(engine: Engine<P>) -> Self {
        Self { engine }
    }
}

fn ask<T>(request: &Request<T>, request_id: RequestId) -> Ask {
    Ask::new(caller(request).principal.to_string(), request_id)
}

#[tonic::async_trait]
impl<P: Ports> FileService for Files<P> {
    async fn get_file(&self, request: Request<GetFileRequest>) -> tonic::Result<Response<GetFileResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let path = fields.finish(path)?;

        let found = self.engine.registry().get(vec![file_key(&path)]).await.or_status()?.pop().flatten();
        let record = found.ok_or_else(|| FileError::NotFound { path: path.clone() }).or_status()?;
        let body = decode(&record).or_status()?;
        Ok(Response::new(GetFileResponse { file: Some(file_into_wire(&path, record.revision, &body)) }))
    }

    async fn list_files(
        &self,
        request: Request<ListFilesRequest>,
    ) -> tonic::Result<Response<ListFilesResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = paging::page_size(fields.request().page_size);
        let limit = fields.take(size);
        let (prefix, token) = (fields.request().path_prefix.clone(), fields.request().page_token.clone());
        let limit = fields.finish(limit)?;
        let after_key = match token.is_empty() {
            true => String::new(),
            false => {
                format!("{FILE}{}", paging::PageToken::open(&token, &["ListFiles", &prefix]).or_status()?)
            }
        };
        let query = ListQuery { prefix: format!("{FILE}{prefix}"), after_key, limit, tombstones: false };
        let listing = self.engine.registry().list(query).await.or_status()?;
        let mut files = Vec::with_capacity(listing.records.len());
        for record in &listing.records {
            let text = record.key[FILE.len()..].to_owned();
            let path = text.parse().map_err(|rule| FileError::InvalidPath { text, rule }).or_status()?;
            files.push(file_into_wire(&path, record.revision, &decode(record).or_status()?));
        }
        let last = files.last().filter(|_| listing.more).map(|file| file.path.clone());
        let next_page_token =
            last.map(|last| paging::PageToken::seal(&last, &["ListFiles", &prefix])).unwrap_or_default();
        Ok(Response::new(ListFilesResponse { files, next_page_token }))
    }

    async fn register_file(
        &self,
        request: Request<RegisterFileRequest>,
    ) -> tonic::Result<Response<RegisterFileResponse>> {
        let ask = |id| ask(&request, id);
        let mut fields = Fields::of(request.get_ref().clone());
        let file = fields.request().file.clone();
        let file = new_file_from_wire(&mut fields, "file", file.as_ref());
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let (file, request_id) = fields.finish(file.zip(request_id))?;

        let registered = self.engine.register(ask(request_id), vec![file]).await.or_status()?;
        let file = registered.into_iter().next().map(crate::engine::Registered::into_wire);
        Ok(Response::new(RegisterFileResponse { file }))
    }

    async fn register_files(
        &self,
        request: Request<RegisterFilesRequest>,
    ) -> tonic::Result<Response<RegisterFilesResponse>> {
        let ask = |id| ask(&request, id);
        let mut fields = Fields::of(request.get_ref().clone());
        let wire = fields.request().files.clone();
        if wire.is_empty() || wire.len() > FILES_MAX {
            fields.violation("files", format!("must have 1 to {FILES_MAX} files"));
        }
        let files: Vec<_> = wire
            .iter()
            .take(FILES_MAX)
            .enumerate()
            .filter_map(|(index, file)| {
                new_file_from_wire(&mut fields, &format!("files[{index}]"), Some(file))
            })
            .collect();
        let inline: usize = files.iter().map(|file| file.inline_bytes()).sum();
        if inline > CONTENT_BYTES_MAX {
            fields.violation("files", "may have at most 3 MiB of inline content");
        }
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let request_id = fields.finish(request_id)?;

        let registered = self.engine.register(ask(request_id), files).await.or_status()?;
        let files = registered.into_iter().map(crate::engine::Registered::into_wire).collect();
        Ok(Response::new(RegisterFilesResponse { files }))
    }

    async fn delete_file(
        &self,
        request: Request<DeleteFileRequest>,
    ) -> tonic::Result<Response<DeleteFileResponse>> {
        let ask = |id| ask(&request, id);
        let mut fields = Fields::of(request.get_ref().clone());
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let expected = fields.request().expected_revision;
        let expected = seen_from_wire(&mut fields, expected);
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let ((path, expected), request_id) = fields.finish(path.zip(expected).zip(request_id))?;

        let (files, deleted) =
            self.engine.delete(ask(request_id), vec![(path, expected)]).await.or_status()?;
        let file = files.into_iter().next().map(crate::engine::Registered::into_wire);
        Ok(Response::new(DeleteFileResponse { file, delete_revision: signed(deleted.0) }))
    }

    async fn delete_files(
        &self,
        request: Request<DeleteFilesRequest>,
    ) -> tonic::Result<Response<DeleteFilesResponse>> {
        let ask = |id| ask(&request, id);
        let mut fields = Fields::of(request.get_ref().clone());
        let files = fields.request().files.clone();
        let files = files_from_wire(&mut fields, &files);
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let (files, request_id) = fields.finish(files.zip(request_id))?;

        let (files, deleted) = self.engine.delete(ask(request_id), files).await.or_status()?;
        let files = files.into_iter().map(crate::engine::Registered::into_wire).collect();
        Ok(Response::new(DeleteFilesResponse { files, delete_revision: signed(deleted.0) }))
    }

    async fn update_placement(
        &self,
        request: Request<UpdatePlacementRequest>,
    ) -> tonic::Result<Response<UpdatePlacementResponse>> {
        let ask = |id| ask(&request, id);
        let mut fields = Fields::of(request.get_ref().clone());
        let UpdatePlacementRequest { files, placement, .. } = fields.request().clone();
        let files = files_from_wire(&mut fields, &files);
        let placement = match placement {
            Some(placement) => placement_from_wire(&mut fields, "placement", &placement),
            None => {
                fields.violation("placement", "is required");
                None
            }
        };
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let ((files, placement), request_id) = fields.finish(files.zip(placement).zip(request_id))?;

        let placed = self.engine.place(ask(request_id), files, placement).await.or_status()?;
        let files = placed.into_iter().map(crate::engine::Registered::into_wire).collect();
        Ok(Response::new(UpdatePlacementResponse { files }))
    }

    async fn move_file(
        &self,
        request: Request<MoveFileRequest>,
    ) -> tonic::Result<Response<MoveFileResponse>> {
        let ask = |id| ask(&request, id);
        let mut fields = Fields::of(request.get_ref().clone());
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let new_path = fields.parse::<FilePath>("new_path", |r| &r.new_path);
        if path.is_some() && path == new_path {
            fields.violation("new_path", "must be another path");
        }
        let expected = fields.request().expected_revision;
        let expected = seen_from_wire(&mut fields, expected);
        let request_id = fields.parse("request_id", |r| &r.request_id);
        let asked = path.zip(new_path).zip(expected).zip(request_id);
        let (((path, new_path), expected), request_id) = fields.finish(asked)?;

        let file = self.engine.move_file(ask(request_id), path, new_path, expected).await.or_status()?;
        Ok(Response::new(MoveFileResponse { file: Some(file.into_wire()) }))
    }

    async fn move_directory(
        &self,
        request: Request<MoveDirectoryRequest>,
    ) -> tonic::Result<Response<MoveDirectoryResponse>> {
        let ask = |id| ask(&request, id);
        let mut fields = Fields::of(request.get_ref().clone());
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let new_path = fields.parse::<FilePath>("new_path", |r| &r.new_path);
        if let Some((path, new_path)) = path.as_ref().zip(new_path.as_ref())
            && (path == new_path || new_path.as_str().starts_with(&format!("{path}/")))
        {
            fields.violation("new_path", "must be neither the same directory nor below it");
        }
        let asked = fields.request().clone();
        let (count, revision) = (asked.expected_file_count, asked.expected_revision);
        let change = change_from_wire(&mut fields, asked.dry_run, count, revision, &asked.request_id);
        let ((path, new_path), change) = fields.finish(path.zip(new_path).zip(change))?;

        let (summary, revision) = match change {
            None => (self.engine.survey(&path).await.or_status()?, Revision::ZERO),
            Some((seen, id)) => {
                self.engine.move_directory(ask(id), path, new_path, seen).await.or_status()?
            }
        };
        let (directory, move_revision) = (Some(summary.into_wire()), signed(revision.0));
        Ok(Response::new(MoveDirectoryResponse { directory, move_revision }))
    }

    async fn delete_directory(
        &self,
        request: Request<DeleteDirectoryRequest>,
    ) -> tonic::Result<Response<DeleteDirectoryResponse>> {
        let ask = |id| ask(&request, id);
        let mut fields = Fields::of(request.get_ref().clone());
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let asked = fields.request().clone();
        let (count, revision) = (asked.expected_file_count, asked.expected_revision);
        let change = change_from_wire(&mut fields, asked.dry_run, count, revision, &asked.request_id);
        let (path, change) = fields.finish(path.zip(change))?;

        let (summary, revision) = match change {
            None => (self.engine.survey(&path).await.or_status()?, Revision::ZERO),
            Some((seen, id)) => self.engine.delete_directory(ask(id), path, seen).await.or_status()?,
        };
        let (directory, delete_revision) = (Some(summary.into_wire()), signed(revision.0));
        Ok(Response::new(DeleteDirectoryResponse { directory, delete_revision }))
    }
}

/// The files of a request, each with the revision that the caller saw.
fn files_from_wire<T>(fields: &mut Fields<T>, files: &[SeenFile]) -> Option<Vec<(FilePath, Revision)>> {
    let count = files.len();
    if count == 0 || count > FILES_MAX {
        fields.violation("files", format!("must have 1 to {FILES_MAX} files"));
        return None;
    }
    let mut named = BTreeSet::new();
    let mut seen = Vec::with_capacity(count);
    for (index, file) in files.iter().enumerate() {
        let path = fields.parse_text::<FilePath>(format!("files[{index}].path"), &file.path);
        if path.as_ref().is_some_and(|path| !named.insert(path.clone())) {
            fields.violation(format!("files[{index}].path"), "must be named once");
        }
        let revision = u64::try_from(file.expected_revision).ok().filter(|revision| *revision > 0);
        if revision.is_none() {
            let what = "must name the revision that you saw; read it first";
            fields.violation(format!("files[{index}].expected_revision"), what);
        }
        seen.extend(path.zip(revision.map(Revision)));
    }
    (seen.len() == count).then_some(seen)
}

/// What the caller of a change of a directory saw, and the name of the request; nothing of either for a dry run.
fn change_from_wire<T>(
    fields: &mut Fields<T>,
    dry_run: bool,
    file_count: i64,
    revision: i64,
    request_id: &str,
) -> Option<Option<(Seen, RequestId)>> {
    if dry_run {
        return Some(None);
    }
    let file_count = u64::try_from(file_count).ok().filter(|count| *count > 0);
    if file_count.is_none() {
        let what = "must be the number of files that you saw; a dry run tells it";
        fields.violation("expected_file_count", what);
    }
    let latest = seen_from_wire(fields, revision);
    let request_id = fields.parse_text("request_id".to_owned(), request_id);
    let seen = Seen { file_count: file_count?, latest: latest? };
    Some(Some((seen, request_id?)))
}
