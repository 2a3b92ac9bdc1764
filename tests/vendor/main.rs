//! The server of a vendor, as a process of its own: serves a directory over HTTPS and HTTP, and misbehaves as the path says.
//!
//! `vendor <directory> <out> <https port> <http port>`: a port may be 0. Into `out` it writes `ca.pem` (and the rest of its
//! identity, which a second start uses again), `ports` when it listens, and a line for each request into `requests`:
//! method, path, and the headers range, if-range, if-none-match, if-modified-since and accept-encoding. It ends when its
//! standard input does.
//!
//! Each component of a path before the file is what to do, see [`plan::Plan`]: `/slow/1000/firmware.bin` is `firmware.bin`
//! at 1,000 bytes in a second.

mod answer;
mod identity;
mod plan;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a client may take for it.
const HEAD_MAX: Duration = Duration::from_secs(30);

/// What all connections share.
struct Server {
    directory: PathBuf,
    requests: Mutex<fs::File>,
    /// How often each path was asked for.
    asked: Mutex<BTreeMap<String, u64>>,
}

/// The head of a request.
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [directory, out, https, http] = args.as_slice() else {
        anyhow::bail!("usage: vendor <directory> <out> <https port> <http port>");
    };
    let out = PathBuf::from(out);
    let acceptor = TlsAcceptor::from(Arc::new(identity::load(&out)?));
    let listen = async |port: &str| -> Result<(TcpListener, u16)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    let ((https, https_port), (http, http_port)) = (listen(https).await?, listen(http).await?);
    let requests = fs::File::options().create(true).append(true).open(out.join("requests"))?;
    let server = Arc::new(Server {
        directory: PathBuf::from(directory),
        requests: Mutex::new(requests),
        asked: Mutex::default(),
    });
    fs::write(out.join("ports.new"), format!("{https_port} {http_port}"))?;
    fs::rename(out.join("ports.new"), out.join("ports"))?;
    tokio::select! {
        biased;
        () = parent_gone() => {}
        () = serve_tls(https, acceptor, server.clone()) => {}
        () = serve_plain(http, server) => {}
    }
    // A blocking read of standard input may still be going on.
    std::process::exit(0);
}

/// Ends when standard input does: whoever started us is no more.
async fn parent_gone() {
    let mut input = std::io::stdin();
    let gone = tokio::task::spawn_blocking(move || std::io::copy(&mut input, &mut std::io::sink()));
    // Whatever it says, it is over.
    let _ = gone.await;
}

#[allow(clippy::disallowed_methods, reason = "a connection ends with this process at the latest")]
async fn serve_tls(listener: TcpListener, acceptor: TlsAcceptor, server: Arc<Server>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, server) = (acceptor.clone(), server.clone());
        tokio::spawn(async move {
            // A client that does not believe us is what some tests are about.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            connection(stream, &server).await;
        });
    }
}

#[allow(clippy::disallowed_methods, reason = "a connection ends with this process at the latest")]
async fn serve_plain(listener: TcpListener, server: Arc<Server>) {
    while let Ok((stream, _)) = listener.accept().await {
        let server = server.clone();
        tokio::spawn(async move { connection(stream, &server).await });
    }
}

/// One request and its answer. A client that hangs up in the middle is nobody's mistake.
async fn connection(mut stream: impl AsyncRead + AsyncWrite + Unpin, server: &Server) {
    if let Ok(Some(request)) = timeout(HEAD_MAX, read_head(&mut stream)).await {
        server.write_down(&request);
        let _ = answer::answer(&mut stream, server, &request).await;
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return None;
        }
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    Some(Request { method, path, headers })
}

impl Server {
    /// One line, complete before the answer begins.
    fn write_down(&self, request: &Request) {
        let Request { method, path, headers } = request;
        let mut line = format!("{method} {path}");
        for name in ["range", "if-range", "if-none-match", "if-modified-since", "accept-encoding"] {
            if let Some(value) = headers.get(name) {
                line.push_str(&format!(" {name}={value}"));
            }
        }
        line.push('\n');
        let mut file = self.requests.lock().expect("nobody panics");
        file.write_all(line.as_bytes()).context("the list of requests").expect("written");
    }

    /// How often `path` was asked for before.
    fn count(&self, path: &str) -> u64 {
        let mut asked = self.asked.lock().expect("nobody panics");
        let count = asked.entry(path.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}
