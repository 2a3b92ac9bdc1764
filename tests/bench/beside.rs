//! Small files that are registered while a large one is copied: how long until they are on all three servers.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    MIB,
    lockstep::Installation,
    setting,
    work::{Set, Work},
};

/// From the command to in sync everywhere, at the 99th of 100.
const GOAL: Duration = Duration::from_secs(1);
/// The size of a small file.
const SMALL_BYTES: usize = 4 << 10;
/// Small files without anything beside them, to compare with.
const IDLE: usize = 20;

/// Small files beside a large copy: one that is sent on while it is uploaded, as the settings are, and one that is fetched
/// after its registration.
pub(crate) fn measure(work: &Work) -> Result<bool> {
    let mib: u64 = setting("COPY_MIB", 2_048);
    let source = work.source(&Set::Big { mib })?.join("firmware.bin");
    let small = work.path("small");
    fs::write(&small, vec![7; SMALL_BYTES])?;
    let mut met = true;
    println!("4 KiB from the command to all three servers in sync, beside a copy of {} MiB\n", mib);
    println!("| beside | files | median ms | p99 ms | most ms | copy s | copy MiB/s |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (name, relay) in [("an upload that is sent on", ""), ("a fetch", "18446744073709551615")] {
        let off = [("s1.filesync", "FILESYNC_RELAY_BYTES_MIN", relay)];
        let installation = Installation::start(work, if relay.is_empty() { &[] } else { &off })?;
        let mut idle = Vec::new();
        for number in 0..IDLE {
            idle.push(small_file(&installation, &small, &format!("idle/{number}"), "s1")?);
        }
        line("nothing", &mut idle, None);
        let begun = Instant::now();
        let mut large = installation.registration(&source, "firmware.bin", "s1").spawn()?;
        let mut beside = Vec::new();
        let status = loop {
            if let Some(status) = large.try_wait()? {
                break status;
            }
            // By turns on the server that sends and on one that receives.
            let (path, server) = (format!("beside/{}", beside.len()), ["s1", "s2"][beside.len() % 2]);
            beside.push(small_file(&installation, &small, &path, server)?);
            thread::yield_now();
        };
        if !status.success() {
            bail!("the large file was not copied: {status}");
        }
        met &= line(name, &mut beside, Some((begun.elapsed(), mib))) <= GOAL;
        drop(installation);
        work.settle()?;
    }
    println!("\ngoal: p99 at most {} s: {}\n", GOAL.as_secs(), if met { "met" } else { "missed" });
    fs::remove_file(source)?;
    Ok(met)
}

fn small_file(
    installation: &Installation,
    small: &std::path::Path,
    path: &str,
    server: &str,
) -> Result<Duration> {
    let begun = Instant::now();
    let status = installation.registration(small, path, server).status()?;
    if !status.success() {
        bail!("{path} was not registered: {status}");
    }
    Ok(begun.elapsed())
}

/// Prints one line; answers the 99th of 100.
fn line(name: &str, times: &mut [Duration], copy: Option<(Duration, u64)>) -> Duration {
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    let [median, p99, most] = [50, 99, 100].map(|share| at(share).copied().unwrap_or_default());
    let [median_ms, p99_ms, most_ms] = [median, p99, most].map(|time| time.as_millis());
    let copy = copy.map_or_else(
        || "– | –".to_owned(),
        |(time, mib)| {
            let seconds = time.as_secs_f64();
            format!("{seconds:.1} | {:.0}", (mib * MIB) as f64 / MIB as f64 / seconds)
        },
    );
    println!("| {name} | {} | {median_ms} | {p99_ms} | {most_ms} | {copy} |", times.len());
    p99
}
