//! One supervisor a data directory.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
};

use rustix::fs::{FlockOperation, flock};

use super::Layout;
use crate::problem::{Exit, Problem, Result};

/// Held as long as it lives; the operating system releases it however the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock, or names the process that holds it.
pub(crate) fn acquire(layout: &Layout) -> Result<Lock> {
    let path = layout.lock();
    let failed =
        |error: &std::io::Error| Problem::io("could not lock the data directory", path.display(), error);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|error| failed(&error))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // The text is for people; a holder that has not written it yet is still a holder.
        let _ = file.read_to_string(&mut holder);
        let why = format!("process {} runs an installation in it", holder.trim());
        return Err(Problem::new(Exit::Unavailable, "could not start the installation", why)
            .at(layout.data().display())
            .advise("stop that process, or name another directory with --data"));
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(|error| failed(&error))?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_supervisor_is_told_who_the_first_is() {
        let directory = std::env::temp_dir().join(format!("lockstep-lock-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&directory).expect("created");
        let layout = Layout::new(&directory);
        let first = acquire(&layout).expect("free");
        let problem = acquire(&layout).expect_err("held");
        assert_eq!(problem.exit, Exit::Unavailable);
        let text = problem.render(crate::cli::Format::Text);
        assert!(text.contains(&format!("process {} runs", std::process::id())), "{text}");
        drop(first);
        acquire(&layout).expect("free again");
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
