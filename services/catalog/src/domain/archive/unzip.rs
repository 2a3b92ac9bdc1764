//! The whole of an archive, one step after the other.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{
    ENTRIES_LIMIT, RATIO_FREE_BYTES, RATIO_FREE_EARLY_BYTES, RATIO_MAX, TOTAL_BYTES_MAX,
    directory::{self, Directory},
    fields::Fields,
    header::{self, Header},
    inflate::{Content, Progress},
    is_bomb, wrong, wrong_archive,
};
use crate::{
    domain::names::Names,
    ports::{ArchiveEntry, ArchiveInvalid, ArchiveSummary},
};

/// May begin a descriptor.
const DESCRIPTOR: u32 = 0x0807_4b50;
/// The longest descriptor, and the signature that follows it.
const DESCRIPTOR_BYTES_MAX: usize = 24 + 4;

/// What came next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes of the archive are needed.
    Hungry,
    /// A file begins.
    Entry(ArchiveEntry),
    /// Bytes of it.
    Chunk(Bytes),
    /// It ended, and was what its header says.
    EntryEnd,
    /// The archive ended, and was good.
    End(ArchiveSummary),
}

/// An archive while it is read. After an error nothing more is read of it.
pub struct Unzip {
    input: BytesMut,
    /// How many bytes came before `input` and with it.
    pushed: u64,
    is_closed: bool,
    state: State,
    names: Names,
    directory: Directory,
    summary: ArchiveSummary,
}

enum State {
    /// Before the header of an entry, or the directory.
    Between,
    /// In the data of an entry that begins at this place.
    Within(Box<Content>, u64),
    /// Behind its data.
    Behind(Header, u64),
    /// In the directory.
    Directory,
    /// Behind the zip64 end.
    Locator,
    /// Before the end.
    End,
    /// Behind it.
    Over,
    /// Something was wrong.
    Failed(ArchiveInvalid),
}

impl Default for Unzip {
    fn default() -> Self {
        Self {
            input: BytesMut::new(),
            pushed: 0,
            is_closed: false,
            state: State::Between,
            names: Names::default(),
            directory: Directory::default(),
            summary: ArchiveSummary::default(),
        }
    }
}

/// Ends a step that cannot go on; `None` is a step that gave nothing.
type Outcome = Result<Option<Step>, ArchiveInvalid>;

impl Unzip {
    /// More of the archive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pushed += bytes.len() as u64;
        self.input.extend_from_slice(bytes);
    }

    /// That was all of it.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// What comes next.
    ///
    /// # Errors
    /// What is wrong with the archive; the same again whenever it is asked.
    pub fn step(&mut self) -> Result<Step, ArchiveInvalid> {
        loop {
            match self.go_on() {
                Ok(Some(step)) => return Ok(step),
                Ok(None) => {}
                Err(invalid) => {
                    self.state = State::Failed(invalid.clone());
                    return Err(invalid);
                }
            }
        }
    }

    fn go_on(&mut self) -> Outcome {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Between => {
                self.state = State::Between;
                self.between()
            }
            State::Within(content, offset) => self.within(content, offset),
            State::Behind(header, offset) => self.behind(header, offset),
            State::Directory => {
                self.state = State::Directory;
                self.in_directory()
            }
            State::Locator => {
                self.state = State::Locator;
                self.locator()
            }
            State::End => {
                self.state = State::End;
                self.end()
            }
            State::Over => self.over(),
            State::Failed(invalid) => Err(invalid),
        }
    }

    /// Where the next byte that is looked at lies in the archive.
    fn offset(&self) -> u64 {
        self.pushed - self.input.len() as u64
    }

    /// `Some` if there are not `length` bytes.
    fn lack(&self, length: usize) -> Outcome {
        match () {
            () if self.input.len() >= length => Ok(None),
            () if !self.is_closed => Ok(Some(Step::Hungry)),
            () if self.pushed == 0 => Err(wrong_archive("it is empty")),
            () => Err(wrong_archive("it ends in the middle")),
        }
    }

    fn signature(&self) -> u32 {
        Fields(&self.input).u32(0)
    }

    fn between(&mut self) -> Outcome {
        if let Some(hungry) = self.lack(4)? {
            return Ok(Some(hungry));
        }
        match self.signature() {
            header::LOCAL => self.local(),
            header::CENTRAL | directory::END | directory::ZIP64_END if self.directory.len() > 0 => {
                self.directory.begin(self.offset());
                self.state = State::Directory;
                Ok(None)
            }
            directory::END => Err(wrong_archive("it has no entries")),
            _ if self.offset() == 0 => Err(wrong_archive("it is no zip archive")),
            _ => Err(wrong_archive("between two entries lies something else")),
        }
    }

    fn local(&mut self) -> Outcome {
        if let Some(hungry) = self.lack(header::LOCAL_BYTES)? {
            return Ok(Some(hungry));
        }
        let length = header::local_length(&self.input)?;
        if let Some(hungry) = self.lack(length)? {
            return Ok(Some(hungry));
        }
        let offset = self.offset();
        let header = header::read_local(&self.input.split_to(length))?;
        if self.directory.len() + 1 >= ENTRIES_LIMIT {
            return Err(wrong(
                &header.name,
                format!("it is entry {ENTRIES_LIMIT}: no archive may have so many"),
            ));
        }
        let path = header.path()?;
        let added =
            if header.is_directory { self.names.add_directory(&path) } else { self.names.add_file(&path) };
        added.map_err(|clash| wrong(&header.name, clash.to_string()))?;
        let room = TOTAL_BYTES_MAX - self.summary.total_bytes;
        let size_bytes = (!header.has_descriptor).then_some(header.unpacked);
        let is_directory = header.is_directory;
        self.state = State::Within(Box::new(Content::new(header, room)?), offset);
        Ok((!is_directory).then_some(Step::Entry(ArchiveEntry { path, size_bytes })))
    }

    fn within(&mut self, mut content: Box<Content>, offset: u64) -> Outcome {
        match content.read(&mut self.input)? {
            Progress::Hungry if self.is_closed => {
                Err(wrong(content.name(), "the archive ends in its middle"))
            }
            Progress::Hungry => {
                self.state = State::Within(content, offset);
                Ok(Some(Step::Hungry))
            }
            Progress::Bytes(bytes) => {
                self.summary.total_bytes += bytes.len() as u64;
                if is_bomb(self.pushed, self.summary.total_bytes, RATIO_FREE_EARLY_BYTES) {
                    return Err(bomb());
                }
                self.state = State::Within(content, offset);
                Ok(Some(Step::Chunk(bytes)))
            }
            Progress::End => {
                self.state = State::Behind(content.finish()?, offset);
                Ok(None)
            }
        }
    }

    fn behind(&mut self, header: Header, offset: u64) -> Outcome {
        if header.has_descriptor {
            let lack = self.lack(DESCRIPTOR_BYTES_MAX);
            let lack = lack.map_err(|_| wrong(&header.name, "the archive ends behind its data"));
            if let Some(hungry) = lack? {
                self.state = State::Behind(header, offset);
                return Ok(Some(hungry));
            }
            let length = descriptor_length(&self.input, &header)?;
            self.input.advance(length);
        }
        self.state = State::Between;
        let is_directory = header.is_directory;
        self.directory.add(header, offset);
        self.summary.file_count += u64::from(!is_directory);
        Ok((!is_directory).then_some(Step::EntryEnd))
    }

    fn in_directory(&mut self) -> Outcome {
        if let Some(hungry) = self.lack(4)? {
            return Ok(Some(hungry));
        }
        match self.signature() {
            header::CENTRAL => {
                if let Some(hungry) = self.lack(header::CENTRAL_BYTES)? {
                    return Ok(Some(hungry));
                }
                let length = header::central_length(&self.input)?;
                if let Some(hungry) = self.lack(length)? {
                    return Ok(Some(hungry));
                }
                let bytes = self.input.split_to(length);
                self.directory.compare(&bytes, self.offset())?;
                Ok(None)
            }
            directory::ZIP64_END => {
                if let Some(hungry) = self.lack(directory::ZIP64_END_BYTES)? {
                    return Ok(Some(hungry));
                }
                self.directory.check_complete()?;
                let offset = self.offset();
                let bytes = self.input.split_to(directory::ZIP64_END_BYTES);
                self.directory.compare_zip64(&bytes, offset)?;
                self.state = State::Locator;
                Ok(None)
            }
            directory::END => {
                self.directory.check_complete()?;
                self.state = State::End;
                Ok(None)
            }
            _ => Err(wrong_archive("in its directory lies something else")),
        }
    }

    fn locator(&mut self) -> Outcome {
        if let Some(hungry) = self.lack(directory::ZIP64_LOCATOR_BYTES)? {
            return Ok(Some(hungry));
        }
        if self.signature() != directory::ZIP64_LOCATOR {
            return Err(wrong_archive("its zip64 locator is missing"));
        }
        let bytes = self.input.split_to(directory::ZIP64_LOCATOR_BYTES);
        self.directory.compare_locator(&bytes)?;
        self.state = State::End;
        Ok(None)
    }

    fn end(&mut self) -> Outcome {
        if let Some(hungry) = self.lack(directory::END_BYTES)? {
            return Ok(Some(hungry));
        }
        let length = directory::END_BYTES + Fields(&self.input).length(20);
        if let Some(hungry) = self.lack(length)? {
            return Ok(Some(hungry));
        }
        if self.signature() != directory::END {
            return Err(wrong_archive("its end is missing"));
        }
        self.directory.compare_end(&self.input.split_to(length))?;
        self.state = State::Over;
        Ok(None)
    }

    fn over(&mut self) -> Outcome {
        let summary = self.summary;
        match () {
            () if !self.input.is_empty() => Err(wrong_archive("behind its end lies something else")),
            () if !self.is_closed => Ok(Some(Step::Hungry)),
            () if summary.file_count == 0 => Err(wrong_archive("it has no files")),
            () if is_bomb(self.pushed, summary.total_bytes, RATIO_FREE_BYTES) => Err(bomb()),
            () => Ok(Some(Step::End(summary))),
        }
    }
}

fn bomb() -> ArchiveInvalid {
    wrong_archive(format!("it unpacks to more than {RATIO_MAX} times its size"))
}

/// The length of the descriptor at the start of `bytes`. There are four forms of it, and nothing says which: it is the one
/// that has the true numbers and is followed by what may follow an entry.
fn descriptor_length(bytes: &[u8], header: &Header) -> Result<usize, ArchiveInvalid> {
    let fields = Fields(bytes);
    let short = |size: u64| u32::try_from(size).ok();
    let numbers_fit = |at: usize, is_long: bool| {
        let sizes = if is_long {
            (Some(fields.u64(at + 4)), Some(fields.u64(at + 12)))
                == (Some(header.packed), Some(header.unpacked))
        } else {
            (Some(fields.u32(at + 4)), Some(fields.u32(at + 8)))
                == (short(header.packed), short(header.unpacked))
        };
        fields.u32(at) == header.crc && sizes
    };
    for (with_signature, is_long) in [(true, true), (true, false), (false, true), (false, false)] {
        let at = if with_signature { 4 } else { 0 };
        let length = at + if is_long { 20 } else { 12 };
        let is_marked = !with_signature || fields.u32(0) == DESCRIPTOR;
        let is_followed = matches!(fields.u32(length), header::LOCAL | header::CENTRAL);
        if is_marked && is_followed && numbers_fit(at, is_long) {
            return Ok(length);
        }
    }
    Err(match header.method {
        header::Method::Stored => wrong(&header.name, "it is stored, with its size only behind its data"),
        header::Method::Deflated => wrong(&header.name, "what is behind its data does not describe it"),
    })
}
