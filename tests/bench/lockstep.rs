//! Lockstep itself: real processes, mutual TLS, a registry with full durability, and the command line that people use.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    Sample,
    work::{Set, Work, run, same},
};

/// How long three servers may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Three servers that end with the measurement.
struct Installation {
    child: Child,
    data: PathBuf,
    program: PathBuf,
}

impl Installation {
    fn start(work: &Work) -> Result<Self> {
        let program = env::var_os("LOCKSTEP_BIN")
            .map_or_else(|| PathBuf::from("target/release/lockstep"), PathBuf::from);
        let program = fs::canonicalize(&program).with_context(|| format!("{}", program.display()))?;
        let data = work.fresh("data")?;
        let log = fs::File::create(work.path("up.log"))?;
        let child = Command::new(&program)
            .args(["up", "--servers", "3", "--gateway-port", "0", "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut installation = Self { child, data, program };
        let begun = Instant::now();
        while !installation.data.join("run/ready").exists() {
            if begun.elapsed() > READY_WITHIN || installation.child.try_wait()?.is_some() {
                bail!("three servers did not get ready: {}", fs::read_to_string(work.path("up.log"))?);
            }
            thread::yield_now();
        }
        Ok(installation)
    }

    fn register(&self, from: &Path, to: &str) -> Result<()> {
        run(Command::new(&self.program)
            .env("LOCKSTEP_DATA", &self.data)
            .args(["file", "register"])
            .arg(from)
            .arg(to)
            .args(["--server", "s1", "--wait", "--timeout", "10m"]))
    }

    fn transfer(&self, server: &str) -> PathBuf {
        self.data.join("servers").join(server).join("root/ums_filetransfer")
    }

    /// The most memory that the filesync of a server ever had.
    fn peak(&self, server: &str) -> Result<u64> {
        let pid = fs::read_to_string(self.data.join(format!("run/{server}.filesync.pid")))?;
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
        Ok(kib << 10)
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// From the call to verified on all three servers.
pub(crate) fn measure(work: &Work, set: &Set, source: &Path) -> Result<Sample> {
    let installation = Installation::start(work)?;
    Work::warm(set);
    let begun = Instant::now();
    match set {
        Set::Big { .. } => installation.register(&source.join("firmware.bin"), "firmware.bin")?,
        Set::Tree { .. } => installation.register(source, "tree")?,
    }
    let time = begun.elapsed();
    let mut memory = Vec::new();
    for server in ["s1", "s2", "s3"] {
        let copy = installation.transfer(server);
        match set {
            Set::Big { .. } => same(source, &copy)?,
            Set::Tree { .. } => same(source, &copy.join("tree"))?,
        }
        memory.push((server.to_owned(), installation.peak(server)?));
    }
    Ok(Sample { time, memory })
}
