use super::*;

fn settings(args: &[&str], environment: &[(&str, &str)]) -> Settings {
    let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Settings::from_sources("filesync", args.iter().map(|arg| (*arg).to_owned()), environment)
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("filesync.toml");
    std::fs::write(&file, "a = 1\nb = 1\nc = \"1\"\nreconcile_every = \"5m\"\n").expect("written");
    let file = file.to_str().expect("utf-8");
    let mut settings = settings(
        &["--a", "3", "--config", file],
        &[("FILESYNC_A", "2"), ("FILESYNC_B", "2"), ("OTHER", "x")],
    );
    assert_eq!(settings.required::<u8>("a", ""), Some(3));
    assert_eq!(settings.or::<u8>("b", "", "0"), Some(2));
    assert_eq!(settings.optional::<u8>("c", ""), Some(Some(1)));
    assert_eq!(settings.or::<u8>("d", "", "0"), Some(0));
    assert_eq!(settings.required("reconcile-every", ""), Some(Span(Duration::from_secs(300))));
    assert_eq!(settings.finish(), Ok(()));
}

/// H8: one start tells every mistake.
#[test]
fn every_mistake_is_told_at_once() {
    let mut settings = settings(
        &["--nonsense=1", "stray", "--listen", "--every=soon"],
        &[
            ("FILESYNC_TYPO", "1"),
            ("FILESYNC_SERVICE_HOST", "10.0.0.1"),
            ("FILESYNC_PORT", "tcp://10.0.0.1:1"),
        ],
    );
    assert_eq!(settings.required::<std::net::SocketAddr>("listen", "where to listen"), None);
    assert_eq!(settings.required::<String>("root", "the directory"), None);
    assert_eq!(settings.or::<Span>("every", "", "5m"), None);
    settings.problem("a and b exclude each other");
    let Err(UsageError::Problems(text)) = settings.finish() else { panic!("there are problems") };
    for part in [
        "--nonsense is no setting",
        "stray is not expected",
        "--listen needs a value",
        "FILESYNC_LISTEN",
        "--root (or FILESYNC_ROOT) is required: the directory",
        "--every is \"soon\": expected a number and a unit",
        "FILESYNC_TYPO is no setting",
        "a and b exclude each other",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!text.contains("SERVICE_HOST") && !text.contains("FILESYNC_PORT"), "{text}");
}

#[test]
fn a_file_with_unknown_keys_or_no_toml_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    for (text, part) in [("x = 1", "x in"), ("[t]\na = 1", "must be a text"), ("x", "is no TOML file")] {
        let file = directory.path().join("filesync.toml");
        std::fs::write(&file, text).expect("written");
        let file = file.to_str().expect("utf-8");
        let problem = settings(&["--config", file], &[]).finish().expect_err("refused").to_string();
        assert!(problem.contains(part), "{problem}");
    }
    let problem = settings(&["--config=/nowhere/at/all"], &[]).finish().expect_err("refused").to_string();
    assert!(problem.contains("/nowhere/at/all cannot be read"), "{problem}");
}

#[test]
fn help_lists_each_setting() {
    let mut settings = settings(&["--help"], &[]);
    settings.required::<String>("listen", "where to listen");
    settings.or::<Span>("drain-grace", "how long a drain may take", "5s");
    let Err(UsageError::Help(text)) = settings.finish() else { panic!("help was asked for") };
    assert!(
        text.contains("--listen") && text.contains("FILESYNC_LISTEN") && text.contains("[required]"),
        "{text}"
    );
    assert!(text.contains("--drain-grace") && text.contains("[default: 5s]"), "{text}");
}

#[test]
fn durations_have_a_unit() {
    for (text, millis) in [("100ms", 100), ("5s", 5_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
        let span: Span = text.parse().expect(text);
        assert_eq!(span.0, Duration::from_millis(millis));
        assert_eq!(span.to_string().parse(), Ok(span));
    }
    for bad in ["", "5", "s", "-5s", "5 s", "5d", "1.5s", "99999999999999999999s", "9999999999999999h"] {
        assert_eq!(bad.parse::<Span>(), Err(InvalidSpan), "{bad}");
    }
}
