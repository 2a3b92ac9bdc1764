//! Real mounts that nobody else sees: a test that needs them runs itself again in a mount namespace of its own. Where the
//! machine refuses that, the test fails.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::wait;

/// Until nobody writes for a moment.
const REMOUNT_MAX: Duration = Duration::from_secs(20);
/// Tells the second process that it is the second one.
const INSIDE: &str = "LOCKSTEP_OWN_MOUNTS";
/// Bytes that fill a disk, at once.
const PIECE_BYTES: usize = 64 << 10;

/// Runs `body` in a mount namespace: `test` is the name of the calling test in its binary, such as `disks::a_full_disk`.
/// Whoever is not root becomes root of a user namespace as well.
///
/// # Panics
/// If the machine has no such namespaces, if there is no such test, or if the body fails.
pub fn in_own_mounts<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(body());
        return;
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let own = env::current_exe().expect("a test is a program");
    command.arg("--mount").arg(own).args([test, "--exact", "--nocapture", "--test-threads=1"]);
    let output = command.env(INSIDE, "1").output().expect("unshare of util-linux can be started");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
    eprint!("{text}");
}

/// A mount in place of a directory that exists. Dropped, it is taken away.
#[derive(Debug)]
pub struct Mount {
    place: PathBuf,
}

impl Mount {
    /// A file system of its own with room for so many bytes; what was in the directory is in it.
    ///
    /// # Panics
    /// If the machine refuses it.
    pub fn disk(place: &Path, bytes: u64) -> Self {
        let kept = place.with_extension("kept");
        run("cp", &["-a".as_ref(), place.as_ref(), kept.as_ref()]);
        let size = format!("size={bytes}");
        let args: [&OsStr; 6] =
            ["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), size.as_ref(), "disk".as_ref(), place.as_ref()];
        run("mount", &args);
        run("cp", &["-a".as_ref(), kept.join(".").as_ref(), place.as_ref()]);
        fs::remove_dir_all(kept).expect("removed");
        Self { place: place.to_owned() }
    }

    /// The directory itself, as a mount that can be made read-only.
    ///
    /// # Panics
    /// If the machine refuses it.
    pub fn bind(place: &Path) -> Self {
        run("mount", &["--bind".as_ref(), place.as_ref(), place.as_ref()]);
        Self { place: place.to_owned() }
    }

    /// Changes it under whoever uses it: `ro` or `rw`.
    ///
    /// # Panics
    /// If the machine refuses it, or somebody has a file open for writing all the time.
    pub async fn remount(&self, how: &str) {
        let options = format!("remount,bind,{how}");
        wait::until(format!("a mount becomes {how}"), REMOUNT_MAX, || async {
            try_run("mount", &["-o".as_ref(), options.as_ref(), self.place.as_ref()])
        })
        .await;
    }

    /// Bytes that can still be written.
    ///
    /// # Panics
    /// If the mount is gone.
    pub fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.place).expect("it is mounted");
        found.f_bavail * found.f_frsize
    }

    /// Lets a file grow until `left` bytes are free, as somebody does who does not know of us.
    ///
    /// # Panics
    /// If something else than want of room stops it.
    pub fn fill(&self, name: &str, left: u64) {
        let mut filler = File::create(self.place.join(name)).expect("made");
        while let more @ 1.. = self.free_bytes().saturating_sub(left) {
            let more = usize::try_from(more).map_or(PIECE_BYTES, |more| more.min(PIECE_BYTES));
            match filler.write_all(&vec![1; more]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whoever still works in it goes with the namespace.
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

fn run(program: &str, args: &[&OsStr]) {
    try_run(program, args).expect("the machine does that");
}

fn try_run(program: &str, args: &[&OsStr]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().expect("a tool that every Linux has");
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program} {args:?}: {text}")) }
}
