//! The command line as a person sees it: its text is compared, for each state and several reasons, made by real processes.
//!
//! What is compared is in `cli.txt`, with times, rates, ids and ports replaced. After a change that is meant:
//! `UPDATE=1 cargo nextest run --workspace -E 'test(each_state_is_told_in_words)'`, and read the difference.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use lockstep_tests::{
    harness::{Installation, Options, wait},
    normal::normal,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Until a state is told, on a busy machine.
const TOLD_MAX: Duration = Duration::from_secs(60);
/// A file that is copied in pieces.
const LARGE_BYTES: usize = 160 << 20;

/// Every text that was seen, with its name.
#[derive(Default)]
pub(crate) struct Seen(Vec<(String, String)>);

impl Seen {
    pub(crate) fn note(&mut self, name: &str, text: String) {
        self.0.push((name.to_owned(), text));
    }

    /// Everything that was noted.
    pub(crate) fn into_texts(self) -> Vec<(String, String)> {
        self.0
    }

    /// Compares with the recorded texts, all of them at once.
    pub(crate) fn compare(&self, record: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("process").join(record);
        let sections = self.0.iter().map(|(name, text)| format!("$ {name}\n{text}\n"));
        let now = sections.collect::<Vec<_>>().join("\n");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(path, now).expect("written");
            return;
        }
        let recorded = fs::read_to_string(path).expect("the record is there");
        if recorded == now {
            return;
        }
        let changed = now.lines().filter(|line| !recorded.lines().any(|known| known == *line));
        let gone = recorded.lines().filter(|line| !now.lines().any(|known| known == *line));
        let lines: Vec<String> =
            gone.map(|line| format!("- {line}")).chain(changed.map(|line| format!("+ {line}"))).collect();
        panic!("the text of the command line is another:\n{}\n\nall of it:\n{now}", lines.join("\n"));
    }
}

async fn output(installation: &Installation, args: &[&str]) -> Output {
    let mut command = installation.command(args);
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("started")
}

/// Runs a command, gives its code and what it printed, normalised: first the result, then the error.
pub(crate) async fn told(installation: &Installation, args: &[&str]) -> (i32, String) {
    let output = output(installation, args).await;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).replace(&installation.data().display().to_string(), "<data>");
    let lines = normal(&text).lines().map(without_count).collect::<Vec<_>>().join("\n");
    (output.status.code().expect("it ended by itself"), lines)
}

/// How far the copies on other servers than the asked one are depends on the moment.
fn without_count(line: &str) -> String {
    let counted = "; verified on ";
    let Some((before, after)) = line.split_once(counted) else { return line.to_owned() };
    let servers = after.split(';').next().and_then(|counts| counts.split_once(" of ")).map(|(_, of)| of);
    format!("{before}{counted}<n> of {}", servers.unwrap_or_default())
}

/// Runs a command until it says all of `words`, and notes what it says then, with its exit code.
pub(crate) async fn until_told(installation: &Installation, seen: &mut Seen, args: &[&str], words: &[&str]) {
    let text = wait::until(format!("{args:?} says {words:?}"), TOLD_MAX, || async {
        let (code, text) = told(installation, args).await;
        let text = format!("{text}\n=> {code}");
        if words.iter().all(|word| text.contains(word)) { Ok(text) } else { Err(text) }
    })
    .await;
    seen.note(&args.join(" "), text);
}

/// `lockstep events` in the background: its lines as JSON.
fn events(installation: &Installation) -> (std::process::Child, mpsc::Receiver<Value>) {
    let mut command = installation.command(&["events", "--output", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (sender, receiver) = mpsc::sync_channel(100_000);
    std::thread::Builder::new()
        .spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("each line is one document");
                if sender.send(event).is_err() {
                    return;
                }
            }
        })
        .expect("a thread");
    (child, receiver)
}

/// R23, R26, R28, R42, R43, R44, H1, H10: each state and several reasons, made by real servers, are told by `file why`,
/// `status`, `sync` and `events` as recorded, with what to do; exit codes say the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_state_is_told_in_words() {
    let outside = tempfile::tempdir().expect("a directory");
    let hold = outside.path().join("hold");
    fs::write(&hold, "").expect("written");
    let set = |child: &str, name: &str, value: String| (child.to_owned(), name.to_owned(), value);
    let environment = vec![
        // Sent on while it arrives, the large file would be everywhere before it is registered.
        set("s1.filesync", "FILESYNC_RELAY_BYTES_MIN", u64::MAX.to_string()),
        set("s2.filesync", "LOCKSTEP_PAUSE", format!("filesync.fetch.journaled={}", hold.display())),
        set("s3.filesync", "FILESYNC_RESERVE_BYTES", (1_u64 << 60).to_string()),
        set("s4.filesync", "FILESYNC_MODE", "standalone".to_owned()),
    ];
    let options = Options { servers: 4, environment, ..Options::every("1h") };
    let installation = Installation::start(options).await;
    let mut seen = Seen::default();
    let (mut following, happened) = events(&installation);
    let first = tokio::task::spawn_blocking(move || {
        let mut first = Vec::new();
        while !first.iter().any(|event: &Value| event["event"] == "WATCHING") {
            first.push(happened.recv_timeout(TOLD_MAX).expect("it begins"));
        }
        (first, happened)
    });
    let (mut story, happened) = first.await.expect("no panic");

    let source = outside.path().join("source");
    fs::write(&source, "some bytes\n").expect("written");
    let source = source.to_str().expect("UTF-8").to_owned();
    let register = async |path: &str| {
        installation.run(&["file", "register", &source, path, "--server", "s1"]).await;
    };

    // IN_SYNC, DISK_FULL and NOT_ELIGIBLE.
    register("docs/a.txt").await;
    until_told(
        &installation,
        &mut seen,
        &["file", "why", "docs/a.txt", "--server", "s2"],
        &["IN_SYNC", "compared"],
    )
    .await;
    let full = ["file", "why", "docs/a.txt", "--server", "s3"];
    until_told(&installation, &mut seen, &full, &["FAILED", "DISK_FULL", "again, in"]).await;
    until_told(&installation, &mut seen, &["file", "why", "docs/a.txt", "--server", "s4"], &["NOT_ELIGIBLE"])
        .await;

    // A link in place of a directory.
    std::os::unix::fs::symlink(outside.path(), installation.transfer("s2").join("linked")).expect("a link");
    register("linked/b.txt").await;
    let linked = ["file", "why", "linked/b.txt", "--server", "s2"];
    until_told(&installation, &mut seen, &linked, &["FAILED", "LOOSE_FILE_EXISTS", "again, in"]).await;

    // Drift.
    fs::write(installation.transfer("s2").join("docs/a.txt"), "somebody's bytes").expect("written");
    installation.run(&["file", "check", "--server", "s2"]).await;
    let drifted = ["file", "why", "docs/a.txt", "--server", "s2"];
    until_told(&installation, &mut seen, &drifted, &["FAILED", "DRIFTED", "nothing happens"]).await;

    // What was never registered, deleted, and lies loose.
    let never = ["file", "why", "no/such"];
    until_told(&installation, &mut seen, &never, &["not registered"]).await;
    fs::write(installation.transfer("s1").join("loose.txt"), "nobody's").expect("written");
    until_told(&installation, &mut seen, &["file", "why", "loose.txt"], &["loose file"]).await;

    // A run that only a person and a full disk keep, and one that only a person keeps.
    let late = ["sync", "docs/", "--wait", "--timeout", "2s"];
    until_told(&installation, &mut seen, &late, &["DISK_FULL", "DRIFTED", "docs/a.txt on s3", "=> 2"]).await;
    let undecided = ["sync", "docs/", "--server", "s2", "--wait"];
    until_told(&installation, &mut seen, &undecided, &["wait for a decision", "=> 2"]).await;
    until_told(
        &installation,
        &mut seen,
        &["sync", "docs/", "--server", "s1", "--wait"],
        &["COMPLETED", "=> 0"],
    )
    .await;
    let listed = output(&installation, &["sync", "ls", "--output", "json"]).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("one document");
    let of_s2 = |run: &&Value| run["server_ids"] == serde_json::json!(["s2"]);
    let run = listed["runs"].as_array().and_then(|runs| runs.iter().find(of_s2)).expect("it is listed");
    let id = run["run_id"].as_str().expect("an id").to_owned();
    let (code, text) = told(&installation, &["sync", "show", &id]).await;
    seen.note("sync show", format!("{text}\n=> {code}"));
    let (code, text) = told(&installation, &["sync", "cancel", &id]).await;
    seen.note("sync cancel", format!("{text}\n=> {code}"));
    until_told(&installation, &mut seen, &["sync", "ls"], &["WAITING", "COMPLETED", "CANCELLED"]).await;

    // A copy that is under way, and one that a server has not come to.
    let large = outside.path().join("large.bin");
    fs::write(&large, vec![7; LARGE_BYTES]).expect("written");
    let large = large.to_str().expect("UTF-8").to_owned();
    installation
        .run(&["file", "register", &large, "firmware/drivers/network/large-file.bin", "--server", "s1"])
        .await;
    let copying = ["file", "why", "firmware/drivers/network/large-file.bin", "--server", "s2"];
    until_told(&installation, &mut seen, &copying, &["COPYING", "standing still"]).await;
    until_told(
        &installation,
        &mut seen,
        &["status"],
        &["still", "DISK_FULL: 3", "LOOSE_FILE_EXISTS: 1", "=> 2"],
    )
    .await;
    let (_, text) = told(&installation, &["server", "ls"]).await;
    seen.note("server ls", text);
    check_terminal(&installation).await;
    assert_documented(&installation, &id, &story).await;
    installation.pause("s2.filesync").await;
    register("docs/late.txt").await;
    until_told(&installation, &mut seen, &["file", "why", "docs/late.txt", "--server", "s2"], &["PENDING"])
        .await;
    installation.signal("s2.filesync", Signal::SIGCONT).await;

    // A server that is gone.
    installation.take_down("s3.filesync").await;
    let gone = ["file", "why", "docs/a.txt", "--server", "s3"];
    until_told(&installation, &mut seen, &gone, &["UNREACHABLE", "PEER_UNREACHABLE"]).await;
    let stuck = ["sync", "--server", "s3", "--wait", "--timeout", "2s"];
    until_told(&installation, &mut seen, &stuck, &["PEER_UNREACHABLE", "=> 2"]).await;
    fs::remove_file(&hold).expect("released");
    until_told(
        &installation,
        &mut seen,
        &["file", "why", "firmware/drivers/network/large-file.bin", "--server", "s2"],
        &["IN_SYNC", "compared"],
    )
    .await;

    // Whoever mistypes a path is told, though a run about nothing has nothing to do.
    let nothing = ["sync", "no/such/", "--server", "s1"];
    until_told(&installation, &mut seen, &nothing, &["no registered file begins with no/such/", "=> 0"])
        .await;

    // Errors: what, where, why, what to do, with the reason.
    let errors: [(&[&str], &str); 5] = [
        (&["file", "get", "no/such"], "FILE_NOT_FOUND"),
        (&["file", "why", "../x"], "PATH_INVALID"),
        (&["file", "why", "docs/a.txt", "--server", "s9"], "SERVER_UNKNOWN"),
        (&["sync", "show", "00000000-0000-0000-0000-000000000000"], "SYNC_RUN_NOT_FOUND"),
        (&["sync", "--operator", "viewer"], "PERMISSION_DENIED"),
    ];
    for (args, reason) in errors {
        until_told(&installation, &mut seen, args, &[reason, "=> 1"]).await;
    }
    installation.take_down("gateway").await;
    until_told(&installation, &mut seen, &["sync", "ls"], &["=> 69"]).await;
    until_told(&installation, &mut seen, &["events"], &["=> 69"]).await;
    let wrong = output(&installation, &["sync", "--timeout", "5s"]).await;
    assert_eq!(wrong.status.code(), Some(64), "a timeout without --wait means nothing");

    following.kill().expect("it runs");
    following.wait().expect("it ends");
    story.extend(happened.try_iter());
    assert_story(&story);
    seen.compare("cli.txt");
}

/// What happened, in the order that matters.
fn assert_story(story: &[Value]) {
    let at = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        story.iter().position(is_it).unwrap_or_else(|| panic!("{what} was not told: {story:#?}"))
    };
    let copy = |path: &'static str, server: &'static str, to: &'static str| {
        move |it: &Value| {
            it["event"] == "COPY" && it["path"] == path && it["server_id"] == server && it["to"] == to
        }
    };
    let reason = |it: &Value| it["failure"]["reason"].as_str().unwrap_or_default().to_owned();
    let registered = at("the file", &|it| it["event"] == "FILE_CHANGED" && it["path"] == "docs/a.txt");
    let held = at("the copy", &copy("docs/a.txt", "s2", "IN_SYNC"));
    let drifted = at("the drift", &|it| copy("docs/a.txt", "s2", "FAILED")(it) && reason(it) == "DRIFTED");
    let gone = at("the end of s3", &|it| {
        it["event"] == "SERVER" && it["server_id"] == "s3" && it["to"] == "UNREACHABLE"
    });
    let full = at("the full disk", &|it| it["event"] == "CONDITION_BEGAN" && reason(it) == "DISK_FULL");
    assert!(registered < held && held < drifted && drifted < gone && full < gone, "{story:#?}");
    assert!(story.iter().all(|it| it["time"].as_str().is_some_and(|time| time.ends_with('Z'))));
    // The two streams have no common order: what was known of a copy on s3 may be told after its end, the end once only.
    let silent = |it: &&Value| it["event"] == "COPY" && it["to"] == "UNREACHABLE";
    assert_eq!(story.iter().find(silent), None, "a server that is gone is one event");
}

/// Every word of every document is in the README of the program.
async fn assert_documented(installation: &Installation, run_id: &str, story: &[Value]) {
    let readme = include_str!("../../services/lockstep/README.md");
    let mut words = BTreeSet::new();
    story.iter().for_each(|event| collect_words(event, &mut words));
    let commands: [&[&str]; 10] = [
        &["status"],
        &["server", "ls"],
        &["clock"],
        &["file", "ls"],
        &["file", "get", "docs/a.txt"],
        &["file", "why", "docs/a.txt"],
        &["sync", "docs/"],
        &["sync", "show", run_id],
        &["sync", "ls"],
        &["file", "get", "no/such"],
    ];
    for args in commands {
        let output = output(installation, &[args, &["--output", "json"]].concat()).await;
        let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
        let document = serde_json::from_slice(text).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        collect_words(&document, &mut words);
    }
    // The values of a reason are named by the contract.
    let unknown: Vec<_> = words.iter().filter(|word| !readme.contains(&format!("`{word}`"))).collect();
    assert!(unknown.is_empty(), "not in services/lockstep/README.md: {unknown:?}");
}

fn collect_words(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (word, value) in fields {
                words.insert(word.clone());
                if word != "metadata" {
                    collect_words(value, words);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_words(value, words)),
        _ => {}
    }
}

/// On a terminal, made by `script` of util-linux: coloured unless told otherwise, never wider than it, redrawn in place.
async fn check_terminal(installation: &Installation) {
    let program = lockstep_tests::harness::binary().display().to_string();
    let shown = async |line: &str, rows: usize, no_colour: bool| {
        let line = format!("stty cols 72 rows {rows}; exec {program} {line}");
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("LOCKSTEP_DATA", installation.data());
        command.env("TERM", "xterm").env_remove("NO_COLOR").stdin(Stdio::null());
        if no_colour {
            command.env("NO_COLOR", "1");
        }
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        String::from_utf8_lossy(&output.expect("script of util-linux is there").stdout).into_owned()
    };
    let plain = shown("status", 40, true).await;
    assert!(!plain.contains('\x1b') && plain.contains("SERVER"), "{plain:?}");
    let wide = plain.lines().find(|line| line.trim_end().chars().count() > 72);
    assert_eq!(wide, None, "{plain}");
    assert!(plain.contains('…'), "the middle of a path is left out: {plain}");
    let coloured = shown("status", 40, false).await;
    assert!(coloured.contains("\x1b[32mREADY\x1b[0m"), "{coloured:?}");
    let live = shown("status --watch --until-in-sync --timeout 2s", 12, true).await;
    assert!(live.contains("A\r") && live.contains("\x1b[K"), "redrawn in place: {live:?}");
    assert!(!live.contains("\x1b[2J"), "what was on the terminal before stays: {live:?}");
    assert!(live.contains("more lines"), "what would scroll away is cut: {live:?}");
    let ups = live.split("\x1b[").filter_map(|part| part.split_once("A\r")?.0.parse::<usize>().ok());
    assert!(ups.max().is_some_and(|up| up < 12), "never above the screen: {live:?}");
    let run = shown("sync docs/ --wait --timeout 2s", 40, true).await;
    assert!(run.contains("What keeps it") && run.contains("is not complete"), "{run:?}");
}

/// H1: each shell gets a completion that knows every command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shell_can_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let output = std::process::Command::new(lockstep_tests::harness::binary())
            .args(["completion", shell])
            .output()
            .expect("started");
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in ["sync", "events", "why", "until-in-sync", "update-version", "clock", "justification"] {
            assert!(text.contains(word), "{shell} does not know {word}");
        }
    }
    // Bash reads what it is given.
    let program = lockstep_tests::harness::binary();
    let line = format!("source <({} completion bash) && complete -p lockstep", program.display());
    let output = std::process::Command::new("bash").args(["-c", &line]).output().expect("bash is there");
    assert!(output.status.success(), "{output:?}");
}
