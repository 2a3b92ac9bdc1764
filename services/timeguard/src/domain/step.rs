//! Steps of the own wall clock: it is set by hand or by a program, forward or back, while the service runs or while it does not.
//!
//! The wall clock minus the clock that only ever runs on is the same from one look to the next, but for slewing, which is
//! slow. After a step the services of the server have to be restarted (R64): until each of them began after it, that is required.

use std::time::Duration;

use super::{Moment, Reading, drift, nanos};

/// A step above this asks for a restart; a smaller one is counted.
pub const STEP_MIN: Duration = Duration::from_secs(1);
/// What differs less than this, beyond drift, is how long it takes to read two clocks.
const GRAIN_NS: i128 = 10_000_000;

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    /// By how much it was set forward; negative for back. Of several steps that wait for the same restart, all together.
    pub by_ns: i128,
    /// The last look before it.
    pub after: Moment,
    /// The first look after it.
    pub noticed: Reading,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A step that asks for a restart.
    Step(Step),
    /// A smaller one, by so much.
    Small(i128),
}

/// What is kept across a restart of the process, written every few seconds and with each step.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stored {
    /// Which start of the machine the monotonic clock counts from.
    pub boot: String,
    /// The last look.
    pub last: Reading,
    /// A step after which not all services were restarted.
    pub pending: Option<Step>,
}

/// What the first look after a restart found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// A step, while the process was away and the machine was not.
    Step(Step),
    /// The clock shows an earlier time than before the machine was started anew, by so much. Nothing has to be restarted;
    /// the witnesses decide what it is worth.
    Back(i128),
}

/// Watches one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    threshold: Duration,
    boot: String,
    last: Reading,
    pending: Option<Step>,
}

impl Steps {
    /// From what was stored, if anything was, at the first look of this process.
    pub fn resume(
        threshold: Duration,
        boot: String,
        now: Reading,
        stored: Option<&Stored>,
    ) -> (Self, Option<Return>) {
        let mut steps = Self { threshold, boot, last: now, pending: None };
        let Some(stored) = stored else { return (steps, None) };
        if stored.boot != steps.boot {
            // Whatever waited for a restart has had it.
            let back = stored.last.wall_ns - now.wall_ns;
            return (steps, (back > nanos(threshold)).then_some(Return::Back(back)));
        }
        (steps.last, steps.pending) = (stored.last, stored.pending);
        let found = steps.look(now);
        // Out of order it cannot be: the monotonic clock of one start of the machine does not go back.
        steps.last = now;
        let step = match found {
            Some(Found::Step(step)) => Some(Return::Step(step)),
            _ => None,
        };
        (steps, step)
    }

    /// Compares with the last look.
    pub fn look(&mut self, now: Reading) -> Option<Found> {
        let elapsed = now.since.checked_sub(self.last.since)?;
        let last = std::mem::replace(&mut self.last, now);
        let by_ns = now.wall_ns - last.wall_ns - nanos(elapsed);
        // While it is slewed, it differs all the time.
        let beyond = by_ns.abs() - drift(elapsed);
        if beyond <= nanos(self.threshold) {
            return (beyond > GRAIN_NS).then_some(Found::Small(by_ns));
        }
        let before = self.pending.map_or(0, |pending| pending.by_ns);
        self.pending = Some(Step { by_ns: before + by_ns, after: last.since, noticed: now });
        Some(Found::Step(Step { by_ns, after: last.since, noticed: now }))
    }

    /// Takes note of when each service of the server began, by its own readings, `None` where nobody knows; true if a restart
    /// is still required.
    pub fn began(&mut self, services: &[Option<Reading>]) -> bool {
        if !services.iter().any(|began| self.outlived(began.as_ref())) {
            self.pending = None;
        }
        self.pending.is_some()
    }

    /// Whether a service has to be restarted: it began before the step that waits for that, or nobody knows.
    pub fn outlived(&self, began: Option<&Reading>) -> bool {
        self.pending.is_some_and(|step| !began.is_some_and(|began| self.is_after(began, &step)))
    }

    /// Whether a service began after a step. Between the two looks its own clocks tell.
    fn is_after(&self, began: &Reading, step: &Step) -> bool {
        if began.since >= step.noticed.since {
            return true;
        }
        let elapsed = step.noticed.since - began.since;
        let since_then = step.noticed.wall_ns - began.wall_ns - nanos(elapsed);
        began.since > step.after && since_then.abs() <= nanos(self.threshold) + drift(elapsed)
    }

    /// The step after which not all services were restarted.
    pub fn pending(&self) -> Option<&Step> {
        self.pending.as_ref()
    }

    /// What to write down.
    pub fn stored(&self) -> Stored {
        Stored { boot: self.boot.clone(), last: self.last, pending: self.pending }
    }
}
