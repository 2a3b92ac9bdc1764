//! What this server is about to do, written down before it is done, so that a crash in the middle can be settled.

use lockstep_model::{Digest, FilePath};
use serde::{Deserialize, Serialize};

use crate::domain::{
    held::{StagedName, Stat, Wanted},
    tree::Groups,
};

/// Something begun. Settled at start and at the beginning of every round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Intent {
    /// Files that are staged and about to be committed. After a crash the registry says whether they were: the live
    /// record at the path carries the `file_id`, or it does not.
    Register {
        /// Each file with its bytes in staging. The revision is not known yet.
        files: Vec<Staged>,
    },
    /// Files that lie at their paths and are about to be committed, new or as a new version. Told apart after a crash
    /// like those of `Register`, by `file_id` and digest.
    InPlace {
        /// What they will be. The revision is not known yet.
        files: Vec<Wanted>,
    },
    /// A file whose deletion is committed and that is about to leave the transfer directory.
    Delete {
        /// Where it is.
        path: FilePath,
        /// Where it goes before it is unlinked.
        staged: StagedName,
        /// What it should be; anything else is somebody's and is set aside.
        digest: Digest,
    },
}

/// A file to be registered, with its bytes in staging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// What it will be.
    pub wanted: Wanted,
    /// Where its bytes are.
    pub staged: StagedName,
    /// What the staged file looked like when its bytes were read and found right, and the hashes of its groups; nothing
    /// after a restart.
    #[serde(skip)]
    pub checked: Option<(Stat, Groups)>,
}

impl Intent {
    /// The staged files that it still needs.
    pub fn staged(&self) -> Vec<&StagedName> {
        match self {
            Self::Register { files } => files.iter().map(|file| &file.staged).collect(),
            Self::InPlace { .. } => Vec::new(),
            Self::Delete { staged, .. } => vec![staged],
        }
    }
}
