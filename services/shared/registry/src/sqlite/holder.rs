//! Which process holds a lock, so that an operator knows what to look at.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The byte of the shared memory file that a writer locks.
const WRITE_LOCK_BYTE: u64 = 120;

/// A process, as far as it can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Process { pid: u32, name: String },
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } if *pid == std::process::id() => {
                write!(f, "this process ({name}, {pid})")
            }
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// Who has a lock on `path`.
pub(super) fn of_file(path: &Path) -> Holder {
    find(&[path.to_owned()])
}

/// Who keeps others from the database at `path`: the writer if there is one, else whoever has any exclusive lock.
pub(super) fn of_database(path: &Path) -> Holder {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    find(&[beside("-shm"), path.to_owned(), beside("-wal")])
}

fn find(paths: &[PathBuf]) -> Holder {
    let found = fs::read_to_string("/proc/locks").and_then(|locks| Ok(choose(&locks, &identities(paths)?)));
    let Ok(Some(pid)) = found else { return Holder::Unknown };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => Holder::Process { pid, name: "name unknown".to_owned() },
        name => Holder::Process { pid, name: name.to_owned() },
    }
}

/// `major:minor:inode` of each file that exists, as the kernel writes it.
fn identities(paths: &[PathBuf]) -> io::Result<Vec<String>> {
    let existing = paths.iter().filter_map(|path| fs::metadata(path).ok());
    let text = |file: fs::Metadata| {
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        format!("{major:02x}:{minor:02x}:{}", file.ino())
    };
    Ok(existing.map(text).collect())
}

/// The process in `/proc/locks` to name: `1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 120 120`.
fn choose(locks: &str, files: &[String]) -> Option<u32> {
    let held = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // A line of someone who waits has an arrow after its number and no place here.
        let [_, _, _, "WRITE", pid, file, first, last] = fields.as_slice() else { return None };
        let rank = files.iter().position(|known| known == file)?;
        let covers = first.parse().is_ok_and(|first: u64| first <= WRITE_LOCK_BYTE)
            && (*last == "EOF" || last.parse().is_ok_and(|last: u64| last >= WRITE_LOCK_BYTE));
        // Zero is a process that cannot be seen from here, such as one outside the container.
        let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
        Some((rank, !covers, pid))
    });
    held.min().map(|(_, _, pid)| pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_is_named_before_others() {
        let locks = "1: POSIX  ADVISORY  READ 10 fe:00:77 124 124\n\
                     2: POSIX  ADVISORY  WRITE 11 fe:00:77 121 121\n\
                     3: POSIX  ADVISORY  WRITE 12 fe:00:77 120 120\n\
                     3: -> POSIX  ADVISORY  WRITE 13 fe:00:77 120 120\n\
                     4: POSIX  ADVISORY  WRITE 0 fe:00:78 120 120\n\
                     5: FLOCK  ADVISORY  WRITE 14 fe:00:79 0 EOF\n";
        let file = |inode: u32| vec![format!("fe:00:{inode}")];
        assert_eq!(choose(locks, &file(77)), Some(12));
        assert_eq!(choose(locks, &file(78)), None, "a process outside cannot be named");
        assert_eq!(choose(locks, &file(79)), Some(14));
        assert_eq!(choose(locks, &file(80)), None);
        assert_eq!(choose("nonsense\n\n1: a b WRITE x y z\n", &file(77)), None);
    }
}
