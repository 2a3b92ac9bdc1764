//! Why a server originates nothing, for people: what, where, why.

use std::time::Duration;

use lockstep_model::Reason;

use super::{
    fence::Why,
    guard::Guard,
    interval::Interval,
    verdict::{Doubt, Verdict},
    witness::Source,
};

/// The reason on the wire.
pub fn reason(why: Why) -> Reason {
    match why {
        Why::RestartRequired => Reason::RestartRequired,
        Why::Skewed | Why::Doubtful(_) => Reason::ClockFenced,
    }
}

/// One sentence about a fence.
pub fn fence(guard: &Guard, why: Why) -> String {
    let (own, judgement) = (guard.own(), guard.judgement());
    let offset = judgement.offset.map_or_else(String::new, |offset| format!(" by {}", distance(&offset)));
    let beyond = listed(&judgement.contradicting);
    match why {
        Why::Skewed if judgement.verdict == Verdict::Skewed => {
            format!("the clock of server {own} is wrong{offset}, {}: so say {beyond}", allowed(guard))
        }
        Why::Doubtful(Doubt::Contradicted) if !judgement.contradicting.is_empty() => format!(
            "the clock of server {own} and {beyond} differ{offset}, {}, and nobody can say who is right",
            allowed(guard)
        ),
        Why::Doubtful(Doubt::Certificates) => format!(
            "by the clock of server {own} the certificates of the installation are not valid now: the clock is wrong, or nobody renewed them"
        ),
        Why::RestartRequired => {
            let by = guard.last_step().map_or_else(String::new, |step| match step.by_ns / 1_000_000 {
                0 => " and set back".to_owned(),
                _ => format!(" by {}", seconds(step.by_ns)),
            });
            let services: Vec<&str> = guard.services_to_restart().collect();
            format!("the clock of server {own} was set{by}, and not restarted since: {}", services.join(", "))
        }
        // On the way back: what was so is not so any more, and not yet for long enough.
        Why::Skewed | Why::Doubtful(_) => {
            format!(
                "the clock of server {own} was wrong or contradicted, and is not confirmed for long enough yet"
            )
        }
    }
}

/// Why the clock is not trusted; `None` if it is.
pub fn verdict(guard: &Guard) -> Option<String> {
    let (own, judgement) = (guard.own(), guard.judgement());
    Some(match judgement.verdict {
        Verdict::Trusted => return None,
        Verdict::Skewed => fence(guard, Why::Skewed),
        Verdict::Doubtful(Doubt::Contradicted | Doubt::Certificates) => {
            let Verdict::Doubtful(doubt) = judgement.verdict else { return None };
            fence(guard, Why::Doubtful(doubt))
        }
        Verdict::Doubtful(Doubt::Uncertain) => format!(
            "what was measured of the clock of server {own} reaches across the limit: {}",
            listed(&judgement.uncertain)
        ),
        Verdict::Doubtful(Doubt::Alone) => format!(
            "nobody contradicts the clock of server {own}, but more than half of all clocks are away: {}",
            listed(&judgement.away)
        ),
        Verdict::Unreachable => {
            format!(
                "nobody is heard who could say whether the clock of server {own} is right: {}",
                listed(&judgement.away)
            )
        }
        Verdict::Unconfirmed => {
            format!("nobody was ever heard who could say whether the clock of server {own} is right")
        }
    })
}

/// What is allowed, and what is once a server is fenced, which is less.
fn allowed(guard: &Guard) -> String {
    let (limit, now) = (guard.limit().as_secs_f64(), guard.judgement().limit.as_secs_f64());
    if now < limit {
        format!("{limit} s are allowed, {now} s once it is fenced")
    } else {
        format!("{limit} s are allowed")
    }
}

fn listed(sources: &[Source]) -> String {
    let names: Vec<String> = sources.iter().map(ToString::to_string).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// How far a clock is away: others ahead means that it is behind.
fn distance(offset: &Interval) -> String {
    let half = Duration::from_nanos(u64::try_from(offset.half()).unwrap_or(u64::MAX));
    format!("{} ± {:.3} s", seconds(-offset.middle()), half.as_secs_f64())
}

/// A length for people: `+61.003 s`.
pub fn seconds(ns: i128) -> String {
    let millis = ns / 1_000_000;
    let sign = if millis < 0 { '-' } else { '+' };
    let millis = millis.unsigned_abs();
    format!("{sign}{}.{:03} s", millis / 1_000, millis % 1_000)
}
