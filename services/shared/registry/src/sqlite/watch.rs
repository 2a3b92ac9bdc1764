//! Noticing that the head moved, whichever process moved it.
//!
//! The log file of the database is no good hint: it is written before a commit can be seen, and what makes it visible is
//! a store to shared memory, which nobody can watch. So each writer rings a bell after its commit: it writes a byte to a
//! file that the others watch. A bell that is not heard costs a second, the floor of the polling.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use lockstep_model::{Position, Revision};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::inotify,
};
use tokio::sync::{Semaphore, watch};

use super::{
    files::{Access, unavailable},
    read,
    worker::Slot,
};
use crate::RegistryError;

/// How long the head is believed without a ring.
const POLL: Duration = Duration::from_secs(1);
/// Calls that wait at once: a few for each process that watches, with room.
const WAITERS_MAX: usize = 1024;

/// The file that is written after each commit.
#[derive(Clone, Debug)]
pub(super) struct Bell(Arc<File>);

impl Bell {
    /// Lets the watchers of all processes look at the head.
    pub(super) fn ring(&self) {
        // Best effort: who does not hear it looks within a second.
        let _ = self.0.write_all_at(b"!", 0);
    }
}

/// The last head that was seen, and who waits for the next.
#[derive(Debug)]
pub(super) struct Watch {
    bell: Bell,
    /// None when it ends: the thread stops when nobody can hear it.
    head: Option<watch::Receiver<Option<Position>>>,
    thread: Option<JoinHandle<()>>,
    waiters: Semaphore,
    path: PathBuf,
}

impl Watch {
    pub(super) fn start(path: &Path, bell: File) -> Result<Self, RegistryError> {
        let (sender, head) = watch::channel(None);
        let ears = listen(&bell).ok();
        let slot = Slot::new(path.to_owned(), Access::Read);
        let started =
            thread::Builder::new().name("registry-watch".to_owned()).spawn(move || look(ears, slot, &sender));
        let thread = Some(started.map_err(|error| unavailable(path, error))?);
        let (bell, waiters) = (Bell(Arc::new(bell)), Semaphore::new(WAITERS_MAX));
        Ok(Self { bell, head: Some(head), thread, waiters, path: path.to_owned() })
    }

    pub(super) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    pub(super) async fn wait_past<F>(
        &self,
        revision: Revision,
        read: impl Fn() -> F,
    ) -> Result<Position, RegistryError>
    where
        F: Future<Output = Result<Position, RegistryError>>,
    {
        let overloaded =
            |_| unavailable(&self.path, format_args!("overloaded, {WAITERS_MAX} calls are waiting"));
        let _place = self.waiters.try_acquire().map_err(overloaded)?;
        let mut seen = self.head.clone().ok_or_else(|| unavailable(&self.path, "it is being closed"))?;
        let head = read().await?;
        if head.revision > revision {
            return Ok(head);
        }
        let moved = seen.wait_for(|head| head.is_some_and(|head| head.revision > revision));
        let moved = tokio::time::timeout(POLL, moved).await.map(|moved| moved.map(|head| *head));
        match moved {
            Ok(Ok(Some(head))) => Ok(head),
            // Nothing moved, or the watching ended: the database itself says how it is.
            _ => read().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.head = None;
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A descriptor that becomes readable when the bell is rung.
fn listen(bell: &File) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let ears = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    // By descriptor, so that it is the file that this process rings.
    let path = format!("/proc/self/fd/{}", bell.as_raw_fd());
    inotify::add_watch(&ears, path, inotify::WatchFlags::MODIFY)?;
    Ok(ears)
}

fn look(ears: Option<OwnedFd>, mut slot: Slot, head: &watch::Sender<Option<Position>>) {
    while !head.is_closed() {
        let seen = slot.connection().ok().and_then(|connection| read::head(connection).ok());
        head.send_if_modified(|last| std::mem::replace(last, seen) != seen);
        rest(ears.as_ref());
    }
}

/// Until the bell rings, or a second. The events are thrown away: many rings are one look.
fn rest(ears: Option<&OwnedFd>) {
    let Some(ears) = ears else { return thread::sleep(POLL) };
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    match rustix::event::poll(&mut [PollFd::new(ears, PollFlags::IN)], Some(&second)) {
        Ok(_) => {
            let mut events = [0; 4096];
            while rustix::io::read(ears, &mut events).is_ok_and(|bytes| bytes > 0) {}
        }
        // A signal is no reason to look sooner than another second, and an error none to spin.
        Err(_) => thread::sleep(POLL),
    }
}
