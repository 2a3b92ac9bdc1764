use super::*;
use crate::domain::sources;

fn source(more: &str) -> Source {
    let text = format!("[[source]]\nid = \"v\"\nfeed = \"https://vendor.example/feed.json\"\n{more}");
    sources::parse(&text).expect("valid").remove(0)
}

/// R58: nothing inside the installation's networks is reachable by what a feed says.
#[test]
fn addresses_that_are_not_public_are_known() {
    for (address, expected) in [
        ("0.0.0.0", Some("unspecified")),
        ("0.1.2.3", Some("unspecified")),
        ("10.0.0.1", Some("private")),
        ("100.64.0.1", Some("of a carrier's NAT")),
        ("100.127.255.255", Some("of a carrier's NAT")),
        ("100.128.0.0", None),
        ("100.100.100.200", Some("cloud metadata")),
        ("127.0.0.1", Some("loopback")),
        ("127.255.255.254", Some("loopback")),
        ("168.63.129.16", Some("cloud metadata")),
        ("169.254.1.1", Some("link-local")),
        ("169.254.169.254", Some("cloud metadata")),
        ("169.254.170.2", Some("cloud metadata")),
        ("172.15.255.255", None),
        ("172.16.0.1", Some("private")),
        ("172.31.255.255", Some("private")),
        ("172.32.0.0", None),
        ("192.0.0.192", Some("cloud metadata")),
        ("192.0.0.8", Some("reserved")),
        ("192.0.2.1", Some("documentation")),
        ("192.168.1.1", Some("private")),
        ("192.169.0.0", None),
        ("198.19.255.255", Some("benchmarking")),
        ("198.51.100.7", Some("documentation")),
        ("203.0.113.7", Some("documentation")),
        ("223.255.255.255", None),
        ("224.0.0.1", Some("multicast or reserved")),
        ("240.0.0.1", Some("multicast or reserved")),
        ("255.255.255.255", Some("multicast or reserved")),
        ("8.8.8.8", None),
        ("::", Some("unspecified")),
        ("::1", Some("loopback")),
        ("::127.0.0.1", Some("loopback")),
        ("::8.8.8.8", Some("reserved")),
        ("::ffff:127.0.0.1", Some("loopback")),
        ("::ffff:10.1.2.3", Some("private")),
        ("::ffff:169.254.169.254", Some("cloud metadata")),
        ("::ffff:8.8.8.8", None),
        ("::ffff:0:192.168.0.1", Some("private")),
        ("64:ff9b::10.0.0.1", Some("private")),
        ("64:ff9b::127.0.0.1", Some("loopback")),
        ("64:ff9b::8.8.8.8", None),
        ("64:ff9b:1::8.8.8.8", Some("of a local NAT64")),
        ("64:ff9b:2::1", Some("reserved")),
        ("100::1", Some("discarded")),
        ("2001::1", Some("of a protocol")),
        ("2001:0:7f00:1::", Some("of a protocol")),
        ("2001:20::1", Some("of a protocol")),
        ("2001:200::1", None),
        ("2001:db8::1", Some("documentation")),
        ("2002:7f00:1::1", Some("loopback")),
        ("2002:a00:1::1", Some("private")),
        ("2002:808:808::1", None),
        ("2606:4700::1111", None),
        ("3fff::1", Some("documentation")),
        ("4000::1", Some("reserved")),
        ("5f00::1", Some("of segment routing")),
        ("fc00::1", Some("unique local")),
        ("fd00:ec2::254", Some("cloud metadata")),
        ("fd20:ce::254", Some("cloud metadata")),
        ("fdff::1", Some("unique local")),
        ("fe80::1", Some("link-local")),
        ("fec0::1", Some("site-local")),
        ("ff02::1", Some("multicast")),
    ] {
        let parsed: IpAddr = address.parse().expect(address);
        assert_eq!(kind(parsed), expected, "{address}");
    }
}

/// R58: the form of an address is held to the rules of its source.
#[test]
fn forms_are_held_to_the_source() {
    let plain = source("");
    let open = source("http = \"allowed\"\nports = [443, 80, 8443]");
    let scheme = |text: &str| Err(AddressRule::Scheme(text.to_owned()));
    for (uri, at_plain, at_open) in [
        ("https://a.example/x", Ok(443), Ok(443)),
        ("HTTPS://A.EXAMPLE/x", Ok(443), Ok(443)),
        ("https://a.example:443/x", Ok(443), Ok(443)),
        ("https://a.example:8443/x", Err(AddressRule::Port(8443)), Ok(8443)),
        ("https://a.example:22/x", Err(AddressRule::Port(22)), Err(AddressRule::Port(22))),
        ("http://a.example/x", scheme("http"), Ok(80)),
        ("http://a.example:443/x", scheme("http"), Ok(443)),
        ("https://u@a.example/", Err(AddressRule::UserInfo), Err(AddressRule::UserInfo)),
        ("https://:p@a.example/", Err(AddressRule::UserInfo), Err(AddressRule::UserInfo)),
        ("https://169.254.169.254/x", Ok(443), Ok(443)),
    ] {
        let uri: Url = uri.parse().expect(uri);
        let port = |source| check_form(source, &uri).map(|target| target.port);
        assert_eq!((port(&plain), port(&open)), (at_plain, at_open), "{uri}");
    }
    for (text, rule) in [
        ("ftp://a.example/x", AddressRule::Scheme("\"ftp\"".to_owned())),
        ("file:///etc/passwd", AddressRule::Scheme("\"file\"".to_owned())),
        ("gopher://a.example/", AddressRule::Scheme("\"gopher\"".to_owned())),
        ("x", AddressRule::NoUri),
        ("https://", AddressRule::NoUri),
        ("https://a b/", AddressRule::NoUri),
        (&format!("https://a.example/{}", "x".repeat(3_000)), AddressRule::TooLong),
    ] {
        assert_eq!(parse(text, None), Err(rule), "{text}");
    }
}

#[test]
fn what_is_asked_for_has_no_fragment() {
    let uri = parse("x/../b?c#d", Some(&"https://a.example/e/f".parse().expect("a URI")));
    assert_eq!(uri.as_ref().map(Url::as_str), Ok("https://a.example/e/b?c"));
}

/// R58: each spelling of an address is that address.
#[test]
fn spellings_of_addresses_are_seen_through() {
    for text in [
        "https://0x7f.1/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://１２７.0.0.1/",
    ] {
        let target = check_form(&source(""), &text.parse().expect(text)).expect("its form is fine");
        assert_eq!(target.host, "127.0.0.1", "{text}");
    }
    let target = check_form(&source(""), &"https://[::ffff:7f00:1]/".parse().expect("a URI")).expect("fine");
    assert_eq!(target.host, "::ffff:127.0.0.1");
}

/// R58: one bad address among good ones is enough, and only the exact host on the list is let off.
#[test]
fn all_addresses_of_a_host_are_checked() {
    let addresses =
        |texts: &[&str]| texts.iter().map(|text| text.parse().expect(text)).collect::<Vec<IpAddr>>();
    let target = |source: &Source, uri: &str| check_form(source, &uri.parse().expect(uri)).expect(uri);
    let plain = source("");
    let mixed = addresses(&["8.8.8.8", "2606:4700::1111", "10.0.0.1"]);
    let rule = check_resolved(&plain, &target(&plain, "https://a.example/"), &mixed);
    let expected = AddressRule::NotPublic {
        host: "a.example".to_owned(),
        address: "10.0.0.1".parse().expect("an address"),
        kind: "private",
    };
    assert_eq!(rule, Err(expected));
    assert_eq!(check_resolved(&plain, &target(&plain, "https://a.example/"), &mixed[..2]), Ok(()));
    let allowing = source(
        "ports = [443, 8443]\nallow_hosts = [\"A.example\", \"b.example:8443\", \"[::1]:443\", \"10.0.0.1\"]",
    );
    for (uri, is_allowed) in [
        ("https://a.example/", true),
        ("https://a.example./", true),
        ("https://A.EXAMPLE:8443/", true),
        ("https://b.example/", false),
        ("https://b.example:8443/", true),
        ("https://x.a.example/", false),
        ("https://xa.example/", false),
        ("https://[::1]/", true),
        ("https://[::1]:8443/", false),
        ("https://10.0.0.1/", true),
        ("https://167772161/", true),
        ("https://10.0.0.2/", false),
    ] {
        let checked = check_resolved(&allowing, &target(&allowing, uri), &addresses(&["10.0.0.1"]));
        assert_eq!(checked.is_ok(), is_allowed, "{uri}");
    }
}
