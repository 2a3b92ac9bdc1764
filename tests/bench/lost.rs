//! A server with 100,000 files vanishes and returns, so that every row changes twice: how long until somebody who watches all
//! rows has the last of them, what that takes, and that somebody who watches a few is not kept waiting meanwhile.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lockstep_proto::gateway::v1::{WatchRowsRequest, WatchRowsResponse, cell::State};
use lockstep_registry::{Commit, Registry as _, SqliteRegistry};
use prost::Message as _;
use tokio::{sync::watch, time::timeout};
use tonic::Streaming;

use crate::{
    many::{Installation, SOON},
    setting,
    work::Work,
};

/// The one that vanishes.
const LOST: usize = 7;
/// The goals: memory of the gateway at its peak; for a reader of all rows from the first changed row to the last; and for
/// another watcher's change, all the while.
const MEMORY_MAX: u64 = 256 << 20;
const ALL_MAX: Duration = Duration::from_secs(20);
const SEEN_MAX: Duration = Duration::from_secs(1);
/// The most bytes of one message.
const MESSAGE_MAX: usize = 1 << 20;

/// What a reader of all rows was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    messages: usize,
    bytes: usize,
    largest: usize,
    rows: usize,
}

impl Sent {
    fn count(&mut self, batch: &WatchRowsResponse) {
        let bytes = batch.encoded_len();
        self.messages += 1;
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
        self.rows += batch.rows.len();
    }
}

/// Reads until `files` rows have the lost server's cell in `state` or not in it; from the first such row on.
async fn read_all(
    rows: &mut Streaming<WatchRowsResponse>,
    files: usize,
    is_lost: bool,
) -> Result<(Duration, Sent)> {
    let (mut seen, mut sent, mut first) = (BTreeSet::new(), Sent::default(), None);
    while seen.len() < files {
        let batch = timeout(SOON, rows.message()).await??.context("the watch ended")?;
        for row in &batch.rows {
            let state = row.cells.get(LOST).map(|cell| cell.state());
            if (state == Some(State::Unreachable)) == is_lost && row.path.starts_with("files/") {
                first.get_or_insert_with(Instant::now);
                seen.insert(row.path.clone());
            }
        }
        if first.is_some() {
            sent.count(&batch);
        }
    }
    Ok((first.map(|first| first.elapsed()).unwrap_or_default(), sent))
}

/// Registers a file each fifth of a second until told to stop, and how long a watcher of those waited for each.
async fn others(
    mut rows: Streaming<WatchRowsResponse>,
    registry: SqliteRegistry,
    body: String,
    stop: watch::Receiver<bool>,
) -> Result<Vec<Duration>> {
    let mut waited = Vec::new();
    while !*stop.borrow() {
        let path = format!("new/{}.bin", waited.len());
        let puts = vec![(format!("file/{path}"), body.clone())];
        let begun = Instant::now();
        registry.commit(Commit { puts, ..Commit::default() }).await?;
        loop {
            let batch = timeout(SOON, rows.message()).await??.context("the watch ended")?;
            if batch.rows.iter().any(|row| row.path == path) {
                break;
            }
        }
        waited.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    waited.sort();
    Ok(waited)
}

/// Measures, and says whether the goals were met.
pub(crate) async fn measure(work: &Work) -> Result<bool> {
    let (servers, files): (usize, usize) = (setting("LOST_SERVERS", 20), setting("MATRIX_FILES", 100_000));
    println!(
        "\n{servers} servers × {files} files, one of them vanishes and returns, somebody watches all rows\n"
    );
    let mut all = Installation::start(work, "lost", servers, files).await?;
    let mut matrix = all.matrix();
    let mut rows = matrix.watch_rows(WatchRowsRequest::default()).await?.into_inner();
    let prefix = WatchRowsRequest { path_prefix: "new/".to_owned(), ..WatchRowsRequest::default() };
    let few = all.matrix().watch_rows(prefix).await?.into_inner();
    let (stop, stopped) = watch::channel(false);
    let beside =
        tokio::task::JoinSet::from_iter([others(few, all.registry.clone(), all.body.clone(), stopped)]);

    let first = read_all(&mut rows, files, false).await?;
    let quiet = all.gateway.memory("VmHWM")?;
    all.servers[LOST].begin();
    let lost = read_all(&mut rows, files, true).await?;
    all.servers[LOST].finished().await;
    all.bring_back(LOST).await?;
    let back = read_all(&mut rows, files, false).await?;
    stop.send_replace(true);
    let waited = beside.join_all().await.pop().context("it ran")??;
    let peak = all.gateway.memory("VmHWM")?;
    all.servers.iter().for_each(lockstep_chassis::Drain::begin);

    let mut met = true;
    let mut line = |what: &str, value: String, fits: bool| {
        println!("{what}: {value}: {}", if fits { "met" } else { "missed" });
        met &= fits;
    };
    for (what, (took, sent)) in [("all rows at first", first), ("one vanishes", lost), ("it returns", back)] {
        let value = format!(
            "{:.1} s, {} rows in {} messages, {} MiB, largest {} KiB",
            took.as_secs_f64(),
            sent.rows,
            sent.messages,
            sent.bytes >> 20,
            sent.largest >> 10
        );
        line(what, value, took <= ALL_MAX && sent.largest <= MESSAGE_MAX);
    }
    let mib = |bytes: u64| bytes >> 20;
    let memory = format!("{} MiB, and {} MiB before one vanished", mib(peak), mib(quiet));
    line("memory at its peak, at most 256 MiB", memory, peak <= MEMORY_MAX);
    let at = |share: usize| waited.get((waited.len().max(1) - 1) * share / 100).copied().unwrap_or_default();
    let text = format!(
        "median {:.1} ms, longest {:.1} ms of {}",
        at(50).as_secs_f64() * 1e3,
        at(100).as_secs_f64() * 1e3,
        waited.len()
    );
    line("meanwhile another watcher sees a change, at most 1 s", text, at(100) <= SEEN_MAX);
    Ok(met)
}
