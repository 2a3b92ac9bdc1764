//! Environments in which a filesync cannot do its work: it says so, and nothing is half done.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use lockstep_proto::{
    filesync::v1::GetFileRequest,
    gateway::v1::{ListRowsRequest, cell},
};
use lockstep_tests::harness::{Installation, Ledger, Options, addressed, content, registration, wait};

/// For one step to have its effect, on a machine that does other things too.
const STEP_MAX: Duration = Duration::from_secs(30);
/// More than the small disk below has.
const TOO_LARGE: usize = 80 << 20;

/// H8, I1, I7, I10, R44: a second filesync on a state directory or on a root, a root that is read-only, one that is not
/// mounted, and a disk that is full are each refused with their reason; everything goes on when that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_environments_are_refused_clearly() {
    let installation = Installation::start(Options::every("2s")).await;
    let client = installation.client("publisher");
    let mut ledger = Ledger::default();
    ledger.register(&client, "s1", "first.bin", content("first.bin", 5_000)).await.expect("registered");
    installation.in_sync(&ledger, STEP_MAX).await;
    let arguments = arguments(&installation, "s3.filesync").await;
    let elsewhere = [("--listen=", "127.0.0.1:0".to_owned())];

    let second = Alone::start(&installation, "second", "exec \"$@\"", &changed(&arguments, &elsewhere));
    let (code, log) = second.ended().await;
    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains("is in use") && log.contains("stop the other filesync of this server"), "{log}");

    let state = installation.directory().join("other-state");
    let other = [elsewhere[0].clone(), ("--state=", state.display().to_string())];
    let other = Alone::start(&installation, "other", "exec \"$@\"", &changed(&arguments, &other));
    other.says("another process uses").await;
    drop(other);

    installation.take_down("s3.filesync").await;
    let mount = "mount --bind \"$ROOT\" \"$ROOT\" && mount -o remount,bind,ro \"$ROOT\" && exec \"$@\"";
    let read_only = Alone::in_mounts(&installation, "read-only", mount, &arguments);
    refused(&installation, "STORE_READ_ONLY").await;
    ledger.register(&client, "s1", "second.bin", content("second.bin", 5_000)).await.expect("registered");
    not_in_sync(&installation, "second.bin").await;
    drop(read_only);

    let unmounted = Alone::in_mounts(
        &installation,
        "unmounted",
        "mount -t tmpfs none \"$ROOT\" && exec \"$@\"",
        &arguments,
    );
    refused(&installation, "STORE_OFFLINE").await;
    unmounted.says("is it mounted?").await;
    not_in_sync(&installation, "second.bin").await;
    drop(unmounted);

    let mount = "cp -a \"$ROOT/.\" \"$COPY\" && mount -t tmpfs -o size=64m none \"$ROOT\" && cp -a \"$COPY/.\" \"$ROOT\" && exec \"$@\"";
    let small = changed(&arguments, &[("--reserve-bytes=", "0".to_owned())]);
    let full = Alone::in_mounts(&installation, "full", mount, &small);
    let large = installation.directory().join("large.bin");
    fs::write(&large, content("large.bin", TOO_LARGE)).expect("written");
    installation
        .run(&["file", "register", large.to_str().expect("UTF-8"), "large.bin", "--server", "s1"])
        .await;
    wait::until("s3 says that its disk is full", STEP_MAX, || async {
        let (state, reason) = cell_of(&installation, "large.bin").await;
        if state == cell::State::Failed && reason == "DISK_FULL" {
            Ok(())
        } else {
            Err(format!("{state:?} {reason}"))
        }
    })
    .await;
    let request = GetFileRequest { path: "large.bin".to_owned() };
    let file = client.files().get_file(request).await;
    ledger.note(&file.expect("registered").into_inner().file.expect("the contract says so"));
    // What the small disk took is gone with it, so it is given up before.
    for path in ["large.bin", "second.bin"] {
        ledger.delete(&client, "s2", path).await.expect("deleted");
    }
    installation.in_sync(&ledger, STEP_MAX).await;
    drop(full);

    installation.bring_up("s3.filesync", &[]).await;
    let third = wait::until("s3 registers again", STEP_MAX, || async {
        let request = addressed(registration("third.bin", content("third.bin", 5_000)), "s3");
        client.files().register_file(request).await
    })
    .await;
    ledger.note(&third.into_inner().file.expect("the contract says so"));
    wait::until("the whole server is in sync", STEP_MAX, || async {
        let (state, reason) = cell_of(&installation, "third.bin").await;
        if state == cell::State::InSync { Ok(()) } else { Err(format!("{state:?} {reason}")) }
    })
    .await;
    installation.in_sync(&ledger, STEP_MAX).await;
    ledger.check_disks(&installation);
    ledger.check_indexes(&installation);
}

/// A call to s3 is refused with this reason.
async fn refused(installation: &Installation, reason: &str) {
    let client = installation.client("publisher");
    wait::until(format!("s3 refuses with {reason}"), STEP_MAX, || async {
        let request = addressed(registration("refused.bin", content("refused.bin", 10)), "s3");
        let status = client.files().register_file(request).await.expect_err("s3 cannot store anything");
        let failure = lockstep_chassis::status::read(&status);
        if failure.reason.as_str() == reason { Ok(()) } else { Err(failure.to_string()) }
    })
    .await;
}

/// A file is not on s3, and the matrix does not say that it is.
async fn not_in_sync(installation: &Installation, path: &str) {
    let (state, reason) = cell_of(installation, path).await;
    assert!(state != cell::State::InSync, "I10: {path} is {state:?} on s3 ({reason})");
    assert!(!installation.transfer("s3").join(path).exists());
}

/// What the matrix says of a file on s3, and why.
async fn cell_of(installation: &Installation, path: &str) -> (cell::State, String) {
    let request = ListRowsRequest { path_prefix: path.to_owned(), ..ListRowsRequest::default() };
    let rows =
        installation.client("viewer").matrix().list_rows(request).await.expect("listed").into_inner().rows;
    let cell = rows.into_iter().flat_map(|row| row.cells).find(|cell| cell.server_id == "s3");
    let reason = cell.as_ref().and_then(|cell| cell.failure.as_ref()).map(|failure| failure.reason.clone());
    let reason = reason.unwrap_or_default();
    (cell.map_or(cell::State::Unspecified, |cell| cell.state()), reason)
}

/// What the supervisor started a child with.
pub(crate) async fn arguments(installation: &Installation, child: &str) -> Vec<String> {
    let pid = installation.process(child).await;
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    line.split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The arguments with other values.
fn changed(arguments: &[String], values: &[(&str, String)]) -> Vec<String> {
    let kept = arguments.iter().filter(|argument| !values.iter().any(|(name, _)| argument.starts_with(name)));
    kept.cloned().chain(values.iter().map(|(name, value)| format!("{name}{value}"))).collect()
}

/// A filesync that no supervisor keeps. It ends with the test.
struct Alone {
    child: Child,
    log: PathBuf,
}

impl Alone {
    fn start(installation: &Installation, name: &str, script: &str, arguments: &[String]) -> Self {
        Self::spawn(Command::new("sh"), installation, name, script, arguments)
    }

    /// With mounts of its own, which nobody else sees.
    fn in_mounts(installation: &Installation, name: &str, script: &str, arguments: &[String]) -> Self {
        let mut command = Command::new("unshare");
        // Whoever is not root becomes root of a name space.
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh"]);
        Self::spawn(command, installation, name, script, arguments)
    }

    fn spawn(
        mut command: Command,
        installation: &Installation,
        name: &str,
        script: &str,
        arguments: &[String],
    ) -> Self {
        let log = installation.directory().join(format!("{name}.log"));
        let copy = installation.directory().join(format!("{name}-copy"));
        fs::create_dir_all(&copy).expect("made");
        let file = fs::File::create(&log).expect("made");
        let child = command
            .args(["-c", script, "sh"])
            .args(arguments)
            .env("ROOT", installation.root("s3"))
            .env("COPY", copy)
            .env("LOCKSTEP_SUPERVISED", "1")
            .stdin(Stdio::piped())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("started");
        Self { child, log }
    }

    async fn ended(mut self) -> (Option<i32>, String) {
        let status = wait::until("the end of a filesync", STEP_MAX, || {
            let ended = self.child.try_wait().expect("a child can be asked");
            async move { ended.ok_or("it runs") }
        })
        .await;
        (status.code(), read(&self.log))
    }

    async fn says(&self, words: &str) {
        wait::until(format!("a filesync says {words:?}"), STEP_MAX, || async {
            let log = read(&self.log);
            if log.contains(words) { Ok(()) } else { Err(log) }
        })
        .await;
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
