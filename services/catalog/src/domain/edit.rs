//! What people change of an update (R53).

use core::net::Ipv6Addr;
use std::fmt;

use lockstep_model::{
    FilePath, Violation,
    firmware::{FirmwareRecord, Protocol},
};

use crate::domain::{draft::placed, error::CatalogError};

/// The longest host name.
const HOST_BYTES_MAX: usize = 253;
/// The longest path that devices ask for.
const PATH_BYTES_MAX: usize = 4_095;
/// The longest user.
const USER_BYTES_MAX: usize = 256;
/// The longest password.
const PASSWORD_BYTES_MAX: usize = 256;

/// A password on its way to being sealed. Nothing shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The fields that a mask names, with what they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// How devices get it.
    pub protocol: Option<Protocol>,
    /// Where; empty for nowhere yet.
    pub host: Option<String>,
    /// The port; `Some(None)` for that of the protocol.
    pub port: Option<Option<i32>>,
    /// The path that devices ask for.
    pub path: Option<String>,
    /// The user that they log in as.
    pub user: Option<String>,
    /// The new password; empty for none.
    pub password: Option<Secret>,
    /// The directory of its files; `Some(None)` for the transfer directory itself.
    pub target: Option<Option<FilePath>>,
    /// Whether some device is meant to get it.
    pub in_use: Option<bool>,
}

impl Edit {
    /// What was asked, for telling one request from another; of a password, only that there is one.
    pub fn fingerprint(&self) -> String {
        format!("{self:?}")
    }

    /// Makes the record what it should be, but for the password, which `sealed` is already.
    ///
    /// # Errors
    /// `FIELD_VIOLATION` with every field that is wrong, `PATH_INVALID` for a target that makes paths too long.
    pub fn apply(&self, record: &mut FirmwareRecord, sealed: Option<String>) -> Result<(), CatalogError> {
        let mut wrong = Vec::new();
        let mut violation = |field: &str, description: String| {
            wrong.push(Violation { field: format!("firmware.{field}"), description });
        };
        let protocol = self.protocol.unwrap_or(record.protocol);
        if protocol.is_webdav() {
            let named =
                [("host", self.host.is_some()), ("port", self.port.is_some()), ("path", self.path.is_some())];
            for (field, _) in named.into_iter().filter(|(_, is_named)| *is_named) {
                violation(
                    field,
                    format!(
                        "cannot be edited for {protocol}: host, port and path of the two UMS WebDAV protocols are those of \
                         the server that is chosen for each device"
                    ),
                );
            }
        }
        if let Some(rule) = self.host.as_deref().and_then(host_rule) {
            violation("host", rule.to_owned());
        }
        let port = |number| u16::try_from(number).ok().filter(|port| *port > 0);
        if self.port.flatten().is_some_and(|number| port(number).is_none()) {
            violation("port", "must be 1 to 65535, or absent for that of the protocol".to_owned());
        }
        if self.path.as_deref().is_some_and(|path| !is_plain(path, PATH_BYTES_MAX)) {
            violation("path", format!("has at most {PATH_BYTES_MAX} bytes and no control characters"));
        }
        if self.user.as_deref().is_some_and(|user| !is_plain(user, USER_BYTES_MAX)) {
            violation("user", format!("has at most {USER_BYTES_MAX} bytes and no control characters"));
        }
        if self.password.as_ref().is_some_and(|secret| !is_plain(&secret.0, PASSWORD_BYTES_MAX)) {
            let description = format!("has at most {PASSWORD_BYTES_MAX} bytes and no control characters");
            wrong.push(Violation { field: "password".to_owned(), description });
        }
        if !wrong.is_empty() {
            return Err(CatalogError::Fields(wrong));
        }
        record.protocol = protocol;
        set(&mut record.host, self.host.clone());
        set(&mut record.port, self.port.map(|number| number.and_then(port)));
        set(&mut record.path, self.path.clone());
        set(&mut record.user, self.user.clone());
        set(&mut record.sealed_password, sealed);
        set(&mut record.in_use, self.in_use);
        if let Some(target) = &self.target {
            retarget(record, target.clone())?;
        }
        Ok(())
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// Says where each file should be now. Where it is stays noted until it was moved.
fn retarget(record: &mut FirmwareRecord, target: Option<FilePath>) -> Result<(), CatalogError> {
    let before = record.target.as_ref().map_or(0, |target| target.as_str().len() + 1);
    for file in &mut record.files {
        let should_be = file.new_path.as_ref().unwrap_or(&file.path).as_str();
        let name = should_be.get(before..).unwrap_or(should_be).to_owned();
        let path = placed(target.as_ref(), &name)?;
        file.new_path = (path != file.path).then_some(path);
    }
    record.target = target;
    Ok(())
}

fn is_plain(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(char::is_control)
}

/// The rule that a host breaks: a name or an address, without brackets, scheme, port or path.
fn host_rule(host: &str) -> Option<&'static str> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let is_name = host.strip_suffix('.').unwrap_or(host).split('.').all(label);
    let is_host = host.is_empty() || is_name || host.parse::<Ipv6Addr>().is_ok();
    (host.len() > HOST_BYTES_MAX || !is_host).then_some(
        "must be a host name or an address, without brackets, scheme, port or path; empty for none",
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use lockstep_model::firmware::{FirmwareOrigin, FirmwareState};

    use super::*;
    use crate::domain::draft::{self, New, Part, Wish};

    fn update(protocol: Protocol) -> FirmwareRecord {
        let part = |name: &str| Part {
            name: name.to_owned(),
            size_bytes: 1,
            sha256: "ab".repeat(32),
            uri: String::new(),
            upload_id: "00000000-0000-0000-0000-000000000001".parse().expect("an id"),
        };
        let new = New {
            model: "UD3".into(),
            version: "1".into(),
            release_notes: String::new(),
            origin: FirmwareOrigin::Import,
            added_time: Timestamp::UNIX_EPOCH,
            requested_by: "operator/local r".into(),
        };
        let target = Some("fw".parse().expect("a path"));
        let wish = Wish { server_id: "s1".parse().expect("an id"), target, protocol };
        draft::record(new, &wish, vec![part("a"), part("d/b")], FirmwareState::Published).expect("a record")
    }

    fn fields(error: &CatalogError) -> Vec<&str> {
        match error {
            CatalogError::Fields(violations) => violations.iter().map(|v| v.field.as_str()).collect(),
            other => panic!("{other}"),
        }
    }

    /// R53: host, port and path of the two UMS WebDAV protocols cannot be edited; those of all others can.
    #[test]
    fn host_and_port_of_webdav_cannot_be_edited() {
        let edit = Edit {
            host: Some("h".into()),
            port: Some(Some(8_443)),
            path: Some("/x".into()),
            ..Edit::default()
        };
        for protocol in Protocol::ALL {
            let mut record = update(protocol);
            let before = record.clone();
            let applied = edit.apply(&mut record, None);
            if protocol.is_webdav() {
                let error = applied.expect_err("refused");
                assert_eq!(fields(&error), ["firmware.host", "firmware.port", "firmware.path"], "{protocol}");
                assert!(error.to_string().contains(&protocol.to_string()), "{error}");
                assert_eq!(record, before, "nothing half done");
            } else {
                applied.expect("allowed");
                assert_eq!(
                    (record.host.as_str(), record.port, record.path.as_str()),
                    ("h", Some(8_443), "/x")
                );
            }
        }
        // What counts is the protocol that it has after the edit.
        let away = Edit { protocol: Some(Protocol::Sftp), ..edit.clone() };
        away.apply(&mut update(Protocol::HttpsWebdav), None).expect("no longer WebDAV");
        let back = Edit { protocol: Some(Protocol::HttpWebdav), ..edit };
        back.apply(&mut update(Protocol::Sftp), None).expect_err("WebDAV again");
    }

    #[test]
    fn every_bad_field_is_told_and_no_password_is_shown() {
        let edit = Edit {
            host: Some("https://h".into()),
            port: Some(Some(65_536)),
            path: Some("a\nb".into()),
            user: Some("u".repeat(257)),
            password: Some(Secret("canary\0".into())),
            ..Edit::default()
        };
        let error = edit.apply(&mut update(Protocol::Ftp), None).expect_err("all wrong");
        assert_eq!(
            fields(&error),
            ["firmware.host", "firmware.port", "firmware.path", "firmware.user", "password"]
        );
        assert!(!format!("{error} {error:?} {edit:?} {}", edit.fingerprint()).contains("canary"));
        for bad in ["a b", "a/b", "u@h", "h:1", "[::1]", "-".repeat(64).as_str(), "..", "ä"] {
            assert!(host_rule(bad).is_some(), "{bad}");
        }
        for good in ["", "h", "a.b.c", "10.0.0.1", "fe80::1", "a-b."] {
            assert_eq!(host_rule(good), None, "{good}");
        }
        for wrong in [0, -1, 65_536] {
            let error =
                Edit { port: Some(Some(wrong)), ..Edit::default() }.apply(&mut update(Protocol::Ftp), None);
            assert_eq!(fields(&error.expect_err("no port")), ["firmware.port"], "{wrong}");
        }
        for (port, kept) in [(None, None), (Some(1), Some(1)), (Some(65_535), Some(65_535))] {
            let mut record = update(Protocol::Ftp);
            Edit { port: Some(port), ..Edit::default() }.apply(&mut record, None).expect("in range");
            assert_eq!(record.port, kept);
        }
    }

    /// A target is where the files should be; where they are stays noted until each was moved.
    #[test]
    fn a_new_target_says_where_each_file_should_be() {
        let mut record = update(Protocol::HttpsWebdav);
        let to = |target: &str| Edit {
            target: Some((!target.is_empty()).then(|| target.parse().expect("a path"))),
            ..Edit::default()
        };
        let paths = |record: &FirmwareRecord| -> Vec<(String, Option<String>)> {
            let both = |file: &lockstep_model::firmware::FirmwareFile| {
                (file.path.to_string(), file.new_path.as_ref().map(ToString::to_string))
            };
            record.files.iter().map(both).collect()
        };
        to("new/dir").apply(&mut record, None).expect("valid");
        assert_eq!(paths(&record)[1], ("fw/d/b".into(), Some("new/dir/d/b".into())));
        to("").apply(&mut record, None).expect("again, before anything was moved");
        assert_eq!(paths(&record)[1], ("fw/d/b".into(), Some("d/b".into())));
        to("fw").apply(&mut record, None).expect("back");
        assert_eq!(paths(&record), [("fw/a".into(), None), ("fw/d/b".into(), None)]);
        assert!(to("d/".repeat(99).trim_end_matches('/')).apply(&mut record, None).is_err());
    }
}
