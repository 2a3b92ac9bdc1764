//! What the registry is told of a file that is about to be registered.

use lockstep_model::{
    Revision,
    record::{FileRecord, FileState},
};

use super::{Ask, Registered};
use crate::domain::intent::Staged;

impl Staged {
    /// The same at the revision of its commit.
    pub(super) fn at(&self, revision: Revision, traceparent: &str) -> Self {
        let mut file = self.clone();
        file.wanted.revision = revision;
        traceparent.clone_into(&mut file.wanted.traceparent);
        file
    }

    /// As its caller is answered.
    pub(super) fn registered(self, revision: Revision, ask: &Ask) -> Registered {
        Registered { path: self.wanted.path.clone(), revision, record: self.record(ask) }
    }

    /// Its record.
    pub(super) fn record(&self, ask: &Ask) -> FileRecord {
        FileRecord {
            file_id: self.wanted.file_id,
            digest: self.wanted.digest,
            md5: self.wanted.md5,
            size_bytes: self.wanted.size_bytes,
            registered_time: self.wanted.registered_time,
            origin: self.wanted.origin.clone(),
            state: FileState::Active,
            placement: self.wanted.placement,
            registered_by: ask.label(),
            instead_of: self.instead_of.clone(),
            moved_to: None,
            deleted_by: None,
            registered_revision: None,
        }
    }
}
