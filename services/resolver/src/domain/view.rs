//! The live view: what should exist, who holds what, how devices reach each server, and, kept up to date with each change,
//! who holds all of each firmware update. So an answer is a look-up.
//!
//! What changed is looked at anew, never counted: for a file all servers, for a server all updates, for a copy just that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockstep_model::{
    FirmwareId, Position, Revision, ServerId,
    firmware::{FIRMWARE, FirmwareRecord},
    record::{ADDRESS, AddressRecord},
};
use lockstep_replicas::{
    Copies, Further, Live, Touched,
    domain::server::{Server, Touch},
};

use crate::domain::{
    choose::mark,
    holders::{Slots, holds_update},
    load::{Load, Loads},
    reach::Reach,
    update::Update,
};

/// Paths that a report may touch before all updates are looked at instead: each is a look-up.
const PATHS_MAX: usize = 2_000;

/// What is known of a server besides its copies.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: ServerId,
    /// Where it stands; may be empty.
    pub site: String,
    /// How devices reach it; `None` while what people say of it cannot be read.
    pub reach: Option<Reach>,
    /// How busy it is.
    pub load: Load,
    /// Its place in the orders of devices.
    pub mark: u64,
}

/// What people say of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The revision that made it what it is; 0 while nobody said anything.
    pub revision: Revision,
    /// `None` if the record cannot be read.
    pub record: Option<AddressRecord>,
}

impl Said {
    /// Nobody said anything.
    fn nothing() -> Self {
        Self { revision: Revision::ZERO, record: Some(AddressRecord::default()) }
    }
}

/// A firmware update and who holds all of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The update; `None` if the record cannot be read.
    pub update: Option<Arc<Update>>,
    /// Who holds every file of it.
    pub holders: Slots,
    revision: Revision,
}

/// The live view. Before the registry was read once it has no position.
#[derive(Clone, Debug, Default)]
pub struct View {
    copies: Copies,
    sequence: u64,
    /// By slot; a slot whose server was forgotten is free.
    members: Vec<Option<Member>>,
    slots: BTreeMap<ServerId, usize>,
    said: BTreeMap<ServerId, Said>,
    updates: BTreeMap<FirmwareId, Known>,
    /// The updates that a file belongs to.
    by_path: BTreeMap<String, BTreeSet<FirmwareId>>,
    loads: Loads,
}

impl Live for View {
    const FURTHER: &'static [&'static str] = &[ADDRESS, FIRMWARE];

    fn copies(&self) -> &Copies {
        &self.copies
    }

    fn copies_mut(&mut self) -> &mut Copies {
        &mut self.copies
    }

    fn touched(&mut self, touched: Vec<Touched>) {
        self.sequence += 1;
        for touched in touched {
            match touched {
                Touched::Anew(_) => self.begin(),
                Touched::File(path) => self.look_at_file(&path),
                Touched::Server(id) => self.look_at_server(&id),
                Touched::Report(id, touch) => self.look_at_report(&id, touch),
            }
        }
    }

    fn further(&mut self, record: Further) {
        self.sequence += 1;
        if let Some(id) = record.key.strip_prefix(ADDRESS).and_then(|id| id.parse().ok()) {
            self.say(id, &record);
        } else if let Some(id) = record.key.strip_prefix(FIRMWARE).and_then(|id| id.parse().ok()) {
            self.update(id, &record);
        }
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl View {
    /// Where it is in the registry; `None` before that was read once.
    pub fn position(&self) -> Option<Position> {
        self.copies.position()
    }

    /// The member in a slot.
    pub fn member(&self, slot: usize) -> Option<&Member> {
        self.members.get(slot)?.as_ref()
    }

    /// The members, each with its slot, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.slots.values().filter_map(|slot| Some((*slot, self.member(*slot)?)))
    }

    /// The slot of a server.
    pub fn slot_of(&self, id: &ServerId) -> Option<usize> {
        self.slots.get(id).copied()
    }

    /// The member with this id.
    pub fn member_of(&self, id: &ServerId) -> Option<&Member> {
        self.member(*self.slots.get(id)?)
    }

    /// The copies of a server.
    pub fn server(&self, id: &ServerId) -> Option<&Server> {
        self.copies.servers().get(id)
    }

    /// What people say of a server.
    pub fn said(&self, id: &ServerId) -> Said {
        self.said.get(id).cloned().unwrap_or_else(Said::nothing)
    }

    /// A firmware update.
    pub fn firmware(&self, id: &FirmwareId) -> Option<&Known> {
        self.updates.get(id)
    }

    /// Everything was read anew; the further records follow.
    fn begin(&mut self) {
        self.members.clear();
        self.slots.clear();
        self.said.clear();
        self.updates.clear();
        self.by_path.clear();
        self.loads = Loads::default();
        let ids: Vec<ServerId> = self.copies.servers().keys().cloned().collect();
        ids.iter().for_each(|id| self.look_at_server(id));
    }

    fn slot(&mut self, id: &ServerId) -> usize {
        if let Some(slot) = self.slots.get(id) {
            return *slot;
        }
        let free = self.members.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        self.slots.insert(id.clone(), slot);
        slot
    }

    /// A server announced itself, or was forgotten.
    fn look_at_server(&mut self, id: &ServerId) {
        if !self.copies.servers().contains_key(id) {
            if let Some(slot) = self.slots.remove(id) {
                if let Some(member) = self.members.get_mut(slot) {
                    *member = None;
                }
                self.updates.values_mut().for_each(|known| known.holders.set(slot, false));
            }
            self.look_at_load(id);
            return;
        }
        let slot = self.slot(id);
        self.describe(id, slot);
        self.look_at_copies_of(id, slot);
        self.look_at_load(id);
    }

    /// Takes over how devices reach the server.
    fn describe(&mut self, id: &ServerId, slot: usize) {
        let Some(server) = self.copies.servers().get(id) else { return };
        let said = self.said(id).record;
        let member = Member {
            id: id.clone(),
            site: said.as_ref().map_or_else(String::new, |said| said.site.clone()),
            reach: said.map(|said| Reach::of(&server.record, &said)),
            load: self.loads.of(id),
            mark: mark(id.as_str()),
        };
        if let Some(place) = self.members.get_mut(slot) {
            *place = Some(member);
        }
    }

    fn look_at_load(&mut self, id: &ServerId) {
        let heard = self.copies.servers().get(id).filter(|server| server.reachable());
        let report = heard.and_then(|server| server.report.as_ref());
        for changed in self.loads.report(id, report) {
            let Some(slot) = changed.parse().ok().and_then(|id: ServerId| self.slots.get(&id).copied())
            else {
                continue;
            };
            if let Some(Some(member)) = self.members.get_mut(slot) {
                member.load = self.loads.of(&member.id);
            }
        }
    }

    fn look_at_copies_of(&mut self, id: &ServerId, slot: usize) {
        let (Some(records), Some(server)) = (self.copies.records(), self.copies.servers().get(id)) else {
            return;
        };
        for known in self.updates.values_mut() {
            known.holders.set(slot, holds_update((id, server), records, known.update.as_deref()));
        }
    }

    fn look_at_report(&mut self, id: &ServerId, touch: Touch) {
        let Some(slot) = self.slots.get(id).copied() else { return };
        self.look_at_load(id);
        let (Some(records), Some(server)) = (self.copies.records(), self.copies.servers().get(id)) else {
            return;
        };
        if touch.all {
            return self.look_at_copies_of(id, slot);
        }
        let moved = || touch.moved.iter().flat_map(|(from, to)| records.between(*from, *to));
        if touch.paths.len() + moved().take(PATHS_MAX + 1).count() > PATHS_MAX {
            return self.look_at_copies_of(id, slot);
        }
        let paths = touch.paths.iter().map(String::as_str).chain(moved().map(|path| &**path));
        let concerned: BTreeSet<&FirmwareId> =
            paths.filter_map(|path| self.by_path.get(path)).flatten().collect();
        for firmware in concerned {
            let Some(known) = self.updates.get_mut(firmware) else { continue };
            known.holders.set(slot, holds_update((id, server), records, known.update.as_deref()));
        }
    }

    /// A file was registered or replaced, or is no more.
    fn look_at_file(&mut self, path: &str) {
        let Some(concerned) = self.by_path.get(path).cloned() else { return };
        concerned.iter().for_each(|id| self.look_at_update(id));
    }

    fn look_at_update(&mut self, id: &FirmwareId) {
        let (Some(records), Some(known)) = (self.copies.records(), self.updates.get_mut(id)) else { return };
        let mut holders = Slots::default();
        for (id, slot) in &self.slots {
            let Some(server) = self.copies.servers().get(id) else { continue };
            if holds_update((id, server), records, known.update.as_deref()) {
                holders.set(*slot, true);
            }
        }
        known.holders = holders;
    }

    fn say(&mut self, id: ServerId, record: &Further) {
        if self.said.get(&id).is_some_and(|known| known.revision > record.revision) {
            return;
        }
        match &record.body {
            Some(body) => {
                let said = Said { revision: record.revision, record: decoded(&record.key, body) };
                self.said.insert(id.clone(), said);
            }
            None => drop(self.said.remove(&id)),
        }
        if let Some(slot) = self.slots.get(&id).copied() {
            self.describe(&id, slot);
        }
    }

    fn update(&mut self, id: FirmwareId, record: &Further) {
        if self.updates.get(&id).is_some_and(|known| known.revision > record.revision) {
            return;
        }
        if let Some(known) = self.updates.remove(&id) {
            for path in known.update.iter().flat_map(|update| &update.files) {
                if let Some(others) = self.by_path.get_mut(path) {
                    others.remove(&id);
                    if others.is_empty() {
                        self.by_path.remove(path);
                    }
                }
            }
        }
        let Some(body) = &record.body else { return };
        let update = decoded::<FirmwareRecord>(&record.key, body);
        let update = update.map(|body| Arc::new(Update::of(&id, record.revision, body)));
        for path in update.iter().flat_map(|update| &update.files) {
            self.by_path.entry(path.clone()).or_default().insert(id);
        }
        let known = Known { update, holders: Slots::default(), revision: record.revision };
        self.updates.insert(id, known);
        self.look_at_update(&id);
    }
}

fn decoded<T: serde::de::DeserializeOwned>(key: &str, body: &str) -> Option<T> {
    let broken = |error: serde_json::Error| tracing::error!(key, %error, "a record cannot be read");
    serde_json::from_str(body).map_err(broken).ok()
}
