//! The words about connection data, and about what people say of servers.

use clap::{ArgGroup, Args};

use super::change::{PortWord, Seen, revision_or_none};

/// `lockstep resolve`
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("subject").required(true).args(["path", "firmware"])))]
pub(crate) struct ResolveArgs {
    /// The exact path of a registered file.
    pub(crate) path: Option<String>,
    /// A firmware update, by its id.
    #[arg(long, value_name = "ID")]
    pub(crate) firmware: Option<String>,
    /// The server that the device talks to.
    #[arg(long, value_name = "ID", env = "LOCKSTEP_SERVER", hide_env_values = true)]
    pub(crate) server: String,
    /// The name of the device: the same device gets the same answer.
    #[arg(long, value_name = "NAME")]
    pub(crate) device: String,
    /// The site of the device [default: that of its server].
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) site: String,
    /// Also tell why each server was chosen or passed over.
    #[arg(long)]
    pub(crate) explain: bool,
}

/// `lockstep server edit`
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("field").required(true).multiple(true).args([
    "display_name", "site", "host", "https_port", "http_port", "public_address", "public_https_port",
    "public_http_port",
])))]
pub(crate) struct EditArgs {
    /// The server.
    pub(crate) id: String,
    /// Its name for people; empty takes it away.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// The site where it stands; empty takes it away.
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<String>,
    /// Its host name or address; empty takes it away, then it is the one that the other servers use.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Its web port for HTTPS; `none` takes it away, then it is 8443.
    #[arg(long, value_name = "PORT|none", allow_negative_numbers = true)]
    pub(crate) https_port: Option<PortWord>,
    /// Its web port for HTTP; `none` takes it away, then it is 9080.
    #[arg(long, value_name = "PORT|none", allow_negative_numbers = true)]
    pub(crate) http_port: Option<PortWord>,
    /// Its Public Address, which devices use instead of the host name; empty takes it away.
    #[arg(long, value_name = "HOST")]
    pub(crate) public_address: Option<String>,
    /// Its Public Web Port, for HTTPS; `none` takes it away.
    #[arg(long, value_name = "PORT|none", allow_negative_numbers = true)]
    pub(crate) public_https_port: Option<PortWord>,
    /// Its public port for HTTP; `none` takes it away.
    #[arg(long, value_name = "PORT|none", allow_negative_numbers = true)]
    pub(crate) public_http_port: Option<PortWord>,
    /// The revision you saw, 0 if nobody had changed it; `current` reads it first and changes whatever is there.
    #[arg(long, value_name = "N|current", value_parser = revision_or_none, default_value = "current")]
    pub(crate) revision: Seen,
}
