//! One byte of the packet: how many rules it tells apart, and by how many of its bits a table is
//! hashed.

use crate::tree::U32Key;

/// How many buckets a table by all bits of a byte has.
pub(super) const BUCKETS: usize = 256;

/// The first bits of a byte, 1 to 8 of them, which choose one of a table's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashed {
    pub bits: u8,
}

impl Hashed {
    pub(super) fn divisor(self) -> usize {
        1 << self.bits
    }

    /// The mask of these bits in the byte. The kernel shifts the hash down by itself
    /// (`u32_hash_fold`, net/sched/cls_u32.c).
    pub(super) fn mask(self) -> u8 {
        0xff << (8 - self.bits)
    }

    /// The buckets that a rule is in which compares the byte with this value and mask.
    pub(super) fn buckets(self, value: u8, mask: u8) -> impl Iterator<Item = u8> {
        let first_bits = (0..self.divisor()).map(move |bucket| (bucket << (8 - self.bits)) as u8);
        let meets = move |first_bits: &u8| (first_bits ^ value) & mask & self.mask() == 0;
        first_bits.filter(meets).map(move |first_bits| first_bits >> (8 - self.bits))
    }
}

/// The offset of a key's word, which in rules is never before the network header.
pub(super) fn at(key: &U32Key) -> usize {
    usize::try_from(key.offset).unwrap_or(usize::MAX & !7)
}

/// The bit of a byte in a set of them: rules compare none but the first 44 bytes.
pub(super) fn bit(byte: usize) -> u64 {
    u32::try_from(byte).ok().and_then(|byte| 1_u64.checked_shl(byte)).unwrap_or(u64::MAX)
}

/// How many rules each bucket of a table would hold.
#[derive(Debug)]
pub(super) struct Counts {
    buckets: [u32; BUCKETS],
    rules: usize,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts { buckets: [0; BUCKETS], rules: 0 }
    }
}

impl Counts {
    pub(super) fn add(&mut self, value: u8, mask: u8) {
        self.rules += 1;
        if mask == u8::MAX {
            self.buckets[usize::from(value)] += 1;
            return;
        }
        for (bucket, count) in (0..=u8::MAX).zip(&mut self.buckets) {
            *count += u32::from(bucket & mask == value);
        }
    }

    /// How many of the rules a packet that matches one of them does not meet.
    pub(super) fn worth(&self) -> usize {
        let counts = || self.buckets.iter().map(|count| u64::from(*count));
        let (sum, squares): (u64, u64) = (counts().sum(), counts().map(|n| n * n).sum());
        let met = squares.div_ceil(sum.max(1));
        self.rules.saturating_sub(usize::try_from(met).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_stands_in_each_bucket_that_a_packet_of_its_may_choose() {
        for bits in 1..=8 {
            let hashed = Hashed { bits };
            for (value, mask) in [(0x35, 0xff), (0x30, 0xf0), (0x80, 0x80), (0, 0), (0x05, 0x0f)] {
                let buckets: Vec<u8> = hashed.buckets(value, mask).collect();
                for byte in (0..=u8::MAX).filter(|byte| byte & mask == value) {
                    let bucket = (byte & hashed.mask()) >> (8 - bits);
                    assert!(buckets.contains(&bucket), "{byte:#x} of {value:#x}/{mask:#x}");
                }
            }
        }
        let all: Vec<u8> = Hashed { bits: 8 }.buckets(0x30, 0xf0).collect();
        assert_eq!(all, (0x30..=0x3f).collect::<Vec<u8>>());
        assert_eq!(Hashed { bits: 4 }.buckets(0x30, 0xf0).collect::<Vec<u8>>(), [3]);
    }
}
