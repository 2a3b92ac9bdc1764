//! Fail points: marked by `fail::fail_point!("service.operation.step")`, armed by the environment of a test.
//!
//! - `LOCKSTEP_CRASH=point` or `point=N`: SIGKILL at the Nth time the point is reached (default 1).
//! - `LOCKSTEP_STOP=point` or `point=N`: SIGSTOP then, for as long as nobody sends SIGCONT.
//! - `LOCKSTEP_PAUSE=point=/path`: waits at the point while the file `/path` exists.
//! - `LOCKSTEP_CLOCK=/path`: the wall clock of the process is ahead by as many nanoseconds as the file says, at any time.
//! - `LOCKSTEP_HITS=/path`: appends the name of each point that is reached, one a line. Since a point must be known to
//!   be told, `LOCKSTEP_POINTS=a,b,c` names the points that count.
//!
//! Without the feature `failpoints` nothing of this is compiled in.

/// Arms the fail points that the environment names. Called once, before anything else runs.
#[cfg(not(feature = "failpoints"))]
pub fn arm() {}

#[cfg(feature = "failpoints")]
pub use armed::{arm, clock_set};

#[cfg(feature = "failpoints")]
mod armed {
    use std::{
        collections::BTreeMap,
        env, fs,
        io::Write as _,
        path::PathBuf,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use lockstep_model::clock::shift;
    use tokio::sync::watch;

    /// Counts how often the wall clock was set by a test.
    static CLOCK_SET: LazyLock<watch::Sender<u64>> = LazyLock::new(watch::Sender::default);

    /// How often a paused point looks whether it may go on.
    const PAUSE_POLL: Duration = Duration::from_millis(5);

    /// What happens at one point.
    #[derive(Default)]
    struct Plan {
        crash_at: Option<u64>,
        stop_at: Option<u64>,
        pause_while: Option<PathBuf>,
        hits: Option<PathBuf>,
        reached: AtomicU64,
    }

    /// Arms the fail points that the environment names. Called once, before anything else runs.
    pub fn arm() {
        arm_by(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        if let Some(path) = env::var_os("LOCKSTEP_CLOCK") {
            follow_clock(path.into());
        }
    }

    /// Tells when the wall clock was set, as the kernel tells it of the real one.
    pub fn clock_set() -> watch::Receiver<u64> {
        CLOCK_SET.subscribe()
    }

    /// Before anything else runs, and from then on.
    fn follow_clock(path: PathBuf) {
        let read = move || fs::read_to_string(&path).ok()?.trim().parse::<i64>().ok();
        let mut known = read().unwrap_or(0);
        shift::set(known);
        let follow = move || {
            loop {
                std::thread::sleep(PAUSE_POLL);
                let Some(now) = read().filter(|now| *now != known) else { continue };
                known = now;
                shift::set(now);
                CLOCK_SET.send_modify(|count| *count += 1);
            }
        };
        // Nobody joins it: it ends with the process.
        if let Err(error) = std::thread::Builder::new().name("clock".to_owned()).spawn(follow) {
            tracing::error!(%error, "the clock cannot be set by the test");
        }
    }

    fn arm_by(variable: impl Fn(&str) -> Option<String>) {
        let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
        let counted = |name: &str| {
            let text = variable(name)?;
            let (point, count) = text.split_once('=').unwrap_or((&text, "1"));
            Some((point.to_owned(), count.parse().unwrap_or(1)))
        };
        if let Some((point, count)) = counted("LOCKSTEP_CRASH") {
            plans.entry(point).or_default().crash_at = Some(count);
        }
        if let Some((point, count)) = counted("LOCKSTEP_STOP") {
            plans.entry(point).or_default().stop_at = Some(count);
        }
        if let Some(text) = variable("LOCKSTEP_PAUSE")
            && let Some((point, path)) = text.split_once('=')
        {
            plans.entry(point.to_owned()).or_default().pause_while = Some(path.into());
        }
        if let (Some(path), Some(points)) = (variable("LOCKSTEP_HITS"), variable("LOCKSTEP_POINTS")) {
            for point in points.split(',') {
                plans.entry(point.to_owned()).or_default().hits = Some(path.clone().into());
            }
        }
        for (point, plan) in plans {
            let name = point.clone();
            let reached = move || plan.reach(&name);
            if let Err(error) = fail::cfg_callback(point, reached) {
                tracing::error!(error, "fail point cannot be armed");
            }
        }
    }

    impl Plan {
        fn reach(&self, point: &str) {
            if let Some(path) = &self.hits
                && let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(path)
            {
                // One write, so that lines of several processes do not mix.
                let _ = file.write_all(format!("{point}\n").as_bytes());
            }
            while self.pause_while.as_ref().is_some_and(|path| path.exists()) {
                std::thread::sleep(PAUSE_POLL);
            }
            let reached = self.reached.fetch_add(1, Ordering::SeqCst) + 1;
            let signal = |signal| rustix::process::kill_process(rustix::process::getpid(), signal);
            if self.crash_at == Some(reached) {
                let _ = signal(rustix::process::Signal::KILL);
            }
            if self.stop_at == Some(reached) {
                let _ = signal(rustix::process::Signal::STOP);
            }
        }
    }
    #[cfg(test)]
    mod tests {
        use std::time::Instant;

        use super::*;

        #[test]
        fn points_are_counted_and_held_while_a_file_is_there() {
            let directory = tempfile::tempdir().expect("a directory");
            let (hits, hold) = (directory.path().join("hits"), directory.path().join("hold"));
            fs::write(&hold, "").expect("written");
            arm_by(|name| match name {
                "LOCKSTEP_HITS" => Some(hits.display().to_string()),
                "LOCKSTEP_POINTS" => Some("test.one,test.two".to_owned()),
                "LOCKSTEP_PAUSE" => Some(format!("test.two={}", hold.display())),
                _ => None,
            });
            fail::fail_point!("test.one");
            fail::fail_point!("test.one");
            fail::fail_point!("test.other");
            let release = std::thread::Builder::new().spawn({
                let hold = hold.clone();
                move || {
                    std::thread::sleep(Duration::from_millis(50));
                    fs::remove_file(hold)
                }
            });
            let begun = Instant::now();
            fail::fail_point!("test.two");
            assert!(begun.elapsed() >= Duration::from_millis(40) && !hold.exists());
            release.expect("a thread").join().expect("no panic").expect("removed");
            assert_eq!(fs::read_to_string(hits).expect("hits"), "test.one\ntest.one\ntest.two\n");
        }
    }
}
