use super::*;

const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

#[test]
fn a_full_source_is_read() {
    let text = format!(
        r#"
        [[source]]
        id = "acme"
        feed = "https://vendor.example:8443/feeds/all.json"
        public_key = "{KEY}"
        allow_hosts = ["vendor.example", "mirror.internal:8080", "[fd00::1]"]
        ports = [8443, 8080]
        http = "allowed"
        ca_file = "/etc/lockstep/acme.pem"

        [[source]]
        id = "plain"
        feed = "https://plain.example/feed"

        [[source]]
        id = "open"
        feed = "http://open.example/feed"
        http = "allowed"
        "#
    );
    let sources = parse(&text).expect("valid");
    assert_eq!(sources.len(), 3);
    assert_eq!(sources[0].public_key.map(|key| key[0]), Some(0xd7));
    assert_eq!(sources[0].ports, [8443, 8080]);
    assert!(sources[0].is_http_allowed && sources[0].allow_hosts[1].is_for("mirror.internal", 8080));
    assert!(sources[0].allow_hosts[2].is_for("fd00::1", 1));
    let plain = &sources[1];
    assert_eq!((plain.ports.as_slice(), plain.is_http_allowed, plain.public_key), (&[443][..], false, None));
    assert_eq!(sources[2].ports, [443, 80]);
    assert_eq!(parse(""), Ok(Vec::new()));
}

/// R55: a file of sources with mistakes is refused as a whole, with all of them.
#[test]
fn every_mistake_is_told_at_once() {
    let text = r#"
        other = 1

        [[source]]
        id = "A b"
        feed = "ftp://vendor.example/"
        public_key = "AAAA"
        allow_hosts = ["*.example", "https://a.example", 7, "ok.example", "a.example:0", ""]
        ports = [0]
        http = "yes"
        ca_file = ""
        proxy = "http://proxy.example"

        [[source]]
        feed = "https://u:secret@vendor.example/"
        ports = [80]

        [[source]]
        id = "x"
        feed = "http://vendor.example/"

        [[source]]
        id = "y"
        feed = "https://vendor.example:8443/"

        [[source]]
        id = "z"
        feed = "https://vendor.example/"

        [[source]]
        id = "z"
        feed = "https://vendor.example/"
    "#;
    let SourcesInvalid(problems) = parse(text).expect_err("refused");
    let expected = [
        "\"other\" is no key",
        "source 1 (\"A b\"): id must be",
        "source 1 (\"A b\"): http must be",
        "source 1 (\"A b\"): ports must be",
        "allow_hosts has \"\\\"*.example\\\"\"",
        "allow_hosts has \"\\\"https://a.example\\\"\"",
        "allow_hosts has \"7\"",
        "allow_hosts has \"\\\"a.example:0\\\"\"",
        "allow_hosts has \"\\\"\\\"\"",
        "source 1 (\"A b\"): public_key must be",
        "source 1 (\"A b\"): ca_file must be",
        "source 1 (\"A b\"): feed is not asked: its scheme",
        "source 1 (\"A b\"): \"proxy\" is no key",
        "source 2: id is required",
        "source 2: ports has 80",
        "source 2: feed is not asked: it has a user",
        "source 3 (\"x\"): feed is not asked: its scheme is http",
        "source 4 (\"y\"): feed is not asked: port 8443",
        "source 6 (\"z\"): another source has the same id",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, part) in problems.iter().zip(expected) {
        assert!(problem.contains(part), "{part} is missing in {problem}");
    }
    assert!(!format!("{problems:?}").contains("secret"));
    for (text, part) in [("source = 1", "no list of tables"), ("source = [1]", "no table"), ("x", "no TOML")]
    {
        assert!(parse(text).expect_err("refused").to_string().contains(part), "{text}");
    }
}
