//! Explanations for the contract.

use lockstep_proto::gateway::v1::{self as gateway, copy_explanation, explanation};

use super::{cell_into, duration, number};
use crate::domain::explain::{Copy, Explanation, Loose, Record, Registered};

impl Explanation {
    /// For the contract.
    pub fn into_wire(self) -> gateway::Explanation {
        use explanation::State;
        let (state, record, moved_path) = match self.registered {
            Registered::Live(record) => (State::Registered, Some(record), String::new()),
            Registered::Deleted(record) => (State::Deleted, Some(record), String::new()),
            Registered::Moved(record, to) => (State::Moved, Some(record), to),
            Registered::Never => (State::NeverRegistered, None, String::new()),
        };
        let mut wire = gateway::Explanation {
            path: self.path,
            state: state.into(),
            moved_path,
            summary: self.summary,
            advice: self.advice,
            copies: self.copies.into_iter().map(copy_into).collect(),
            ..gateway::Explanation::default()
        };
        if let Some(Record { revision, size_bytes, origin, digest, registered, changed_by, .. }) = record {
            wire.revision = number(revision.0);
            wire.size_bytes = number(size_bytes);
            wire.origin_server_id = origin.into();
            wire.digest = digest;
            wire.register_time = registered.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
            wire.changed_by = changed_by;
        }
        wire
    }
}

fn copy_into(copy: Copy) -> gateway::CopyExplanation {
    let loose = match copy.loose {
        None => copy_explanation::Loose::Unspecified,
        Some(Loose::Absent) => copy_explanation::Loose::Absent,
        Some(Loose::Present) => copy_explanation::Loose::Present,
        Some(Loose::Unknown(_)) => copy_explanation::Loose::Unknown,
    };
    let server_id: String = copy.server.into();
    gateway::CopyExplanation {
        cell: copy.cell.map(|cell| cell_into(server_id.clone(), cell)),
        message: copy.message,
        age: copy.age.map(duration),
        next: copy.next,
        next_delay: copy.next_delay.map(duration),
        advice: copy.advice,
        waits_behind_paths: copy.waits_behind,
        loose: loose.into(),
        server_id,
    }
}
