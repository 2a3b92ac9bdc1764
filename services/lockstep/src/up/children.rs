//! Which processes an installation has, and what each is told. Pure.

use std::{collections::BTreeMap, path::Path};

use lockstep_chassis::config::Span;

use super::{
    Installation, Layout,
    installation::{Server, uri},
};
use crate::cli::UpArgs;

/// A child drains within this, so that the supervisor can end within 5 s.
const DRAIN_GRACE: &str = "4s";
/// A variable with this prefix and the name of a child, with `_` for `.` and `-`, holds `NAME=VALUE,NAME=VALUE` for
/// that child alone.
const OWN_PREFIX: &str = "LOCKSTEP_CHILD_ENV_";
/// Given to the first life of a child only: it tells the process to kill itself, which once is enough.
const FIRST_LIFE_ONLY: &str = "LOCKSTEP_CRASH";

/// One child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// `gateway`, `s1.filesync`, …
    pub(crate) name: String,
    /// The subcommand and its settings.
    pub(crate) args: Vec<String>,
    /// Variables of its own.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Spec {
    /// The variables of one life, counted from 0.
    pub(crate) fn environment_of(&self, life: u32) -> impl Iterator<Item = (&String, &String)> {
        self.environment.iter().filter(move |(name, _)| life == 0 || *name != FIRST_LIFE_ONLY)
    }
}

/// Every child of an installation.
pub(crate) fn specs(layout: &Layout, installation: &Installation, args: &UpArgs) -> Vec<Spec> {
    let make = Make { layout, installation, args };
    let shared = [make.gateway(), make.catalog(), make.resolver()];
    let own = installation.servers.iter().flat_map(|server| [make.timeguard(server), make.filesync(server)]);
    shared.into_iter().chain(own).collect()
}

/// Whether a variable of the supervisor must not reach its children: what is meant for one of them, and what a shell
/// happens to hold under the prefix of a service.
pub(crate) fn is_withheld(variable: &str) -> bool {
    let of_service = |service: &str| variable.starts_with(&format!("{}_", service.to_uppercase()));
    variable.starts_with(OWN_PREFIX)
        || ["LOCKSTEP_CRASH", "LOCKSTEP_PAUSE", "LOCKSTEP_CLOCK", "LOCKSTEP_HITS", "LOCKSTEP_POINTS"]
            .contains(&variable)
        || lockstep_model::identity::SERVICES.iter().any(|service| of_service(service))
}

struct Make<'a> {
    layout: &'a Layout,
    installation: &'a Installation,
    args: &'a UpArgs,
}

impl Make<'_> {
    fn gateway(&self) -> Spec {
        let mut settings = self.with_registry("gateway", self.installation.gateway_port);
        settings.push(("catalog", uri(self.installation.catalog_port)));
        settings.push(("resolver", uri(self.installation.resolver_port)));
        spec("gateway", "gateway".to_owned(), settings)
    }

    fn catalog(&self) -> Spec {
        let mut settings = self.with_registry("catalog", self.installation.catalog_port);
        settings.push(("password-key", text(&self.layout.password_key())));
        settings.extend(self.args.sources.as_deref().map(|sources| ("sources", text(sources))));
        spec("catalog", "catalog".to_owned(), settings)
    }

    fn resolver(&self) -> Spec {
        let mut settings = self.with_registry("resolver", self.installation.resolver_port);
        settings.push(("password-key", text(&self.layout.password_key())));
        spec("resolver", "resolver".to_owned(), settings)
    }

    fn filesync(&self, server: &Server) -> Spec {
        let name = format!("{}.filesync", server.id);
        let mut settings = self.with_registry(&name, server.filesync_port);
        settings.push(("server-id", server.id.to_string()));
        settings.push(("root", text(&self.layout.root(&server.id))));
        settings.push(("state", text(&self.layout.state(&server.id))));
        settings.push(("advertise", uri(server.filesync_port)));
        settings.push(("timeguard", uri(server.timeguard_port)));
        settings.push(("reconcile-every", Span(self.args.reconcile_every).to_string()));
        spec("filesync", name, settings)
    }

    fn timeguard(&self, server: &Server) -> Spec {
        let name = format!("{}.timeguard", server.id);
        let mut settings = self.with_registry(&name, server.timeguard_port);
        settings.push(("server-id", server.id.to_string()));
        settings.push(("state", text(&self.layout.clock(&server.id))));
        spec("timeguard", name, settings)
    }

    fn with_registry(&self, name: &str, port: u16) -> Vec<(&'static str, String)> {
        let mut settings = self.common(name, port);
        settings.push(("registry", format!("sqlite:{}", text(&self.layout.registry()))));
        settings
    }

    fn common(&self, name: &str, port: u16) -> Vec<(&'static str, String)> {
        let folder = self.layout.certificates(name);
        let mut settings = vec![
            ("listen", format!("127.0.0.1:{port}")),
            ("tls-cert", text(&folder.join("cert.pem"))),
            ("tls-key", text(&folder.join("key.pem"))),
            ("tls-ca", text(&self.layout.authority())),
            ("trust-domain", self.installation.trust_domain.clone()),
            ("log", self.args.log.clone()),
            ("drain-grace", DRAIN_GRACE.to_owned()),
        ];
        settings.extend(self.args.otlp.clone().map(|collector| ("otlp", collector)));
        settings
    }
}

fn spec(service: &str, name: String, settings: Vec<(&'static str, String)>) -> Spec {
    let own = std::env::var(format!("{OWN_PREFIX}{}", name.replace(['.', '-'], "_"))).unwrap_or_default();
    let settings = settings.into_iter().map(|(name, value)| format!("--{name}={value}"));
    Spec {
        name,
        args: std::iter::once(service.to_owned()).chain(settings).collect(),
        environment: variables(&own),
    }
}

/// A part without an equals sign belongs to the value before it, so a value may be a list.
pub(crate) fn variables(text: &str) -> BTreeMap<String, String> {
    let mut variables: Vec<(&str, String)> = Vec::new();
    for part in text.split(',') {
        match (part.split_once('='), variables.last_mut()) {
            (Some((name, value)), _) => variables.push((name, value.to_owned())),
            (None, Some((_, list))) => {
                list.push(',');
                list.push_str(part);
            }
            (None, None) => {}
        }
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_child_may_hold_an_equals_sign() {
        let own = variables("LOCKSTEP_CRASH=filesync.register.staged=3,LOCKSTEP_POINTS=a,b,LOCKSTEP_HITS=/x");
        assert_eq!(own["LOCKSTEP_POINTS"], "a,b");
        assert_eq!(own["LOCKSTEP_CRASH"], "filesync.register.staged=3");
        assert_eq!(own["LOCKSTEP_HITS"], "/x");
        assert!(variables("").is_empty());
        let spec = Spec { name: "x".into(), args: Vec::new(), environment: own };
        assert_eq!((spec.environment_of(0).count(), spec.environment_of(1).count()), (3, 2));
    }

    #[test]
    fn settings_that_a_shell_happens_to_hold_do_not_reach_children() {
        for name in ["GATEWAY_LISTEN", "FILESYNC_ROOT", "LOCKSTEP_CRASH", "LOCKSTEP_CHILD_ENV_gateway"] {
            assert!(is_withheld(name), "{name}");
        }
        for name in ["PATH", "LOCKSTEP_DATA", "RUST_BACKTRACE"] {
            assert!(!is_withheld(name), "{name}");
        }
    }
}
