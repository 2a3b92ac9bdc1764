//! Things that are no files, or not only files, for planting them where a file is expected. A machine that refuses devices
//! fails the tests that need them.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// The device whose bytes never end, so that whoever reads it never ends either.
const ZERO: (u32, u32) = (1, 5);

/// What can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A link to the secret.
    Link,
    /// A pipe: opening it waits for its other end.
    Pipe,
    /// A socket.
    Socket,
    /// A device without an end.
    Device,
    /// A second name of the secret.
    HardLink,
}

/// All of them.
pub const PLANTED: [Planted; 5] =
    [Planted::Link, Planted::Pipe, Planted::Socket, Planted::Device, Planted::HardLink];

impl Planted {
    /// Makes one at a free place; `secret` is a file outside, on the same disk, that nobody may read by it.
    ///
    /// # Panics
    /// If the machine refuses it: devices need root.
    pub fn plant(self, place: &Path, secret: &Path) {
        let node = |kind, device| mknodat(CWD, place, kind, Mode::from_raw_mode(0o666), device);
        let done = match self {
            Self::Link => symlink(secret, place),
            Self::Pipe => node(FileType::Fifo, 0).map_err(io::Error::from),
            Self::Socket => UnixListener::bind(place).map(drop),
            Self::Device => {
                node(FileType::CharacterDevice, rustix::fs::makedev(ZERO.0, ZERO.1)).map_err(io::Error::from)
            }
            Self::HardLink => fs::hard_link(secret, place),
        };
        done.unwrap_or_else(|error| panic!("{self:?} at {}: {error}", place.display()));
    }

    /// Whether it is what lies there.
    pub fn is_at(self, place: &Path) -> bool {
        let Ok(found) = fs::symlink_metadata(place) else { return false };
        let kind = found.file_type();
        match self {
            Self::Link => kind.is_symlink(),
            Self::Pipe => kind.is_fifo(),
            Self::Socket => kind.is_socket(),
            Self::Device => kind.is_char_device(),
            Self::HardLink => kind.is_file() && std::os::unix::fs::MetadataExt::nlink(&found) > 1,
        }
    }
}
