//! Whether registry, matrix, indexes and disks are as the model says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use lockstep_proto::{
    filesync::v1::{
        AsideFile, CheckFilesRequest, ListAsideFilesRequest, ListFilesRequest, check_files_request::Depth,
    },
    gateway::v1::{ListRowsRequest, cell},
};
use lockstep_tests::harness::{Installation, addressed, digests};

use super::world::{Disk, Live, World, is_below};

/// The most of a listing; the model stays far below.
const PAGE: i32 = 500;

impl World {
    /// Asks every server to compare its copies, and compares everything with the model.
    pub(super) async fn compare(&mut self, installation: &Installation) -> Result<(), String> {
        let mut stores = installation.client("operator").stores();
        for server in self.disks.keys() {
            let request = CheckFilesRequest { path_prefix: String::new(), depth: Depth::Content.into() };
            let checked = stores.check_files(addressed(request, server)).await;
            checked.map_err(|status| format!("{server} cannot compare: {status}"))?;
        }
        self.compare_registry(installation).await?;
        for server in self.disks.keys().cloned().collect::<Vec<_>>() {
            let aside = asides(installation, &server).await?;
            let disk = self.disks.get_mut(&server).expect("a server");
            disk.settle(&aside, &self.live).map_err(|why| format!("{server}: {why}"))?;
            disk.compare_aside(&aside).map_err(|why| format!("{server}: {why}"))?;
        }
        self.compare_matrix(installation).await?;
        for (server, disk) in &self.disks {
            self.compare_disk(installation, server, disk)?;
            self.compare_index(installation, server, disk)?;
        }
        Ok(())
    }

    async fn compare_registry(&self, installation: &Installation) -> Result<(), String> {
        let request = ListFilesRequest { page_size: PAGE, ..ListFilesRequest::default() };
        let listed = installation.client("viewer").files().list_files(request).await;
        let files = listed.map_err(|status| status.to_string())?.into_inner().files;
        let found: BTreeMap<String, Live> =
            files.iter().map(|file| (file.path.clone(), Live::of(file))).collect();
        equal("I1, I4: the registry", &found, &self.live)
    }

    async fn compare_matrix(&self, installation: &Installation) -> Result<(), String> {
        let request = ListRowsRequest { page_size: PAGE, ..ListRowsRequest::default() };
        let listed = installation.client("viewer").matrix().list_rows(request).await;
        let rows = listed.map_err(|status| status.to_string())?.into_inner().rows;
        let mut found = BTreeMap::new();
        for row in &rows {
            for cell in &row.cells {
                let reason = cell.failure.as_ref().map_or("", |failure| &failure.reason).to_owned();
                found
                    .insert((row.path.clone(), cell.server_id.clone()), (row.revision, cell.state(), reason));
            }
        }
        let mut expected = BTreeMap::new();
        for (path, live) in &self.live {
            for (server, disk) in &self.disks {
                let (state, reason) = match disk.drifted.contains_key(path) {
                    true => (cell::State::Failed, "DRIFTED"),
                    false => (cell::State::InSync, ""),
                };
                expected.insert((path.clone(), server.clone()), (live.revision, state, reason.to_owned()));
            }
        }
        equal("R31, R44: the matrix", &found, &expected)
    }

    fn compare_disk(&self, installation: &Installation, server: &str, disk: &Disk) -> Result<(), String> {
        let mut expected: BTreeMap<String, String> =
            self.live.iter().map(|(path, live)| (path.clone(), live.digest.clone())).collect();
        expected.extend(disk.loose.clone());
        expected.extend(disk.drifted.clone());
        equal(
            &format!("R2, R30, I1, I3: the disk of {server}"),
            &digests(&installation.transfer(server)),
            &expected,
        )
    }

    /// I4, I5: what the server knows, and that nothing is left half done.
    fn compare_index(&self, installation: &Installation, server: &str, disk: &Disk) -> Result<(), String> {
        let index = rusqlite::Connection::open(installation.state(server).join("index.sqlite"));
        let index = index.map_err(|error| error.to_string())?;
        let mut held = index.prepare("SELECT path, digest, revision FROM held").expect("the table");
        let held: BTreeMap<String, (String, i64)> = held
            .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))
            .and_then(Iterator::collect)
            .map_err(|error| error.to_string())?;
        let sound = self.live.iter().filter(|(path, _)| !disk.drifted.contains_key(*path));
        let expected =
            sound.map(|(path, live)| (path.clone(), (live.digest.clone(), live.revision))).collect();
        equal(&format!("I4: the index of {server}"), &held, &expected)?;
        for (table, count) in
            [("missing", disk.drifted.len()), ("intents", 0), ("journal", 0), ("uploads", 0)]
        {
            let found: i64 = index
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
                .map_err(|error| error.to_string())?;
            if found != i64::try_from(count).expect("few") {
                return Err(format!("{server} has {found} {table} instead of {count}"));
            }
        }
        // What arrived early of an upload that nobody registered goes by itself, after two minutes.
        let staged: BTreeSet<String> = fs::read_dir(installation.staging(server))
            .expect("a staging directory")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with("early-"))
            .collect();
        equal(&format!("staging of {server}"), &staged, &BTreeSet::new())
    }
}

impl Disk {
    /// Where bytes are that may be in either place.
    fn settle(
        &mut self,
        aside: &BTreeMap<String, String>,
        live: &BTreeMap<String, Live>,
    ) -> Result<(), String> {
        let must_go = |path: &String| live.keys().any(|live| live == path || is_below(live, path));
        if let Some((path, _)) =
            self.in_the_way.iter().find(|(path, digest)| must_go(path) && !aside.contains_key(digest))
        {
            return Err(format!("R16: what was at {path} is not set aside"));
        }
        for (path, digest) in std::mem::take(&mut self.in_the_way) {
            if aside.contains_key(&digest) {
                self.aside.insert(digest, path);
            } else {
                self.loose.insert(path, digest);
            }
        }
        for (path, digest) in std::mem::take(&mut self.either) {
            if aside.contains_key(&digest) {
                self.aside.insert(digest, path);
            } else {
                self.drifted.insert(path, digest);
            }
        }
        Ok(())
    }

    /// R16, R30: somebody's bytes are set aside, and nobody else's.
    fn compare_aside(&self, found: &BTreeMap<String, String>) -> Result<(), String> {
        let found: BTreeSet<&String> = found.keys().filter(|digest| !self.spoilt.contains(*digest)).collect();
        equal("R16: what was set aside", &found, &self.aside.keys().collect())
    }
}

/// What was set aside: digest and path.
async fn asides(installation: &Installation, server: &str) -> Result<BTreeMap<String, String>, String> {
    let request = ListAsideFilesRequest { page_size: PAGE, ..ListAsideFilesRequest::default() };
    let listed = installation.client("viewer").stores().list_aside_files(addressed(request, server)).await;
    let listed = listed.map_err(|status| status.to_string())?.into_inner();
    assert!(listed.next_page_token.is_empty(), "more than the model makes");
    let aside = installation.root(server).join(".lockstep/aside");
    let digest = |file: &AsideFile| match file.digest.as_str() {
        // A crash came between setting it aside and reading it.
        "" => blake3::hash(&fs::read(aside.join(&file.aside_id)).expect("kept")).to_hex().to_string(),
        digest => digest.to_owned(),
    };
    Ok(listed.aside_files.iter().map(|file| (digest(file), file.path.clone())).collect())
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:#?}, expected {expected:#?}")) }
}
