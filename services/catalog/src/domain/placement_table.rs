//! The table that says where firmware is copied to, run.

use std::collections::BTreeSet;

use lockstep_model::{
    ServerId,
    firmware::{Protocol, SettingsRecord},
    version::{Mode, excluded},
};

const TABLE: &str = include_str!("placement_table.md");

/// What the rules say of one server: whether it is copied there, and why not.
fn judged(option: &str, protocol: &str, target: &str, server: &str) -> (&'static str, String) {
    let settings = SettingsRecord {
        synchronize_firmware: option == "on",
        webdav_directories: vec!["ums/webdav".to_owned()],
    };
    let protocol = Protocol::ALL.into_iter().find(|known| known.to_string() == protocol).expect(protocol);
    let target = match target {
        "WebDAV directory" => "ums/webdav/os".parse().ok(),
        "elsewhere" => "ums/webdav-not/os".parse().ok(),
        other => panic!("no target {other}"),
    };
    let origin: ServerId = "s1".parse().expect("an id");
    let other: ServerId = "s2".parse().expect("an id");
    let (mode, version) = match server {
        "takes part" | "origin" => (Mode::Distributed, "6.10.100"),
        "too old" => (Mode::Distributed, "6.06.100"),
        "stand-alone" => (Mode::Standalone, "12.04.100"),
        other => panic!("no server {other}"),
    };
    if server == "origin" {
        let placement = settings.placement(protocol, target.as_ref());
        assert_eq!(placement.excludes(&origin, &origin), None);
        return ("has it", String::new());
    }
    let whole_server = excluded(mode, &version.parse().expect("a version"));
    let placement = settings.placement(protocol, target.as_ref());
    match whole_server.or_else(|| placement.excludes(&other, &origin)) {
        Some(reason) => ("no", reason.to_string()),
        None => ("yes", String::new()),
    }
}

/// R7, R8, R9, R10, R11, R14: every line of the table is what the rules say, and the table has every option, protocol,
/// target and server.
#[test]
fn the_table_is_what_the_rules_say() {
    let mut seen = BTreeSet::new();
    let rows = TABLE.lines().filter(|line| line.starts_with("| o"));
    for line in rows {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [option, protocol, target, server, copied, reason] = cells[..] else { panic!("{line}") };
        assert!(seen.insert((option, protocol, target, server)), "twice: {line}");
        assert_eq!(judged(option, protocol, target, server), (copied, reason.to_owned()), "{line}");
    }
    let covered =
        |at: fn(&(&str, &str, &str, &str)) -> String| seen.iter().map(at).collect::<BTreeSet<_>>().len();
    assert_eq!(covered(|row| row.0.to_owned()), 2);
    assert_eq!(covered(|row| row.1.to_owned()), Protocol::ALL.len());
    assert_eq!(covered(|row| format!("{} {}", row.0, row.2)), 4);
    for protocol in Protocol::ALL.into_iter().filter(|protocol| protocol.is_webdav()) {
        let servers: BTreeSet<&str> =
            seen.iter().filter(|row| row.1 == protocol.to_string()).map(|row| row.3).collect();
        assert_eq!(servers.len(), 4, "{protocol} with every kind of server");
    }
}
