//! Opening things beneath a directory: no link is followed, nothing outside is reached, whatever somebody plants there.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{
        Access, AtFlags, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, accessat, fstat, fstatvfs,
        mkdirat, openat2,
    },
    io::Errno,
};

use crate::{domain::held::Stat, ports::StoreError};

const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Tells what the system meant.
pub(super) fn fault(path: &str, errno: Errno) -> StoreError {
    let path = path.to_owned();
    match errno {
        Errno::NOENT => StoreError::Absent { path },
        Errno::EXIST | Errno::NOTEMPTY => StoreError::Occupied { path },
        Errno::LOOP | Errno::XDEV => StoreError::Foreign { path, what: "a link or a mount" },
        Errno::NOTDIR => StoreError::Foreign { path, what: "a file in place of a directory" },
        Errno::NXIO => StoreError::Foreign { path, what: "a socket or a device" },
        Errno::ISDIR => StoreError::Foreign { path, what: "a directory" },
        Errno::NOSPC | Errno::DQUOT => StoreError::Full { free_bytes: 0, needed_bytes: 0 },
        Errno::ROFS => StoreError::ReadOnly { cause: format!("{path}: {errno}") },
        Errno::ACCESS | Errno::PERM => StoreError::Refused { path, cause: errno.to_string() },
        other => StoreError::Failed { path, cause: other.to_string() },
    }
}

/// Opens a directory below `base`; the empty path is `base` itself.
pub(super) fn directory(base: impl AsFd, path: &str) -> Result<OwnedFd, StoreError> {
    let name = if path.is_empty() { "." } else { path };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    openat2(base, name, flags, Mode::empty(), INSIDE).map_err(|errno| fault(path, errno))
}

/// Opens a regular file below `base`. `NONBLOCK`, because opening a FIFO would wait for its other end.
pub(super) fn file(base: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, StoreError> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
    let fd = openat2(base, path, flags, mode, INSIDE).map_err(|errno| fault(path, errno))?;
    let found = fstat(&fd).map_err(|errno| fault(path, errno))?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(fd),
        other => Err(StoreError::Foreign { path: path.to_owned(), what: describe(other) }),
    }
}

pub(super) fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    }
}

/// Opens the directory `path` below `base` and makes what is missing. Adds each directory that got a new entry to
/// `touched`, so that the caller can make the entries durable.
pub(super) fn make(base: &OwnedFd, path: &str, touched: &mut Vec<String>) -> Result<OwnedFd, StoreError> {
    match directory(base, path) {
        Err(StoreError::Absent { .. }) => {}
        other => return other,
    }
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let above = make(base, parent, touched)?;
    match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => touched.push(parent.to_owned()),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(fault(path, errno)),
    }
    directory(base, path)
}

/// What an open file looks like.
pub(super) fn look(fd: impl AsFd, path: &str) -> Result<Stat, StoreError> {
    fstat(fd).map(|found| stat_of(&found)).map_err(|errno| fault(path, errno))
}

#[allow(
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "the types differ between platforms; sizes are never negative"
)]
pub(super) fn stat_of(found: &rustix::fs::Stat) -> Stat {
    let ns = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    Stat {
        size_bytes: found.st_size as u64,
        modified_ns: ns(found.st_mtime as i64, found.st_mtime_nsec as i64),
        changed_ns: ns(found.st_ctime as i64, found.st_ctime_nsec as i64),
    }
}

/// Whether something may be written into a directory.
pub(super) fn is_writable(directory: impl AsFd) -> bool {
    accessat(directory, ".", Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Bytes that an ordinary user may still write; none to a mount that is read-only.
pub(super) fn free_bytes(fd: impl AsFd) -> Result<u64, StoreError> {
    let found = fstatvfs(fd).map_err(|errno| fault("", errno))?;
    if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(StoreError::ReadOnly { cause: "it is mounted read-only".to_owned() });
    }
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
