//! A child that waits in the middle of an operation.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Installation, wait};

/// Until a child stands at a point, on a machine that does other things too.
const REACHED_MAX: Duration = Duration::from_secs(60);

/// A fail point at which a child waits until it is released. Only the thread that reaches it waits: a child that is stopped
/// as a whole (SIGSTOP) may own the lock of the registry meanwhile.
#[derive(Debug)]
pub struct Hold {
    point: &'static str,
    pause: String,
    hits: String,
    file: PathBuf,
}

impl Hold {
    /// At `point`, with files of its own in the directory of an installation, which name it `name`.
    pub fn new(installation: &Installation, name: &str, point: &'static str) -> Self {
        let file = installation.directory().join(format!("hold-{name}"));
        fs::write(&file, "").expect("written");
        let pause = format!("{point}={}", file.display());
        let hits = installation.directory().join(format!("hits-{name}")).display().to_string();
        Self { point, pause, hits, file }
    }

    /// What the child is to be started with.
    pub fn variables(&self) -> [(&str, &str); 3] {
        [("LOCKSTEP_PAUSE", &self.pause), ("LOCKSTEP_HITS", &self.hits), ("LOCKSTEP_POINTS", self.point)]
    }

    /// Waits until the child stands at the point.
    pub async fn reached(&self) {
        wait::until(format!("a child stands at {}", self.point), REACHED_MAX, || async {
            Path::new(&self.hits).exists().then_some(()).ok_or("not yet")
        })
        .await;
    }

    /// Lets the child go on.
    pub fn release(self) {
        fs::remove_file(self.file).expect("it was held");
    }
}
