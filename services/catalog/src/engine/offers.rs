//! Asking the sources, and what they said (R55, R56).

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use futures::{StreamExt as _, stream};

use super::Engine;
use crate::{
    domain::{
        error::CatalogError,
        offers::{Answer, Offer, Offers},
    },
    ports::{FeedEntry, Ports, Vendor as _, VendorError},
};

/// Sources that are asked at the same time: a slow one delays few others.
const SOURCES_AT_ONCE: usize = 8;

impl<P: Ports> Engine<P> {
    fn offers(&self) -> MutexGuard<'_, Offers> {
        // Every change is one call, so a panic of another holder leaves nothing half done.
        self.inner.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one source, or all if it is not named, what they offer now.
    ///
    /// # Errors
    /// `FIRMWARE_NOT_FOUND` for a source that is not configured. That one does not answer is in its answer.
    pub async fn refresh(&self, source_id: &str) -> Result<Vec<Answer>, CatalogError> {
        let ids = self.sources(source_id)?;
        Ok(self.ask_sources(ids).await)
    }

    /// What is offered, asking those sources that were never asked.
    ///
    /// # Errors
    /// As `ListOffers` in the contract.
    pub async fn list_offers(&self, source_id: &str, model: &str) -> Result<Vec<Offer>, CatalogError> {
        let mut unknown = self.sources(source_id)?;
        unknown.retain(|id| !self.offers().knows(id));
        self.ask_sources(unknown).await;
        self.offers().list(source_id, model)
    }

    /// One offer; the source is asked if it is not known to offer it.
    ///
    /// # Errors
    /// Why the source does not answer.
    pub(super) async fn offer(
        &self,
        source_id: &str,
        offer_id: &str,
    ) -> Result<Option<FeedEntry>, CatalogError> {
        let ids = self.sources(source_id)?;
        let known = self.offers().find(source_id, offer_id);
        if known.is_some() {
            return Ok(known);
        }
        let answers = self.ask_sources(ids).await;
        let found = self.offers().find(source_id, offer_id);
        match answers.into_iter().find_map(|answer| answer.failure) {
            Some(failure) if found.is_none() => Err(failure.into()),
            _ => Ok(found),
        }
    }

    fn sources(&self, source_id: &str) -> Result<BTreeSet<String>, CatalogError> {
        let known = self.inner.outside.vendor.sources();
        if source_id.is_empty() {
            return Ok(known.into_keys().collect());
        }
        if !known.contains_key(source_id) {
            return Err(VendorError::SourceUnknown { source_id: source_id.to_owned() }.into());
        }
        Ok([source_id.to_owned()].into())
    }

    async fn ask_sources(&self, ids: BTreeSet<String>) -> Vec<Answer> {
        let asked = ids.into_iter().map(|id| async move {
            let answer = self.inner.outside.vendor.check(id.clone()).await;
            if let Err(error) = &answer {
                tracing::info!(source_id = id, %error, "a source does not answer");
            }
            self.offers().take(&id, answer)
        });
        stream::iter(asked.collect::<Vec<_>>()).buffered(SOURCES_AT_ONCE).collect().await
    }
}
