//! Who says what of the own clock, and which of them say the same.

use std::fmt;

use lockstep_model::ServerId;

use super::interval::Interval;

/// Where an offset is from. A witness counts once, whoever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The clock of another server.
    Peer(ServerId),
    /// The clock of the registry's database, where that is not the caller's own.
    Registry,
    /// An NTP server, by its name.
    Ntp(String),
    /// What the kernel says of its own synchronisation.
    Kernel,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(server) => write!(formatter, "server {server}"),
            Self::Registry => formatter.write_str("the registry's database"),
            Self::Ntp(name) => write!(formatter, "time server {name}"),
            Self::Kernel => formatter.write_str("the kernel"),
        }
    }
}

/// A witness that there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Who.
    pub source: Source,
    /// How far it is ahead of the own clock; `None` if it is away, which is not to agree.
    pub offset: Option<Interval>,
}

/// Intervals that have a point in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Which ones, by their place in the list.
    pub members: Vec<usize>,
    /// Where they meet.
    pub common: Interval,
}

/// The largest group of intervals with a point in common, of several equal ones the one that is closest to zero: the
/// intersection of Marzullo. `None` of none.
pub fn agreement(intervals: &[Interval]) -> Option<Agreement> {
    let mut bounds: Vec<(i128, bool)> =
        intervals.iter().flat_map(|one| [(one.low(), false), (one.high(), true)]).collect();
    // A beginning comes before an end at the same place: that they touch is enough.
    bounds.sort_unstable();
    let (mut open, mut best): (usize, Option<(usize, Interval)>) = (0, None);
    for (at, (place, is_end)) in bounds.iter().enumerate() {
        if *is_end {
            open -= 1;
            continue;
        }
        open += 1;
        let common = Interval::between(*place, bounds.get(at + 1).map_or(*place, |(next, _)| *next));
        let is_better = best.as_ref().is_none_or(|(count, known)| {
            open > *count || (open == *count && common.middle().abs() < known.middle().abs())
        });
        if is_better {
            best = Some((open, common));
        }
    }
    let (_, common) = best?;
    let point = Interval::between(common.low(), common.low());
    let members = (0..intervals.len()).filter(|at| intervals[*at].meets(&point)).collect();
    Some(Agreement { members, common })
}
