//! Uploads that are cut off on either side.

use std::{fs, process::Stdio, time::Duration};

use lockstep_proto::filesync::v1::{GetFileRequest, GetUploadRequest};
use lockstep_tests::harness::{Installation, Options, content, wait};

/// Long enough to be flushed on the way.
const SIZE: usize = 150 << 20;
/// What a crash may cost.
const RESEND_BYTES_MAX: u64 = 64 << 20;

/// R25, I1: when client and server are both killed in the middle of an upload, at most 64 MiB of what had arrived is to be
/// sent again, the server counts nothing that was not synced, and the same command goes on there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_upload_goes_on_where_it_is_safe() {
    let installation = Installation::start(Options { servers: 1, ..Options::default() }).await;
    let hold = installation.directory().join("hold");
    fs::write(&hold, "").expect("written");
    let pause = format!("filesync.upload.journaled={}", hold.display());
    let hits = installation.directory().join("hits").display().to_string();
    let variables = [
        ("LOCKSTEP_PAUSE", pause.as_str()),
        ("LOCKSTEP_HITS", hits.as_str()),
        ("LOCKSTEP_POINTS", "filesync.upload.journaled"),
    ];
    installation.restart("s1.filesync", &variables).await;
    let source = installation.directory().join("source");
    fs::write(&source, content("killed.bin", SIZE)).expect("written");
    let args = ["file", "register", source.to_str().expect("UTF-8"), "killed.bin", "--server", "s1"];
    let mut first =
        installation.command(&args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("started");
    wait::until("the server has noted what is safe", Duration::from_secs(60), || async {
        fs::read_to_string(&hits).map(drop).map_err(|error| error.to_string())
    })
    .await;
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
    assert!(committed >= 32 << 20, "only {committed} of {arrived} bytes are safe");
    assert!(arrived.saturating_sub(committed) <= RESEND_BYTES_MAX, "{committed} of {arrived}");
    // What arrived behind that may be anything after a power cut: it is not used.
    let place = staged.path();
    let file = fs::OpenOptions::new().write(true).open(place).expect("there");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 16], committed + 5).expect("written");
    fs::remove_file(&hold).expect("removed");

    installation.run(&args).await;
    let staged: Vec<_> = fs::read_dir(installation.staging("s1")).expect("a directory").flatten().collect();
    assert!(staged.is_empty(), "the same upload went on: {staged:?}");
    let file = client.files().get_file(GetFileRequest { path: "killed.bin".to_owned() }).await;
    let file = file.expect("registered").into_inner().file.expect("the contract says so");
    assert_eq!(file.digest, blake3::hash(&content("killed.bin", SIZE)).to_hex().to_string());
}
