//! What a refusal carries: its stable reason, its figures, and when to try again.

use std::time::Duration;

use lockstep_model::{Fault, Metadata, Reason, Violation};

use super::FileError;

/// A fence is lifted some ten seconds after the clock is right again.
const FENCED_RETRY: Duration = Duration::from_secs(5);

impl Fault for FileError {
    fn reason(&self) -> Reason {
        match self {
            Self::NotFound { .. } | Self::NothingBelow { .. } => Reason::FileNotFound,
            Self::UploadNotFound { .. } => Reason::UploadNotFound,
            Self::Exists { .. } => Reason::FileExists,
            Self::PathConflict { .. } => Reason::PathConflict,
            Self::LooseFile { .. } => Reason::LooseFileExists,
            Self::NothingThere { .. } | Self::AsideNotFound { .. } => Reason::ContentNotFound,
            Self::NotRegular { .. } => Reason::NotRegular,
            Self::Mixed => Reason::FieldViolation,
            Self::RevisionChanged { .. } | Self::DirectoryChanged { .. } => Reason::RevisionChanged,
            Self::RequestReused { .. } => Reason::RequestIdReused,
            Self::DigestMismatch { .. }
            | Self::UploadChanged { .. }
            | Self::StagingChanged { .. }
            | Self::NotTheContent { .. } => Reason::ContentDigestMismatch,
            Self::OffsetMismatch { .. } | Self::Incomplete { .. } => Reason::OffsetMismatch,
            Self::Stalled { .. } => Reason::DeadlineExpired,
            Self::TooLarge { .. } | Self::DirectoryTooLarge { .. } => Reason::SizeLimitExceeded,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::NotEligible { .. } => Reason::ServerNotEligible,
            Self::Barred { obstacle, .. } => obstacle.reason,
            Self::Fenced { fence, .. } => fence.reason,
            Self::Registry(error) => error.reason(),
            Self::Store { error, .. } => error.reason(),
            Self::Index { .. } => Reason::Internal,
            Self::Stuck { obstacle, .. } => obstacle.reason,
            Self::Peer(error) => error.reason(),
            Self::Draining { .. } => Reason::Draining,
            Self::ContentNotFound { .. } => Reason::ContentNotFound,
            Self::ContentCorrupt { .. } => Reason::StoredContentCorrupt,
            Self::InvalidPath { .. } => Reason::PathInvalid,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::NotFound { path } | Self::NothingBelow { path } => vec![("path", path.to_string())],
            Self::UploadNotFound { upload, server } | Self::UploadChanged { upload, server } => {
                vec![("upload_id", upload.to_string()), ("server_id", server.to_string())]
            }
            Self::Exists { path, revision, digest, origin } => vec![
                ("path", path.to_string()),
                ("revision", revision.to_string()),
                ("digest", digest.to_string()),
                ("origin_server_id", origin.to_string()),
            ],
            Self::PathConflict { path, other } => {
                vec![("path", path.to_string()), ("other_path", other.clone())]
            }
            Self::LooseFile { path, server }
            | Self::NothingThere { path, server }
            | Self::StagingChanged { path, server } => {
                vec![("path", path.to_string()), ("server_id", server.to_string())]
            }
            Self::NotRegular { path, server, what } => vec![
                ("path", path.to_string()),
                ("server_id", server.to_string()),
                ("found", (*what).to_owned()),
            ],
            Self::Mixed => Vec::new(),
            Self::AsideNotFound { id, server } => {
                vec![("aside_id", id.clone()), ("server_id", server.to_string())]
            }
            Self::RevisionChanged { path, expected, actual, digest, origin } => vec![
                ("path", path.to_string()),
                ("expected_revision", expected.to_string()),
                ("actual_revision", actual.to_string()),
                ("digest", digest.to_string()),
                ("origin_server_id", origin.to_string()),
            ],
            Self::DirectoryChanged { path, expected_count, expected, actual_count, actual } => vec![
                ("path", path.to_string()),
                ("expected_file_count", expected_count.to_string()),
                ("expected_revision", expected.to_string()),
                ("actual_file_count", actual_count.to_string()),
                ("actual_revision", actual.to_string()),
            ],
            Self::DirectoryTooLarge { path, file_count, limit } => vec![
                ("path", path.to_string()),
                ("limit", format!("{limit} files")),
                ("actual", format!("{file_count} files")),
            ],
            Self::RequestReused { request_id } => vec![("request_id", request_id.clone())],
            Self::DigestMismatch { path, algorithm, declared, actual } => vec![
                ("path", path.to_string()),
                ("algorithm", (*algorithm).to_owned()),
                ("declared", declared.clone()),
                ("actual", actual.clone()),
            ],
            Self::NotTheContent { upload, declared, actual } => vec![
                ("upload_id", upload.to_string()),
                ("declared", declared.to_string()),
                ("actual", actual.to_string()),
            ],
            Self::OffsetMismatch { upload, expected, actual } => vec![
                ("upload_id", upload.to_string()),
                ("expected_offset", expected.to_string()),
                ("actual_offset", actual.to_string()),
            ],
            Self::Incomplete { upload, actual, announced } => vec![
                ("upload_id", upload.to_string()),
                ("expected_offset", actual.to_string()),
                ("size_bytes", announced.to_string()),
            ],
            Self::Stalled { upload, seconds } => {
                vec![("upload_id", upload.to_string()), ("seconds", seconds.to_string())]
            }
            Self::TooLarge { limit, actual, .. } => {
                vec![("limit_bytes", limit.to_string()), ("actual_bytes", actual.to_string())]
            }
            Self::Overloaded { server, limit, .. } => {
                vec![("server_id", server.to_string()), ("limit", limit.to_string())]
            }
            Self::NotEligible { server, why } => {
                vec![("server_id", server.to_string()), ("why", why.to_string())]
            }
            Self::Fenced { server, fence } => {
                let seconds = |value: f64| format!("{value:.3}");
                let mut metadata = vec![("server_id", server.to_string())];
                let offset = fence.offset.map(|offset| seconds(offset.as_secs_f64()));
                let uncertainty = fence.uncertainty.map(|uncertainty| seconds(uncertainty.as_secs_f64()));
                metadata.extend(offset.map(|offset| ("offset_seconds", offset)));
                metadata.extend(uncertainty.map(|uncertainty| ("uncertainty_seconds", uncertainty)));
                metadata.extend(fence.limit.map(|limit| ("limit_seconds", limit.as_secs_f64().to_string())));
                metadata.push(("since_seconds", fence.age.as_secs().to_string()));
                metadata
            }
            Self::Registry(error) => error.metadata(),
            Self::Store { server, error } => {
                let mut metadata = error.metadata();
                metadata.push(("server_id", server.to_string()));
                metadata
            }
            Self::Index { server, cause } => {
                vec![("server_id", server.to_string()), ("cause", cause.clone())]
            }
            Self::Stuck { path, server, .. } => {
                vec![("path", path.to_string()), ("server_id", server.to_string())]
            }
            Self::Peer(error) => error.metadata(),
            Self::Barred { server, .. } | Self::Draining { server } => {
                vec![("server_id", server.to_string())]
            }
            Self::ContentNotFound { server, digest } | Self::ContentCorrupt { server, digest } => {
                vec![("server_id", server.to_string()), ("digest", digest.to_string())]
            }
            Self::InvalidPath { text, rule } => vec![("path", text.clone()), ("rule", rule.to_string())],
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { .. } => Some(Duration::from_secs(1)),
            Self::Fenced { fence, .. } if fence.reason == Reason::ClockFenced => Some(FENCED_RETRY),
            Self::Registry(error) => error.retry_after(),
            Self::Store { error, .. } => error.retry_after(),
            _ => None,
        }
    }

    fn violations(&self) -> Vec<Violation> {
        let mixed = || Violation { field: "files".to_owned(), description: self.to_string() };
        if matches!(self, Self::Mixed) { vec![mixed()] } else { Vec::new() }
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        match self {
            Self::NotFound { path } | Self::NothingBelow { path } => Some(("file", path.to_string())),
            Self::NothingThere { path, .. } | Self::Exists { path, .. } | Self::LooseFile { path, .. } => {
                Some(("file", path.to_string()))
            }
            Self::PathConflict { other, .. } => Some(("file", other.clone())),
            Self::AsideNotFound { id, .. } => Some(("aside", id.clone())),
            Self::UploadNotFound { upload, .. } => Some(("upload", upload.to_string())),
            Self::ContentNotFound { digest, .. } => Some(("content", digest.to_string())),
            _ => None,
        }
    }
}
