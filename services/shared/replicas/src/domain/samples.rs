//! What tests begin with.

use std::{collections::BTreeMap, time::Duration};

use lockstep_model::{
    Digest, Epoch, Position, Revision, ServerId,
    record::{Placement, ServerRecord},
};

use crate::domain::{
    Moment,
    records::{Change, Registered},
    report::{Batch, Summary},
};

/// A position in the one history of these tests.
pub fn position(revision: u64) -> Position {
    let epoch = Epoch("0e37df36-f698-11e6-8dd4-cb9ced3df976".parse().expect("a UUID"));
    match revision {
        0 => Position::start(epoch),
        _ => Position { epoch, revision: Revision(revision), chain: Digest::of(&revision.to_be_bytes()) },
    }
}

/// A server id.
pub fn server_id(id: &str) -> ServerId {
    id.parse().expect("a server id")
}

/// An announcement.
pub fn announcement(mode: &str, version: &str) -> ServerRecord {
    ServerRecord {
        mode: mode.parse().expect("a mode"),
        version: version.parse().expect("a version"),
        filesync: "https://host:1".to_owned(),
        timeguard: String::new(),
        store_id: serde_json::from_str("\"0e37df36-f698-11e6-8dd4-cb9ced3df976\"").expect("an id"),
    }
}

/// A registration.
pub fn registered(path: &str) -> Change {
    file_of(path, 1, "s1", Placement::All)
}

/// A registration in full.
pub fn file_of(path: &str, size_bytes: u64, origin: &str, placement: Placement) -> Change {
    let file_id = "0e37df36-f698-11e6-8dd4-cb9ced3df976".parse().expect("a UUID");
    Change::File(
        path.to_owned(),
        Some(Registered { size_bytes, origin: server_id(origin), placement, file_id }),
    )
}

/// A report at a position, with nothing else.
pub fn report_at(revision: u64) -> Summary {
    Summary {
        position: position(revision),
        conditions: Vec::new(),
        transfers: BTreeMap::new(),
        held_ahead: Vec::new(),
        compared_age: Some(Duration::from_secs(100)),
        hashed_age: None,
        stream_age: None,
    }
}

/// A snapshot without exceptions.
pub fn snapshot(summary: Summary) -> Batch {
    Batch { snapshot: true, exceptions: BTreeMap::new(), summary, received: Moment::ZERO }
}
