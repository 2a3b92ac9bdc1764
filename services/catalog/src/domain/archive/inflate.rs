//! The data of one entry: unpacked, counted and summed up, within all bounds.

use bytes::{Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::{
    CHUNK_BYTES_MAX, RATIO_FREE_BYTES, RATIO_MAX, TOTAL_BYTES_MAX,
    header::{Header, Method},
    is_bomb, wrong,
};
use crate::ports::ArchiveInvalid;

/// The data of an entry while it comes.
pub(super) struct Content {
    header: Header,
    inflate: Option<Decompress>,
    /// The data said that it ended.
    is_over: bool,
    crc: crc32fast::Hasher,
    /// Packed bytes that were taken.
    packed: u64,
    /// Bytes that were given.
    unpacked: u64,
    /// What all files of the archive may have beside those of earlier ones.
    room: u64,
    output: Vec<u8>,
}

/// What came of some input.
pub(super) enum Progress {
    /// More input is needed.
    Hungry,
    /// Bytes of the file.
    Bytes(Bytes),
    /// There is no more.
    End,
}

impl Content {
    /// `room` is what the archive may still unpack to. What the header says is looked at before the first byte.
    pub(super) fn new(header: Header, room: u64) -> Result<Self, ArchiveInvalid> {
        let inflate = (header.method == Method::Deflated).then(|| Decompress::new(false));
        // Most entries of a hostile archive are tiny.
        let told = if header.has_descriptor { u64::MAX } else { header.unpacked };
        let room_for_output = usize::try_from(told).unwrap_or(usize::MAX).clamp(1, CHUNK_BYTES_MAX);
        let output = if inflate.is_some() { vec![0; room_for_output] } else { Vec::new() };
        let crc = crc32fast::Hasher::new();
        let content = Self { header, inflate, is_over: false, crc, packed: 0, unpacked: 0, room, output };
        content.check_bounds(content.header.packed, content.header.unpacked)?;
        Ok(content)
    }

    /// Whose data it is.
    pub(super) fn name(&self) -> &str {
        &self.header.name
    }

    /// Takes from `input` what belongs to the entry.
    pub(super) fn read(&mut self, input: &mut BytesMut) -> Result<Progress, ArchiveInvalid> {
        let progress = match self.inflate.take() {
            None => self.read_stored(input),
            Some(mut inflate) => {
                let progress = self.read_deflated(&mut inflate, input);
                self.inflate = Some(inflate);
                progress
            }
        }?;
        if let Progress::Bytes(bytes) = &progress {
            self.crc.update(bytes);
            self.unpacked += bytes.len() as u64;
            if !self.header.has_descriptor && self.unpacked > self.header.unpacked {
                return self.refuse("it has more bytes than its header says");
            }
            // Where the header told the sizes, they were looked at, and hold.
            let told = if self.header.has_descriptor { 0 } else { self.header.packed };
            self.check_bounds(self.packed.max(told), self.unpacked)?;
        }
        Ok(progress)
    }

    fn read_stored(&mut self, input: &mut BytesMut) -> Result<Progress, ArchiveInvalid> {
        let left = usize::try_from(self.header.packed - self.packed).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(Progress::End);
        }
        if input.is_empty() {
            return Ok(Progress::Hungry);
        }
        let bytes = input.split_to(left.min(input.len()).min(CHUNK_BYTES_MAX)).freeze();
        self.packed += bytes.len() as u64;
        Ok(Progress::Bytes(bytes))
    }

    fn read_deflated(
        &mut self,
        inflate: &mut Decompress,
        input: &mut BytesMut,
    ) -> Result<Progress, ArchiveInvalid> {
        if self.is_over {
            return Ok(Progress::End);
        }
        // Without a descriptor its end is known, and what lies behind it is not looked at.
        let left = if self.header.has_descriptor { u64::MAX } else { self.header.packed - self.packed };
        let given = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (packed, unpacked) = (inflate.total_in(), inflate.total_out());
        let result = inflate.decompress(&input[..given], &mut self.output, FlushDecompress::None);
        let Ok(status) = result else { return self.refuse("its data is no deflate stream") };
        let taken = usize::try_from(inflate.total_in() - packed).unwrap_or(given);
        let made = usize::try_from(inflate.total_out() - unpacked).unwrap_or(0);
        let _ = input.split_to(taken);
        self.packed += taken as u64;
        self.is_over = status == Status::StreamEnd;
        if made > 0 {
            return Ok(Progress::Bytes(Bytes::copy_from_slice(&self.output[..made])));
        }
        match status {
            Status::StreamEnd => Ok(Progress::End),
            _ if self.packed == self.header.packed && !self.header.has_descriptor => {
                self.refuse("its data ends too early")
            }
            _ if taken == 0 && given > 0 => self.refuse("its data is no deflate stream"),
            _ => Ok(Progress::Hungry),
        }
    }

    fn refuse<T>(&self, rule: &str) -> Result<T, ArchiveInvalid> {
        Err(wrong(&self.header.name, rule))
    }

    fn check_bounds(&self, packed: u64, unpacked: u64) -> Result<(), ArchiveInvalid> {
        if self.header.is_directory && unpacked > 0 {
            return self.refuse("it is a directory with bytes of its own");
        }
        if is_bomb(packed, unpacked, RATIO_FREE_BYTES) {
            return self.refuse(&format!("it unpacks to more than {RATIO_MAX} times its size"));
        }
        if unpacked > self.room {
            return self.refuse(&format!("all files together have more than {} GiB", TOTAL_BYTES_MAX >> 30));
        }
        Ok(())
    }

    /// What the entry really was, after the end of its data; a descriptor is yet to be compared.
    pub(super) fn finish(self) -> Result<Header, ArchiveInvalid> {
        let Self { header, crc, packed, unpacked, .. } = self;
        let real = Header { crc: crc.finalize(), packed, unpacked, ..header.clone() };
        // Of a header before a descriptor nothing is sure but what it says: an old tool may have left zeros.
        let says = (header.crc, header.packed, header.unpacked);
        let is = (real.crc, real.packed, real.unpacked);
        if header.has_descriptor {
            let may_be = |says: u64, is: u64| says == 0 || says == is;
            if may_be(says.0.into(), is.0.into()) && may_be(says.1, is.1) && may_be(says.2, is.2) {
                return Ok(real);
            }
        } else if says == is {
            return Ok(real);
        }
        let rule = match () {
            () if says.1 != is.1 => "it has fewer packed bytes than its header says",
            () if says.2 != is.2 => "it has fewer bytes than its header says",
            () => "its bytes are not those of its checksum",
        };
        Err(wrong(&header.name, rule))
    }
}
