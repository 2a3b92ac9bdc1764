//! What goes wrong, and when: drawn from the seed.

use std::{sync::atomic::Ordering, time::Duration};

use crate::{chance::Chance, mesh::Mesh, net::GATEWAY};

/// What happens to the server that is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing gets through, in either direction.
    Cut,
    /// It hears and is not heard.
    Mute,
    /// Everything is held back, and comes late.
    Held,
    /// The power goes, again and again: what was not durable is lost.
    PowerCuts,
    /// The process dies, again and again; the disk keeps what was written.
    Kills,
    /// It is cut off and then loses its power, so that nobody hears of it.
    CutAndPowerCut,
    /// Every message takes up to seconds.
    SlowNetwork,
    /// Every access to its disk takes up to half a second.
    SlowDisk,
    /// Its disk fails now and then; whether the call was carried out nobody knows.
    FlakyDisk,
    /// Its way to the registry fails now and then; whether the call was carried out nobody knows.
    FlakyRegistry,
}

/// Every seed has one; all take turns.
const KINDS: [Kind; 10] = [
    Kind::Cut,
    Kind::PowerCuts,
    Kind::SlowNetwork,
    Kind::Kills,
    Kind::Mute,
    Kind::SlowDisk,
    Kind::CutAndPowerCut,
    Kind::Held,
    Kind::FlakyRegistry,
    Kind::FlakyDisk,
];

#[derive(Clone, Copy, Debug)]
enum Act {
    Cut,
    Mute,
    Hold,
    Reconnect,
    CutPower,
    Kill,
    Start,
    Slow,
    SlowDisk,
    FlakyDisk,
    FlakyRegistry,
    LoseRegistry,
    FindRegistry,
    KillGateway,
    StartGateway,
    StepClock(i64),
}

/// The faults of one simulation, in the order of time.
#[derive(Debug)]
pub(crate) struct Faults {
    /// What happens.
    pub(crate) kind: Kind,
    /// The server that is hit.
    pub(crate) victim: usize,
    acts: Vec<(Duration, Act)>,
}

impl Faults {
    /// What goes wrong in the world of `seed`, from `begin` on.
    pub(crate) fn of(seed: u64, servers: usize, begin: Duration) -> Self {
        let chance = Chance::new(seed, "faults");
        let turn = usize::try_from(seed).unwrap_or_default();
        let (kind, victim) = (KINDS[turn % KINDS.len()], turn / KINDS.len() % servers);
        let mut acts = Vec::new();
        let mut at = begin;
        let mut after = |wait: Duration, act: Act| {
            at += wait;
            acts.push((at, act));
        };
        let soon = || chance.millis(200..=3_000);
        match kind {
            Kind::Cut => after(soon(), Act::Cut),
            Kind::Mute => after(soon(), Act::Mute),
            Kind::Held => {
                after(soon(), Act::Hold);
                after(chance.millis(2_000..=12_000), Act::Reconnect);
            }
            Kind::CutAndPowerCut => {
                after(soon(), Act::Cut);
                after(soon(), Act::CutPower);
            }
            Kind::SlowNetwork => after(soon(), Act::Slow),
            Kind::SlowDisk => after(soon(), Act::SlowDisk),
            Kind::FlakyDisk => after(soon(), Act::FlakyDisk),
            Kind::FlakyRegistry => after(soon(), Act::FlakyRegistry),
            Kind::PowerCuts | Kind::Kills => {
                for _ in 0..chance.between(1..=6) {
                    after(soon(), if kind == Kind::Kills { Act::Kill } else { Act::CutPower });
                    after(soon(), Act::Start);
                }
                after(soon(), if kind == Kind::Kills { Act::Kill } else { Act::CutPower });
            }
        }
        // Besides, and not in every world: what else happens in a bad hour.
        let mut besides = |first: Act, then: Act| {
            if chance.once_in(3) {
                let at = begin + chance.millis(0..=15_000);
                acts.extend([(at, first), (at + chance.millis(500..=5_000), then)]);
            }
        };
        besides(Act::LoseRegistry, Act::FindRegistry);
        besides(Act::KillGateway, Act::StartGateway);
        besides(Act::StepClock(7 * 3_600), Act::StepClock(-30 * 3_600));
        acts.sort_by_key(|(at, _)| *at);
        Self { kind, victim, acts }
    }

    /// Does what is due.
    pub(crate) fn act(&mut self, mesh: &mut Mesh) {
        while self.acts.first().is_some_and(|(at, _)| *at <= mesh.elapsed()) {
            let (_, act) = self.acts.remove(0);
            let server = mesh.servers[self.victim].clone();
            let host = server.id.as_str();
            match act {
                Act::Cut => mesh.cut(host),
                Act::Mute => mesh.mute(host),
                Act::Hold => mesh.hold(host),
                Act::Reconnect => mesh.reconnect(host),
                Act::CutPower => mesh.cut_power(host),
                Act::Kill => mesh.kill(host),
                Act::Start => mesh.start(host),
                Act::Slow => {
                    let latency = mesh.chance.millis(300..=2_500);
                    mesh.slow(host, latency);
                }
                Act::SlowDisk => server.store.device.set_slowest(Duration::from_millis(500)),
                Act::FlakyDisk => server.store.device.set_flaky(true),
                Act::FlakyRegistry => server.registry.device.set_flaky(true),
                Act::LoseRegistry => server.registry.reachable.store(false, Ordering::Relaxed),
                Act::FindRegistry => server.registry.reachable.store(true, Ordering::Relaxed),
                Act::KillGateway => mesh.kill(GATEWAY),
                Act::StartGateway => mesh.start(GATEWAY),
                Act::StepClock(seconds) => server.clock.step(seconds),
            }
        }
    }
}
