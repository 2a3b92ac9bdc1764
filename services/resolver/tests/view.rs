//! The view under any course of events: what it keeps at hand is what looking at everything anew would give.

use std::{collections::BTreeMap, time::Duration};

use lockstep_model::{FirmwareId, Reason, Revision, ServerId, firmware::firmware_key, record::Placement};
use lockstep_replicas::{
    Further, Live as _,
    domain::{
        Moment,
        cause::Cause,
        records::{Change, Records},
        report::{Batch, Exception, HeldAhead, Progress, Transfer},
        samples::{announcement, file_of, position, report_at, server_id},
    },
};
use proptest::prelude::*;
use resolver::domain::{
    holders::holds_all,
    resolve::{Question, Subject, resolve},
    view::View,
};

const SERVERS: u8 = 4;
const FILES: u8 = 5;
const UPDATES: u8 = 3;

#[derive(Clone, Debug)]
enum Event {
    /// A file is registered or replaced.
    Register(u8),
    /// A file is deleted.
    Delete(u8),
    /// A server announced itself, able to take part or not.
    Announce(u8, bool),
    /// A server is forgotten.
    Forget(u8),
    /// An update has these files, as a mask, and is published or not.
    Update(u8, u8, bool),
    /// An update is gone.
    Drop(u8),
    /// A server reports: how far behind the head it is, what it lacks and what it holds ahead (masks), and whether that is
    /// everything.
    Report(u8, u64, u8, u8, bool),
    /// A server falls silent.
    Lose(u8),
    /// People say something of a server.
    Say(u8, u8),
    /// Everything is read anew.
    Reload,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0..FILES).prop_map(Event::Register),
        1 => (0..FILES).prop_map(Event::Delete),
        2 => (0..SERVERS, prop::bool::weighted(0.9)).prop_map(|(s, able)| Event::Announce(s, able)),
        1 => (0..SERVERS).prop_map(Event::Forget),
        3 => (0..UPDATES, any::<u8>(), prop::bool::weighted(0.9)).prop_map(|(u, f, p)| Event::Update(u, f, p)),
        1 => (0..UPDATES).prop_map(Event::Drop),
        8 => (0..SERVERS, 0..3_u64, any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(s, behind, lacks, ahead, all)| Event::Report(s, behind, lacks & ahead, ahead & 3, all)),
        1 => (0..SERVERS).prop_map(Event::Lose),
        1 => (0..SERVERS, 0..3_u8).prop_map(|(s, site)| Event::Say(s, site)),
        1 => Just(Event::Reload),
    ];
    prop::collection::vec(event, 1..60)
}

fn file(number: u8) -> String {
    format!("fw/{number}.bin")
}

fn named(mask: u8) -> impl Iterator<Item = u8> {
    (0..FILES).filter(move |number| mask & (1 << number) != 0)
}

fn server(number: u8) -> ServerId {
    server_id(&format!("s{number}"))
}

fn update_id(number: u8) -> FirmwareId {
    format!("0e37df36-f698-11e6-8dd4-cb9ced3df97{number}").parse().expect("an id")
}

struct World {
    view: View,
    /// What is read anew: the same records, and the further ones by key.
    records: Records,
    further: BTreeMap<String, Further>,
    head: u64,
    reported: BTreeMap<u8, bool>,
}

impl World {
    fn new() -> Self {
        let mut records = Records::at(position(1));
        for number in 0..SERVERS {
            let record = Box::new(announcement("distributed", "12.04.100"));
            records.apply(Revision(1), Change::Server(server(number), Some(record)));
        }
        let mut view = View::default();
        view.adopt(records.clone(), Moment::ZERO);
        Self { view, records, further: BTreeMap::new(), head: 1, reported: BTreeMap::new() }
    }

    fn change(&mut self, change: Change) {
        self.head += 1;
        let revision = Revision(self.head);
        self.records.apply(revision, change.clone());
        self.records.history.advance(position(self.head));
        self.view.advance(vec![(revision, change)], Vec::new(), position(self.head), Moment::ZERO);
    }

    fn write(&mut self, key: String, body: Option<String>) {
        self.head += 1;
        let record = Further { revision: Revision(self.head), key: key.clone(), body };
        self.records.history.advance(position(self.head));
        self.view.advance(Vec::new(), Vec::new(), position(self.head), Moment::ZERO);
        self.view.further(record.clone());
        match record.body {
            Some(_) => drop(self.further.insert(key, record)),
            None => drop(self.further.remove(&key)),
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Register(number) => {
                // Every third one is meant for its origin alone.
                let only = Placement::OriginOnly { reason: Reason::OptionOff };
                let placement = if number % 3 == 0 { only } else { Placement::All };
                self.change(file_of(&file(*number), 10, server(0).as_str(), placement))
            }
            Event::Delete(number) => self.change(Change::File(file(*number), None)),
            Event::Announce(number, able) => {
                let version = if *able { "12.04.100" } else { "6.05.100" };
                let record = announcement("distributed", version);
                self.change(Change::Server(server(*number), Some(Box::new(record))));
            }
            Event::Forget(number) => self.change(Change::Server(server(*number), None)),
            Event::Update(number, mask, published) => {
                let files: Vec<_> = named(*mask)
                    .map(|number| {
                        serde_json::json!({ "path": file(number), "size_bytes": 10, "sha256": "00",
                            "upload_id": "0e37df36-f698-11e6-8dd4-cb9ced3df976" })
                    })
                    .collect();
                let body = serde_json::json!({
                    "model": "M", "version": "1", "origin": "import", "server_id": "s0", "target": "fw",
                    "state": if *published { "PUBLISHED" } else { "DOWNLOADING" }, "protocol": "HTTPS_WEBDAV",
                    "added_time": "1970-01-01T00:00:00Z", "files": files, "requested_by": "operator/local 1",
                });
                self.write(firmware_key(&update_id(*number)), Some(body.to_string()));
            }
            Event::Drop(number) => self.write(firmware_key(&update_id(*number)), None),
            Event::Say(number, site) => {
                let body = serde_json::json!({ "site": format!("site{site}") });
                self.write(format!("address/{}", server(*number)), Some(body.to_string()));
            }
            Event::Report(number, behind, lacks, ahead, all) => {
                let mut summary = report_at(self.head.saturating_sub(*behind).max(1));
                let known = |number: &u8| self.records.file(&file(*number)).map(|file| file.revision);
                summary.held_ahead = named(*ahead)
                    .filter_map(|number| Some((file(number), known(&number)?)))
                    .map(|(path, revision)| HeldAhead { path, revision, traceparent: String::new() })
                    .collect();
                let exception = |revision| Exception {
                    revision,
                    // For a file that is meant for others, the copy is kept.
                    progress: if *behind % 2 == 0 { Progress::Kept } else { Progress::Copying },
                    cause: None,
                    retry_delay: None,
                    age: Duration::ZERO,
                };
                let lacking = named(*lacks).filter_map(|number| Some((file(number), known(&number)?)));
                let exceptions: BTreeMap<_, _> =
                    lacking.map(|(path, revision)| (path, Some(exception(revision)))).collect();
                for path in exceptions.keys() {
                    let (source, bytes_per_second) = ("s0".to_owned(), 1);
                    let transfer = Transfer { source, copied_bytes: 1, total_bytes: 10, bytes_per_second };
                    summary.transfers.insert(path.clone(), transfer);
                }
                let snapshot = *all || !self.reported.contains_key(number);
                self.reported.insert(*number, true);
                let batch = Batch { snapshot, exceptions, summary, received: Moment::ZERO };
                self.view.receive(&server(*number), batch);
            }
            Event::Lose(number) => {
                self.reported.remove(number);
                self.view.lose(&server(*number), Cause::new(Reason::PeerUnreachable, "gone"));
            }
            Event::Reload => {
                self.reported.clear();
                self.view.adopt(self.records.clone(), Moment::ZERO);
                self.further.values().cloned().for_each(|record| self.view.further(record));
            }
        }
    }

    /// R48, R51: who is offered holds everything, by the cell rule itself; what is kept at hand says the same.
    fn check(&self) -> Result<(), TestCaseError> {
        let records = self.view.copies().records().expect("read");
        for number in 0..UPDATES {
            let Some(known) = self.view.firmware(&update_id(number)) else { continue };
            let update = known.update.as_ref().expect("readable");
            let files = || update.files.iter().map(String::as_str);
            for (id, server) in self.view.copies().servers() {
                let slot = self.view.slot_of(id).expect("a slot");
                let holds = holds_all((id, server), records, files());
                prop_assert_eq!(known.holders.has(slot), holds, "{} of update {}", id, number);
            }
            prop_assert_eq!(
                known.holders.iter().count(),
                known.holders.iter().filter(|slot| self.view.member(*slot).is_some()).count()
            );
            for current in 0..SERVERS {
                let question = Question {
                    subject: Subject::Firmware(update_id(number)),
                    current: server(current),
                    device: "d1".parse().expect("a device"),
                    site: String::new(),
                    is_explained: false,
                };
                let Ok(answer) = resolve(&self.view, &question, |_| None, Moment::ZERO) else { continue };
                let chosen = answer.connection.server.expect("chosen");
                let holder = self.view.server(&chosen).expect("known");
                prop_assert!(update.is_published() && holds_all((&chosen, holder), records, files()));
                // R49: host and port are of one server.
                let reach = self.view.member_of(&chosen).and_then(|member| member.reach.clone());
                let reach = reach.expect("reachable");
                prop_assert_eq!(
                    (answer.connection.host, answer.connection.port),
                    (reach.host, reach.https_port)
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_at_hand_is_what_is_so(events in events()) {
        let mut world = World::new();
        for event in events {
            world.apply(&event);
            world.check()?;
        }
    }
}
