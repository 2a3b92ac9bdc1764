//! What it costs to compare all copies again and again, as a share of this disk, and how soon the walk finds something.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    MIB,
    lockstep::Installation,
    setting,
    work::{Set, Work, run},
};

/// The share of a disk that comparing may take.
const GOAL: f64 = 0.1;
/// From a change on the disk to its repair.
const FOUND_MAX: Duration = Duration::from_secs(60);
/// The settings that nobody changed: the rest between two walks, copies in a second, bytes that the scrub reads in one.
const WALK_EVERY: Duration = Duration::from_secs(30);
const WALK_OBJECTS: f64 = 1_000.0;
const SCRUB_EVERY: Duration = Duration::from_secs(28 * 24 * 60 * 60);
const SCRUB_BYTES: f64 = (20 * MIB) as f64;
/// A large file to see how fast the disk reads.
const SEQUENTIAL_MIB: u64 = 512;
/// Between two looks at a disk.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A walk over 10,000 copies at full speed on a cold disk is all the time of the disk that it takes; paced, it takes the
/// same in a longer time.
pub(crate) fn measure(work: &Work) -> Result<bool> {
    let files: usize = setting("FILES", 10_000);
    let large = work.source(&Set::Big { mib: SEQUENTIAL_MIB })?.join("firmware.bin");
    run(&mut Command::new("sync"))?;
    let is_cold = cool();
    let begun = Instant::now();
    let mut buffer = vec![0; MIB as usize];
    let mut file = File::open(&large)?;
    while file.read(&mut buffer)? > 0 {}
    let bandwidth = (SEQUENTIAL_MIB * MIB) as f64 / begun.elapsed().as_secs_f64();

    let source = work.source(&Set::Tree { files, bytes: 4096 })?;
    let installation = Installation::start(work, &[])?;
    if !installation.registration(&source, "tree", "s1").status()?.success() {
        bail!("the tree was not registered");
    }
    run(&mut Command::new("sync"))?;
    cool();
    let walk = check(&installation, &[])?;
    cool();
    let scrub = check(&installation, &["--content"])?;

    let cycle = WALK_EVERY.as_secs_f64() + files as f64 / WALK_OBJECTS;
    let cold = if is_cold { "cold" } else { "warm (only root can empty the cache)" };
    println!(
        "comparing {files} copies of 4 KiB, {cold}; this disk reads {:.0} MiB/s\n",
        bandwidth / MIB as f64
    );
    println!(
        "| what | at full speed s | read MiB | processor s | spread over | share of the disk | of a processor |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let row = |what: &str, cost: &Cost, seconds: f64, spread: &str| {
        let [time, busy] = [cost.time, cost.processor].map(|time| time.as_secs_f64());
        let [disk, processor] = [time, busy].map(|time| time / seconds * 100.0);
        let read = cost.read_bytes as f64 / MIB as f64;
        println!(
            "| {what} | {time:.2} | {read:.1} | {busy:.2} | {spread} | {disk:.4} % | {processor:.4} % |"
        );
        disk / 100.0
    };
    let disk = row("walk: sizes and times", &walk, cycle, &format!("{cycle:.0} s"));
    row("scrub: all bytes", &scrub, SCRUB_EVERY.as_secs_f64(), "28 days");
    // A large copy it reads at this pace; in between it rests.
    let reading = SCRUB_BYTES / bandwidth;
    println!("\nwhile the scrub reads a large copy, at 20 MiB/s: {:.1} % of this disk", reading * 100.0);
    let met_disk = disk <= GOAL && reading <= GOAL;
    println!("goal: less than a tenth of the disk: {}", if met_disk { "met" } else { "missed" });
    if reading > GOAL {
        println!("this disk is slow: set scrub-bytes to {:.0} or less on such servers", bandwidth * GOAL);
    }
    if disk > GOAL {
        println!("this disk is slow: set walk-every to {:.0}s or more", walk.time.as_secs_f64() / GOAL);
    }

    let found = tamper(&installation)?;
    let met_time = found <= FOUND_MAX;
    println!(
        "one copy removed and one rotten among {files}: repaired after {:.1} s, at most {} s: {}\n",
        found.as_secs_f64(),
        FOUND_MAX.as_secs(),
        if met_time { "met" } else { "missed" }
    );
    Ok(met_disk && met_time)
}

/// Empties the memory of the machine of what was read; only root can.
fn cool() -> bool {
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// What one comparison of everything costs.
struct Cost {
    time: Duration,
    processor: Duration,
    read_bytes: u64,
}

/// Compares everything on s2 at full speed: all that time the disk is busy with it, or less.
fn check(installation: &Installation, depth: &[&str]) -> Result<Cost> {
    let (busy, read) = (installation.processor("s2")?, installation.read_bytes("s2")?);
    let begun = Instant::now();
    run(installation.command(&["file", "check", "--server", "s2"]).args(depth))?;
    let time = begun.elapsed();
    let processor = installation.processor("s2")?.saturating_sub(busy);
    Ok(Cost { time, processor, read_bytes: installation.read_bytes("s2")?.saturating_sub(read) })
}

/// Removes one copy of s2 and lets another rot; how long until both are right again.
fn tamper(installation: &Installation) -> Result<Duration> {
    let tree = installation.transfer("s2").join("tree");
    let (lost, rotten) = (tree.join("d0000/f000001.bin"), tree.join("d0050/f005000.bin"));
    let right = [fs::read(&lost)?, fs::read(&rotten).context("10,000 files are needed")?];
    let begun = Instant::now();
    fs::remove_file(&lost)?;
    rot(&rotten)?;
    while [&lost, &rotten]
        .into_iter()
        .zip(&right)
        .any(|(place, right)| fs::read(place).ok().as_ref() != Some(right))
    {
        if begun.elapsed() > 2 * FOUND_MAX {
            bail!("nothing was repaired within {:?}", 2 * FOUND_MAX);
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(begun.elapsed())
}

/// Changes a byte and sets the time back, as a disk does.
fn rot(place: &Path) -> Result<()> {
    let modified = fs::metadata(place)?.modified()?;
    let file = File::options().read(true).write(true).open(place)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100)?;
    file.write_all_at(&[!byte[0]], 100)?;
    Ok(file.set_modified(modified)?)
}
