//! The life of an update.
//!
//! ```text
//! offer ──start──▶ DOWNLOADING ──all bytes there──▶ VERIFYING ──one registration──▶ PUBLISHED
//!                    ▲    │  ▲                          │  │                             │
//!                 restore │  └── bytes were lost ───────┘  │                          delete
//!                    │    ▼                                ▼                             ▼
//!                    └─ FAILED ◀──── refused for good ─────┘        cancel ────────▶ DELETING ──▶ no record
//! ```
//!
//! An import begins and ends as PUBLISHED. What passes by itself changes no state: it is told in the note.

use lockstep_model::{
    Identity, Reason, UploadId,
    firmware::{FirmwareRecord, FirmwareState},
};

/// The state as the contract names it.
pub const fn word(state: FirmwareState) -> &'static str {
    match state {
        FirmwareState::Downloading => "DOWNLOADING",
        FirmwareState::Verifying => "VERIFYING",
        FirmwareState::Published => "PUBLISHED",
        FirmwareState::Failed => "FAILED",
        FirmwareState::Deleting => "DELETING",
    }
}

/// Whether some instance has to work on it.
pub const fn is_working(state: FirmwareState) -> bool {
    matches!(state, FirmwareState::Downloading | FirmwareState::Verifying | FirmwareState::Deleting)
}

/// Whether its files were never registered, as far as the record knows.
pub fn is_unregistered(record: &FirmwareRecord) -> bool {
    record.files.iter().all(|file| file.file_id.is_none())
}

/// Whether a failure of this reason may end by itself: a server or vendor that is away, a disk that is full, a clock that is
/// wrong. What it tells stays the same however often it is asked ends the download.
pub const fn passes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::VendorUnreachable
            | Reason::PeerUnreachable
            | Reason::RegistryUnavailable
            | Reason::Draining
            | Reason::Overloaded
            | Reason::DiskFull
            | Reason::StoreReadOnly
            | Reason::StoreOffline
            | Reason::DiskRefused
            | Reason::DeadlineExpired
            | Reason::DeadlineTooShort
            | Reason::OffsetMismatch
            | Reason::UploadNotFound
            | Reason::NoHolder
            | Reason::ClockFenced
            | Reason::RestartRequired
    )
}

/// The id of the request that registers the files of an update. It follows from their uploads, so that whoever repeats it
/// repeats that registration, and a later life of the same update has another one.
pub fn registration(uploads: impl IntoIterator<Item = UploadId>) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in uploads {
        hasher.update(id.to_string().as_bytes());
    }
    format!("firmware-{}", hasher.finalize().to_hex())
}

/// [`registration`] of a record.
pub fn registration_of(record: &FirmwareRecord) -> String {
    registration(record.files.iter().map(|file| file.upload_id))
}

/// What a file record names as its request, if that registration made it.
pub fn registered_by(record: &FirmwareRecord) -> String {
    format!("{} {}", Identity::Service("catalog"), registration_of(record))
}
