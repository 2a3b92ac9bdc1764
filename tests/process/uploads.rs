//! Uploads that are cut off on either side.

use std::{
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lockstep_proto::filesync::v1::{GetFileRequest, GetUploadRequest};
use lockstep_tests::harness::{Hold, Installation, Ledger, Options, Relay, binary, content, wait};

/// Long enough to be flushed on the way.
const SIZE: usize = 150 << 20;
/// What a crash may cost.
const RESEND_BYTES_MAX: u64 = 64 << 20;
/// An upload that is cut off near its end.
const LARGE_BYTES: u64 = 1 << 30;
/// What TLS, HTTP/2 and messages add to the bytes of a file, all commands together.
const FRAMING_BYTES_MAX: u64 = LARGE_BYTES / 256;
/// For such an upload to be over, on a machine that does other things too.
const LARGE_MAX: Duration = Duration::from_secs(180);
/// Where the command line finds what it calls localhost; everything else of the installation finds the real one.
const NEAR: &str = "127.0.0.2";

/// R25, I1: when client and server are both killed in the middle of an upload, at most 64 MiB of what had arrived is to be
/// sent again, the server counts nothing that was not synced, and the same command goes on there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_upload_goes_on_where_it_is_safe() {
    let installation = Installation::start(Options { servers: 1, ..Options::default() }).await;
    let hold = Hold::new(&installation, "upload", "filesync.upload.journaled");
    installation.restart("s1.filesync", &hold.variables()).await;
    let source = installation.directory().join("source");
    fs::write(&source, content("killed.bin", SIZE)).expect("written");
    let args = ["file", "register", source.to_str().expect("UTF-8"), "killed.bin", "--server", "s1"];
    let mut first =
        installation.command(&args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("started");
    // The server has noted what is safe.
    hold.reached().await;
    let staged =
        fs::read_dir(installation.staging("s1")).expect("a directory").flatten().next().expect("an upload");
    let id =
        staged.file_name().to_str().expect("UTF-8").strip_prefix("upload-").expect("an upload").to_owned();
    let arrived = staged.metadata().expect("there").len();
    first.kill().expect("it runs");
    first.wait().expect("it ended");
    installation.restart("s1.filesync", &[]).await;

    let client = installation.client("local");
    let safe = wait::until("the server answers", Duration::from_secs(30), || {
        let request = GetUploadRequest { upload_id: id.clone() };
        let mut uploads = client.uploads_at("s1.filesync");
        async move { uploads.get_upload(request).await.map_err(|status| status.to_string()) }
    })
    .await
    .into_inner();
    let committed = u64::try_from(safe.committed_bytes).expect("not negative");
    assert_eq!((safe.size_bytes, safe.digest.as_str()), (SIZE as i64, ""));
    assert!(committed >= 16 << 20, "only {committed} of {arrived} bytes are safe");
    assert!(arrived.saturating_sub(committed) <= RESEND_BYTES_MAX, "{committed} of {arrived}");
    // What arrived behind that may be anything after a power cut: it is not used.
    let place = staged.path();
    let file = fs::OpenOptions::new().write(true).open(place).expect("there");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 16], committed + 5).expect("written");
    hold.release();

    installation.run(&args).await;
    let staged: Vec<_> = fs::read_dir(installation.staging("s1")).expect("a directory").flatten().collect();
    assert!(staged.is_empty(), "the same upload went on: {staged:?}");
    let file = client.files().get_file(GetFileRequest { path: "killed.bin".to_owned() }).await;
    let file = file.expect("registered").into_inner().file.expect("the contract says so");
    assert_eq!(file.digest, blake3::hash(&content("killed.bin", SIZE)).to_hex().to_string());
}

/// R25, I1: an upload of 1 GiB whose server is killed at 90 %, and one whose client is, send at most 64 MiB again, as a
/// relay counts on the wire; the bytes that are registered are the ones that were sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_killed_near_its_end_sends_little_again() {
    let installation = Installation::start(Options { servers: 1, ..Options::default() }).await;
    let ways = ["gateway", "s1.filesync"].map(|child| {
        let port = installation.uri(child).rsplit_once(':').expect("a port").1.to_owned();
        let [at, to] = [NEAR, "127.0.0.1"].map(|host| format!("{host}:{port}"));
        [at, to].map(|text| text.parse::<SocketAddr>().expect("an address")).into()
    });
    let relay = Relay::start(ways.to_vec()).await;
    let source = installation.directory().join("source");
    let digest = write_source(&source);

    for (path, kills_server) in [("server.bin", true), ("client.bin", false)] {
        let before = relay.sent_bytes();
        relay.hold_at(before + LARGE_BYTES / 10 * 9);
        let mut client = Relayed::start(&installation, &source, path);
        wait::until(format!("90 % of {path} are sent"), LARGE_MAX, || async {
            let now = relay.sent_bytes() - before;
            if now >= LARGE_BYTES / 10 * 9 { Ok(()) } else { Err(now) }
        })
        .await;
        if kills_server {
            installation.kill("s1.filesync").await;
            relay.hold_at(u64::MAX);
        } else {
            client.0.kill().expect("it runs");
            client.0.wait().expect("it ended");
            relay.hold_at(u64::MAX);
            client = Relayed::start(&installation, &source, path);
        }
        let status = wait::until(format!("{path} is registered"), LARGE_MAX, || {
            let ended = client.0.try_wait().expect("a child");
            async move { ended.ok_or("it runs") }
        })
        .await;
        assert!(status.success(), "{path}: {status}");
        let all = relay.sent_bytes() - before;
        eprintln!("{path}: {} MiB sent again", (all.saturating_sub(LARGE_BYTES)) >> 20);
        assert!(all > LARGE_BYTES, "the relay sees what is sent");
        assert!(all <= LARGE_BYTES + RESEND_BYTES_MAX + FRAMING_BYTES_MAX, "{path}: {all} bytes were sent");
        let request = GetFileRequest { path: path.to_owned() };
        let file = installation.client("viewer").files().get_file(request).await.expect("registered");
        assert_eq!(file.into_inner().file.expect("the contract says so").digest, digest);
        // The next one needs the space.
        let mut ledger = Ledger::listed(&installation).await;
        ledger.delete(&installation.client("publisher"), "s1", path).await.expect("deleted");
    }
}

/// A command line for which localhost is elsewhere: in a mount namespace of its own, with another table of hosts.
struct Relayed(Child);

impl Relayed {
    fn start(installation: &Installation, source: &Path, path: &str) -> Self {
        let hosts = installation.directory().join("hosts");
        fs::write(&hosts, format!("{NEAR} localhost\n")).expect("written");
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command
            .args(["--mount", "sh", "-c", "mount --bind \"$HOSTS\" /etc/hosts && exec \"$@\"", "sh"])
            .arg(binary())
            .args(["file", "register"])
            .arg(source)
            .args([path, "--server", "s1"])
            .env("LOCKSTEP_DATA", installation.data())
            .env("HOSTS", hosts)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self(command.spawn().expect("started"))
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes bytes that no disk can leave out; answers their digest.
fn write_source(place: &Path) -> String {
    let (mut file, mut hasher) = (File::create(place).expect("made"), blake3::Hasher::new());
    let mut bytes = blake3::Hasher::new().update(b"a large upload").finalize_xof();
    let mut piece = vec![0; 16 << 20];
    for _ in 0..LARGE_BYTES / (16 << 20) {
        bytes.fill(&mut piece);
        hasher.update(&piece);
        file.write_all(&piece).expect("written");
    }
    hasher.finalize().to_hex().to_string()
}
