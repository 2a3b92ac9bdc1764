//! What ends a condition of the disk. A disk that refused is tried every few seconds until it takes bytes again, so that
//! a server recovers by itself within a minute, whatever the cycle is; and a root that became read-only says so before
//! anybody writes to it.

use std::time::Duration;

use bytes::Bytes;
use lockstep_model::{Reason, clock::Entropy as _};
use tokio::time::Instant;

use super::Engine;
use crate::{
    domain::{error::FileError, held::StagedName},
    ports::{Index as _, Ports, Store as _},
};

/// How often the disk is looked at, and tried while it refuses.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes that a disk takes, durably, before it is called well again; the index asks for as many of its own disk.
const TRIAL_BYTES: usize = 1 << 20;

impl<P: Ports> Engine<P> {
    /// Looks at the disk until the process drains.
    pub(super) async fn run_recover(self) {
        while self.pause(Instant::now() + LOOK_EVERY).await {
            if let Err(error) = self.recover().await {
                tracing::debug!(%error, "the disk is tried again later");
            }
        }
    }

    /// Ends the conditions that hold no more: `STORE_READ_ONLY` when the disks of the root and of the index take a
    /// mebibyte, `DISK_FULL` when there is room beyond the reserve as well and no file waits for any. Whatever was given
    /// up meanwhile is tried at once then.
    async fn recover(&self) -> Result<(), FileError> {
        let board = &self.inner.board;
        if board.has_condition(Reason::StoreOffline) {
            return Ok(());
        }
        let free_bytes = self.inner.ports.store.free_bytes().await.map_err(|error| self.disk(error))?;
        let refuses = [Reason::DiskFull, Reason::StoreReadOnly].map(|reason| board.has_condition(reason));
        if refuses == [false, false] {
            return Ok(());
        }
        self.verify_store().await?;
        self.try_disks().await?;
        let mut ended = board.end_condition(Reason::StoreReadOnly);
        if free_bytes > 0 && !board.waits_for_room() {
            ended |= board.end_condition(Reason::DiskFull);
        }
        if ended {
            tracing::info!(free_bytes, "the disk takes bytes again");
            board.hurry(Instant::now());
            self.request_round();
        }
        // Files that wait for room may have it by now.
        self.inner.fetch.notify_one();
        Ok(())
    }

    /// Whether a change can be written down: known to be so unless a disk refuses now. Asked before any byte is staged.
    pub(super) async fn may_note(&self) -> Result<(), FileError> {
        if !self.inner.board.has_condition(Reason::DiskFull) {
            return Ok(());
        }
        self.inner.ports.index.probe(TRIAL_BYTES).await.map_err(|error| self.index_failed(&error))
    }

    async fn try_disks(&self) -> Result<(), FileError> {
        let store = &self.inner.ports.store;
        let name = StagedName::new("trial", self.inner.ports.entropy.uuid());
        let tried = match store.stage(vec![(name.clone(), Bytes::from(vec![0; TRIAL_BYTES]))]).await {
            Ok(()) => store.sync(vec![(name.clone(), None)]).await,
            Err(error) => Err(error),
        };
        self.discard(vec![name]).await;
        tried.map_err(|error| self.disk(error))?;
        self.inner.ports.index.probe(TRIAL_BYTES).await.map_err(|error| self.index_failed(&error))
    }
}
