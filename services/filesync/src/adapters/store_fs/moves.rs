//! Renames: into the transfer directory, out of it, and aside. Each is durable before it is reported.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::FilePath;
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FileType, RenameFlags, fsync, renameat_with, statat, syncfs, unlinkat},
    io::Errno,
};

use super::{
    Dirs, SYNC_EACH_MAX,
    beneath::{directory, fault, make, stat_of},
};
use crate::{
    domain::held::{StagedName, Stat},
    ports::StoreError,
};

/// How often a directory may vanish between making and using it, because the last file in it was just removed.
const VANISHED_TRIES: usize = 5;

pub(super) fn publish(
    dirs: &Dirs,
    files: &[(StagedName, FilePath)],
) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
    let (mut open, mut touched) = (BTreeMap::new(), Vec::new());
    let results = files
        .iter()
        .map(|(staged, path)| publish_one(dirs, staged, path, &mut open, &mut touched))
        .collect::<Vec<_>>();
    touched.extend(open.into_keys());
    sync_directories(&dirs.transfer, touched)?;
    Ok(results)
}

pub(super) fn exchange(
    dirs: &Dirs,
    files: &[(StagedName, FilePath)],
) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
    let results = files.iter().map(|(staged, path)| exchange_one(dirs, staged, path)).collect::<Vec<_>>();
    // Only where something was done: a directory that nobody may read must not fail the others.
    let done = files.iter().zip(&results).filter(|(_, result)| result.is_ok());
    let touched = done.map(|((_, path), _)| path.parent().unwrap_or("").to_owned()).collect();
    fsync(&dirs.staging).map_err(|errno| fault("staging", errno))?;
    sync_directories(&dirs.transfer, touched)?;
    Ok(results)
}

fn exchange_one(dirs: &Dirs, staged: &StagedName, path: &FilePath) -> Result<Stat, StoreError> {
    let above = directory(&dirs.transfer, path.parent().unwrap_or(""))?;
    no_directory(&above, path)?;
    renameat_with(&dirs.staging, staged.as_str(), &above, path.name(), RenameFlags::EXCHANGE)
        .map_err(|errno| fault(path.as_str(), errno))?;
    look_at(&above, path)
}

pub(super) fn relocate(
    dirs: &Dirs,
    files: &[(FilePath, FilePath)],
) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
    let mut touched = Vec::new();
    let results =
        files.iter().map(|(from, to)| relocate_one(dirs, from, to, &mut touched)).collect::<Vec<_>>();
    // The new entry before the old one is gone for good: after a power cut the file has a name.
    sync_directories(&dirs.transfer, std::mem::take(&mut touched))?;
    for ((from, _), _) in files.iter().zip(&results).filter(|(_, result)| result.is_ok()) {
        prune(&dirs.transfer, from, &mut touched);
    }
    sync_directories(&dirs.transfer, touched)?;
    Ok(results)
}

fn relocate_one(
    dirs: &Dirs,
    from: &FilePath,
    to: &FilePath,
    touched: &mut Vec<String>,
) -> Result<Stat, StoreError> {
    let source = directory(&dirs.transfer, from.parent().unwrap_or(""))?;
    let parent = to.parent().unwrap_or("");
    let target = make(&dirs.transfer, parent, touched)?;
    let renamed = no_directory(&source, from).and_then(|()| {
        renameat_with(&source, from.name(), &target, to.name(), RenameFlags::NOREPLACE).map_err(|errno| {
            match errno {
                Errno::NOENT => fault(from.as_str(), errno),
                // The system does not say which of the two it is.
                Errno::ACCESS | Errno::PERM => StoreError::Refused {
                    path: from.to_string(),
                    cause: format!("{errno}, on its way to {to}"),
                },
                _ => fault(to.as_str(), errno),
            }
        })
    });
    if let Err(error) = renamed {
        // What was made for it, goes again.
        prune(&dirs.transfer, to, touched);
        return Err(error);
    }
    touched.push(parent.to_owned());
    look_at(&target, to)
}

fn look_at(above: &OwnedFd, path: &FilePath) -> Result<Stat, StoreError> {
    let found = statat(above, path.name(), AtFlags::SYMLINK_NOFOLLOW);
    found.map(|found| stat_of(&found)).map_err(|errno| fault(path.as_str(), errno))
}

fn no_directory(above: &OwnedFd, path: &FilePath) -> Result<(), StoreError> {
    let found =
        statat(above, path.name(), AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| fault(path.as_str(), errno))?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => Err(StoreError::Foreign { path: path.to_string(), what: "a directory" }),
        _ => Ok(()),
    }
}

fn publish_one(
    dirs: &Dirs,
    staged: &StagedName,
    path: &FilePath,
    open: &mut BTreeMap<String, OwnedFd>,
    touched: &mut Vec<String>,
) -> Result<Stat, StoreError> {
    let parent = path.parent().unwrap_or("");
    let mut tries = 0;
    loop {
        let above = match open.get(parent) {
            Some(above) => above,
            None => open.entry(parent.to_owned()).or_insert(make(&dirs.transfer, parent, touched)?),
        };
        match renameat_with(&dirs.staging, staged.as_str(), above, path.name(), RenameFlags::NOREPLACE) {
            Ok(()) => return look_at(above, path),
            Err(Errno::NOENT) if tries < VANISHED_TRIES && exists(&dirs.staging, staged) => {
                tries += 1;
                open.remove(parent);
            }
            Err(errno) => return Err(fault(path.as_str(), errno)),
        }
    }
}

fn exists(staging: &OwnedFd, staged: &StagedName) -> bool {
    statat(staging, staged.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Makes new and gone entries of these directories of the transfer directory durable.
pub(super) fn sync_directories(transfer: &OwnedFd, touched: Vec<String>) -> Result<(), StoreError> {
    let touched: BTreeSet<String> = touched.into_iter().collect();
    if touched.len() > SYNC_EACH_MAX {
        return syncfs(transfer).map_err(|errno| fault("", errno));
    }
    for path in touched {
        match directory(transfer, &path) {
            Ok(fd) => fsync(fd).map_err(|errno| fault(&path, errno))?,
            // Removed in the meantime, together with what was in it, or never one.
            Err(StoreError::Absent { .. } | StoreError::Foreign { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn withdraw(
    dirs: &Dirs,
    files: &[(FilePath, StagedName)],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let results = files.iter().map(|(path, staged)| withdraw_one(dirs, path, staged)).collect::<Vec<_>>();
    fsync(&dirs.staging).map_err(|errno| fault("staging", errno))?;
    let mut touched = Vec::new();
    for ((path, _), _) in files.iter().zip(&results).filter(|(_, result)| result.is_ok()) {
        prune(&dirs.transfer, path, &mut touched);
    }
    sync_directories(&dirs.transfer, touched)?;
    Ok(results)
}

fn withdraw_one(dirs: &Dirs, path: &FilePath, staged: &StagedName) -> Result<(), StoreError> {
    let above = directory(&dirs.transfer, path.parent().unwrap_or(""))?;
    no_directory(&above, path)?;
    renameat_with(&above, path.name(), &dirs.staging, staged.as_str(), RenameFlags::NOREPLACE)
        .map_err(|errno| fault(path.as_str(), errno))
}

/// Removes the directories above `path` that are empty now, and notes the one that lost an entry.
pub(super) fn prune(transfer: &OwnedFd, path: &FilePath, touched: &mut Vec<String>) {
    for emptied in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
        if unlinkat(transfer, emptied, AtFlags::REMOVEDIR).is_err() {
            touched.push(emptied.to_owned());
            return;
        }
    }
    touched.push(String::new());
}
