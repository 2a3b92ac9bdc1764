//! What lies on the disk of one server, whoever put it there.

use lockstep_model::FilePath;

use super::{Algorithms, Hashed, StoreError};
use crate::domain::{
    aside::{AsideFile, AsideNote},
    held::{StagedName, Stat},
};

/// What a person sees in the transfer directory, and what was moved out of the way there. Like everything of a store,
/// nothing here follows a link or leaves the root (R70).
pub trait Tree: Send + Sync + 'static {
    /// Whether the root is still the store that was claimed: [`StoreError::Offline`] if its marker is gone or another's.
    fn verify(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is in a directory of the transfer directory, in no order; the empty text is the top.
    fn entries(&self, directory: String) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send;

    /// What files look like that may be registered where they lie; [`StoreError::Foreign`] for what may not.
    fn inspect(
        &self,
        paths: Vec<FilePath>,
    ) -> impl Future<Output = Result<Vec<Result<Stat, StoreError>>, StoreError>> + Send;

    /// Reads and hashes files where they lie, and makes them durable. [`StoreError::Changed`] for one that is written
    /// to, even if no clock of the file system can tell; [`StoreError::Foreign`] for what [`Tree::inspect`] refuses.
    fn hash_in_place(
        &self,
        paths: Vec<FilePath>,
        wanted: Algorithms,
    ) -> impl Future<Output = Result<Vec<Result<Hashed, StoreError>>, StoreError>> + Send;

    /// Keeps a staged file, whose bytes are not ours to remove, under the name that it has, or with a number behind it
    /// where that is taken: one file may be displaced again and again. Answers the name. Durable on return.
    fn set_aside(
        &self,
        name: StagedName,
        note: AsideNote,
    ) -> impl Future<Output = Result<StagedName, StoreError>> + Send;

    /// Moves whatever is at a path aside, in one step: a crash leaves it at the one place or the other.
    fn displace(
        &self,
        id: StagedName,
        note: AsideNote,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Everything that is set aside, ordered by id.
    fn aside(&self) -> impl Future<Output = Result<Vec<AsideFile>, StoreError>> + Send;

    /// Moves what is set aside to a free path.
    fn bring_back(
        &self,
        id: StagedName,
        path: FilePath,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes what is set aside.
    fn drop_aside(&self, id: StagedName) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What something in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Neither, or with a name that is no text.
    Other(&'static str),
}
