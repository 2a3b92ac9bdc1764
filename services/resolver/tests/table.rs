//! The table of `table.md`, run against the view.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use lockstep_model::{
    Fault as _, FirmwareId, Position, Reason, Revision, ServerId,
    firmware::{FirmwareFile, FirmwareOrigin, FirmwareRecord, FirmwareState, Protocol, firmware_key},
    record::{AddressRecord, Placement, address_key},
};
use lockstep_replicas::{
    Further, Live as _,
    domain::{
        Moment,
        cause::Cause,
        records::{Change, Records},
        report::{Batch, Condition, Exception, Progress, Transfer},
        samples::{announcement, file_of, position, report_at, server_id, snapshot},
    },
};
use resolver::domain::{
    explain::{Outcome, Verdict},
    resolve::{Question, Subject, resolve},
    view::View,
};

const A: &str = "fw/a.bin";
const B: &str = "fw/b.bin";
const UPDATE_ID: &str = "0e37df36-f698-11e6-8dd4-cb9ced3df976";
/// The files are registered here, and the registry is at 10.
const REGISTERED: Revision = Revision(5);
const NOW: Moment = Duration::from_secs(10);

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn exception(progress: Progress, cause: Option<Cause>) -> (String, Option<Exception>) {
    let age = Duration::ZERO;
    (B.to_owned(), Some(Exception { revision: REGISTERED, progress, cause, retry_delay: None, age }))
}

fn transfer(source: &str, copied_bytes: u64) -> Transfer {
    Transfer { source: source.to_owned(), copied_bytes, total_bytes: 100, bytes_per_second: 10 }
}

/// What a server says; `None` for one that says nothing.
fn report(word: &str) -> Option<Batch> {
    let mut batch = snapshot(report_at(10));
    match word {
        "holds" | "silent" | "without" => {}
        "kept" => {
            let (_, kept) = exception(Progress::Kept, None);
            batch.exceptions.extend([A, B].map(|path| (path.to_owned(), kept.clone())));
        }
        "partial" => batch.exceptions.extend([exception(Progress::Pending, None)]),
        "copying" => {
            batch.exceptions.extend([exception(Progress::Copying, None)]);
            batch.summary.transfers.insert(B.to_owned(), transfer("s9", 40));
        }
        "failed" => {
            let cause = Cause::new(Reason::DiskFull, "60 bytes are free, 100 are needed");
            batch.exceptions.extend([exception(Progress::Failed, Some(cause))]);
        }
        "drifted" => {
            let cause = Cause::new(Reason::Drifted, "somebody changed it");
            batch.exceptions.extend([exception(Progress::Failed, Some(cause))]);
        }
        "behind" => batch.summary = report_at(0),
        "offline" => {
            let cause = Cause::new(Reason::StoreOffline, "the root has no marker");
            batch.summary.conditions = vec![Condition { cause, age: Duration::ZERO }];
        }
        "forked" => {
            let here = batch.summary.position;
            batch.summary.position = Position { chain: position(3).chain, ..here };
        }
        "unseen" | "old" | "forgotten" => return None,
        other => panic!("what is a server that {other}?"),
    }
    Some(batch)
}

/// A view with the servers, addresses and update of a row, and which servers are fenced.
fn view(servers: &str, addresses: &str, update: Option<FirmwareRecord>) -> (View, Vec<ServerId>) {
    let mut records = Records::at(position(10));
    // Meant for s1 alone, where a row speaks of who keeps a copy and who does not.
    let is_alone =
        servers.split(',').any(|server| matches!(words(server).get(1), Some(&("kept" | "without"))));
    let only = Placement::OriginOnly { reason: Reason::OptionOff };
    let placement = if is_alone { only } else { Placement::All };
    for path in [A, B] {
        records.apply(REGISTERED, file_of(path, 100, "s1", placement));
    }
    let (mut said, mut fenced, mut says) = (BTreeMap::<String, AddressRecord>::new(), Vec::new(), Vec::new());
    for server in servers.split(',').map(words) {
        let [id, word, more @ ..] = &server[..] else { panic!("no server: {server:?}") };
        let version = if *word == "old" { "6.06.100" } else { "12.04.100" };
        if *word != "forgotten" {
            let mut record = announcement("distributed", version);
            record.filesync = format!("https://{id}.lan:7001");
            records.apply(Revision(1), Change::Server(server_id(id), Some(Box::new(record))));
        }
        let mut batch = report(word);
        for more in more {
            let copies = match *more {
                "fenced" => {
                    fenced.push(server_id(id));
                    0
                }
                "busy" => 4,
                "heavy" => 9,
                site => {
                    said.entry((*id).to_owned()).or_default().site = site.to_owned();
                    0
                }
            };
            let running = (0..copies).map(|number| (format!("other/{number}"), transfer("s9", 0)));
            batch.iter_mut().for_each(|batch| batch.summary.transfers.extend(running.clone()));
        }
        says.push((server_id(id), *word, batch));
    }
    for server in addresses.split(';').map(words).filter(|server| *server != ["–"]) {
        let [id, values @ ..] = &server[..] else { panic!("no server: {addresses}") };
        let record = said.entry((*id).to_owned()).or_default();
        for (name, value) in values.iter().filter_map(|value| value.split_once('=')) {
            let port = value.parse().ok();
            match name {
                "host" => record.host_name = value.to_owned(),
                "https" => record.https_port = port,
                "http" => record.http_port = port,
                "public" => record.public_address = value.to_owned(),
                "public-https" => record.public_https_port = port,
                "public-http" => record.public_http_port = port,
                other => panic!("what is {other}?"),
            }
        }
    }
    let mut view = View::default();
    view.adopt(records, Moment::ZERO);
    let further = |key: String, body: String| Further { revision: Revision(6), key, body: Some(body) };
    for (id, record) in said {
        let key = address_key(&server_id(&id));
        view.further(further(key, serde_json::to_string(&record).expect("serialises")));
    }
    if let Some(update) = update {
        let key = firmware_key(&UPDATE_ID.parse().expect("an id"));
        view.further(further(key, serde_json::to_string(&update).expect("serialises")));
    }
    for (id, word, batch) in says {
        batch.into_iter().for_each(|batch| view.receive(&id, batch));
        if word == "silent" {
            view.lose(&id, Cause::new(Reason::PeerUnreachable, "it said nothing for 10 s"));
        }
    }
    (view, fenced)
}

fn update(text: &str) -> FirmwareRecord {
    let mut parts = words(text);
    let state = match parts.iter().position(|word| word.chars().all(|c| c.is_ascii_uppercase())) {
        Some(at) => serde_json::from_value(parts.remove(at).into()).expect("a state"),
        None => FirmwareState::Published,
    };
    let entered = |at: usize| parts.get(at).filter(|word| **word != "–").copied().unwrap_or_default();
    let protocol: Protocol = parts[0].trim_end_matches("://").parse().expect("a protocol");
    let file = |path: &str| FirmwareFile {
        path: path.parse().expect("a path"),
        size_bytes: 100,
        sha256: "00".repeat(32),
        uri: String::new(),
        upload_id: UPDATE_ID.parse().expect("an id"),
        file_id: None,
        new_path: None,
    };
    FirmwareRecord {
        model: "M1".to_owned(),
        version: "1.0".to_owned(),
        state,
        failure: None,
        origin: FirmwareOrigin::Import,
        server_id: server_id("s1"),
        target: Some("fw".parse().expect("a path")),
        protocol,
        host: entered(1).to_owned(),
        port: entered(2).parse().ok(),
        path: entered(3).to_owned(),
        user: String::new(),
        sealed_password: String::new(),
        in_use: false,
        release_notes: String::new(),
        added_time: jiff::Timestamp::UNIX_EPOCH,
        files: vec![file(A), file(B)],
        requested_by: "operator/local 1".to_owned(),
    }
}

fn told(verdict: &Verdict) -> String {
    let state = match &verdict.outcome {
        Outcome::Chosen => format!("{}. chosen", verdict.rank),
        Outcome::PassedOver => format!("{}. passed over", verdict.rank),
        Outcome::Excluded(cause) => format!("excluded, {}", cause.reason),
    };
    format!("**{}** {state}: {}", verdict.id, verdict.message)
}

/// The answer and the explanation of a row.
fn run(row: &[&str]) -> (String, String) {
    let [servers, addresses, device, what, ..] = row else { panic!("too few columns: {row:?}") };
    let firmware = (*what != "file").then(|| update(what));
    let subject = match &firmware {
        Some(_) => Subject::Firmware(UPDATE_ID.parse::<FirmwareId>().expect("an id")),
        None => Subject::File(A.parse().expect("a path")),
    };
    let (view, fenced) = view(servers, addresses, firmware);
    let device = words(device);
    let question = |is_explained| Question {
        subject: subject.clone(),
        current: server_id(device[0]),
        device: device[1].parse().expect("a device"),
        site: device.get(2).copied().unwrap_or_default().to_owned(),
        is_explained,
    };
    let fence = |id: &ServerId| {
        fenced.contains(id).then(|| Cause::reported("CLOCK_FENCED", "its clock is 90 s off", ""))
    };
    let answer = resolve(&view, &question(true), fence, NOW);
    let short = resolve(&view, &question(false), fence, NOW);
    assert_eq!(answer.as_ref().map(|a| &a.connection), short.as_ref().map(|a| &a.connection), "{row:?}");
    match answer {
        Ok(answer) => {
            let server =
                answer.connection.server.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string);
            let verdicts: Vec<String> = answer.verdicts.iter().map(told).collect();
            let explanation = if verdicts.is_empty() { "–".to_owned() } else { verdicts.join("<br>") };
            (format!("{server}: `{}`", answer.connection.uri()), explanation)
        }
        Err(error) => (error.reason().to_string(), error.to_string()),
    }
}

/// R47 to R53, decision 2: who is sent where, and why, is what the table says.
#[test]
fn devices_are_sent_where_the_table_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/table.md");
    let written = fs::read_to_string(&path).expect("the table");
    let mut rows = 0;
    let lines: Vec<String> = written
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
            if !line.starts_with('|') || cells.len() != 6 || cells[0] == "servers" || cells[0] == "---" {
                return line.to_owned();
            }
            rows += 1;
            let (answer, explanation) = run(&cells);
            format!("| {} | {answer} | {explanation} |", cells[..4].join(" | "))
        })
        .collect();
    assert!(rows > 40, "{rows} rows");
    let made = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &made).expect("written");
        return;
    }
    for (made, written) in made.lines().zip(written.lines()) {
        assert_eq!(made, written, "the table says something else; UPDATE=1 writes it anew");
    }
}
