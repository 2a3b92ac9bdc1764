//! `make bench`: Lockstep beside the tools that people use today, on the same work, in turn, in one run on one machine.
//!
//! From the call until every byte is verified, durable and visible on all servers; the median of several rounds. Only
//! ratios within one run carry over to other machines.
//!
//! ```text
//! ROUNDS=5  SIZE_MIB=1024  FILES=10000  COPY_MIB=2048  WORK=dir  LOCKSTEP_BIN=path   (all optional)
//! SERVERS=200  MATRIX_FILES=100000                                                   (one gateway with many servers)
//! NOTICE_FILES=400                                                                   (small files, one after the other)
//! UPDATES=1000                                                                       (connection data; with SERVERS)
//! ONLY=tools | beside | walk | many | notice | resolve                                        (one part alone)
//! ```
#![allow(clippy::print_stdout, reason = "it is a program that prints a table")]

mod beside;
mod guards;
mod lockstep;
mod lost;
mod many;
mod notice;
mod peers;
mod resolve;
mod walk;
mod work;

use std::{env, process::ExitCode, str::FromStr, time::Duration};

use anyhow::{Context as _, Result};

use self::work::{Set, Work};

/// What one tool did in one round.
struct Sample {
    time: Duration,
    /// Peak resident memory of each filesync, in bytes; empty for the others.
    memory: Vec<(String, u64)>,
}

/// One line of the table.
struct Line {
    tool: &'static str,
    samples: Vec<Sample>,
}

/// Copies received and sent at once by a filesync in these scenarios: one upload and two peers for the origin.
const TRANSFERS: [(&str, u64); 3] = [("s1", 3), ("s2", 1), ("s3", 1)];
const MIB: u64 = 1 << 20;

fn setting<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("\na goal was missed in this run");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("bench: {error:#}");
            ExitCode::from(70)
        }
    }
}

fn run() -> Result<bool> {
    let only: String = setting("ONLY", String::new());
    let chosen = |part: &str| only.is_empty() || only == part;
    let mut met = true;
    if chosen("tools") {
        met &= tools()?;
    }
    if chosen("beside") {
        met &= beside::measure(&Work::new()?)?;
    }
    if chosen("walk") {
        met &= walk::measure(&Work::new()?)?;
    }
    if chosen("notice") {
        met &= notice::measure(&Work::new()?).context("small files one after the other")?;
    }
    if chosen("many") {
        met &= many::run(&Work::new()?).context("one gateway with many servers")?;
    }
    if chosen("resolve") {
        met &= resolve::run(&Work::new()?).context("connection data for devices")?;
    }
    Ok(met)
}

/// The same work by the tools that people use today.
fn tools() -> Result<bool> {
    let rounds: usize = setting("ROUNDS", 5);
    let work = Work::new()?;
    let mut met = true;
    peers::install().context("the tools to compare with could not be installed")?;
    let big = Set::Big { mib: setting("SIZE_MIB", 1024) };
    let tree = Set::Tree { files: setting("FILES", 10_000), bytes: 4096 };
    for (set, goal) in [(big, 1.5), (tree, 1.0)] {
        let source = work.source(&set)?;
        let mut lines: Vec<Line> = ["rsync --fsync", "nginx over TLS", "lockstep"]
            .into_iter()
            .map(|tool| Line { tool, samples: Vec::new() })
            .collect();
        for round in 1..=rounds {
            for line in &mut lines {
                work.settle()?;
                let sample = match line.tool {
                    "lockstep" => lockstep::measure(&work, &set, &source),
                    "nginx over TLS" => peers::nginx(&work, &set, &source),
                    _ => peers::rsync(&work, &set, &source),
                };
                let sample = sample.with_context(|| format!("{} in round {round}", line.tool))?;
                println!("{set}, round {round}: {} {:.2} s", line.tool, sample.time.as_secs_f64());
                line.samples.push(sample);
            }
        }
        met &= report(&set, goal, &lines);
    }
    Ok(met)
}

fn median(samples: &[Sample]) -> f64 {
    let mut times: Vec<f64> = samples.iter().map(|sample| sample.time.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(set: &Set, goal: f64, lines: &[Line]) -> bool {
    let base = lines.first().map_or(f64::NAN, |line| median(&line.samples));
    println!("\n{set}: one server → all, verified and durable\n");
    println!("| tool | median s | least | most | beside rsync |\n| --- | --- | --- | --- | --- |");
    let mut met = true;
    for Line { tool, samples } in lines {
        let times = || samples.iter().map(|sample| sample.time.as_secs_f64());
        let (least, most) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
        let ratio = median(samples) / base;
        println!("| {tool} | {:.2} | {least:.2} | {most:.2} | {ratio:.2} |", median(samples));
        if *tool == "lockstep" {
            met &= ratio <= goal;
        }
    }
    println!("\ngoal: lockstep at most {goal} × rsync: {}", if met { "met" } else { "missed" });
    for (server, transfers) in TRANSFERS {
        let all = lines.iter().flat_map(|line| &line.samples).flat_map(|sample| &sample.memory);
        let peak = all.filter(|(name, _)| name == server).map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let bound = (64 + 24 * transfers) * MIB;
        let fits = peak <= bound;
        println!(
            "peak memory of filesync on {server}: {} MiB, at most {} MiB: {}",
            peak / MIB,
            bound / MIB,
            if fits { "met" } else { "missed" }
        );
        met &= fits;
    }
    println!();
    met
}
