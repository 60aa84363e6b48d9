//! Numbers of bytes.

use std::fmt;
use std::ops::RangeInclusive;

/// A number of bytes: a burst, a quantum, a queue's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Units of volumes in powers of 1000 and 1024, the largest first.
const VOLUMES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl Bytes {
    /// The number in the range that [`Bytes::to_volume`] spells shortest, and of several the first.
    pub fn roundest(range: RangeInclusive<u64>) -> Bytes {
        let (first, last) = (*range.start(), *range.end());
        let steps = VOLUMES.into_iter().flat_map(|(_, size)| {
            // A part of a unit that three decimals or fewer can say.
            [1_u64, 10, 100, 1_000].into_iter().map(move |parts| (size, parts))
        });
        let found = steps.filter_map(|(size, parts)| {
            let (size, parts) = (u128::from(size), u128::from(parts));
            let count = (u128::from(first) * parts).div_ceil(size);
            let is_whole = (count * size).is_multiple_of(parts);
            let bytes = u64::try_from(count * size / parts).ok()?;
            (is_whole && bytes <= last).then_some(Bytes(bytes))
        });
        found.chain([Bytes(first)]).min_by_key(|it| it.to_volume().len()).unwrap_or(Bytes(first))
    }

    /// As a policy spells a volume, so that it can be written there: the shortest way in which at
    /// most three decimals keep it exact (`50GiB`, `1.5TB`).
    pub fn to_volume(self) -> String {
        let bytes = u128::from(self.0);
        let ways = VOLUMES.into_iter().filter_map(|(unit, size)| {
            let size = u128::from(size);
            if bytes < size || bytes * 1_000 % size != 0 {
                return None;
            }
            let (whole, thousandths) = (bytes / size, bytes % size * 1_000 / size);
            Some(match format!(".{thousandths:03}").trim_end_matches('0') {
                "." => format!("{whole}{unit}"),
                decimals => format!("{whole}{decimals}{unit}"),
            })
        });
        ways.min_by_key(String::len).unwrap_or_else(|| "0B".to_string())
    }
}

impl fmt::Display for Bytes {
    /// As `tc` reads it back: plain bytes with the unit `b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}b", self.0)
    }
}
