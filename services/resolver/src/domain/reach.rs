//! How devices reach a server (R49, R52): each value falls back on its own, and all are of that one server.
//!
//! | | first | else | else |
//! | --- | --- | --- | --- |
//! | host | Public Address | host name | the host under which the other servers reach it |
//! | HTTPS port | Public Web Port | web port | 8443 |
//! | HTTP port | public port for HTTP | web port for HTTP | 9080 |

use lockstep_model::record::{AddressRecord, ServerRecord};

use crate::domain::address;

/// The web port for HTTPS while nobody set one.
pub const HTTPS_PORT: u16 = 8443;
/// The web port for HTTP while nobody set one.
pub const HTTP_PORT: u16 = 9080;

/// Where devices find a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// A host name or an address, without brackets.
    pub host: String,
    /// For HTTPS.
    pub https_port: u16,
    /// For HTTP.
    pub http_port: u16,
}

impl Reach {
    /// Of a server that announced `record`, and that people say `said` of.
    pub fn of(record: &ServerRecord, said: &AddressRecord) -> Self {
        let host = match (said.public_address.as_str(), said.host_name.as_str()) {
            ("", name) => stored_host(record, name),
            (public, _) => public,
        };
        Self {
            host: host.to_owned(),
            https_port: said.public_https_port.or(said.https_port).unwrap_or(HTTPS_PORT),
            http_port: said.public_http_port.or(said.http_port).unwrap_or(HTTP_PORT),
        }
    }
}

/// The host name that is stored for a server; the one that it announced, while nobody set one.
pub fn stored_host<'a>(record: &'a ServerRecord, said: &'a str) -> &'a str {
    if said.is_empty() { address::of_uri(&record.filesync) } else { said }
}
