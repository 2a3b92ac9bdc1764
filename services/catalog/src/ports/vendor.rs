//! The vendor: feeds of offers, and the files that they name.

use std::{collections::BTreeMap, pin::Pin};

use bytes::Bytes;
use futures::Stream;
use lockstep_model::{Fault, Metadata, Reason};

/// What a source offers, after every entry was checked alone (R56).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// The well-formed entries, ordered by model, version and offer id.
    pub entries: Vec<FeedEntry>,
    /// The malformed ones, at most 100.
    pub malformed: Vec<Malformed>,
    /// How many entries are malformed.
    pub malformed_count: u64,
}

/// An entry that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// `FEED_INVALID` or `SIGNATURE_INVALID`.
    pub reason: Reason,
    /// Which entry, and what is wrong with it; text of the feed is escaped and cut.
    pub message: String,
}

/// One offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// Names it within the source.
    pub offer_id: String,
    /// The model of the devices that it is for.
    pub model: String,
    /// Its version, as the vendor writes it.
    pub version: String,
    /// What the vendor says of it.
    pub release_notes: String,
    /// Its files, ordered by name.
    pub files: Vec<FeedFile>,
}

/// A file of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedFile {
    /// Its path below the directory of the update: a valid relative path.
    pub name: String,
    /// Where it is: an absolute `https` (or allowed `http`) URI, already resolved against that of the feed.
    pub uri: String,
    /// Size of the content.
    pub size_bytes: u64,
    /// SHA-256 of the content: 64 lowercase hexadecimal digits.
    pub sha256: String,
}

/// The bytes of a file, from the offset that was asked for, never more than its declared size.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, VendorError>> + Send>>;

/// The answer to a request for a file.
pub struct Fetched {
    /// Where the bytes begin: the offset that was asked for, or 0 if the vendor gives no ranges or the file changed.
    pub offset_bytes: u64,
    /// What the vendor calls this version of the file (its ETag or Last-Modified); a range is asked for with it (If-Range).
    pub validator: String,
    /// The bytes.
    pub body: Body,
}

/// Where offers come from. Every address is checked, whatever the caller knows of it.
pub trait Vendor: Clone + Send + Sync + 'static {
    /// The sources that are configured, by their ids, each with the URI of its feed.
    fn sources(&self) -> BTreeMap<String, String>;

    /// What a source offers now; the last answer again where the vendor says that nothing changed.
    fn check(&self, source_id: String) -> impl Future<Output = Result<Feed, VendorError>> + Send;

    /// The bytes of a file from `offset_bytes` on. `validator` is what an earlier answer gave, empty for none.
    fn fetch(
        &self,
        source_id: String,
        file: FeedFile,
        offset_bytes: u64,
        validator: String,
    ) -> impl Future<Output = Result<Fetched, VendorError>> + Send;
}

/// Why nothing comes from a vendor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VendorError {
    /// No such source.
    #[error("no source {source_id} in the file of sources")]
    SourceUnknown {
        /// What was asked for.
        source_id: String,
    },
    /// The address may not be asked.
    #[error("{uri} is not asked: {rule}")]
    AddressRefused {
        /// The address.
        uri: String,
        /// Which rule it breaks.
        rule: String,
    },
    /// The vendor did not answer as it should: no connection, a status code, a connection that broke, no progress.
    #[error("{uri}: {cause}")]
    Unreachable {
        /// The address.
        uri: String,
        /// Why; never text of the vendor, beyond its status code.
        cause: String,
    },
    /// The feed as a whole is no feed.
    #[error("the feed {uri} is malformed: {rule}")]
    FeedInvalid {
        /// The address.
        uri: String,
        /// What is wrong.
        rule: String,
    },
    /// The vendor has another size than the feed declares, or gives more or fewer bytes.
    #[error("{uri} has {actual} bytes, not {declared}, as its feed declares")]
    SizeMismatch {
        /// The address.
        uri: String,
        /// The size in the feed.
        declared: u64,
        /// What the vendor has, as far as it was seen.
        actual: u64,
    },
}

impl Fault for VendorError {
    fn reason(&self) -> Reason {
        match self {
            Self::SourceUnknown { .. } => Reason::FirmwareNotFound,
            Self::AddressRefused { .. } => Reason::AddressRefused,
            Self::Unreachable { .. } => Reason::VendorUnreachable,
            Self::FeedInvalid { .. } => Reason::FeedInvalid,
            Self::SizeMismatch { .. } => Reason::ContentDigestMismatch,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::SourceUnknown { source_id } => vec![("source_id", source_id.clone())],
            Self::AddressRefused { uri, rule } | Self::FeedInvalid { uri, rule } => {
                vec![("uri", uri.clone()), ("rule", rule.clone())]
            }
            Self::Unreachable { uri, cause } => vec![("uri", uri.clone()), ("cause", cause.clone())],
            Self::SizeMismatch { uri, declared, actual } => vec![
                ("uri", uri.clone()),
                ("declared_bytes", declared.to_string()),
                ("actual_bytes", actual.to_string()),
            ],
        }
    }
}
