//! What the sources offered when they were asked last.

use std::collections::BTreeMap;

use lockstep_model::FirmwareId;

use crate::{
    domain::{
        draft::offered_id,
        error::{CatalogError, Refusal},
    },
    ports::{Feed, FeedEntry, VendorError},
};

/// What one source answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The source.
    pub source_id: String,
    /// The last feed that it gave; empty if it never gave one.
    pub feed: Feed,
    /// Why there is no newer one.
    pub failure: Option<Refusal>,
}

/// One offer, with the update that would be, or was, made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The source.
    pub source_id: String,
    /// What it offers.
    pub entry: FeedEntry,
    /// The id of the update.
    pub firmware_id: FirmwareId,
}

/// The feeds of one instance. Each is bounded, and so is the number of sources.
#[derive(Debug, Default)]
pub struct Offers {
    answers: BTreeMap<String, Answer>,
}

impl Offers {
    /// A source answered, or did not; then its last feed stays.
    pub fn take(&mut self, source_id: &str, answer: Result<Feed, VendorError>) -> Answer {
        let kept = self.answers.entry(source_id.to_owned()).or_insert_with(|| Answer {
            source_id: source_id.to_owned(),
            feed: Feed::default(),
            failure: None,
        });
        match answer {
            Ok(feed) => {
                kept.feed = feed;
                kept.failure = None;
            }
            Err(error) => kept.failure = Some(refusal(&error)),
        }
        kept.clone()
    }

    /// Whether this source was ever asked.
    pub fn knows(&self, source_id: &str) -> bool {
        self.answers.contains_key(source_id)
    }

    /// One offer.
    pub fn find(&self, source_id: &str, offer_id: &str) -> Option<FeedEntry> {
        let feed = &self.answers.get(source_id)?.feed;
        feed.entries.iter().find(|entry| entry.offer_id == offer_id).cloned()
    }

    /// The offers of a source, or of all, for a model, or for all, ordered by source, model, version and id.
    ///
    /// # Errors
    /// Why the sources do not answer, if none of those that are asked for ever gave a feed.
    pub fn list(&self, source_id: &str, model: &str) -> Result<Vec<Offer>, CatalogError> {
        let asked = || self.answers.values().filter(|a| source_id.is_empty() || a.source_id == source_id);
        let is_silent = |answer: &Answer| answer.failure.is_some() && answer.feed == Feed::default();
        if let Some(failure) = asked().next().and_then(|first| first.failure.clone())
            && asked().all(is_silent)
        {
            return Err(failure.into());
        }
        let mut offers: Vec<Offer> = asked()
            .flat_map(|answer| answer.feed.entries.iter().map(|entry| (&answer.source_id, entry)))
            .filter(|(_, entry)| model.is_empty() || entry.model == model)
            .filter_map(|(source_id, entry)| {
                let firmware_id = offered_id(source_id, &entry.offer_id)?;
                Some(Offer { source_id: source_id.clone(), entry: entry.clone(), firmware_id })
            })
            .collect();
        offers.sort_by_cached_key(place);
        Ok(offers)
    }
}

/// Where an offer is in the list, as text that is compared bytewise.
pub fn place(offer: &Offer) -> String {
    let Offer { source_id, entry, .. } = offer;
    [source_id.as_str(), &entry.model, &entry.version, &entry.offer_id].join("\0")
}

/// What a vendor's failure is as data.
pub fn refusal(error: &VendorError) -> Refusal {
    Refusal::of(error, error.to_string())
}

#[cfg(test)]
mod tests {
    use lockstep_model::Reason;

    use super::*;

    fn entry(offer_id: &str, model: &str) -> FeedEntry {
        FeedEntry {
            offer_id: offer_id.into(),
            model: model.into(),
            version: "1".into(),
            release_notes: String::new(),
            files: Vec::new(),
        }
    }

    fn unreachable() -> VendorError {
        VendorError::Unreachable { uri: "https://v".into(), cause: "no".into() }
    }

    /// R55, R56: a source that does not answer hides no other, and its last feed stays.
    #[test]
    fn a_silent_source_hides_no_other() {
        let mut offers = Offers::default();
        offers.take("b", Err(unreachable()));
        let error = offers.list("", "").expect_err("nobody answers");
        assert!(
            matches!(error, CatalogError::Server(refusal) if refusal.reason == Reason::VendorUnreachable)
        );
        let feed =
            Feed { entries: vec![entry("2", "M"), entry("1", "M"), entry("0", "Z")], ..Feed::default() };
        offers.take("a", Ok(feed));
        let listed = |offers: &Offers, source: &str, model: &str| -> Vec<String> {
            let listed = offers.list(source, model).expect("an answer");
            listed.into_iter().map(|offer| offer.entry.offer_id).collect()
        };
        assert_eq!(listed(&offers, "", ""), ["1", "2", "0"]);
        assert_eq!(listed(&offers, "a", "Z"), ["0"]);
        assert!(offers.list("b", "").is_err(), "asked for alone, it says why");
        let answer = offers.take("a", Err(unreachable()));
        assert!(answer.failure.is_some() && answer.feed.entries.len() == 3);
        assert_eq!(listed(&offers, "a", "M"), ["1", "2"]);
    }
}
