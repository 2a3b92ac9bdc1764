//! `lockstep up` on a directory of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Client, wait};

/// Installations that run at once: more would only slow each other down.
static ROOM: Semaphore = Semaphore::const_new(2);
/// From the start to the ready mark.
const READY_MAX: Duration = Duration::from_secs(60);
/// The longest stop: what `up` promises, and room for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(15);

/// How an installation is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many servers.
    pub servers: u8,
    /// The cycle of each server, such as `1h`.
    pub reconcile_every: String,
    /// More arguments of `lockstep up`.
    pub args: Vec<String>,
    /// Variables of single children: name of the child, variable, value. For every life, but crashes for the first one.
    pub environment: Vec<(String, String, String)>,
    /// How far the boot clock of all processes is ahead of that of the machine, in seconds: in a time namespace.
    pub boot_clock_ahead: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: 3,
            reconcile_every: "5m".to_owned(),
            args: Vec::new(),
            environment: Vec::new(),
            boot_clock_ahead: 0,
        }
    }
}

impl Options {
    /// With this cycle.
    pub fn every(cycle: &str) -> Self {
        Self { reconcile_every: cycle.to_owned(), ..Self::default() }
    }
}

/// A running installation. Dropped, it is killed.
pub struct Installation {
    directory: PathBuf,
    options: Options,
    supervisor: Option<Child>,
    addresses: Arc<Addresses>,
    _room: SemaphorePermit<'static>,
}

/// What `installation.toml` says.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Addresses {
    pub(super) trust_domain: String,
    gateway_port: u16,
    catalog_port: u16,
    resolver_port: u16,
    servers: Vec<Server>,
}

#[derive(Clone, Debug, Deserialize)]
struct Server {
    id: String,
    filesync_port: u16,
    timeguard_port: u16,
}

impl Addresses {
    /// The same with another gateway.
    pub(super) fn with_gateway(&self, port: u16) -> Self {
        Self { gateway_port: port, ..self.clone() }
    }

    pub(super) fn uri(&self, child: &str) -> String {
        let of_server = |id: &str, service: &str| {
            let server =
                self.servers.iter().find(|server| server.id == id).expect("a server of the installation");
            if service == "filesync" { server.filesync_port } else { server.timeguard_port }
        };
        let port = match child.split_once('.') {
            Some((server, service)) => of_server(server, service),
            None if child == "catalog" => self.catalog_port,
            None if child == "resolver" => self.resolver_port,
            None => self.gateway_port,
        };
        format!("https://localhost:{port}")
    }
}

/// The program under test: beside the test binary, or where `LOCKSTEP_BIN` says. `cargo build --workspace` makes it.
///
/// # Panics
/// If it is not there.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("LOCKSTEP_BIN") {
        return named.into();
    }
    let own = std::env::current_exe().expect("a test is a program");
    let path = own.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>").join("lockstep");
    assert!(path.exists(), "{} is not there: run `cargo build --workspace` first", path.display());
    path
}

impl Installation {
    /// Starts one and waits until everything answers.
    ///
    /// # Panics
    /// If it does not start within a minute.
    pub async fn start(options: Options) -> Self {
        let room = ROOM.acquire().await.expect("never closed");
        let directory = tempfile::Builder::new().prefix("lockstep-").tempdir().expect("a directory").keep();
        let supervisor = Some(spawn(&directory, &options));
        let nowhere = Addresses {
            trust_domain: String::new(),
            gateway_port: 0,
            catalog_port: 0,
            resolver_port: 0,
            servers: Vec::new(),
        };
        let mut installation =
            Self { directory, options, supervisor, addresses: Arc::new(nowhere), _room: room };
        installation.ready().await;
        installation
    }

    /// How it is started the next time.
    pub fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Starts the same directory again after [`Installation::stop`].
    pub async fn start_again(&mut self) {
        assert!(self.supervisor.is_none(), "it runs");
        self.supervisor = Some(spawn(&self.directory, &self.options));
        self.ready().await;
    }

    async fn ready(&mut self) {
        let mark = self.data().join("run/ready");
        let log = self.log_path();
        let supervisor = self.supervisor.as_mut().expect("just started");
        let pid = supervisor.id();
        wait::until("the installation is ready", READY_MAX, || {
            let ended = supervisor.try_wait().expect("a child can be asked");
            let is_ready = mark.exists();
            let log = log.clone();
            async move {
                if ended.is_some() {
                    panic!(
                        "lockstep up ({pid}) ended: {ended:?}\n{}",
                        fs::read_to_string(log).unwrap_or_default()
                    );
                }
                if is_ready { Ok(()) } else { Err("no ready mark") }
            }
        })
        .await;
        let text =
            fs::read_to_string(self.data().join("installation.toml")).expect("written before the start");
        self.addresses = Arc::new(toml::from_str(&text).expect("as `up` writes it"));
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The directory around the data directory, for whatever a test needs; removed together with it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its log is.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("up.log")
    }

    /// The ids of its servers.
    pub fn servers(&self) -> Vec<String> {
        self.addresses.servers.iter().map(|server| server.id.clone()).collect()
    }

    /// The registry.
    pub fn registry(&self) -> PathBuf {
        self.data().join("registry/registry.sqlite")
    }

    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where a child answers.
    pub fn uri(&self, child: &str) -> String {
        self.addresses.uri(child)
    }

    /// The root of a server.
    pub fn root(&self, server: &str) -> PathBuf {
        self.data().join("servers").join(server).join("root")
    }

    /// The state directory of a server.
    pub fn state(&self, server: &str) -> PathBuf {
        self.data().join("servers").join(server).join("state")
    }

    /// The transfer directory of a server: final names only.
    pub fn transfer(&self, server: &str) -> PathBuf {
        self.root(server).join("ums_filetransfer")
    }

    /// The staging directory of a server.
    pub fn staging(&self, server: &str) -> PathBuf {
        self.root(server).join(".lockstep/staging")
    }

    /// Where the certificates are: `ca.pem`, and a folder `operator.<name>` or `<child>` for each owner.
    pub fn pki(&self) -> PathBuf {
        self.data().join("pki")
    }

    /// A client with the certificate of an operator: `local` (admin), `viewer`, `publisher`, `operator`.
    pub fn client(&self, operator: &str) -> Client {
        self.client_as(&format!("operator.{operator}"))
    }

    /// A client with the certificate of any owner: a child, or `operator.<name>`.
    pub fn client_as(&self, owner: &str) -> Client {
        let pki = self.pki();
        Client::new(&pki.join(owner), &pki.join("ca.pem"), Arc::clone(&self.addresses))
    }

    /// A command of the command line for this installation.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).env("LOCKSTEP_DATA", self.data()).stdin(Stdio::null());
        command
    }

    /// Runs a command, off the runtime, and gives what it printed.
    ///
    /// # Panics
    /// If it does not succeed.
    pub async fn run(&self, args: &[&str]) -> String {
        let mut command = self.command(args);
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}\n{}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// The process of `lockstep up` itself.
    pub fn supervisor(&self) -> Pid {
        let id = self.supervisor.as_ref().expect("it runs").id();
        Pid::from_raw(i32::try_from(id).expect("a process id"))
    }

    /// Ends it with a signal and waits: how it ended, and how long that took.
    pub async fn stop(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        kill(self.supervisor(), signal).expect("it runs");
        let supervisor = self.supervisor.as_mut().expect("it runs");
        let status = wait::until("the end of lockstep up", STOP_MAX, || {
            let ended = supervisor.try_wait().expect("a child can be asked");
            async move { ended.ok_or("it runs") }
        })
        .await;
        self.supervisor = None;
        (status, begun.elapsed())
    }

    /// Every child that runs now, by name.
    pub fn processes(&self) -> BTreeMap<String, i32> {
        let entries = fs::read_dir(self.data().join("run")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let child = name.strip_suffix(".pid")?.to_owned();
                let pid = fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?;
                self.is_ours(pid).then_some((child, pid))
            })
            .collect()
    }

    /// Whether a process runs and belongs to this installation.
    pub fn is_ours(&self, pid: i32) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&self.data().display().to_string())
    }
}

fn spawn(directory: &Path, options: &Options) -> Child {
    let log = File::options().create(true).append(true).open(directory.join("up.log")).expect("a log");
    let mut command = match options.boot_clock_ahead {
        0 => Command::new(binary()),
        ahead => {
            // It becomes the program itself, whose children are in the namespace.
            let mut command = Command::new("unshare");
            if !rustix::process::geteuid().is_root() {
                command.arg("--map-root-user");
            }
            command.args(["--time", "--boottime"]).arg(ahead.to_string()).arg(binary());
            command
        }
    };
    command
        .arg("up")
        .arg(format!("--servers={}", options.servers))
        .arg(format!("--data={}", directory.join("data").display()))
        .arg("--gateway-port=0")
        .arg(format!("--reconcile-every={}", options.reconcile_every))
        .args(&options.args)
        .current_dir(directory)
        .env_remove("LOCKSTEP_DATA")
        // It ends when its standard input does, however this process ends.
        .env("LOCKSTEP_SUPERVISED", "1")
        .stdin(Stdio::piped())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log);
    let mut own: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (child, name, value) in &options.environment {
        own.entry(child).or_default().push(format!("{name}={value}"));
    }
    for (child, variables) in own {
        command.env(format!("LOCKSTEP_CHILD_ENV_{}", child.replace(['.', '-'], "_")), variables.join(","));
    }
    command.spawn().expect("lockstep can be started")
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            // Killed, so that it starts none of its children again.
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
        let children = self.processes();
        for pid in children.values() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let begun = Instant::now();
        while children.values().any(|pid| self.is_ours(*pid)) && begun.elapsed() < STOP_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        if std::thread::panicking() {
            eprintln!("kept: {}", self.directory.display());
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
