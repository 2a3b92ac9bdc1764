//! The header before an entry, and the one in the directory: what both say about it.

use lockstep_model::FilePath;

use super::{
    fields::{Fields, extras},
    wrong,
};
use crate::{domain::names::shown, ports::ArchiveInvalid};

/// Begins the header before an entry.
pub(super) const LOCAL: u32 = 0x0403_4b50;
/// Begins a header in the directory.
pub(super) const CENTRAL: u32 = 0x0201_4b50;
/// Bytes of the header before an entry, without name and extra fields.
pub(super) const LOCAL_BYTES: usize = 30;
/// Bytes of a header in the directory, without name, extra fields and comment.
pub(super) const CENTRAL_BYTES: usize = 46;

/// The longest name, in bytes: a path, and the slash of a directory.
const NAME_BYTES_MAX: usize = lockstep_model::path::PATH_BYTES_MAX + 1;
/// Sizes are in a descriptor behind the data.
const DESCRIPTOR_FLAG: u16 = 1 << 3;
/// What may be said of an entry: how it was compressed, a descriptor, a name in UTF-8. The rest is encryption, patches and
/// what nobody knows.
const KNOWN_FLAGS: u16 = 0b0000_1000_0000_1110;
const ENCRYPTION_FLAGS: u16 = 0b0010_0000_0100_0001;
/// The extra field with sizes of 8 bytes.
const ZIP64: u16 = 0x0001;
/// The extra field with another name.
const UNICODE_PATH: u16 = 0x7075;
/// A size that is in the extra field instead.
const IN_ZIP64: u32 = u32::MAX;
/// The kind of file in the mode of Unix, and two of its values.
const KIND_MASK: u32 = 0o170_000;
const DIRECTORY_KIND: u32 = 0o040_000;
const REGULAR_KIND: u32 = 0o100_000;
const LINK_KIND: u32 = 0o120_000;
/// Attributes of MS-DOS and Windows.
const DOS_DIRECTORY: u32 = 1 << 4;
const WINDOWS_REPARSE_POINT: u32 = 1 << 10;

/// How the data of an entry is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
}

/// What a header says of an entry, whichever of the two it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// As it is written, with the slash of a directory.
    pub(super) name: String,
    pub(super) is_directory: bool,
    pub(super) method: Method,
    /// Whether checksum and sizes are behind the data.
    pub(super) has_descriptor: bool,
    /// Whether it has sizes of 8 bytes.
    pub(super) is_zip64: bool,
    pub(super) crc: u32,
    pub(super) packed: u64,
    pub(super) unpacked: u64,
}

/// How long a whole header is, from its first bytes.
pub(super) fn local_length(first: &[u8]) -> Result<usize, ArchiveInvalid> {
    let fields = Fields(first);
    check_name_length(fields.length(26))?;
    Ok(LOCAL_BYTES + fields.length(26) + fields.length(28))
}

/// How long a whole header in the directory is, from its first bytes.
pub(super) fn central_length(first: &[u8]) -> Result<usize, ArchiveInvalid> {
    let fields = Fields(first);
    check_name_length(fields.length(28))?;
    Ok(CENTRAL_BYTES + fields.length(28) + fields.length(30) + fields.length(32))
}

fn check_name_length(length: usize) -> Result<(), ArchiveInvalid> {
    let rule = format!("its name has more than {NAME_BYTES_MAX} bytes");
    if length > NAME_BYTES_MAX { Err(wrong("an entry", rule)) } else { Ok(()) }
}

/// Reads the header before an entry.
pub(super) fn read_local(bytes: &[u8]) -> Result<Header, ArchiveInvalid> {
    let fields = Fields(bytes);
    let (name, extra) = bytes[LOCAL_BYTES..].split_at(fields.length(26));
    let mut header = read(name, extra, fields.u16(6), fields.u16(8))?;
    header.crc = fields.u32(14);
    let sizes = [fields.u32(22), fields.u32(18)];
    let [unpacked, packed] = zip64(&header.name, extra, sizes, [])?.0;
    (header.unpacked, header.packed) = (unpacked, packed);
    Ok(header)
}

/// Reads a header in the directory, and gives the place of the entry in the archive.
pub(super) fn read_central(bytes: &[u8]) -> Result<(Header, u64), ArchiveInvalid> {
    let fields = Fields(bytes);
    let (name, rest) = bytes[CENTRAL_BYTES..].split_at(fields.length(28));
    let extra = &rest[..fields.length(30)];
    let mut header = read(name, extra, fields.u16(8), fields.u16(10))?;
    header.crc = fields.u32(16);
    let sizes = [fields.u32(24), fields.u32(20)];
    let ([unpacked, packed], [offset]) = zip64(&header.name, extra, sizes, [fields.u32(42)])?;
    (header.unpacked, header.packed) = (unpacked, packed);
    if !matches!(fields.u16(34), 0 | u16::MAX) {
        return Err(wrong(&header.name, "it is in another part of a split archive"));
    }
    check_attributes(&header, fields.u32(38))?;
    Ok((header, offset))
}

/// Everything but checksum and sizes.
fn read(name: &[u8], extra: &[u8], flags: u16, method: u16) -> Result<Header, ArchiveInvalid> {
    let Ok(name) = std::str::from_utf8(name) else {
        return Err(wrong(&String::from_utf8_lossy(name), "its name is no UTF-8"));
    };
    let refused = |rule: &str| Err(wrong(name, rule));
    if flags & ENCRYPTION_FLAGS != 0 {
        return refused("it is encrypted");
    }
    if flags & !KNOWN_FLAGS != 0 {
        return refused("it has flags that nobody needs for a plain file");
    }
    let method = match method {
        0 => Method::Stored,
        8 => Method::Deflated,
        99 => return refused("it is encrypted"),
        other => return refused(&format!("its method is {other}: only stored and deflate are taken")),
    };
    path(name)?;
    let Some(extras) = extras(extra) else { return refused("its extra fields do not fit together") };
    // Version and checksum of the name come before it.
    let has_other_name =
        extras.iter().any(|(id, value)| *id == UNICODE_PATH && value.get(5..) != Some(name.as_bytes()));
    if has_other_name {
        return refused("it has two names");
    }
    let zip64s = extras.iter().filter(|(id, _)| *id == ZIP64).count();
    if zip64s > 1 {
        return refused("it has two sets of sizes");
    }
    Ok(Header {
        name: name.to_owned(),
        is_directory: name.ends_with('/'),
        method,
        has_descriptor: flags & DESCRIPTOR_FLAG != 0,
        is_zip64: zip64s == 1,
        crc: 0,
        packed: 0,
        unpacked: 0,
    })
}

/// The path that a name means.
fn path(name: &str) -> Result<FilePath, ArchiveInvalid> {
    let plain = name.strip_suffix('/').unwrap_or(name);
    plain.parse().map_err(|rule| wrong(name, format!("its name is not taken: {rule}")))
}

/// The true values of numbers that may be in the extra field, in its order.
fn zip64<const N: usize>(
    name: &str,
    extra: &[u8],
    sizes: [u32; 2],
    more: [u32; N],
) -> Result<([u64; 2], [u64; N]), ArchiveInvalid> {
    let extras = extras(extra).unwrap_or_default();
    let value = extras.iter().find(|(id, _)| *id == ZIP64).map_or(&[][..], |(_, value)| value);
    let mut at = 0;
    let mut real = |short: u32| -> Result<u64, ArchiveInvalid> {
        if short != IN_ZIP64 {
            return Ok(short.into());
        }
        if value.len() < at + 8 {
            return Err(wrong(name, "its sizes of 8 bytes are missing"));
        }
        at += 8;
        Ok(Fields(value).u64(at - 8))
    };
    let mut real_sizes = [0; 2];
    for (real_size, short) in real_sizes.iter_mut().zip(sizes) {
        *real_size = real(short)?;
    }
    let mut real_more = [0; N];
    for (real_value, short) in real_more.iter_mut().zip(more) {
        *real_value = real(short)?;
    }
    Ok((real_sizes, real_more))
}

/// Only the directory says what kind of file an entry is.
fn check_attributes(header: &Header, attributes: u32) -> Result<(), ArchiveInvalid> {
    let kind = (attributes >> 16) & KIND_MASK;
    let refused = |rule: &str| Err(wrong(&header.name, rule));
    if kind == LINK_KIND || attributes & WINDOWS_REPARSE_POINT != 0 {
        return refused("it is a link");
    }
    if !matches!(kind, 0 | DIRECTORY_KIND | REGULAR_KIND) {
        return refused("it is no regular file");
    }
    let says_directory = kind == DIRECTORY_KIND || attributes & DOS_DIRECTORY != 0;
    let says_file = kind == REGULAR_KIND;
    if says_directory && !header.is_directory || says_file && header.is_directory {
        return refused("its name and its attributes disagree whether it is a directory");
    }
    Ok(())
}

impl Header {
    /// Its path.
    pub(super) fn path(&self) -> Result<FilePath, ArchiveInvalid> {
        path(&self.name)
    }

    /// What of `other`, which the directory says, is not what this one says. `self` has the true checksum and sizes.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let Self { name, method, has_descriptor, crc, packed, unpacked, .. } = other;
        let what = match () {
            () if self.name != *name => format!("calls it {}", shown(name)),
            () if self.method != *method => "gives another method".to_owned(),
            () if self.has_descriptor != *has_descriptor => "gives other flags".to_owned(),
            () if self.crc != *crc => "gives another checksum".to_owned(),
            () if (self.packed, self.unpacked) != (*packed, *unpacked) => "gives another size".to_owned(),
            () => return None,
        };
        Some(format!("the directory of the archive {what}"))
    }
}
