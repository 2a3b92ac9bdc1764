//! The engine with fake clocks, peers and signals, in simulated time.

mod fakes;

use std::time::Duration;

use lockstep_model::{Reason, clock::Readings as _};
use tokio::time::sleep;

use self::fakes::{Bench, HOUR, SECOND};
use crate::domain::{
    fence::{OVERRULED_FOR, State, Why},
    guard::Missed,
    verdict::{Doubt, Verdict},
    witness::Source,
};

const CYCLE: Duration = Duration::from_secs(16);

/// R61, R66: peers within a minute are trusted, all of them are asked, and nothing is refused.
#[tokio::test(start_paused = true)]
async fn clocks_within_a_minute_are_trusted() {
    let bench = Bench::new(&[("s2", 55 * SECOND), ("s3", -55 * SECOND)]);
    let engine = bench.start().await;
    assert_eq!(fakes::state(&engine), State::Starting, "the first verdict is waited for");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((fakes::verdict(&engine), fakes::state(&engine)), (Verdict::Trusted, State::Open));
    sleep(HOUR).await;
    assert_eq!((fakes::verdict(&engine), fakes::state(&engine)), (Verdict::Trusted, State::Open));
}

/// R62: a clock that is 61 s off is proven wrong within 15 s, and its fence is lifted by itself when it is put right.
#[tokio::test(start_paused = true)]
async fn a_skewed_clock_is_fenced_and_set_free() {
    let bench = Bench::new(&[("s2", 0), ("s3", 0)]);
    let engine = bench.start().await;
    sleep(CYCLE).await;
    // All others drift away from it, so that there is no step.
    bench.witnesses.ahead("s2", 61 * SECOND + SECOND / 5);
    bench.witnesses.ahead("s3", 61 * SECOND);
    sleep(Duration::from_secs(15)).await;
    assert!(matches!(fakes::state(&engine), State::Fenced { why: Why::Skewed, .. }));
    let text = fakes::fence_text(&engine);
    assert!(
        text.contains("wrong by -61.") && text.contains("60 s are allowed") && text.contains("server s3"),
        "{text}"
    );
    for (ahead, is_open) in [(57, false), (54, true)] {
        bench.witnesses.ahead("s2", ahead * SECOND);
        bench.witnesses.ahead("s3", ahead * SECOND);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(fakes::state(&engine).may_originate(), is_open, "{ahead}");
    }
}

/// R62: of two servers that disagree nobody knows who is right, so this one stops; a time server, or the clock of the database,
/// decides.
#[tokio::test(start_paused = true)]
async fn a_third_witness_decides_between_two() {
    let bench = Bench::new(&[("s2", 90 * SECOND)]);
    let engine = bench.start().await;
    sleep(CYCLE).await;
    assert_eq!(fakes::verdict(&engine), Verdict::Doubtful(Doubt::Contradicted));
    assert!(!fakes::state(&engine).may_originate());
    assert!(fakes::fence_text(&engine).contains("nobody can say who is right"));
    let ntp = Bench::new(&[("s2", 90 * SECOND)]).with_time_server(0);
    let engine = ntp.start().await;
    sleep(CYCLE).await;
    assert_eq!(fakes::state(&engine), State::Open);
    let wrong = Bench::new(&[("s2", 90 * SECOND)]).with_time_server(91 * SECOND);
    let engine = wrong.start().await;
    sleep(CYCLE).await;
    assert_eq!(fakes::verdict(&engine), Verdict::Skewed);
    // A time server that is away does not agree.
    wrong.witnesses.lose_time_server();
    sleep(CYCLE * 3).await;
    assert_eq!(fakes::verdict(&engine), Verdict::Doubtful(Doubt::Contradicted));
}

/// R62: the clock of the database is a witness with an uncertainty of its own: what its answer took.
#[tokio::test(start_paused = true)]
async fn the_clock_of_the_registry_has_its_own_uncertainty() {
    let bench = Bench::new(&[("s2", 0)]);
    let engine = bench.start().await;
    sleep(CYCLE).await;
    assert!(fakes::offset(&engine, &Source::Registry).is_none(), "it has no clock of its own");
    let clock = bench.clock.clone();
    bench.registry.set_clock(Duration::from_millis(800), move || clock.reading().wall_ns + 3 * SECOND);
    sleep(CYCLE).await;
    let offset = fakes::offset(&engine, &Source::Registry).expect("it is asked");
    assert!((offset.middle() - 3 * SECOND).abs() <= SECOND / 10, "{offset:?}");
    assert!(
        (SECOND * 4 / 10..SECOND / 2).contains(&offset.half()),
        "half of what the answer took: {offset:?}"
    );
    bench.registry.set_available(false);
    sleep(Duration::from_secs(60)).await;
    assert!(fakes::offset(&engine, &Source::Registry).is_none(), "a registry that is away does not agree");
    let why = engine.read(|guard, now| {
        let known = guard.known(now).find(|(source, ..)| **source == Source::Registry);
        known.and_then(|(_, known, _)| known.missed.as_ref()).map(|missed| missed.reason)
    });
    assert_eq!(why, Some(Reason::RegistryUnavailable), "and it is told why");
    let (is_away, peers) = engine.read(|guard, _| {
        (guard.judgement().away.contains(&Source::Registry), guard.judgement().agreeing.len())
    });
    assert_eq!((is_away, peers), (true, 1), "peers are known from before");
}

/// R62: a kernel that keeps its clock in time is a witness, unless that of a clock that contradicts it says the same.
#[tokio::test(start_paused = true)]
async fn two_kernels_that_contradict_each_other_say_nothing() {
    let bench = Bench::new(&[("s2", 90 * SECOND)]);
    bench.witnesses.kernel(Some(Duration::from_millis(20)));
    let engine = bench.start().await;
    sleep(CYCLE).await;
    assert_eq!((fakes::verdict(&engine), fakes::state(&engine)), (Verdict::Trusted, State::Open));
    bench.witnesses.keep_in_time("s2");
    sleep(CYCLE).await;
    assert_eq!(fakes::verdict(&engine), Verdict::Doubtful(Doubt::Contradicted));
}

/// R62: certificates that cannot be valid by the own clock are evidence against it, the own one as well as those of most peers.
#[tokio::test(start_paused = true)]
async fn certificates_that_cannot_be_valid_are_evidence() {
    let bench = Bench::new(&[("s2", 0), ("s3", 0), ("s4", 0)]);
    let engine = bench.start().await;
    sleep(CYCLE).await;
    let out_of_date =
        Missed { reason: Reason::PeerUnreachable, message: "m".to_owned(), is_out_of_date: true };
    bench.witnesses.fail("s2", out_of_date.clone());
    sleep(CYCLE).await;
    assert_eq!(fakes::state(&engine), State::Open, "one of three may have forgotten to renew its own");
    bench.witnesses.fail("s3", out_of_date);
    sleep(CYCLE).await;
    assert_eq!(fakes::verdict(&engine), Verdict::Doubtful(Doubt::Certificates));
    assert!(!fakes::state(&engine).may_originate());
    assert!(fakes::fence_text(&engine).contains("certificates"));

    let own = Bench::new(&[]);
    own.witnesses.certify(false);
    let engine = own.start().await;
    sleep(CYCLE).await;
    assert_eq!(fakes::verdict(&engine), Verdict::Doubtful(Doubt::Certificates));
}

/// R64: a step is told at the word of the kernel, and asks for a restart of both services, also across restarts of the guard;
/// after that it works again. A clock that is set while nobody runs is noticed as well.
#[tokio::test(start_paused = true)]
async fn a_step_is_told_at_once_and_asks_for_a_restart() {
    let bench = Bench::new(&[("s2", 0), ("s3", 0)]);
    let first = bench.start_with_filesync().await;
    sleep(CYCLE).await;
    let mut news = first.news();
    news.mark_unchanged();
    let before = tokio::time::Instant::now();
    bench.clock.step(30 * SECOND);
    bench.tell();
    news.changed().await.expect("news");
    assert!(before.elapsed() < Duration::from_millis(200), "{:?}", before.elapsed());
    assert!(matches!(fakes::state(&first), State::Fenced { why: Why::RestartRequired, .. }));
    assert_eq!(fakes::to_restart(&first), ["filesync", "timeguard"]);
    assert_eq!(bench.health.restart_required().await, "the clock of this server was set");

    let filesync = bench.filesync.lock().expect("held").expect("it began");
    let second = bench.restart().await;
    second.started(filesync);
    sleep(CYCLE).await;
    assert_eq!(fakes::to_restart(&second), ["filesync"], "the guard alone is not enough");
    second.started(bench.clock.reading());
    assert!(fakes::to_restart(&second).is_empty());
    sleep(CYCLE).await;
    assert_eq!((fakes::verdict(&second), fakes::state(&second)), (Verdict::Trusted, State::Open));

    bench.stop().await;
    bench.clock.step(-3_600 * SECOND);
    let third = bench.restart().await;
    third.started(filesync);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fakes::to_restart(&third), ["filesync"], "it was set while nobody looked");
}

/// R64: what is below a second, and slewing, asks for nothing.
#[tokio::test(start_paused = true)]
async fn a_small_step_is_counted_and_nothing_else() {
    let bench = Bench::new(&[("s2", 0)]);
    let engine = bench.start_with_filesync().await;
    sleep(CYCLE).await;
    bench.clock.step(SECOND * 9 / 10);
    bench.tell();
    sleep(CYCLE).await;
    assert_eq!(engine.read(|guard, _| guard.step_count()), 1);
    assert_eq!(fakes::state(&engine), State::Open);
}

/// R62: somebody who knows better is believed for an hour, across restarts, is named, and saying it twice is saying it once.
#[tokio::test(start_paused = true)]
async fn an_override_lasts_an_hour() {
    let bench = Bench::new(&[("s2", 90 * SECOND)]);
    let engine = bench.start().await;
    sleep(CYCLE).await;
    assert!(!fakes::state(&engine).may_originate());
    let say = |engine: &fakes::Guarded, id: &str| {
        let (engine, id) = (engine.clone(), id.to_owned());
        async move { engine.overrule("operator/ann".to_owned(), "s2 is wrong".to_owned(), id).await }
    };
    say(&engine, "r1").await.expect("written");
    let State::Overruled { by, why } = fakes::state(&engine) else { panic!("{:?}", fakes::state(&engine)) };
    assert_eq!((by.principal.as_str(), why), ("operator/ann", Some(Why::Doubtful(Doubt::Contradicted))));
    sleep(HOUR / 2).await;
    say(&engine, "r1").await.expect("known");
    let engine = bench.restart().await;
    sleep(CYCLE).await;
    assert!(matches!(fakes::state(&engine), State::Overruled { .. }), "it outlives the process");
    sleep(HOUR / 2).await;
    assert!(!fakes::state(&engine).may_originate(), "an hour is over");
    say(&engine, "r2").await.expect("written");
    assert!(fakes::state(&engine).may_originate());
    engine.stand("operator/ann").await.expect("written");
    assert!(!fakes::state(&engine).may_originate());
    assert_eq!(OVERRULED_FOR, HOUR);
}

/// R13: a single server starts at once, with nobody to say whether its clock is right.
#[tokio::test(start_paused = true)]
async fn a_single_server_is_unconfirmed_and_works() {
    let engine = Bench::new(&[]).start().await;
    assert_eq!((fakes::verdict(&engine), fakes::state(&engine)), (Verdict::Unconfirmed, State::Open));
    sleep(CYCLE).await;
    assert_eq!((fakes::verdict(&engine), fakes::state(&engine)), (Verdict::Unconfirmed, State::Open));
}

/// R62: a server waits for the first verdict for ten seconds at most, and asks the peers from before while the registry is away.
#[tokio::test(start_paused = true)]
async fn peers_are_known_without_the_registry() {
    let bench = Bench::new(&[("s2", 0), ("s3", 0)]);
    bench.start().await;
    sleep(CYCLE).await;
    bench.registry.set_available(false);
    let engine = bench.restart().await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!((fakes::verdict(&engine), fakes::state(&engine)), (Verdict::Trusted, State::Open));
    let gone = Missed { reason: Reason::PeerUnreachable, message: "m".to_owned(), is_out_of_date: false };
    bench.witnesses.fail("s2", gone.clone());
    bench.witnesses.fail("s3", gone);
    let engine = bench.restart().await;
    sleep(Duration::from_secs(8)).await;
    assert_eq!(fakes::state(&engine), State::Starting);
    sleep(Duration::from_secs(3)).await;
    assert_eq!((fakes::verdict(&engine), fakes::state(&engine)), (Verdict::Unconfirmed, State::Open));
}
