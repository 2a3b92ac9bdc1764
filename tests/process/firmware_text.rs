//! Firmware as the command line tells it: its text is compared with `firmware.txt`; written anew like `cli.txt`.

use std::fs;

use lockstep_tests::harness::{
    Installation, Options, Vendor,
    vendor::{feed, offer, zip_of},
};
use serde_json::Value;

use crate::cli::{Seen, told, until_told};

/// Runs a command once and notes what it says, with `<id>` for the ids of the updates.
async fn note(installation: &Installation, seen: &mut Seen, ids: &[(String, &str)], args: &[&str]) {
    let (code, text) = told(installation, args).await;
    seen.note(&without(ids, &args.join(" ")), format!("{}\n=> {code}", without(ids, &text)));
}

fn without(ids: &[(String, &str)], text: &str) -> String {
    ids.iter()
        .fold(text.to_owned(), |text, (id, name)| text.replace(id.as_str(), name).replace(&id[..8], name))
}

/// R8, R9, R10, R11, R12, R36, R42, R53, R55, R56, R58, R59, R60, H1: what is offered, downloaded, imported, edited, placed and
/// deleted is told in words, and so is what is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firmware_is_told_in_words() {
    let vendor = Vendor::start().await;
    vendor.put("a.img", b"the first");
    let good = offer("os-1", "UD3", "12.1", &[("base.img", &vendor.uri("plain/a.img"), b"the first")]);
    let lying = offer("os-2", "UD3", "12.2", &[("base.img", &vendor.uri("plain/a.img"), b"the other")]);
    let malformed = serde_json::json!({ "id": "os-3", "model": "UD3", "version": "12.3", "files": [] });
    vendor.put("feed.json", &feed(&[good, lying, malformed]));
    let sources = vendor.sources_file(&[("acme", "plain/feed.json"), ("gone", "status/503/feed.json")]);
    let args = vec![format!("--sources={}", sources.display())];
    let installation = Installation::start(Options { servers: 2, args, ..Options::every("1h") }).await;
    let (mut seen, mut ids) = (Seen::default(), Vec::new());
    let run =
        ["firmware", "download", "os-1", "--source", "acme", "--server", "s1", "--target", "fw/os", "--wait"];

    note(&installation, &mut seen, &ids, &["settings"]).await;
    until_told(&installation, &mut seen, &["firmware", "check", "--source", "acme"], &["os-2", "=> 0"]).await;
    note(&installation, &mut seen, &ids, &["firmware", "ls"]).await;
    installation.run(&run).await;
    let listed: Value =
        serde_json::from_str(&installation.run(&["firmware", "ls", "--output", "json"]).await).expect("JSON");
    let id = |at: &Value| at["firmware_id"].as_str().expect("an id").to_owned();
    ids.push((id(&listed["firmware"][0]), "<id>"));
    let one = ids[0].0.clone();
    let port = vendor.port().to_string();
    let text = |text: String| text.replace(&port, "<port>");

    // R8: the option is off, and the matrix says so; R12: switched on, it is copied; R36: with another protocol, copies stay.
    let status = ["firmware", "status", &one];
    until_told_of(&installation, &mut seen, &ids, &status, &["complete on s1\n", "OPTION_OFF"]).await;
    note(&installation, &mut seen, &ids, &["settings", "set", "--firmware-synchronization", "on"]).await;
    until_told_of(&installation, &mut seen, &ids, &status, &["complete on s1, s2"]).await;
    note(&installation, &mut seen, &ids, &["firmware", "set", &one, "--host", "ftp.test"]).await;
    let password = installation.directory().join("password");
    fs::write(&password, "canary-in-words\n").expect("written");
    let password = password.to_str().expect("UTF-8").to_owned();
    let edit = [
        "firmware",
        "set",
        &one,
        "--protocol",
        "ftp",
        "--host",
        "ftp.test",
        "--port",
        "2121",
        "--path",
        "/fw",
        "--user",
        "fw",
        "--password-file",
        &password,
        "--in-use",
        "yes",
    ];
    let (code, told_of) = told(&installation, &edit).await;
    assert!(code == 0 && !told_of.contains("canary"), "{told_of}");
    until_told_of(
        &installation,
        &mut seen,
        &ids,
        &["firmware", "show", &one],
        &["PROTOCOL_NOT_WEBDAV", "ftp.test"],
    )
    .await;
    until_told_of(&installation, &mut seen, &ids, &status, &["complete on s1, s2", "PROTOCOL_NOT_WEBDAV"])
        .await;
    installation.run(&["firmware", "set", &one, "--protocol", "https-webdav"]).await;
    // R10: no WebDAV directory any more.
    note(&installation, &mut seen, &ids, &["settings", "set", "--webdav-directory", "other"]).await;
    until_told_of(&installation, &mut seen, &ids, &status, &["TARGET_NOT_WEBDAV"]).await;

    // R58: what the vendor lies about fails, and can be forgotten.
    let lie = [
        "firmware", "download", "os-2", "--source", "acme", "--server", "s1", "--target", "fw/lie", "--wait",
    ];
    let (code, told_of) = told(&installation, &lie).await;
    assert!(code == 1, "{told_of}");
    let listed: Value =
        serde_json::from_str(&installation.run(&["firmware", "ls", "--output", "json"]).await).expect("JSON");
    let failed = listed["firmware"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|at| at["state"] == "FAILED")
        .expect("one");
    ids.push((id(failed), "<failed>"));
    let failed = ids[1].0.clone();
    let (code, shown) = told(&installation, &["firmware", "show", &failed]).await;
    seen.note("firmware show <failed>", text(format!("{}\n=> {code}", without(&ids, &shown))));
    note(&installation, &mut seen, &ids, &["firmware", "cancel", &failed]).await;

    // R59: a zip instead; R60: no clean-up touches it, nor what is in use.
    let archive = installation.directory().join("os.zip");
    fs::write(&archive, zip_of(&[("one.txt", b"hello")])).expect("written");
    let archive = archive.to_str().expect("UTF-8").to_owned();
    let import = [
        "firmware",
        "import",
        &archive,
        "--model",
        "UD7",
        "--firmware-version",
        "13",
        "--server",
        "s2",
        "--target",
        "fw/zip",
        "--output",
        "json",
    ];
    let imported: Value = serde_json::from_str(&installation.run(&import).await).expect("JSON");
    ids.push((id(&imported), "<import>"));
    note(&installation, &mut seen, &ids, &["firmware", "rm", "--unused", "--dry-run"]).await;
    let bad = installation.directory().join("bad.zip");
    fs::write(&bad, zip_of(&[("../evil", b"x")])).expect("written");
    let bad = bad.to_str().expect("UTF-8").to_owned();
    let refused =
        ["firmware", "import", &bad, "--model", "UD7", "--firmware-version", "14", "--server", "s2"];
    let (code, told_of) = told(&installation, &refused).await;
    let told_of = told_of.replace(&installation.directory().display().to_string(), "<directory>");
    seen.note("firmware import bad.zip", format!("{told_of}\n=> {code}"));
    for wrong in [
        &["firmware", "show", "zzzz"][..],
        &["firmware", "download", "os-9", "--source", "acme", "--server", "s1"],
        &["firmware", "download", "os-2", "--source", "acme", "--server", "s1", "--target", "../up"],
        &["firmware", "download", "os-2", "--source", "acme", "--server", "s9"],
        &["firmware", "rm", &one, "--revision", "1"],
        &["firmware", "set", &one],
    ] {
        let (code, told_of) = told(&installation, wrong).await;
        // How many changes there were before depends on when servers announced themselves.
        let lines = told_of.lines().filter(|line| !line.contains("actual_revision"));
        let told_of = lines.map(|line| without(&ids, line)).collect::<Vec<_>>().join("\n");
        let told_of = told_of.split(" is at revision ").next().unwrap_or_default().to_owned();
        seen.note(&without(&ids, &wrong.join(" ")), format!("{told_of}\n=> {code}"));
    }
    note(&installation, &mut seen, &ids, &["firmware", "rm", &one, "--revision", "current"]).await;
    let (_, told_of) = told(&installation, &["firmware", "check"]).await;
    assert!(told_of.contains("source gone: ") && told_of.contains("VENDOR_UNREACHABLE"), "{told_of}");
    seen.compare("firmware.txt");
}

/// [`until_told`], with names for the ids of the updates.
async fn until_told_of(
    installation: &Installation,
    seen: &mut Seen,
    ids: &[(String, &str)],
    args: &[&str],
    words: &[&str],
) {
    let mut alone = Seen::default();
    until_told(installation, &mut alone, args, words).await;
    for (name, text) in alone.into_texts() {
        seen.note(&without(ids, &name), without(ids, &text));
    }
}
