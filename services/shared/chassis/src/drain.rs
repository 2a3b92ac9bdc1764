//! How a process ends: everybody hears of it at once, finishes, and is waited for.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::FutureExt as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The end of a process, and the tasks that it waits for. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Drain {
    /// One that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain. Beginning twice changes nothing.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Whether the drain began.
    pub fn is_draining(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until the drain begins.
    pub async fn started(&self) {
        self.begun.cancelled().await;
    }

    /// Runs `work` as a task that [`finished`](Self::finished) waits for. It must end by itself once the drain began.
    ///
    /// A panic in it is a defect that leaves the process without one of its parts: it is logged, and the process
    /// drains, so that its supervisor starts a whole one.
    pub fn spawn<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let drain = self.clone();
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                tracing::error!(
                    task = name,
                    panic = panic_text(&*panic),
                    "a task panicked, the process ends"
                );
                drain.failed.store(true, Ordering::Relaxed);
                drain.begin();
            }
        });
    }

    /// Runs `work` as a task that ends with it, or in its middle when the drain begins.
    pub fn spawn_until(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let begun = self.clone();
        self.spawn(name, async move {
            tokio::select! {
                biased;
                () = begun.started() => {}
                () = work => {}
            }
        });
    }

    /// Runs the work for one client as a task that [`finished`](Self::finished) waits for. A panic is logged, and
    /// concerns nobody but that client: nobody outside may end the process.
    pub(crate) fn spawn_for_client<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                tracing::error!(task = name, panic = panic_text(&*panic), "the work for a client panicked");
            }
        });
    }

    /// Waits until every task ended. Call it after [`begin`](Self::begin).
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether a task panicked.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// A token that is cancelled when the drain begins, for code that needs an owned future.
    pub(crate) fn token(&self) -> CancellationToken {
        self.begun.clone()
    }

    /// How many tasks are still running.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }
}

/// hyper runs the streams of a connection as tasks; they count like all others.
impl<F> hyper::rt::Executor<F> for Drain
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.tasks.spawn(work);
    }
}

/// The text of a panic, where it has one.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_hear_of_the_drain_and_are_waited_for() {
        let drain = Drain::new();
        let done = Arc::new(AtomicBool::new(false));
        drain.spawn("worker", {
            let (drain, done) = (drain.clone(), done.clone());
            async move {
                drain.started().await;
                tokio::task::yield_now().await;
                done.store(true, Ordering::SeqCst);
            }
        });
        assert!(!drain.is_draining());
        drain.begin();
        drain.finished().await;
        assert!(done.load(Ordering::SeqCst) && !drain.failed());
    }

    #[tokio::test]
    async fn a_panic_in_a_task_begins_the_drain() {
        let drain = Drain::new();
        drain.spawn("worker", async { panic!("on purpose") });
        drain.started().await;
        drain.finished().await;
        assert!(drain.failed());
    }
}
