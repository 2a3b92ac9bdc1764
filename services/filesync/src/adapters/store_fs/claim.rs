//! Opening a root: only the store that belongs to this server, and only one process at a time.

use std::path::Path;

use lockstep_model::StoreId;
use rustix::{
    fd::OwnedFd,
    fs::{FlockOperation, Mode, OFlags, flock, fsync, mkdir, mkdirat, renameat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    Dirs, OURS, TRANSFER,
    beneath::{directory, fault, file},
    content,
};
use crate::{domain::held::StagedName, ports::StoreError};

#[derive(Serialize, Deserialize)]
struct Marker {
    store_id: StoreId,
}

pub(super) fn open_root(root: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => StoreError::Offline { cause: format!("{} does not exist", root.display()) },
        other => fault(&root.display().to_string(), other),
    })
}

pub(super) fn open(root: &Path, expected: Option<StoreId>, fresh: StoreId) -> Result<Dirs, StoreError> {
    if expected.is_none() {
        match mkdir(root, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fault(&root.display().to_string(), errno)),
        }
    }
    let top = open_root(root)?;
    let found = read_marker(&top)?;
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
    for name in [TRANSFER, OURS] {
        make(&top, name, 0o755)?;
    }
    let ours = directory(&top, OURS)?;
    for name in ["staging", "aside"] {
        make(&ours, name, 0o700)?;
    }
    let lock = lock(&ours, root)?;
    if found.is_none() {
        write_marker(&ours, store)?;
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
    let lock = file(ours, "lock", OFlags::RDWR | OFlags::CREATE)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        Errno::WOULDBLOCK => {
            StoreError::Offline { cause: format!("another process uses {}", root.display()) }
        }
        other => fault("lock", other),
    })?;
    Ok(lock)
}

fn read_marker(top: &OwnedFd) -> Result<Option<StoreId>, StoreError> {
    let bytes = match content::read_at(top, &format!("{OURS}/store.json"), 0, 4096) {
        Ok(bytes) => bytes,
        Err(StoreError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let marker: Marker = serde_json::from_slice(&bytes).map_err(|error| StoreError::Offline {
        cause: format!("the store marker cannot be read: {error}"),
    })?;
    Ok(Some(marker.store_id))
}

fn write_marker(ours: &OwnedFd, store: StoreId) -> Result<(), StoreError> {
    let text = serde_json::to_vec(&Marker { store_id: store })
        .map_err(|error| StoreError::Failed { path: "store.json".into(), cause: error.to_string() })?;
    let new = StagedName::found("store.json.new");
    content::replace(ours, &new, &text)?;
    let written = file(ours, new.as_str(), OFlags::RDONLY)?;
    fsync(&written).map_err(|errno| fault("store.json", errno))?;
    renameat(ours, new.as_str(), ours, "store.json").map_err(|errno| fault("store.json", errno))?;
    fsync(ours).map_err(|errno| fault("store.json", errno))
}
