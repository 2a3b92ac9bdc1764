//! What is chosen once for a data directory, and kept: `installation.toml`.

use std::{fs, io, time::Duration};

use lockstep_model::ServerId;
use serde::{Deserialize, Serialize};

use super::{
    Layout,
    layout::replace,
    ports::{self, Chooser},
};
use crate::problem::{Exit, Problem, Result};

/// Where people find the gateway if nobody says otherwise.
pub(crate) const GATEWAY_PORT: u16 = 7443;
/// The trust domain if nobody says otherwise.
pub(crate) const TRUST_DOMAIN: &str = "lockstep.local";
/// Servers if nobody says otherwise.
const SERVERS: u8 = 3;
/// The version of the file.
const FORMAT: u32 = 1;

/// The addresses and identities of an installation on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Installation {
    format: u32,
    /// The root of all identities.
    pub(crate) trust_domain: String,
    /// Where the gateway listens.
    pub(crate) gateway_port: u16,
    /// Where the catalog listens.
    pub(crate) catalog_port: u16,
    /// Where the resolver listens.
    pub(crate) resolver_port: u16,
    /// The servers, `s1` first.
    pub(crate) servers: Vec<Server>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// Its id.
    pub(crate) id: ServerId,
    /// Where its filesync listens.
    pub(crate) filesync_port: u16,
    /// Where its timeguard listens.
    pub(crate) timeguard_port: u16,
}

impl Installation {
    /// Reads what was chosen; `None` if there is no installation.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.installation();
        let what = "could not read the installation";
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Problem::io(what, path.display(), &error)),
        };
        let read: Self = toml::from_str(&text)
            .map_err(|error| Problem::new(Exit::Unavailable, what, error.message()).at(path.display()))?;
        if read.format != FORMAT {
            let why = format!("it has format {}, this program knows {FORMAT}", read.format);
            return Err(Problem::new(Exit::Unavailable, what, why).at(path.display()));
        }
        Ok(Some(read))
    }

    /// Reads what was chosen, chooses what is new, checks that every port is free, and keeps it.
    pub(crate) async fn prepare(
        layout: &Layout,
        servers: Option<u8>,
        gateway_port: Option<u16>,
        trust_domain: Option<&str>,
    ) -> Result<Self> {
        let what = "could not start the installation";
        let kept = Self::load(layout)?;
        let is_kept = kept.is_some();
        let no_port = |error: io::Error| Problem::io(what, "the ports of this machine", &error);
        let mut installation = match kept {
            Some(kept) => kept,
            None => Self::choose(gateway_port, trust_domain).map_err(no_port)?,
        };
        if let Some(port) = gateway_port.filter(|port| *port != 0) {
            installation.gateway_port = port;
        }
        let wanted = usize::from(servers.unwrap_or(SERVERS));
        if is_kept && servers.is_some() && wanted < installation.servers.len() {
            let why =
                format!("it has {} servers, and an installation only grows", installation.servers.len());
            return Err(Problem::new(Exit::Usage, what, why).at(layout.data().display()).advise(format!(
                "leave out --servers, or say --servers {} or more",
                installation.servers.len()
            )));
        }
        if !is_kept || servers.is_some() {
            installation.grow(wanted).map_err(no_port)?;
        }
        let patience = if is_kept { ports::RELEASE_MAX } else { Duration::ZERO };
        for (name, port) in installation.ports() {
            ports::released(port, patience).await.map_err(|error| {
                Problem::new(
                    Exit::Unavailable,
                    what,
                    format!("port {port} of {name} cannot be used: {error}"),
                )
                .at(layout.data().display())
                .advise(if name == "gateway" {
                    "stop what listens there, or choose another port with --gateway-port".to_owned()
                } else {
                    format!(
                        "stop what listens there, or change the port in {}",
                        layout.installation().display()
                    )
                })
            })?;
        }
        installation.save(layout)?;
        Ok(installation)
    }

    fn choose(gateway_port: Option<u16>, trust_domain: Option<&str>) -> io::Result<Self> {
        let mut chooser = Chooser::new(Vec::new());
        let gateway_port = match gateway_port.unwrap_or(GATEWAY_PORT) {
            0 => chooser.choose()?,
            port => port,
        };
        Ok(Self {
            format: FORMAT,
            trust_domain: trust_domain.unwrap_or(TRUST_DOMAIN).to_owned(),
            gateway_port,
            catalog_port: chooser.choose()?,
            resolver_port: chooser.choose()?,
            servers: Vec::new(),
        })
    }

    fn grow(&mut self, wanted: usize) -> io::Result<()> {
        let mut chooser = Chooser::new(self.ports().into_iter().map(|(_, port)| port).collect());
        for number in self.servers.len() + 1..=wanted {
            let id = format!("s{number}").parse().expect("a letter and a number are a server id");
            self.servers.push(Server {
                id,
                filesync_port: chooser.choose()?,
                timeguard_port: chooser.choose()?,
            });
        }
        Ok(())
    }

    fn save(&self, layout: &Layout) -> Result<()> {
        let path = layout.installation();
        let text = toml::to_string(self).map_err(|error| {
            Problem::new(Exit::Failed, "could not keep the installation", error).at(path.display())
        })?;
        let text = format!(
            "# Made by `lockstep up`; chosen once, so that the directory can be started again.\n{text}"
        );
        replace(&path, &text)
            .map_err(|error| Problem::io("could not keep the installation", path.display(), &error))
    }

    /// Every port with the name of the child that listens on it.
    pub(crate) fn ports(&self) -> Vec<(String, u16)> {
        let shared = [
            ("gateway".to_owned(), self.gateway_port),
            ("catalog".to_owned(), self.catalog_port),
            ("resolver".to_owned(), self.resolver_port),
        ];
        let own = self.servers.iter().flat_map(|server| {
            let (id, filesync, timeguard) = (&server.id, server.filesync_port, server.timeguard_port);
            [(format!("{id}.filesync"), filesync), (format!("{id}.timeguard"), timeguard)]
        });
        shared.into_iter().chain(own).collect()
    }

    /// Where people find the gateway.
    pub(crate) fn gateway_uri(&self) -> String {
        uri(self.gateway_port)
    }
}

/// The address of a service on this machine.
pub(crate) fn uri(port: u16) -> String {
    format!("https://localhost:{port}")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn directory() -> PathBuf {
        let directory = std::env::temp_dir().join(format!("lockstep-installation-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).expect("created");
        directory
    }

    #[tokio::test]
    async fn what_was_chosen_stays_and_an_installation_only_grows() {
        let directory = directory();
        let layout = Layout::new(&directory);
        let first = Installation::prepare(&layout, Some(2), Some(0), None).await.expect("chosen");
        assert_eq!(first.servers.len(), 2);
        let again = Installation::prepare(&layout, None, None, None).await.expect("kept");
        assert_eq!(first, again);
        let grown = Installation::prepare(&layout, Some(3), Some(0), None).await.expect("grown");
        assert_eq!(grown.servers[..2], first.servers[..]);
        assert_eq!((grown.servers.len(), grown.gateway_port), (3, first.gateway_port));
        let problem = Installation::prepare(&layout, Some(1), None, None).await.expect_err("refused");
        assert_eq!(problem.exit, Exit::Usage);
        fs::remove_dir_all(directory).expect("removed");
    }

    #[test]
    fn a_broken_file_is_told_with_its_place() {
        let directory = directory();
        let layout = Layout::new(&directory);
        fs::write(layout.installation(), "format = 1\nport = 3\n").expect("written");
        let problem = Installation::load(&layout).expect_err("refused").render(crate::cli::Format::Text);
        assert!(problem.contains("installation.toml") && problem.contains("unknown field"), "{problem}");
        fs::remove_dir_all(directory).expect("removed");
    }
}
