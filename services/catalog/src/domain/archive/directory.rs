//! The directory at the end of an archive, compared with what was read before it.

use super::{
    fields::Fields,
    header::{self, Header},
    wrong, wrong_archive,
};
use crate::ports::ArchiveInvalid;

/// Begins the end.
pub(super) const END: u32 = 0x0605_4b50;
/// Begins the end with numbers of 8 bytes.
pub(super) const ZIP64_END: u32 = 0x0606_4b50;
/// Begins what says where that is.
pub(super) const ZIP64_LOCATOR: u32 = 0x0706_4b50;
/// Bytes of the end, without the comment.
pub(super) const END_BYTES: usize = 22;
/// Bytes of the end with numbers of 8 bytes, of version 1.
pub(super) const ZIP64_END_BYTES: usize = 56;
/// Bytes of what says where that is.
pub(super) const ZIP64_LOCATOR_BYTES: usize = 20;

/// An entry that was read.
struct Seen {
    offset: u64,
    header: Header,
    is_listed: bool,
}

/// What was read, and how much of it the directory has told again.
#[derive(Default)]
pub(super) struct Directory {
    /// Ordered by their places.
    seen: Vec<Seen>,
    listed: usize,
    /// Where it begins.
    start: u64,
    /// Where its last header ends.
    end: u64,
    /// Where the end with numbers of 8 bytes is, if there is one.
    zip64: Option<u64>,
}

impl Directory {
    /// How many entries were read.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Remembers an entry that was read: what it really was, and where its header begins.
    pub(super) fn add(&mut self, header: Header, offset: u64) {
        self.seen.push(Seen { offset, header, is_listed: false });
    }

    /// The last entry was read.
    pub(super) fn begin(&mut self, offset: u64) {
        (self.start, self.end) = (offset, offset);
    }

    /// Compares a header of the directory that ends at `end`.
    pub(super) fn compare(&mut self, bytes: &[u8], end: u64) -> Result<(), ArchiveInvalid> {
        let (header, offset) = header::read_central(bytes)?;
        self.end = end;
        self.listed += 1;
        let found = self.seen.binary_search_by_key(&offset, |seen| seen.offset);
        let seen = found.ok().and_then(|index| self.seen.get_mut(index)).filter(|seen| !seen.is_listed);
        let Some(seen) = seen else {
            return Err(wrong(&header.name, "the directory of the archive lists it, where no such entry is"));
        };
        seen.is_listed = true;
        seen.header.difference(&header).map_or(Ok(()), |rule| Err(wrong(&seen.header.name, rule)))
    }

    /// All entries must have been listed by now.
    pub(super) fn check_complete(&self) -> Result<(), ArchiveInvalid> {
        let missing = self.seen.iter().find(|seen| !seen.is_listed);
        missing.map_or(Ok(()), |seen| {
            Err(wrong(&seen.header.name, "the directory of the archive does not list it"))
        })
    }

    /// Compares the end with numbers of 8 bytes, at `offset`.
    pub(super) fn compare_zip64(&mut self, bytes: &[u8], offset: u64) -> Result<(), ArchiveInvalid> {
        let fields = Fields(bytes);
        if fields.u64(4) != (ZIP64_END_BYTES - 12) as u64 {
            return Err(wrong_archive("its zip64 end is of a kind that is not known"));
        }
        let says = [
            (fields.u32(16).into(), 0),
            (fields.u32(20).into(), 0),
            (fields.u64(24), self.listed as u64),
            (fields.u64(32), self.listed as u64),
            (fields.u64(40), self.end - self.start),
            (fields.u64(48), self.start),
        ];
        if says.iter().any(|(says, is)| says != is) {
            return Err(wrong_archive("its zip64 end does not describe its directory"));
        }
        self.zip64 = Some(offset);
        Ok(())
    }

    /// Compares what says where that is.
    pub(super) fn compare_locator(&self, bytes: &[u8]) -> Result<(), ArchiveInvalid> {
        let fields = Fields(bytes);
        // Some tools say that an archive in one part has none.
        let is_one_part = fields.u32(4) == 0 && fields.u32(16) <= 1;
        if self.zip64 == Some(fields.u64(8)) && is_one_part {
            return Ok(());
        }
        Err(wrong_archive("its zip64 locator leads elsewhere"))
    }

    /// Compares the end.
    pub(super) fn compare_end(&self, bytes: &[u8]) -> Result<(), ArchiveInvalid> {
        let fields = Fields(bytes);
        // A number that does not fit is all ones here, and then in the zip64 end.
        let is_fine = |says: u64, ones: u64, is: u64| says == is || says == ones && self.zip64.is_some();
        let short = |at: usize, is: u64| is_fine(fields.u16(at).into(), u16::MAX.into(), is);
        let long = |at: usize, is: u64| is_fine(fields.u32(at).into(), u32::MAX.into(), is);
        let listed = self.listed as u64;
        let all = short(4, 0)
            && short(6, 0)
            && short(8, listed)
            && short(10, listed)
            && long(12, self.end - self.start)
            && long(16, self.start);
        if all { Ok(()) } else { Err(wrong_archive("its end does not describe its directory")) }
    }
}
