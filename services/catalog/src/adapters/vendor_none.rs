//! No vendor at all: what a catalog without a file of sources has.

use std::collections::BTreeMap;

use crate::ports::{Feed, FeedFile, Fetched, Vendor, VendorError};

/// Offers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoVendor;

impl Vendor for NoVendor {
    fn sources(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    async fn check(&self, source_id: String) -> Result<Feed, VendorError> {
        Err(VendorError::SourceUnknown { source_id })
    }

    async fn fetch(&self, source_id: String, _: FeedFile, _: u64, _: String) -> Result<Fetched, VendorError> {
        Err(VendorError::SourceUnknown { source_id })
    }
}
