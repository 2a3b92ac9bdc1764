//! Who the peers are: the servers that announced themselves in the registry and take part.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lockstep_model::{
    ServerId,
    record::{SERVER, ServerRecord, server_key},
    version::excluded,
};
use lockstep_registry::{Commit, ListQuery, Registry as _, RegistryError};
use tokio::time::Instant;

use super::{
    Engine,
    codec::{decode_json, encode},
};
use crate::{
    domain::error::FileError,
    ports::{Peer, Ports},
};

/// How long the list is used before it is read again.
const FRESH: Duration = Duration::from_secs(2);
/// More servers than an installation is made for.
const SERVERS_MAX: usize = 1_000;

/// The peers, as they were read last.
#[derive(Debug, Default)]
pub(super) struct Roster {
    last: Mutex<Option<(Instant, Vec<Peer>)>>,
}

impl<P: Ports> Engine<P> {
    /// All peers but this server, ordered by id.
    pub(super) async fn peers(&self) -> Result<Vec<Peer>, FileError> {
        let last = self.inner.roster.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, peers)) = last.filter(|(read, _)| read.elapsed() < FRESH) {
            return Ok(peers);
        }
        let query = ListQuery { prefix: SERVER.to_owned(), limit: SERVERS_MAX, ..ListQuery::default() };
        let mut peers = Vec::new();
        for record in self.registry().list(query).await?.records {
            let server = record.key[SERVER.len()..].parse::<ServerId>();
            let body: ServerRecord = decode_json(&record)?;
            match server {
                Ok(server) if server != *self.server() && excluded(body.mode, &body.version).is_none() => {
                    peers.push(Peer { server, uri: body.filesync });
                }
                _ => {}
            }
        }
        *self.inner.roster.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), peers.clone()));
        Ok(peers)
    }

    /// Tells everybody who this server is and where it answers (R14). Writes only what changed.
    pub(super) async fn announce(&self, record: &ServerRecord) -> Result<(), FileError> {
        let key = server_key(self.server());
        let known = self.registry().get(vec![key.clone()]).await?.pop().flatten();
        if let Some(known) = known
            && decode_json::<ServerRecord>(&known).is_ok_and(|known| known == *record)
        {
            return Ok(());
        }
        let commit = Commit { puts: vec![(key, encode(record)?)], ..Commit::default() };
        let committed =
            self.registry().commit(commit).await.map_err(|error: RegistryError| FileError::from(error))?;
        tracing::info!(revision = %committed.revision, mode = %record.mode, version = %record.version, "announced");
        Ok(())
    }
}
