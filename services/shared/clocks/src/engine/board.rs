//! What the loops and the handlers share.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use lockstep_model::ServerId;
use lockstep_replicas::domain::cause::Cause;
use tokio::time::Instant;

use crate::domain::{heard::Heard, report::Report};

/// The last report of each server, in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct ClockBoard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    heard: RwLock<Heard>,
    /// Kept beside the lock: the resolver asks for each server and each answer, and hardly ever is one fenced.
    is_any_fenced: AtomicBool,
    started: Instant,
}

impl Default for ClockBoard {
    fn default() -> Self {
        Self::new()
    }
}

impl ClockBoard {
    /// One that knows nothing.
    pub fn new() -> Self {
        let (heard, is_any_fenced) = (RwLock::default(), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { heard, is_any_fenced, started: Instant::now() }) }
    }

    /// What the timeguard of a server said last; `None` if it is not heard.
    pub fn report(&self, id: &ServerId) -> Option<Arc<Report>> {
        let now = self.shared.started.elapsed();
        self.shared.heard.read().unwrap_or_else(PoisonError::into_inner).report(id, now).cloned()
    }

    /// Why a server originates nothing; `None` if it may, or its timeguard is not heard.
    pub fn fence(&self, id: &ServerId) -> Option<Cause> {
        if !self.shared.is_any_fenced.load(Ordering::Acquire) {
            return None;
        }
        self.report(id)?.fenced().cloned()
    }

    pub(crate) fn hear(&self, id: &ServerId, report: Report) {
        let now = self.shared.started.elapsed();
        self.change(|heard| heard.hear(id, report, now));
    }

    pub(crate) fn forget(&self, id: &ServerId) {
        self.change(|heard| heard.forget(id));
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        let mut heard = self.shared.heard.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut heard);
        self.shared.is_any_fenced.store(heard.is_any_fenced(), Ordering::Release);
    }
}
