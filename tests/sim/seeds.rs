//! Many worlds: every seed is one. `SEED=x` runs one of them, `SEEDS=n` the first n.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Seeds that once found something; they are run first, whatever else is run.
pub(crate) const REGRESSIONS: &[u64] = &[209, 269, 38, 49];

/// Worlds in every run.
const SEEDS: u64 = 50;

fn asked<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Shows the log of the product in virtual time, if `LOG` says what of it.
pub(crate) fn show_log() {
    let Ok(filter) = std::env::var("LOG") else { return };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_timer(VirtualTime).with_test_writer();
    // The second test of a run finds it done.
    let _ = log.try_init();
}

struct VirtualTime;

impl tracing_subscriber::fmt::time::FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:>10?}", turmoil::sim_elapsed().unwrap_or_default())
    }
}

/// The seeds to run.
pub(crate) fn seeds() -> Vec<u64> {
    match asked("SEED") {
        Some(seed) => vec![seed],
        None => REGRESSIONS.iter().copied().chain(0..asked("SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// Runs `world` for every seed, on all processors; says which failed and how to see it again.
pub(crate) fn run(test: &str, world: impl Fn(u64) + Sync) {
    show_log();
    let seeds = seeds();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            if catch_unwind(AssertUnwindSafe(|| world(*seed))).is_err() {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(*seed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    let again =
        failed.first().map(|seed| format!("SEED={seed} cargo test -p lockstep-tests --test sim {test}"));
    assert!(failed.is_empty(), "failed with the seeds {failed:?}; again: {}", again.unwrap_or_default());
}
