//! Reading and writing what the registry has of updates, settings and servers.

use lockstep_model::{
    FilePath, FirmwareId, Reason, RequestId, Revision, ServerId,
    firmware::{FIRMWARE, FirmwareRecord, FirmwareState, firmware_key},
    record::{FileRecord, SERVER, ServerRecord, file_key, server_key},
    version::excluded,
};
use lockstep_registry::{
    Commit, KEYS_MAX, ListQuery, Precondition, Record, Registry as _, RegistryError, Request,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Ask, Engine};
use crate::{
    domain::{
        error::{CatalogError, Refusal},
        life::passes,
    },
    ports::{Ports, Server},
};

/// Records in one read.
const PAGE: usize = 1_000;
/// How often a record may change under a change before it gives up.
const ATTEMPTS_MAX: usize = 16;
/// How many servers are asked for what any can do.
const ASKED_MAX: usize = 5;

/// An update as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Which.
    pub id: FirmwareId,
    /// The transaction that made it what it is.
    pub revision: Revision,
    /// What it is.
    pub record: FirmwareRecord,
}

/// A registered file as the registry has it.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) revision: Revision,
    pub(super) record: FileRecord,
}

pub(super) fn decode<T: DeserializeOwned>(record: &Record) -> Result<T, CatalogError> {
    serde_json::from_str(&record.body)
        .map_err(|error| CatalogError::Unreadable { key: record.key.clone(), cause: error.to_string() })
}

pub(super) fn encode(key: &str, record: &impl Serialize) -> Result<String, CatalogError> {
    serde_json::to_string(record)
        .map_err(|error| CatalogError::Unreadable { key: key.to_owned(), cause: error.to_string() })
}

/// A record of an update, live or ended; `None` if the key is none of an update.
pub(super) fn update(record: &Record) -> Option<Result<Update, CatalogError>> {
    let id = record.key.strip_prefix(FIRMWARE)?.parse().ok()?;
    let revision = record.revision;
    Some(decode(record).map(|record| Update { id, revision, record }))
}

impl<P: Ports> Engine<P> {
    pub(super) async fn find(&self, id: FirmwareId) -> Result<Option<Update>, CatalogError> {
        let found = self.registry().get(vec![firmware_key(&id)]).await?;
        found.into_iter().next().flatten().as_ref().and_then(update).transpose()
    }

    pub(super) async fn get(&self, id: FirmwareId) -> Result<Update, CatalogError> {
        self.find(id).await?.ok_or(CatalogError::NotFound { firmware_id: id })
    }

    /// All updates, ordered by model, version and id. One that cannot be read hides no other.
    pub(super) async fn all(&self) -> Result<Vec<Update>, CatalogError> {
        let records = self.list(FIRMWARE).await?;
        let mut updates = Vec::with_capacity(records.len());
        for read in records.iter().filter_map(update) {
            match read {
                Ok(update) => updates.push(update),
                Err(error) => tracing::error!(%error, "a firmware update is left out"),
            }
        }
        updates.sort_by(|a, b| {
            let of =
                |update: &Update| (update.record.model.clone(), update.record.version.clone(), update.id);
            of(a).cmp(&of(b))
        });
        Ok(updates)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Record>, CatalogError> {
        let (mut records, mut after_key) = (Vec::new(), String::new());
        loop {
            let query = ListQuery { prefix: prefix.to_owned(), after_key, limit: PAGE, tombstones: false };
            let page = self.registry().list(query).await?;
            after_key = page.records.last().map_or_else(String::new, |record| record.key.clone());
            records.extend(page.records);
            if !page.more {
                return Ok(records);
            }
        }
    }

    /// The server that is to take files.
    ///
    /// # Errors
    /// `SERVER_UNKNOWN`, `SERVER_NOT_ELIGIBLE`.
    pub(super) async fn server(&self, id: &ServerId) -> Result<Server, CatalogError> {
        let found = self.registry().get(vec![server_key(id)]).await?.into_iter().next().flatten();
        let found = found.ok_or_else(|| CatalogError::ServerUnknown { server: id.clone() })?;
        let record: ServerRecord = decode(&found)?;
        match excluded(record.mode, &record.version) {
            Some(reason) => Err(CatalogError::ServerNotEligible { server: id.clone(), reason }),
            None => Ok(Server { id: id.clone(), uri: record.filesync }),
        }
    }

    /// The servers that take part, `first` before all others.
    async fn servers_from(&self, first: &ServerId) -> Result<Vec<Server>, CatalogError> {
        let mut servers = Vec::new();
        for found in self.list(SERVER).await? {
            let Some(id) = found.key.strip_prefix(SERVER).and_then(|id| id.parse().ok()) else { continue };
            let record: ServerRecord = decode(&found)?;
            if excluded(record.mode, &record.version).is_none() {
                servers.push(Server { id, uri: record.filesync });
            }
        }
        servers.sort_by_key(|server| server.id != *first);
        servers.truncate(ASKED_MAX);
        Ok(servers)
    }

    /// Asks a server for what any of them can do: `first`, and others while that one is away. What is asked here is bound
    /// to revisions, so it goes under a fresh name: asking twice does no harm.
    ///
    /// # Errors
    /// What the last one answered.
    pub(super) async fn ask_servers<F>(
        &self,
        first: &ServerId,
        ask: impl Fn(Self, Server, RequestId) -> F + Send + Sync,
    ) -> Result<(), CatalogError>
    where
        F: Future<Output = Result<(), Refusal>> + Send,
    {
        let Some(request_id) = self.fresh_request() else { return Ok(()) };
        let mut last = CatalogError::ServerUnknown { server: first.clone() };
        for server in self.servers_from(first).await? {
            match ask(self.clone(), server, request_id.clone()).await {
                Ok(()) => return Ok(()),
                Err(refusal) => {
                    let may_other = passes(refusal.reason) || refusal.reason == Reason::ServerNotEligible;
                    last = refusal.into();
                    if !may_other {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// What is registered at each path.
    pub(super) async fn live<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a FilePath>,
    ) -> Result<Vec<Option<Live>>, CatalogError> {
        let keys: Vec<String> = paths.into_iter().map(file_key).collect();
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_MAX) {
            for found in self.registry().get(keys.to_vec()).await? {
                let live = |found: Record| {
                    Ok::<_, CatalogError>(Live { revision: found.revision, record: decode(&found)? })
                };
                all.push(found.map(live).transpose()?);
            }
        }
        Ok(all)
    }

    /// What a request that is known wrote about an update.
    pub(super) async fn remembered(
        &self,
        request: &Request,
        id: FirmwareId,
    ) -> Result<Option<Update>, CatalogError> {
        let Some(revision) = self.registry().find_request(request.clone()).await? else { return Ok(None) };
        self.written(revision, id).await.map(Some)
    }

    /// What a transaction wrote about an update. Where that is compacted, or it changed nothing, the latest tells.
    async fn written(&self, revision: Revision, id: FirmwareId) -> Result<Update, CatalogError> {
        let key = firmware_key(&id);
        let changes = match self.registry().transaction(revision).await {
            Ok(changes) => changes,
            Err(RegistryError::TooOld { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if let Some(found) = changes.iter().find(|record| record.key == key) {
            return decode(found).map(|record| Update { id, revision, record });
        }
        let latest = self.registry().get_latest(vec![key]).await?.into_iter().next().flatten();
        latest.as_ref().and_then(update).unwrap_or(Err(CatalogError::NotFound { firmware_id: id }))
    }

    /// Writes what somebody asked for; a repeated request gives the first answer.
    ///
    /// # Errors
    /// `REVISION_CHANGED` if the update is no longer at `seen`, `FIRMWARE_EXISTS` if it should be new and is not.
    pub(super) async fn write(
        &self,
        ask: &Ask,
        request: Request,
        seen: Option<Revision>,
        id: FirmwareId,
        record: FirmwareRecord,
    ) -> Result<Update, CatalogError> {
        let key = firmware_key(&id);
        let precondition = match seen {
            Some(revision) => Precondition::At(key.clone(), revision),
            None => Precondition::Absent(key.clone()),
        };
        let commit = Commit {
            preconditions: vec![precondition],
            puts: vec![(key.clone(), encode(&key, &record)?)],
            request: Some(request),
            traceparent: ask.traceparent.clone(),
            ..Commit::default()
        };
        match self.registry().commit(commit).await {
            Ok(done) if done.replayed => self.written(done.revision, id).await,
            Ok(done) => Ok(Update { id, revision: done.revision, record }),
            Err(error) => Err(changed(error, id, seen)),
        }
    }

    /// Brings an update that is in the state `from` further; `None` if it is in another one by now.
    pub(super) async fn advance(
        &self,
        id: FirmwareId,
        from: FirmwareState,
        change: impl Fn(&mut FirmwareRecord) + Send,
    ) -> Result<Option<Update>, CatalogError> {
        let key = firmware_key(&id);
        for _ in 0..ATTEMPTS_MAX {
            let Some(Update { revision, mut record, .. }) = self.find(id).await? else { return Ok(None) };
            if record.state != from {
                return Ok(None);
            }
            change(&mut record);
            let commit = Commit {
                preconditions: vec![Precondition::At(key.clone(), revision)],
                puts: vec![(key.clone(), encode(&key, &record)?)],
                ..Commit::default()
            };
            match self.registry().commit(commit).await {
                Ok(done) => return Ok(Some(Update { id, revision: done.revision, record })),
                // Somebody edited it: the change is made to what it is now.
                Err(RegistryError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let cause = format!("other changes of the firmware update {id} kept coming in between");
        Err(RegistryError::Unavailable { cause }.into())
    }
}

/// What a refused commit about an update means.
fn changed(error: RegistryError, id: FirmwareId, seen: Option<Revision>) -> CatalogError {
    match (error, seen) {
        (RegistryError::Refused { actual: Some(actual), .. }, Some(expected)) => {
            CatalogError::RevisionChanged { what: format!("the firmware update {id}"), expected, actual }
        }
        (RegistryError::Refused { actual: None, .. }, Some(_)) => CatalogError::NotFound { firmware_id: id },
        (error, _) => error.into(),
    }
}
