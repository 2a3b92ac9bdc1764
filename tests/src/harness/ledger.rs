//! What was registered and deleted, and the comparison with what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read as _,
    path::Path,
    time::Duration,
};

use lockstep_proto::{
    filesync::v1::{
        DeleteFileRequest, DeleteFileResponse, File as Registered, ListFilesRequest, NewFile,
        RegisterFileRequest, new_file::Source,
    },
    gateway::v1::{Row, WatchRowsRequest, cell},
};
use tokio::time::{Instant, timeout};

use super::{Client, Installation, addressed};

/// What a live file must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// BLAKE3 in hexadecimal.
    pub digest: String,
    /// The revision of its record.
    pub revision: i64,
}

/// The truth that servers are compared with.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    live: BTreeMap<String, Entry>,
    deleted: BTreeSet<String>,
}

/// Bytes that belong to a name: whoever knows the name can tell whether they are right.
pub fn content(name: &str, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Ledger {
    /// Everything that is registered, as a viewer is told.
    pub async fn listed(installation: &Installation) -> Self {
        let (mut ledger, mut files) = (Self::default(), installation.client("viewer").files());
        let mut page_token = String::new();
        loop {
            let request = ListFilesRequest { path_prefix: String::new(), page_size: 500, page_token };
            let page = files.list_files(request).await.expect("listed").into_inner();
            page.files.iter().for_each(|file| ledger.note(file));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return ledger;
            }
        }
    }

    /// Registers bytes on a server by the gateway, with a request id that belongs to the path, and notes the answer.
    ///
    /// # Errors
    /// The refusal.
    pub async fn register(
        &mut self,
        client: &Client,
        server: &str,
        path: &str,
        bytes: Vec<u8>,
    ) -> tonic::Result<Registered> {
        let answer = client.files().register_file(addressed(registration(path, bytes), server)).await?;
        let file = answer.into_inner().file.expect("the contract says so");
        self.note(&file);
        Ok(file)
    }

    /// Deletes what the ledger knows by the gateway, and notes it.
    ///
    /// # Errors
    /// The refusal.
    pub async fn delete(
        &mut self,
        client: &Client,
        server: &str,
        path: &str,
    ) -> tonic::Result<DeleteFileResponse> {
        let answer = client.files().delete_file(addressed(self.deletion(path), server)).await?;
        self.note_deleted(path);
        Ok(answer.into_inner())
    }

    /// The request that deletes a live file.
    ///
    /// # Panics
    /// If the ledger does not know it.
    pub fn deletion(&self, path: &str) -> DeleteFileRequest {
        let entry = self.live.get(path).expect("a live file");
        DeleteFileRequest {
            path: path.to_owned(),
            expected_revision: entry.revision,
            request_id: request_id("delete", path),
        }
    }

    /// Notes a file that was registered in any way.
    pub fn note(&mut self, file: &Registered) {
        self.live.insert(file.path.clone(), Entry { digest: file.digest.clone(), revision: file.revision });
    }

    /// Notes that a file is deleted.
    pub fn note_deleted(&mut self, path: &str) {
        self.live.remove(path);
        self.deleted.insert(path.to_owned());
    }

    /// Live files.
    pub fn live(&self) -> &BTreeMap<String, Entry> {
        &self.live
    }

    /// Compares what every server knows (its index) with what was registered, and looks for work that is only half done.
    ///
    /// # Panics
    /// If an index says anything else than the ledger, or an intent, a journal, an upload or staged bytes are left.
    pub fn check_indexes(&self, installation: &Installation) {
        for server in installation.servers() {
            let index = rusqlite::Connection::open(installation.state(&server).join("index.sqlite"))
                .expect("an index");
            let mut held = index.prepare("SELECT path, digest, revision FROM held").expect("the table");
            let held: BTreeMap<String, Entry> = held
                .query_map([], |row| Ok((row.get(0)?, Entry { digest: row.get(1)?, revision: row.get(2)? })))
                .expect("read")
                .collect::<Result<_, _>>()
                .expect("read");
            let wrong = held.iter().find(|(path, entry)| self.live.get(*path) != Some(entry));
            assert_eq!(wrong, None, "I4: {server} holds something else than what is registered");
            assert_eq!(held.len(), self.live.len(), "I4: {server} holds less than what is registered");
            for table in ["missing", "intents", "journal", "uploads"] {
                let count: i64 = index
                    .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
                    .expect("the table");
                assert_eq!(count, 0, "{server} is not done with its {table}");
            }
            // What arrived early of an upload that nobody registered goes by itself, after two minutes.
            let staged: Vec<String> = fs::read_dir(installation.staging(&server))
                .expect("a staging directory")
                .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
                .filter(|name| !name.starts_with("early-"))
                .collect();
            assert!(staged.is_empty(), "{server} left bytes in staging: {staged:?}");
        }
    }

    /// What of `rows` is not yet as the ledger says: a text, or `None` if all is.
    fn missing(&self, rows: &BTreeMap<String, Row>, servers: usize) -> Option<String> {
        for (path, entry) in &self.live {
            let Some(row) = rows.get(path) else { return Some(format!("{path} has no row")) };
            let in_sync = row.cells.len() == servers
                && row.cells.iter().all(|cell| cell.state() == cell::State::InSync);
            if row.revision != entry.revision || !in_sync {
                return Some(format!("{row:?}, expected revision {}", entry.revision));
            }
        }
        let more = rows.keys().find(|path| !self.live.contains_key(*path));
        more.map(|path| format!("{path} has a row and is not live"))
    }

    /// Compares every byte on every server with what was registered.
    ///
    /// # Panics
    /// If anything is missing, more, or other than it should be.
    pub fn check_disks(&self, installation: &Installation) {
        for server in installation.servers() {
            let found = digests(&installation.transfer(&server));
            for (path, entry) in &self.live {
                let digest = found.get(path).unwrap_or_else(|| panic!("I1: {path} is not on {server}"));
                assert_eq!(digest, &entry.digest, "{path} on {server} has other bytes");
            }
            for path in found.keys() {
                assert!(!self.deleted.contains(path), "I3: {path} was deleted and is on {server}");
                assert!(self.live.contains_key(path), "{path} is on {server} and nobody registered it");
            }
        }
    }
}

/// The request that registers bytes, with a request id that belongs to the path.
pub fn registration(path: &str, bytes: Vec<u8>) -> RegisterFileRequest {
    let file =
        NewFile { path: path.to_owned(), source: Some(Source::Content(bytes.into())), ..NewFile::default() };
    RegisterFileRequest { file: Some(file), request_id: request_id("register", path) }
}

/// One for each path, since a path may have more bytes, and others, than a request id.
fn request_id(what: &str, path: &str) -> String {
    format!("{what}-{}", &blake3::hash(path.as_bytes()).to_hex()[..32])
}

/// Every file below a directory with its BLAKE3.
///
/// # Panics
/// If something in it is neither a file nor a directory, or changes meanwhile.
pub fn digests(directory: &Path) -> BTreeMap<String, String> {
    let (mut found, mut left) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.expect("a directory can be read").path();
            let kind = fs::symlink_metadata(&path).expect("nobody changes it now").file_type();
            if kind.is_dir() {
                left.push(path);
            } else {
                assert!(kind.is_file(), "{} is no file", path.display());
                let name =
                    path.strip_prefix(directory).expect("below it").to_str().expect("UTF-8").to_owned();
                found.insert(name, digest(&path).expect("a file can be read"));
            }
        }
    }
    found
}

/// BLAKE3 of a file in hexadecimal.
pub(super) fn digest(path: &Path) -> std::io::Result<String> {
    let (mut hasher, mut file, mut buffer) = (blake3::Hasher::new(), File::open(path)?, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            count => hasher.update(&buffer[..count]),
        };
    }
}

impl Installation {
    /// Watches the matrix until it shows exactly the ledger, in sync on every server.
    ///
    /// # Panics
    /// When `limit` is over, with the first row that is not so.
    pub async fn in_sync(&self, ledger: &Ledger, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (client, servers) = (self.client("viewer"), self.servers().len());
        let mut why = "the gateway did not answer".to_owned();
        let late = |why: &str| panic!("not in sync within {limit:?}: {why}");
        loop {
            let mut rows: BTreeMap<String, Row> = BTreeMap::new();
            let watched = client.matrix().watch_rows(WatchRowsRequest::default()).await;
            let mut stream = match watched {
                Ok(stream) => stream.into_inner(),
                Err(status) => {
                    if Instant::now() >= deadline {
                        late(&format!("{why}; {status}"));
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // An end or a failure of the stream begins a new one.
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let Ok(next) = timeout(left, stream.message()).await else { late(&why) };
                let Ok(Some(batch)) = next else { break };
                for path in batch.removed_paths {
                    rows.remove(&path);
                }
                rows.extend(batch.rows.into_iter().map(|row| (row.path.clone(), row)));
                if !batch.caught_up {
                    continue;
                }
                match ledger.missing(&rows, servers) {
                    None => return,
                    Some(missing) => why = missing,
                }
            }
        }
    }
}
