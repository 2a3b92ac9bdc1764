//! What is copied, and where.

use std::{
    env, fmt,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// How many copies of the content each tool writes.
const COPIES: usize = 3;

/// One kind of content.
pub(crate) enum Set {
    /// One file of random bytes.
    Big {
        /// Its size.
        mib: u64,
    },
    /// Many small files, a hundred to a directory.
    Tree {
        /// How many.
        files: usize,
        /// The size of each.
        bytes: usize,
    },
}

impl Set {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Big { mib } => usize::try_from(*mib << 20).unwrap_or(usize::MAX),
            Self::Tree { files, bytes } => files * bytes,
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Big { mib } => write!(f, "1 × {mib} MiB"),
            Self::Tree { files, bytes } => write!(f, "{files} × {bytes} bytes"),
        }
    }
}

/// A directory for everything, removed at the end.
pub(crate) struct Work {
    directory: tempfile::TempDir,
}

impl Work {
    pub(crate) fn new() -> Result<Self> {
        // Not in memory: a disk is what is measured.
        let parent = env::var_os("WORK").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        fs::create_dir_all(&parent)?;
        let directory = tempfile::Builder::new().prefix("bench").tempdir_in(fs::canonicalize(parent)?)?;
        // nginx and rsync give up their rights and have to reach it all the same.
        run(Command::new("chmod").arg("755").arg(directory.path()))?;
        Ok(Self { directory })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A fresh, empty directory.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Everything that earlier rounds wrote is on the disk before the next begins.
    pub(crate) fn settle(&self) -> Result<()> {
        for name in ["peer1", "peer2", "peer3", "data"] {
            if self.path(name).exists() {
                fs::remove_dir_all(self.path(name))?;
            }
        }
        run(&mut Command::new("sync"))
    }

    /// The same memory for everybody: a virtual machine gives what it has not used for a few seconds back to its host,
    /// and then each page costs a fault the first time. Right before the clock, every tool finds its pages there.
    pub(crate) fn warm(set: &Set) {
        let pages = vec![1_u8; COPIES * set.size_bytes()];
        drop(std::hint::black_box(pages));
    }

    /// The directory with what is to be copied.
    pub(crate) fn source(&self, set: &Set) -> Result<PathBuf> {
        let root = self.fresh("source")?;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        match set {
            Set::Big { mib } => {
                let mut file = BufWriter::with_capacity(1 << 20, File::create(root.join("firmware.bin"))?);
                let mut block = vec![0; 1 << 20];
                for _ in 0..*mib {
                    random.fill(&mut block);
                    file.write_all(&block)?;
                }
                file.flush()?;
            }
            Set::Tree { files, bytes } => {
                let mut block = vec![0; *bytes];
                for index in 0..*files {
                    let directory = root.join(format!("d{:04}", index / 100));
                    if index % 100 == 0 {
                        fs::create_dir_all(&directory)?;
                    }
                    random.fill(&mut block);
                    fs::write(directory.join(format!("f{index:06}.bin")), &block)?;
                }
            }
        }
        Ok(root)
    }
}

/// Bytes that do not compress and are the same in each run.
struct Random(u64);

impl Random {
    fn fill(&mut self, block: &mut [u8]) {
        for chunk in block.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Compares two trees byte by byte.
pub(crate) fn same(one: &Path, other: &Path) -> Result<()> {
    run(Command::new("diff").arg("--recursive").arg("--brief").arg(one).arg(other))
}
