//! What this server is about to do, written down before it is done, so that a crash in the middle can be settled.

use lockstep_model::{Digest, FilePath, Reason, Revision};
use lockstep_registry::Request;
use serde::{Deserialize, Serialize};

use crate::domain::{
    held::{StagedName, Stat, Wanted},
    tree::Groups,
};

/// Something begun. Settled at start and at the beginning of every round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Intent {
    /// Files that are staged and about to be committed. After a crash the registry says whether they were: it knows the
    /// request, or the live record at the path was made by it.
    Register {
        /// Each file with its bytes in staging. The revision is not known yet.
        files: Vec<Staged>,
        /// The request; none where the commit is over already.
        #[serde(default)]
        asked: Option<Asked>,
    },
    /// Staged bytes that are about to change places with what is at a path. After a crash that is in staging, or it is not.
    Exchange {
        /// What comes, and where.
        wanted: Wanted,
        /// Its bytes, and then those that were displaced.
        staged: StagedName,
        /// The bytes that are known to be there; anything else is somebody's and is set aside.
        known: Option<Digest>,
        /// Why what is there is not what is wanted, where that is known.
        #[serde(default)]
        displaces: Option<Reason>,
    },
    /// Files that lie at their paths and are about to be committed, new or as a new version. Told apart after a crash
    /// like those of `Register`, by `file_id` and digest.
    InPlace {
        /// What they will be. The revision is not known yet.
        files: Vec<Wanted>,
    },
    /// Files that have another path by now, and whose copies are about to be renamed. After a crash the bytes are at the one
    /// path or the other; what became of the file meanwhile does not tell at which.
    Move {
        /// From where, and what they are at their new path.
        moves: Vec<(FilePath, Wanted)>,
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
    /// The revision of the file that it replaces.
    #[serde(default)]
    pub replaces: Option<Revision>,
    /// The path that was asked for, where a free one was chosen instead.
    #[serde(default)]
    pub instead_of: Option<FilePath>,
    /// What the staged file looked like when its bytes were read and found right, and the hashes of its groups; nothing
    /// after a restart.
    #[serde(skip)]
    pub checked: Option<(Stat, Groups)>,
}

/// A request, as the registry remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Who.
    pub caller: String,
    /// The name of the request.
    pub id: String,
    /// What was asked.
    pub fingerprint: String,
}

impl Asked {
    /// What to remember of a request.
    pub fn of(request: &Request) -> Self {
        let Request { caller, id, fingerprint } = request.clone();
        Self { caller, id, fingerprint }
    }

    /// The request.
    pub fn request(&self) -> Request {
        let Self { caller, id, fingerprint } = self.clone();
        Request { caller, id, fingerprint }
    }

    /// How records remember it.
    pub fn label(&self) -> String {
        format!("{} {}", self.caller, self.id)
    }
}

impl Staged {
    /// Bytes that are to be what is wanted, under a path that nobody else has.
    pub fn new(wanted: Wanted, staged: StagedName) -> Self {
        Self { wanted, staged, replaces: None, instead_of: None, checked: None }
    }

    /// The path that was asked for.
    pub fn asked_path(&self) -> &FilePath {
        self.instead_of.as_ref().unwrap_or(&self.wanted.path)
    }
}

impl Intent {
    /// The paths that it is about.
    pub fn paths(&self) -> Vec<&FilePath> {
        match self {
            Self::Register { files, .. } => files.iter().map(|file| &file.wanted.path).collect(),
            Self::InPlace { files } => files.iter().map(|wanted| &wanted.path).collect(),
            Self::Exchange { wanted, .. } => vec![&wanted.path],
            Self::Move { moves } => moves.iter().flat_map(|(from, wanted)| [from, &wanted.path]).collect(),
            Self::Delete { path, .. } => vec![path],
        }
    }

    /// Whether it stands between a server and a copy: something at the path, or the bytes themselves under the path that
    /// the file had before.
    pub fn concerns(&self, copy: &Wanted) -> bool {
        let is_it = |file: &Staged| file.wanted.file_id == copy.file_id && file.wanted.digest == copy.digest;
        let has_bytes = matches!(self, Self::Register { files, .. } if files.iter().any(is_it));
        has_bytes || self.paths().contains(&&copy.path)
    }

    /// The staged files that it still needs.
    pub fn staged(&self) -> Vec<&StagedName> {
        match self {
            Self::Register { files, .. } => files.iter().map(|file| &file.staged).collect(),
            Self::InPlace { .. } | Self::Move { .. } => Vec::new(),
            Self::Exchange { staged, .. } | Self::Delete { staged, .. } => vec![staged],
        }
    }
}
