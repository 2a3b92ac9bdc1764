//! Between the contract and the domain.

use lockstep_proto::resolver::v1::{self as wire, verdict};
use lockstep_replicas::wire::{failure, number, position};

use crate::{
    domain::explain::{Outcome, Verdict},
    engine::{resolver::Opened, servers::Described},
};

impl Opened {
    /// For the contract.
    pub fn into_wire(self) -> wire::ResolveConnectionResponse {
        let Self { connection, password, verdicts, position: at } = self;
        let uri = connection.uri();
        let connection = wire::Connection {
            protocol: connection.scheme.to_owned(),
            host: connection.host,
            port: connection.port.into(),
            path: connection.path,
            user: connection.login.user.clone(),
            password,
            uri,
            server_id: connection.server.map_or_else(String::new, String::from),
        };
        wire::ResolveConnectionResponse {
            connection: Some(connection),
            verdicts: verdicts.into_iter().map(Verdict::into_wire).collect(),
            position: Some(position(at)),
        }
    }
}

impl Verdict {
    /// For the contract.
    pub fn into_wire(self) -> wire::Verdict {
        let (state, cause) = match self.outcome {
            Outcome::Chosen => (verdict::State::Chosen, None),
            Outcome::PassedOver => (verdict::State::PassedOver, None),
            Outcome::Excluded(cause) => (verdict::State::Excluded, Some(cause)),
        };
        wire::Verdict {
            server_id: self.id.into(),
            state: state.into(),
            message: self.message,
            failure: cause.map(|cause| failure(cause, None)),
            rank_index: i32::try_from(self.rank).unwrap_or(i32::MAX),
        }
    }
}

impl Described {
    /// For the contract.
    pub fn into_wire(self) -> wire::Server {
        let Self { id, revision, said, host_name, https_port, http_port } = self;
        wire::Server {
            server_id: id.into(),
            revision: number(revision.0),
            display_name: said.display_name,
            site: said.site,
            host_name,
            https_port: Some(https_port.into()),
            http_port: Some(http_port.into()),
            public_address: said.public_address,
            public_https_port: said.public_https_port.map(i32::from),
            public_http_port: said.public_http_port.map(i32::from),
        }
    }
}
