//! Feeds: read within their bounds, and not again where the vendor says that nothing changed.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use url::Url;

use super::{One, Resolve, bad_status, exchange::Answer, shown, unreachable};
use crate::{
    domain::feed::{self, FEED_BYTES_MAX},
    ports::{Feed, VendorError},
};

/// The last feed of a vendor, and what it called that version.
pub(super) struct Kept {
    tag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
    feed: Feed,
}

/// What a vendor offers now.
pub(super) async fn check(one: &One, resolver: &impl Resolve) -> Result<Feed, VendorError> {
    let uri = &one.origin.source.feed;
    let limit = one.origin.limits.feed;
    let late = |_| unreachable(uri, format!("the feed was not complete within {limit:?}"));
    timeout(limit, check_in_time(one, resolver)).await.map_err(late)?
}

async fn check_in_time(one: &One, resolver: &impl Resolve) -> Result<Feed, VendorError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
    if let Some(kept) = &*locked(one) {
        let conditions = [(header::IF_NONE_MATCH, &kept.tag), (header::IF_MODIFIED_SINCE, &kept.modified)];
        for (name, value) in conditions {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }
    let answer = one.origin.ask(one.origin.source.feed.clone(), &headers, resolver).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => {
            let kept = locked(one).as_ref().map(|kept| kept.feed.clone());
            return kept.ok_or_else(|| bad_status(&answer.uri, answer.status));
        }
        status => return Err(bad_status(&answer.uri, status)),
    }
    let tag = answer.headers.get(header::ETAG).cloned();
    let modified = answer.headers.get(header::LAST_MODIFIED).cloned();
    let (uri, bytes) = collect(answer).await?;
    let (key, base) = (one.origin.source.public_key, uri.clone());
    // Thousands of signatures take a while.
    let parsed = tokio::task::spawn_blocking(move || feed::parse(&bytes, &base, key.as_ref())).await;
    let parsed = parsed.map_err(|_| unreachable(&uri, "the catalog is stopping"))?;
    let feed = parsed.map_err(|rule| VendorError::FeedInvalid { uri: shown(&uri), rule })?;
    *locked(one) = Some(Kept { tag, modified, feed: feed.clone() });
    Ok(feed)
}

fn locked(one: &One) -> std::sync::MutexGuard<'_, Option<Kept>> {
    one.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// All bytes of a feed, which are no more than its bound.
async fn collect(mut answer: Answer) -> Result<(Url, Vec<u8>), VendorError> {
    let too_large = |uri: &Url| VendorError::FeedInvalid {
        uri: shown(uri),
        rule: format!("it has more than {} MiB", FEED_BYTES_MAX >> 20),
    };
    if answer.length().is_some_and(|length| length > FEED_BYTES_MAX as u64) {
        return Err(too_large(&answer.uri));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = answer.body.next().await {
        let piece = piece?;
        if bytes.len() + piece.len() > FEED_BYTES_MAX {
            return Err(too_large(&answer.uri));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((answer.uri, bytes))
}
