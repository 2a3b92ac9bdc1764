//! Why each server was chosen or passed over (R50).

use lockstep_model::ServerId;
use lockstep_replicas::domain::cause::Cause;

use crate::domain::{
    choose::{Asked, Criterion, Offer, criterion},
    reach::Reach,
};

/// What came of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its data is sent.
    Chosen,
    /// It could be offered, but another comes first.
    PassedOver,
    /// It cannot be offered.
    Excluded(Cause),
}

/// One server in an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The server.
    pub id: ServerId,
    /// What came of it.
    pub outcome: Outcome,
    /// Why, in one sentence.
    pub message: String,
    /// Its place in the order, from 1; 0 for one that cannot be offered.
    pub rank: usize,
}

/// The verdicts over servers that can be offered, in their order.
pub fn verdicts(
    asked: &Asked<'_>,
    ranked: &[Offer<'_>],
    reach: impl Fn(&ServerId) -> Option<Reach>,
) -> Vec<Verdict> {
    let mut before: Option<&Offer<'_>> = None;
    let mut verdicts = Vec::with_capacity(ranked.len());
    for (place, offer) in ranked.iter().enumerate() {
        let (outcome, message) = match (before, ranked.first()) {
            (Some(_), Some(first)) => (Outcome::PassedOver, passed_over(asked, first, offer)),
            _ => {
                let at = reach(offer.id).map_or_else(String::new, |reach| reach.host);
                let why = chosen(asked, offer, ranked.get(1));
                (Outcome::Chosen, format!("it holds every byte, and {why}; devices reach it as {at}"))
            }
        };
        verdicts.push(Verdict { id: offer.id.clone(), outcome, message, rank: place + 1 });
        before = Some(offer);
    }
    verdicts
}

fn chosen(asked: &Asked<'_>, first: &Offer<'_>, next: Option<&Offer<'_>>) -> String {
    if first.is_fenced {
        return match next {
            Some(_) => "all that do are fenced".to_owned(),
            None => "nobody else does, so that it is offered although it is fenced".to_owned(),
        };
    }
    if first.id == asked.current {
        return "it is the server that the device talks to".to_owned();
    }
    match next.map(|next| criterion(asked, first, next)) {
        None => "nobody else does".to_owned(),
        Some(Criterion::Fence) => "the others that do are fenced".to_owned(),
        Some(Criterion::Current) => "it is the server that the device talks to".to_owned(),
        Some(Criterion::Site) => format!("it is at {}, the site of the device", first.site),
        Some(Criterion::Load) => format!("its load is {}, less than that of the others", first.load.word()),
        Some(Criterion::Device) => "it comes first in the order of this device".to_owned(),
    }
}

fn passed_over(asked: &Asked<'_>, first: &Offer<'_>, offer: &Offer<'_>) -> String {
    let why = match criterion(asked, first, offer) {
        Criterion::Fence => "it is fenced, and comes after all that are not".to_owned(),
        Criterion::Current => format!("{} is the server that the device talks to", first.id),
        Criterion::Site if offer.site.is_empty() => {
            format!("{} is at {}, it at no site", first.id, first.site)
        }
        Criterion::Site => format!("{} is at {}, it at {}", first.id, first.site, offer.site),
        Criterion::Load => {
            format!("the load of {} is {}, its own {}", first.id, first.load.word(), offer.load.word())
        }
        Criterion::Device => format!("{} comes first in the order of this device", first.id),
    };
    format!("it holds every byte, but {why}")
}
