//! Settings: flags, then the environment, then a TOML file, then defaults. Every mistake is told at once.

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr, time::Duration};

/// The exit code for a mistake in the settings, as in sysexits.h.
pub const EXIT_USAGE: u8 = 64;

/// The name of the setting that names the file.
const CONFIG: &str = "config";

/// The settings of one process while they are read.
#[derive(Debug)]
pub struct Settings {
    service: &'static str,
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    file_name: String,
    described: Vec<Described>,
    problems: Vec<String>,
    help: bool,
}

#[derive(Debug)]
struct Described {
    name: &'static str,
    help: &'static str,
    default: Option<String>,
    required: bool,
}

/// Why the settings cannot be used, or what a person asked about them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// `--help` was given; the text lists every setting.
    #[error("{0}")]
    Help(String),
    /// Every problem, one a line.
    #[error("{0}")]
    Problems(String),
}

impl Settings {
    /// Collects the sources of the settings of `service`: `args` without the name of the program, and the environment.
    pub fn collect(service: &'static str, args: impl IntoIterator<Item = String>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self::from_sources(service, args, environment)
    }

    /// Like [`collect`](Self::collect) with the environment given.
    pub fn from_sources(
        service: &'static str,
        args: impl IntoIterator<Item = String>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let prefix = format!("{}_", service.to_uppercase());
        let environment = environment.into_iter().filter(|(key, _)| key.starts_with(&prefix)).collect();
        let mut settings = Self {
            service,
            flags: BTreeMap::new(),
            environment,
            file: BTreeMap::new(),
            file_name: String::new(),
            described: Vec::new(),
            problems: Vec::new(),
            help: false,
        };
        settings.read_flags(args);
        settings.read_file();
        settings
    }

    fn read_flags(&mut self, args: impl IntoIterator<Item = String>) {
        let mut args = args.into_iter().peekable();
        while let Some(arg) = args.next() {
            if arg == "--help" || arg == "-h" {
                self.help = true;
                continue;
            }
            let Some(flag) = arg.strip_prefix("--") else {
                self.problems.push(format!("{arg} is not expected; settings are given as --name value"));
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), args.next_if(|next| !next.starts_with("--"))),
            };
            match value {
                None => self.problems.push(format!("--{name} needs a value")),
                Some(value) => {
                    if self.flags.insert(name.clone(), value).is_some() {
                        self.problems.push(format!("--{name} is given twice"));
                    }
                }
            }
        }
    }

    fn read_file(&mut self) {
        let help = "a TOML file with settings";
        let Some(Some(path)) = self.optional::<String>(CONFIG, help) else { return };
        self.file_name.clone_from(&path);
        let text = match std::fs::read_to_string(Path::new(&path)) {
            Ok(text) => text,
            Err(error) => return self.problems.push(format!("{path} cannot be read: {error}")),
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return self.problems.push(format!("{path} is no TOML file: {error}")),
        };
        for (key, value) in table {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                _ => {
                    self.problems.push(format!("{key} in {path} must be a text, a number or a truth value"));
                    continue;
                }
            };
            self.file.insert(key.replace('_', "-"), text);
        }
    }

    /// A setting that must be given. `None`, and a problem, if it is missing or invalid.
    pub fn required<T: FromStr>(&mut self, name: &'static str, help: &'static str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        self.describe(name, help, None, true);
        match self.find(name) {
            Some((value, place)) => self.parse(&value, &place),
            None => {
                let (flag, variable) = (name, self.variable(name));
                self.problems.push(format!("--{flag} (or {variable}) is required: {help}"));
                None
            }
        }
    }

    /// A setting with a default. `None`, and a problem, if it is invalid.
    pub fn or<T: FromStr>(
        &mut self,
        name: &'static str,
        help: &'static str,
        default: &'static str,
    ) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        self.describe(name, help, Some(default.to_owned()), false);
        let (value, place) = self.find(name).unwrap_or_else(|| (default.to_owned(), format!("--{name}")));
        self.parse(&value, &place)
    }

    /// A setting that may be left out. `None`, and a problem, if it is invalid.
    pub fn optional<T: FromStr>(&mut self, name: &'static str, help: &'static str) -> Option<Option<T>>
    where
        T::Err: fmt::Display,
    {
        self.describe(name, help, None, false);
        match self.find(name) {
            Some((value, place)) => self.parse(&value, &place).map(Some),
            None => Some(None),
        }
    }

    /// A problem that only shows when several settings are looked at together.
    pub fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Every problem in one text, settings that nobody knows included, or the help that was asked for.
    pub fn finish(&self) -> Result<(), UsageError> {
        if self.help {
            return Err(UsageError::Help(self.help_text()));
        }
        let known = |name: &str| self.described.iter().any(|described| described.name == name);
        let mut problems = self.problems.clone();
        for name in self.flags.keys().filter(|name| !known(name)) {
            problems.push(format!("--{name} is no setting of {}", self.service));
        }
        for name in self.file.keys().filter(|name| !known(name)) {
            problems.push(format!("{name} in {} is no setting of {}", self.file_name, self.service));
        }
        for variable in self.environment.keys() {
            let is_known = self.described.iter().any(|described| self.variable(described.name) == *variable);
            if !is_known && !self.is_service_link(variable) {
                problems.push(format!("{variable} is no setting of {}", self.service));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = problems.iter().map(|problem| format!("  - {problem}")).collect();
        let (service, list) = (self.service, list.join("\n"));
        Err(UsageError::Problems(format!(
            "the settings of {service} cannot be used:\n{list}\nsee all settings with: lockstep {service} --help"
        )))
    }

    /// Kubernetes describes each Service to every pod by variables that look like ours, such as GATEWAY_PORT.
    fn is_service_link(&self, variable: &str) -> bool {
        let prefix = format!("{}_", self.service.to_uppercase());
        let rest = variable.strip_prefix(&prefix).unwrap_or(variable);
        rest == "PORT"
            || rest.starts_with("PORT_")
            || rest == "SERVICE_HOST"
            || rest.starts_with("SERVICE_PORT")
    }

    fn describe(&mut self, name: &'static str, help: &'static str, default: Option<String>, required: bool) {
        if self.described.iter().all(|described| described.name != name) {
            self.described.push(Described { name, help, default, required });
        }
    }

    fn variable(&self, name: &str) -> String {
        format!("{}_{}", self.service, name.replace('-', "_")).to_uppercase()
    }

    /// The value with the highest precedence, and where it was given.
    fn find(&self, name: &str) -> Option<(String, String)> {
        let variable = self.variable(name);
        let flag = self.flags.get(name).map(|value| (value.clone(), format!("--{name}")));
        let environment = || self.environment.get(&variable).map(|value| (value.clone(), variable.clone()));
        let file =
            || self.file.get(name).map(|value| (value.clone(), format!("{name} in {}", self.file_name)));
        flag.or_else(environment).or_else(file)
    }

    fn parse<T: FromStr>(&mut self, value: &str, place: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        value
            .parse()
            .map_err(|error: T::Err| self.problems.push(format!("{place} is {value:?}: {error}")))
            .ok()
    }

    fn help_text(&self) -> String {
        let (service, prefix) = (self.service, self.service.to_uppercase());
        let mut text = format!(
            "Usage: lockstep {service} [--name value]...\n\nSettings, also as {prefix}_NAME or in the file of --config:\n"
        );
        for Described { name, help, default, required } in &self.described {
            let variable = self.variable(name);
            let more = match (default, required) {
                (Some(default), _) => format!(" [default: {default}]"),
                (None, true) => " [required]".to_owned(),
                (None, false) => String::new(),
            };
            text.push_str(&format!("  --{name:<18} {variable:<28} {help}{more}\n"));
        }
        text
    }
}

/// Something that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is done.
    On,
    /// It is left out.
    Off,
}

/// The text is neither on nor off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected on or off")]
pub struct InvalidSwitch;

impl FromStr for Switch {
    type Err = InvalidSwitch;

    fn from_str(text: &str) -> Result<Self, InvalidSwitch> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(InvalidSwitch),
        }
    }
}

/// A duration as a setting: a number and one of `ms`, `s`, `m` and `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// The text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a number and a unit, such as 100ms, 5s, 5m or 1h")]
pub struct InvalidSpan;

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or(InvalidSpan)?;
        let (digits, unit) = text.split_at(unit_at);
        let number: u64 = digits.parse().map_err(|_| InvalidSpan)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(InvalidSpan),
        };
        number.checked_mul(millis).map(Duration::from_millis).map(Self).ok_or(InvalidSpan)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let whole = units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
        let (unit, name) = whole.unwrap_or((1, "ms"));
        write!(f, "{}{name}", millis / unit)
    }
}

#[cfg(test)]
mod tests;
