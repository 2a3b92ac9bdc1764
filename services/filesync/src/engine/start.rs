//! Starting: what a process does before it is ready, and the tasks that then run until it drains.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use lockstep_chassis::{Drain, Health};
use lockstep_model::{
    Position, Reason, StoreId,
    record::{ServerRecord, server_key},
};
use lockstep_registry::Registry as _;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::sleep,
};

use super::{
    Adapters, Engine, Inner, ROUND_CALLERS_MAX, board::Board, codec::decode_json, fetch, intents::Intents,
    uploads::Uploads,
};
use crate::{
    config::Settings,
    domain::{error::FileError, exception::Obstacle},
    ports::{Index as _, IndexError, Loaded, Ports, Store as _, StoreError, Write},
};

/// How often a store that is not there, or a registry that does not answer, is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

impl<P: Ports> Engine<P> {
    /// Loads what is known and starts the tasks. Does not wait for the registry, nor for a store that is away.
    ///
    /// # Errors
    /// [`IndexError`] if the index cannot be read.
    pub async fn start(
        settings: Settings,
        ports: Adapters<P>,
        drain: Drain,
        health: Health,
    ) -> Result<Self, IndexError> {
        let loaded = ports.index.load().await?;
        let (rounds, asked) = mpsc::channel(ROUND_CALLERS_MAX);
        let next = loaded.intents.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
        let engine = Self {
            inner: Arc::new(Inner {
                board: Board::new(&loaded),
                leases: super::Leases::default(),
                requests: super::Leases::default(),
                uploads: Uploads::default(),
                early: super::early::EarlyCopies::default(),
                roster: super::Roster::default(),
                drifts: super::examine::Drifts::default(),
                ahead: super::ahead::Ahead::default(),
                intents: Intents::new(loaded.intents.iter().cloned()),
                numbers: AtomicU64::new(next),
                reserved_bytes: AtomicU64::new(0),
                rounds,
                fetch: Notify::new(),
                small_lane: Arc::new(Semaphore::new(fetch::SMALL_BATCHES)),
                large_lane: Arc::new(Semaphore::new(fetch::LARGE_COPIES)),
                stuck_lane: Arc::new(Semaphore::new(1)),
                send_lane: Arc::new(Semaphore::new(super::content::SENDS_MAX)),
                settings,
                ports,
                drain: drain.clone(),
                health,
            }),
        };
        drain.spawn_until("fence", engine.clone().run_fence());
        let fresh = StoreId::random(&engine.inner.ports.entropy);
        // The first try is made before anybody is served, so that no call mistakes a start for a store that is away.
        let opened = engine.try_store(&loaded, fresh).await;
        let starting = engine.clone();
        drain.spawn("start", async move {
            let store = match opened {
                Some(store) => Some(store),
                None => starting.wait_for_store(&loaded, fresh).await,
            };
            if let Some(store_id) = store {
                let (announcing, fetching) = (starting.clone(), starting.clone());
                starting.inner.drain.spawn("announce", announcing.run_announce(store_id));
                starting.inner.drain.spawn("fetch", fetching.run_fetch());
                let (walking, scrubbing) = (starting.clone(), starting.clone());
                starting.inner.drain.spawn("recover", starting.clone().run_recover());
                starting.inner.drain.spawn("walk", walking.run_walk());
                starting.inner.drain.spawn("scrub", scrubbing.run_scrub(loaded.scrubbed.clone()));
                starting.run_rounds(asked).await;
            }
        });
        Ok(engine)
    }

    /// Tries until the store that belongs to the index is there; `None` if the process drains first.
    async fn wait_for_store(&self, loaded: &Loaded, fresh: StoreId) -> Option<StoreId> {
        loop {
            tokio::select! {
                biased;
                () = self.inner.drain.started() => return None,
                () = sleep(RETRY_EVERY) => {}
            }
            if let Some(store) = self.try_store(loaded, fresh).await {
                return Some(store);
            }
        }
    }

    async fn try_store(&self, loaded: &Loaded, fresh: StoreId) -> Option<StoreId> {
        let expected = match self.expected_store(loaded).await {
            Ok(expected) => expected,
            Err(error) => {
                if self.inner.board.begin_condition(Obstacle::of(&error)) {
                    tracing::error!(%error, "which store this server has is not known yet");
                }
                return None;
            }
        };
        self.inner.board.end_condition(Reason::RegistryUnavailable);
        match self.inner.ports.store.claim(expected, fresh).await {
            Ok(store) => match self.adopt_store(store, loaded).await {
                Ok(()) => return Some(store),
                Err(error) => tracing::error!(%error, "the store cannot be used yet"),
            },
            Err(error) => {
                let error = self.with_way_out(error, loaded, expected);
                if self.inner.board.position().is_none()
                    && let Ok(head) = self.registry().head().await
                {
                    self.inner.board.begin_at(Position::start(head.epoch));
                }
                if self.inner.board.begin_condition(Obstacle::of(&error)) {
                    tracing::error!(%error, "the store is not used; nothing is served, copied or deleted");
                }
            }
        }
        None
    }

    /// The store that this server has: its index says so, or else its record in the registry. Where both have nothing, it
    /// is new; so it is where somebody said that the one in the record is lost for good.
    async fn expected_store(&self, loaded: &Loaded) -> Result<Option<StoreId>, FileError> {
        if loaded.store.is_some() {
            return Ok(loaded.store);
        }
        let record = self.registry().get(vec![server_key(self.server())]).await?.pop().flatten();
        let known = record.map(|record| decode_json::<ServerRecord>(&record)).transpose()?;
        let known = known.map(|known| known.store_id);
        Ok(known.filter(|known| Some(*known) != self.inner.settings.lost_store))
    }

    /// What somebody can do whose root is gone for good, beside mounting it.
    fn with_way_out(&self, error: StoreError, loaded: &Loaded, expected: Option<StoreId>) -> StoreError {
        let (StoreError::Offline { cause }, Some(store)) = (&error, expected) else { return error };
        let server = self.server();
        // The state tells what was on the lost root: kept, it would be taken for what is on the new one.
        let first = if loaded.store.is_some() { "remove its state directory and " } else { "" };
        let way = format!("mount it, or if it is lost for good, {first}start server {server} once");
        StoreError::Offline { cause: format!("{way} with --lost-store={store}: {cause}") }
    }

    async fn adopt_store(&self, store: StoreId, loaded: &Loaded) -> Result<(), FileError> {
        self.record(vec![Write::Store(store)]).await?;
        let kept: BTreeSet<_> = (loaded.intents.iter().flat_map(|(_, intent)| intent.staged()).cloned())
            .chain(loaded.journal.iter().map(|(name, _)| name.clone()))
            .chain(loaded.uploads.iter().map(super::uploads::staged_of))
            .collect();
        let disk = &self.inner.ports.store;
        let found = disk.staged().await.map_err(|error| self.disk(error))?;
        let left = found.into_iter().map(|(name, _)| name).filter(|name| !kept.contains(name)).collect();
        // What cannot be removed keeps nobody from using the store.
        self.discard(left).await;
        // Before anything is copied or continued: what an exchange left in staging may have the name of either.
        self.settle_exchanges_at(None).await?;
        self.restore_uploads(loaded).await?;
        self.inner.board.end_condition(Reason::StoreOffline);
        self.inner.board.end_condition(Reason::StoreReadOnly);
        self.inner.health.set("store", true);
        Ok(())
    }

    /// Announces this server, as often as it takes.
    async fn run_announce(self, store_id: StoreId) {
        let settings = &self.inner.settings;
        let record = ServerRecord {
            mode: settings.mode,
            version: settings.version.clone(),
            filesync: settings.advertise.clone(),
            timeguard: settings.timeguard.clone(),
            store_id,
        };
        loop {
            match self.announce(&record).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "not announced yet"),
            }
            tokio::select! {
                biased;
                () = self.inner.drain.started() => return,
                () = sleep(RETRY_EVERY) => {}
            }
        }
    }
}
