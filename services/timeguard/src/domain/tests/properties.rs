//! What holds whatever the clocks and the network do, as long as the bounds are honest.

use std::time::Duration;

use lockstep_model::ServerId;
use proptest::prelude::*;

use super::world::{SECOND, World};
use crate::domain::{
    Moment, Reading,
    choose::{PEERS_MAX, choose},
    estimate::{AWAY_AFTER, Estimator, Exchange, Invalid},
    fence::{CALM, Change, Fence, OVERRULED_FOR, Override, STARTING_MAX, State, Why},
    interval::{Interval, Place},
    nanos,
    step::{Found, Return, STEP_MIN, Steps},
    verdict::{Circumstances, Doubt, Judgement, LIMIT, Verdict, judge},
    witness::{Source, Witness, agreement},
};

const MILLI: i128 = 1_000_000;

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn reading(wall_ns: i128, since: Duration) -> Reading {
    Reading { wall_ns, since }
}

/// Offsets of a world in which the first clock is off by `offset` and the honest others hardly.
fn world(seed: u64, offset: i128, servers: usize, liars: usize) -> World {
    let offsets: Vec<i128> =
        (0..servers).map(|at| if at == 0 { offset } else { at as i128 * SECOND / 20 }).collect();
    let mut world = World::new(seed, &offsets);
    for liar in servers - liars..servers {
        world.machines[liar].lies_ns = 300 * SECOND;
    }
    // The first answers come through: whom nobody ever heard cannot agree.
    world.rounds(1);
    (world.delay_ns, world.loss_percent) = (2 * SECOND, 30);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// R61, R62: a server within 55 s of the majority is never fenced, whatever the delays, with answers that get lost and
    /// fewer than half of all clocks lying, each to everybody else.
    #[test]
    fn within_the_limit_nobody_is_fenced(
        seed: u64, offset in -54_500_i128..=54_500, servers in 2_usize..=7, liars in 0_usize..=3,
    ) {
        let liars = liars.min((servers - 1) / 2);
        let mut world = world(seed, offset * MILLI, servers, liars);
        for _ in 0..12 {
            world.round();
            let guard = world.guard(0);
            prop_assert!(guard.changes.is_empty(), "{:?} {:?}", guard.changes, guard.guard.judgement());
        }
    }

    /// R62: one that is beyond 65 s always is, within 15 s of hearing the others, as long as more than half of all clocks are
    /// right; of two servers, both.
    #[test]
    fn beyond_the_limit_everybody_is_fenced(
        seed: u64, seconds in 65_500_i128..=400_000_000_000, is_ahead: bool, servers in 2_usize..=7, liars in 0_usize..=2,
    ) {
        let offset = if is_ahead { seconds } else { -seconds } * MILLI;
        let liars = liars.min(((servers - 1) / 2).saturating_sub(1));
        let mut world = world(seed, offset, servers, liars);
        world.rounds(3);
        for _ in 0..9 {
            world.round();
            prop_assert!(matches!(world.state(0), State::Fenced { .. }), "{:?}", world.guard(0).guard.judgement());
            prop_assert_eq!(world.guard(0).changes.len(), 1);
            if servers == 2 {
                let told = world.guard(1).guard.judgement().verdict;
                prop_assert_eq!(told, Verdict::Doubtful(Doubt::Contradicted));
                prop_assert!(!world.may_originate(1));
            }
        }
    }

    /// R62: the bounds of an estimate hold the truth, while both clocks run away from each other as fast as they may.
    #[test]
    fn bounds_are_honest(seed: u64, offset in -100_i128..=100, ppm in -500_i128..=500, waits in 0_i128..=20) {
        let mut world = World::new(seed, &[0, offset * SECOND]);
        (world.delay_ns, world.loss_percent) = (3 * SECOND, 20);
        (world.machines[0].wall_ppm, world.machines[1].wall_ppm) = (ppm, -ppm);
        for _ in 0..12 {
            world.round();
            if let Some((bounds, truth)) = world.measured(0, 1) {
                prop_assert!(bounds.low() <= truth && truth <= bounds.high(), "{bounds:?} {truth}");
                prop_assert!(bounds.half() < 4 * SECOND);
            }
        }
        world.loss_percent = 0;
        world.round();
        world.pass(waits * SECOND);
        let (bounds, truth) = world.measured(0, 1).expect("not away yet");
        prop_assert!(bounds.low() <= truth && truth <= bounds.high(), "{bounds:?} {truth}");
        world.pass(nanos(AWAY_AFTER));
        prop_assert_eq!(world.measured(0, 1), None, "it is away");
    }

    /// R62: the group that is found is the largest there is, and meets.
    #[test]
    fn agreement_is_the_largest(bounds in prop::collection::vec((-40_i128..40, 0_i128..20), 1..12)) {
        let all: Vec<Interval> = bounds.iter().map(|(low, length)| Interval::between(*low, low + length)).collect();
        let found = agreement(&all).expect("some");
        let count = |point: i128| all.iter().filter(|one| one.low() <= point && point <= one.high()).count();
        let largest = (-40..=60).map(count).max().expect("some");
        prop_assert_eq!(found.members.len(), largest);
        for point in [found.common.low(), found.common.high()] {
            prop_assert_eq!(count(point), largest);
        }
    }

    /// R64: slewing as fast as the kernel may, and a leap second that is smeared over a day, are no steps, however often or
    /// seldom anybody looks.
    #[test]
    fn slewing_is_no_step(ppm in -500_i128..=500, looks in prop::collection::vec(1_u64..100_000, 1..40)) {
        let (mut steps, _) = Steps::resume(STEP_MIN, "a".to_owned(), reading(0, at(0)), None);
        let mut since = 0;
        for wait in looks {
            since += wait;
            let wall_ns = i128::from(since) * SECOND + i128::from(since) * SECOND * ppm / 1_000_000;
            prop_assert_eq!(steps.look(reading(wall_ns, at(since))), None);
        }
        prop_assert!(!steps.began(&[Some(reading(0, at(0)))]));
    }

    /// R62: each server asks all others of a small installation, and of a large one sixteen; one that comes or goes changes
    /// one of them at most.
    #[test]
    fn who_is_asked_hardly_changes(count in 0_usize..60) {
        let id = |number: usize| -> ServerId { format!("s{number}").parse().expect("a server id") };
        let own = id(1_000);
        let peers: Vec<ServerId> = (0..count).map(id).collect();
        let chosen = choose(&own, &peers);
        prop_assert_eq!(chosen.len(), count.min(PEERS_MAX));
        prop_assert_eq!(&choose(&own, &[peers.clone(), vec![own.clone()]].concat()), &chosen);
        let more = choose(&own, &[peers, vec![id(count)]].concat());
        prop_assert!(chosen.iter().filter(|peer| !more.contains(peer)).count() <= 1);
        prop_assert!(more.iter().filter(|peer| !chosen.contains(peer)).count() <= 1);
    }
}

fn exchange(begun: u64, remote_ns: i128, incarnation: u128) -> Exchange {
    let remote = reading(remote_ns, at(begun + 1_000));
    let (sent, arrived) = (reading(0, at(begun)), reading(2 * SECOND, at(begun + 2)));
    Exchange { sent, received: remote, replied: remote, arrived, incarnation, error: Duration::ZERO }
}

/// R62: an exchange that cannot have been so says nothing; another run of the other process makes what was known before
/// worth nothing.
#[test]
fn impossible_exchanges_are_refused() {
    let mut known = Estimator::default();
    known.note(&exchange(10, 5 * SECOND, 1)).expect("possible");
    let own = reading(2 * SECOND, at(12));
    let offset = known.offset(own).expect("heard");
    assert_eq!(offset.middle(), 4 * SECOND, "the answer left a second before");
    assert!(offset.half() >= SECOND && offset.half() < SECOND + 5 * MILLI);

    let longer = reading(7 * SECOND, at(1_013));
    let impossible = Exchange { replied: longer, ..exchange(10, 5 * SECOND, 1) };
    assert_eq!(known.note(&impossible), Err(Invalid::NegativeDelay));
    let back = Exchange { replied: reading(5 * SECOND, at(1_009)), ..exchange(10, 5 * SECOND, 1) };
    assert_eq!(known.note(&back), Err(Invalid::RemoteOutOfOrder));
    let set = Exchange { replied: reading(6 * SECOND, at(1_010)), ..exchange(10, 5 * SECOND, 1) };
    assert_eq!(known.note(&set), Err(Invalid::RemoteSet));
    let mine = Exchange { arrived: reading(0, at(9)), ..exchange(10, 5 * SECOND, 1) };
    assert_eq!(known.note(&mine), Err(Invalid::OutOfOrder));
    assert_eq!(known.note(&exchange(9, 5 * SECOND, 1)), Err(Invalid::RemoteOutOfOrder), "an older answer");
    assert_eq!(known.offset(own), Some(offset), "nothing of it counts");
    known
        .note(&exchange(20, 95 * SECOND, 2))
        .expect("another life of the process, whose clock was set meanwhile");
    let offset = known.offset(reading(12 * SECOND, at(22))).expect("heard");
    assert_eq!(offset.middle(), 84 * SECOND, "what was known of the life before is forgotten");
}

/// R62: when a clock over there is set, what was measured before does not outvote what is measured now, however close its
/// bounds were.
#[test]
fn the_newest_sample_is_believed() {
    let mut world = World::new(1, &[0, 0]);
    world.rounds(8);
    (world.delay_ns, world.machines[1].wall_ns) = (SECOND, world.machines[1].wall_ns + 100 * SECOND);
    world.rounds(1);
    let (bounds, truth) = world.measured(0, 1).expect("heard");
    assert!(bounds.low() <= truth && truth <= bounds.high(), "{bounds:?} {truth}");
}

fn witness(number: usize, offset: Option<i128>) -> Witness {
    let source = Source::Peer(format!("s{number}").parse().expect("a server id"));
    Witness { source, offset: offset.map(|seconds| Interval::around(seconds * SECOND, SECOND)) }
}

fn verdict(offsets: &[Option<i128>]) -> Judgement {
    let witnesses: Vec<Witness> =
        offsets.iter().enumerate().map(|(number, offset)| witness(number, *offset)).collect();
    judge(&witnesses, LIMIT, Circumstances { was_heard: true, ..Circumstances::default() })
}

/// R13, R61, R62: the verdicts, as a table.
#[test]
fn the_verdicts_are_this_table() {
    let contradicted = Verdict::Doubtful(Doubt::Contradicted);
    let table: [(&[Option<i128>], Verdict, bool); 17] = [
        (&[], Verdict::Unconfirmed, true),
        (&[None, None], Verdict::Unreachable, true),
        (&[Some(0)], Verdict::Trusted, true),
        (&[Some(58)], Verdict::Trusted, true),
        (&[Some(60)], Verdict::Doubtful(Doubt::Uncertain), true),
        (&[Some(62)], contradicted, false),
        (&[Some(0), Some(0)], Verdict::Trusted, true),
        (&[Some(0), Some(62)], Verdict::Trusted, true),
        (&[Some(62), Some(62)], Verdict::Skewed, false),
        (&[Some(62), Some(-62)], contradicted, false),
        (&[Some(62), Some(500)], contradicted, false),
        (&[Some(60), Some(500)], Verdict::Doubtful(Doubt::Uncertain), true),
        (&[Some(0), None], Verdict::Trusted, true),
        // One that is away agrees with nobody.
        (&[Some(0), None, None], Verdict::Doubtful(Doubt::Alone), true),
        (&[Some(62), None], contradicted, false),
        (&[Some(62), Some(62), None, None], contradicted, false),
        (&[Some(62), Some(62), Some(62), None], Verdict::Skewed, false),
    ];
    for (offsets, expected, may) in table {
        let judgement = verdict(offsets);
        assert_eq!((judgement.verdict, judgement.may_originate()), (expected, may), "{offsets:?}");
    }
    let told = verdict(&[Some(62), Some(63), Some(0), None, Some(64)]);
    assert_eq!(told.verdict, Verdict::Doubtful(Doubt::Contradicted), "three of six are no majority");
    let told = verdict(&[Some(62), Some(63), Some(0), Some(64)]);
    assert_eq!(told.verdict, Verdict::Skewed);
    let offset = told.offset.expect("told");
    assert_eq!((offset.middle(), offset.half(), told.limit), (63 * SECOND, SECOND, LIMIT));
    assert_eq!((told.agreeing.len(), told.contradicting.len(), told.away.len()), (1, 3, 0));
    assert_eq!(told.contradicting[0].to_string(), "server s0");
    // Before anybody was heard, nobody is missed; certificates are evidence by themselves.
    let first = judge(&[witness(1, None)], LIMIT, Circumstances::default());
    assert_eq!(first.verdict, Verdict::Unconfirmed);
    let known = Circumstances { certificates_fail: true, ..Circumstances::default() };
    let judgement = judge(&[witness(1, None)], LIMIT, known);
    assert_eq!(
        (judgement.verdict, judgement.may_originate()),
        (Verdict::Doubtful(Doubt::Certificates), false)
    );
    assert_eq!(
        Interval::between(nanos(LIMIT), 0).place(LIMIT),
        Place::Within,
        "at the limit is not beyond it"
    );
}

/// R64: a step is told at the next look, by how much, and asks for a restart until each service began after it; also where it
/// happened while nobody looked, and not after the machine was started anew.
#[test]
fn a_step_asks_for_a_restart() {
    let start = |stored| Steps::resume(STEP_MIN, "a".to_owned(), reading(100 * SECOND, at(10)), stored);
    let (mut steps, returned) = start(None);
    assert_eq!(returned, None);
    assert_eq!(steps.look(reading(101 * SECOND, at(11))), None);
    assert_eq!(steps.look(reading(102 * SECOND + SECOND / 2, at(12))), Some(Found::Small(SECOND / 2)));
    assert!(!steps.began(&[]));
    let stepped = steps.look(reading(50 * SECOND, at(13)));
    let Some(Found::Step(step)) = stepped else { panic!("{stepped:?}") };
    assert_eq!((step.by_ns, step.after), (-53 * SECOND - SECOND / 2, at(12)));
    let old = reading(99 * SECOND, at(9));
    assert!(
        steps.began(&[Some(old)]) && steps.began(&[Some(reading(51 * SECOND, at(14))), Some(old)]),
        "one is older"
    );
    let stored = steps.stored();
    // Another process of the guard knows it; a service that began between the looks is told by its own readings.
    let (mut again, returned) =
        Steps::resume(STEP_MIN, "a".to_owned(), reading(57 * SECOND, at(20)), Some(&stored));
    assert_eq!((returned, again.pending()), (None, Some(&step)));
    let between = Duration::from_millis(12_500);
    assert!(again.began(&[Some(reading(103 * SECOND, between))]), "it began before the step");
    assert!(
        !again.began(&[Some(reading(49 * SECOND + SECOND / 2, between)), Some(reading(57 * SECOND, at(20)))])
    );
    assert_eq!(again.pending(), None);

    let stored = again.stored();
    let forward = reading(3_661 * SECOND, at(24));
    let (mut away, returned) = Steps::resume(STEP_MIN, "a".to_owned(), forward, Some(&stored));
    let Some(Return::Step(step)) = returned else { panic!("{returned:?}") };
    assert_eq!(step.by_ns, 3_600 * SECOND);
    assert!(away.began(&[Some(reading(57 * SECOND, at(20)))]) && !away.began(&[Some(forward)]));
    let boot = |wall_ns| Steps::resume(STEP_MIN, "b".to_owned(), reading(wall_ns, at(1)), Some(&stored)).1;
    assert_eq!(boot(60 * SECOND), None);
    assert_eq!(boot(40 * SECOND), Some(Return::Back(17 * SECOND)));
}

/// R13, R62, R64: the fence goes up and comes down once for each reason, waits at the start only as long as it must, comes
/// down only when the clock is trusted for a while, and an override ends by itself.
#[test]
fn the_fence_goes_up_and_down_once() {
    let (right, wrong, nobody) =
        (verdict(&[Some(0), Some(1)]), verdict(&[Some(99), Some(99)]), verdict(&[None]));
    let by = |now| Override {
        until: at(now) + OVERRULED_FOR,
        principal: "operator/ann".to_owned(),
        justification: "the others are wrong".to_owned(),
        request_id: now.to_string(),
    };
    let mut alone = Fence::new(at(100), false);
    assert_eq!(alone.state(), State::Open, "without peers nothing is waited for");
    assert_eq!((alone.update(at(100), &verdict(&[]), false), alone.state()), (None, State::Open));

    let mut fence = Fence::new(at(100), true);
    assert_eq!((fence.update(at(101), &nobody, false), fence.state()), (None, State::Starting));
    assert!(!fence.state().may_originate());
    assert_eq!((fence.update(at(100) + STARTING_MAX, &nobody, false), fence.state()), (None, State::Open));
    let mut fence = Fence::new(at(100), true);
    assert_eq!((fence.update(at(102), &right, false), fence.state()), (None, State::Open));

    assert_eq!(fence.limit(LIMIT), LIMIT);
    assert_eq!(fence.update(at(200), &wrong, false), Some(Change::Entered(Why::Skewed)));
    assert_eq!(fence.update(at(201), &wrong, true), None, "it is up already");
    assert_eq!(fence.limit(LIMIT), at(55));
    assert_eq!(fence.update(at(210), &right, false), None);
    assert_eq!(fence.update(at(215), &nobody, false), None, "nobody says that it is right");
    assert_eq!(fence.update(at(220), &right, false), None);
    let lasted = at(30) - at(0);
    let left = fence.update(at(220) + CALM, &right, false);
    assert_eq!(left, Some(Change::Left { lasted, is_overruled: false }));

    assert_eq!(fence.update(at(300), &right, true), Some(Change::Entered(Why::RestartRequired)));
    assert_eq!(fence.state(), State::Fenced { why: Why::RestartRequired, since: at(300) });
    assert_eq!(fence.overrule(at(310), by(310)), Some(Change::Left { lasted: at(10), is_overruled: true }));
    assert_eq!(fence.state(), State::Overruled { by: by(310), why: Some(Why::RestartRequired) });
    assert_eq!(fence.update(at(400), &wrong, true), None);
    assert!(fence.state().may_originate());
    assert_eq!(fence.pass(at(310) + OVERRULED_FOR), Some(Change::Entered(Why::Skewed)));
    assert_eq!(fence.update(at(4_000), &wrong, true), None);
    assert_eq!(
        fence.overrule(at(4_001), by(4_001)),
        Some(Change::Left { lasted: at(91), is_overruled: true })
    );
    assert_eq!(fence.update(at(4_010), &right, false), None);
    assert_eq!(fence.pass(at(9_000)), Some(Change::Entered(Why::Skewed)), "it was not calm for long enough");
    assert!(fence.update(at(9_001), &right, false).is_some(), "now it is");
}
