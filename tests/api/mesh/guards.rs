//! The timeguard beside each server.

use std::time::Duration;

use lockstep_model::Identity;

use super::{Caller, Lane, Mesh, Running, keep, of_server, run};

impl Mesh {
    /// Where the timeguard of a server answers; it is started at the first start of its server, and goes on from then on.
    pub(super) async fn guard_uri(&mut self, server: &str) -> String {
        if !self.guards.contains_key(server) {
            let process = self.process(of_server(server, "timeguard"), &["registry"], 0).await;
            let config = timeguard::Config {
                server_id: server.parse().expect("a server id"),
                registry: self.location(),
                state: self.path(&format!("{server}/clock")),
                limit: Duration::from_secs(60),
                step_min: Duration::from_secs(1),
                ntp: Vec::new(),
                kernel: lockstep_chassis::Switch::Off,
            };
            let running = keep(&process);
            run(&running.drain, timeguard::run(config, process));
            self.guards.insert(server.to_owned(), running);
        }
        self.guards[server].uri()
    }

    /// `identity` in front of the timeguard of a server.
    pub(crate) fn caller_at_guard(&self, server: &str, identity: &Identity) -> Caller {
        let guard: &Running = &self.guards[server];
        Caller { channel: self.channels(identity).to(&guard.uri(), guard.identity.clone(), Lane::Control) }
    }
}
