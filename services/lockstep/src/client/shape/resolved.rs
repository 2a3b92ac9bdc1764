//! The documents of `resolve` and `server edit`.

use lockstep_proto::resolver::v1::{self as resolver, verdict};
use serde::Serialize;

use super::{Failure, word};

/// `resolve`.
#[derive(Serialize)]
pub(crate) struct Resolved<'a> {
    connection: Connection<'a>,
    verdicts: Vec<Verdict<'a>>,
    registry_revision: i64,
}

impl<'a> Resolved<'a> {
    /// From the wire.
    pub(crate) fn of(answer: &'a resolver::ResolveConnectionResponse) -> Self {
        Self {
            connection: Connection::of(answer.connection.as_ref()),
            verdicts: answer.verdicts.iter().map(Verdict::of).collect(),
            registry_revision: answer.position.as_ref().map_or(0, |position| position.revision),
        }
    }
}

/// What a device needs.
#[derive(Serialize, Default)]
struct Connection<'a> {
    protocol: &'a str,
    host: &'a str,
    port: i32,
    path: &'a str,
    user: &'a str,
    password: &'a str,
    uri: &'a str,
    server_id: &'a str,
}

impl<'a> Connection<'a> {
    fn of(connection: Option<&'a resolver::Connection>) -> Self {
        let Some(connection) = connection else { return Self::default() };
        Self {
            protocol: &connection.protocol,
            host: &connection.host,
            port: connection.port,
            path: &connection.path,
            user: &connection.user,
            password: &connection.password,
            uri: &connection.uri,
            server_id: &connection.server_id,
        }
    }
}

/// Why a server was chosen or passed over.
#[derive(Serialize)]
struct Verdict<'a> {
    server_id: &'a str,
    state: String,
    message: &'a str,
    failure: Option<Failure<'a>>,
    rank_index: i32,
}

impl<'a> Verdict<'a> {
    fn of(verdict: &'a resolver::Verdict) -> Self {
        Self {
            server_id: &verdict.server_id,
            state: verdict_state(verdict),
            message: &verdict.message,
            failure: verdict.failure.as_ref().map(Failure::of),
            rank_index: verdict.rank_index,
        }
    }
}

/// What came of a server, as a word.
pub(crate) fn verdict_state(verdict: &resolver::Verdict) -> String {
    word(verdict::State::try_from(verdict.state).map(|state| state.as_str_name()), "STATE_")
}

/// `server edit`.
#[derive(Serialize)]
pub(crate) struct DescribedServer<'a> {
    server_id: &'a str,
    revision: i64,
    display_name: &'a str,
    site: &'a str,
    host_name: &'a str,
    https_port: Option<i32>,
    http_port: Option<i32>,
    public_address: &'a str,
    public_https_port: Option<i32>,
    public_http_port: Option<i32>,
}

impl<'a> DescribedServer<'a> {
    /// From the wire.
    pub(crate) fn of(server: &'a resolver::Server) -> Self {
        Self {
            server_id: &server.server_id,
            revision: server.revision,
            display_name: &server.display_name,
            site: &server.site,
            host_name: &server.host_name,
            https_port: server.https_port,
            http_port: server.http_port,
            public_address: &server.public_address,
            public_https_port: server.public_https_port,
            public_http_port: server.public_http_port,
        }
    }
}
