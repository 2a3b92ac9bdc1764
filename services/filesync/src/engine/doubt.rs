//! Copies that the disk refuses a look at (a bad sector, a directory that nobody may read): nothing true can be said of
//! them, so each is an exception of its path until it was read again (R44, H3).
//!
//! They stay held. A deletion or a move of the file finds them so, and trying again only has to read.

use lockstep_model::{FilePath, record::file_key};
use lockstep_registry::Registry as _;

use super::{Engine, codec::decode, walk::Depth};
use crate::{
    domain::{
        check::Finding,
        error::FileError,
        exception::{Missing, Obstacle},
        held::{Held, Wanted},
    },
    ports::{Ports, Write},
};

/// A copy that could not be looked at, and what the disk said.
pub(super) type Unseen = (FilePath, Held, Obstacle);

impl<P: Ports> Engine<P> {
    /// Notes copies that could not be looked at: from now on they are not told to be verified.
    pub(super) async fn doubt(&self, mut unseen: Vec<Unseen>) -> Result<(), FileError> {
        let board = &self.inner.board;
        // What is an exception already is tried as often as it should be.
        unseen.retain(|(path, ..)| board.exception(path).is_none_or(|known| known.is_kept));
        if unseen.is_empty() {
            return Ok(());
        }
        let paths: Vec<FilePath> = unseen.iter().map(|(path, ..)| path.clone()).collect();
        let _lease = self.inner.leases.acquire(&paths).await;
        let records = self.registry().get(paths.iter().map(file_key).collect()).await?;
        let now = board.held(&paths).into_iter().zip(board.exceptions(&paths));
        let room = self.inner.settings.exceptions_max.saturating_sub(board.exception_count());
        let mut writes = Vec::with_capacity(unseen.len());
        for (((path, held, why), record), (held_now, known)) in unseen.into_iter().zip(records).zip(now) {
            // Replaced, moved or deleted by now: a round does what is to be done.
            let record = record.filter(|record| record.revision == held.revision);
            let known = known.filter(|known| !known.is_kept);
            let (Some(record), None, true) = (record, known, held_now.as_ref() == Some(&held)) else {
                continue;
            };
            let wanted = Wanted::of(path, record.revision, decode(&record)?, record.traceparent);
            let obstacle = refused_look(&wanted, &why);
            tracing::warn!(path = %wanted.path, %obstacle, "a copy is not told to be verified any more");
            writes.push(Write::Miss(Missing::refused(wanted, obstacle)));
        }
        writes.truncate(room);
        if !writes.is_empty() {
            self.record(writes).await?;
            self.inner.fetch.notify_one();
        }
        Ok(())
    }

    /// Reads a copy that could not be looked at. What is right is verified again; what is not, is given up as always.
    pub(super) async fn look_again(&self, wanted: &Wanted) -> Result<(), FileError> {
        let path = &wanted.path;
        let stuck =
            |obstacle| FileError::Stuck { path: path.clone(), server: self.server().clone(), obstacle };
        let finding = match self.examine(path, Depth::Content, None).await {
            Ok(finding) => finding,
            Err(error) => {
                let why = error.of_one_path().ok_or(error)?;
                return Err(stuck(refused_look(wanted, &why)));
            }
        };
        let _lease = self.inner.leases.acquire([path]).await;
        if !self.inner.board.is_doubted(wanted) {
            return Ok(());
        }
        if finding == Finding::Right {
            tracing::info!(%path, "a copy that could not be looked at is verified again");
            return self.record(vec![self.not_missing(wanted)]).await;
        }
        // It changed while it was read, or the registry is ahead: not again at once.
        let known = self.inner.board.exception(path).and_then(|known| known.obstacle);
        known.map_or(Ok(()), |obstacle| Err(stuck(obstacle)))
    }
}

fn refused_look(wanted: &Wanted, why: &Obstacle) -> Obstacle {
    let message = format!("its bytes at {} were verified and cannot be looked at now: {why}", wanted.path);
    Obstacle { reason: why.reason, message }
}
