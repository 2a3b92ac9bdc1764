//! Vendors over HTTPS (and HTTP where a source allows it).
//!
//! ```text
//! check/fetch ─▶ exchange: redirects, each held to the rules ─▶ connect: resolve once, check all, connect to what was checked
//!                    └─▶ body: progress or an end ─▶ feed, file: bounds, ranges, what changed
//! ```
//!
//! A connection carries one request. What a vendor says beyond a status code and bytes is told to nobody. Variables of the
//! environment that name proxies are not looked at.

mod body;
mod connect;
mod exchange;
mod feed;
mod file;
mod resolver;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use url::Url;

use self::{connect::Origin, feed::Kept};
use crate::{
    domain::sources::{self, Source, SourcesInvalid},
    ports::{Feed, FeedFile, Fetched, Vendor, VendorError},
};

pub use self::resolver::{Resolve, SystemResolver};

/// How long a vendor may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To be found and connected to, TLS included.
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub header: Duration,
    /// Without a byte of the body, while somebody waits for one.
    pub idle: Duration,
    /// For a whole feed.
    pub feed: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            feed: Duration::from_secs(300),
        }
    }
}

/// The vendors of a file of sources.
#[derive(Clone)]
pub struct HttpsVendor<R = SystemResolver> {
    shared: Arc<Shared<R>>,
}

struct Shared<R> {
    resolver: R,
    vendors: BTreeMap<String, One>,
}

/// One vendor.
struct One {
    origin: Origin,
    /// Its last feed.
    kept: Mutex<Option<Kept>>,
}

impl HttpsVendor {
    /// Opens the vendors of a file of sources, with the resolver of the system.
    ///
    /// # Errors
    /// All that is wrong with the file, and with the files that it names.
    pub fn open(file: &Path) -> Result<Self, SourcesInvalid> {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| SourcesInvalid(vec![format!("it cannot be read: {error}")]))?;
        Self::with(sources::parse(&text)?, SystemResolver, Limits::default())
    }

    /// No vendors at all.
    pub fn none() -> Self {
        Self { shared: Arc::new(Shared { resolver: SystemResolver, vendors: BTreeMap::new() }) }
    }
}

impl<R: Resolve> HttpsVendor<R> {
    /// Opens some vendors, with any resolver and limits.
    ///
    /// # Errors
    /// All that is wrong with the files that they name.
    pub fn with(sources: Vec<Source>, resolver: R, limits: Limits) -> Result<Self, SourcesInvalid> {
        let mut problems = Vec::new();
        let mut vendors = BTreeMap::new();
        for source in sources {
            let id = source.id.clone();
            match Origin::new(source, limits) {
                Ok(origin) => {
                    vendors.insert(id, One { origin, kept: Mutex::default() });
                }
                Err(problem) => problems.push(format!("source {id}: {problem}")),
            }
        }
        if !problems.is_empty() {
            return Err(SourcesInvalid(problems));
        }
        Ok(Self { shared: Arc::new(Shared { resolver, vendors }) })
    }

    fn find(&self, source_id: &str) -> Result<&One, VendorError> {
        let unknown = || VendorError::SourceUnknown { source_id: source_id.to_owned() };
        self.shared.vendors.get(source_id).ok_or_else(unknown)
    }
}

impl<R: Resolve> Vendor for HttpsVendor<R> {
    fn sources(&self) -> BTreeMap<String, String> {
        let named = |(id, one): (&String, &One)| (id.clone(), shown(&one.origin.source.feed));
        self.shared.vendors.iter().map(named).collect()
    }

    async fn check(&self, source_id: String) -> Result<Feed, VendorError> {
        let one = self.find(&source_id)?;
        Box::pin(feed::check(one, &self.shared.resolver)).await
    }

    async fn fetch(
        &self,
        source_id: String,
        file: FeedFile,
        offset_bytes: u64,
        validator: String,
    ) -> Result<Fetched, VendorError> {
        let one = self.find(&source_id)?;
        Box::pin(file::fetch(&one.origin, &self.shared.resolver, file, offset_bytes, &validator)).await
    }
}

/// An address as people and logs may see it: what may be a secret in it is left out.
fn shown(uri: &Url) -> String {
    let mut uri = uri.clone();
    // Both fail only for addresses that cannot have any.
    let _ = uri.set_username("");
    let _ = uri.set_password(None);
    if uri.query().is_some() {
        uri.set_query(Some("…"));
    }
    uri.into()
}

/// The vendor did not answer as it should.
fn unreachable(uri: &Url, cause: impl Into<String>) -> VendorError {
    VendorError::Unreachable { uri: shown(uri), cause: cause.into() }
}

/// The vendor answered with a status code that helps nobody.
fn bad_status(uri: &Url, status: http::StatusCode) -> VendorError {
    unreachable(uri, format!("it answered with status {}", status.as_u16()))
}
