use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};
use proptest::prelude::*;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::{domain::names::Names, ports::ArchiveSummary};

/// What an archive holds, or what is wrong with it.
type Outcome = Result<Vec<(String, Vec<u8>)>, ArchiveInvalid>;

/// Reads all of it, in pieces of this size.
fn read_in(bytes: &[u8], piece: usize) -> Outcome {
    let mut unzip = Unzip::default();
    let mut pieces = bytes.chunks(piece.max(1));
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut ended = 0;
    loop {
        match unzip.step() {
            Ok(Step::Hungry) => match pieces.next() {
                Some(piece) => unzip.push(piece),
                None => unzip.close(),
            },
            Ok(Step::Entry(entry)) => {
                assert_eq!(ended, files.len(), "an entry begins within another");
                files.push((entry.path.into(), Vec::new()));
            }
            Ok(Step::Chunk(bytes)) => {
                assert!((1..=CHUNK_BYTES_MAX).contains(&bytes.len()));
                files.last_mut().expect("an entry").1.extend_from_slice(&bytes);
            }
            Ok(Step::EntryEnd) => ended += 1,
            Ok(Step::End(summary)) => {
                let total_bytes = files.iter().map(|(_, content)| content.len() as u64).sum();
                assert_eq!(summary, ArchiveSummary { file_count: files.len() as u64, total_bytes });
                assert_eq!(unzip.step(), Ok(Step::End(summary)));
                return Ok(files);
            }
            Err(invalid) => {
                assert_eq!(unzip.step(), Err(invalid.clone()), "an error stays");
                return Err(invalid);
            }
        }
    }
}

fn read(bytes: &[u8]) -> Outcome {
    let outcome = read_in(bytes, usize::MAX);
    assert_eq!(read_in(bytes, 7), outcome, "pieces make no difference");
    outcome
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory")
}

/// One entry, told by each of the two headers in its own way.
#[derive(Clone)]
struct Entry {
    name: Vec<u8>,
    data: Vec<u8>,
    local: Told,
    central: Told,
    descriptor: Vec<u8>,
    attributes: u32,
    disk: u16,
    /// Added to the place that the directory tells.
    shift: u32,
}

#[derive(Clone)]
struct Told {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u32,
    unpacked: u32,
    extra: Vec<u8>,
}

fn stored(name: &str, content: &[u8]) -> Entry {
    entry(name, content, content.to_vec(), 0)
}

fn packed(name: &str, content: &[u8]) -> Entry {
    entry(name, content, deflated(content), 8)
}

fn entry(name: &str, content: &[u8], data: Vec<u8>, method: u16) -> Entry {
    let told = Told {
        name: name.into(),
        flags: 0x800,
        method,
        crc: crc32fast::hash(content),
        packed: u32::try_from(data.len()).expect("small"),
        unpacked: u32::try_from(content.len()).expect("small"),
        extra: Vec::new(),
    };
    let (local, central) = (told.clone(), told);
    Entry {
        name: name.into(),
        data,
        local,
        central,
        descriptor: Vec::new(),
        attributes: 0,
        disk: 0,
        shift: 0,
    }
}

impl Entry {
    fn both(mut self, change: impl Fn(&mut Told)) -> Self {
        change(&mut self.local);
        change(&mut self.central);
        self
    }

    fn local(mut self, change: impl Fn(&mut Told)) -> Self {
        change(&mut self.local);
        self
    }

    fn central(mut self, change: impl Fn(&mut Told)) -> Self {
        change(&mut self.central);
        self
    }

    fn mode(mut self, mode: u32) -> Self {
        self.attributes = mode << 16;
        self
    }

    fn attributes(mut self, attributes: u32) -> Self {
        self.attributes = attributes;
        self
    }

    /// With checksum and sizes behind its data only.
    fn streamed(mut self, with_signature: bool, is_long: bool) -> Self {
        let Told { crc, packed, unpacked, .. } = self.local;
        let mut descriptor = if with_signature { 0x0807_4b50_u32.to_le_bytes().to_vec() } else { Vec::new() };
        descriptor.extend(crc.to_le_bytes());
        for size in [packed, unpacked] {
            if is_long {
                descriptor.extend(u64::from(size).to_le_bytes())
            } else {
                descriptor.extend(size.to_le_bytes())
            }
        }
        self.descriptor = descriptor;
        (self.local.crc, self.local.packed, self.local.unpacked) = (0, 0, 0);
        self.both(|told| told.flags |= 8)
    }
}

fn u16s(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("short")
}

/// The entries with the directory, and where that begins; without the end.
fn body(entries: &[Entry]) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for Entry { data, local, central, descriptor, attributes, disk, shift, .. } in entries {
        let offset = u32::try_from(bytes.len()).expect("small") + shift;
        bytes.extend(u32s(&[0x0403_4b50]));
        bytes.extend(u16s(&[20, local.flags, local.method, 0, 0]));
        bytes.extend(u32s(&[local.crc, local.packed, local.unpacked]));
        bytes.extend(u16s(&[length(&local.name), length(&local.extra)]));
        bytes.extend([&local.name[..], &local.extra, data, descriptor].concat());
        directory.extend(u32s(&[0x0201_4b50]));
        directory.extend(u16s(&[0x031e, 20, central.flags, central.method, 0, 0]));
        directory.extend(u32s(&[central.crc, central.packed, central.unpacked]));
        directory.extend(u16s(&[length(&central.name), length(&central.extra), 0, *disk, 0]));
        directory.extend(u32s(&[*attributes, offset]));
        directory.extend([&central.name[..], &central.extra].concat());
    }
    let start = u32::try_from(bytes.len()).expect("small");
    bytes.extend(directory);
    (bytes, start)
}

fn end(count: usize, size: u32, start: u32, comment: &[u8]) -> Vec<u8> {
    let count = u16::try_from(count).expect("few");
    let mut bytes = u32s(&[0x0605_4b50]);
    bytes.extend(u16s(&[0, 0, count, count]));
    bytes.extend(u32s(&[size, start]));
    bytes.extend(u16s(&[length(comment)]));
    bytes.extend(comment);
    bytes
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut bytes, start) = body(entries);
    let size = u32::try_from(bytes.len()).expect("small") - start;
    bytes.extend(end(entries.len(), size, start, b""));
    bytes
}

fn assert_refused(bytes: &[u8], entry: &str, rule: &str) {
    let invalid = read(bytes).expect_err(rule);
    assert_eq!(invalid.entry, entry, "{invalid}");
    assert!(invalid.rule.contains(rule), "{rule:?} is missing in {invalid}");
}

/// R59: a plain archive gives its files.
#[test]
fn plain_archives_are_read() {
    let text = b"some text, some text, some text";
    let entries = [
        stored("a", text),
        stored("empty", b""),
        stored("d/", b"").mode(0o040_755).attributes(0o040_755 << 16 | 16),
        packed("d/b", text).mode(0o100_644),
        packed("e/", b""),
        packed("ümläut/c", b"").both(|told| told.flags = 0),
        packed("s1", text).streamed(true, false),
        packed("s2", text).streamed(true, true),
        packed("s3", text).streamed(false, false),
        packed("s4", text).streamed(false, true),
        packed("s5", b"").streamed(true, false),
    ];
    let files = read(&archive(&entries)).expect("plain");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "empty", "d/b", "ümläut/c", "s1", "s2", "s3", "s4", "s5"]);
    assert!(
        files
            .iter()
            .all(|(name, content)| content == text || ["empty", "ümläut/c", "s5"].contains(&name.as_str()))
    );
    let (mut bytes, start) = body(&entries[..1]);
    let size = u32::try_from(bytes.len()).expect("small") - start;
    bytes.extend(end(1, size, start, b"a comment"));
    assert_eq!(read(&bytes).map(|files| files.len()), Ok(1));
}

/// R59, R70: hostile archives are refused, and the entry is named.
#[test]
fn hostile_entries_are_refused_by_name() {
    let zip64 = |values: &[u64]| {
        let value: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        [u16s(&[1, length(&value)]), value].concat()
    };
    let other_name = [u16s(&[0x7075, 6]), vec![1, 0, 0, 0, 0, b'b']].concat();
    let zeros = vec![0; 3 << 20];
    let good = || stored("a", b"x");
    let cases = [
        (stored("../x", b""), "no component may be . or .."),
        (stored("a/../../x", b""), "no component may be . or .."),
        (stored("/etc/passwd", b""), "a path is relative"),
        (stored("a//b", b""), "no component is empty"),
        (stored("", b""), "must not be empty"),
        (stored("/", b""), "must not be empty"),
        (stored("..\\x", b""), "are not allowed"),
        (stored("C:/x", b""), "are not allowed"),
        (stored("a\0b", b""), "control characters"),
        (stored("a\u{202e}b", b""), "invisible and bidirectional"),
        (stored("nul.txt", b""), "device names"),
        (stored(".lockstep/x", b""), "are reserved"),
        (good().mode(0o120_777), "it is a link"),
        (packed("l", b"/etc/passwd").mode(0o120_777), "it is a link"),
        (good().attributes(1 << 10), "it is a link"),
        (good().attributes(0o100_644 << 16 | 1 << 10), "it is a link"),
        (good().mode(0o010_644), "no regular file"),
        (good().mode(0o060_644), "no regular file"),
        (good().mode(0o140_644), "no regular file"),
        (good().mode(0o040_755), "disagree whether it is a directory"),
        (good().attributes(16), "disagree whether it is a directory"),
        (stored("d/", b"").mode(0o100_644), "disagree whether it is a directory"),
        (stored("d/", b"x"), "a directory with bytes of its own"),
        (packed("d/", b"x"), "a directory with bytes of its own"),
        (packed("d/", b"x").streamed(true, false), "a directory with bytes of its own"),
        (good().both(|told| told.flags |= 1), "it is encrypted"),
        (good().both(|told| told.flags |= 1 << 6), "it is encrypted"),
        (good().both(|told| told.flags |= 1 << 13), "it is encrypted"),
        (good().both(|told| told.method = 99), "it is encrypted"),
        (good().both(|told| told.flags |= 1 << 5), "flags that nobody needs"),
        (good().both(|told| told.method = 12), "its method is 12"),
        (packed("z", &zeros), "more than 100 times"),
        (packed("z", &zeros).streamed(true, false), "more than 100 times"),
        (stored("s", b"x").streamed(true, false), "with its size only behind its data"),
        (packed("s", b"x").streamed(true, false).local(|told| told.packed = 7), "fewer packed bytes"),
        (good().both(|told| told.crc ^= 1), "not those of its checksum"),
        (packed("p", b"x").both(|told| told.crc ^= 1), "not those of its checksum"),
        (packed("p", b"xyz").both(|told| told.unpacked = 2), "more bytes than its header says"),
        (packed("p", b"xyz").both(|told| told.unpacked = 4), "fewer bytes than its header says"),
        (packed("p", b"xyz").both(|told| told.packed -= 1), "its data ends too early"),
        (packed("p", b"xyz").local(|told| told.packed += 1), "fewer packed bytes"),
        (entry("p", b"xyz", vec![0xff; 20], 8), "no deflate stream"),
        (good().central(|told| told.name = b"b".to_vec()), "the directory of the archive calls it \"b\""),
        (good().central(|told| told.method = 8), "gives another method"),
        (good().central(|told| told.flags |= 8), "gives other flags"),
        (good().central(|told| told.crc ^= 1), "gives another checksum"),
        (good().central(|told| told.packed += 1), "gives another size"),
        (good().central(|told| told.unpacked += 1), "gives another size"),
        (packed("s", b"x").streamed(true, false).central(|told| told.crc ^= 1), "gives another checksum"),
        (good().both(|told| told.extra = other_name.clone()), "it has two names"),
        (good().both(|told| told.extra = vec![1, 0, 9, 0]), "its extra fields do not fit"),
        (good().both(|told| told.extra = [zip64(&[]), zip64(&[])].concat()), "two sets of sizes"),
        (good().both(|told| told.packed = u32::MAX), "its sizes of 8 bytes are missing"),
        (
            good().both(|told| {
                (told.packed, told.unpacked) = (u32::MAX, u32::MAX);
                told.extra = zip64(&[65 << 30, 65 << 30]);
            }),
            "all files together have more than 64 GiB",
        ),
        (
            good().both(|told| {
                (told.packed, told.unpacked) = (u32::MAX, u32::MAX);
                told.extra = zip64(&[u64::MAX, u64::MAX]);
            }),
            "all files together have more than 64 GiB",
        ),
    ];
    for (hostile, rule) in cases {
        let name = shown(&String::from_utf8_lossy(&hostile.name));
        let is_alone = hostile.name == b"a";
        let before = if is_alone { Vec::new() } else { vec![good()] };
        assert_refused(&archive(&[before, vec![hostile]].concat()), &name, rule);
    }
    let no_text = good().both(|told| told.name = b"\xff\x1b".to_vec());
    assert_refused(&archive(&[no_text]), "\"\u{fffd}\\u{1b}\"", "no UTF-8");
    let mut split = good();
    split.disk = 1;
    assert_refused(&archive(&[split]), "\"a\"", "split archive");
    let mut moved = good();
    moved.shift = 1;
    assert_refused(&archive(&[moved]), "\"a\"", "where no such entry is");
}

/// R59: what some server could not store side by side does not come in together.
#[test]
fn names_that_clash_are_refused_by_name() {
    for (first, second, rule) in [
        ("a", "a", "there twice"),
        ("a", "A", "could not tell the name from \"a\""),
        ("A/x", "a/y", "could not tell the name from \"A\""),
        ("é", "e\u{301}", "could not tell"),
        ("a", "a/b", "is a file and a directory"),
        ("a/b", "a", "is a file and a directory"),
        ("a/", "a", "is a file and a directory"),
    ] {
        let bytes = archive(&[stored(first, b""), stored(second, b"")]);
        assert_refused(&bytes, &shown(second), rule);
    }
}

/// R59: an archive that tells two stories is refused, whatever both of them are.
#[test]
fn archives_that_disagree_with_themselves_are_refused() {
    let entries = [stored("a", b"x"), packed("b", b"yyy")];
    let (bytes, start) = body(&entries);
    let size = u32::try_from(bytes.len()).expect("small") - start;
    let with = |tail: Vec<u8>| [bytes.clone(), tail].concat();
    let whole = "the archive";
    for (bytes, entry, rule) in [
        (Vec::new(), whole, "it is empty"),
        (b"PK".to_vec(), whole, "ends in the middle"),
        (b"MZ..whatever".to_vec(), whole, "no zip archive"),
        (end(0, 0, 0, b""), whole, "it has no entries"),
        (archive(&[stored("d/", b"")]), whole, "it has no files"),
        (with(Vec::new()), whole, "ends in the middle"),
        (with(end(1, size, start, b"")), whole, "does not describe its directory"),
        (with(end(3, size, start, b"")), whole, "does not describe its directory"),
        (with(end(2, size + 1, start, b"")), whole, "does not describe its directory"),
        (with(end(2, size, start - 1, b"")), whole, "does not describe its directory"),
        (with(end(2, u32::MAX, start, b"")), whole, "does not describe its directory"),
        (with([end(2, size, start, b""), b"x".to_vec()].concat()), whole, "behind its end lies"),
        (with([end(2, size, start, b""), end(2, size, start, b"")].concat()), whole, "behind its end lies"),
        (with([b"x".to_vec(), end(2, size, start, b"")].concat()), whole, "in its directory lies"),
        ([b"x".to_vec(), archive(&entries)].concat(), whole, "no zip archive"),
    ] {
        assert_refused(&bytes, entry, rule);
    }
    // The directory lists fewer entries, or one of them twice.
    let local_end = body(&entries[..1]).1 as usize;
    let second = &bytes[local_end..start as usize];
    let directory_of_first = &bytes[start as usize..start as usize + 47];
    let head = [&bytes[..local_end], second].concat();
    let fewer = [head.clone(), directory_of_first.to_vec(), end(1, 47, start, b"")].concat();
    assert_refused(&fewer, "\"b\"", "does not list it");
    let twice =
        [head, directory_of_first.to_vec(), directory_of_first.to_vec(), end(2, 94, start, b"")].concat();
    assert_refused(&twice, "\"a\"", "where no such entry is");
    // Something hidden between two entries.
    let hidden = [&bytes[..local_end], b"hidden", second].concat();
    assert_refused(&hidden, whole, "between two entries");
}

/// R59: an archive that ends anywhere before its end is none.
#[test]
fn every_truncation_is_refused() {
    let bytes = archive(&[stored("a", b"x"), packed("b", b"yyy").streamed(true, false), packed("c/d", b"z")]);
    assert_eq!(read(&bytes).map(|files| files.len()), Ok(3));
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
    }
}

/// R59: so many entries are no firmware.
#[test]
fn too_many_entries_are_refused() {
    let entries: Vec<Entry> = (0..ENTRIES_LIMIT).map(|index| stored(&format!("f{index}"), b"")).collect();
    let (bytes, _) = body(&entries);
    let invalid = read_in(&bytes, 1 << 20).expect_err("too many");
    assert_eq!(invalid.entry, format!("\"f{}\"", ENTRIES_LIMIT - 1));
    assert!(invalid.rule.contains("entry 100000"), "{invalid}");
}

/// R59: many small bombs are one.
#[test]
fn many_small_bombs_are_refused() {
    let zeros = vec![0; 1 << 20];
    let entries: Vec<Entry> = (0..20).map(|index| packed(&format!("f{index}"), &zeros)).collect();
    let invalid = read_in(&archive(&entries), 1 << 20).expect_err("a bomb");
    assert_eq!((invalid.entry.as_str(), invalid.rule.contains("more than 100 times")), ("the archive", true));
    assert_eq!(read_in(&archive(&entries[..1]), 1 << 20).map(|files| files.len()), Ok(1));
}

/// R59: an archive that is a bomb as a whole is not unpacked to its end.
#[test]
fn a_large_bomb_is_refused_in_its_middle() {
    let zeros = vec![0; 1 << 20];
    let one = packed("f", &zeros);
    let entries: Vec<Entry> = (0..1_300)
        .map(|index| {
            let name = format!("f{index}").into_bytes();
            one.clone().both(|told| told.name.clone_from(&name))
        })
        .collect();
    let mut unzip = Unzip::default();
    unzip.push(&archive(&entries));
    unzip.close();
    let mut unpacked = 0;
    let invalid = loop {
        match unzip.step() {
            Ok(Step::Chunk(bytes)) => unpacked += bytes.len(),
            Ok(Step::End(_)) => panic!("it is a bomb"),
            Ok(_) => {}
            Err(invalid) => break invalid,
        }
    };
    assert!(invalid.rule.contains("more than 100 times"), "{invalid}");
    assert!(unpacked < 1_280 << 20, "{unpacked}");
}

/// R59: numbers of 8 bytes work, and must be true as well.
#[test]
fn zip64_is_read_and_compared() {
    let long = |name: &str| {
        let entry = packed(name, b"some text");
        let sizes = [u64::from(entry.local.unpacked), u64::from(entry.local.packed)];
        let value: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        let extra = [u16s(&[1, 16]), value].concat();
        entry.both(|told| {
            (told.packed, told.unpacked) = (u32::MAX, u32::MAX);
            told.extra = extra.clone();
        })
    };
    let entries = [long("a"), stored("b", b"x"), long("c")];
    let (bytes, start) = body(&entries);
    let size = bytes.len() as u64 - u64::from(start);
    let tail = |count: u64, size: u64, start: u64, place: u64| {
        let mut tail = u32s(&[0x0606_4b50]);
        tail.extend(44_u64.to_le_bytes());
        tail.extend(u16s(&[45, 45]));
        tail.extend(u32s(&[0, 0]));
        for number in [count, count, size, start] {
            tail.extend(number.to_le_bytes());
        }
        tail.extend(u32s(&[0x0706_4b50, 0]));
        tail.extend(place.to_le_bytes());
        tail.extend(u32s(&[1]));
        let mut short = end(3, u32::MAX, u32::MAX, b"");
        short[8..12].fill(0xff);
        tail.extend(short);
        [bytes.clone(), tail].concat()
    };
    let (start, place) = (u64::from(start), bytes.len() as u64);
    assert_eq!(read(&tail(3, size, start, place)).map(|files| files.len()), Ok(3));
    for (count, size, start, place, rule) in [
        (2, size, start, place, "zip64 end does not describe"),
        (3, size + 1, start, place, "zip64 end does not describe"),
        (3, size, start + 1, place, "zip64 end does not describe"),
        (3, size, start, place + 1, "zip64 locator leads elsewhere"),
    ] {
        assert_refused(&tail(count, size, start, place), "the archive", rule);
    }
}

/// R59: an entry beyond 4 GiB is read in bounded memory, and what is behind it is found.
#[test]
fn an_entry_beyond_4_gib_is_read() {
    const PIECE: usize = 1 << 20;
    let pieces = (4_u64 << 10) + 1;
    let size = pieces << 20;
    let zeros = vec![0; PIECE];
    let mut sum = crc32fast::Hasher::new();
    (0..pieces).for_each(|_| sum.update(&zeros));
    let sizes = [u16s(&[1, 16]), size.to_le_bytes().to_vec(), size.to_le_bytes().to_vec()].concat();
    let mut large = stored("large", b"").both(|told| {
        (told.packed, told.unpacked) = (u32::MAX, u32::MAX);
        told.extra = sizes.clone();
    });
    (large.local.crc, large.central.crc) = (sum.clone().finalize(), sum.finalize());
    let (headers, start) = body(&[large]);
    let (local, central) = headers.split_at(start as usize);
    let directory = u64::from(start) + size;
    let mut tail =
        [central, &u32s(&[0x0606_4b50])[..], &44_u64.to_le_bytes(), &u16s(&[45, 45]), &u32s(&[0, 0])]
            .concat();
    for number in [1, 1, central.len() as u64, directory] {
        tail.extend(number.to_le_bytes());
    }
    tail.extend(u32s(&[0x0706_4b50, 0]));
    tail.extend((directory + central.len() as u64).to_le_bytes());
    tail.extend(u32s(&[1]));
    tail.extend(end(1, u32::try_from(central.len()).expect("short"), u32::MAX, b""));
    let mut unzip = Unzip::default();
    let mut next = 0;
    let mut read = 0;
    let summary = loop {
        match unzip.step().expect("it is good") {
            Step::Hungry => {
                match next {
                    0 => unzip.push(local),
                    next if next <= pieces => unzip.push(&zeros),
                    next if next == pieces + 1 => unzip.push(&tail),
                    _ => unzip.close(),
                }
                next += 1;
            }
            Step::Entry(entry) => assert_eq!(entry.size_bytes, Some(size)),
            Step::Chunk(bytes) => read += bytes.len() as u64,
            Step::EntryEnd => {}
            Step::End(summary) => break summary,
        }
    };
    assert_eq!((summary, read), (ArchiveSummary { file_count: 1, total_bytes: size }, size));
}

/// An archive as a tool writes it that people use.
fn written(files: &[(String, Vec<u8>)], method: CompressionMethod, is_large: bool) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method).large_file(is_large);
    for (name, content) in files {
        writer.start_file(name, options.unix_permissions(0o644)).expect("in memory");
        writer.write_all(content).expect("in memory");
    }
    writer.finish().expect("in memory").into_inner()
}

/// The same, as it writes into a pipe.
fn streamed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new_stream(Vec::new());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, content) in files {
        writer.start_file(name, options).expect("in memory");
        writer.write_all(content).expect("in memory");
    }
    writer.finish().expect("in memory").into_inner()
}

fn files() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2_000),
        // All of them together stay below what the ratio leaves alone.
        (any::<u8>(), 0..200_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    // No device of Windows begins with d.
    let files = prop::collection::btree_map("d[a-z]{0,7}(/d[a-z]{0,7}){0,2}x", content, 1..6);
    files.prop_map(|files| {
        let mut names = Names::default();
        let mut fits = |name: &String| names.add_file(&name.parse().expect("valid")).is_ok();
        files.into_iter().filter(|(name, _)| fits(name)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// R59: what other tools write is read, however it is cut into pieces.
    #[test]
    fn archives_of_other_tools_are_read(files in files(), piece in 1_usize..5_000, is_large in any::<bool>()) {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            prop_assert_eq!(read_in(&written(&files, method, is_large), piece), Ok(files.clone()));
        }
        if files.iter().all(|(_, content)| content.len() < 2_000) {
            prop_assert_eq!(read_in(&streamed(&files), piece), Ok(files));
        }
    }

    /// R59: a byte that is changed anywhere is found, or changes nothing of what comes out.
    #[test]
    fn a_changed_byte_changes_no_file(at in any::<prop::sample::Index>(), byte in any::<u8>(), is_streamed in any::<bool>()) {
        let files = vec![("a/b".to_owned(), b"some text".to_vec()), ("c".to_owned(), vec![7; 300])];
        let mut bytes =
            if is_streamed { streamed(&files) } else { written(&files, CompressionMethod::Deflated, true) };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = read_in(&bytes, usize::MAX) {
            prop_assert_eq!(read, files);
        }
    }

    /// R59: whatever bytes come, there is an answer.
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), is_begun in any::<bool>()) {
        let head = if is_begun { &b"PK\x03\x04"[..] } else { b"" };
        prop_assert!(read_in(&[head, &bytes].concat(), 11).is_err());
    }
}
