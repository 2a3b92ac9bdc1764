//! Changes of what is registered already: files that go, or get another path, in one transaction.

use std::collections::BTreeSet;

use lockstep_model::{
    FilePath, Revision,
    path::fold,
    record::{FileRecord, file_key, name_key},
};
use lockstep_registry::{Commit, Committed, ListQuery, Precondition, Record, Registry as _, Request};

use super::{
    Ask, Engine,
    codec::{decode, encode, named},
    free::refuse_taken,
};
use crate::{
    domain::{error::FileError, naming},
    ports::Ports,
};

/// One file that goes, or gets another path.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Where it is.
    pub(super) path: FilePath,
    /// The revision of its record.
    pub(super) revision: Revision,
    /// Its record.
    pub(super) body: FileRecord,
    /// Where it goes; nowhere if it is deleted.
    pub(super) to: Option<FilePath>,
}

impl Step {
    /// A step of the file with this live record, if it is the one that the caller saw.
    pub(super) fn at(
        path: &FilePath,
        record: &Record,
        expected: Revision,
        to: Option<FilePath>,
    ) -> Result<Self, FileError> {
        let body = decode(record)?;
        if record.revision != expected {
            let FileRecord { digest, origin, .. } = body;
            let (path, actual) = (path.clone(), record.revision);
            return Err(FileError::RevisionChanged { path, expected, actual, digest, origin });
        }
        Ok(Self { path: path.clone(), revision: record.revision, body, to })
    }

    fn tombstone(&self, ask: &Ask) -> FileRecord {
        FileRecord {
            deleted_by: Some(ask.label()),
            moved_to: self.to.clone(),
            registered_revision: Some(self.revision),
            ..self.body.clone()
        }
    }

    /// The record at the new path.
    pub(super) fn moved(&self, ask: &Ask) -> FileRecord {
        FileRecord { registered_by: ask.label(), instead_of: None, ..self.body.clone() }
    }
}

impl<P: Ports> Engine<P> {
    /// Commits steps together, with what they do to names.
    pub(super) async fn commit_steps(
        &self,
        ask: &Ask,
        request: Request,
        steps: &[Step],
    ) -> Result<Committed, FileError> {
        let gone: Vec<FilePath> = steps.iter().map(|step| step.path.clone()).collect();
        let new: Vec<FilePath> = steps.iter().filter_map(|step| step.to.clone()).collect();
        let mut commit =
            Commit { request: Some(request), traceparent: ask.traceparent.clone(), ..Commit::default() };
        for step in steps {
            let key = file_key(&step.path);
            commit.preconditions.push(Precondition::At(key.clone(), step.revision));
            commit.deletes.push((key, encode(&step.tombstone(ask))?));
            if let Some(to) = &step.to {
                commit.preconditions.push(Precondition::Absent(file_key(to)));
                commit.puts.push((file_key(to), encode(&step.moved(ask))?));
            }
        }
        let emptied = self.emptied_by(&gone).await?;
        // Names first: whoever sees a name that was just claimed then sees the file, too, for which it was.
        let names = self.names(&[gone.as_slice(), &new].concat()).await?;
        if !new.is_empty() {
            let latest = self.registry().get_latest(new.iter().map(file_key).collect()).await?;
            refuse_taken(&new, latest, "")?;
        }
        let changes = naming::relocate(&gone, &emptied, &new, &names)
            .map_err(|clash| FileError::PathConflict { path: clash.path, other: clash.other })?;
        commit.preconditions.extend(changes.absent.into_iter().map(Precondition::Absent));
        commit.preconditions.extend(changes.kept.into_iter().map(|(key, at)| Precondition::At(key, at)));
        commit.preconditions.extend(changes.empty.into_iter().map(Precondition::PrefixEmpty));
        for (key, record) in changes.puts {
            commit.puts.push((key, encode(&record)?));
        }
        commit.deletes.extend(changes.deletes.into_iter().map(|key| (key, "{}".to_owned())));
        self.originate(commit).await?.map_err(|error| named(error, ask.request_id.as_str()))
    }

    /// The directories that have nothing else below them than `gone` and what leads to it.
    async fn emptied_by(&self, gone: &[FilePath]) -> Result<BTreeSet<String>, FileError> {
        let mut going: BTreeSet<String> = gone.iter().map(|path| name_key(&path.folded())).collect();
        let above: BTreeSet<&str> = gone.iter().flat_map(FilePath::ancestors).collect();
        let mut above: Vec<&str> = above.into_iter().collect();
        above.sort_by_key(|directory| std::cmp::Reverse(directory.matches('/').count()));
        let (mut emptied, mut filled) = (BTreeSet::new(), BTreeSet::new());
        for directory in above {
            let key = name_key(&fold(directory));
            let query =
                ListQuery { prefix: format!("{key}/"), limit: going.len() + 1, ..ListQuery::default() };
            let is_filled = filled.contains(directory) || {
                let below = self.registry().list(query).await?;
                below.more || below.records.iter().any(|record| !going.contains(&record.key))
            };
            if is_filled {
                // Whatever is below it is below those above it, too.
                filled.extend(directory.rsplit_once('/').map(|(parent, _)| parent));
                continue;
            }
            going.insert(key);
            emptied.insert(directory.to_owned());
        }
        Ok(emptied)
    }
}
