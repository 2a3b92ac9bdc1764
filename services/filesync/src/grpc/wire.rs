//! Conversions between the contract and the domain, and nothing else.

use bytes::Bytes;
use lockstep_chassis::{Failure, Fields};
use lockstep_model::{
    FilePath, Position, Reason, Revision, UploadId,
    record::{FileRecord, FileState, Placement},
};
use lockstep_proto::{filesync::v1 as wire, shared::v1 as shared};
use tokio::time::Instant;

use crate::{
    domain::exception::{Obstacle, Stage},
    engine::{
        Declared, NewFile, Place, Registered, Source, Summary,
        board::{Exception, Transfer},
    },
};

/// The largest content inside a call: 1 MiB.
pub(super) const INLINE_BYTES_MAX: usize = 1 << 20;

/// Why a file may be meant for its origin only (R11).
const NOT_COPIED: [Reason; 3] = [Reason::OptionOff, Reason::ProtocolNotWebdav, Reason::TargetNotWebdav];

/// Sizes and revisions are below 2^63 by their bounds.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One wrong field.
pub(super) fn violation(field: &str, description: &str) -> tonic::Status {
    let mut fields = Fields::of(());
    fields.violation(field, description);
    match fields.finish::<()>(None) {
        Err(status) => status,
        Ok(()) => unreachable!("a violation was just noted"),
    }
}

pub(super) fn file_into_wire(path: &FilePath, revision: Revision, record: &FileRecord) -> wire::File {
    let time = record.registered_time;
    wire::File {
        path: path.to_string(),
        file_id: record.file_id.to_string(),
        revision: signed(revision.0),
        digest: record.digest.to_string(),
        md5: record.md5.to_string(),
        size_bytes: signed(record.size_bytes),
        register_time: Some(prost_types::Timestamp {
            seconds: time.as_second(),
            nanos: time.subsec_nanosecond(),
        }),
        origin_server_id: record.origin.to_string(),
        state: match record.state {
            FileState::Active => wire::file::State::Active.into(),
        },
        placement: Some(placement_into_wire(record.placement)),
    }
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

impl Registered {
    pub(super) fn into_wire(self) -> wire::File {
        file_into_wire(&self.path, self.revision, &self.record)
    }
}

pub(super) fn position_into_wire(position: Position) -> shared::Position {
    shared::Position {
        epoch: position.epoch.to_string(),
        revision: signed(position.revision.0),
        chain: position.chain.to_string(),
    }
}

pub(super) fn obstacle_into_wire(obstacle: &Obstacle) -> shared::Failure {
    Failure::of(obstacle).into_wire()
}

pub(super) fn duration_into_wire(duration: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

pub(super) fn exception_into_wire(exception: &Exception, now: Instant) -> wire::Exception {
    let state = match exception.stage {
        Stage::Pending => wire::exception::State::Pending,
        Stage::Copying => wire::exception::State::Copying,
        Stage::Failed | Stage::Drifted => wire::exception::State::Failed,
        Stage::Kept => wire::exception::State::Kept,
    };
    let wait = exception.stage.waits().then(|| exception.due.saturating_duration_since(now));
    wire::Exception {
        path: exception.missing.wanted.path.to_string(),
        revision: signed(exception.missing.wanted.revision.0),
        state: state.into(),
        failure: exception.missing.obstacle.as_ref().map(obstacle_into_wire),
        age: Some(duration_into_wire(now.saturating_duration_since(exception.since))),
        retry_delay: wait.map(duration_into_wire),
    }
}

pub(super) fn transfer_into_wire(path: &FilePath, transfer: &Transfer) -> wire::Transfer {
    wire::Transfer {
        path: path.to_string(),
        source_server_id: transfer.source.to_string(),
        copied_bytes: signed(transfer.copied_bytes),
        total_bytes: signed(transfer.total_bytes),
        bytes_per_second: signed(transfer.bytes_per_second),
        time_left: None,
    }
}

/// A file to register, found at `prefix` in the request; what is wrong with it goes to `fields`.
pub(super) fn new_file_from_wire<T>(
    fields: &mut Fields<T>,
    prefix: &str,
    file: Option<&wire::NewFile>,
) -> Option<NewFile> {
    let name = |field: &str| format!("{prefix}.{field}");
    let Some(file) = file else {
        fields.violation(prefix, "is required");
        return None;
    };
    let path = fields.parse_text(name("path"), &file.path);
    let source = match &file.source {
        Some(wire::new_file::Source::UploadId(id)) => {
            fields.parse_text::<UploadId>(name("upload_id"), id).map(Source::Upload)
        }
        Some(wire::new_file::Source::Content(content)) if content.len() > INLINE_BYTES_MAX => {
            fields.violation(name("content"), "may have at most 1 MiB; upload larger content");
            None
        }
        Some(wire::new_file::Source::Content(content)) => Some(Source::Content(Bytes::clone(content))),
        Some(wire::new_file::Source::InPlace(_)) => Some(Source::InPlace),
        None => {
            fields.violation(prefix, "upload_id, content or in_place is required");
            None
        }
    };
    let declared = declared_from_wire(fields, prefix, file.digests.as_ref());
    let place = place_from_wire(fields, prefix, file);
    if matches!(source, Some(Source::InPlace)) && place.is_some_and(|place| place != Place::Free) {
        // What lies at a registered path belongs to that file, and a number would be another path.
        fields.violation(name("in_place"), "takes neither expected_revision nor on_conflict");
    }
    let placement = match &file.placement {
        None => Some(None),
        Some(placement) => placement_from_wire(fields, &name("placement"), placement).map(Some),
    };
    let (declared, place, placement) = (declared?, place?, placement?);
    Some(NewFile { path: path?, source: source?, declared, place, placement })
}

/// Which servers should hold a file, found at `prefix` in the request.
pub(super) fn placement_from_wire<T>(
    fields: &mut Fields<T>,
    prefix: &str,
    placement: &wire::Placement,
) -> Option<Placement> {
    use wire::placement::Scope;
    match (Scope::try_from(placement.scope), Reason::parse(&placement.reason)) {
        (Ok(Scope::Unspecified | Scope::AllServers), _) if placement.reason.is_empty() => {
            Some(Placement::All)
        }
        (Ok(Scope::OriginOnly), Some(reason)) if NOT_COPIED.contains(&reason) => {
            Some(Placement::OriginOnly { reason })
        }
        (Ok(Scope::OriginOnly), _) => {
            let reasons = NOT_COPIED.map(Reason::as_str).join(", ");
            fields.violation(format!("{prefix}.reason"), format!("must be one of {reasons}"));
            None
        }
        (Ok(_), _) => {
            fields.violation(format!("{prefix}.reason"), "goes with ORIGIN_ONLY only");
            None
        }
        (Err(_), _) => {
            fields.violation(format!("{prefix}.scope"), "is a scope that this server does not know");
            None
        }
    }
}

fn place_from_wire<T>(fields: &mut Fields<T>, prefix: &str, file: &wire::NewFile) -> Option<Place> {
    let numbered = match wire::new_file::ConflictPolicy::try_from(file.on_conflict) {
        Ok(wire::new_file::ConflictPolicy::Unspecified) => false,
        Ok(wire::new_file::ConflictPolicy::Rename) => true,
        Err(_) => {
            fields.violation(format!("{prefix}.on_conflict"), "is a policy that this server does not know");
            return None;
        }
    };
    match u64::try_from(file.expected_revision) {
        Ok(0) => Some(if numbered { Place::Numbered } else { Place::Free }),
        Ok(_) if numbered => {
            fields.violation(
                format!("{prefix}.on_conflict"),
                "must not be given together with expected_revision",
            );
            None
        }
        Ok(revision) => Some(Place::Taken(Revision(revision))),
        Err(_) => {
            fields.violation(format!("{prefix}.expected_revision"), "must not be negative");
            None
        }
    }
}

/// A revision that the caller saw.
pub(super) fn seen_from_wire<T>(fields: &mut Fields<T>, revision: i64) -> Option<Revision> {
    let seen = u64::try_from(revision).ok().filter(|revision| *revision > 0).map(Revision);
    if seen.is_none() {
        let what = "must name the revision that you saw; read it first";
        fields.violation("expected_revision", what);
    }
    seen
}

impl Summary {
    pub(super) fn into_wire(self) -> wire::DirectorySummary {
        wire::DirectorySummary {
            file_count: signed(self.file_count),
            total_bytes: signed(self.total_bytes),
            latest_revision: signed(self.latest.0),
            sample_paths: self.sample.iter().map(ToString::to_string).collect(),
        }
    }
}

fn declared_from_wire<T>(
    fields: &mut Fields<T>,
    prefix: &str,
    digests: Option<&wire::Digests>,
) -> Option<Declared> {
    let Some(digests) = digests else { return Some(Declared::default()) };
    let blake3 = optional(fields, format!("{prefix}.digests.blake3"), &digests.blake3);
    let md5 = optional(fields, format!("{prefix}.digests.md5"), &digests.md5);
    let sha256 = optional(fields, format!("{prefix}.digests.sha256"), &digests.sha256);
    Some(Declared { blake3: blake3?, md5: md5?, sha256: sha256? })
}

fn optional<T, V: std::str::FromStr<Err: std::fmt::Display + 'static>>(
    fields: &mut Fields<T>,
    name: String,
    text: &str,
) -> Option<Option<V>> {
    if text.is_empty() { Some(None) } else { fields.parse_text(name, text).map(Some) }
}
