//! What a person at a terminal is told of each state of a cell: by the real command line, in text and as documents, and by
//! the real grpcurl, at the moment when real servers are in that state. It is compared with `said/NAME.txt`.
//!
//! After a change that is meant: `UPDATE=1 cargo nextest run --workspace -E 'binary(api)'`, and read the difference.
//! grpcurl is found by `PATH` or named by `GRPCURL`. Without it its part is left out, which is a failure if `CI` is set.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use lockstep_model::Reason;
use lockstep_tests::{
    harness::binary,
    normal::{document, normal},
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    mesh::{DOMAIN, Mesh, SOON, operator},
    states::{SAID, Said},
};

/// A program that takes longer hangs.
const PROGRAM_MAX: Duration = Duration::from_secs(20);
/// Where grpcurl's part of a recording begins.
const BY_GRPCURL: &str = "$ grpcurl ";

/// Whoever asks.
struct Terminal<'a> {
    mesh: &'a Mesh,
    cert: PathBuf,
    key: PathBuf,
    grpcurl: Option<OsString>,
}

/// Waits until the state of [`SAID`] with this name is told of a copy, word for word as it was recorded.
pub(crate) async fn told_in_words(mesh: &Mesh, name: &str, path: &str, server: &str) {
    let said = SAID.iter().find(|said| said.name == name).expect("in the table");
    let (cert, key) = mesh.certificate(&operator("viewer"));
    let terminal = Terminal { mesh, cert, key, grpcurl: grpcurl() };
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("api/said/{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        assert!(terminal.grpcurl.is_some(), "grpcurl is needed to record what it says");
        fs::create_dir_all(place.parent().expect("a directory")).expect("made");
        return fs::write(place, terminal.settled(said, path, server).await).expect("written");
    }
    let mut recorded = fs::read_to_string(&place).unwrap_or_else(|_| panic!("{name} was never recorded"));
    if terminal.grpcurl.is_none() {
        recorded.truncate(recorded.find(BY_GRPCURL).unwrap_or(recorded.len()));
    }
    let begun = Instant::now();
    loop {
        let now = terminal.all(path, server).await;
        if now == recorded {
            return;
        }
        assert!(
            begun.elapsed() < SOON,
            "{name} is told otherwise:\n{}\n\nall of it:\n{now}",
            difference(&recorded, &now)
        );
    }
}

impl Terminal<'_> {
    /// Everything that is told, once it is told to be in the state, twice the same.
    async fn settled(&self, said: &Said, path: &str, server: &str) -> String {
        let state = said.state.as_str_name().trim_start_matches("STATE_");
        let reason = said.reason.map_or("", Reason::as_str);
        let (begun, mut before) = (Instant::now(), String::new());
        loop {
            let now = self.all(path, server).await;
            let first = now.lines().find(|line| line.starts_with(&format!("{server} "))).unwrap_or_default();
            if now == before && first.contains(state) && first.contains(reason) {
                return now;
            }
            before = now;
            assert!(begun.elapsed() < SOON, "{} is not told: {before}", said.name);
            sleep(Duration::from_millis(300)).await;
        }
    }

    async fn all(&self, path: &str, server: &str) -> String {
        let why = ["file", "why", path, "--server", server];
        let mut told = vec![self.lockstep(&why, server).await, self.lockstep(&["status"], server).await];
        told.push(self.lockstep(&["status", "--output", "json"], server).await);
        told.push(self.lockstep(&[&why[..], &["--output", "json"]].concat(), server).await);
        if self.grpcurl.is_some() {
            told.push(
                self.grpcurl("ExplainFile", &json!({"path": path, "server_ids": [server]}), server).await,
            );
            told.push(self.grpcurl("ListRows", &json!({"path": path, "server_ids": [server]}), server).await);
            told.push(self.grpcurl("ListServers", &json!({}), server).await);
        }
        (told.join("\n") + "\n").replace(&self.mesh.path("").display().to_string(), "<data>/")
    }

    /// The real command line, with its exit code.
    async fn lockstep(&self, args: &[&str], server: &str) -> String {
        let mut command = Command::new(binary());
        command.args(args).arg("--gateway").arg(self.mesh.door().uri()).args(["--trust-domain", DOMAIN]);
        command.arg("--cert").arg(&self.cert).arg("--key").arg(&self.key);
        command.arg("--ca").arg(self.mesh.path("pki/ca.pem"));
        let (code, texts) = run(command).await;
        let text = shown(&texts, server);
        format!("$ lockstep {}\n{text}\n=> {code}\n", args.join(" "))
    }

    /// The real grpcurl, which knows of the contract only what the gateway tells it.
    async fn grpcurl(&self, method: &str, request: &Value, server: &str) -> String {
        let mut command = Command::new(self.grpcurl.as_deref().unwrap_or_default());
        command.arg("-cacert").arg(self.mesh.path("pki/ca.pem")).arg("-cert").arg(&self.cert);
        command.arg("-key").arg(&self.key).arg("-d").arg(request.to_string());
        command.arg(format!("127.0.0.1:{}", self.mesh.door().port));
        command.arg(format!("lockstep.gateway.v1.MatrixService/{method}"));
        let (code, texts) = run(command).await;
        format!("{BY_GRPCURL}-d '{request}' {method}\n{}\n=> {code}\n", shown(&texts, server))
    }
}

/// Runs a program; its code, the result and the error.
async fn run(mut command: Command) -> (i32, [String; 2]) {
    command.env_remove("LOCKSTEP_DATA").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PROGRAM_MAX, command.output()).await.expect("it ends").expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("it ended by itself");
    (code, [text(&output.stdout), text(&output.stderr)])
}

/// Documents line by line, of the servers only the one that it is about; and other text as it is.
fn shown(texts: &[String; 2], server: &str) -> String {
    let one = |text: &String| match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            if let Some(servers) = value.get_mut("servers").and_then(Value::as_array_mut) {
                servers.retain(|one| {
                    one.get("server_id").or_else(|| one.get("serverId")) == Some(&json!(server))
                });
            }
            document(&value)
        }
        Err(_) => normal(text),
    };
    texts.iter().filter(|text| !text.is_empty()).map(one).collect::<Vec<_>>().join("\n")
}

/// The program, if it is there.
fn grpcurl() -> Option<OsString> {
    let found = std::env::var_os("GRPCURL").or_else(|| {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders)
            .map(|folder| folder.join("grpcurl"))
            .find(|file| file.is_file())
            .map(Into::into)
    });
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "grpcurl is neither in PATH nor named by GRPCURL: .ci/run installs it"
        );
        eprintln!("what grpcurl says is not compared: it is neither in PATH nor named by GRPCURL");
    }
    found
}

fn difference(recorded: &str, now: &str) -> String {
    let gone = recorded.lines().filter(|line| !now.lines().any(|known| known == *line));
    let new = now.lines().filter(|line| !recorded.lines().any(|known| known == *line));
    gone.map(|line| format!("- {line}"))
        .chain(new.map(|line| format!("+ {line}")))
        .collect::<Vec<_>>()
        .join("\n")
}
