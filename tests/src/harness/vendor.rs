//! The server of a vendor: a real process that serves a directory over TLS, and misbehaves where the path says so.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use zip::{CompressionMethod, write::SimpleFileOptions};

use super::wait;

/// From the start to the first connection.
const READY_MAX: Duration = Duration::from_secs(20);

/// A running server of a vendor. Dropped, it is killed, and its directory removed.
///
/// The path says how a file is served: `plain/<file>`, and with options before the file, which can be combined:
/// `slow/<bytes per second>`, `cut/<bytes>`, `stall/<bytes>`, `silent`, `short/<bytes>`, `long/<bytes>`, `nolength`,
/// `chunked`, `endless`, `norange`, `stubborn`, `notag`, `weak`, `shifted`, `changing/<bytes>`, `growing/<bytes>`, `gzip`,
/// `status/<code>`, `redirect/<how many>`, `redirect-to/<hexadecimal digits of a URI>` ([`Vendor::redirect_to`]).
pub struct Vendor {
    directory: TempDir,
    process: Option<Child>,
    ports: (u16, u16),
}

impl Vendor {
    /// Starts one with an empty directory.
    ///
    /// # Panics
    /// If it does not listen within 20 s.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("vendor-").tempdir().expect("a directory");
        for part in ["files", "out"] {
            fs::create_dir(directory.path().join(part)).expect("made");
        }
        let mut vendor = Self { directory, process: None, ports: (0, 0) };
        vendor.start_again().await;
        vendor
    }

    /// Kills it at once, in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may be dead already.
            let _ = process.kill();
            process.wait().expect("our own child");
        }
    }

    /// Starts it after [`Vendor::kill`], with the same ports, files and certificate.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let ports = self.out().join("ports");
        // There is none before the first start.
        let _ = fs::remove_file(&ports);
        let process = Command::new(program())
            .args([self.directory.path().join("files"), self.out()])
            .args([self.ports.0.to_string(), self.ports.1.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the server of the vendor starts");
        self.process = Some(process);
        self.ports = wait::until("the server of the vendor", READY_MAX, || async {
            let text = fs::read_to_string(&ports).map_err(|error| error.to_string())?;
            let parsed = text.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            parsed.ok_or(text)
        })
        .await;
    }

    /// Puts a file where it serves it, and gives its SHA-256.
    pub fn put(&self, name: &str, content: &[u8]) -> String {
        let path = self.directory.path().join("files").join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("made");
        // A reader sees the old file or the new one.
        let new = path.with_extension("new");
        fs::write(&new, content).and_then(|()| fs::rename(&new, &path)).expect("written");
        sha256(content)
    }

    /// The directory that it serves, for files that are too large for [`Vendor::put`].
    pub fn directory(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// The URI of a path over HTTPS, with `localhost` as its host.
    pub fn uri(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.ports.0)
    }

    /// The URI of a path over HTTP.
    pub fn http_uri(&self, path: &str) -> String {
        format!("http://localhost:{}/{path}", self.ports.1)
    }

    /// A path that redirects to any URI.
    pub fn redirect_to(uri: &str) -> String {
        format!("redirect-to/{}", hex::encode(uri))
    }

    /// The port of HTTPS.
    pub fn port(&self) -> u16 {
        self.ports.0
    }

    /// The port of HTTP.
    pub fn http_port(&self) -> u16 {
        self.ports.1
    }

    /// The certificate of its CA, PEM. The certificate of the server is for `localhost`, `127.0.0.1`, `::1`, `vendor.test`
    /// and the names right below that.
    pub fn ca_file(&self) -> PathBuf {
        self.out().join("ca.pem")
    }

    /// One line for each request so far: method, path, and the headers that matter as `name=value`.
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.out().join("requests")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The text of one source of the file of sources, whose feed is at `path`: this server and no other is allowed.
    pub fn source(&self, id: &str, path: &str) -> String {
        let (uri, port, ca) = (self.uri(path), self.port(), self.ca_file());
        format!(
            "[[source]]\nid = {id:?}\nfeed = {uri:?}\nallow_hosts = [\"localhost:{port}\"]\nports = [{port}]\nca_file = {ca:?}\n"
        )
    }

    /// Writes a file of sources, with [`Vendor::source`] for each pair of id and path.
    pub fn sources_file(&self, sources: &[(&str, &str)]) -> PathBuf {
        let path = self.out().join("sources.toml");
        let text: String = sources.iter().map(|(id, feed)| self.source(id, feed)).collect();
        fs::write(&path, text).expect("written");
        path
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A feed of these entries.
pub fn feed(entries: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({ "format": 1, "entries": entries })).expect("JSON")
}

/// An entry of a feed. Each file: its path, its URI (relative to the feed, or absolute), its content.
pub fn offer(id: &str, model: &str, version: &str, files: &[(&str, &str, &[u8])]) -> Value {
    let file = |(path, uri, content): &(&str, &str, &[u8])| json!({ "path": path, "uri": uri, "size_bytes": content.len(), "sha256": sha256(content) });
    let files: Vec<Value> = files.iter().map(file).collect();
    json!({ "id": id, "model": model, "version": version, "release_notes": "What is new.", "files": files })
}

/// A zip archive with these files, deflated.
pub fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in files {
        writer.start_file(*name, options).expect("started");
        writer.write_all(bytes).expect("written");
    }
    writer.finish().expect("finished").into_inner()
}

/// The SHA-256 of some content, as a feed has it.
pub fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// It is built beside the test binary, by `cargo build --workspace`.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a test is a program");
    let path = own.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>").join("vendor");
    assert!(path.exists(), "{} is not there: run `cargo build --workspace` first", path.display());
    path
}
