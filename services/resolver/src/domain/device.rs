//! The name of a device.

use std::{fmt, str::FromStr};

/// The longest name.
const CHARACTERS_MAX: usize = 128;

/// Names a device: 1 to 128 printable ASCII characters without spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceId(String);

/// The text names no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {CHARACTERS_MAX} printable ASCII characters without spaces")]
pub struct InvalidDevice;

impl DeviceId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let valid = (1..=CHARACTERS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidDevice) }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
