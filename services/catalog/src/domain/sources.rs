//! The file of sources: which feeds are asked, and what their addresses may be.
//!
//! TOML, read once at the start. All that is wrong with it is told at once, and then nothing is used of it.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use toml::{Table, Value};
use url::{Host, Url};

use super::{
    address::{self, host_text},
    names::shown,
};

/// The most sources.
pub const SOURCES_MAX: usize = 100;
/// The longest id of a source, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// The most values in one list of a source.
const VALUES_MAX: usize = 100;
/// The ports where none are listed.
const HTTPS_PORT: u16 = 443;
/// Joins them where http is allowed.
const HTTP_PORT: u16 = 80;

/// A vendor whose feed is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Names it: 1 to 64 of `a-z 0-9 . _ -`.
    pub id: String,
    /// The address of its feed.
    pub feed: Url,
    /// The Ed25519 key that signs its entries; without one, signatures are not looked at.
    pub public_key: Option<[u8; 32]>,
    /// Hosts that may lead to addresses that are not public.
    pub allow_hosts: Vec<AllowedHost>,
    /// The ports that may be connected to.
    pub ports: Vec<u16>,
    /// Whether http is asked, too.
    pub is_http_allowed: bool,
    /// A file of certificates of CAs, PEM, that are believed for this source beside the public ones.
    pub ca_file: Option<PathBuf>,
}

/// A host that may lead to addresses that are not public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    host: String,
    /// `None` for every port of the source.
    port: Option<u16>,
}

impl AllowedHost {
    /// Whether it is this one; `host` as [`host_text`] gives it.
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port.is_none_or(|only| only == port)
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            // The colon is that of an address in brackets, or of one without.
            Some((_, after)) if after.ends_with(']') => (text, None),
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0)?)),
            None => (text, None),
        };
        let is_plain = !host.is_empty() && !host.contains(['*', '/', '@', '%']);
        let host = Host::parse(host).ok().filter(|_| is_plain)?;
        Some(Self { host: host_text(&host), port })
    }
}

/// All that is wrong with a file of sources.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct SourcesInvalid(
    /// One text for each mistake.
    pub Vec<String>,
);

/// Reads a file of sources. An empty file has none.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Source>, SourcesInvalid> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        SourcesInvalid(vec![format!("it is no TOML file: {}", error.message())])
    })?;
    let mut problems: Vec<String> = table
        .keys()
        .filter(|key| *key != "source")
        .map(|key| format!("{} is no key; sources are tables named [[source]]", shown(key)))
        .collect();
    let listed = match table.get("source") {
        None => &[][..],
        Some(Value::Array(listed)) => listed,
        Some(_) => {
            problems.push("source is no list of tables: begin each with [[source]]".to_owned());
            &[]
        }
    };
    if listed.len() > SOURCES_MAX {
        problems.push(format!("it has {} sources, more than {SOURCES_MAX}", listed.len()));
    }
    let mut sources: Vec<Source> = Vec::new();
    for (index, value) in listed.iter().take(SOURCES_MAX).enumerate() {
        let Some(table) = value.as_table() else {
            problems.push(format!("source {}: no table", index + 1));
            continue;
        };
        let mut reader = Reader::new(index, table);
        let read = reader.read();
        problems.append(&mut reader.problems);
        let Some(source) = read else { continue };
        if sources.iter().any(|other| other.id == source.id) {
            problems.push(format!("{}: another source has the same id", reader.name));
        }
        sources.push(source);
    }
    if problems.is_empty() { Ok(sources) } else { Err(SourcesInvalid(problems)) }
}

/// One table while it is read.
struct Reader<'a> {
    name: String,
    table: &'a Table,
    known: Vec<&'static str>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(index: usize, table: &'a Table) -> Self {
        let id = table.get("id").and_then(Value::as_str).map(|id| format!(" ({})", shown(id)));
        let name = format!("source {}{}", index + 1, id.unwrap_or_default());
        Self { name, table, known: Vec::new(), problems: Vec::new() }
    }

    fn problem<T>(&mut self, key: &str, rule: &str) -> Option<T> {
        self.problems.push(format!("{}: {key} {rule}", self.name));
        None
    }

    /// `Some` unless something is wrong, which is told.
    fn read(&mut self) -> Option<Source> {
        let id = self.id();
        let is_http_allowed = self.http();
        let ports = self.ports(is_http_allowed.unwrap_or(true));
        let allow_hosts = self.allow_hosts();
        let public_key = self.public_key();
        let ca_file = self.text("ca_file").map(|path| path.map(PathBuf::from));
        let feed = self.feed();
        let unknown: Vec<String> = self
            .table
            .keys()
            .filter(|key| !self.known.contains(&key.as_str()))
            .map(|key| shown(key))
            .collect();
        for key in unknown {
            self.problem::<()>(&key, "is no key of a source");
        }
        let source = Source {
            id: id?,
            feed: feed?,
            public_key: public_key?,
            allow_hosts: allow_hosts?,
            ports: ports?,
            is_http_allowed: is_http_allowed?,
            ca_file: ca_file?,
        };
        match address::check_form(&source, &source.feed) {
            Ok(_) => Some(source),
            Err(rule) => self.problem("feed", &format!("is not asked: {rule}")),
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.table.get(key)
    }

    /// The text of a key that may be left out; `None` if it is none, which is told.
    fn text(&mut self, key: &'static str) -> Option<Option<&'a str>> {
        match self.find(key) {
            None => Some(None),
            Some(Value::String(text)) if !text.is_empty() => Some(Some(text)),
            Some(_) => self.problem(key, "must be a text that is not empty"),
        }
    }

    fn required(&mut self, key: &'static str) -> Option<&'a str> {
        match self.text(key)? {
            Some(text) => Some(text),
            None => self.problem(key, "is required"),
        }
    }

    fn list(&mut self, key: &'static str) -> Option<Option<&'a [Value]>> {
        match self.find(key) {
            None => Some(None),
            Some(Value::Array(values)) if values.len() <= VALUES_MAX => Some(Some(values)),
            Some(_) => self.problem(key, &format!("must be a list of at most {VALUES_MAX} values")),
        }
    }

    fn id(&mut self) -> Option<String> {
        let id = self.required("id")?;
        let is_fine = id.len() <= ID_BYTES_MAX
            && id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        let rule = format!("must be 1 to {ID_BYTES_MAX} of a-z, 0-9, . _ and -");
        if is_fine { Some(id.to_owned()) } else { self.problem("id", &rule) }
    }

    fn feed(&mut self) -> Option<Url> {
        let text = self.required("feed")?;
        match address::parse(text, None) {
            Ok(uri) => Some(uri),
            Err(rule) => self.problem("feed", &format!("is not asked: {rule}")),
        }
    }

    fn http(&mut self) -> Option<bool> {
        match self.text("http")? {
            None | Some("refused") => Some(false),
            Some("allowed") => Some(true),
            Some(_) => self.problem("http", "must be \"refused\" or \"allowed\""),
        }
    }

    fn ports(&mut self, is_http_allowed: bool) -> Option<Vec<u16>> {
        let Some(values) = self.list("ports")? else {
            let all = [HTTPS_PORT, HTTP_PORT];
            return Some(all[..if is_http_allowed { 2 } else { 1 }].to_vec());
        };
        let port = |value: &Value| {
            value.as_integer().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
        };
        match values.iter().map(port).collect::<Option<Vec<u16>>>().filter(|ports| !ports.is_empty()) {
            None => self.problem("ports", "must be a list of numbers from 1 to 65535"),
            Some(ports) if ports.contains(&HTTP_PORT) && !is_http_allowed => {
                self.problem("ports", "has 80, which needs http = \"allowed\"")
            }
            Some(ports) => Some(ports),
        }
    }

    fn allow_hosts(&mut self) -> Option<Vec<AllowedHost>> {
        let Some(values) = self.list("allow_hosts")? else { return Some(Vec::new()) };
        let mut hosts = Vec::new();
        for value in values {
            match value.as_str().and_then(AllowedHost::parse) {
                Some(host) => hosts.push(host),
                None => {
                    let value = shown(&value.to_string());
                    let rule = format!("has {value}: an exact host, or host:port, without wildcards");
                    self.problem::<()>("allow_hosts", &rule);
                }
            }
        }
        (hosts.len() == values.len()).then_some(hosts)
    }

    fn public_key(&mut self) -> Option<Option<[u8; 32]>> {
        let Some(text) = self.text("public_key")? else { return Some(None) };
        let key = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        match key {
            Some(key) => Some(Some(key)),
            None => self.problem("public_key", "must be the 32 bytes of an Ed25519 key in base64"),
        }
    }
}

#[cfg(test)]
mod tests;
