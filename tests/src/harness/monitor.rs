//! Holds the matrix to the disks, and positions to their order, while a test does something else.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lockstep_chassis::Channel;
use lockstep_proto::gateway::v1::{
    ListServersRequest, Row, WatchRowsRequest, cell, matrix_service_client::MatrixServiceClient,
};
use tokio::task::JoinHandle;

use super::{Installation, ledger::digest};

/// Between two tries to reach a gateway that is away, and two looks at the positions.
const AGAIN: Duration = Duration::from_millis(20);

/// Watches until it is ended. What it finds is told at the end, so that the test fails in its own thread.
pub struct Monitor {
    task: JoinHandle<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    found: Mutex<Vec<String>>,
    rows: Mutex<u64>,
    going: Mutex<std::collections::BTreeSet<String>>,
}

impl Monitor {
    /// Begins to watch. `expected` says what digest a path must have on every disk: content that belongs to its name.
    pub fn start(
        installation: &Installation,
        expected: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let roots = installation
            .servers()
            .into_iter()
            .map(|id| (installation.transfer(&id), id))
            .map(|(path, id)| (id, path));
        let roots: BTreeMap<_, _> = roots.collect();
        let client = installation.client("viewer");
        let (rows, positions) = (Arc::clone(&shared), Arc::clone(&shared));
        let matrix = client.matrix();
        let watch = watch_rows(matrix.clone(), rows, move |shared: &Shared, row: &Row| {
            let Some(digest_expected) = expected(&row.path) else { return };
            for cell in row.cells.iter().filter(|cell| cell.state() == cell::State::InSync) {
                let Some(root) = roots.get(&cell.server_id) else { continue };
                let found = digest(&root.join(&row.path));
                let is_right = found.as_ref().is_ok_and(|found| *found == digest_expected);
                if !is_right && !shared.going.lock().expect("no panic").contains(&row.path) {
                    let why = found.unwrap_or_else(|error| error.to_string());
                    shared.tell(format!(
                        "I10: {} is IN_SYNC on {} and is not there: {why}",
                        row.path, cell.server_id
                    ));
                }
            }
        });
        #[allow(
            clippy::disallowed_methods,
            reason = "aborted at the end, and it ends with the runtime of the test"
        )]
        let task = tokio::spawn(async move {
            tokio::join!(watch, watch_positions(matrix, positions));
        });
        Self { task, shared }
    }

    /// This file is about to be deleted: its row may be older than its disk.
    pub fn going(&self, path: &str) {
        self.shared.going.lock().expect("no panic").insert(path.to_owned());
    }

    /// Ends the watch: how many rows it looked at.
    ///
    /// # Panics
    /// If it found anything.
    pub fn end(self) -> u64 {
        self.task.abort();
        let found = self.shared.found.lock().expect("no panic");
        assert!(found.is_empty(), "{found:#?}");
        *self.shared.rows.lock().expect("no panic")
    }
}

impl Shared {
    fn tell(&self, text: String) {
        self.found.lock().expect("no panic").push(text);
    }
}

async fn watch_rows(
    mut matrix: MatrixServiceClient<Channel>,
    shared: Arc<Shared>,
    look: impl Fn(&Shared, &Row),
) {
    loop {
        if let Ok(stream) = matrix.watch_rows(WatchRowsRequest::default()).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(batch)) = stream.message().await {
                *shared.rows.lock().expect("no panic") += batch.rows.len() as u64;
                batch.rows.iter().for_each(|row| look(&shared, row));
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// I5: a position never goes back within its history.
async fn watch_positions(mut matrix: MatrixServiceClient<Channel>, shared: Arc<Shared>) {
    let mut last: BTreeMap<(String, String), i64> = BTreeMap::new();
    loop {
        if let Ok(answer) = matrix.list_servers(ListServersRequest::default()).await {
            for server in answer.into_inner().servers {
                let Some(position) = server.position else { continue };
                let key = (server.server_id, position.epoch);
                let before = last.insert(key.clone(), position.revision).unwrap_or_default();
                if position.revision < before {
                    shared.tell(format!("I5: {} went back from {before} to {}", key.0, position.revision));
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
