//! What the guard keeps across a restart of its process: one small file, replaced whole.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use lockstep_model::ServerId;
use serde::{Deserialize, Serialize};

use crate::domain::{fence::Override, step::Stored};

/// The version of the file.
const FORMAT: u32 = 1;

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    format: u32,
    /// What is known of steps.
    pub steps: Stored,
    /// Who knows better, if somebody does.
    pub clock_override: Option<Override>,
    /// The peers that were known last, with their addresses, for a start without a registry.
    pub peers: BTreeMap<ServerId, String>,
}

impl Notes {
    /// In the format of this version.
    pub fn new(steps: Stored, clock_override: Option<Override>, peers: BTreeMap<ServerId, String>) -> Self {
        Self { format: FORMAT, steps, clock_override, peers }
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Notebook {
    path: PathBuf,
}

impl Notebook {
    /// In a directory, which is made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { path: directory.join("clock.json") })
    }

    /// What was written last; `None` if nothing was, or it cannot be used, which is logged: nothing is lost with it that
    /// witnesses do not tell again.
    pub fn read(&self) -> Option<Notes> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "what was noted of the clock cannot be read, it is begun anew");
                return None;
            }
        };
        match serde_json::from_slice::<Notes>(&text) {
            Ok(notes) if notes.format == FORMAT => Some(notes),
            Ok(notes) => {
                tracing::warn!(path = %self.path.display(), format = notes.format, "what was noted of the clock is of another version, it is begun anew");
                None
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "what was noted of the clock cannot be read, it is begun anew");
                None
            }
        }
    }

    /// Writes all of it, durably: beside the file first, then over it.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn write(&self, notes: Notes) -> io::Result<()> {
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let beside = path.with_extension("new");
            let mut file = fs::File::create(&beside)?;
            file.write_all(&serde_json::to_vec(&notes)?)?;
            file.sync_data()?;
            fs::rename(&beside, &path)
        });
        written.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Reading;

    fn notes() -> Notes {
        let last = Reading { wall_ns: -5_000_000_000, since: Duration::from_millis(7_001) };
        let by = Override {
            until: Duration::from_secs(9),
            principal: "operator/ann".to_owned(),
            justification: "the others are wrong".to_owned(),
            request_id: "r".to_owned(),
        };
        let steps = Stored { boot: "b".to_owned(), last, pending: None };
        Notes::new(
            steps,
            Some(by),
            BTreeMap::from([("s2".parse().expect("an id"), "https://s2:1".to_owned())]),
        )
    }

    /// R64: what is known of steps outlives the process, also of a clock that showed a time before 1970.
    #[tokio::test]
    async fn notes_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let notebook = Notebook::open(directory.path()).expect("opened");
        assert_eq!(notebook.read(), None);
        notebook.write(notes()).await.expect("written");
        assert_eq!(notebook.read(), Some(notes()));
        for broken in ["", "{", r#"{"format":2}"#] {
            fs::write(directory.path().join("clock.json"), broken).expect("written");
            assert_eq!(notebook.read(), None, "{broken}");
        }
    }
}
