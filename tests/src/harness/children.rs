//! The children of an installation, one at a time.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::Connection;

use super::{Installation, wait};

/// From a signal to its effect, on a machine that does other things too.
const EFFECT_MAX: Duration = Duration::from_secs(20);
/// Longer than anybody who runs holds the lock of the registry.
const LOCK_MAX: Duration = Duration::from_secs(2);

impl Installation {
    /// The process of a child; `None` while it has none.
    pub fn pid(&self, child: &str) -> Option<i32> {
        fs::read_to_string(self.run_file(child, "pid")).ok()?.trim().parse().ok()
    }

    /// The process of a child, as soon as it has one.
    pub async fn process(&self, child: &str) -> i32 {
        wait::until(format!("a process of {child}"), EFFECT_MAX, || async { self.pid(child).ok_or("none") })
            .await
    }

    /// Sends a signal to a child, for example SIGSTOP or SIGCONT.
    pub async fn signal(&self, child: &str, signal: Signal) {
        let pid = self.process(child).await;
        kill(Pid::from_raw(pid), signal).expect("the child is there");
    }

    /// Stops a child (SIGSTOP) at a moment when it does not hold the lock of the registry: everybody would stop with it.
    pub async fn pause(&self, child: &str) {
        wait::until(format!("{child} stands outside of the registry"), EFFECT_MAX, || async {
            self.signal(child, Signal::SIGSTOP).await;
            let registry = self.registry();
            let free =
                tokio::task::spawn_blocking(move || takes_the_lock(&registry)).await.expect("no panic");
            if free.is_err() {
                self.signal(child, Signal::SIGCONT).await;
            }
            free
        })
        .await;
    }

    /// Kills a child; the supervisor starts it again at once. Ends when there is a new process.
    pub async fn kill(&self, child: &str) {
        let pid = self.process(child).await;
        // It may be dying already.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        self.reborn(child, pid).await;
    }

    /// Waits until a child has another process than `pid`.
    pub async fn reborn(&self, child: &str, pid: i32) {
        wait::until(format!("a new life of {child}"), EFFECT_MAX, || async {
            self.pid(child).filter(|new| *new != pid).map(drop).ok_or("none")
        })
        .await;
    }

    /// Kills a child and keeps it down.
    pub async fn take_down(&self, child: &str) {
        fs::write(self.run_file(child, "hold"), "").expect("written");
        if let Some(pid) = self.pid(child) {
            // It may be dying already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        wait::until(format!("the end of {child}"), EFFECT_MAX, || async {
            if self.pid(child).is_none() { Ok(()) } else { Err("it runs") }
        })
        .await;
    }

    /// Starts a child that was taken down, with variables for this life alone.
    pub async fn bring_up(&self, child: &str, variables: &[(&str, &str)]) {
        let text: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        fs::write(self.run_file(child, "env"), text.join(",")).expect("written");
        fs::remove_file(self.run_file(child, "hold")).expect("it was taken down");
        self.process(child).await;
    }

    /// Gives a child a new life with variables of its own.
    pub async fn restart(&self, child: &str, variables: &[(&str, &str)]) {
        self.take_down(child).await;
        self.bring_up(child, variables).await;
    }

    fn run_file(&self, child: &str, kind: &str) -> PathBuf {
        self.data().join("run").join(format!("{child}.{kind}"))
    }
}

/// Takes the lock of the registry and gives it back.
fn takes_the_lock(registry: &Path) -> rusqlite::Result<()> {
    let registry = Connection::open(registry)?;
    registry.busy_timeout(LOCK_MAX)?;
    registry.execute_batch("BEGIN IMMEDIATE; ROLLBACK")
}
