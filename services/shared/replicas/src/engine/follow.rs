//! Reads the registry: everything once, then what changes, for as long as the history stays the same.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use lockstep_chassis::health::Health;
use lockstep_model::{
    Position,
    clock::Entropy,
    record::{FILE, FileRecord, SERVER, ServerRecord},
};
use lockstep_registry::{Changes, ListQuery, Record, Registry, RegistryError, chain};

use crate::{
    domain::{
        backoff::Backoff,
        live::{Further, Live},
        records::{Change, Records, Registered},
        server::Reading,
    },
    engine::{REGISTRY, board::Board},
};

/// Records in a page.
const PAGE_RECORDS: usize = 10_000;
/// Back-off while the registry does not answer.
const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(3);

pub(crate) struct Follow<R, V, E> {
    pub(crate) registry: R,
    pub(crate) board: Board<V>,
    pub(crate) health: Health,
    pub(crate) entropy: E,
}

/// Why following ended.
enum Ended {
    /// What was read is no longer part of the history, or too old: read everything again.
    Anew(RegistryError),
    /// Go on where it was.
    Retry(RegistryError),
}

impl From<RegistryError> for Ended {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Forked { .. } | RegistryError::TooOld { .. } => Self::Anew(error),
            _ => Self::Retry(error),
        }
    }
}

impl<R: Registry, V: Live, E: Entropy> Follow<R, V, E> {
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(RETRY_LEAST, RETRY_MOST);
        let mut read = None;
        loop {
            let Err(ended) = self.follow(&mut read, &mut backoff).await;
            match ended {
                Ended::Anew(error) => {
                    tracing::warn!(%error, "the registry is read anew");
                    read = None;
                }
                Ended::Retry(error) => {
                    if self.health.is_ready() {
                        tracing::warn!(%error, "the registry does not answer");
                    }
                    self.health.set(REGISTRY, false);
                }
            }
            tokio::time::sleep(backoff.wait(&self.entropy)).await;
        }
    }

    /// Follows until something goes wrong; `read` is how far it came.
    async fn follow(&self, read: &mut Option<Position>, backoff: &mut Backoff) -> Result<Infallible, Ended> {
        let mut position = match *read {
            Some(position) => position,
            None => self.load().await?,
        };
        *read = Some(position);
        loop {
            let began = self.board.now();
            let head = tokio::select! {
                biased;
                head = self.registry.wait_past(position.revision) => head?,
                () = self.board.unread() => self.registry.head().await?,
            };
            if head != position {
                let changes = self.registry.changes(position, String::new(), PAGE_RECORDS).await?;
                position = self.advance(position, changes);
                *read = Some(position);
            }
            self.board.update(|view| view.read(Reading { began, head: head.revision }));
            self.board.aim(head.revision, None);
            self.health.set(REGISTRY, true);
            backoff.reset();
        }
    }

    /// Reads everything, and then what changed meanwhile: the pages of a list are no instant.
    async fn load(&self) -> Result<Position, RegistryError> {
        let mut records: Option<Records> = None;
        let mut further = BTreeMap::new();
        for prefix in [FILE, SERVER].into_iter().chain(V::FURTHER.iter().copied()) {
            let mut after_key = String::new();
            loop {
                let query = ListQuery {
                    prefix: prefix.to_owned(),
                    after_key,
                    limit: PAGE_RECORDS,
                    tombstones: false,
                };
                let page = self.registry.list(query).await?;
                let records = records.get_or_insert_with(|| Records::at(page.position));
                after_key = page.records.last().map_or_else(String::new, |record| record.key.clone());
                for record in &page.records {
                    decode(record).map(|change| records.apply(record.revision, change));
                    further.extend(another::<V>(record).map(|record| (record.key.clone(), record)));
                }
                if !page.more {
                    break;
                }
            }
        }
        let Some(mut records) = records else { return self.registry.head().await };
        loop {
            let position = records.history.position();
            let changes = self.registry.changes(position, String::new(), PAGE_RECORDS).await?;
            for record in &changes.changes {
                decode(record).map(|change| records.apply(record.revision, change));
                further.extend(another::<V>(record).map(|record| (record.key.clone(), record)));
            }
            records.history.advance(changes.through);
            if changes.through == changes.head {
                break;
            }
        }
        let position = records.history.position();
        let (files, servers) = (records.file_count(), records.servers().count());
        tracing::info!(files, servers, revision = position.revision.0, "registry read");
        self.board.update(|view| {
            view.adopt(records, self.board.now());
            further.into_values().for_each(|record| view.further(record));
        });
        self.board.enrol(true);
        self.board.aim(position.revision, None);
        Ok(position)
    }

    fn advance(&self, from: Position, changes: Changes) -> Position {
        let Changes { changes, through, head } = changes;
        let newest = changes.last().filter(|record| record.revision == head.revision);
        // Before anything else: every millisecond here is one more until the peers hear of it.
        self.board.aim(head.revision, newest.map(|record| record.traceparent.clone()));
        let passed = passed(from, &changes, through);
        let decoded = changes.iter().filter_map(|record| Some((record.revision, decode(record)?))).collect();
        let roster = changes.iter().any(|record| record.key.starts_with(SERVER));
        let further: Vec<Further> = changes.iter().filter_map(another::<V>).collect();
        self.board.update(|view| {
            view.advance(decoded, passed, through, self.board.now());
            further.into_iter().for_each(|record| view.further(record));
        });
        if roster {
            self.board.enrol(false);
        }
        through
    }
}

/// The positions on the way, one for each transaction, so that whatever position a server stands at can be compared.
fn passed(from: Position, changes: &[Record], through: Position) -> Vec<Position> {
    let mut at = from;
    let mut passed = Vec::new();
    for transaction in changes.chunk_by(|a, b| a.revision == b.revision) {
        let links = transaction.iter().map(|record| chain::Link {
            key: &record.key,
            deleted: record.deleted,
            body: &record.body,
        });
        let revision = transaction.first().map_or(at.revision, |record| record.revision);
        at = Position { revision, chain: chain::next(&at.chain, revision, links), ..at };
        passed.push(at);
    }
    if passed.last().is_some_and(|last| *last != through) {
        tracing::error!(%through, "the changes in the registry do not give its chain");
        return Vec::new();
    }
    passed
}

/// A record of another kind that the service wants.
fn another<V: Live>(record: &Record) -> Option<Further> {
    V::FURTHER.iter().any(|prefix| record.key.starts_with(prefix)).then(|| Further {
        revision: record.revision,
        key: record.key.clone(),
        body: (!record.deleted).then(|| record.body.clone()),
    })
}

/// What a record says of files and servers; `None` for other kinds.
fn decode(record: &Record) -> Option<Change> {
    let broken =
        |error: serde_json::Error| tracing::error!(key = record.key, %error, "a record cannot be read");
    if let Some(path) = record.key.strip_prefix(FILE) {
        if record.deleted {
            return Some(Change::File(path.to_owned(), None));
        }
        let file: FileRecord = serde_json::from_str(&record.body).map_err(broken).ok()?;
        let FileRecord { size_bytes, origin, placement, file_id, .. } = file;
        return Some(Change::File(
            path.to_owned(),
            Some(Registered { size_bytes, origin, placement, file_id }),
        ));
    }
    let id = record.key.strip_prefix(SERVER)?.parse().ok()?;
    if record.deleted {
        return Some(Change::Server(id, None));
    }
    let server: ServerRecord = serde_json::from_str(&record.body).map_err(broken).ok()?;
    Some(Change::Server(id, Some(Box::new(server))))
}
