//! Whether the server may originate changes, and why not: from the verdict, from steps, and from somebody who knows better.
//!
//! ```text
//!   starting ─▶ open ⇄ fenced ⇄ overruled (an hour)
//! ```
//! Receiving and serving verified bytes go on whatever this says.

use std::{fmt, time::Duration};

use super::{
    Moment,
    verdict::{Doubt, Judgement, Verdict},
};

/// How long a server that has peers waits for a verdict before it originates anything.
pub const STARTING_MAX: Duration = Duration::from_secs(10);
/// How long a clock has to be trusted before its fence is lifted.
pub const CALM: Duration = Duration::from_secs(10);
/// How long an override lasts.
pub const OVERRULED_FOR: Duration = Duration::from_secs(60 * 60);

/// Why a server is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its clock is proven wrong.
    Skewed,
    /// Its clock is contradicted, and nobody can say who is right.
    Doubtful(Doubt),
    /// Its clock was set, and its services were not restarted since.
    RestartRequired,
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Skewed => "its clock is proven wrong",
            Self::Doubtful(Doubt::Certificates) => "its certificates cannot be valid by its clock",
            Self::Doubtful(_) => "its clock is contradicted, and nobody can say who is right",
            Self::RestartRequired => "its clock was set, and its services were not restarted since",
        })
    }
}

/// Somebody knows better, for a while.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Override {
    /// Until when.
    pub until: Moment,
    /// Who said so.
    pub principal: String,
    /// Why, in the words of the caller.
    pub justification: String,
    /// The caller's name for the request: repeating it changes nothing.
    pub request_id: String,
}

/// Whether the server may originate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet: it waits for the first verdict.
    Starting,
    /// Yes.
    Open,
    /// Yes, because somebody said so.
    Overruled {
        /// Who, why, and until when.
        by: Override,
        /// Why it would be fenced without that, if it would be.
        why: Option<Why>,
    },
    /// No.
    Fenced {
        /// Why.
        why: Why,
        /// Since when.
        since: Moment,
    },
}

impl State {
    /// Whether the server may originate changes.
    pub fn may_originate(&self) -> bool {
        matches!(self, Self::Open | Self::Overruled { .. })
    }
}

/// What is logged, once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The fence went up.
    Entered(Why),
    /// It came down.
    Left {
        /// How long it was up.
        lasted: Duration,
        /// Because somebody said so.
        is_overruled: bool,
    },
}

/// The fence of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    starts_until: Option<Moment>,
    clock: Option<Why>,
    calm_since: Option<Moment>,
    restart_required: bool,
    overruled: Option<Override>,
    up_since: Option<Moment>,
}

impl Fence {
    /// Of a process that starts now.
    pub fn new(now: Moment, has_peers: bool) -> Self {
        Self {
            starts_until: has_peers.then_some(now + STARTING_MAX),
            clock: None,
            calm_since: None,
            restart_required: false,
            overruled: None,
            up_since: None,
        }
    }

    /// The limit to judge by: on the way back it is a twelfth closer, so that a clock at the limit does not go to and fro.
    pub fn limit(&self, limit: Duration) -> Duration {
        if self.clock.is_some() { limit - limit / 12 } else { limit }
    }

    /// Takes note of a verdict, by [`Fence::limit`], and of steps.
    pub fn update(&mut self, now: Moment, judgement: &Judgement, restart_required: bool) -> Option<Change> {
        self.restart_required = restart_required;
        if !judgement.may_originate() {
            self.calm_since = None;
            self.clock = Some(match judgement.verdict {
                Verdict::Doubtful(doubt) => Why::Doubtful(doubt),
                _ => Why::Skewed,
            });
        } else if judgement.verdict != Verdict::Trusted {
            // That nobody contradicts any more is no proof that it is right.
            self.calm_since = None;
        } else if now.saturating_sub(*self.calm_since.get_or_insert(now)) >= CALM {
            self.clock = None;
        }
        // The first verdict, whatever it is, ends the start; that there is none yet does after a while.
        let is_said = judgement.verdict == Verdict::Trusted || self.clock.is_some();
        if is_said || self.starts_until.is_some_and(|until| now >= until) {
            self.starts_until = None;
        }
        self.pass(now)
    }

    /// Somebody knows better. It may be said before there is a fence, and again.
    pub fn overrule(&mut self, now: Moment, by: Override) -> Option<Change> {
        self.overruled = Some(by);
        self.starts_until = None;
        self.pass(now)
    }

    /// Nobody knows better any more.
    pub fn stand(&mut self, now: Moment) -> Option<Change> {
        self.overruled = None;
        self.pass(now)
    }

    /// Who knows better, if somebody does.
    pub fn overruled(&self) -> Option<&Override> {
        self.overruled.as_ref()
    }

    /// Time passes.
    pub fn pass(&mut self, now: Moment) -> Option<Change> {
        self.overruled = self.overruled.take().filter(|by| now < by.until);
        let why = self.why().filter(|_| self.overruled.is_none());
        match (self.up_since, why) {
            (None, Some(why)) => {
                self.up_since = Some(now);
                Some(Change::Entered(why))
            }
            (Some(since), None) => {
                self.up_since = None;
                let lasted = now.saturating_sub(since);
                Some(Change::Left { lasted, is_overruled: self.overruled.is_some() })
            }
            _ => None,
        }
    }

    /// What weighs most.
    fn why(&self) -> Option<Why> {
        let restart = self.restart_required.then_some(Why::RestartRequired);
        match self.clock {
            Some(Why::Skewed) => Some(Why::Skewed),
            other => restart.or(other),
        }
    }

    /// Whether the server may originate now, since the last time that anything was noted.
    pub fn state(&self) -> State {
        match (&self.overruled, self.up_since, self.why()) {
            (Some(by), _, why) => State::Overruled { by: by.clone(), why },
            (None, Some(since), Some(why)) => State::Fenced { why, since },
            _ if self.starts_until.is_some() => State::Starting,
            _ => State::Open,
        }
    }
}
