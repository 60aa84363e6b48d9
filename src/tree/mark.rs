//! The mark by which a root qdisc is known as ours.

/// The mark in our root qdisc's r2q: `0x5348` ("SH") and a 16-bit hash of the instance's name, so
/// that two instances never take each other's tree. HTB accepts any r2q and uses it only to invent
/// a quantum where a class has none; ours all have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub u32);

impl Mark {
    const PROGRAM: u32 = 0x5348 << 16;
    /// The mark of a shard's qdisc. It names no instance, because the qdisc hangs below a class of
    /// ours.
    pub const SHARD: Mark = Mark(Self::PROGRAM);

    /// FNV-1a of the instance's name, folded to 16 bits.
    pub fn for_instance(name: &str) -> Mark {
        let hash =
            name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Mark(Self::PROGRAM | ((hash >> 16) ^ (hash & 0xffff)))
    }

    /// Whether an r2q is the mark of some instance of this program.
    pub fn is_shaper(r2q: u32) -> bool {
        r2q & 0xffff_0000 == Self::PROGRAM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_marks_of_their_own() {
        let (a, b) = (Mark::for_instance("shaper"), Mark::for_instance("shaper-4026531840"));
        assert_ne!(a, b);
        assert!(Mark::is_shaper(a.0) && Mark::is_shaper(b.0));
        assert!(!Mark::is_shaper(10), "tc's default r2q");
    }
}
