//! Where things are in a data directory.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use lockstep_model::ServerId;

use super::Installation;
use crate::problem::{Problem, Result};

/// The paths of one data directory.
///
/// ```text
/// DIR/lock  installation.toml  registry/registry.sqlite
///     pki/ca.pem  pki/<name>/{cert,key}.pem      names: gateway, s1.filesync, operator.local, …
///     pki/passwords.key                          seals the passwords of firmware updates in the registry
///     servers/<id>/{root,state,clock}            root: what the server holds; state: what it knows; clock: of its clock
///     run/<child>.pid  run/ready
///     run/<child>.hold                           while it is there, the child is not started again
///     run/<child>.env                            NAME=VALUE,… for the next life of the child, which takes it away
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    data: PathBuf,
}

impl Layout {
    /// Of this directory.
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_owned() }
    }

    /// The directory itself.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Held by the supervisor; contains its process id.
    pub(crate) fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }

    /// What was chosen once.
    pub(crate) fn installation(&self) -> PathBuf {
        self.data.join("installation.toml")
    }

    /// Keys and certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// The certificate authority that everybody trusts.
    pub(crate) fn authority(&self) -> PathBuf {
        self.pki().join("ca.pem")
    }

    /// The certificate and the key of one owner.
    pub(crate) fn certificates(&self, name: &str) -> PathBuf {
        self.pki().join(name)
    }

    /// The key that passwords are sealed with; whoever has it and the registry has the passwords.
    pub(crate) fn password_key(&self) -> PathBuf {
        self.pki().join("passwords.key")
    }

    /// The database of the registry.
    pub(crate) fn registry(&self) -> PathBuf {
        self.data.join("registry").join("registry.sqlite")
    }

    /// The root of a server; its transfer directory is in it.
    pub(crate) fn root(&self, server: &ServerId) -> PathBuf {
        self.data.join("servers").join(server.as_str()).join("root")
    }

    /// What a server keeps outside its root.
    pub(crate) fn state(&self, server: &ServerId) -> PathBuf {
        self.data.join("servers").join(server.as_str()).join("state")
    }

    /// What the timeguard of a server keeps.
    pub(crate) fn clock(&self, server: &ServerId) -> PathBuf {
        self.data.join("servers").join(server.as_str()).join("clock")
    }

    /// The process id of a child.
    pub(crate) fn pid(&self, child: &str) -> PathBuf {
        self.data.join("run").join(format!("{child}.pid"))
    }

    /// Keeps a child from being started while it is there: for maintenance of one service, and for tests.
    pub(crate) fn hold(&self, child: &str) -> PathBuf {
        self.data.join("run").join(format!("{child}.hold"))
    }

    /// Variables for the next life of a child.
    pub(crate) fn next_environment(&self, child: &str) -> PathBuf {
        self.data.join("run").join(format!("{child}.env"))
    }

    /// There while everything answers; contains the address of the gateway.
    pub(crate) fn ready(&self) -> PathBuf {
        self.data.join("run").join("ready")
    }

    /// Makes the directories. Keys and the registry are for the owner alone.
    pub(crate) fn create(&self, installation: &Installation) -> Result<()> {
        let private = [self.pki(), self.data.join("registry")];
        let servers =
            installation.servers.iter().flat_map(|server| [self.root(&server.id), self.state(&server.id)]);
        let open = std::iter::once(self.data.join("run")).chain(servers);
        let all = private.into_iter().map(|path| (path, true)).chain(open.map(|path| (path, false)));
        for (path, is_private) in all {
            create(&path, is_private)
                .map_err(|error| Problem::io("could not make a directory", path.display(), &error))?;
        }
        // Left over from a supervisor that was killed.
        match fs::remove_file(self.ready()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Problem::io("could not remove the ready mark", self.ready().display(), &error))
            }
            _ => Ok(()),
        }
    }
}

fn create(path: &Path, is_private: bool) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if is_private { fs::set_permissions(path, fs::Permissions::from_mode(0o700)) } else { Ok(()) }
}

/// Writes a file whole or not at all: beside it first, then over it.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::write(&beside, text)?;
    fs::File::open(&beside)?.sync_all()?;
    fs::rename(&beside, path)
}
