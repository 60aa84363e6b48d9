//! Ranges of uids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The uids from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UidRange {
    /// The lowest uid.
    pub first: u32,
    /// The highest uid.
    pub last: u32,
}

impl UidRange {
    /// Whether the range has this uid.
    pub fn contains(&self, uid: u32) -> bool {
        (self.first..=self.last).contains(&uid)
    }
}

/// `100000-165535`
impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The text is no range of uids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a range of uids")]
pub struct NotARange;

impl FromStr for UidRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<UidRange, NotARange> {
        let (first, last) = text.split_once('-').ok_or(NotARange)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| NotARange);
        let range = UidRange { first: number(first)?, last: number(last)? };
        if range.first <= range.last { Ok(range) } else { Err(NotARange) }
    }
}
