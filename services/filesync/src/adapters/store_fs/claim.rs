//! Opening a root: only the store that belongs to this server, and only one process at a time.

use std::path::Path;

use lockstep_model::{ServerId, StoreId};
use rustix::{
    fd::OwnedFd,
    fs::{FlockOperation, Mode, OFlags, flock, fstat, fsync, mkdir, mkdirat, renameat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    Dirs, OURS, TRANSFER,
    beneath::{directory, fault, file, free_bytes},
    content,
};
use crate::{domain::held::StagedName, ports::StoreError};

#[derive(Serialize, Deserialize)]
struct Marker {
    store_id: StoreId,
    /// Whose it is; markers of the first version do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_id: Option<ServerId>,
}

pub(super) fn open_root(root: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => StoreError::Offline { cause: format!("{} does not exist", root.display()) },
        other => fault(&root.display().to_string(), other),
    })
}

/// Whether the root still is what was opened as `dirs`: its marker is there and ours, and its transfer directory is the one
/// that is worked in.
pub(super) fn verify(root: &Path, dirs: &Dirs) -> Result<(), StoreError> {
    let offline = |cause: String| Err(StoreError::Offline { cause: format!("{} {cause}", root.display()) });
    let top = open_root(root)?;
    match read_marker(&top)?.map(|marker| marker.store_id) {
        None => return offline(format!("has lost its marker {OURS}/store.json; is it mounted?")),
        Some(found) if found != dirs.store => {
            return offline(format!("is store {found} now, this server has {}", dirs.store));
        }
        Some(_) => {}
    }
    let identity = |fd: &OwnedFd| fstat(fd).map(|found| (found.st_dev, found.st_ino));
    let now = directory(&top, TRANSFER).map(|fd| identity(&fd));
    match (now, identity(&dirs.transfer)) {
        (Ok(Ok(now)), Ok(opened)) if now == opened => Ok(()),
        _ => offline(format!("has another {TRANSFER} than when this process started; restart it")),
    }
}

pub(super) fn open(
    root: &Path,
    server: Option<&ServerId>,
    expected: Option<StoreId>,
    fresh: StoreId,
) -> Result<Dirs, StoreError> {
    if expected.is_none() {
        match mkdir(root, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fault(&root.display().to_string(), errno)),
        }
    }
    let top = open_root(root)?;
    let found = read_marker(&top)?;
    let owner = found.as_ref().and_then(|marker| marker.server_id.as_ref());
    if let (Some(owner), Some(server)) = (owner, server)
        && owner != server
    {
        let cause = format!("{} is the store of server {owner}, not of {server}", root.display());
        return Err(StoreError::Offline { cause });
    }
    let found = found.as_ref().map(|marker| marker.store_id);
    let store = match (found, expected) {
        (Some(found), Some(expected)) if found != expected => {
            let cause = format!("{} is store {found}, this server has {expected}", root.display());
            return Err(StoreError::Offline { cause });
        }
        (Some(found), _) => found,
        (None, Some(expected)) => {
            let cause = format!("{} has no marker of store {expected}; is it mounted?", root.display());
            return Err(StoreError::Offline { cause });
        }
        (None, None) => fresh,
    };
    // Told by a refusal that names it, before anything is begun that needs it.
    free_bytes(&top)?;
    for name in [TRANSFER, OURS] {
        make(&top, name, 0o755)?;
    }
    let ours = directory(&top, OURS)?;
    for name in ["staging", "aside"] {
        make(&ours, name, 0o700)?;
    }
    let lock = lock(&ours, root)?;
    if found.is_none() {
        write_marker(&ours, Marker { store_id: store, server_id: server.cloned() })?;
    }
    fsync(&top).map_err(|errno| fault("", errno))?;
    Ok(Dirs {
        store,
        transfer: directory(&top, TRANSFER)?,
        staging: directory(&ours, "staging")?,
        aside: directory(&ours, "aside")?,
        _lock: lock,
    })
}

fn make(base: &OwnedFd, name: &str, mode: u32) -> Result<(), StoreError> {
    match mkdirat(base, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(fault(name, errno)),
    }
}

fn lock(ours: &OwnedFd, root: &Path) -> Result<OwnedFd, StoreError> {
    // Not open for writing: a root can be made read-only under a process that has nothing open for writing.
    let lock = file(ours, "lock", OFlags::RDONLY | OFlags::CREATE)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        Errno::WOULDBLOCK => {
            StoreError::Offline { cause: format!("another process uses {}", root.display()) }
        }
        other => fault("lock", other),
    })?;
    Ok(lock)
}

fn read_marker(top: &OwnedFd) -> Result<Option<Marker>, StoreError> {
    let bytes = match content::read_at(top, &format!("{OURS}/store.json"), 0, 4096) {
        Ok(bytes) => bytes,
        Err(StoreError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| StoreError::Offline {
        cause: format!("the store marker {OURS}/store.json cannot be read: {error}"),
    })
}

fn write_marker(ours: &OwnedFd, marker: Marker) -> Result<(), StoreError> {
    let text = serde_json::to_vec(&marker)
        .map_err(|error| StoreError::Failed { path: "store.json".into(), cause: error.to_string() })?;
    write_whole(ours, "store.json", &text)
}

/// Writes a small file of ours whole or not at all, durably.
pub(super) fn write_whole(dir: &OwnedFd, name: &str, text: &[u8]) -> Result<(), StoreError> {
    let new = StagedName::found(&format!("{name}.new"));
    content::replace(dir, &new, text)?;
    let written = file(dir, new.as_str(), OFlags::RDONLY)?;
    fsync(&written).map_err(|errno| fault(name, errno))?;
    renameat(dir, new.as_str(), dir, name).map_err(|errno| fault(name, errno))?;
    fsync(dir).map_err(|errno| fault(name, errno))
}
