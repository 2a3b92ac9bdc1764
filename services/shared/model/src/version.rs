//! Which servers take part (R14).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::fault::Reason;

/// A product version such as `12.04.100`. Compared number by number: 12.04.100 is above 6.10.100.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProductVersion {
    numbers: [u32; 3],
    text: String,
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected three numbers with dots between them, such as 12.04.100")]
pub struct InvalidVersion;

impl FromStr for ProductVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let number = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse::<u32>().map_err(|_| InvalidVersion),
            false => Err(InvalidVersion),
        };
        let numbers: Vec<u32> = text.split('.').map(number).collect::<Result<_, _>>()?;
        let numbers = numbers.try_into().map_err(|_| InvalidVersion)?;
        Ok(Self { numbers, text: text.to_owned() })
    }
}

impl TryFrom<String> for ProductVersion {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<ProductVersion> for String {
    fn from(version: ProductVersion) -> String {
        version.text
    }
}

impl fmt::Display for ProductVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How a server takes part in an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// High Availability: takes part from 6.06.100.
    HighAvailability,
    /// Distributed: takes part from 6.10.100.
    Distributed,
    /// Alone: takes no part.
    Standalone,
}

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text {
            "high-availability" => Ok(Self::HighAvailability),
            "distributed" => Ok(Self::Distributed),
            "standalone" => Ok(Self::Standalone),
            _ => Err(InvalidMode),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HighAvailability => "high-availability",
            Self::Distributed => "distributed",
            Self::Standalone => "standalone",
        })
    }
}

/// The text is no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected high-availability, distributed or standalone")]
pub struct InvalidMode;

/// Why a server of this mode and version takes no part; `None` if it does (R14).
pub fn excluded(mode: Mode, version: &ProductVersion) -> Option<Reason> {
    let least = match mode {
        Mode::HighAvailability => [6, 6, 100],
        Mode::Distributed => [6, 10, 100],
        Mode::Standalone => return Some(Reason::Standalone),
    };
    (version.numbers < least).then_some(Reason::UnsupportedVersion)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R14: the documented least versions, compared number by number.
    #[test]
    fn servers_take_part_from_their_least_version() {
        let cases = [
            (Mode::HighAvailability, "6.06.100", None),
            (Mode::HighAvailability, "6.05.999", Some(Reason::UnsupportedVersion)),
            (Mode::Distributed, "6.10.100", None),
            (Mode::Distributed, "6.06.100", Some(Reason::UnsupportedVersion)),
            (Mode::Distributed, "12.04.100", None),
            (Mode::Standalone, "12.04.100", Some(Reason::Standalone)),
        ];
        for (mode, version, expected) in cases {
            assert_eq!(excluded(mode, &version.parse().expect(version)), expected, "{mode} {version}");
        }
        for bad in ["", "6", "6.1", "6.1.x", "6.1.+1", "6.1.1.1", "6..1"] {
            assert!(bad.parse::<ProductVersion>().is_err(), "{bad}");
        }
    }
}
