//! Fail points: marked by `fail::fail_point!("service.operation.step")`, armed by the environment of a test.
//!
//! - `LOCKSTEP_CRASH=point` or `point=N`: SIGKILL at the Nth time the point is reached (default 1).
//! - `LOCKSTEP_PAUSE=point=/path`: waits at the point while the file `/path` exists.
//! - `LOCKSTEP_HITS=/path`: appends the name of each point that is reached, one a line. Since a point must be known to
//!   be told, `LOCKSTEP_POINTS=a,b,c` names the points that count.
//!
//! Without the feature `failpoints` nothing of this is compiled in.

/// Arms the fail points that the environment names. Called once, before anything else runs.
#[cfg(not(feature = "failpoints"))]
pub fn arm() {}

#[cfg(feature = "failpoints")]
pub use armed::arm;

#[cfg(feature = "failpoints")]
mod armed {
    use std::{
        collections::BTreeMap,
        env, fs,
        io::Write as _,
        path::PathBuf,
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    /// How often a paused point looks whether it may go on.
    const PAUSE_POLL: Duration = Duration::from_millis(5);

    /// What happens at one point.
    #[derive(Default)]
    struct Plan {
        crash_at: Option<u64>,
        pause_while: Option<PathBuf>,
        hits: Option<PathBuf>,
        reached: AtomicU64,
    }

    /// Arms the fail points that the environment names. Called once, before anything else runs.
    pub fn arm() {
        let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(text) = variable("LOCKSTEP_CRASH") {
            let (point, count) = text.split_once('=').unwrap_or((&text, "1"));
            plans.entry(point.to_owned()).or_default().crash_at = Some(count.parse().unwrap_or(1));
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
            if self.crash_at == Some(reached) {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }
    }
}
