//! Servers with clocks of their own: every way in which one goes wrong, and a long time in which none does.

use crate::domain::{
    fence::{Change, State, Why},
    verdict::{Doubt, Verdict},
};

use super::world::{BEGIN_NS, SECOND, World};

/// How a clock comes to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It is set.
    Step,
    /// It runs 500 ppm too fast or too slow.
    Slew,
    /// It is set while the guard does not run.
    Stopped,
    /// The machine stood still: it is behind by that; or it was set wrong when it went on.
    Pause,
}

const MANNERS: [Manner; 4] = [Manner::Step, Manner::Slew, Manner::Stopped, Manner::Pause];
const DAY: i128 = 86_400 * SECOND;
/// Slewing further takes weeks.
const SLEWED_MAX: i128 = 90 * SECOND;
/// Rounds within 15 s.
const NOTICED_ROUNDS: usize = 3;

fn offsets() -> Vec<i128> {
    let tenths = [1, 5, 20, 50, 300, 540, 610, 900, 36_000];
    let lengths = tenths.iter().map(|tenths| tenths * SECOND / 10).chain([DAY, 365 * DAY]);
    let mut all: Vec<i128> = lengths.flat_map(|length| [length, -length]).collect();
    // 1970, 2038 and 2106, whatever day it is.
    all.extend([0, 1_i128 << 31, 1_i128 << 32].map(|seconds| seconds * SECOND - BEGIN_NS));
    all
}

/// Lets the first clock go wrong by `offset`; answers by how much it was set.
fn go_wrong(world: &mut World, manner: Manner, offset: i128) -> i128 {
    match manner {
        Manner::Step => {
            world.machines[0].wall_ns += offset;
            offset
        }
        Manner::Slew => {
            let begun = world.offset(0);
            world.machines[0].wall_ppm = 500 * offset.signum();
            while (world.offset(0) - begun).abs() < offset.abs() {
                let left = (offset.abs() - (world.offset(0) - begun).abs()) * 2_000;
                world.pass(left.clamp(SECOND, 600 * SECOND));
                world.rounds(2);
            }
            world.machines[0].wall_ppm = 0;
            0
        }
        Manner::Stopped => {
            let (stored, services) = world.stop(0);
            world.pass(10 * SECOND);
            world.machines[0].wall_ns += offset;
            world.pass(10 * SECOND);
            world.resume(0, &stored, services);
            offset
        }
        Manner::Pause => {
            world.machines[0].is_paused = true;
            let length = if offset < 0 { -offset } else { 20 * SECOND };
            world.pass(length / 2);
            world.rounds(1);
            world.pass((length / 2 - 5 * SECOND).max(0));
            world.machines[0].is_paused = false;
            let behind = world.offset(0);
            let by = if offset < 0 { 0 } else { offset - behind };
            world.machines[0].wall_ns += by;
            by
        }
    }
}

fn entered(world: &World, at: usize) -> Vec<Why> {
    let changes = world.guard(at).changes.iter();
    changes.filter_map(|change| if let Change::Entered(why) = change { Some(*why) } else { None }).collect()
}

/// R61, R62, R64, R65: of 2, 3 and 5 servers one clock goes wrong, by a tenth of a second to centuries, in each way. What is
/// within the limit is no reason to fence; what is beyond it is noticed within 15 s, by the server it concerns, or by both of
/// two; a step of more than a second asks for a restart at once. Put right, everything is as before.
#[test]
fn one_clock_goes_wrong() {
    for (servers, seed) in [(2, 1), (3, 2), (5, 3)] {
        for manner in MANNERS {
            for offset in offsets() {
                if manner == Manner::Slew && offset.abs() > SLEWED_MAX {
                    continue;
                }
                let what = format!("{servers} servers, {manner:?}, {} s", offset as f64 / 1e9);
                goes_wrong(servers, seed, manner, offset, &what);
            }
        }
    }
}

fn goes_wrong(servers: usize, seed: u64, manner: Manner, offset: i128, what: &str) {
    let spread: Vec<i128> = (0..servers).map(|at| at as i128 * SECOND / 10).collect();
    let mut world = World::new(seed, &spread);
    world.rounds(4);
    for at in 0..servers {
        assert_eq!(world.state(at), State::Open, "{what}: server {at} at the start");
        let judgement = world.guard(at).guard.judgement();
        assert_eq!(judgement.verdict, Verdict::Trusted, "{what}");
    }
    let set_by = go_wrong(&mut world, manner, offset);
    world.look();
    let restarts = set_by.abs() > SECOND;
    if restarts {
        assert!(!world.may_originate(0), "{what}: a step is noticed at once");
    }
    if manner == Manner::Stopped {
        assert_eq!(world.guard(0).returned.is_some(), restarts, "{what}");
    }
    world.rounds(NOTICED_ROUNDS);
    let wrong_by = world.offset(0).abs();
    let verdict = world.guard(0).guard.judgement().verdict;
    if wrong_by > 65 * SECOND {
        let expected = if servers == 2 { Verdict::Doubtful(Doubt::Contradicted) } else { Verdict::Skewed };
        assert_eq!(verdict, expected, "{what}");
        assert!(!world.may_originate(0), "{what}");
        assert_eq!(entered(&world, 0).len(), 1, "{what}: it is told once");
    } else if wrong_by < 55 * SECOND {
        assert!(verdict == Verdict::Trusted || manner == Manner::Stopped, "{what}: {verdict:?}");
        let expected: &[Why] = if restarts { &[Why::RestartRequired] } else { &[] };
        assert_eq!(entered(&world, 0), expected, "{what}");
    }
    for at in 1..servers {
        let concerns_both = servers == 2 && wrong_by > 55 * SECOND;
        let told = entered(&world, at);
        assert!(
            told.is_empty() || concerns_both,
            "{what}: server {at}, whose clock is right, is fenced: {told:?}"
        );
    }
    // Put right, and restarted where that is asked for.
    if manner == Manner::Slew {
        let back = -offset;
        go_wrong(&mut world, manner, back);
    } else {
        let wrong = world.offset(0);
        world.machines[0].wall_ns -= wrong;
        world.look();
        if wrong.abs() > SECOND {
            assert!(matches!(world.state(0), State::Fenced { .. }), "{what}: to put it right is a step, too");
        }
        world.restart(0);
    }
    world.rounds(8);
    for at in 0..servers {
        assert_eq!(world.state(at), State::Open, "{what}: server {at} in the end");
        let changes = &world.guard(at).changes;
        let (entered, left) =
            changes.iter().partition::<Vec<&Change>, _>(|change| matches!(change, Change::Entered(_)));
        assert_eq!(entered.len(), left.len(), "{what}: server {at} tells of each fence twice: {changes:?}");
        assert!(entered.len() <= 1, "{what}: server {at} went to and fro: {changes:?}");
    }
}

/// R61, R65: 10,000 hours of servers whose clocks are up to 54 s apart, run 500 ppm too fast or too slow, smear leap seconds, make
/// steps below a second, stand still for moments, and whose guards are restarted: none is fenced, ever.
#[test]
fn no_clock_within_the_limit_is_ever_fenced() {
    const HOURS: i128 = 10_000;
    const FAR: i128 = 26 * SECOND;
    let (mut served_ns, mut seed, mut small) = (0_i128, 0_u64, 0);
    while served_ns < HOURS * 3_600 * SECOND {
        seed += 1;
        let servers = [2, 3, 5][usize::try_from(seed % 3).expect("small")];
        let mut chance = super::world::Chance(seed);
        let offsets: Vec<i128> = (0..servers).map(|_| chance.between(-FAR, FAR)).collect();
        let mut world = World::new(seed, &offsets);
        (world.delay_ns, world.loss_percent) = (500_000_000, 20);
        world.rounds(4);
        for _ in 0..60 {
            let begun = world.true_ns;
            let at = usize::try_from(chance.between(0, servers as i128 - 1)).expect("small");
            for machine in 0..servers {
                let offset = world.offset(machine);
                // A smeared leap second is 11.6 ppm.
                let ppm = [500, -500, 12, -12, 0][usize::try_from(chance.between(0, 4)).expect("small")];
                let home = -500 * offset.signum();
                world.machines[machine].wall_ppm = if offset.abs() > FAR { home } else { ppm };
            }
            match chance.between(0, 9) {
                0 if world.offset(at).abs() < FAR => {
                    world.machines[at].wall_ns += chance.between(-9 * SECOND / 10, 9 * SECOND / 10);
                }
                1 if world.offset(at).abs() < FAR => {
                    world.machines[at].is_paused = true;
                    world.pass(chance.between(0, 9 * SECOND / 10));
                    world.machines[at].is_paused = false;
                }
                2 => world.restart(at),
                _ => {}
            }
            world.rounds(3);
            world.pass(600 * SECOND);
            world.look();
            served_ns += servers as i128 * (world.true_ns - begun);
            for at in 0..servers {
                let guard = world.guard(at);
                assert!(guard.changes.is_empty(), "seed {seed}: server {at}: {:?}", guard.changes);
                small += guard.small_steps;
            }
        }
    }
    assert!(small > 100, "small steps are counted: {small}");
}
