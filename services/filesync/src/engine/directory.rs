//! Directories: all registered files below one go, or get another path, in one change, by whoever saw them.

use lockstep_model::{
    FilePath, Revision,
    path::fold,
    record::{FILE, FileRecord, file_key},
};
use lockstep_registry::{Committed, ListQuery, Record, Registry as _, RegistryError, Request};

use super::{Ask, Engine, change::Step, codec::decode, commit::ATTEMPTS_MAX};
use crate::{domain::error::FileError, ports::Ports};

/// The most files that one change of a directory may concern.
pub const DIRECTORY_FILES_MAX: u64 = 1_000;
/// Paths that a summary names.
const SAMPLE_PATHS: usize = 20;
/// Records that are read at once.
const PAGE_RECORDS: usize = 1_000;

/// The registered files below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many.
    pub file_count: u64,
    /// Their sizes together.
    pub total_bytes: u64,
    /// The highest revision among them.
    pub latest: Revision,
    /// The first paths.
    pub sample: Vec<FilePath>,
}

impl Summary {
    fn add(&mut self, path: &FilePath, revision: Revision, record: &FileRecord) {
        self.file_count += 1;
        self.total_bytes = self.total_bytes.saturating_add(record.size_bytes);
        self.latest = self.latest.max(revision);
        if self.sample.len() < SAMPLE_PATHS {
            self.sample.push(path.clone());
        }
    }
}

/// What a caller saw of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How many files.
    pub file_count: u64,
    /// The highest revision among them.
    pub latest: Revision,
}

impl<P: Ports> Engine<P> {
    /// What a change of a directory would concern.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `REGISTRY_UNAVAILABLE`.
    pub async fn survey(&self, path: &FilePath) -> Result<Summary, FileError> {
        Ok(self.files_below(path, None).await?.0)
    }

    /// Deletes all files below a directory for good; answers what there was, and the revision of the deletion.
    ///
    /// # Errors
    /// As the contract says; after one other than `REGISTRY_UNAVAILABLE` nothing happened.
    pub async fn delete_directory(
        &self,
        ask: Ask,
        path: FilePath,
        seen: Seen,
    ) -> Result<(Summary, Revision), FileError> {
        let engine = self.clone();
        self.detached(async move { engine.change_directory(&ask, &path, None, seen).await }).await
    }

    /// Moves all files below a directory to below another one; answers what there was, and the revision of the move.
    ///
    /// # Errors
    /// As the contract says; after one other than `REGISTRY_UNAVAILABLE` nothing happened.
    pub async fn move_directory(
        &self,
        ask: Ask,
        path: FilePath,
        new_path: FilePath,
        seen: Seen,
    ) -> Result<(Summary, Revision), FileError> {
        let engine = self.clone();
        self.detached(async move { engine.change_directory(&ask, &path, Some(&new_path), seen).await }).await
    }

    async fn change_directory(
        &self,
        ask: &Ask,
        path: &FilePath,
        to: Option<&FilePath>,
        seen: Seen,
    ) -> Result<(Summary, Revision), FileError> {
        self.may_change()?;
        // Of the same request at the same time, the second waits for the answer of the first.
        let _turn = self.inner.requests.acquire_names([fold(&ask.label())].into()).await;
        let Seen { file_count, latest } = seen;
        let fingerprint = match to {
            None => format!("delete directory {path} {file_count} {latest}"),
            Some(to) => format!("move directory {path} {file_count} {latest} {to}"),
        };
        let request = Request { caller: ask.caller.clone(), id: ask.request_id.to_string(), fingerprint };
        if let Some(revision) = self.known_request(&request).await? {
            return self.replay_directory(path, revision).await;
        }
        self.may_originate(ask.deadline).await?;
        match self.try_change(ask, &request, path, to, seen).await {
            // Another server may have carried it out at the same time; then what is in the way is its work.
            Err(error) => match self.known_request(&request).await? {
                Some(revision) => self.replay_directory(path, revision).await,
                None => Err(error),
            },
            Ok((_, committed)) if committed.replayed => self.replay_directory(path, committed.revision).await,
            Ok((summary, committed)) => {
                self.follow_own_change(path).await;
                Ok((summary, committed.revision))
            }
        }
    }

    async fn try_change(
        &self,
        ask: &Ask,
        request: &Request,
        path: &FilePath,
        to: Option<&FilePath>,
        seen: Seen,
    ) -> Result<(Summary, Committed), FileError> {
        for _ in 0..ATTEMPTS_MAX {
            let (summary, steps) = self.files_below(path, to).await?;
            if (summary.file_count, summary.latest) != (seen.file_count, seen.latest) {
                return Err(FileError::DirectoryChanged {
                    path: path.clone(),
                    expected_count: seen.file_count,
                    expected: seen.latest,
                    actual_count: summary.file_count,
                    actual: summary.latest,
                });
            }
            if summary.file_count > DIRECTORY_FILES_MAX {
                let (path, file_count) = (path.clone(), summary.file_count);
                return Err(FileError::DirectoryTooLarge { path, file_count, limit: DIRECTORY_FILES_MAX });
            }
            let new: Vec<FilePath> = steps.iter().filter_map(|step| step.to.clone()).collect();
            let _lease = self.acquire_free(&new, &[], ask).await?;
            match self.commit_steps(ask, request.clone(), &steps).await {
                Err(FileError::Registry(RegistryError::Refused { .. })) => {}
                Err(error) => return Err(error),
                Ok(committed) => {
                    match to {
                        Some(_) => fail::fail_point!("filesync.move.committed"),
                        None => fail::fail_point!("filesync.delete.committed"),
                    }
                    return Ok((summary, committed));
                }
            }
        }
        let cause = "other changes of the same names kept coming in between".to_owned();
        Err(RegistryError::Unavailable { cause }.into())
    }

    /// The files below a directory, and of the first of them what is to be done.
    async fn files_below(
        &self,
        path: &FilePath,
        to: Option<&FilePath>,
    ) -> Result<(Summary, Vec<Step>), FileError> {
        let prefix = format!("{}/", file_key(path));
        let mut query = ListQuery { prefix: prefix.clone(), limit: PAGE_RECORDS, ..ListQuery::default() };
        let (mut summary, mut steps) = (Summary::default(), Vec::new());
        loop {
            let page = self.registry().list(query.clone()).await?;
            for record in &page.records {
                let (file, body) = (path_of(record)?, decode(record)?);
                summary.add(&file, record.revision, &body);
                if summary.file_count <= DIRECTORY_FILES_MAX {
                    let to = match to {
                        Some(to) => Some(parsed(format!("{to}/{}", &record.key[prefix.len()..]))?),
                        None => None,
                    };
                    steps.push(Step { path: file, revision: record.revision, body, to });
                }
            }
            match page.records.last().filter(|_| page.more) {
                Some(last) => query.after_key = last.key.clone(),
                None if summary.file_count == 0 => {
                    return Err(FileError::NothingBelow { path: path.clone() });
                }
                None => return Ok((summary, steps)),
            }
        }
    }

    /// The first answer of a request that is known, from the tombstones that its transaction wrote.
    async fn replay_directory(
        &self,
        path: &FilePath,
        revision: Revision,
    ) -> Result<(Summary, Revision), FileError> {
        let prefix = format!("{}/", file_key(path));
        let mut summary = Summary::default();
        let written = self.registry().transaction(revision).await?;
        for record in written.iter().filter(|record| record.deleted && record.key.starts_with(&prefix)) {
            let body = decode(record)?;
            summary.add(&path_of(record)?, body.registered_revision.unwrap_or_default(), &body);
        }
        Ok((summary, revision))
    }
}

fn path_of(record: &Record) -> Result<FilePath, FileError> {
    parsed(record.key[FILE.len()..].to_owned())
}

fn parsed(text: String) -> Result<FilePath, FileError> {
    text.parse().map_err(|rule| FileError::InvalidPath { text, rule })
}
