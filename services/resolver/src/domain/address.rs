//! A host as people enter it: a DNS name or an IP address, and nothing around it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fmt, str::FromStr};

/// The longest DNS name.
const NAME_BYTES_MAX: usize = 253;
/// The longest part of one.
const LABEL_BYTES_MAX: usize = 63;

/// A host name or an IP address, kept as it was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

/// Which rule the text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// Something before `://`.
    #[error("must be a host name or an address without a scheme, such as ums.example.com")]
    Scheme,
    /// A slash.
    #[error("must be a host name or an address without a path")]
    Path,
    /// A user before an at sign.
    #[error("must be a host name or an address without a user")]
    User,
    /// A port after a colon.
    #[error("must be a host name or an address without a port; the ports are fields of their own")]
    Port,
    /// Brackets.
    #[error("must be without brackets; those around an IPv6 address are added where they belong")]
    Brackets,
    /// Digits and dots that are no address.
    #[error("looks like an IPv4 address, but is none: four numbers from 0 to 255")]
    NotIpv4,
    /// Colons that are no address.
    #[error("looks like an IPv6 address, but is none")]
    NotIpv6,
    /// None of the others.
    #[error(
        "must be a DNS host name (letters, digits and hyphens, with dots between its parts of at most 63, at most 253 in all) or an IP address"
    )]
    Name,
}

impl HostName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        check(text)?;
        Ok(Self(text.to_owned()))
    }
}

fn check(text: &str) -> Result<(), InvalidHost> {
    if text.contains("://") {
        return Err(InvalidHost::Scheme);
    }
    if text.contains(['/', '\\', '?', '#']) {
        return Err(InvalidHost::Path);
    }
    if text.contains('@') {
        return Err(InvalidHost::User);
    }
    if text.contains(['[', ']']) {
        return Err(InvalidHost::Brackets);
    }
    if text.contains(':') {
        return match (text.parse::<Ipv6Addr>(), text.matches(':').count()) {
            (Ok(_), _) => Ok(()),
            (Err(_), 1) => Err(InvalidHost::Port),
            (Err(_), _) => Err(InvalidHost::NotIpv6),
        };
    }
    // A name whose last part is a number would be read as an address by whoever dials it.
    if text
        .rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
    {
        return text.parse::<Ipv4Addr>().map(drop).map_err(|_| InvalidHost::NotIpv4);
    }
    if text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label) {
        Ok(())
    } else {
        Err(InvalidHost::Name)
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The host as it stands in a URI: an IPv6 address is in brackets.
pub fn in_uri(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]"),
        _ => host.to_owned(),
    }
}

/// The host of `https://host:port`, without brackets; empty if there is none.
pub fn of_uri(uri: &str) -> &str {
    let authority = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R49: a public address is a host and nothing else, and whoever enters more is told which rule it breaks.
    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        for text in ["ums", "ums-1.example.com", "10.0.0.1", "fd00::1", "::1", "a.b.c.d", "1a.test", "x1"] {
            assert_eq!(text.parse::<HostName>().map(|host| host.to_string()), Ok(text.to_owned()));
        }
        for (text, rule) in [
            ("https://ums", InvalidHost::Scheme),
            ("ums/path", InvalidHost::Path),
            ("ums?x", InvalidHost::Path),
            ("user@ums", InvalidHost::User),
            ("ums:8443", InvalidHost::Port),
            ("10.0.0.1:8443", InvalidHost::Port),
            ("[fd00::1]", InvalidHost::Brackets),
            ("[fd00::1]:8443", InvalidHost::Brackets),
            ("fd00::1::2", InvalidHost::NotIpv6),
            ("fe80::1%eth0", InvalidHost::NotIpv6),
            ("10.0.0.256", InvalidHost::NotIpv4),
            ("10.0.1", InvalidHost::NotIpv4),
            ("ums..test", InvalidHost::Name),
            ("ums.test.", InvalidHost::Name),
            ("-ums", InvalidHost::Name),
            ("ums test", InvalidHost::Name),
            ("ümläut", InvalidHost::Name),
            ("ums\n", InvalidHost::Name),
            ("", InvalidHost::Name),
        ] {
            assert_eq!(text.parse::<HostName>(), Err(rule), "{text}");
        }
        assert!("a".repeat(64).parse::<HostName>().is_err());
        assert!(vec!["a".repeat(63); 4].join(".").parse::<HostName>().is_err());
    }

    #[test]
    fn hosts_are_taken_out_of_uris_and_put_into_them() {
        for (uri, host) in [
            ("https://ums:1", "ums"),
            ("https://10.0.0.1:1/", "10.0.0.1"),
            ("https://[::1]:8443", "::1"),
            ("ums", "ums"),
            ("", ""),
        ] {
            assert_eq!(of_uri(uri), host);
        }
        assert_eq!([in_uri("::1"), in_uri("10.0.0.1"), in_uri("ums")], ["[::1]", "10.0.0.1", "ums"]);
    }
}
