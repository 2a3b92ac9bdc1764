//! A request and the head of its answer, through redirects.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use url::{Position, Url};

use super::{
    Resolve,
    body::Arriving,
    connect::{Origin, refused},
    unreachable,
};
use crate::{
    domain::address::{self, AddressRule},
    ports::VendorError,
};

/// How often a vendor may send us elsewhere.
const REDIRECTS_MAX: usize = 3;
/// The most headers of an answer.
const HEADERS_MAX: usize = 100;
/// What is read at once, and the largest head.
const BUFFER_BYTES: usize = 256 << 10;
/// Who asks.
const USER_AGENT: &str = concat!("lockstep-catalog/", env!("CARGO_PKG_VERSION"));

/// The head of an answer, and its body on the way.
pub(super) struct Answer {
    /// Where it came from, after all redirects.
    pub(super) uri: Url,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Arriving,
}

impl Answer {
    /// The text of a header, if it is one.
    pub(super) fn text(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The length that is announced, if it is.
    pub(super) fn length(&self) -> Option<u64> {
        self.text(header::CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// Whether the end of the body can be told from the end of the connection.
    pub(super) fn is_framed(&self) -> bool {
        self.headers.contains_key(header::CONTENT_LENGTH)
            || self.headers.contains_key(header::TRANSFER_ENCODING)
    }
}

impl Origin {
    /// Asks, and follows redirects, each of which is held to all rules.
    pub(super) async fn ask(
        &self,
        first: Url,
        headers: &HeaderMap,
        resolver: &impl Resolve,
    ) -> Result<Answer, VendorError> {
        let mut uri = first;
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask_once(uri, headers, resolver).await?;
            if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return check_encoding(answer);
            }
            let location = answer.text(header::LOCATION).ok_or(AddressRule::NoUri);
            let next = location.and_then(|location| address::parse(location, Some(&answer.uri)));
            uri = match next {
                Ok(next) if answer.uri.scheme() == "https" && next.scheme() == "http" => {
                    return Err(refused(&next, &AddressRule::Downgrade));
                }
                Ok(next) => next,
                Err(rule) => {
                    let rule = format!("it redirects to an address that is not asked: {rule}");
                    return Err(VendorError::AddressRefused { uri: super::shown(&answer.uri), rule });
                }
            };
        }
        Err(unreachable(&uri, format!("more than {REDIRECTS_MAX} redirects lead there")))
    }

    async fn ask_once(
        &self,
        uri: Url,
        headers: &HeaderMap,
        resolver: &impl Resolve,
    ) -> Result<Answer, VendorError> {
        let target = self.check(&uri)?;
        let request = request(&uri, headers).ok_or_else(|| refused(&uri, &AddressRule::NoUri))?;
        let stream = self.connect(&target, resolver).await?;
        let late = |_| unreachable(&uri, format!("no answer within {:?}", self.limits.header));
        let broken = |_| unreachable(&uri, "the connection broke before an answer, or it was no HTTP");
        let exchange = async {
            let mut builder = http1::Builder::new();
            builder.max_headers(HEADERS_MAX).max_buf_size(BUFFER_BYTES);
            let (mut sender, wire) =
                builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
            let mut wire = Box::pin(wire);
            let response = {
                let mut response = pin!(sender.send_request(request));
                tokio::select! {
                    biased;
                    response = &mut response => response,
                    // Done without an error, or not: the response knows.
                    _ = &mut wire => {
                        let response = response.await.map_err(broken)?;
                        return Ok((None, sender, response));
                    }
                }
            };
            Ok((Some(wire), sender, response.map_err(broken)?))
        };
        let (wire, sender, response) = timeout(self.limits.header, exchange).await.map_err(late)??;
        let (parts, body) = response.into_parts();
        let body = Arriving::new(uri.clone(), wire, sender, body, self.limits.idle);
        Ok(Answer { uri, status: parts.status, headers: parts.headers, body })
    }
}

fn request(uri: &Url, headers: &HeaderMap) -> Option<Request<Empty<Bytes>>> {
    let host = &uri[Position::BeforeHost..Position::AfterPort];
    let mut request =
        Request::get(&uri[Position::BeforePath..Position::AfterQuery]).body(Empty::new()).ok()?;
    *request.headers_mut() = headers.clone();
    let mut set = |name, value| request.headers_mut().insert(name, value);
    set(header::HOST, HeaderValue::from_str(host).ok()?);
    set(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    set(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    set(header::CONNECTION, HeaderValue::from_static("close"));
    Some(request)
}

/// Sizes and digests are those of the content, so nothing but it is taken.
fn check_encoding(answer: Answer) -> Result<Answer, VendorError> {
    match answer.headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding.as_bytes() != b"identity" => {
            Err(unreachable(&answer.uri, "it answered compressed, though asked not to"))
        }
        _ => Ok(answer),
    }
}
