//! The data that a device needs, and how it is written.

use std::{fmt::Write as _, sync::Arc};

use lockstep_model::{ServerId, firmware::Protocol};

use crate::domain::{
    address,
    reach::Reach,
    update::{Entered, Login},
};

/// The directory that devices see.
const TRANSFER: &str = "/ums_filetransfer";

/// What a device needs to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The scheme.
    pub scheme: &'static str,
    /// Without brackets; empty for FILE.
    pub host: String,
    /// 0 where the protocol has none.
    pub port: u16,
    /// Beginning with a slash.
    pub path: String,
    /// How to log in.
    pub login: Arc<Login>,
    /// The chosen server; `None` where host and port were entered.
    pub server: Option<ServerId>,
}

impl Connection {
    /// From the WebDAV directory of a server: `below` is a path below its transfer directory, empty for that itself.
    pub fn webdav(
        protocol: Protocol,
        server: &ServerId,
        reach: &Reach,
        below: &str,
        login: Arc<Login>,
    ) -> Self {
        let port = match protocol {
            Protocol::HttpWebdav => reach.http_port,
            _ => reach.https_port,
        };
        let mut path = TRANSFER.to_owned();
        for segment in below.split('/').filter(|segment| !segment.is_empty()) {
            path.push('/');
            encode(&mut path, segment.bytes(), is_unreserved);
        }
        let (scheme, host) = (protocol.scheme(), reach.host.clone());
        Self { scheme, host, port, path, login, server: Some(server.clone()) }
    }

    /// As a person entered it (R53).
    pub fn entered(protocol: Protocol, entered: &Entered, login: Arc<Login>) -> Self {
        let slash = if entered.path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{}", entered.path);
        let (host, port) = match protocol {
            Protocol::File => (String::new(), 0),
            _ => (entered.host.clone(), entered.port.unwrap_or_else(|| default_port(protocol))),
        };
        Self { scheme: protocol.scheme(), host, port, path, login, server: None }
    }

    /// All of it but user and password. What a person entered as the path stays as it is, but for what no URI has.
    pub fn uri(&self) -> String {
        let mut uri = format!("{}://{}", self.scheme, address::in_uri(&self.host));
        if self.port != 0 {
            // Writing to a text cannot fail.
            let _ = write!(uri, ":{}", self.port);
        }
        encode(&mut uri, self.path.bytes(), |byte| {
            is_unreserved(byte) || b"/%!$&'()*+,;=:@?#".contains(&byte)
        });
        uri
    }
}

/// The port of a protocol whose host is entered.
const fn default_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::HttpsWebdav | Protocol::Https => 443,
        Protocol::HttpWebdav | Protocol::Http => 80,
        Protocol::Ftp => 21,
        Protocol::Ftps => 990,
        Protocol::Sftp => 22,
        Protocol::File => 0,
    }
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn encode(text: &mut String, bytes: impl Iterator<Item = u8>, is_plain: impl Fn(u8) -> bool) {
    for byte in bytes {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(host: &str) -> Reach {
        Reach { host: host.to_owned(), https_port: 8443, http_port: 9080 }
    }

    /// R6, R52: names of any kind arrive, and each protocol has its own port; an IPv6 address is in brackets in the URI only.
    #[test]
    fn webdav_data_is_written_for_devices() {
        let server: ServerId = "s1".parse().expect("a server id");
        let data = |protocol, host: &str, below: &str| {
            Connection::webdav(protocol, &server, &reach(host), below, Arc::default())
        };
        let data = |protocol, host: &str, below: &str| {
            let data = data(protocol, host, below);
            assert_eq!(data.host, host);
            data.uri()
        };
        assert_eq!(
            data(Protocol::HttpsWebdav, "ums.test", "fw/a b/ü#1?.bin"),
            "https://ums.test:8443/ums_filetransfer/fw/a%20b/%C3%BC%231%3F.bin"
        );
        assert_eq!(data(Protocol::HttpWebdav, "fd00::1", "fw"), "http://[fd00::1]:9080/ums_filetransfer/fw");
        assert_eq!(data(Protocol::HttpsWebdav, "10.0.0.1", ""), "https://10.0.0.1:8443/ums_filetransfer");
        assert_eq!(data(Protocol::HttpsWebdav, "u", "%2e"), "https://u:8443/ums_filetransfer/%252e");
    }

    /// R53: what was entered is sent as it was entered.
    #[test]
    fn entered_data_is_sent_as_entered() {
        let entered = |protocol, host: &str, port, path: &str| {
            let entered = Entered { host: host.to_owned(), port, path: path.to_owned() };
            let data = Connection::entered(protocol, &entered, Arc::default());
            assert_eq!((data.server.clone(), data.path.ends_with(path)), (None, true));
            data.uri()
        };
        assert_eq!(entered(Protocol::Ftp, "ftp.test", None, "a b/c"), "ftp://ftp.test:21/a%20b/c");
        assert_eq!(entered(Protocol::Sftp, "::1", Some(2222), "/x%20y"), "sftp://[::1]:2222/x%20y");
        assert_eq!(entered(Protocol::File, "", None, "/srv/fw"), "file:///srv/fw");
        assert_eq!(entered(Protocol::Https, "h", None, "/q?a=1"), "https://h:443/q?a=1");
        assert_eq!(entered(Protocol::Ftps, "h", None, ""), "ftps://h:990/");
        assert_eq!(entered(Protocol::Http, "h", None, "/"), "http://h:80/");
    }
}
