//! Changes of what people say of a server.

use lockstep_model::record::AddressRecord;

use crate::domain::address::HostName;

/// The longest display name, in characters.
pub const DISPLAY_NAME_CHARACTERS_MAX: usize = 128;
/// The longest name of a site, in characters.
pub const SITE_CHARACTERS_MAX: usize = 64;

/// A new value of one field; `None`, or an empty text, takes the value away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// `display_name`
    DisplayName(String),
    /// `site`
    Site(String),
    /// `host_name`
    HostName(Option<HostName>),
    /// `https_port`
    HttpsPort(Option<u16>),
    /// `http_port`
    HttpPort(Option<u16>),
    /// `public_address`
    PublicAddress(Option<HostName>),
    /// `public_https_port`
    PublicHttpsPort(Option<u16>),
    /// `public_http_port`
    PublicHttpPort(Option<u16>),
}

impl Assignment {
    /// Takes it over into `record`.
    pub fn apply(&self, record: &mut AddressRecord) {
        let text = |host: &Option<HostName>| host.as_ref().map_or_else(String::new, ToString::to_string);
        match self {
            Self::DisplayName(name) => record.display_name.clone_from(name),
            Self::Site(site) => record.site.clone_from(site),
            Self::HostName(host) => record.host_name = text(host),
            Self::HttpsPort(port) => record.https_port = *port,
            Self::HttpPort(port) => record.http_port = *port,
            Self::PublicAddress(host) => record.public_address = text(host),
            Self::PublicHttpsPort(port) => record.public_https_port = *port,
            Self::PublicHttpPort(port) => record.public_http_port = *port,
        }
    }
}

/// Whether a text is fit for people: not too long, and nothing in it that controls a terminal.
pub fn is_fit(text: &str, characters_max: usize) -> bool {
    text.chars().count() <= characters_max && !text.chars().any(char::is_control) && text.trim() == text
}

/// A port; `None` if it is none.
pub fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_a_range() {
        assert_eq!([1, 65_535].map(port), [Some(1), Some(65_535)]);
        assert_eq!([0, -1, 65_536, i32::MAX, i32::MIN].map(port), [None; 5]);
    }

    #[test]
    fn texts_for_people_are_bounded_and_plain() {
        assert!(is_fit("", 3) && is_fit("äöü", 3) && is_fit("a b", 3));
        assert!(!is_fit("abcd", 3) && !is_fit("a\n", 3) && !is_fit(" a", 3) && !is_fit("\u{1b}[", 3));
    }

    /// R52: each field is changed on its own, and an empty one takes the value away.
    #[test]
    fn an_assignment_changes_its_field_only() {
        let host: HostName = "ums.test".parse().expect("a host");
        let mut record = AddressRecord::default();
        for assignment in [
            Assignment::DisplayName("A".to_owned()),
            Assignment::Site("north".to_owned()),
            Assignment::HostName(Some(host.clone())),
            Assignment::HttpsPort(Some(1)),
            Assignment::HttpPort(Some(2)),
            Assignment::PublicAddress(Some(host)),
            Assignment::PublicHttpsPort(Some(3)),
            Assignment::PublicHttpPort(Some(4)),
        ] {
            assignment.apply(&mut record);
        }
        let full = record.clone();
        assert_eq!((full.https_port, full.http_port), (Some(1), Some(2)));
        assert_eq!((full.public_https_port, full.public_http_port), (Some(3), Some(4)));
        Assignment::PublicAddress(None).apply(&mut record);
        assert_eq!(record, AddressRecord { public_address: String::new(), ..full });
    }
}
