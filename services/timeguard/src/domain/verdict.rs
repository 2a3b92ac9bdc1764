//! What all witnesses together say of the own clock.
//!
//! A clock is proven wrong only if more than half of all clocks, its own and those that are away included, are certainly
//! beyond the limit, on one side, and agree among themselves. Whatever is less than that is doubt.

use std::time::Duration;

use super::{
    interval::{Interval, Place},
    nanos,
    witness::{Source, Witness, agreement},
};

/// Clocks within a minute of each other: everything works (R61).
pub const LIMIT: Duration = Duration::from_secs(60);

/// What can be said of the own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More than half of all clocks are certainly within the limit of it.
    Trusted,
    /// Too little is known, or what is known contradicts itself.
    Doubtful(Doubt),
    /// It is proven to be beyond the limit.
    Skewed,
    /// Witnesses were heard, and none is now.
    Unreachable,
    /// No witness was ever heard: there is none, or this server is the first.
    Unconfirmed,
}

/// What is doubtful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// As many clocks contradict it as may agree with it: of two servers that disagree nobody knows which one is right.
    Contradicted,
    /// Certificates are not yet, or no longer, valid by it.
    Certificates,
    /// The bounds of what was measured reach across the limit.
    Uncertain,
    /// Nobody contradicts, but more than half of all clocks are away.
    Alone,
}

/// The verdict, with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What is said.
    pub verdict: Verdict,
    /// How far those that count are ahead of the own clock; `None` if nobody is heard.
    pub offset: Option<Interval>,
    /// What was allowed.
    pub limit: Duration,
    /// Certainly within the limit.
    pub agreeing: Vec<Source>,
    /// Certainly beyond it.
    pub contradicting: Vec<Source>,
    /// One or the other.
    pub uncertain: Vec<Source>,
    /// Not heard.
    pub away: Vec<Source>,
}

impl Judgement {
    /// Whether the server may originate changes, as far as its clock is concerned.
    pub fn may_originate(&self) -> bool {
        match self.verdict {
            Verdict::Trusted | Verdict::Unreachable | Verdict::Unconfirmed => true,
            Verdict::Doubtful(doubt) => matches!(doubt, Doubt::Uncertain | Doubt::Alone),
            Verdict::Skewed => false,
        }
    }
}

/// What is known beside the witnesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Whether any witness was ever heard by this process.
    pub was_heard: bool,
    /// Whether the own certificate, or most peers', cannot be valid by the own clock.
    pub certificates_fail: bool,
}

/// Judges the own clock.
pub fn judge(witnesses: &[Witness], limit: Duration, known: Circumstances) -> Judgement {
    let total = 1 + witnesses.len();
    let placed: Vec<(&Witness, Option<(Interval, Place)>)> = witnesses
        .iter()
        .map(|witness| (witness, witness.offset.map(|offset| (offset, offset.place(limit)))))
        .collect();
    let sources = |is_one: &dyn Fn(Option<Place>) -> bool| -> Vec<Source> {
        let found = placed.iter().filter(|(_, place)| is_one(place.map(|(_, place)| place)));
        found.map(|(witness, _)| witness.source.clone()).collect()
    };
    let at = |wanted: Place| -> Vec<Interval> {
        placed.iter().filter_map(|(_, place)| place.filter(|(_, p)| *p == wanted).map(|(o, _)| o)).collect()
    };
    let mut judgement = Judgement {
        verdict: Verdict::Trusted,
        offset: consensus(&placed.iter().filter_map(|(_, p)| p.map(|(o, _)| o)).collect::<Vec<_>>(), limit),
        limit,
        agreeing: sources(&|place| place == Some(Place::Within)),
        contradicting: sources(&|place| matches!(place, Some(Place::Above | Place::Below))),
        uncertain: sources(&|place| place == Some(Place::Across)),
        away: sources(&|place| place.is_none()),
    };
    for side in [Place::Above, Place::Below] {
        let beyond = at(side);
        if let Some(group) = group(&beyond, limit).filter(|group| 2 * group.len() > total) {
            judgement.offset = median(&group);
            judgement.verdict = Verdict::Skewed;
            return judgement;
        }
    }
    let (agreeing, uncertain) = (judgement.agreeing.len(), judgement.uncertain.len());
    let contradicting = judgement.contradicting.len();
    judgement.verdict = if known.certificates_fail {
        Verdict::Doubtful(Doubt::Certificates)
    } else if agreeing + uncertain + contradicting == 0 {
        if known.was_heard && !witnesses.is_empty() { Verdict::Unreachable } else { Verdict::Unconfirmed }
    } else if contradicting > agreeing + uncertain {
        // How far it is from those who contradict it, not from itself.
        let beyond = [at(Place::Above), at(Place::Below)].concat();
        judgement.offset = group(&beyond, limit).and_then(|group| median(&group));
        Verdict::Doubtful(Doubt::Contradicted)
    } else if 2 * (1 + agreeing) > total {
        Verdict::Trusted
    } else if uncertain > 0 {
        Verdict::Doubtful(Doubt::Uncertain)
    } else {
        Verdict::Doubtful(Doubt::Alone)
    };
    judgement
}

/// The largest group of offsets that are within the limit of each other.
fn group(offsets: &[Interval], limit: Duration) -> Option<Vec<Interval>> {
    let widened: Vec<Interval> = offsets.iter().map(|offset| offset.widened(nanos(limit) / 2)).collect();
    Some(agreement(&widened)?.members.into_iter().map(|at| offsets[at]).collect())
}

/// The offset that most witnesses give, the own clock being one of them.
fn consensus(offsets: &[Interval], limit: Duration) -> Option<Interval> {
    let own = Interval::around(0, 0);
    let all: Vec<Interval> = offsets.iter().copied().chain([own]).collect();
    let mut group = group(&all, limit)?;
    // The own clock counts for who agrees, not for how far away it is.
    if group.len() > 1 {
        group.retain(|offset| *offset != own);
    }
    if offsets.is_empty() { None } else { median(&group) }
}

/// The middle of several: that of their lower bounds and that of their upper bounds.
fn median(offsets: &[Interval]) -> Option<Interval> {
    let middle = |mut bounds: Vec<i128>| {
        bounds.sort_unstable();
        bounds.get(bounds.len() / 2).copied()
    };
    let low = middle(offsets.iter().map(Interval::low).collect())?;
    let high = middle(offsets.iter().map(Interval::high).collect())?;
    Some(Interval::between(low, high))
}
