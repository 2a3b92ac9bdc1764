//! The tools to compare with: one server, three clients in parallel, durable at the end.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    Sample,
    work::{Set, Work, run, same},
};

const PEERS: [&str; 3] = ["peer1", "peer2", "peer3"];
/// How long a daemon may take to open its port.
const OPEN_WITHIN: Duration = Duration::from_secs(20);

/// Installs what is missing from the packages of the system.
pub(crate) fn install() -> Result<()> {
    install_tools(&[("rsync", "rsync"), ("nginx", "nginx-light"), ("curl", "curl"), ("openssl", "openssl")])
}

/// Installs the packages of the tools that are missing: tool and package.
pub(crate) fn install_tools(tools: &[(&str, &str)]) -> Result<()> {
    let found = |tool: &str| Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .filter(|(tool, _)| !found(tool).is_ok_and(|output| output.status.success()))
        .map(|(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    run(Command::new("apt-get").args(["update", "-q"]))?;
    run(Command::new("apt-get").args(["install", "-q", "-y", "--no-install-recommends"]).args(missing))
}

/// A daemon that ends with the measurement.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let daemon = Self(child);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > OPEN_WITHIN {
                bail!("{command:?} did not open port {port}");
            }
            thread::yield_now();
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Runs one command for each peer at the same time, makes what they wrote durable, and compares.
fn time(work: &Work, set: &Set, source: &Path, command: impl Fn(&Path) -> Command) -> Result<Sample> {
    let peers = PEERS.iter().map(|name| work.fresh(name)).collect::<Result<Vec<_>>>()?;
    Work::warm(set);
    let begun = Instant::now();
    let running = peers
        .iter()
        .map(|peer| command(peer).stdin(Stdio::null()).stdout(Stdio::null()).spawn())
        .collect::<Result<Vec<Child>, _>>()?;
    for mut child in running {
        if !child.wait()?.success() {
            bail!("a client failed");
        }
    }
    run(Command::new("sync").arg("--file-system").args(&peers))?;
    let time = begun.elapsed();
    peers.iter().try_for_each(|peer| same(source, peer))?;
    Ok(Sample { time, memory: Vec::new() })
}

/// `rsync -a --fsync` from an rsync daemon.
pub(crate) fn rsync(work: &Work, set: &Set, source: &Path) -> Result<Sample> {
    let port = free_port()?;
    let settings = work.path("rsyncd.conf");
    let (at, pid) = (source.display(), work.path("rsyncd.pid"));
    let pid = pid.display();
    fs::write(
        &settings,
        format!(
            "port = {port}\naddress = 127.0.0.1\nuse chroot = no\nuid = root\ngid = root\npid file = {pid}\n[mod]\npath = {at}\nread only = yes\n"
        ),
    )?;
    let _ = fs::remove_file(work.path("rsyncd.pid"));
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach"]).arg(format!("--config={}", settings.display()));
    let _daemon = Daemon::start(&mut command, port)?;
    time(work, set, source, |peer| {
        let mut command = Command::new("rsync");
        command.args(["-a", "--fsync"]).arg(format!("rsync://127.0.0.1:{port}/mod/")).arg(peer);
        command
    })
}

/// `curl` over TLS from nginx.
pub(crate) fn nginx(work: &Work, set: &Set, source: &Path) -> Result<Sample> {
    let port = free_port()?;
    let home = work.fresh("nginx")?;
    let (key, certificate) = (home.join("tls.key"), home.join("tls.crt"));
    run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate))?;
    let at = home.display();
    fs::write(
        home.join("nginx.conf"),
        format!(
            "user root root;\nworker_processes 2;\ndaemon off;\npid {at}/pid;\nerror_log {at}/error.log warn;\n\
             events {{ worker_connections 8192; }}\nhttp {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n\
             client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen 127.0.0.1:{port} ssl; http2 on; ssl_certificate {at}/tls.crt; ssl_certificate_key {at}/tls.key;\n\
             ssl_protocols TLSv1.3; root {}; }} }}\n",
            source.display()
        )
        .replace(" http2 on;", ""),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&home).arg("-c").arg(home.join("nginx.conf")).arg("-e").arg(home.join("error.log"));
    let _daemon = Daemon::start(&mut command, port)?;
    let mut names = Vec::new();
    list(source, "", &mut names)?;
    for peer in PEERS {
        let lines: String = names
            .iter()
            .map(|name| {
                let to = work.path(peer).join(name);
                format!("url = \"https://127.0.0.1:{port}/{name}\"\noutput = \"{}\"\n", to.display())
            })
            .collect();
        fs::write(home.join(peer), lines)?;
    }
    let parallel = matches!(set, Set::Tree { .. });
    time(work, set, source, |peer| {
        let mut command = Command::new("curl");
        command.args(["-sf", "--create-dirs", "--cacert"]).arg(&certificate);
        if parallel {
            command.args(["--parallel", "--parallel-max", "32"]);
        }
        command.arg("-K").arg(home.join(peer.file_name().unwrap_or_default()));
        command
    })
}

fn list(directory: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}
