//! Files: from where an earlier try stopped if the vendor still has the same, and never more than is declared.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Resolve, bad_status, body::Arriving, connect::Origin, exchange::Answer, shown, unreachable};
use crate::{
    domain::address,
    ports::{FeedFile, Fetched, VendorError},
};

/// The longest validator that is kept.
const VALIDATOR_BYTES_MAX: usize = 1 << 10;

/// The bytes of a file from an offset on, or from the beginning.
pub(super) async fn fetch(
    origin: &Origin,
    resolver: &impl Resolve,
    file: FeedFile,
    offset: u64,
    validator: &str,
) -> Result<Fetched, VendorError> {
    let declared = file.size_bytes;
    // One that cannot be sent is none.
    let validator = if HeaderValue::from_str(validator).is_ok() { validator } else { "" };
    let uri = address::parse(&file.uri, None).map_err(|rule| VendorError::AddressRefused {
        // It may have a password in it.
        uri: "an address of the feed".to_owned(),
        rule: rule.to_string(),
    })?;
    if offset == declared && declared > 0 {
        let body = Box::pin(futures::stream::empty());
        return Ok(Fetched { offset_bytes: offset, validator: validator.to_owned(), body });
    }
    if (1..declared).contains(&offset) {
        let answer = origin.ask(uri.clone(), &range(offset, declared, validator), resolver).await?;
        match answer.status {
            StatusCode::OK => return whole(answer, declared),
            StatusCode::PARTIAL_CONTENT => {
                if let Some(end) = part_end(&answer, offset, declared, validator) {
                    return Ok(fetched(answer, offset, end, declared));
                }
            }
            // It has fewer bytes now.
            StatusCode::RANGE_NOT_SATISFIABLE => {}
            status => return Err(bad_status(&answer.uri, status)),
        }
        // Not the part that was asked for, or of another version: all of it, then.
    }
    let answer = origin.ask(uri, &HeaderMap::new(), resolver).await?;
    match answer.status {
        StatusCode::OK => whole(answer, declared),
        status => Err(bad_status(&answer.uri, status)),
    }
}

/// Asks for the rest, if the file is what it was. Without a validator only size and digest can tell.
fn range(offset: u64, declared: u64, validator: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes={offset}-{}", declared - 1)) {
        headers.insert(header::RANGE, value);
    }
    if let Ok(value) = HeaderValue::from_str(validator)
        && !value.is_empty()
    {
        headers.insert(header::IF_RANGE, value);
    }
    headers
}

/// Where a part ends that begins at `offset`, if it is one of the declared file in the version that was asked for.
fn part_end(answer: &Answer, offset: u64, declared: u64, validator: &str) -> Option<u64> {
    // Not every vendor looks at If-Range.
    let named = self::validator(answer);
    if !validator.is_empty() && !named.is_empty() && named != validator {
        return None;
    }
    let (part, total) = answer.text(header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let end = last.trim().parse::<u64>().ok()?.checked_add(1)?;
    let is_total = total.trim() == "*" || total.trim().parse() == Ok(declared);
    let is_asked = first.trim().parse() == Ok(offset) && is_total && offset < end && end <= declared;
    is_asked.then_some(end)
}

/// An answer with all of the file.
fn whole(answer: Answer, declared: u64) -> Result<Fetched, VendorError> {
    match answer.length() {
        Some(actual) if actual != declared => {
            Err(VendorError::SizeMismatch { uri: shown(&answer.uri), declared, actual })
        }
        _ => Ok(fetched(answer, 0, declared, declared)),
    }
}

fn fetched(answer: Answer, offset: u64, end: u64, declared: u64) -> Fetched {
    let validator = validator(&answer);
    let (uri, is_framed) = (answer.uri.clone(), answer.is_framed());
    let body = Counted { body: answer.body, uri, at: offset, end, declared, is_framed, is_over: false };
    Fetched { offset_bytes: offset, validator, body: Box::pin(body) }
}

/// What this version of the file is called. A weak tag is no promise about bytes, so it is not one.
fn validator(answer: &Answer) -> String {
    let tag = answer.text(header::ETAG).filter(|tag| tag.starts_with('"'));
    let name = tag.or_else(|| answer.text(header::LAST_MODIFIED)).unwrap_or_default();
    if name.len() > VALIDATOR_BYTES_MAX { String::new() } else { name.to_owned() }
}

/// The bytes of a file, held to its declared size.
struct Counted {
    body: Arriving,
    uri: url::Url,
    /// How far it came.
    at: u64,
    /// Where this answer ends.
    end: u64,
    declared: u64,
    is_framed: bool,
    is_over: bool,
}

impl Counted {
    fn add(&mut self, bytes: Bytes) -> Result<Bytes, VendorError> {
        self.at += bytes.len() as u64;
        if self.at > self.declared { Err(self.mismatch()) } else { Ok(bytes) }
    }

    fn mismatch(&self) -> VendorError {
        VendorError::SizeMismatch { uri: shown(&self.uri), declared: self.declared, actual: self.at }
    }

    /// It ended: is that all?
    fn finish(&self) -> Option<VendorError> {
        match () {
            () if self.at == self.declared => None,
            () if self.is_framed && self.end == self.declared => Some(self.mismatch()),
            () => {
                let (at, declared) = (self.at, self.declared);
                Some(unreachable(&self.uri, format!("it ended after {at} of {declared} bytes")))
            }
        }
    }
}

impl Stream for Counted {
    type Item = Result<Bytes, VendorError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let item = match ready!(Pin::new(&mut self.body).poll_next(context)) {
            Some(Ok(bytes)) => Some(self.add(bytes)),
            Some(Err(error)) => Some(Err(error)),
            None => self.finish().map(Err),
        };
        self.is_over = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}
