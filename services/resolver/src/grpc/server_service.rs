//! `ServerService`: what people say of servers.

use std::collections::BTreeSet;

use lockstep_chassis::{
    Fields, OrStatus as _, caller,
    paging::{PageToken, page_size},
    trace,
};
use lockstep_model::{RequestId, Revision, ServerId};
use lockstep_proto::resolver::v1::{
    ListServersRequest, ListServersResponse, Server, UpdateServerRequest, UpdateServerResponse,
    server_service_server::ServerService,
};
use lockstep_registry::Registry;
use tonic::{Request, Response};

use crate::{
    domain::{
        address::HostName,
        edit::{self, Assignment, DISPLAY_NAME_CHARACTERS_MAX, SITE_CHARACTERS_MAX},
    },
    engine::servers::{Ask, Described, Servers},
};

/// The name that binds tokens to the call that made them.
const SERVERS: &str = "resolver servers";
/// The fields that can be changed.
const FIELDS: &str = "display_name, site, host_name, https_port, http_port, public_address, public_https_port, public_http_port";

/// What people say of servers, for the contract.
#[derive(Clone, Debug)]
pub struct ServerDescriptions<R> {
    servers: Servers<R>,
}

impl<R: Registry> ServerDescriptions<R> {
    /// Serves `servers`.
    pub fn new(servers: Servers<R>) -> Self {
        Self { servers }
    }
}

#[tonic::async_trait]
impl<R: Registry> ServerService for ServerDescriptions<R> {
    async fn list_servers(
        &self,
        request: Request<ListServersRequest>,
    ) -> tonic::Result<Response<ListServersResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = fields.take(page_size(fields.request().page_size));
        let token = fields.request().page_token.clone();
        let size = fields.finish(size)?;
        let after = match token.is_empty() {
            true => String::new(),
            false => PageToken::open(&token, &[SERVERS]).or_status()?,
        };

        let (page, more) = self.servers.list(&after, size).or_status()?;
        let last = page.last().filter(|_| more);
        let next_page_token =
            last.map_or_else(String::new, |last| PageToken::seal(last.id.as_str(), &[SERVERS]));
        let servers = page.into_iter().map(Described::into_wire).collect();
        Ok(Response::new(ListServersResponse { servers, next_page_token }))
    }

    async fn update_server(
        &self,
        request: Request<UpdateServerRequest>,
    ) -> tonic::Result<Response<UpdateServerResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let ask = ask(&mut fields, caller);
        let ask = fields.finish(ask)?;

        let described = self.servers.update(ask).await.or_status()?;
        Ok(Response::new(UpdateServerResponse { server: Some(described.into_wire()) }))
    }
}

fn ask(fields: &mut Fields<UpdateServerRequest>, caller: String) -> Option<Ask> {
    let server = fields.request().server.clone();
    let server = fields.required("server", server)?;
    let id = fields.parse_text::<ServerId>("server.server_id", &server.server_id);
    let request_id = fields.parse::<RequestId>("request_id", |r| &r.request_id);
    let expected = u64::try_from(fields.request().expected_revision).map(Revision).ok();
    if expected.is_none() {
        fields.violation("expected_revision", "must not be negative");
    }
    let mask = fields.request().update_mask.clone().unwrap_or_default();
    // A field that is named twice is one field.
    let names: BTreeSet<String> = mask.paths.into_iter().collect();
    if names.is_empty() {
        fields.violation("update_mask", format!("must name at least one of {FIELDS}"));
    }
    let assignments: Vec<Assignment> =
        names.iter().filter_map(|name| assignment(fields, &server, name)).collect();
    let traceparent = trace::traceparent();
    Some(Ask { caller, request_id: request_id?, server: id?, expected: expected?, assignments, traceparent })
}

fn assignment(fields: &mut Fields<UpdateServerRequest>, server: &Server, name: &str) -> Option<Assignment> {
    let field = format!("server.{name}");
    match name {
        "display_name" => text(fields, field, &server.display_name, DISPLAY_NAME_CHARACTERS_MAX)
            .map(Assignment::DisplayName),
        "site" => text(fields, field, &server.site, SITE_CHARACTERS_MAX).map(Assignment::Site),
        "host_name" => host(fields, field, &server.host_name).map(Assignment::HostName),
        "https_port" => port(fields, field, server.https_port).map(Assignment::HttpsPort),
        "http_port" => port(fields, field, server.http_port).map(Assignment::HttpPort),
        "public_address" => host(fields, field, &server.public_address).map(Assignment::PublicAddress),
        "public_https_port" => port(fields, field, server.public_https_port).map(Assignment::PublicHttpsPort),
        "public_http_port" => port(fields, field, server.public_http_port).map(Assignment::PublicHttpPort),
        _ => {
            fields.violation("update_mask", format!("names {name:?}, which is none of {FIELDS}"));
            None
        }
    }
}

fn text<T>(fields: &mut Fields<T>, field: String, value: &str, characters_max: usize) -> Option<String> {
    if edit::is_fit(value, characters_max) {
        return Some(value.to_owned());
    }
    let must = "characters, without spaces around it, and none that control a terminal";
    fields.violation(field, format!("must have at most {characters_max} {must}"));
    None
}

fn host<T>(fields: &mut Fields<T>, field: String, value: &str) -> Option<Option<HostName>> {
    if value.is_empty() { Some(None) } else { fields.parse_text(field, value).map(Some) }
}

fn port<T>(fields: &mut Fields<T>, field: String, value: Option<i32>) -> Option<Option<u16>> {
    let Some(number) = value else { return Some(None) };
    let port = edit::port(number);
    if port.is_none() {
        fields.violation(field, "must be 1 to 65535, or absent for none");
    }
    port.map(Some)
}
