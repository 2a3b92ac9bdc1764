//! The loop over the ports: it carries out what the domain decides.
//!
//! ```text
//!  register ─┐                                 ┌─ fetch small  (batches)
//!  delete  ──┼─▶ registry ─▶ reconcile ─▶ board ┤
//!  Reconcile ┘      (one round at a time)       └─ fetch large  (four at once)
//! ```
//! Every change of what is held goes to the index first and to the board after it, under a lease of its path.

mod ahead;
mod aside;
pub mod board;
mod change;
mod codec;
mod commit;
mod content;
mod declared;
mod delete;
mod directory;
mod doubt;
mod early;
mod examine;
mod exchange;
mod fence;
mod fetch;
mod fetch_large;
mod fetch_small;
mod free;
mod in_place;
mod intents;
mod kept_uploads;
mod lease;
mod loose;
mod moves;
mod placement;
mod publish;
mod reconcile;
mod records;
mod recover;
mod register;
mod relay;
mod roster;
mod settle;
mod staged_file;
mod start;
mod stuck;
mod update;
mod uploads;
mod walk;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lockstep_chassis::{Drain, Health, deadline, trace};
use lockstep_model::{
    Fault as _, Reason, RequestId, Revision, ServerId, record::FileRecord, version::excluded,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot},
    time::Instant,
};
use tracing::Instrument as _;

pub(crate) use self::codec::decode;
use self::{board::Board, lease::Leases, roster::Roster, uploads::Uploads};
pub use self::{
    content::{Answer, CONTENT_RANGES_MAX},
    declared::Declared,
    directory::{DIRECTORY_FILES_MAX, Seen, Summary},
    loose::Loose,
    reconcile::Round,
    register::{NewFile, Place, Source},
    uploads::{Audience, Progress, UPLOAD_BYTES_MAX, Writer},
    walk::{Checked, Depth},
};
use crate::{
    config::Settings,
    domain::{error::FileError, exception::Obstacle},
    ports::{Index as _, IndexError, Ports, StoreError, Write},
};

/// Rounds that may be asked for at once; they share a round, so more waiting callers are refused.
const ROUND_CALLERS_MAX: usize = 1_024;

/// One server's filesync.
pub struct Engine<P: Ports> {
    inner: Arc<Inner<P>>,
}

impl<P: Ports> Clone for Engine<P> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<P: Ports> {
    settings: Settings,
    ports: Adapters<P>,
    drain: Drain,
    health: Health,
    board: Board,
    leases: Leases,
    /// Requests that are being worked on, by who asked under which name.
    requests: Leases,
    uploads: Uploads,
    early: early::EarlyCopies,
    roster: Roster,
    drifts: examine::Drifts,
    intents: intents::Intents,
    ahead: ahead::Ahead,
    numbers: AtomicU64,
    reserved_bytes: AtomicU64,
    rounds: mpsc::Sender<oneshot::Sender<Result<Round, FileError>>>,
    fetch: Notify,
    small_lane: Arc<Semaphore>,
    large_lane: Arc<Semaphore>,
    stuck_lane: Arc<Semaphore>,
    send_lane: Arc<Semaphore>,
}

/// The things behind the ports.
#[derive(Clone)]
pub struct Adapters<P: Ports> {
    /// Files.
    pub store: P::Store,
    /// What is known of them.
    pub index: P::Index,
    /// The authority.
    pub registry: P::Registry,
    /// Other servers.
    pub peers: P::Peers,
    /// The time guard of this server.
    pub guard: P::Guard,
    /// Time.
    pub clock: P::Clock,
    /// Chance.
    pub entropy: P::Entropy,
}

/// Who asks for a change, and under which name.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The principal, such as `operator/local`.
    pub caller: String,
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// Trace of the call.
    pub traceparent: String,
    /// When the caller stops waiting; the work may go on after it.
    pub deadline: Option<Instant>,
}

impl Ask {
    /// Within the call.
    pub fn new(caller: String, request_id: RequestId) -> Self {
        Self { caller, request_id, traceparent: trace::traceparent(), deadline: deadline::current() }
    }

    /// How records remember it.
    fn label(&self) -> String {
        format!("{} {}", self.caller, self.request_id)
    }
}

/// A registered file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its path.
    pub path: lockstep_model::FilePath,
    /// The revision of its record.
    pub revision: Revision,
    /// Its record.
    pub record: FileRecord,
}

impl<P: Ports> Engine<P> {
    /// What is known right now.
    pub fn board(&self) -> &Board {
        &self.inner.board
    }

    /// The server.
    pub fn server(&self) -> &ServerId {
        &self.inner.settings.server_id
    }

    /// How long until everything is compared with the registry anyway.
    pub fn cycle(&self) -> Duration {
        self.inner.settings.reconcile_every
    }

    /// The registry, for reads.
    pub(crate) fn registry(&self) -> &P::Registry {
        &self.inner.ports.registry
    }

    /// Whether anything but its clock keeps this server from changing something now.
    fn may_change(&self) -> Result<(), FileError> {
        let server = || self.server().clone();
        if self.inner.drain.is_draining() {
            return Err(FileError::Draining { server: server() });
        }
        let settings = &self.inner.settings;
        if let Some(why) = excluded(settings.mode, &settings.version) {
            return Err(FileError::NotEligible { server: server(), why });
        }
        match self.inner.board.barred() {
            Some(obstacle) => Err(FileError::Barred { server: server(), obstacle }),
            None => Ok(()),
        }
    }

    /// Runs work to its end even if the caller goes away in the middle.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, FileError>> + Send + 'static,
    ) -> Result<T, FileError> {
        let (answer, answered) = oneshot::channel();
        self.inner.drain.spawn("change", async move { drop(answer.send(work.await)) }.in_current_span());
        answered.await.unwrap_or_else(|_| Err(FileError::Draining { server: self.server().clone() }))
    }

    /// Writes to the index, then to the board.
    async fn record(&self, writes: Vec<Write>) -> Result<(), FileError> {
        self.inner.ports.index.apply(writes.clone()).await.map_err(|error| self.index_failed(&error))?;
        self.inner.board.apply(writes);
        Ok(())
    }

    fn index_failed(&self, error: &IndexError) -> FileError {
        let cause = error.cause.clone();
        if error.reason == Reason::Internal {
            tracing::error!(%error, "the index cannot be written");
            return FileError::Index { server: self.server().clone(), cause };
        }
        self.disk(StoreError::State { reason: error.reason, cause })
    }

    /// A refusal of the disk, as this server's; what concerns the whole server becomes a condition, which is told once and
    /// ends by itself (see `recover.rs`).
    fn disk(&self, error: StoreError) -> FileError {
        if matches!(error.reason(), Reason::DiskFull | Reason::StoreReadOnly | Reason::StoreOffline)
            && self.inner.board.begin_condition(Obstacle::of(&error))
        {
            tracing::warn!(%error, "the disk does not take any more");
        }
        FileError::Store { server: self.server().clone(), error }
    }

    fn number(&self) -> u64 {
        self.inner.numbers.fetch_add(1, Ordering::Relaxed)
    }
}
