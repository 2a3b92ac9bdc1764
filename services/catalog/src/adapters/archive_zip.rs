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

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use futures::stream;
    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;

    fn archive() -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for (name, content) in [("a", &b"one"[..]), ("b", &[7; 3_000]), ("empty", b""), ("c", b"three")] {
            writer.start_file(name, options).expect("in memory");
            writer.write_all(content).expect("in memory");
        }
        writer.finish().expect("in memory").into_inner()
    }

    fn reader(bytes: &[u8]) -> impl ArchiveReader<Broken = &'static str> + use<> {
        let pieces: Vec<_> = bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        ZipReader::new(stream::iter(pieces))
    }

    async fn content(reader: &mut impl ArchiveReader<Broken = &'static str>) -> Vec<u8> {
        let mut content = Vec::new();
        while let Some(bytes) = reader.next_chunk().await.expect("it is good") {
            content.extend_from_slice(&bytes);
        }
        content
    }

    /// R59: entries come one after the other, whether or not somebody reads them.
    #[tokio::test]
    async fn entries_are_read_or_skipped() {
        let mut reader = reader(&archive());
        assert_eq!(content(&mut reader).await, b"", "nothing before the first entry");
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().await.expect("it is good") {
            if entry.path.as_str() == "c" {
                assert_eq!((entry.size_bytes, content(&mut reader).await), (Some(5), b"three".to_vec()));
                assert_eq!(reader.next_chunk().await, Ok(None), "it stays at its end");
            }
            names.push(entry.path.to_string());
        }
        assert_eq!(names, ["a", "b", "empty", "c"]);
        assert_eq!(reader.next_entry().await, Ok(None), "it stays at its end");
        assert_eq!(reader.finish().await, Ok(ArchiveSummary { file_count: 4, total_bytes: 3_008 }));
    }

    /// R59: whatever was read before, only the end says that an archive is good.
    #[tokio::test]
    async fn only_the_end_says_that_it_is_good() {
        assert_eq!(reader(&archive()).finish().await.map(|summary| summary.file_count), Ok(4));
        let mut bytes = archive();
        bytes.pop();
        let mut cut = reader(&bytes);
        for _ in 0..4 {
            assert!(cut.next_entry().await.expect("its entries are good").is_some());
        }
        let error = cut.next_entry().await.expect_err("its end is not");
        assert!(error.to_string().contains("the archive: it ends in the middle"), "{error}");
        assert!(cut.finish().await.is_err(), "it stays refused");
    }

    /// R59: an archive whose sender is gone is not one that is malformed.
    #[tokio::test]
    async fn a_sender_that_is_gone_is_told_as_that() {
        let pieces = [Ok(Bytes::from_static(b"PK\x03\x04")), Err("gone")];
        let mut broken = ZipReader::new(stream::iter(pieces));
        assert_eq!(broken.next_entry().await, Err(ArchiveError::Broken("gone")));
    }
}
