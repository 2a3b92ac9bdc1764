//! What people say of servers: listed from memory, changed in the registry.

use std::time::Duration;

use lockstep_chassis::deadline;
use lockstep_model::{
    Digest, RequestId, Revision, ServerId,
    record::{AddressRecord, ServerRecord, address_key, server_key},
};
use lockstep_registry::{Commit, Precondition, Record, Registry, RegistryError, Request};

use crate::{
    domain::{
        edit::Assignment,
        error::ServerError,
        reach::{HTTP_PORT, HTTPS_PORT, stored_host},
        view::View,
    },
    engine::Board,
};

/// How long a change waits until the own view has it. It is woken by the registry's bell, so this is a matter of
/// milliseconds unless the registry falls silent in between.
const SEEN_MAX: Duration = Duration::from_secs(5);

/// A server as its administrators describe it, with what holds while nobody said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The server.
    pub id: ServerId,
    /// The revision that made the description; 0 while there is none.
    pub revision: Revision,
    /// What people said.
    pub said: AddressRecord,
    /// The host name that is stored for it.
    pub host_name: String,
    /// The web port for HTTPS.
    pub https_port: u16,
    /// The web port for HTTP.
    pub http_port: u16,
}

/// A change as somebody asked for it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who.
    pub caller: String,
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// The server.
    pub server: ServerId,
    /// The revision that the caller saw; 0 if there was none.
    pub expected: Revision,
    /// The new values.
    pub assignments: Vec<Assignment>,
    /// W3C trace context; may be empty.
    pub traceparent: String,
}

impl Ask {
    fn request(&self) -> Request {
        let text = format!("update server {} {} {:?}", self.server, self.expected, self.assignments);
        let fingerprint = Digest::of(text.as_bytes()).to_string();
        Request { caller: self.caller.clone(), id: self.request_id.to_string(), fingerprint }
    }
}

/// What people say of servers. Clones share it.
#[derive(Clone, Debug)]
pub struct Servers<R> {
    registry: R,
    board: Board,
}

impl<R: Registry> Servers<R> {
    /// Over a registry, and the view of it.
    pub fn new(registry: R, board: Board) -> Self {
        Self { registry, board }
    }

    /// Servers after the id `after`, `limit` at most, ordered by id, and whether there are more.
    ///
    /// # Errors
    /// [`ServerError`] before the registry was read, and for a record that cannot be read.
    pub fn list(&self, after: &str, limit: usize) -> Result<(Vec<Described>, bool), ServerError> {
        self.board.read(|view| {
            view.position().ok_or(ServerError::Unread)?;
            let mut later = view.members().filter(|(_, member)| member.id.as_str() > after);
            let page = later.by_ref().take(limit).map(|(_, member)| described(view, &member.id));
            let page = page.collect::<Result<Vec<_>, _>>()?;
            Ok((page, later.next().is_some()))
        })
    }

    /// Changes what people say of a server. When it answers, the own view has the change: it is in the very next answer
    /// (R54). A repetition is answered as the first time.
    ///
    /// # Errors
    /// [`ServerError`]; after [`ServerError::NotSeen`] it is changed.
    pub async fn update(&self, ask: Ask) -> Result<Described, ServerError> {
        let revision = match self.registry.find_request(ask.request()).await? {
            Some(revision) => revision,
            None => match self.commit(&ask).await {
                // The same request may have been carried out in between, on this resolver or another.
                Err(changed @ ServerError::RevisionChanged { .. }) => {
                    self.registry.find_request(ask.request()).await?.ok_or(changed)?
                }
                made => made?,
            },
        };
        self.seen(&ask.server, revision).await?;
        let made = self.made(&ask.server, revision).await?;
        self.board.read(|view| match made {
            // A later change may be in the view by now: the answer is about this one.
            Some(record) => {
                let server = view.server(&ask.server);
                let server = server.ok_or_else(|| ServerError::Unknown { server: ask.server.clone() })?;
                Ok(describe(&ask.server, revision, &server.record, record))
            }
            None => described(view, &ask.server),
        })
    }

    async fn commit(&self, ask: &Ask) -> Result<Revision, ServerError> {
        let keys = vec![server_key(&ask.server), address_key(&ask.server)];
        let mut found = self.registry.get_latest(keys).await?.into_iter();
        let (server, said) = (found.next().flatten(), found.next().flatten());
        if server.is_none_or(|server| server.deleted) {
            return Err(ServerError::Unknown { server: ask.server.clone() });
        }
        let said = said.filter(|record| !record.deleted);
        let actual = said.as_ref().map_or(Revision::ZERO, |record| record.revision);
        let changed = |actual| ServerError::RevisionChanged {
            server: ask.server.clone(),
            expected: ask.expected,
            actual,
        };
        if actual != ask.expected {
            return Err(changed(actual));
        }
        let mut record = said.as_ref().map_or_else(|| Ok(AddressRecord::default()), decoded)?;
        ask.assignments.iter().for_each(|assignment| assignment.apply(&mut record));
        let key = address_key(&ask.server);
        let precondition = match said {
            Some(record) => Precondition::At(key.clone(), record.revision),
            None => Precondition::Absent(key.clone()),
        };
        let body = serde_json::to_string(&record);
        let body = body.map_err(|_| ServerError::Unreadable { key: key.clone() })?;
        let commit = Commit {
            preconditions: vec![precondition],
            puts: vec![(key, body)],
            request: Some(ask.request()),
            traceparent: ask.traceparent.clone(),
            ..Commit::default()
        };
        match self.registry.commit(commit).await {
            Ok(committed) => Ok(committed.revision),
            Err(RegistryError::Refused { actual, .. }) => Err(changed(actual.unwrap_or_default())),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the own view has read as far as `revision`.
    async fn seen(&self, server: &ServerId, revision: Revision) -> Result<(), ServerError> {
        let mut changes = self.board.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                let position = self.board.read(|view| view.position());
                if position.is_some_and(|position| position.revision >= revision) {
                    break;
                }
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        let late = |_| ServerError::NotSeen { server: server.clone(), revision };
        deadline::within(SEEN_MAX, wait).await.map_err(late)
    }

    /// What a change of this server wrote; `None` if that is compacted.
    async fn made(
        &self,
        server: &ServerId,
        revision: Revision,
    ) -> Result<Option<AddressRecord>, ServerError> {
        let key = address_key(server);
        match self.registry.transaction(revision).await {
            Ok(records) => records.iter().find(|record| record.key == key).map(decoded).transpose(),
            Err(RegistryError::TooOld { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn decoded(record: &Record) -> Result<AddressRecord, ServerError> {
    serde_json::from_str(&record.body).map_err(|error| {
        tracing::error!(key = record.key, %error, "a record cannot be read");
        ServerError::Unreadable { key: record.key.clone() }
    })
}

fn described(view: &View, id: &ServerId) -> Result<Described, ServerError> {
    let server = view.server(id).ok_or_else(|| ServerError::Unknown { server: id.clone() })?;
    let said = view.said(id);
    let record = said.record.ok_or_else(|| ServerError::Unreadable { key: address_key(id) })?;
    Ok(describe(id, said.revision, &server.record, record))
}

fn describe(id: &ServerId, revision: Revision, server: &ServerRecord, said: AddressRecord) -> Described {
    Described {
        id: id.clone(),
        revision,
        host_name: stored_host(server, &said.host_name).to_owned(),
        https_port: said.https_port.unwrap_or(HTTPS_PORT),
        http_port: said.http_port.unwrap_or(HTTP_PORT),
        said,
    }
}
