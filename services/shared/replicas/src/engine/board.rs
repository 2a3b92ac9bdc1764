//! What all loops and handlers share: the view, and the signals that something in it moved.
//!
//! The lock is held for one synchronous call at a time, never across an await. What a call may do under it is bounded:
//! one page of the registry, one batch of a report, one answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use lockstep_model::{Revision, ServerId};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::domain::{Moment, live::Live};

/// How far every server should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The newest revision that is known.
    pub revision: Revision,
    /// Trace context of what made it; may be empty.
    pub traceparent: String,
    /// The server that is known to hold what is new.
    pub holder: Option<ServerId>,
}

/// The servers that take part, with where each answers. A new generation means that all have to report anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Counts how often the registry was read from the beginning.
    pub generation: u64,
    /// `https://host:port` of filesync, by server.
    pub addresses: BTreeMap<ServerId, String>,
    /// `https://host:port` of timeguard, by server; a server that has not announced one is left out.
    pub guards: BTreeMap<ServerId, String>,
}

/// The shared state, with the view of one service. Clones share it.
#[derive(Debug)]
pub struct Board<V> {
    shared: Arc<Shared<V>>,
}

impl<V> Clone for Board<V> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

#[derive(Debug)]
struct Shared<V> {
    view: RwLock<V>,
    started: Instant,
    changed: watch::Sender<u64>,
    target: watch::Sender<Target>,
    members: watch::Sender<Members>,
    unread: Notify,
    doubt: Notify,
}

impl<V: Live> Default for Board<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Live> Board<V> {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                view: RwLock::default(),
                started: Instant::now(),
                changed: watch::Sender::default(),
                target: watch::Sender::default(),
                members: watch::Sender::default(),
                unread: Notify::new(),
                doubt: Notify::new(),
            }),
        }
    }

    /// Now, for the view.
    pub fn now(&self) -> Moment {
        self.shared.started.elapsed()
    }

    /// Looks at the view.
    pub fn read<T>(&self, look: impl FnOnce(&V) -> T) -> T {
        look(&self.shared.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the view, and tells those who watch.
    pub fn update<T>(&self, change: impl FnOnce(&mut V) -> T) -> T {
        let (result, sequence, doubt) = {
            let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
            let result = change(&mut view);
            (result, view.sequence(), view.copies().any_doubt())
        };
        // Two updates may come here in either order: the signal only ever goes forward.
        self.shared.changed.send_if_modified(|known| {
            let newer = sequence > *known;
            *known = sequence.max(*known);
            newer
        });
        if doubt {
            self.shared.doubt.notify_one();
        }
        result
    }

    /// The number of the last change of the view.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// The positions that the registry has to judge may have become more.
    pub async fn doubted(&self) {
        self.shared.doubt.notified().await;
    }

    /// How far every server should be.
    pub fn target(&self) -> watch::Receiver<Target> {
        self.shared.target.subscribe()
    }

    /// A server holds something newer than is known: everybody should have it, and the registry be read.
    pub fn raise(&self, target: Target) {
        let newer = self.shared.target.send_if_modified(|known| {
            let newer = target.revision > known.revision;
            if newer {
                *known = target;
            }
            newer
        });
        if newer {
            self.shared.unread.notify_one();
        }
    }

    /// The registry is at `head`, which `traceparent` belongs to if it is known: it decides how far everybody should be.
    pub fn aim(&self, head: Revision, traceparent: Option<String>) {
        self.shared.target.send_if_modified(|known| {
            let moved = head != known.revision;
            if moved {
                *known =
                    Target { revision: head, traceparent: traceparent.unwrap_or_default(), holder: None };
            }
            moved
        });
    }

    /// Waits until a server spoke of something that was not read yet.
    pub async fn unread(&self) {
        self.shared.unread.notified().await;
    }

    /// The servers that take part.
    pub fn members(&self) -> watch::Receiver<Members> {
        self.shared.members.subscribe()
    }

    /// Tells the roster which servers take part now; `anew` if all have to report from the beginning.
    pub fn enrol(&self, anew: bool) {
        let (addresses, guards) = self.read(|view| {
            let part = || view.copies().servers().iter().filter(|(_, server)| server.excluded.is_none());
            let addresses: BTreeMap<ServerId, String> =
                part().map(|(id, server)| (id.clone(), server.record.filesync.clone())).collect();
            let guards = part().map(|(id, server)| (id.clone(), server.record.timeguard.clone()));
            (addresses, guards.filter(|(_, uri)| !uri.is_empty()).collect::<BTreeMap<_, _>>())
        });
        self.shared.members.send_if_modified(|members| {
            let changed = anew || members.addresses != addresses || members.guards != guards;
            members.generation += u64::from(anew);
            members.addresses = addresses;
            members.guards = guards;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::copies::{Copies, Touched};

    #[derive(Default)]
    struct Idle(Copies);

    impl Live for Idle {
        fn copies(&self) -> &Copies {
            &self.0
        }

        fn copies_mut(&mut self) -> &mut Copies {
            &mut self.0
        }

        fn touched(&mut self, _: Vec<Touched>) {}

        fn sequence(&self) -> u64 {
            0
        }
    }

    #[test]
    fn the_registry_has_the_last_word_on_the_target() {
        let board: Board<Idle> = Board::new();
        let newest = Target { revision: Revision(7), traceparent: "t".to_owned(), holder: None };
        board.raise(newest.clone());
        board.raise(Target { revision: Revision(6), ..Target::default() });
        assert_eq!(*board.target().borrow(), newest);
        board.aim(Revision(7), None);
        assert_eq!(*board.target().borrow(), newest);
        board.aim(Revision(4), None);
        assert_eq!(board.target().borrow().revision, Revision(4));
    }
}
