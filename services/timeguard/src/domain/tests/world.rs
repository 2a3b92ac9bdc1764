//! Machines with clocks of their own, and a guard on each, without any network: an exchange is two delays.

use std::time::Duration;

use lockstep_model::ServerId;

use crate::domain::{
    Reading,
    estimate::Exchange,
    fence::{Change, State},
    guard::{Beginning, Guard},
    step::{Found, Return, STEP_MIN, Stored},
    verdict::LIMIT,
    witness::Source,
};

pub(super) const SECOND: i128 = 1_000_000_000;
/// The true time at the beginning: a day in 2026.
pub(super) const BEGIN_NS: i128 = 1_780_000_000 * SECOND;
/// How often peers are asked.
pub(super) const ROUND: i128 = 5 * SECOND;
/// How long it takes to answer.
const ANSWERED_NS: i128 = 1_000_000;
/// In a row, so that no witness is away merely by chance.
const LOST_MAX: u32 = 3;

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`.
    pub(super) fn between(&mut self, low: i128, high: i128) -> i128 {
        low + i128::from(self.next()) % (high - low + 1)
    }

    pub(super) fn percent(&mut self, percent: i128) -> bool {
        self.between(0, 99) < percent
    }
}

/// A machine: both of its clocks, and how they run.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) wall_ns: i128,
    since_ns: i128,
    /// How much faster than true time, in millionths.
    pub(super) wall_ppm: i128,
    since_ppm: i128,
    pub(super) is_paused: bool,
    /// What it says differs from what its clock shows by up to this.
    pub(super) lies_ns: i128,
}

impl Machine {
    fn pass(&mut self, true_ns: i128) {
        if !self.is_paused {
            self.wall_ns += true_ns + true_ns * self.wall_ppm / 1_000_000;
            self.since_ns += true_ns + true_ns * self.since_ppm / 1_000_000;
        }
    }

    /// Its clocks, after so much true time.
    fn later(&self, true_ns: i128) -> Reading {
        let mut then = self.clone();
        then.pass(true_ns);
        then.reading()
    }

    pub(super) fn reading(&self) -> Reading {
        let since = Duration::from_nanos(u64::try_from(self.since_ns).expect("it runs on"));
        Reading { wall_ns: self.wall_ns, since }
    }
}

/// The guard of a machine, as a process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) guard: Guard,
    /// Questions in a row that were lost, by peer.
    lost: Vec<u32>,
    incarnation: u128,
    /// When the other service of the server began.
    filesync: Reading,
    pub(super) returned: Option<Return>,
    pub(super) changes: Vec<Change>,
    pub(super) small_steps: usize,
}

impl Process {
    fn new(
        at: usize,
        peers: usize,
        now: Reading,
        incarnation: u128,
        stored: Option<&Stored>,
        filesync: Reading,
    ) -> Self {
        let beginning = Beginning {
            own: name(at),
            limit: LIMIT,
            step_min: STEP_MIN,
            boot: "one start".to_owned(),
            now,
            sources: (0..peers).filter(|peer| *peer != at).map(|peer| Source::Peer(name(peer))).collect(),
        };
        let (mut guard, returned) = Guard::begin(beginning, stored, None);
        guard.started(filesync);
        Self {
            guard,
            lost: vec![0; peers],
            incarnation,
            filesync,
            returned,
            changes: Vec::new(),
            small_steps: 0,
        }
    }

    /// Looks at its own clock and judges.
    fn look(&mut self, now: Reading) {
        let looked = self.guard.look(now);
        self.small_steps += usize::from(matches!(looked.found, Some(Found::Small(_))));
        self.changes.extend(looked.change);
    }
}

fn name(at: usize) -> ServerId {
    format!("s{at}").parse().expect("a server id")
}

/// All of them, and the true time.
#[derive(Debug)]
pub(super) struct World {
    pub(super) true_ns: i128,
    pub(super) machines: Vec<Machine>,
    pub(super) guards: Vec<Option<Process>>,
    pub(super) chance: Chance,
    /// The longest way of a message, each direction drawn for itself.
    pub(super) delay_ns: i128,
    pub(super) loss_percent: i128,
}

impl World {
    /// Clocks that are set to the true time but for these offsets; guards run.
    pub(super) fn new(seed: u64, offsets: &[i128]) -> Self {
        let mut chance = Chance(seed);
        let machines: Vec<Machine> = offsets
            .iter()
            .map(|offset| Machine {
                wall_ns: BEGIN_NS + offset,
                since_ns: chance.between(SECOND, 1_000_000 * SECOND),
                wall_ppm: 0,
                since_ppm: chance.between(-50, 50),
                is_paused: false,
                lies_ns: 0,
            })
            .collect();
        let mut world = Self {
            true_ns: BEGIN_NS,
            guards: machines.iter().map(|_| None).collect(),
            machines,
            chance,
            delay_ns: 20_000_000,
            loss_percent: 0,
        };
        (0..offsets.len()).for_each(|at| world.start(at, None, None));
        world
    }

    /// Starts a guard with what an earlier one stored; with it, or before, the other service of the server.
    fn start(&mut self, at: usize, stored: Option<&Stored>, filesync: Option<Reading>) {
        let now = self.machines[at].reading();
        let incarnation = u128::from(self.chance.next());
        let filesync = filesync.unwrap_or(now);
        self.guards[at] = Some(Process::new(at, self.machines.len(), now, incarnation, stored, filesync));
    }

    /// What the guard wrote down; it ends, and the other service of its server goes on.
    pub(super) fn stop(&mut self, at: usize) -> (Stored, Reading) {
        let process = self.guards[at].take().expect("it runs");
        (process.guard.stored(), process.filesync)
    }

    /// Starts it again beside a service that began then.
    pub(super) fn resume(&mut self, at: usize, stored: &Stored, filesync: Reading) {
        self.start(at, Some(stored), Some(filesync));
    }

    /// The whole server is restarted by its supervisor.
    pub(super) fn restart(&mut self, at: usize) {
        let (stored, _) = self.stop(at);
        self.start(at, Some(&stored), None);
    }

    pub(super) fn pass(&mut self, true_ns: i128) {
        self.true_ns += true_ns;
        self.machines.iter_mut().for_each(|machine| machine.pass(true_ns));
    }

    pub(super) fn offset(&self, at: usize) -> i128 {
        self.machines[at].wall_ns - self.true_ns
    }

    pub(super) fn guard(&self, at: usize) -> &Process {
        self.guards[at].as_ref().expect("it runs")
    }

    fn runs(&self, at: usize) -> bool {
        self.guards[at].is_some() && !self.machines[at].is_paused
    }

    /// `one` asks `other`; the answer arrives while other questions are on their way.
    fn ask(&mut self, one: usize, other: usize) {
        let lie = self.machines[other].lies_ns;
        let lie = if lie == 0 { 0 } else { self.chance.between(-lie, lie) };
        let there = self.chance.between(0, self.delay_ns);
        let back = self.chance.between(0, self.delay_ns);
        let told = |machine: &Machine, later: i128| {
            let reading = machine.later(later);
            Reading { wall_ns: reading.wall_ns + lie, ..reading }
        };
        let exchange = Exchange {
            sent: self.machines[one].reading(),
            received: told(&self.machines[other], there),
            replied: told(&self.machines[other], there + ANSWERED_NS),
            arrived: self.machines[one].later(there + ANSWERED_NS + back),
            incarnation: self.guard(other).incarnation,
            error: Duration::ZERO,
        };
        let is_lost = self.chance.percent(self.loss_percent);
        let process = self.guards[one].as_mut().expect("it runs");
        if is_lost && process.lost[other] < LOST_MAX {
            process.lost[other] += 1;
            return;
        }
        process.lost[other] = 0;
        // What an exchange says that is impossible is nothing.
        let _ = process.guard.note(&Source::Peer(name(other)), &exchange, false);
    }

    /// The offset that one has measured of another, with the true one.
    pub(super) fn measured(
        &self,
        one: usize,
        other: usize,
    ) -> Option<(crate::domain::interval::Interval, i128)> {
        let (now, peer) = (self.machines[one].reading(), Source::Peer(name(other)));
        let truth = self.machines[other].wall_ns - self.machines[one].wall_ns;
        let found = self.guard(one).guard.known(now).find(|(source, ..)| **source == peer);
        Some((found?.2?, truth))
    }

    /// Everybody looks at its own clock, as a timer that is cancelled by a step makes it.
    pub(super) fn look(&mut self) {
        for at in 0..self.machines.len() {
            let now = self.machines[at].reading();
            if self.runs(at)
                && let Some(process) = &mut self.guards[at]
            {
                process.look(now);
            }
        }
    }

    /// Everybody asks everybody, and judges; then time passes until the next round.
    pub(super) fn round(&mut self) {
        let begun = self.true_ns;
        for one in 0..self.machines.len() {
            for other in 0..self.machines.len() {
                if one != other && self.runs(one) && self.runs(other) {
                    self.ask(one, other);
                }
            }
        }
        self.pass(2 * self.delay_ns + 2 * ANSWERED_NS);
        self.look();
        let rest = ROUND - (self.true_ns - begun);
        self.pass(rest.max(0));
    }

    pub(super) fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round());
    }

    pub(super) fn may_originate(&self, at: usize) -> bool {
        self.guard(at).guard.fence().state().may_originate()
    }

    pub(super) fn state(&self, at: usize) -> State {
        self.guard(at).guard.fence().state()
    }
}
