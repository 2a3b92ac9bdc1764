//! Certificates for every service and operator, from the installation's own authority; renewed at half of their life.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::Arc,
    time::Duration,
};

use lockstep_chassis::{
    drain::Drain,
    pki::{DevelopmentCa, PkiError, needs_renewal},
    seal,
};
use lockstep_model::{
    Identity,
    clock::{Entropy as _, SystemEntropy},
};
use tokio::time::sleep;

use super::{Installation, Layout, lines::Lines, seed::OPERATORS};
use crate::{
    cli::Format,
    problem::{Exit, Problem, Result},
};

/// How often the age of the certificates is looked at; half of their life is 15 days.
const CHECK_EVERY: Duration = Duration::from_secs(3_600);

/// Makes what is missing or half through its life.
pub(crate) fn issue_all(layout: &Layout, installation: &Installation) -> Result<()> {
    let failed = |error: PkiError| {
        Problem::new(Exit::Unavailable, "could not make the certificates", error).at(layout.pki().display())
    };
    let authority =
        DevelopmentCa::open_or_create(&layout.pki(), &installation.trust_domain).map_err(failed)?;
    for (name, identity, names) in owners(installation) {
        let folder = layout.certificates(&name);
        let cert = folder.join("cert.pem");
        if fs::read(&cert).is_ok_and(|pem| !needs_renewal(&pem)) {
            continue;
        }
        fs::create_dir_all(&folder)
            .map_err(|error| Problem::io("could not make a directory", folder.display(), &error))?;
        let issued = authority.issue(&identity, &names).map_err(failed)?;
        issued.write(&cert, &folder.join("key.pem")).map_err(failed)?;
    }
    Ok(())
}

/// Makes the key that passwords are sealed with, unless it is there. It is for the owner alone, and never replaced: what was
/// sealed with it could not be opened any more.
pub(crate) fn make_password_key(layout: &Layout) -> Result<()> {
    let path = layout.password_key();
    let failed =
        |error: io::Error| Problem::io("could not make the key of passwords", path.display(), &error);
    let mut bytes = [0; seal::KEY_BYTES];
    SystemEntropy.fill(&mut bytes);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match made {
        Ok(mut file) => {
            file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Looks at the age of the certificates for as long as the installation runs. Services take new ones up by themselves.
pub(crate) fn keep(layout: &Arc<Layout>, installation: &Arc<Installation>, lines: &Lines, drain: &Drain) {
    let (layout, installation) = (Arc::clone(layout), Arc::clone(installation));
    let (lines, stop) = (lines.clone(), drain.clone());
    drain.spawn("authority", async move {
        loop {
            tokio::select! {
                () = sleep(CHECK_EVERY) => {}
                () = stop.started() => return,
            }
            if let Err(problem) = issue_all(&layout, &installation) {
                // Half of their life is left to repair it in.
                lines.say(&problem.render(Format::Text)).await;
            }
        }
    });
}

/// Everybody who needs a certificate: the name of the folder, the identity, and the names that a client may dial.
fn owners(installation: &Installation) -> Vec<(String, Identity, Vec<String>)> {
    let names = |own: &str| ["localhost", "127.0.0.1", "::1", own].map(str::to_owned).to_vec();
    let shared = ["gateway", "catalog", "resolver"]
        .map(|service| (service.to_owned(), Identity::Service(service), names(service)));
    let own = installation.servers.iter().flat_map(|server| {
        ["filesync", "timeguard"].map(|service| {
            let identity = Identity::Server { server_id: server.id.clone(), service };
            (format!("{}.{service}", server.id), identity, names(server.id.as_str()))
        })
    });
    let operators = OPERATORS.map(|(name, _)| {
        // An operator is never dialled, so no name is in its certificate.
        (format!("operator.{name}"), Identity::Operator(name.to_owned()), Vec::new())
    });
    shared.into_iter().chain(own).chain(operators).collect()
}
