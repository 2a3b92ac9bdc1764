//! Who is calling. The identity is the SAN URI of a certificate, never an address.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::ServerId;

/// The five services, by the one word that each has everywhere.
pub const SERVICES: [&str; 5] = ["gateway", "filesync", "catalog", "resolver", "timeguard"];

/// The owner of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A service that belongs to a server: `filesync` or `timeguard`.
    Server {
        /// The server.
        server_id: ServerId,
        /// `filesync` or `timeguard`.
        service: &'static str,
    },
    /// A service that belongs to the installation: `gateway`, `catalog` or `resolver`.
    Service(&'static str),
    /// A person or a program outside.
    Operator(String),
}

/// The URI names nobody of this trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri} is no identity of the trust domain {trust_domain}")]
pub struct InvalidIdentity {
    uri: String,
    trust_domain: String,
}

impl Identity {
    /// Parses `spiffe://<trust_domain>/…`.
    ///
    /// # Errors
    /// [`InvalidIdentity`] for another trust domain or an unknown form.
    pub fn parse(uri: &str, trust_domain: &str) -> Result<Self, InvalidIdentity> {
        let invalid = || InvalidIdentity { uri: uri.to_owned(), trust_domain: trust_domain.to_owned() };
        let path = uri
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.strip_prefix(trust_domain))
            .ok_or_else(invalid)?;
        let parts: Vec<&str> = path.strip_prefix('/').ok_or_else(invalid)?.split('/').collect();
        let known = |name: &str| SERVICES.iter().copied().find(|service| *service == name);
        match parts.as_slice() {
            ["operator", name] if operator_name(name) => Ok(Self::Operator((*name).to_owned())),
            ["server", id, service] => match (id.parse(), known(service)) {
                (Ok(server_id), Some(service @ ("filesync" | "timeguard"))) => {
                    Ok(Self::Server { server_id, service })
                }
                _ => Err(invalid()),
            },
            [service] => match known(service) {
                Some(service @ ("gateway" | "catalog" | "resolver")) => Ok(Self::Service(service)),
                _ => Err(invalid()),
            },
            _ => Err(invalid()),
        }
    }

    /// The SAN URI in `trust_domain`.
    pub fn uri(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/{self}")
    }

    /// The service word, `None` for an operator.
    pub fn service(&self) -> Option<&'static str> {
        match self {
            Self::Server { service, .. } | Self::Service(service) => Some(service),
            Self::Operator(_) => None,
        }
    }
}

/// Lowercase letters, digits, `.`, `_`, `-` and `@`, 1 to 64 of them.
fn operator_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-@".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { server_id, service } => write!(f, "server/{server_id}/{service}"),
            Self::Service(service) => f.write_str(service),
            Self::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}

/// What an operator may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also registers and deletes.
    Publisher,
    /// Also starts and cancels runs, edits servers and settings.
    Operator,
    /// Also forgets servers, overrides a fence, accepts a changed history.
    Admin,
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "publisher" => Ok(Self::Publisher),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            _ => Err(InvalidRole),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// The text is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected viewer, publisher, operator or admin")]
pub struct InvalidRole;

/// On whose behalf a call is made, after authentication: the certificate's owner, or the principal that the gateway
/// passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The owner of the certificate at the other end of the connection.
    pub peer: Identity,
    /// Whose rights count.
    pub principal: Identity,
}

/// Who belongs to the installation: what the registry says about servers and operators. Implemented over the registry;
/// asked by the one layer that enforces rights.
pub trait Members: Clone + Send + Sync + 'static {
    /// The role of an operator, `None` for an unknown one; `Err` if the registry could not be asked.
    fn role(&self, operator: &str) -> impl Future<Output = Result<Option<Role>, MembersUnavailable>> + Send;

    /// Whether the server announced itself and is not forgotten.
    fn knows(&self, server: &ServerId) -> impl Future<Output = Result<bool, MembersUnavailable>> + Send;
}

/// The registry could not be asked, and nothing was remembered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the registry could not be asked who belongs to the installation: {cause}")]
pub struct MembersUnavailable {
    /// Why.
    pub cause: String,
}

impl crate::fault::Fault for MembersUnavailable {
    fn reason(&self) -> crate::fault::Reason {
        crate::fault::Reason::RegistryUnavailable
    }

    fn retry_after(&self) -> Option<std::time::Duration> {
        Some(std::time::Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_identities_of_the_trust_domain_are_known() {
        for good in
            ["gateway", "catalog", "resolver", "operator/local", "server/s1/filesync", "server/s1/timeguard"]
        {
            let uri = format!("spiffe://lockstep.test/{good}");
            assert_eq!(Identity::parse(&uri, "lockstep.test").expect(good).uri("lockstep.test"), uri);
        }
        for bad in [
            "filesync",
            "server/s1/gateway",
            "operator/",
            "operator/a/b",
            "server//filesync",
            "",
            "operator/A",
        ] {
            assert!(
                Identity::parse(&format!("spiffe://lockstep.test/{bad}"), "lockstep.test").is_err(),
                "{bad}"
            );
        }
        assert!(Identity::parse("spiffe://lockstep.test.evil/gateway", "lockstep.test").is_err());
        assert!(Identity::parse("spiffe://other/gateway", "lockstep.test").is_err());
    }
}
