//! Which process answers a call that came through the one door.
//!
//! `/lockstep.<service>.v1.<Service>/<Method>` goes to that service, by the word in its package; no RPC is declared here
//! again. filesync and timeguard belong to a server: the caller names it, or the contract says that any will do.

use std::time::Duration;

use lockstep_model::{Fault, Metadata, Reason, ServerId};

use crate::domain::view::View;

/// How many servers are tried for a call that any can answer.
const CANDIDATES_MAX: usize = 3;

/// A call, as far as routing looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The path of the request.
    pub path: &'a str,
    /// The server that the caller named.
    pub server: Option<&'a str>,
    /// Whether any ready server gives the same answer; `None` for an RPC that this version does not know.
    pub any_server: Option<bool>,
    /// Spreads calls that any server can answer.
    pub turn: usize,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the service of one of these servers, the best first, each with its address.
    Servers(&'static str, Vec<(ServerId, String)>),
    /// To any instance of a service that belongs to the installation.
    Service(&'static str),
}

/// Why a call goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No service has it.
    #[error("{method} is not an RPC that this gateway can route")]
    Unimplemented {
        /// The RPC.
        method: String,
    },
    /// A call that concerns one server did not say which.
    #[error("{method} concerns one server: name it in the metadata key lockstep-server, one of {servers}")]
    ServerRequired {
        /// The RPC.
        method: String,
        /// The servers, separated by commas.
        servers: String,
    },
    /// No such server.
    #[error("no server {server}, there are {servers}")]
    ServerUnknown {
        /// What the caller named.
        server: String,
        /// The servers, separated by commas.
        servers: String,
    },
    /// The service is not there, or does not answer.
    #[error("{peer} cannot be reached: {cause}")]
    Unreachable {
        /// The service, with its server.
        peer: String,
        /// Why.
        cause: String,
    },
    /// The registry was not read yet, so no server is known.
    #[error("the registry was not read yet, so no server is known")]
    Unread,
}

impl Fault for RouteError {
    fn reason(&self) -> Reason {
        match self {
            Self::Unimplemented { .. } => Reason::Unimplemented,
            Self::ServerRequired { .. } => Reason::ServerRequired,
            Self::ServerUnknown { .. } => Reason::ServerUnknown,
            Self::Unreachable { .. } => Reason::PeerUnreachable,
            Self::Unread => Reason::RegistryUnavailable,
        }
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::Unimplemented { method } => vec![("method", method.clone())],
            Self::ServerRequired { method, servers } => {
                vec![("method", method.clone()), ("servers", servers.clone())]
            }
            Self::ServerUnknown { server, servers } => {
                vec![("server_id", server.clone()), ("servers", servers.clone())]
            }
            Self::Unreachable { peer, cause } => vec![("peer", peer.clone()), ("cause", cause.clone())],
            Self::Unread => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Unread).then_some(Duration::from_secs(1))
    }

    fn resource(&self) -> Option<(&'static str, String)> {
        match self {
            Self::ServerUnknown { server, .. } => Some(("server", server.clone())),
            _ => None,
        }
    }
}

/// The service that `path` names by its package, and `package.Service/Method`.
fn parse(path: &str) -> Option<(&'static str, &str)> {
    let method = path.strip_prefix('/')?;
    let (service, name) = method.split_once('/')?;
    let (package, _) = service.rsplit_once('.')?;
    let word = package.strip_prefix("lockstep.")?.strip_suffix(".v1")?;
    // Calls go down: what this gateway does not answer itself is no one else's.
    let known = ["filesync", "timeguard", "catalog", "resolver"].into_iter().find(|known| *known == word)?;
    (!name.is_empty() && !name.contains('/')).then_some((known, method))
}

/// Decides where `call` goes.
///
/// # Errors
/// [`RouteError`], except [`RouteError::Unreachable`] for servers that are known.
pub fn route(view: &View, call: Call<'_>) -> Result<Route, RouteError> {
    let unimplemented = |method: &str| RouteError::Unimplemented { method: method.to_owned() };
    let Some((service, method)) = parse(call.path) else {
        return Err(unimplemented(call.path.trim_start_matches('/')));
    };
    if service == "catalog" || service == "resolver" {
        return Ok(Route::Service(service));
    }
    let address = |id: &ServerId| -> Option<String> {
        let record = &view.server(id)?.record;
        Some(if service == "filesync" { record.filesync.clone() } else { record.timeguard.clone() })
    };
    match (call.server, call.any_server) {
        // A newer server may have RPCs that this gateway does not know; its name is enough to ask it (R18).
        (None, None) => Err(unimplemented(method)),
        _ if view.position().is_none() => Err(RouteError::Unread),
        (Some(named), _) => {
            let unknown = || RouteError::ServerUnknown { server: named.to_owned(), servers: listed(view) };
            let id: ServerId = named.parse().map_err(|_| unknown())?;
            let uri = address(&id).ok_or_else(unknown)?;
            if uri.is_empty() {
                let cause = "the server has not announced an address for it".to_owned();
                return Err(RouteError::Unreachable { peer: format!("{service} of {id}"), cause });
            }
            Ok(Route::Servers(service, vec![(id, uri)]))
        }
        (None, Some(false)) => {
            Err(RouteError::ServerRequired { method: method.to_owned(), servers: listed(view) })
        }
        (None, Some(true)) => {
            let candidates = candidates(view, call.turn);
            let addressed =
                candidates.into_iter().filter_map(|id| Some((address(&id).filter(|u| !u.is_empty())?, id)));
            let addressed: Vec<_> = addressed.map(|(uri, id)| (id, uri)).take(CANDIDATES_MAX).collect();
            match addressed.is_empty() {
                true => {
                    let cause = "no server has announced itself".to_owned();
                    Err(RouteError::Unreachable { peer: service.to_owned(), cause })
                }
                false => Ok(Route::Servers(service, addressed)),
            }
        }
    }
}

/// Servers that report come first, each in turn; those that take no part come last.
fn candidates(view: &View, turn: usize) -> Vec<ServerId> {
    let rank = |id: &ServerId| match view.server(id) {
        Some(server) if server.excluded.is_some() => 2,
        Some(server) if server.reachable() => 0,
        _ => 1,
    };
    let mut ids: Vec<ServerId> = view.servers().map(|(id, _)| id.clone()).collect();
    if !ids.is_empty() {
        let by = turn % ids.len();
        ids.rotate_left(by);
    }
    ids.sort_by_key(rank);
    ids
}

fn listed(view: &View) -> String {
    let ids: Vec<&str> = view.servers().map(|(id, _)| id.as_str()).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(",") }
}

#[cfg(test)]
mod tests {
    use lockstep_model::Revision;
    use lockstep_replicas::Live as _;

    use super::*;
    use crate::domain::{
        records::{Change, Records},
        samples::{announcement, position, report_at, server_id, snapshot},
    };

    const GET: &str = "/lockstep.filesync.v1.FileService/GetFile";

    fn view() -> View {
        let mut records = Records::at(position(3));
        for id in ["s1", "s2", "s3"] {
            let record = Box::new(announcement("distributed", "12.04.100"));
            records.apply(Revision(1), Change::Server(server_id(id), Some(record)));
        }
        let mut view = View::default();
        view.adopt(records, crate::domain::Moment::ZERO);
        view.receive(&server_id("s2"), snapshot(report_at(3)));
        view
    }

    fn asked(path: &str, server: Option<&str>, any_server: Option<bool>) -> Result<Vec<String>, Reason> {
        let call = Call { path, server, any_server, turn: 0 };
        match route(&view(), call) {
            Ok(Route::Servers(service, ids)) => {
                Ok(ids.into_iter().map(|(id, _)| format!("{service} {id}")).collect())
            }
            Ok(Route::Service(service)) => Ok(vec![service.to_owned()]),
            Err(error) => Err(error.reason()),
        }
    }

    type Case = (&'static str, Option<&'static str>, Option<bool>, Result<Vec<&'static str>, Reason>);

    #[test]
    fn calls_go_where_their_package_says() {
        let upload = "/lockstep.filesync.v1.UploadService/WriteUpload";
        let cases: [Case; 13] = [
            (GET, Some("s1"), Some(true), Ok(vec!["filesync s1"])),
            (GET, None, Some(true), Ok(vec!["filesync s2", "filesync s1", "filesync s3"])),
            (upload, Some("s3"), Some(false), Ok(vec!["filesync s3"])),
            (upload, None, Some(false), Err(Reason::ServerRequired)),
            (upload, Some("s9"), Some(false), Err(Reason::ServerUnknown)),
            (upload, Some("../s1"), Some(false), Err(Reason::ServerUnknown)),
            ("/lockstep.filesync.v1.New/Rpc", Some("s1"), None, Ok(vec!["filesync s1"])),
            ("/lockstep.filesync.v1.New/Rpc", None, None, Err(Reason::Unimplemented)),
            ("/lockstep.timeguard.v1.Clock/Get", Some("s1"), None, Err(Reason::PeerUnreachable)),
            ("/lockstep.catalog.v1.Firmware/Get", None, None, Ok(vec!["catalog"])),
            ("/lockstep.gateway.v1.MatrixService/Nothing", Some("s1"), None, Err(Reason::Unimplemented)),
            ("/lockstep.filesync.v1.FileService/", Some("s1"), None, Err(Reason::Unimplemented)),
            ("/other.v1.Service/Method", Some("s1"), None, Err(Reason::Unimplemented)),
        ];
        for (path, server, any_server, expected) in cases {
            let expected = expected.map(|targets| targets.into_iter().map(str::to_owned).collect());
            assert_eq!(asked(path, server, any_server), expected, "{path} {server:?}");
        }
        let call = Call { path: GET, server: None, any_server: Some(false), turn: 0 };
        let error = route(&view(), call).expect_err("no server is named");
        assert!(error.to_string().ends_with("s1,s2,s3"), "{error}");
        assert_eq!(route(&View::default(), call), Err(RouteError::Unread));
    }
}
