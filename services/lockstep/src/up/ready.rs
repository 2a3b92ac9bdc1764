//! Waiting until every service of an installation says that it is ready.

use std::time::Duration;

use lockstep_chassis::{
    channel::{Channels, Lane},
    deadline,
    dial::TlsDial,
    status,
    tls::TlsIdentity,
};
use lockstep_model::Identity;
use tokio::time::{Instant, sleep};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Installation, Layout, installation::uri, lines::Lines};
use crate::problem::{Exit, Problem, Result};

/// Between two rounds of questions.
const INTERVAL: Duration = Duration::from_millis(100);
/// For one question.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Between two lines that say what is waited for.
const REMINDER: Duration = Duration::from_secs(10);

/// Waits until every service is ready.
pub(crate) async fn wait(layout: &Layout, installation: &Installation, lines: &Lines) -> Result<()> {
    let folder = layout.certificates("operator.local");
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let identity =
        TlsIdentity::load(&cert, &key, &layout.authority(), &installation.trust_domain).map_err(|error| {
            Problem::new(Exit::Failed, "could not use the local operator's certificate", error)
        })?;
    let channels = Channels::new(TlsDial::new(identity));
    let mut waiting = services(installation);
    let mut reminded = Instant::now();
    loop {
        let mut why = String::new();
        let mut still = Vec::new();
        for (name, port, identity) in waiting {
            if let Err(reason) = check(&channels, port, &identity).await {
                why = reason;
                still.push((name, port, identity));
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        waiting = still;
        if reminded.elapsed() >= REMINDER {
            reminded = Instant::now();
            let names: Vec<&str> = waiting.iter().map(|(name, ..)| name.as_str()).collect();
            lines.say(&format!("waiting for {}: {why}", names.join(", "))).await;
        }
        sleep(INTERVAL).await;
    }
}

fn services(installation: &Installation) -> Vec<(String, u16, Identity)> {
    let shared = [
        ("gateway", installation.gateway_port),
        ("catalog", installation.catalog_port),
        ("resolver", installation.resolver_port),
    ];
    let shared = shared.map(|(service, port)| (service.to_owned(), port, Identity::Service(service)));
    let own = installation.servers.iter().flat_map(|server| {
        [("filesync", server.filesync_port), ("timeguard", server.timeguard_port)].map(|(service, port)| {
            let identity = Identity::Server { server_id: server.id.clone(), service };
            (format!("{}.{service}", server.id), port, identity)
        })
    });
    shared.into_iter().chain(own).collect()
}

async fn check(channels: &Channels, port: u16, identity: &Identity) -> std::result::Result<(), String> {
    let mut health = HealthClient::new(channels.to(&uri(port), identity.clone(), Lane::Control));
    let question = HealthCheckRequest { service: String::new() };
    match deadline::within(ANSWER_MAX, health.check(question)).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
        Ok(Ok(_)) => Err("it runs, and is not ready".to_owned()),
        Ok(Err(status)) => Err(status::read(&status).message),
        Err(expired) => Err(expired.to_string()),
    }
}
