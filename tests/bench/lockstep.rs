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
pub(crate) struct Installation {
    child: Child,
    data: PathBuf,
    program: PathBuf,
}

impl Installation {
    /// Starts them with the settings that nobody changed, but for variables of single children: child, name, value.
    pub(crate) fn start(work: &Work, variables: &[(&str, &str, &str)]) -> Result<Self> {
        let program = env::var_os("LOCKSTEP_BIN")
            .map_or_else(|| PathBuf::from("target/release/lockstep"), PathBuf::from);
        let program = fs::canonicalize(&program).with_context(|| format!("{}", program.display()))?;
        let data = work.fresh("data")?;
        let log = fs::File::create(work.path("up.log"))?;
        let mut command = Command::new(&program);
        for (child, name, value) in variables {
            let child = child.replace('.', "_");
            command.env(format!("LOCKSTEP_CHILD_ENV_{child}"), format!("{name}={value}"));
        }
        let child = command
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
        run(&mut self.registration(from, to, "s1"))
    }

    /// The command that registers on a server and waits until it is in sync everywhere.
    pub(crate) fn registration(&self, from: &Path, to: &str, server: &str) -> Command {
        let mut command = self.command(&["file", "register"]);
        command.arg(from).arg(to).args(["--server", server, "--wait", "--timeout", "10m"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// A command of the command line.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("LOCKSTEP_DATA", &self.data);
        command
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The bytes that the filesync of a server has had from the disk itself.
    pub(crate) fn read_bytes(&self, server: &str) -> Result<u64> {
        let pid = fs::read_to_string(self.data.join(format!("run/{server}.filesync.pid")))?;
        let text = fs::read_to_string(format!("/proc/{}/io", pid.trim()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: ")).context("no figure")?;
        Ok(line.trim().parse()?)
    }

    /// The processor time that the filesync of a server has had.
    pub(crate) fn processor(&self, server: &str) -> Result<Duration> {
        let pid = fs::read_to_string(self.data.join(format!("run/{server}.filesync.pid")))?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        // In user and in system mode, in hundredths of a second.
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }

    /// The transfer directory of a server.
    pub(crate) fn transfer(&self, server: &str) -> PathBuf {
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
    let installation = Installation::start(work, &[])?;
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
