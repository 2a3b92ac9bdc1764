//! What a timeguard says of the clock of its server.

use std::time::Duration;

use jiff::SignedDuration;
use lockstep_replicas::domain::cause::Cause;

/// What can be said of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More than half of all clocks are certainly within the limit of it.
    Trusted,
    /// Too little is known, or what is known contradicts itself; also a verdict that this version does not know (R18).
    Doubtful,
    /// It is proven to be beyond the limit.
    Skewed,
    /// Witnesses were heard, and none is now.
    Unreachable,
    /// No witness was ever heard.
    Unconfirmed,
}

/// Whether the server may originate changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Not yet; also what a newer timeguard says in words that this version does not know.
    Starting,
    /// It may.
    Open,
    /// It may not: CLOCK_FENCED or RESTART_REQUIRED, in the words of the timeguard.
    Fenced(Cause),
    /// It may, because somebody said so.
    Overruled,
}

/// The last words of one timeguard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What is said of the clock.
    pub verdict: Verdict,
    /// How far most witnesses are ahead of it, negative if they are behind; `None` if nobody is heard.
    pub offset: Option<SignedDuration>,
    /// How far the truth may be from the offset, in either direction.
    pub uncertainty: Option<Duration>,
    /// Whether its server may originate changes.
    pub fence: Fence,
}

impl Report {
    /// Why its server originates nothing; `None` if it does, or is about to.
    pub fn fenced(&self) -> Option<&Cause> {
        match &self.fence {
            Fence::Fenced(cause) => Some(cause),
            Fence::Starting | Fence::Open | Fence::Overruled => None,
        }
    }
}
