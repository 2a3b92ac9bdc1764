//! Which addresses of vendors may be asked (SECURITY: server-side request forgery).
//!
//! Whoever writes a feed chooses where the catalog connects to. So each address is held to the rules of its source: the
//! scheme, the port, and **all** the addresses that its name resolves to, which must be public unless the host is on the
//! allow-list. Addresses that only wrap another one, such as those of NAT64, are what they wrap.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::{names::shown, sources::Source};

/// The longest address of a vendor, in bytes.
pub const URI_BYTES_MAX: usize = 2_048;

/// Networks of IPv4 that are not public: first address, length of the prefix, what they are.
const NOT_PUBLIC_V4: [([u8; 4], u32, &str); 18] = [
    // Services of clouds come first: most of them lie in a network below.
    ([169, 254, 169, 254], 32, "cloud metadata"),
    ([169, 254, 170, 2], 32, "cloud metadata"),
    ([100, 100, 100, 200], 32, "cloud metadata"),
    ([192, 0, 0, 192], 32, "cloud metadata"),
    ([168, 63, 129, 16], 32, "cloud metadata"),
    ([0, 0, 0, 0], 8, "unspecified"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "of a carrier's NAT"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved"),
    ([192, 0, 2, 0], 24, "documentation"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "benchmarking"),
    ([198, 51, 100, 0], 24, "documentation"),
    ([203, 0, 113, 0], 24, "documentation"),
    // Multicast, reserved and broadcast together: 224.0.0.0 to the end.
    ([224, 0, 0, 0], 3, "multicast or reserved"),
];

/// Networks of IPv6 that are not public.
const NOT_PUBLIC_V6: [([u16; 8], u32, &str); 14] = [
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, "cloud metadata"),
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, "cloud metadata"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "of a local NAT64"),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discarded"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation"),
    // Teredo, ORCHID, benchmarking and the rest of what is set apart for protocols.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "of a protocol"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation"),
    ([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "of segment routing"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique local"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
];

/// The rule that an address breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRule {
    /// It is none.
    #[error("it is no absolute address")]
    NoUri,
    /// It is longer than [`URI_BYTES_MAX`].
    #[error("it has more than {URI_BYTES_MAX} bytes")]
    TooLong,
    /// Neither https, nor http where that is allowed.
    #[error("its scheme is {0}: only https is asked, and http where the source says http = \"allowed\"")]
    Scheme(String),
    /// A redirect that gives up encryption.
    #[error("it is a redirect from https to http")]
    Downgrade,
    /// A user or a password in it.
    #[error("it has a user or a password in it")]
    UserInfo,
    /// A port that is not on the list.
    #[error("port {0} is not among the ports of the source")]
    Port(u16),
    /// An address that is not public.
    #[error("{address} is {kind}, and {host} is not among the allow_hosts of the source")]
    NotPublic {
        /// The host, as it was named.
        host: String,
        /// One of its addresses.
        address: IpAddr,
        /// What that is.
        kind: &'static str,
    },
}

/// An address whose form may be asked; where its host leads is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub uri: Url,
    /// The name or address of the host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether it is asked over TLS.
    pub is_https: bool,
}

/// An absolute address in a text, with nothing in it that no feed needs. It may still be one that is not asked.
///
/// # Errors
/// The rule that it breaks.
pub fn parse(text: &str, base: Option<&Url>) -> Result<Url, AddressRule> {
    if text.len() > URI_BYTES_MAX {
        return Err(AddressRule::TooLong);
    }
    let mut uri = Url::options().base_url(base).parse(text).map_err(|_| AddressRule::NoUri)?;
    uri.set_fragment(None);
    match uri.scheme() {
        "https" | "http" => {}
        other => return Err(AddressRule::Scheme(shown(other))),
    }
    if !uri.username().is_empty() || uri.password().is_some() {
        return Err(AddressRule::UserInfo);
    }
    Ok(uri)
}

/// Holds the form of an address to the rules of a source.
///
/// # Errors
/// The rule that it breaks.
pub fn check_form(source: &Source, uri: &Url) -> Result<Target, AddressRule> {
    let uri = parse(uri.as_str(), None)?;
    let is_https = uri.scheme() == "https";
    if !is_https && !source.is_http_allowed {
        return Err(AddressRule::Scheme(uri.scheme().to_owned()));
    }
    let host = uri.host().ok_or(AddressRule::NoUri)?;
    let host = host_text(&host);
    let port = uri.port_or_known_default().ok_or(AddressRule::NoUri)?;
    if !source.ports.contains(&port) {
        return Err(AddressRule::Port(port));
    }
    Ok(Target { uri, host, port, is_https })
}

/// Holds all the addresses that a host resolved to at once to the rules of a source.
///
/// # Errors
/// The first of them that may not be connected to.
pub fn check_resolved(source: &Source, target: &Target, addresses: &[IpAddr]) -> Result<(), AddressRule> {
    if source.allow_hosts.iter().any(|allowed| allowed.is_for(&target.host, target.port)) {
        return Ok(());
    }
    let refused = addresses.iter().find_map(|address| Some((*address, kind(*address)?)));
    refused.map_or(Ok(()), |(address, kind)| {
        Err(AddressRule::NotPublic { host: target.host.clone(), address, kind })
    })
}

/// The text of a host, as a resolver takes it: lower case, without brackets, without the dot of the root.
pub fn host_text<S: AsRef<str>>(host: &Host<S>) -> String {
    match host {
        Host::Domain(name) => name.as_ref().trim_end_matches('.').to_lowercase(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    }
}

/// What an address is that is not public; `None` for one that is.
pub fn kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let within = |first: [u8; 4], length: u32| (bits ^ Ipv4Addr::from(first).to_bits()) >> (32 - length) == 0;
    NOT_PUBLIC_V4.into_iter().find(|(first, length, _)| within(*first, *length)).map(|(_, _, kind)| kind)
}

fn kind_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let within =
        |first: [u16; 8], length: u32| (bits ^ Ipv6Addr::from(first).to_bits()) >> (128 - length) == 0;
    let listed = NOT_PUBLIC_V6.into_iter().find(|(first, length, _)| within(*first, *length));
    if let Some((_, _, kind)) = listed {
        return Some(kind);
    }
    match address.segments() {
        // Mapped and well-known NAT64: the last 32 bits are the address that is meant.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            kind_v4(wrapped(high, low))
        }
        // Compatible and translated, which nobody gives out any more.
        [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            Some(kind_v4(wrapped(high, low)).unwrap_or("reserved"))
        }
        // 6to4: the bits after the prefix are.
        [0x2002, high, low, ..] => kind_v4(wrapped(high, low)),
        // Everything that is not given out for general use yet.
        [first, ..] if first & 0xe000 != 0x2000 => Some("reserved"),
        _ => None,
    }
}

fn wrapped(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests;
