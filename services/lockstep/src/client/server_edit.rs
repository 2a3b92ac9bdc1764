//! `lockstep server edit`: what people say of a server.

use lockstep_model::clock::{Entropy as _, SystemEntropy};
use lockstep_proto::resolver::v1::{ListServersRequest, Server, UpdateServerRequest};
use prost_types::FieldMask;

use super::{
    connect::{self, Session},
    shape,
};
use crate::{
    cli::{EditArgs, Format, PortWord, Seen},
    out,
    problem::{Problem, Result},
};

/// Servers in a page.
const PAGE_SIZE: i32 = 500;

/// Changes what was named on the command line.
pub(crate) async fn run(session: &Session, format: Format, args: EditArgs) -> Result<()> {
    let what = format!("could not change server {}", args.id);
    let expected_revision = match args.revision {
        Seen::At(revision) => revision,
        Seen::Current => current(session, &args.id, &what).await?,
    };
    let (server, paths) = named(args);
    let request = UpdateServerRequest {
        server: Some(server),
        update_mask: Some(FieldMask { paths }),
        expected_revision,
        request_id: SystemEntropy.uuid().to_string(),
    };
    let answer = connect::change(|| {
        let (mut descriptions, request) = (session.server_descriptions(), request.clone());
        async move { descriptions.update_server(request).await }
    });
    let answer = answer.await.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
    let server = answer.server.unwrap_or_default();
    match format {
        Format::Json => out::json(&shape::DescribedServer::of(&server)),
        Format::Text => out::text(&text(&server)),
    }
}

/// The revision of what is said of the server; 0 for one that is not listed, which the change then says itself.
async fn current(session: &Session, id: &str, what: &str) -> Result<i64> {
    let mut page_token = String::new();
    loop {
        let request = ListServersRequest { page_size: PAGE_SIZE, page_token };
        let mut descriptions = session.server_descriptions();
        let page = connect::read(descriptions.list_servers(request)).await;
        let page = page.map_err(|failure| Problem::call(what, session.gateway(), &failure))?;
        if let Some(server) = page.servers.iter().find(|server| server.server_id == id) {
            return Ok(server.revision);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(0);
        }
    }
}

/// The fields that were named, and their names in the contract.
fn named(args: EditArgs) -> (Server, Vec<String>) {
    let mut paths = Vec::new();
    let mut text = |name: &str, value: Option<String>| {
        paths.extend(value.is_some().then(|| name.to_owned()));
        value.unwrap_or_default()
    };
    let (display_name, site) = (text("display_name", args.display_name), text("site", args.site));
    let (host_name, public_address) =
        (text("host_name", args.host), text("public_address", args.public_address));
    let mut port = |name: &str, value: Option<PortWord>| {
        paths.extend(value.is_some().then(|| name.to_owned()));
        value.and_then(|PortWord(port)| port)
    };
    let server = Server {
        server_id: args.id,
        revision: 0,
        display_name,
        site,
        host_name,
        public_address,
        https_port: port("https_port", args.https_port),
        http_port: port("http_port", args.http_port),
        public_https_port: port("public_https_port", args.public_https_port),
        public_http_port: port("public_http_port", args.public_http_port),
    };
    (server, paths)
}

fn text(server: &Server) -> String {
    let or = |first: Option<i32>, second: Option<i32>| first.or(second).unwrap_or_default();
    let host = if server.public_address.is_empty() { &server.host_name } else { &server.public_address };
    let mut lines =
        vec![format!("changed {}, at revision {}", out::escaped(&server.server_id), server.revision)];
    let mut add = |label: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("  {label:<8} {}", out::escaped(value)));
        }
    };
    add("name", &server.display_name);
    add("site", &server.site);
    add(
        "devices",
        &format!(
            "{host}, HTTPS {}, HTTP {}",
            or(server.public_https_port, server.https_port),
            or(server.public_http_port, server.http_port)
        ),
    );
    lines.join("\n")
}
