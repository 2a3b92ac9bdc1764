//! Threads that own connections, and the bounded queue before them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    ANSWER_WITHIN, LOCK_WAIT, QUEUE_MAX,
    failure::Failure,
    files::{self, Access, FileIdentity, unavailable},
    holder::{self, Holder},
    turn,
};
use crate::RegistryError;

/// How often the kernel is asked who holds the lock, before nobody is named.
const HOLDER_READINGS: usize = 3;

/// A pool of threads with one connection each. Dropping it waits for the call that each is in, at most
/// [`LOCK_WAIT`], so that the last process closes the database in order.
#[derive(Debug)]
pub(super) struct Workers {
    path: PathBuf,
    /// None when it ends.
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

type Work = dyn FnOnce(&mut Slot, Instant) + Send;

struct Job {
    deadline: Instant,
    run: Box<Work>,
}

impl Workers {
    pub(super) fn start(
        name: &str,
        path: &Path,
        access: Access,
        threads: usize,
    ) -> Result<Self, RegistryError> {
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Self { path: path.to_owned(), jobs: Some(jobs), threads: Vec::new() };
        for _ in 0..threads {
            let mut slot = Slot::new(path.to_owned(), access);
            // Now, so that what is wrong with the file is said when it is opened.
            slot.connection()?;
            let queue = Arc::clone(&queue);
            let started = thread::Builder::new().name(name.to_owned()).spawn(move || work(&queue, slot));
            workers.threads.push(started.map_err(|error| unavailable(path, error))?);
        }
        Ok(workers)
    }

    /// Runs `work` on one of the threads. If the caller goes away before it began, it is not begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (reply, answer) = oneshot::channel();
        let run = Box::new(move |slot: &mut Slot, deadline: Instant| {
            if !reply.is_closed() {
                // The caller may be gone by now; then nobody wants to know.
                let _ = reply.send(slot.attempt(deadline, work));
            }
        });
        let job = Job { deadline: Instant::now() + LOCK_WAIT, run };
        let sent = self.jobs.as_ref().map(|jobs| jobs.try_send(job));
        match sent {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => {
                return Err(unavailable(
                    &self.path,
                    format_args!("overloaded, {QUEUE_MAX} calls are waiting"),
                ));
            }
            Some(Err(TrySendError::Disconnected(_))) | None => {
                return Err(unavailable(&self.path, "its threads have ended"));
            }
        }
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable(&self.path, "the call was lost by a defect")),
            Err(_) => Err(unavailable(
                &self.path,
                format_args!("no answer in {ANSWER_WITHIN:?}, the disk may hang"),
            )),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread outlives every panic of a call, so there is nothing to learn from it.
            let _ = thread.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, mut slot: Slot) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { deadline, run }) = next else { return };
        // A defect in one call must not take the registry from all others. Its transaction is rolled back when the
        // connection is closed.
        if catch_unwind(AssertUnwindSafe(|| run(&mut slot, deadline))).is_err() {
            slot.close();
        }
    }
}

/// A connection that follows the path: if another file comes to be there, such as a restored backup, it is opened anew,
/// and if there is none, nothing is written to what nobody can find.
#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
    access: Access,
    open: Option<(Connection, FileIdentity)>,
}

impl Slot {
    pub(super) fn new(path: PathBuf, access: Access) -> Self {
        Self { path, access, open: None }
    }

    fn close(&mut self) {
        self.open = None;
    }

    pub(super) fn connection(&mut self) -> Result<&mut Connection, RegistryError> {
        let there = FileIdentity::of(&self.path).map_err(|error| unavailable(&self.path, error))?;
        self.open.take_if(|(_, opened)| *opened != there);
        match &mut self.open {
            Some((connection, _)) => Ok(connection),
            closed => Ok(&mut closed.insert(files::connect(&self.path, self.access)?).0),
        }
    }

    /// Runs `work` unless its time is over, and makes an answer of what goes wrong.
    fn attempt<T>(
        &mut self,
        deadline: Instant,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, RegistryError> {
        if Instant::now() >= deadline {
            return Err(self.late());
        }
        let connection = self.connection()?;
        let waits = turn::wait_until(deadline, connection).map_err(Failure::from);
        match waits.and_then(|()| work(connection)) {
            Ok(value) => Ok(value),
            Err(Failure::Answer(error)) => Err(error),
            Err(failure) if failure.is_busy() => Err(self.locked(holder::of_database(&self.path))),
            Err(Failure::Database(error)) => {
                // It may be the connection: the next call gets a new one.
                self.close();
                Err(unavailable(&self.path, error))
            }
        }
    }

    /// Those before this call used up its time: most likely they, too, waited for the lock.
    fn late(&self) -> RegistryError {
        // The kernel's list of locks is not read in one piece, so that one reading may miss a lock.
        let mut readings = (0..HOLDER_READINGS).map(|_| holder::of_database(&self.path));
        match readings.find(|holder| !matches!(holder, Holder::Unknown)).unwrap_or(Holder::Unknown) {
            Holder::Unknown => unavailable(&self.path, format_args!("overloaded, no turn in {LOCK_WAIT:?}")),
            holder => self.locked(holder),
        }
    }

    fn locked(&self, holder: Holder) -> RegistryError {
        unavailable(&self.path, format_args!("the database is locked by {holder}"))
    }
}
