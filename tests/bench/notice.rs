//! How soon a small file that is registered on one server can be read on both others, at twenty a second, beside Syncthing that
//! is told of each by its API.
//!
//! The same clock for both: inotify tells that the final name is there, and then the bytes are read and compared. Counted are
//! the time from the call, and from the moment that the name is on the first server. Lockstep commits between the two: the
//! call ends up in a transaction, and the name comes after it. So "from the commit" is between the two columns.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use inotify::{Inotify, WatchMask};
use lockstep_chassis::{Channels, Lane, SERVER_KEY, TlsDial, TlsIdentity};
use lockstep_model::Identity;
use lockstep_proto::filesync::v1::{
    NewFile, RegisterFileRequest, file_service_client::FileServiceClient, new_file::Source,
};
use serde::Deserialize;
use tonic::Request;

use crate::{
    lockstep::Installation,
    peers::{Daemon, free_port, install_tools},
    setting,
    work::Work,
};

/// The size of a file.
const BYTES: usize = 4 << 10;
/// Between two files.
const EVERY: Duration = Duration::from_millis(50);
/// Files before the clock runs, so that connections are open.
const WARM: usize = 10;
/// Nothing takes longer, unless it hangs.
const SOON: Duration = Duration::from_secs(60);
/// From the commit until both others have it: the median, and the 99th of 100.
const GOALS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(60)];
/// Where the files are, below the directory of each server.
const FOLDER: &str = "notice";
/// Whoever says this may tell Syncthing what to do.
const KEY: &str = "bench";

fn name(number: usize) -> String {
    format!("{number:05}.bin")
}

/// Bytes that belong to a number.
fn bytes(number: usize) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    blake3::Hasher::new().update(name(number).as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// When the files were asked for, and could be read on each server.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, Times>>>);

#[derive(Clone, Copy, Default)]
struct Times {
    asked: Option<Instant>,
    on: [Option<Instant>; 3],
}

impl Seen {
    fn times(&self) -> MutexGuard<'_, BTreeMap<String, Times>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, number: usize) {
        self.times().entry(name(number)).or_default().asked = Some(Instant::now());
    }

    /// Notes what appears in the directory of a server, for as long as the process runs.
    fn watch(&self, server: usize, directory: PathBuf) -> Result<()> {
        fs::create_dir_all(&directory)?;
        let mut events = Inotify::init()?;
        events.watches().add(&directory, WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE)?;
        let seen = self.clone();
        #[allow(clippy::disallowed_methods, reason = "it ends with the process, which measures and ends")]
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(found) = events.read_events_blocking(&mut buffer) {
                for name in found.filter_map(|event| event.name) {
                    let read = fs::read(directory.join(name)).unwrap_or_default();
                    let (now, name) = (Instant::now(), name.to_string_lossy().into_owned());
                    let number = name.strip_suffix(".bin").and_then(|number| number.parse().ok());
                    if number.is_some_and(|number| read == bytes(number)) {
                        let mut times = seen.times();
                        times.entry(name).or_default().on[server].get_or_insert(now);
                    }
                }
            }
        });
        Ok(())
    }

    /// Waits until the files up to `count` are on all servers.
    fn wait(&self, count: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            let missing = {
                let times = self.times();
                (0..count)
                    .find(|n| times.get(&name(*n)).is_none_or(|times| times.on.iter().any(Option::is_none)))
            };
            match missing {
                None => return Ok(()),
                Some(number) => ensure!(begun.elapsed() < SOON, "{} is not everywhere", name(number)),
            }
            thread::sleep(EVERY);
        }
    }

    /// Prints the line of a tool; the median and the 99th of 100 from the call, and from the name on the first server.
    fn line(&self, tool: &str, count: usize) -> [[Duration; 2]; 2] {
        let times = self.times();
        let all = (WARM..WARM + count).filter_map(|number| {
            let Times { asked: Some(asked), on: [Some(first), Some(second), Some(third)] } =
                times.get(&name(number))?
            else {
                return None;
            };
            let last = second.max(third);
            Some((last.duration_since(*asked), last.saturating_duration_since(*first)))
        });
        let (mut call, mut commit): (Vec<Duration>, Vec<Duration>) = all.unzip();
        let [call, commit] = [&mut call, &mut commit].map(|all: &mut Vec<Duration>| {
            all.sort();
            let at = |share: usize| all.get((all.len() * share / 100).min(all.len().saturating_sub(1)));
            [50, 99].map(|share| at(share).copied().unwrap_or_default())
        });
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1_000.0);
        let [call_text, commit_text] = [call, commit].map(|pair| pair.map(ms).join(" | "));
        println!("| {tool} | {count} | {call_text} | {commit_text} |");
        [call, commit]
    }
}

/// Measures both, and says whether the goals were met.
pub(crate) fn measure(work: &Work) -> Result<bool> {
    let count: usize = setting("NOTICE_FILES", 400);
    let rate = 1_000 / EVERY.as_millis();
    println!("4 KiB from one server to readable on both others, {rate} a second\n");
    println!(
        "| tool | files | from the call: median ms | p99 ms | from the name on the first: median ms | p99 ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let [call, commit] = lockstep(work, count)?;
    work.settle()?;
    install_tools(&[("syncthing", "syncthing")])?;
    syncthing(work, count)?;
    let is_met = |times: [Duration; 2]| times.iter().zip(GOALS).all(|(time, goal)| *time <= goal);
    let words = match (is_met(call), is_met(commit)) {
        (true, _) => "met, even from the call",
        (false, true) => "met from the name on, missed from the call",
        (false, false) => "missed",
    };
    let [median, p99] = GOALS.map(|goal| goal.as_millis());
    println!("\ngoal from the commit: median {median} ms, p99 {p99} ms: {words}\n");
    Ok(is_met(commit))
}

/// Calls `each` for every number in turn, at the rate.
fn pace(numbers: std::ops::Range<usize>, mut each: impl FnMut(usize) -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    for (turn, number) in numbers.enumerate() {
        let due = begun + EVERY * u32::try_from(turn)?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        each(number)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Addresses {
    trust_domain: String,
    gateway_port: u16,
}

fn lockstep(work: &Work, count: usize) -> Result<[[Duration; 2]; 2]> {
    let installation = Installation::start(work, &[])?;
    let seen = Seen::default();
    for (index, server) in ["s1", "s2", "s3"].into_iter().enumerate() {
        seen.watch(index, installation.transfer(server).join(FOLDER))?;
    }
    let addresses: Addresses =
        toml::from_str(&fs::read_to_string(installation.data().join("installation.toml"))?)?;
    let pki = installation.data().join("pki");
    let folder = pki.join("operator.local");
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let identity = TlsIdentity::load(&certificate, &key, &pki.join("ca.pem"), &addresses.trust_domain)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let channel = {
        let _inside = runtime.enter();
        let uri = format!("https://localhost:{}", addresses.gateway_port);
        Channels::new(TlsDial::new(identity)).to(&uri, Identity::Service("gateway"), Lane::Control)
    };
    let refused = Arc::new(Mutex::new(None));
    let each = |number: usize| {
        let mut client = FileServiceClient::new(channel.clone());
        let content = Source::Content(bytes(number).into());
        let path = format!("{FOLDER}/{}", name(number));
        let file = NewFile { path, source: Some(content), ..NewFile::default() };
        let message = RegisterFileRequest { file: Some(file), request_id: format!("notice-{number}") };
        let mut request = Request::new(message);
        request.metadata_mut().insert(SERVER_KEY, "s1".parse()?);
        let (seen, refused) = (seen.clone(), Arc::clone(&refused));
        seen.ask(number);
        let _task = runtime.spawn(async move {
            if let Err(status) = client.register_file(request).await {
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.to_string());
            }
        });
        Ok(())
    };
    pace(0..WARM, each)?;
    seen.wait(WARM)?;
    pace(WARM..WARM + count, each)?;
    let waited = seen.wait(WARM + count);
    if let Some(refused) = refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bail!("a registration was refused: {refused}");
    }
    waited?;
    Ok(seen.line("Lockstep", count))
}

/// One of three.
struct Node {
    home: PathBuf,
    folder: PathBuf,
    port: u16,
    api: u16,
    id: String,
}

impl Node {
    fn new(work: &Work, peer: &str) -> Result<Self> {
        let (home, folder) = (work.fresh(&format!("syncthing-{peer}"))?, work.fresh(peer)?);
        fs::create_dir_all(folder.join(".stfolder"))?;
        let program = || Command::new("syncthing");
        let home_argument = format!("--home={}", home.display());
        let made = program()
            .args(["generate", "--no-default-folder", "--skip-port-probing", &home_argument])
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let id = program().args([&home_argument, "--device-id"]).output()?;
        let id = String::from_utf8(id.stdout)?.trim().to_owned();
        Ok(Self { home, folder, port: free_port()?, api: free_port()?, id })
    }

    /// Nothing but the three and their folder, each change told by the API.
    fn configure(&self, nodes: &[Self]) -> Result<()> {
        let ids: String = nodes.iter().map(|node| format!("<device id=\"{}\"></device>", node.id)).collect();
        let address = |port: u16| format!("127.0.0.1:{port}");
        let devices: String = nodes
            .iter()
            .map(|node| {
                let at = address(node.port);
                format!("<device id=\"{}\" name=\"node\"><address>tcp://{at}</address></device>", node.id)
            })
            .collect();
        let off = [
            "globalAnnounceEnabled",
            "localAnnounceEnabled",
            "relaysEnabled",
            "natEnabled",
            "startBrowser",
            "crashReportingEnabled",
            "announceLANAddresses",
        ];
        let off: String = off.iter().map(|name| format!("<{name}>false</{name}>")).collect();
        let (path, listen, api) = (self.folder.display(), address(self.port), address(self.api));
        let text = format!(
            "<configuration version=\"36\"><folder id=\"f\" label=\"f\" path=\"{path}\" type=\"sendreceive\" \
             rescanIntervalS=\"0\" fsWatcherEnabled=\"false\"><filesystemType>basic</filesystemType>{ids}</folder>\
             {devices}<gui enabled=\"true\" tls=\"false\"><address>{api}</address><apikey>{KEY}</apikey></gui>\
             <options><listenAddress>tcp://{listen}</listenAddress>{off}<urAccepted>-1</urAccepted>\
             <reconnectionIntervalS>1</reconnectionIntervalS><autoUpgradeIntervalH>0</autoUpgradeIntervalH>\
             </options></configuration>"
        );
        Ok(fs::write(self.home.join("config.xml"), text)?)
    }

    fn start(&self) -> Result<Daemon> {
        let mut command = Command::new("syncthing");
        command.env("STNOUPGRADE", "1").arg("serve").arg(format!("--home={}", self.home.display()));
        command.args(["--no-browser", "--no-restart"]);
        command.arg(format!("--logfile={}", self.home.join("log").display()));
        Daemon::start(&mut command, self.api)
    }
}

/// One call of the API.
fn api(method: &str, port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nX-API-Key: {KEY}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_done = answer.lines().next().is_some_and(|line| line.contains(" 200 "));
    ensure!(is_done, "{method} {path}: {answer}");
    Ok(answer)
}

fn syncthing(work: &Work, count: usize) -> Result<()> {
    let nodes = ["peer1", "peer2", "peer3"].map(|peer| Node::new(work, peer));
    let nodes: Vec<Node> = nodes.into_iter().collect::<Result<_>>()?;
    nodes.iter().try_for_each(|node| node.configure(&nodes))?;
    let _running: Vec<Daemon> = nodes.iter().map(Node::start).collect::<Result<_>>()?;
    let seen = Seen::default();
    for (index, node) in nodes.iter().enumerate() {
        seen.watch(index, node.folder.join(FOLDER))?;
    }
    let begun = Instant::now();
    for node in &nodes {
        // The connections to both others; of itself, it says that there is none.
        while api("GET", node.api, "/rest/system/connections")
            .map_or(0, |answer| answer.matches("\"connected\": true").count())
            < 2
        {
            ensure!(begun.elapsed() < SOON, "Syncthing does not connect");
            thread::sleep(EVERY);
        }
    }
    let first = nodes.first().context("three nodes")?;
    let staging = work.fresh("syncthing-staging")?;
    let each = |number: usize| tell(&seen, first, &staging, number);
    pace(0..WARM, each)?;
    seen.wait(WARM)?;
    pace(WARM..WARM + count, each)?;
    seen.wait(WARM + count)?;
    seen.line("Syncthing, told by its API", count);
    Ok(())
}

/// Puts a file in place, and says so.
fn tell(seen: &Seen, node: &Node, staging: &Path, number: usize) -> Result<()> {
    let name = name(number);
    seen.ask(number);
    let staged = staging.join(&name);
    fs::write(&staged, bytes(number))?;
    fs::rename(staged, node.folder.join(FOLDER).join(&name))?;
    let port = node.api;
    // Answered when the file is in the index; nobody waits for it. What is not told shows as not everywhere.
    #[allow(clippy::disallowed_methods, reason = "it ends with its answer")]
    thread::spawn(move || api("POST", port, &format!("/rest/db/scan?folder=f&sub={FOLDER}/{name}")));
    Ok(())
}
