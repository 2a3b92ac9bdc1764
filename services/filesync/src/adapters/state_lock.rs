//! One process for each state directory.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::Path};

use lockstep_chassis::StartError;
use rustix::{
    fd::OwnedFd,
    fs::{FlockOperation, Mode, OFlags, flock, open},
    io::Errno,
};

/// Makes the directory if it is missing, and locks it until the answer is dropped.
///
/// # Errors
/// [`StartError`] if it cannot be made, or another process has it.
pub fn lock(state: &Path) -> Result<OwnedFd, StartError> {
    let at = state.display();
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(|error| {
        StartError::new(
            format!("the state directory {at} cannot be made"),
            error,
            "check the path and its rights",
        )
    })?;
    let path = state.join("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|errno| {
        StartError::new(
            format!("the state directory {at} cannot be used"),
            errno,
            "check the path and its rights",
        )
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(StartError::new(
            format!("the state directory {at} is in use"),
            "another process holds its lock",
            "stop the other filesync of this server, or give this one a directory of its own",
        )),
        Err(errno) => Err(StartError::new(
            format!("the state directory {at} cannot be locked"),
            errno,
            "use a local file system",
        )),
    }
}
