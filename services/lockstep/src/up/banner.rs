//! What is running, and a few lines to try. Pure.

use std::path::Path;

use super::{Installation, Layout, installation::uri};
use crate::out;

/// The text that is printed when everything answers.
pub(crate) fn text(layout: &Layout, installation: &Installation, program: &str) -> String {
    let row = |server: &super::installation::Server| {
        let directory = layout.root(&server.id).join("ums_filetransfer");
        vec![server.id.to_string(), uri(server.filesync_port), directory.display().to_string()]
    };
    let servers = out::table(
        &["SERVER", "FILESYNC", "FILES"],
        installation.servers.iter().map(row).collect(),
        &[],
        &[2],
    );
    let (data, gateway) = (quoted(layout.data()), installation.gateway_uri());
    let pki = |name: &str| quoted(&layout.pki().join(name));
    let (ca, cert, key) = (pki("ca.pem"), pki("operator.local/cert.pem"), pki("operator.local/key.pem"));
    let address = gateway.trim_start_matches("https://");
    let count = out::count(installation.servers.len() as i64, "server");
    format!(
        "lockstep is up: {count}, gateway {gateway}\n\n{servers}\n\nTry in another terminal\n  \
         export LOCKSTEP_DATA={data}\n  \
         {program} file register /etc/hosts hosts --server s1 --wait\n  \
         {program} status\n  \
         TLS=\"-cacert {ca} -cert {cert} -key {key}\"\n  \
         grpcurl $TLS {address} list\n  \
         grpcurl $TLS -d '{{\"path\":\"hosts\"}}' {address} lockstep.filesync.v1.FileService/GetFile\n\n\
         Stop with Ctrl-C; the same command starts it again."
    )
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
