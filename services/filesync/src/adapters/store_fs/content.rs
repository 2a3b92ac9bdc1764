//! Bytes of single files: writing, syncing, reading, hashing.

use std::{num::NonZero, os::unix::fs::FileExt as _};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::{
    buffer::spare_capacity,
    fd::{AsFd, OwnedFd},
    fs::{
        Advice, AtFlags, Dir, FileType, OFlags, Timespec, Timestamps, fadvise, fsync, ftruncate, syncfs,
        unlinkat, utimensat,
    },
    io::{Errno, pread},
};

use super::{
    SYNC_EACH_MAX,
    beneath::{fault, file, look},
};
use crate::{
    domain::{
        hasher::ContentHasher,
        held::{StagedName, Stat},
    },
    ports::{Algorithms, Hashed, StoreError},
};

/// Reads of this size keep the disk busy without holding much memory.
const READ_BYTES: usize = 256 << 10;

fn failed(path: &str, error: &std::io::Error) -> StoreError {
    match error.raw_os_error() {
        Some(code) => fault(path, Errno::from_raw_os_error(code)),
        None => StoreError::Failed { path: path.to_owned(), cause: error.to_string() },
    }
}

pub(super) fn replace(dir: &OwnedFd, name: &StagedName, data: &[u8]) -> Result<(), StoreError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let file = std::fs::File::from(file(dir, name.as_str(), flags)?);
    file.write_all_at(data, 0).map_err(|error| failed(name.as_str(), &error))
}

pub(super) fn append(
    dir: &OwnedFd,
    name: &StagedName,
    before: Stat,
    data: &[u8],
) -> Result<Stat, StoreError> {
    let file = std::fs::File::from(file(dir, name.as_str(), OFlags::WRONLY)?);
    if look(&file, name.as_str())? != before {
        return Err(StoreError::Changed { path: name.to_string() });
    }
    file.write_all_at(data, before.size_bytes).map_err(|error| failed(name.as_str(), &error))?;
    look(&file, name.as_str())
}

pub(super) fn truncate(dir: &OwnedFd, name: &StagedName, size_bytes: u64) -> Result<Stat, StoreError> {
    let fd = file(dir, name.as_str(), OFlags::WRONLY | OFlags::CREATE)?;
    ftruncate(&fd, size_bytes).map_err(|errno| fault(name.as_str(), errno))?;
    look(&fd, name.as_str())
}

pub(super) fn let_go(dir: &OwnedFd, name: &StagedName, end_bytes: u64) -> Result<(), StoreError> {
    let fd = file(dir, name.as_str(), OFlags::RDONLY)?;
    fadvise(&fd, 0, NonZero::new(end_bytes), Advice::DontNeed).map_err(|errno| fault(name.as_str(), errno))
}

pub(super) fn sync(dir: &OwnedFd, files: &[(StagedName, Option<Timestamp>)]) -> Result<(), StoreError> {
    for (name, modified) in files {
        if let Some(modified) = modified {
            let time = Timespec {
                tv_sec: modified.as_second(),
                tv_nsec: modified.subsec_nanosecond().max(0).into(),
            };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(dir, name.as_str(), &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| fault(name.as_str(), errno))?;
        }
    }
    if files.len() > SYNC_EACH_MAX {
        return syncfs(dir).map_err(|errno| fault("staging", errno));
    }
    for (name, _) in files {
        let fd = file(dir, name.as_str(), OFlags::RDONLY)?;
        fsync(&fd).map_err(|errno| fault(name.as_str(), errno))?;
    }
    fsync(dir).map_err(|errno| fault("staging", errno))
}

pub(super) fn list(dir: &OwnedFd) -> Result<Vec<(StagedName, u64)>, StoreError> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir).map_err(|errno| fault("staging", errno))? {
        let entry = entry.map_err(|errno| fault("staging", errno))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type() == FileType::RegularFile {
            let size = look(file(dir, &name, OFlags::RDONLY)?, &name)?.size_bytes;
            found.push((StagedName::found(&name), size));
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn discard(dir: &OwnedFd, names: &[StagedName]) -> Result<(), StoreError> {
    let mut first = Ok(());
    for name in names {
        match unlinkat(dir, name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => first = first.and_then(|()| Err(fault(name.as_str(), errno))),
        }
    }
    first
}

pub(super) fn stat(base: &OwnedFd, path: &str) -> Result<Option<Stat>, StoreError> {
    match file(base, path, OFlags::RDONLY) {
        Ok(fd) => look(fd, path).map(Some),
        Err(StoreError::Absent { .. }) => Ok(None),
        // A file where a directory would have to be: nothing is at the path itself.
        Err(StoreError::Foreign { what: "a file in place of a directory", .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn read_at(base: impl AsFd, path: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
    let file = std::fs::File::from(file(base, path, OFlags::RDONLY)?);
    let mut buffer = Vec::with_capacity(length);
    while buffer.len() < length {
        let at = offset + buffer.len() as u64;
        if pread(&file, spare_capacity(&mut buffer), at).map_err(|errno| fault(path, errno))? == 0 {
            break;
        }
    }
    Ok(Bytes::from(buffer))
}

fn fill(file: &std::fs::File, mut offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset)? {
            0 => break,
            count => {
                filled += count;
                offset += count as u64;
            }
        }
    }
    Ok(filled)
}

pub(super) fn hash(base: &OwnedFd, path: &str, wanted: Algorithms) -> Result<Option<Hashed>, StoreError> {
    let fd = match file(base, path, OFlags::RDONLY) {
        Ok(fd) => fd,
        Err(StoreError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let before = look(&fd, path)?;
    let file = std::fs::File::from(fd);
    let size = usize::try_from(before.size_bytes).unwrap_or(READ_BYTES).clamp(1, READ_BYTES);
    let (mut hasher, mut buffer, mut offset) = (ContentHasher::new(wanted), vec![0; size], 0);
    loop {
        let filled = fill(&file, offset, &mut buffer).map_err(|error| failed(path, &error))?;
        hasher.update(&buffer[..filled]);
        offset += filled as u64;
        if filled < buffer.len() || offset >= before.size_bytes {
            break;
        }
    }
    let after = look(&file, path)?;
    if before != after || offset != before.size_bytes {
        return Err(StoreError::Changed { path: path.to_owned() });
    }
    Ok(Some(hasher.finish(after)))
}
