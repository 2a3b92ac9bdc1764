//! What was set aside, and what people decide about it: it comes back as a loose file, or goes for good. Both happen on this
//! disk alone, so that the index of this server remembers the request and its answer.

use lockstep_model::{FilePath, path::fold, record::file_key};
use lockstep_registry::{Registry as _, Request};

use super::{Ask, Engine, codec::decode};
use crate::{
    domain::{aside::AsideFile, error::FileError, held::StagedName},
    ports::{Index as _, Ports, Remembered, StoreError, Tree as _, Write},
};

/// What is known of a request, with its answer.
pub(super) enum Recalled {
    /// It was cut off, or has just begun.
    Begun(String),
    /// It came to its end.
    Done(String),
}

impl<P: Ports> Engine<P> {
    /// What is known of a request; nothing if it is new.
    pub(super) async fn recall(&self, request: &Request) -> Result<Option<Recalled>, FileError> {
        let found = self.inner.ports.index.find_request(request.caller.clone(), request.id.clone()).await;
        match found.map_err(|error| self.index_failed(&error))? {
            Some(known) if known.fingerprint != request.fingerprint => {
                Err(FileError::RequestReused { request_id: request.id.clone() })
            }
            known => Ok(known.map(|known| match known.is_done {
                true => Recalled::Done(known.answer),
                false => Recalled::Begun(known.answer),
            })),
        }
    }

    /// Remembers what a request came to, or is about to.
    pub(super) async fn remember(&self, request: &Request, what: Recalled) -> Result<(), FileError> {
        let Request { caller, id, fingerprint } = request.clone();
        let (is_done, answer) = match what {
            Recalled::Begun(answer) => (false, answer),
            Recalled::Done(answer) => (true, answer),
        };
        self.record(vec![Write::Remember(Remembered { caller, id, fingerprint, is_done, answer })]).await
    }

    /// It was refused, so it may be made again.
    async fn unremember(&self, request: &Request) -> Result<(), FileError> {
        let (caller, id) = (request.caller.clone(), request.id.clone());
        self.record(vec![Write::Unremember { caller, id }]).await
    }

    /// Everything that is set aside, ordered by id.
    ///
    /// # Errors
    /// `STORE_OFFLINE`, or a disk that fails.
    pub async fn list_aside(&self) -> Result<Vec<AsideFile>, FileError> {
        self.verify_store().await?;
        self.inner.ports.store.aside().await.map_err(|error| self.disk(error))
    }

    async fn find_aside(&self, id: &str) -> Result<AsideFile, FileError> {
        // Looked up, never opened by what a caller wrote.
        let found = self.list_aside().await?.into_iter().find(|file| file.id == id);
        found.ok_or_else(|| self.no_aside(id))
    }

    fn no_aside(&self, id: &str) -> FileError {
        FileError::AsideNotFound { id: id.to_owned(), server: self.server().clone() }
    }

    /// Moves what is set aside to a free path, where it is loose again; where it was, if none is named.
    ///
    /// # Errors
    /// As the contract says; then nothing was moved.
    pub async fn restore_aside(
        &self,
        ask: Ask,
        id: String,
        path: Option<FilePath>,
    ) -> Result<FilePath, FileError> {
        let engine = self.clone();
        self.detached(async move { engine.restore_aside_once(&ask, &id, path).await }).await
    }

    async fn restore_aside_once(
        &self,
        ask: &Ask,
        id: &str,
        path: Option<FilePath>,
    ) -> Result<FilePath, FileError> {
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let to = path.as_ref().map_or("", FilePath::as_str);
        let request = self.request(ask, format!("restore aside {id} {to}"));
        let parsed = |text: String| text.parse().map_err(|rule| FileError::InvalidPath { text, rule });
        let begun = match self.recall(&request).await? {
            Some(Recalled::Done(answer)) => return parsed(answer),
            Some(Recalled::Begun(answer)) => Some(parsed(answer)?),
            None => None,
        };
        self.known_request(&request).await?;
        let restored = self.restore_aside_now(&request, id, path, begun).await;
        match &restored {
            Ok(path) => self.remember(&request, Recalled::Done(path.to_string())).await?,
            Err(_) => self.unremember(&request).await?,
        }
        restored
    }

    async fn restore_aside_now(
        &self,
        request: &Request,
        id: &str,
        path: Option<FilePath>,
        begun: Option<FilePath>,
    ) -> Result<FilePath, FileError> {
        let file = match (self.find_aside(id).await, begun) {
            // It was moved, and then the process ended.
            (Err(FileError::AsideNotFound { .. }), Some(path)) => return Ok(path),
            (found, _) => found?,
        };
        let path = path.or_else(|| file.note.map(|note| note.path)).ok_or_else(|| self.no_aside(id))?;
        let _lease = self.inner.leases.acquire([&path]).await;
        let record = self.registry().get(vec![file_key(&path)]).await?.pop().flatten();
        if let Some(record) = record {
            let (revision, body) = (record.revision, decode(&record)?);
            return Err(FileError::Exists { path, revision, digest: body.digest, origin: body.origin });
        }
        self.remember(request, Recalled::Begun(path.to_string())).await?;
        match self.inner.ports.store.bring_back(StagedName::found(id), path.clone()).await {
            Ok(()) => {
                tracing::info!(%path, %id, "what was set aside is a loose file again");
                Ok(path)
            }
            Err(StoreError::Occupied { .. } | StoreError::Foreign { .. }) => {
                Err(FileError::LooseFile { path, server: self.server().clone() })
            }
            Err(StoreError::Absent { .. }) => Err(self.no_aside(id)),
            Err(error) => Err(self.disk(error)),
        }
    }

    /// Removes what is set aside, for good.
    ///
    /// # Errors
    /// As the contract says.
    pub async fn delete_aside(&self, ask: Ask, id: String) -> Result<(), FileError> {
        let engine = self.clone();
        self.detached(async move { engine.delete_aside_once(&ask, &id).await }).await
    }

    async fn delete_aside_once(&self, ask: &Ask, id: &str) -> Result<(), FileError> {
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let request = self.request(ask, format!("delete aside {id}"));
        let known = self.recall(&request).await?;
        if let Some(Recalled::Done(_)) = known {
            return Ok(());
        }
        let deleted = match self.find_aside(id).await {
            // It went, and then the process ended.
            Err(FileError::AsideNotFound { .. }) if known.is_some() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                self.remember(&request, Recalled::Begun(String::new())).await?;
                match self.inner.ports.store.drop_aside(StagedName::found(id)).await {
                    Ok(()) => {
                        tracing::info!(%id, "what was set aside is removed");
                        Ok(())
                    }
                    Err(StoreError::Absent { .. }) => Err(self.no_aside(id)),
                    Err(error) => Err(self.disk(error)),
                }
            }
        };
        match &deleted {
            Ok(()) => self.remember(&request, Recalled::Done(String::new())).await?,
            Err(_) => self.unremember(&request).await?,
        }
        deleted
    }

    fn request(&self, ask: &Ask, fingerprint: String) -> Request {
        Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint }
    }
}
