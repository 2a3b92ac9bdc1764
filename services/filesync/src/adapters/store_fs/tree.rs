//! What lies in the transfer directory, whoever put it there, and what was moved out of its way.

use std::{collections::BTreeSet, time::Duration};

use lockstep_model::{
    FilePath,
    clock::{Clock as _, SystemClock},
};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Dir, FileType, OFlags, RenameFlags, fsync, renameat_with, statat, syncfs, unlinkat},
    io::Errno,
};

use super::{
    Dirs, FsStore, SYNC_EACH_MAX,
    beneath::{describe, directory, fault, file, make, stat_of},
    claim::{verify, write_whole},
    content,
    moves::{prune, sync_directories},
};
use crate::{
    domain::{
        aside::{AsideFile, AsideNote},
        held::{StagedName, Stat},
    },
    ports::{Algorithms, Entry, EntryKind, Hashed, StoreError, Tree},
};

/// The clock of a file system ticks this seldom at most, so that two writes within it may leave the same times.
const TICK: Duration = Duration::from_millis(50);
/// The most entries of a directory: more are a defect of whoever fills it.
const ENTRIES_MAX: usize = 2_000_000;
/// Notes have this ending; ids have none.
const NOTE: &str = ".json";
/// How often bytes of one origin may be kept at once.
const ASIDE_NUMBER_MAX: u32 = 10_000;
/// The longest note: the longest path, escaped, and some text.
const NOTE_BYTES_MAX: usize = 64 << 10;

impl Tree for FsStore {
    async fn verify(&self) -> Result<(), StoreError> {
        self.run(|inner, dirs| verify(&inner.root, dirs)).await
    }

    async fn entries(&self, path: String) -> Result<Vec<Entry>, StoreError> {
        self.run(move |_, dirs| entries(&directory(&dirs.transfer, &path)?, &path)).await
    }

    async fn inspect(&self, paths: Vec<FilePath>) -> Result<Vec<Result<Stat, StoreError>>, StoreError> {
        self.run(move |_, dirs| Ok(paths.iter().map(|path| inspect(&dirs.transfer, path)).collect())).await
    }

    async fn hash_in_place(
        &self,
        paths: Vec<FilePath>,
        wanted: Algorithms,
    ) -> Result<Vec<Result<Hashed, StoreError>>, StoreError> {
        self.run(move |_, dirs| hash_in_place(&dirs.transfer, &paths, wanted)).await
    }

    async fn set_aside(&self, name: StagedName, note: AsideNote) -> Result<StagedName, StoreError> {
        self.run(move |_, dirs| set_aside(dirs, &name, note)).await
    }

    async fn displace(&self, id: StagedName, note: AsideNote) -> Result<(), StoreError> {
        self.run(move |_, dirs| displace(dirs, id.as_str(), note)).await
    }

    async fn aside(&self) -> Result<Vec<AsideFile>, StoreError> {
        self.run(|_, dirs| aside(&dirs.aside)).await
    }

    async fn bring_back(&self, id: StagedName, path: FilePath) -> Result<(), StoreError> {
        self.run(move |_, dirs| {
            let mut touched = Vec::new();
            let above = make(&dirs.transfer, path.parent().unwrap_or(""), &mut touched)?;
            touched.push(path.parent().unwrap_or("").to_owned());
            renameat_with(&dirs.aside, id.as_str(), &above, path.name(), RenameFlags::NOREPLACE).map_err(
                |errno| match errno {
                    Errno::NOENT => StoreError::Absent { path: id.to_string() },
                    other => fault(path.as_str(), other),
                },
            )?;
            sync_directories(&dirs.transfer, touched)?;
            forget(&dirs.aside, id.as_str())
        })
        .await
    }

    async fn drop_aside(&self, id: StagedName) -> Result<(), StoreError> {
        self.run(move |_, dirs| {
            unlinkat(&dirs.aside, id.as_str(), AtFlags::empty())
                .map_err(|errno| fault(id.as_str(), errno))?;
            forget(&dirs.aside, id.as_str())
        })
        .await
    }
}

fn entries(dir: &OwnedFd, path: &str) -> Result<Vec<Entry>, StoreError> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir).map_err(|errno| fault(path, errno))? {
        let entry = entry.map_err(|errno| fault(path, errno))?;
        let text = entry.file_name().to_str();
        if matches!(text, Ok("." | "..")) {
            continue;
        }
        if found.len() >= ENTRIES_MAX {
            let cause = format!("more than {ENTRIES_MAX} entries in one directory");
            return Err(StoreError::Failed { path: path.to_owned(), cause });
        }
        let kind = match entry.file_type() {
            // Some file systems do not tell it here.
            FileType::Unknown => match statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => FileType::from_raw_mode(found.st_mode),
                // It is gone already.
                Err(_) => continue,
            },
            known => known,
        };
        let kind = match kind {
            _ if text.is_err() => EntryKind::Other("something with a name that is no UTF-8"),
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            other => EntryKind::Other(describe(other)),
        };
        found.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), kind });
    }
    Ok(found)
}

/// Looks before anything is opened: opening a pipe or a device may do something.
fn inspect(transfer: &OwnedFd, path: &FilePath) -> Result<Stat, StoreError> {
    let above = directory(transfer, path.parent().unwrap_or(""))?;
    let found = statat(&above, path.name(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| fault(path.as_str(), errno))?;
    let kind = FileType::from_raw_mode(found.st_mode);
    let foreign = |what| Err(StoreError::Foreign { path: path.to_string(), what });
    match kind {
        // Whoever has the other name could change the bytes from outside the transfer directory.
        FileType::RegularFile if found.st_nlink > 1 => foreign("a file with a second name (a hard link)"),
        FileType::RegularFile => Ok(stat_of(&found)),
        other => foreign(describe(other)),
    }
}

fn hash_in_place(
    transfer: &OwnedFd,
    paths: &[FilePath],
    wanted: Algorithms,
) -> Result<Vec<Result<Hashed, StoreError>>, StoreError> {
    let mut hashed: Vec<_> = paths.iter().map(|path| hash_one(transfer, path, wanted)).collect();
    if hashed.iter().flatten().any(|hashed| is_recent(&hashed.stat)) {
        // Another write within the same tick would show in nothing: wait it out, and read again what was so young.
        std::thread::sleep(TICK);
        for (path, hashed) in paths.iter().zip(&mut hashed) {
            if let Ok(before) = hashed
                && is_recent(&before.stat)
            {
                let again = hash_one(transfer, path, wanted);
                let same = again.as_ref().is_ok_and(|again| again == before);
                *hashed = if same { again } else { again.and_then(|_| Err(changed(path))) };
            }
        }
    }
    let right = paths.iter().zip(&hashed).filter(|(_, hashed)| hashed.is_ok()).map(|(path, _)| path);
    sync(transfer, &right.collect::<Vec<_>>())?;
    for (path, hashed) in paths.iter().zip(&mut hashed) {
        if let Ok(found) = hashed {
            match inspect(transfer, path) {
                Ok(now) if now == found.stat => {}
                Ok(_) => *hashed = Err(changed(path)),
                Err(error) => *hashed = Err(error),
            }
        }
    }
    Ok(hashed)
}

fn hash_one(transfer: &OwnedFd, path: &FilePath, wanted: Algorithms) -> Result<Hashed, StoreError> {
    inspect(transfer, path)?;
    let unreadable = |error| match error {
        StoreError::Refused { .. } => {
            StoreError::Foreign { path: path.to_string(), what: "a file that this process may not read" }
        }
        other => other,
    };
    let hashed = content::hash(transfer, path.as_str(), wanted).map_err(unreadable)?;
    hashed.ok_or_else(|| StoreError::Absent { path: path.to_string() })
}

fn changed(path: &FilePath) -> StoreError {
    StoreError::Changed { path: path.to_string() }
}

/// Whether it was changed so lately that the next change might show the same time; so may one from the future.
fn is_recent(stat: &Stat) -> bool {
    let age_ns = SystemClock.now().as_nanosecond() - i128::from(stat.changed_ns);
    age_ns < i128::try_from(TICK.as_nanos()).unwrap_or(i128::MAX)
}

/// Makes files durable that somebody else wrote, and the directories that lead to them.
fn sync(transfer: &OwnedFd, paths: &[&FilePath]) -> Result<(), StoreError> {
    if paths.len() > SYNC_EACH_MAX {
        return syncfs(transfer).map_err(|errno| fault("", errno));
    }
    let mut above = BTreeSet::new();
    for path in paths {
        match file(transfer, path.as_str(), OFlags::RDONLY) {
            Ok(fd) => fsync(&fd).map_err(|errno| fault(path.as_str(), errno))?,
            // Whatever became of it, the last look tells.
            Err(_) => continue,
        }
        above.insert(String::new());
        above.extend(path.ancestors().map(str::to_owned));
    }
    sync_directories(transfer, above.into_iter().collect())
}

fn set_aside(dirs: &Dirs, name: &StagedName, note: AsideNote) -> Result<StagedName, StoreError> {
    // A note without bytes is one of a try that a crash ended.
    let is_free = |id: &StagedName| {
        matches!(statat(&dirs.aside, id.as_str(), AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    };
    let free = (0..=ASIDE_NUMBER_MAX).map(|number| name.numbered(number)).find(is_free);
    let id = free.ok_or_else(|| StoreError::Occupied { path: name.to_string() })?;
    write_note(&dirs.aside, id.as_str(), &note)?;
    renameat_with(&dirs.staging, name.as_str(), &dirs.aside, id.as_str(), RenameFlags::NOREPLACE)
        .map_err(|errno| fault(name.as_str(), errno))?;
    kept(dirs, id.as_str(), note)?;
    Ok(id)
}

fn displace(dirs: &Dirs, id: &str, note: AsideNote) -> Result<(), StoreError> {
    let path = note.path.clone();
    let above = directory(&dirs.transfer, path.parent().unwrap_or(""))?;
    let found = statat(&above, path.name(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| fault(path.as_str(), errno))?;
    let kind = FileType::from_raw_mode(found.st_mode);
    if kind == FileType::Directory {
        return Err(StoreError::Foreign { path: path.to_string(), what: describe(kind) });
    }
    write_note(&dirs.aside, id, &note)?;
    renameat_with(&above, path.name(), &dirs.aside, id, RenameFlags::NOREPLACE)
        .map_err(|errno| fault(path.as_str(), errno))?;
    let mut touched = Vec::new();
    prune(&dirs.transfer, &path, &mut touched);
    sync_directories(&dirs.transfer, touched)?;
    kept(dirs, id, note)
}

/// Makes the move durable, and adds what the bytes are to the note, now that nobody waits for their place.
fn kept(dirs: &Dirs, id: &str, note: AsideNote) -> Result<(), StoreError> {
    fsync(&dirs.aside).map_err(|errno| fault("aside", errno))?;
    match content::hash(&dirs.aside, id, Algorithms::default()) {
        Ok(Some(hashed)) => write_note(&dirs.aside, id, &AsideNote { digest: Some(hashed.digest), ..note }),
        // It is no regular file, or somebody still writes to it.
        _ => Ok(()),
    }
}

fn write_note(aside: &OwnedFd, id: &str, note: &AsideNote) -> Result<(), StoreError> {
    let text = serde_json::to_vec(note)
        .map_err(|error| StoreError::Failed { path: id.to_owned(), cause: error.to_string() })?;
    write_whole(aside, &format!("{id}{NOTE}"), &text)
}

fn forget(aside: &OwnedFd, id: &str) -> Result<(), StoreError> {
    match unlinkat(aside, format!("{id}{NOTE}").as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => fsync(aside).map_err(|errno| fault("aside", errno)),
        Err(errno) => Err(fault(id, errno)),
    }
}

fn aside(dir: &OwnedFd) -> Result<Vec<AsideFile>, StoreError> {
    let mut found = Vec::new();
    for Entry { name: id, .. } in entries(dir, "aside")? {
        if id.ends_with(NOTE) || id.ends_with(".new") {
            continue;
        }
        let Ok(stat) = statat(dir, id.as_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let text = content::read_at(dir, &format!("{id}{NOTE}"), 0, NOTE_BYTES_MAX);
        let note = text.ok().and_then(|text| serde_json::from_slice(&text).ok());
        found.push(AsideFile { id, size_bytes: stat_of(&stat).size_bytes, note });
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}
