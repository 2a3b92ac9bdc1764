//! Who calls, on whose behalf, and whether they may. The one layer that enforces the rights of the contract.

use http::HeaderMap;
use lockstep_model::{
    Caller, Fault, Identity, Metadata, Reason, Role, ServerId,
    identity::{Members, MembersUnavailable},
};

use crate::rights::{Method, Rights};

/// The metadata key by which the gateway passes on the principal that it authenticated.
pub const PRINCIPAL_KEY: &str = "lockstep-principal";
/// The metadata key by which a caller names the server it means.
pub const SERVER_KEY: &str = "lockstep-server";

/// The caller of a request, as authentication found it.
///
/// # Panics
/// If the request did not come through an [`crate::serve::App`], which no request of a client can achieve.
pub fn caller<T>(request: &tonic::Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().expect("authentication is a layer of every App")
}

/// Why a call was refused before its handler.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{identity} is not known here")]
    Unknown { identity: String },
    #[error("{principal} may not call {method}, which needs {right}")]
    Denied { principal: Identity, method: String, right: String },
    #[error(transparent)]
    Unavailable(#[from] MembersUnavailable),
}

impl Fault for Refused {
    fn reason(&self) -> Reason {
        match self {
            Self::Unknown { .. } => Reason::IdentityUnknown,
            Self::Denied { .. } => Reason::PermissionDenied,
            Self::Unavailable(fault) => fault.reason(),
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::Unknown { identity } => vec![("identity", identity.clone())],
            Self::Denied { principal, right, .. } => {
                vec![("principal", principal.to_string()), ("right", right.clone())]
            }
            Self::Unavailable(fault) => fault.metadata(),
        }
    }

    fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Unavailable(fault) => fault.retry_after(),
            _ => None,
        }
    }
}

/// The gate in front of the handlers.
#[derive(Clone)]
pub(crate) struct Gate<M> {
    pub(crate) members: M,
    /// The server that this process belongs to, for rights of the form `own/<service>`.
    pub(crate) own_server: Option<ServerId>,
}

impl<M: Members> Gate<M> {
    /// The caller, if they are who they say. What others than the gateway say about a principal is removed.
    pub(crate) async fn authenticate(
        &self,
        peer: Option<Identity>,
        method: Option<&Method>,
        headers: &mut HeaderMap,
    ) -> Result<Caller, Refused> {
        let Some(peer) = peer else {
            return Err(Refused::Unknown { identity: "a connection without a certificate".to_owned() });
        };
        let passed_on = if peer == Identity::Service("gateway") {
            headers.get(PRINCIPAL_KEY).map(principal).transpose()?
        } else {
            headers.remove(PRINCIPAL_KEY);
            None
        };
        // Health must not depend on the registry, and reflection is for whoever has a certificate.
        if !method.is_some_and(Method::is_open) {
            self.check_known(&peer).await?;
            if let Some(principal) = &passed_on {
                self.check_known(principal).await?;
            }
        }
        let principal = passed_on.unwrap_or_else(|| peer.clone());
        Ok(Caller { peer, principal })
    }

    /// A server that is not, or no longer, a member has a valid certificate and yet no business here.
    async fn check_known(&self, identity: &Identity) -> Result<(), Refused> {
        match identity {
            Identity::Server { server_id, .. } if self.own_server.as_ref() != Some(server_id) => {
                match self.members.knows(server_id).await? {
                    true => Ok(()),
                    false => Err(Refused::Unknown { identity: identity.to_string() }),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether the principal has the right that `method` needs. Denied by default.
    pub(crate) async fn authorize(&self, caller: &Caller, method: &Method) -> Result<(), Refused> {
        if method.is_open() {
            return Ok(());
        }
        let denied = || Refused::Denied {
            principal: caller.principal.clone(),
            method: method.name.clone(),
            right: method.rights.as_ref().map_or_else(|| "a right nobody has".to_owned(), describe),
        };
        let rights = method.rights.as_ref().ok_or_else(denied)?;
        let allowed = match &caller.principal {
            Identity::Operator(name) => match (self.members.role(name).await?, rights.role) {
                (None, _) => return Err(Refused::Unknown { identity: caller.principal.to_string() }),
                (Some(role), Some(least)) => role >= least,
                (Some(_), None) => false,
            },
            Identity::Service(service) => names(rights, service),
            Identity::Server { server_id, service } => {
                names(rights, service)
                    || (self.own_server.as_ref() == Some(server_id)
                        && names(rights, &format!("own/{service}")))
            }
        };
        if allowed { Ok(()) } else { Err(denied()) }
    }
}

fn names(rights: &Rights, service: &str) -> bool {
    rights.services.iter().any(|allowed| allowed == service)
}

/// The principal that the gateway names: the path of an identity, such as `operator/anna`.
fn principal(value: &http::HeaderValue) -> Result<Identity, Refused> {
    let text = String::from_utf8_lossy(value.as_bytes());
    // Identities name no trust domain on the wire between our services; any word does for parsing.
    Identity::parse(&format!("spiffe://-/{text}"), "-")
        .map_err(|_| Refused::Unknown { identity: crate::text::cut(&text, 256) })
}

fn describe(rights: &Rights) -> String {
    let role = rights.role.as_ref().map(|role: &Role| format!("the role {role}"));
    let services =
        (!rights.services.is_empty()).then(|| format!("a service of {}", rights.services.join(", ")));
    let parts: Vec<String> = role.into_iter().chain(services).collect();
    if parts.is_empty() { "a right nobody has".to_owned() } else { parts.join(" or ") }
}
