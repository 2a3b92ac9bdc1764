//! What a server's own time guard says of it, and what silence of the guard means. A server whose clock is wrong, or whose
//! clock nobody judges, originates nothing (R62, R64); receiving and serving verified bytes go on whatever is said here.
//!
//! ```text
//!              a word of the guard           no word for 30 s, or certificates that are not valid now
//! STARTING ─────────────────────────▶ what it says ─────────────────────────────────────────────▶ FENCED
//!     └──────────────────────────────── no word for 30 s ─────────────────────────────────────────▶
//! ```

use std::{fmt, time::Duration};

use jiff::SignedDuration;
use lockstep_model::{Reason, ServerId};

/// Monotonic time of this process, since it began to listen to the guard.
pub type Moment = Duration;

/// A guard that was not heard for this long is no guard.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Whether a server may originate changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not yet: its clock was not judged since something started.
    Starting,
    /// It may.
    Open,
    /// It may not.
    Fenced(Fence),
}

/// Why a server originates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// `CLOCK_FENCED` or `RESTART_REQUIRED`.
    pub reason: Reason,
    /// What, where and why, for a person.
    pub message: String,
    /// How far those that count are ahead of the clock of the server, negative if they are behind; where it is known.
    pub offset: Option<SignedDuration>,
    /// How far the truth may be from the offset, in either direction.
    pub uncertainty: Option<Duration>,
    /// What is allowed.
    pub limit: Option<Duration>,
    /// Since when, as a length.
    pub age: Duration,
    /// Whether the guard says so, which then has logged it; or whether it follows from its silence.
    pub is_said: bool,
}

impl Fence {
    /// A fence that no guard speaks of, because there is none to speak.
    fn unheard(message: String, age: Duration) -> Self {
        let reason = Reason::ClockFenced;
        Self { reason, message, offset: None, uncertainty: None, limit: None, age, is_said: false }
    }

    /// What is said to whoever did not get a judgement in time.
    pub fn unjudged(server: &ServerId, waited: Duration) -> Self {
        let seconds = waited.as_secs();
        let why = "so nobody can say yet that it is right; try again, and see the log of its timeguard";
        let message = format!("the clock of server {server} was not judged within {seconds} s, {why}");
        Self::unheard(message, waited)
    }

    /// The same fence so much later.
    fn later(mut self, by: Duration) -> Self {
        self.age = self.age.saturating_add(by);
        self
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By how much, the guard says in its own words.
        write!(f, "{} (for {} s)", self.message, self.age.as_secs())
    }
}

/// Whose certificate is not valid now, by the wall clock of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// That of this process.
    Own,
    /// That of the guard.
    Guards,
}

/// What is remembered of the guard of one server.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    last: Option<(Moment, Standing)>,
    /// Why it could not be heard at the last try.
    lost: Option<String>,
    out_of_date: Option<(Moment, Whose)>,
}

impl Heard {
    /// It said something; lengths are as of now.
    pub fn said(&mut self, standing: Standing, now: Moment) {
        self.last = Some((now, standing));
        self.lost = None;
        self.out_of_date(Whose::Guards, false, now);
    }

    /// It could not be heard, perhaps because its certificate is not valid now.
    pub fn lost(&mut self, why: String, is_out_of_date: bool, now: Moment) {
        self.lost = Some(why);
        self.out_of_date(Whose::Guards, is_out_of_date, now);
    }

    /// Whether the certificate of this process is valid now.
    pub fn own_certificate(&mut self, is_current: bool, now: Moment) {
        self.out_of_date(Whose::Own, !is_current, now);
    }

    /// The own certificate is told rather than that of the guard, whose clock is the same.
    fn out_of_date(&mut self, whose: Whose, is_out_of_date: bool, now: Moment) {
        self.out_of_date = match self.out_of_date {
            None if is_out_of_date => Some((now, whose)),
            Some((since, Whose::Guards)) if is_out_of_date => Some((since, whose)),
            Some((_, known)) if known == whose && !is_out_of_date => None,
            known => known,
        };
    }

    /// What follows for `server` at a moment: the last word, unless it is too old, or certificates tell before any guard can
    /// that the clock is wrong.
    pub fn standing(&self, server: &ServerId, now: Moment) -> Standing {
        let at = self.last.as_ref().map_or(Moment::ZERO, |(at, _)| *at);
        let silence = now.saturating_sub(at);
        let word = self.last.as_ref().map(|(_, standing)| standing).filter(|_| silence < SILENCE_MAX);
        match (word, self.out_of_date) {
            // It knows by how much.
            (Some(Standing::Fenced(fence)), _) => Standing::Fenced(fence.clone().later(silence)),
            (_, Some((since, whose))) => {
                Standing::Fenced(Fence::unheard(not_valid(server, whose), now.saturating_sub(since)))
            }
            (Some(standing), None) => standing.clone(),
            (None, None) if silence < SILENCE_MAX => Standing::Starting,
            (None, None) => Standing::Fenced(Fence::unheard(self.silent(server), silence - SILENCE_MAX)),
        }
    }

    fn silent(&self, server: &ServerId) -> String {
        let seconds = SILENCE_MAX.as_secs();
        let cause = self.lost.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let what = format!("no time guard of server {server} was heard for {seconds} s");
        let so = format!("start the timeguard of {server}, or see its log");
        format!("{what}, so nobody can say that its clock is right; {so}{cause}")
    }
}

fn not_valid(server: &ServerId, whose: Whose) -> String {
    let whose = match whose {
        Whose::Own => "its filesync",
        Whose::Guards => "its timeguard",
    };
    let what = format!("by the clock of server {server} the certificate of {whose} is not valid now");
    format!("{what}, so the clock is wrong, or the certificates of this installation were not renewed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn fence(age: u64) -> Fence {
        Fence {
            reason: Reason::RestartRequired,
            message: "the clock of s1 was set".to_owned(),
            offset: Some(SignedDuration::from_millis(-72_040)),
            uncertainty: Some(Duration::from_millis(250)),
            limit: Some(at(60)),
            age: at(age),
            is_said: true,
        }
    }

    fn short(standing: &Standing) -> String {
        match standing {
            Standing::Starting => "starting".to_owned(),
            Standing::Open => "open".to_owned(),
            Standing::Fenced(Fence { reason, message, age, .. }) => {
                let why = ["was heard", "certificate", "was set"];
                let why = why.into_iter().find(|why| message.contains(why)).expect("one of them");
                format!("{reason} {why} {}", age.as_secs())
            }
        }
    }

    /// R62, R65: the last word counts for 30 s of monotonic time, then nobody is there to say that the clock is right; a guard
    /// that was never heard has as long from the start. Certificates that are not valid now tell it at once.
    #[test]
    fn a_word_of_the_guard_counts_for_thirty_seconds() {
        let said = |standing: &Standing, when: u64| {
            let mut heard = Heard::default();
            heard.said(standing.clone(), at(when));
            heard
        };
        let lost = |mut heard: Heard, is_out_of_date: bool, when: u64| {
            heard.lost("connection refused".to_owned(), is_out_of_date, at(when));
            heard
        };
        let own = |mut heard: Heard, is_current: bool, when: u64| {
            heard.own_certificate(is_current, at(when));
            heard
        };
        let guards = || lost(said(&Standing::Open, 100), true, 101);
        let (open, starting, fenced) = (&Standing::Open, &Standing::Starting, &Standing::Fenced(fence(7)));
        let table = [
            (Heard::default(), 0, "starting"),
            (Heard::default(), 29, "starting"),
            (Heard::default(), 30, "CLOCK_FENCED was heard 0"),
            (Heard::default(), 95, "CLOCK_FENCED was heard 65"),
            (said(open, 100), 100, "open"),
            (said(open, 100), 129, "open"),
            (said(open, 100), 130, "CLOCK_FENCED was heard 0"),
            (said(open, 100), 190, "CLOCK_FENCED was heard 60"),
            (said(starting, 100), 129, "starting"),
            (said(starting, 100), 130, "CLOCK_FENCED was heard 0"),
            (said(fenced, 100), 100, "RESTART_REQUIRED was set 7"),
            (said(fenced, 100), 110, "RESTART_REQUIRED was set 17"),
            (said(fenced, 100), 131, "CLOCK_FENCED was heard 1"),
            (lost(said(open, 100), false, 101), 129, "open"),
            (guards(), 101, "CLOCK_FENCED certificate 0"),
            (lost(guards(), true, 104), 109, "CLOCK_FENCED certificate 8"),
            (lost(guards(), false, 104), 109, "open"),
            (own(guards(), true, 104), 109, "CLOCK_FENCED certificate 8"),
            (own(guards(), false, 104), 109, "CLOCK_FENCED certificate 8"),
            (own(Heard::default(), false, 1), 4, "CLOCK_FENCED certificate 3"),
            (lost(own(Heard::default(), false, 1), false, 2), 4, "CLOCK_FENCED certificate 3"),
            (own(own(Heard::default(), false, 1), true, 2), 4, "starting"),
            (own(said(fenced, 100), false, 101), 102, "RESTART_REQUIRED was set 9"),
        ];
        let server: ServerId = "s1".parse().expect("an id");
        for (row, (heard, now, expected)) in table.into_iter().enumerate() {
            assert_eq!(short(&heard.standing(&server, at(now))), expected, "row {row}");
        }
    }

    /// R62: a fence says what, where and why, and since when.
    #[test]
    fn a_fence_says_why_and_since_when() {
        let text = "the clock of s1 was set (for 7 s)";
        assert_eq!(fence(7).to_string(), text);
        let server: ServerId = "s1".parse().expect("an id");
        let mut heard = Heard::default();
        heard.lost("connection refused".to_owned(), false, at(1));
        let Standing::Fenced(silent) = heard.standing(&server, at(31)) else { panic!("fenced") };
        let text = "no time guard of server s1 was heard for 30 s, so nobody can say that its clock is right; \
                    start the timeguard of s1, or see its log: connection refused (for 1 s)";
        assert_eq!(silent.to_string(), text);
    }
}
