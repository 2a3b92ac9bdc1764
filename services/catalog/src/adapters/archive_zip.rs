//! Zip archives, over any stream of bytes.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};

use crate::{
    domain::archive::{Step, Unzip},
    ports::{ArchiveEntry, ArchiveError, ArchiveReader, ArchiveSummary},
};

/// A zip archive that arrives as chunks, in order, each of a size that memory has room for.
pub struct ZipReader<S> {
    input: S,
    unzip: Unzip,
    /// A step that was taken and belongs to a later call.
    ahead: Option<Step>,
    is_within: bool,
}

impl<S, E> ZipReader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: std::fmt::Debug + Send,
{
    /// Reads from `input`.
    pub fn new(input: S) -> Self {
        Self { input, unzip: Unzip::default(), ahead: None, is_within: false }
    }

    async fn step(&mut self) -> Result<Step, ArchiveError<E>> {
        if let Some(step) = self.ahead.take() {
            return Ok(step);
        }
        loop {
            match self.unzip.step()? {
                Step::Hungry => match self.input.next().await {
                    Some(Ok(bytes)) => self.unzip.push(&bytes),
                    Some(Err(error)) => return Err(ArchiveError::Broken(error)),
                    None => self.unzip.close(),
                },
                step => return Ok(step),
            }
        }
    }
}

impl<S, E> ArchiveReader for ZipReader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: std::fmt::Debug + Send,
{
    type Broken = E;

    async fn next_entry(&mut self) -> Result<Option<ArchiveEntry>, ArchiveError<E>> {
        loop {
            match self.step().await? {
                Step::Entry(entry) => {
                    self.is_within = true;
                    return Ok(Some(entry));
                }
                end @ Step::End(_) => {
                    self.ahead = Some(end);
                    return Ok(None);
                }
                Step::Chunk(_) | Step::EntryEnd | Step::Hungry => self.is_within = false,
            }
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, ArchiveError<E>> {
        if !self.is_within {
            return Ok(None);
        }
        match self.step().await? {
            Step::Chunk(bytes) => Ok(Some(bytes)),
            Step::EntryEnd | Step::Hungry => {
                self.is_within = false;
                Ok(None)
            }
            other => {
                self.is_within = false;
                self.ahead = Some(other);
                Ok(None)
            }
        }
    }

    async fn finish(mut self) -> Result<ArchiveSummary, ArchiveError<E>> {
        loop {
            if let Step::End(summary) = self.step().await? {
                return Ok(summary);
            }
        }
    }
}
